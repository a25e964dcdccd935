//! A small machine for tests of instructions: some RAM, identity page tables, and a processor in
//! a given mode that runs assembled code until something stops it.
#![expect(unsafe_code, reason = "a physical map hands out pointers to its pages")]

mod numbers;

use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use cloister_sgx::{Capabilities, EpcIndex, Platform};
use cloister_x86::regs::{Cr0, Cr4, Efer, Xfeatures};
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Exception, Gpa, Gpr};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

use crate::lower::{decoder, lower};
use crate::mem::host;
use crate::mode::Mode;
use crate::{CodeTrack, Cpu, Exit, Features, Package, PhysMap, PhysPage, RamPage, Vcpu};

pub use numbers::Numbers;

pub use crate::vmx::fuzzing::vmcs;

/// Where [`Guest::load_code`] puts code, and where the processor starts.
pub const CODE: u64 = 0x8000;
/// A place for data: up to [`STACK`] nothing else is here. Pages around it are mapped one by one.
pub const DATA: u64 = 0x2_0000;
/// The initial stack pointer; 64 KiB below it are free. In real mode, SP is its low half.
pub const STACK: u64 = 0x4_f000;
/// A page of device registers.
pub const DEVICE: u64 = 0x3f_f000;
/// Bytes of RAM, all of them mapped to themselves.
pub const RAM_SIZE: u64 = 0x40_0000;
/// Physical address of the EPC, where the machine has one. It is not mapped.
pub const EPC: u64 = 0x1_0000_0000;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PAGE_TABLES: u64 = 0x4000;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

/// RAM with one device page, and EPC.
struct Ram {
    pages: Box<[Page]>,
    tracks: Box<[CodeTrack]>,
    epc_pages: u32,
}

// SAFETY: the bytes are only reached through raw pointers, by the rules of `mem::host`.
unsafe impl Sync for Ram {}

// SAFETY: pages are aligned, and stay where they are as long as the map lives.
unsafe impl PhysMap for Ram {
    fn page(&self, gpa: Gpa) -> PhysPage {
        if gpa.0 & !0xfff == DEVICE {
            return PhysPage::Mmio;
        }
        let number = usize::try_from(gpa.0 >> 12).unwrap_or(usize::MAX);
        match (self.pages.get(number), self.tracks.get(number)) {
            (Some(page), Some(track)) => PhysPage::Ram(RamPage {
                host: NonNull::from(page).cast(),
                track: NonNull::from(track),
                writable: true,
            }),
            _ => match u32::try_from(gpa.0.wrapping_sub(EPC) >> 12) {
                Ok(index) if index < self.epc_pages => PhysPage::Epc(EpcIndex(index)),
                _ => PhysPage::None,
            },
        }
    }
}

/// The mode that a [`Guest`] starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// 64-bit mode at CPL 3.
    User64,
    /// 64-bit mode at CPL 0.
    Kernel64,
    /// Compatibility mode at CPL 3: 32-bit code with 64-bit page tables.
    User32,
    /// Flat 32-bit protected mode at CPL 0 without paging.
    Flat32,
    /// Real mode, all segment bases 0.
    Real16,
}

/// What stopped a [`Guest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// An exception, which was not delivered: RIP is that of the instruction.
    Exception(Exception),
    /// An exit to the owner.
    Exit(Exit),
}

/// A processor with RAM. See the constants of this module for its layout.
pub struct Guest {
    /// The processor.
    pub vcpu: Vcpu,
    ram: Arc<Ram>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("vcpu", &self.vcpu).finish_non_exhaustive()
    }
}

