//! Runs cases on the software processor: instruction by instruction, or as blocks, interpreted or
//! translated.
#![expect(unsafe_code, reason = "gives the processor pointers to its memory")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloister_cpu::{CodeTrack, Features, Package, PhysMap, PhysPage, RamPage, Stop, Vcpu};
use cloister_float::F80;
use cloister_jit::Jit;
use cloister_x86::regs::{Cr0, Cr4, Efer, Xfeatures};
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Exception, Gpa, Vector};

use super::case::{CODE, CODE_ROOM, Case, DATA, DATA_LEN, Fault, Mode, RETIRED};
use super::host::Host;
use super::native::has_error_code;
use super::segments;

const PAGES: usize = 64;
const CODE_GPA: u64 = 0x10000;
const DATA_GPA: u64 = 0x20000;
const TABLES: u64 = 0x1000;
/// The descriptor table lies where the host's does: in the kernel's half.
const GDT: u64 = 0xffff_8000_0000_0000;
const GDT_GPA: u64 = 0x12000;
/// The local descriptor table is in the same page.
const LDT: u64 = 0x400;
/// Limit of Linux's descriptor table.
const GDT_LIMIT: u16 = 127;
/// What Linux has in it up to its task state segment: 32-bit and 64-bit kernel code, kernel data,
/// 32-bit user code, user data, 64-bit user code, all accessed.
const DESCRIPTORS: [u64; 9] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0,
    0x0000_8b00_0000_4087,
];

/// Where the processor looks for the gate of breakpoints, in vain: there are no gates.
const GATE: u64 = 16 * Vector::Bp as u64;

/// RAM from guest-physical address 0.
struct Ram {
    bytes: *mut u8,
    tracks: Box<[CodeTrack]>,
    /// Where the next page table goes.
    next_table: AtomicU64,
}

// SAFETY: the memory is reached through raw pointers with atomic or volatile accesses only.
unsafe impl Send for Ram {}
// SAFETY: the same holds for any number of threads at once.
unsafe impl Sync for Ram {}

// SAFETY: the bytes are page-aligned and never freed.
unsafe impl PhysMap for Ram {
    fn page(&self, gpa: Gpa) -> PhysPage {
        let page = (gpa.0 >> 12) as usize;
        if page >= PAGES {
            return PhysPage::None;
        }
        PhysPage::Ram(RamPage {
            // SAFETY: within the allocation.
            host: NonNull::new(unsafe { self.bytes.add(page * 4096) }).unwrap(),
            track: NonNull::from(&self.tracks[page]),
            writable: true,
        })
    }
}

/// How code gets to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Interpreted,
    /// Each block from its first run on.
    Translated,
}

/// A software processor with the same address space as the native child.
pub(crate) struct Soft {
    vcpu: Vcpu,
    ram: Arc<Ram>,
}