impl Guest {
    /// A processor in the given mode with RIP at [`CODE`], RSP at [`STACK`], the other
    /// general-purpose registers and the arithmetic flags clear, everything enabled.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self::with_cpus(start, 1)
    }

    /// As [`Guest::new`], in a machine with `cpus` processors, of which this is the first.
    #[must_use]
    pub fn with_cpus(start: Start, cpus: usize) -> Self {
        Self::on_platform(start, cpus, None)
    }

    /// As [`Guest::with_cpus`], with the EPC of `platform` at [`EPC`]. SGX is enabled in no
    /// processor's IA32_FEATURE_CONTROL.
    #[must_use]
    pub fn on_platform(start: Start, cpus: usize, platform: Option<Arc<Platform>>) -> Self {
        let count = (RAM_SIZE >> 12) as usize;
        let ram = Arc::new(Ram {
            pages: (0..count).map(|_| Page(UnsafeCell::new([0; 4096]))).collect(),
            tracks: CodeTrack::array(count),
            epc_pages: platform.as_ref().map_or(0, |platform| {
                u32::try_from(platform.pages()).expect("pages of the EPC are counted in 32 bits")
            }),
        });
        let sgx = platform.as_ref().map_or(Capabilities::NONE, |platform| *platform.capabilities());
        let shared = Package::new(ram.clone(), platform, cpus, 1_000_000_000);
        let features = Features {
            xcr0: Xfeatures::X87 | Xfeatures::SSE | Xfeatures::AVX,
            sgx,
            ..Features::default()
        };
        let mut guest = Self { vcpu: Vcpu::new(shared, 0, features), ram };
        guest.build_page_tables();
        guest.enter(start);
        guest.vcpu.catch_exceptions(true);
        guest
    }

    /// Another processor of the machine, as power-up leaves it.
    #[must_use]
    pub fn processor(&self, id: u32) -> Vcpu {
        Vcpu::new(self.vcpu.cpu.package.clone(), id, self.vcpu.cpu.ctl.features)
    }

    fn build_page_tables(&mut self) {
        const TABLE: u64 = 0b111;
        self.write_u64(PML4, PDPT | TABLE);
        self.write_u64(PDPT, PD | TABLE);
        for table in 0..RAM_SIZE >> 21 {
            self.write_u64(PD + table * 8, (PAGE_TABLES + (table << 12)) | TABLE);
        }
        for page in 0..RAM_SIZE >> 12 {
            self.write_u64(PAGE_TABLES + page * 8, (page << 12) | TABLE);
        }
    }

    fn enter(&mut self, start: Start) {
        let cpu = &mut self.vcpu.cpu;
        cpu.arch.gpr.set_registers(&[0; Gpr::COUNT]);
        cpu.arch.gpr[Gpr::Rsp] = STACK;
        cpu.arch.rip = CODE;
        cpu.arch.cr4 = Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::FSGSBASE | Cr4::PAE;
        cpu.arch.xcr0 = cpu.ctl.features.xcr0;
        cpu.arch.cr0 = Cr0::ET | Cr0::NE;
        let (code, data) = match start {
            Start::User64 => (0x20fb, 0xc0f3),
            Start::Kernel64 => (0x209b, 0xc093),
            Start::User32 => (0xc0fb, 0xc0f3),
            Start::Flat32 => (0xc09b, 0xc093),
            Start::Real16 => (0x009b, 0x0093),
        };
        let limit = if start == Start::Real16 { 0xffff } else { u32::MAX };
        for (number, segment) in cpu.arch.segs[..6].iter_mut().enumerate() {
            let rights = Rights(if number == seg::CS { code } else { data });
            *segment = Segment { selector: 0, base: 0, limit, rights };
        }
        cpu.arch.cpl = rights_dpl(code);
        if start == Start::Real16 {
            cpu.arch.gpr[Gpr::Rsp] &= 0xffff;
        } else {
            cpu.arch.cr0 |= Cr0::PE;
        }
        if matches!(start, Start::User64 | Start::Kernel64 | Start::User32) {
            cpu.arch.cr0 |= Cr0::PG | Cr0::WP;
            cpu.arch.cr3 = PML4;
            cpu.arch.efer = Efer::LME | Efer::LMA | Efer::NXE | Efer::SCE;
        }
        cpu.set_rflags(2);
        cpu.run.tlb.flush_all();
    }

    /// Assembles code for the processor's mode, followed by `ud2`, and puts it at [`CODE`].
    ///
    /// # Panics
    ///
    /// If the assembler refuses it.
    pub fn assemble(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        self.assemble_at(CODE, self.vcpu.cpu.run.mode.bitness(), |assembler| {
            code(assembler)?;
            assembler.ud2()
        });
    }

    /// Assembles code for a mode of 16, 32 or 64 bits and puts it at `address`.
    ///
    /// # Panics
    ///
    /// If the assembler refuses it.
    pub fn assemble_at(
        &mut self,
        address: u64,
        bitness: u32,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        let bytes = CodeAssembler::new(bitness)
            .and_then(|mut assembler| {
                code(&mut assembler)?;
                assembler.assemble(address)
            })
            .expect("assembles");
        self.write(address, &bytes);
    }

    /// Puts machine code at [`CODE`], followed by `ud2`.
    pub fn load_code(&mut self, bytes: &[u8]) {
        self.write(CODE, bytes);
        self.write(CODE + bytes.len() as u64, &[0x0f, 0x0b]);
    }

    /// Runs until an exception or an exit.
    pub fn run(&mut self) -> Ending {
        let exit = self.vcpu.run();
        match self.vcpu.caught_exception() {
            Some(exception) => Ending::Exception(exception),
            None => Ending::Exit(exit),
        }
    }

    /// Writes physical memory, which is also linear memory, as a device does.
    ///
    /// # Panics
    ///
    /// If it reaches beyond RAM.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        for (at, byte) in (address..).zip(data) {
            let PhysPage::Ram(page) = self.ram.page(Gpa(at)) else { panic!("no RAM at {at:#x}") };
            let offset = (at & 0xfff) as usize;
            // SAFETY: `self.ram` keeps page and tracking, and the byte stays in the page.
            unsafe {
                host::store(page.host.as_ptr().add(offset), *byte);
                page.track.as_ref().stored(offset, 1);
            }
        }
    }

    /// Reads physical memory.
    ///
    /// # Panics
    ///
    /// If it reaches beyond RAM.
    #[must_use]
    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        std::array::from_fn(|i| {
            let at = address + i as u64;
            let PhysPage::Ram(page) = self.ram.page(Gpa(at)) else { panic!("no RAM at {at:#x}") };
            // SAFETY: `self.ram` keeps the page, and the byte stays in it.
            unsafe { host::load(page.host.as_ptr().add((at & 0xfff) as usize)) }
        })
    }

    /// Writes 8 bytes of physical memory.
    pub fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    /// Reads 8 bytes of physical memory.
    #[must_use]
    pub fn read_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address))
    }

    /// Replaces the flag bits (present, write, user, ..) of the page that maps `address`.
    pub fn set_page_flags(&mut self, address: u64, flags: u64) {
        let page = address >> 12;
        self.write_u64(PAGE_TABLES + page * 8, (page << 12) | flags);
        self.vcpu.cpu.run.tlb.flush_all();
    }
}

fn rights_dpl(rights: u32) -> u8 {
    // In real mode (rights 9BH) this is 0 as well.
    Rights(rights).dpl()
}

/// Whether a processor with these features has the one instruction, of 64-bit code, whose bytes are
/// `code`.
///
/// # Panics
///
/// If `code` is not one instruction that the decoder knows.
#[must_use]
pub fn executes(code: &[u8], features: &Features) -> bool {
    let instruction = decoder(code, Mode::code64(), features).decode();
    assert!(!instruction.is_invalid() && instruction.len() == code.len(), "{code:02x?}");
    let mut ops = Vec::new();
    lower(code, Mode::code64(), features, true, &mut ops);
    ops[0].mnemonic == instruction.mnemonic()
}

/// Enables a processor's local APIC in its spurious-interrupt vector register.
pub fn enable_apic(cpu: &mut Cpu) {
    cpu.apic_mmio_write(Gpa(0xfee0_00f0), 4, 0x1ff);
}