impl Soft {
    /// A processor in 64-bit user mode.
    pub(crate) fn new(host: &Host, has_ldt: bool, way: Way) -> Self {
        let layout = std::alloc::Layout::from_size_align(PAGES * 4096, 4096).unwrap();
        // SAFETY: the layout has a size.
        let bytes = unsafe { std::alloc::alloc_zeroed(layout) };
        let ram = Arc::new(Ram {
            bytes,
            tracks: CodeTrack::array(PAGES),
            next_table: AtomicU64::new(TABLES + 0x1000),
        });
        let package = Package::new(ram.clone(), None, 1, 1_000_000_000);
        let mut features = Features::default();
        features.xcr0.set(Xfeatures::AVX, host.has_avx());
        let mut vcpu = Vcpu::new(package, 0, features);
        let soft_ram = &ram;
        soft_ram.map(CODE & !0xfff, CODE_GPA, 5);
        for page in 0..DATA_LEN as u64 / 4096 {
            soft_ram.map(DATA + page * 4096, DATA_GPA + page * 4096, 7);
        }
        soft_ram.map(GDT, GDT_GPA, 3);
        for (n, descriptor) in DESCRIPTORS.iter().enumerate() {
            soft_ram.write(GDT_GPA + 8 * n as u64, &descriptor.to_le_bytes());
        }
        for (n, entry) in segments::TABLE.iter().enumerate() {
            soft_ram.write(GDT_GPA + LDT + 8 * n as u64, &entry.descriptor().to_le_bytes());
        }
        let mut arch = vcpu.cpu.state().clone();
        (arch.gdtr.base, arch.gdtr.limit) = (GDT, GDT_LIMIT);
        arch.segs[seg::LDTR].rights = Rights(Rights::UNUSABLE);
        if has_ldt {
            arch.segs[seg::LDTR].rights = Rights(0x82);
            arch.segs[seg::LDTR].base = GDT + LDT;
            arch.segs[seg::LDTR].limit = 8 * segments::TABLE.len() as u32 - 1;
        }
        arch.cr0 = Cr0::PE | Cr0::PG | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::ET | Cr0::MP;
        arch.cr3 = TABLES;
        arch.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::FSGSBASE;
        arch.efer = Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        arch.xcr0 = features.xcr0;
        // A task state segment that ends before its I/O map base: every port is #GP, and no case
        // meets memory that the host's process does not have.
        arch.segs[seg::TR].limit = 0x65;
        arch.cpl = 3;
        soft_ram.write(CODE_GPA, &[0xcc; 4096]);
        vcpu.cpu.set_state(arch);
        vcpu.catch_exceptions(true);
        if way == Way::Translated {
            let jit = Jit::new().expect("the host runs generated code");
            vcpu.set_translator(Box::new(jit), 0);
        }
        Self { vcpu, ram }
    }

    /// Runs a case of one instruction and replaces its state by the one that it led to.
    pub(crate) fn run(&mut self, case: &mut Case) {
        self.load(case);
        let mut outcome = self.vcpu.execute_one();
        // A string instruction stops between iterations now and then.
        let entry = case.entry();
        while outcome == Err(Stop::JUMP) && self.vcpu.cpu.state().rip == entry {
            outcome = self.vcpu.execute_one();
        }
        case.fault = match outcome {
            Ok(()) | Err(Stop::JUMP) => Fault { vector: RETIRED, code: 0, address: 0 },
            Err(Stop::FAULT) => fault(self.vcpu.cpu.take_fault().unwrap()),
            Err(other) => {
                panic!("{other:?} {:?} {:02x?}", self.vcpu.cpu.take_exit(), case.bytes())
            }
        };
        self.unload(case);
    }

    /// Puts a case's memory and state in place.
    pub(crate) fn load(&mut self, case: &Case) {
        self.ram.write(CODE_GPA + (CODE & 0xfff), case.bytes());
        self.ram.map(CODE & !0xfff, CODE_GPA, if case.writes_code { 7 } else { 5 });
        self.ram.write(DATA_GPA, &case.state.data);
        self.install(case);
    }

    /// Takes the state that the case led to, and the code away.
    pub(crate) fn unload(&mut self, case: &mut Case) {
        self.collect(case);
        let code_at = CODE_GPA + (CODE & 0xfff);
        if case.writes_code {
            self.ram.read(code_at, &mut case.code);
            self.ram.write(CODE_GPA, &[0xcc; 4096]);
        } else {
            self.ram.write(code_at, &[0xcc; CODE_ROOM][..case.code_len]);
        }
    }

    /// Runs a case to its end, block by block, and replaces its state by the one that it led to: that
    /// of the breakpoint after its code, of a fault, or of a branch to where there is no code.
    pub(crate) fn run_blocks(&mut self, case: &mut Case) {
        self.load(case);
        let exit = self.vcpu.run();
        let retired = Fault { vector: RETIRED, code: 0, address: 0 };
        case.fault = match self.vcpu.caught_exception() {
            None => panic!("{exit:?} {:02x?}", case.bytes()),
            Some(exception) => {
                let page_fault = exception.vector == Vector::Pf;
                let fetched = page_fault && exception.error_code & 0x10 != 0;
                let breakpoint =
                    page_fault && exception.error_code & 4 == 0 && exception.address == GATE;
                if fetched || breakpoint { retired } else { fault(exception) }
            }
        };
        self.unload(case);
    }

    /// The next instruction of a case that is loaded, where its page has it: at most 15 bytes.
    pub(crate) fn next(&self, mode: Mode) -> Option<(u64, [u8; 15])> {
        let state = self.vcpu.cpu.state();
        let base = if mode.is_64() { 0 } else { state.segs[seg::CS].base };
        let offset = state.rip.wrapping_add(base).wrapping_sub(CODE & !0xfff);
        let mut bytes = [0; 15];
        (offset <= 4096 - 15).then(|| {
            self.ram.read(CODE_GPA + offset, &mut bytes);
            (state.rip, bytes)
        })
    }

    /// Executes the next instruction, or an iteration of it, of a case that is loaded: its fault, if it
    /// has one.
    pub(crate) fn step(&mut self) -> Option<Fault> {
        match self.vcpu.execute_one() {
            Ok(()) | Err(Stop::JUMP) => None,
            Err(Stop::FAULT) => Some(fault(self.vcpu.cpu.take_fault().unwrap())),
            Err(other) => panic!("{other:?} {:?}", self.vcpu.cpu.take_exit()),
        }
    }

    /// Blocks that were translated so far.
    pub(crate) fn translated(&self) -> u64 {
        self.vcpu.statistics().counts().blocks
    }

    /// CL of a case that is loaded.
    pub(crate) fn count(&self) -> u8 {
        self.vcpu.cpu.state().gpr.registers()[1] as u8
    }

    fn install(&mut self, case: &Case) {
        let mut arch = self.vcpu.cpu.state().clone();
        let state = &case.state;
        arch.gpr.set_registers(&state.gpr);
        arch.rip = case.entry();
        arch.set_rflags(state.rflags);
        for (n, &selector) in state.selectors.iter().enumerate() {
            arch.segs[n] = segment(selector);
        }
        if case.mode == Mode::Bits64 {
            arch.segs[seg::CS].rights = Rights(0xa0fb);
            arch.segs[seg::FS].base = state.fs_base;
            arch.segs[seg::GS].base = state.gs_base;
        }
        let fx = &state.fx;
        let fpu = &mut arch.fpu;
        fpu.control = fx.control;
        fpu.top = (fx.status >> 11 & 7) as u8;
        fpu.status = fx.status & !0x3800;
        fpu.tags = fx.tags;
        (fpu.fop, fpu.fip, fpu.fdp) = (fx.fop, fx.fip, fx.fdp);
        for (n, st) in fx.st.iter().enumerate() {
            fpu.regs[(n + usize::from(fpu.top)) & 7] = F80 {
                mantissa: u64::from_le_bytes(st[..8].try_into().unwrap()),
                sign_exp: u16::from_le_bytes([st[8], st[9]]),
            };
        }
        arch.vector.mxcsr = fx.mxcsr;
        for (ymm, xmm) in arch.vector.ymm.iter_mut().zip(&fx.xmm) {
            ymm[0] = u64::from_le_bytes(xmm[..8].try_into().unwrap());
            ymm[1] = u64::from_le_bytes(xmm[8..].try_into().unwrap());
        }
        for (ymm, high) in arch.vector.ymm.iter_mut().zip(&state.high) {
            ymm[2] = u64::from_le_bytes(high[..8].try_into().unwrap());
            ymm[3] = u64::from_le_bytes(high[8..].try_into().unwrap());
        }
        self.vcpu.cpu.set_state(arch);
    }

    fn collect(&self, case: &mut Case) {
        let arch = self.vcpu.cpu.state();
        let state = &mut case.state;
        state.gpr = arch.gpr.registers();
        state.rip = arch.rip;
        state.rflags = arch.rflags();
        if case.mode == Mode::Bits64 {
            state.fs_base = arch.segs[seg::FS].base;
            state.gs_base = arch.segs[seg::GS].base;
        } else {
            state.selectors = std::array::from_fn(|n| arch.segs[n].selector);
        }
        let fx = &mut state.fx;
        fx.control = arch.fpu.control;
        fx.status = arch.fpu.status & !0x3800 | u16::from(arch.fpu.top) << 11;
        fx.tags = arch.fpu.tags;
        (fx.fop, fx.fip, fx.fdp) = (arch.fpu.fop, arch.fpu.fip, arch.fpu.fdp);
        for (n, st) in fx.st.iter_mut().enumerate() {
            let reg = arch.fpu.regs[(n + usize::from(arch.fpu.top)) & 7];
            st[..8].copy_from_slice(&reg.mantissa.to_le_bytes());
            st[8..10].copy_from_slice(&reg.sign_exp.to_le_bytes());
        }
        fx.mxcsr = arch.vector.mxcsr;
        for (ymm, xmm) in arch.vector.ymm.iter().zip(&mut fx.xmm) {
            xmm[..8].copy_from_slice(&ymm[0].to_le_bytes());
            xmm[8..].copy_from_slice(&ymm[1].to_le_bytes());
        }
        for (ymm, high) in arch.vector.ymm.iter().zip(&mut state.high) {
            high[..8].copy_from_slice(&ymm[2].to_le_bytes());
            high[8..].copy_from_slice(&ymm[3].to_le_bytes());
        }
        self.ram.read(DATA_GPA, &mut state.data);
    }
}

/// An exception in the form of cases.
fn fault(exception: Exception) -> Fault {
    let vector = exception.vector as u64;
    Fault {
        vector,
        code: if has_error_code(vector) { u64::from(exception.error_code) } else { 0 },
        address: if vector == 14 { exception.address } else { 0 },
    }
}

/// A segment register that holds a selector of a case.
fn segment(selector: u16) -> Segment {
    let Some(entry) = segments::find(selector) else {
        return Segment { selector, rights: Rights(Rights::UNUSABLE), ..Segment::default() };
    };
    let descriptor = entry.descriptor();
    let rights = (descriptor >> 40 & 0xf0ff) as u32;
    Segment { selector, base: entry.base, limit: entry.last(), rights: Rights(rights) }
}

impl Ram {
    /// Maps a page with the low bits `rights` in its entry.
    fn map(&self, la: u64, gpa: u64, rights: u64) {
        let mut table = TABLES;
        for level in (1..4).rev() {
            let slot = table + (la >> (12 + 9 * level) & 0x1ff) * 8;
            let mut entry = [0; 8];
            self.read(slot, &mut entry);
            table = u64::from_le_bytes(entry) & !0xfff;
            if table == 0 {
                table = self.next_table.fetch_add(0x1000, Ordering::Relaxed);
                assert!(table < CODE_GPA, "room for tables");
                self.write(slot, &(table | 7).to_le_bytes());
            }
        }
        self.write(table + (la >> 12 & 0x1ff) * 8, &(gpa | rights).to_le_bytes());
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        assert!(gpa as usize + bytes.len() <= PAGES * 4096);
        for (i, chunk) in bytes.chunks(4096 - (gpa & 0xfff) as usize).enumerate() {
            let at = gpa + i as u64 * 4096;
            // SAFETY: in bounds; nothing runs meanwhile.
            unsafe {
                self.bytes.add(at as usize).copy_from_nonoverlapping(chunk.as_ptr(), chunk.len());
            }
            self.tracks[(at >> 12) as usize].stored((at & 0xfff) as usize, chunk.len());
        }
    }

    fn read(&self, gpa: u64, out: &mut [u8]) {
        assert!(gpa as usize + out.len() <= PAGES * 4096);
        // SAFETY: in bounds; nothing runs meanwhile.
        unsafe {
            out.as_mut_ptr().copy_from_nonoverlapping(self.bytes.add(gpa as usize), out.len());
        }
    }
}
