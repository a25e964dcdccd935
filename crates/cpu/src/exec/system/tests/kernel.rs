//! A guest with a GDT, a TSS and an IDT whose handlers halt.

use cloister_x86::Gpr;
use cloister_x86::segment::{Rights, Segment, TableRegister, seg};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

use crate::exec::system::descriptor::system_type;
use crate::state::Activity;
use crate::testing::{CODE, Guest, Start};
use crate::{Exit, Vcpu};

pub(crate) const GDT: u64 = 0x6000;
pub(crate) const TSS: u64 = 0x6800;
pub(crate) const IDT: u64 = 0x7000;
/// Handler of vector n: HLT at `HANDLERS + n * 16`.
pub(crate) const HANDLERS: u64 = 0x10_0000;
pub(crate) const RSP0: u64 = 0x12_0000;
pub(crate) const IST1: u64 = 0x13_0000;

pub(crate) const KERNEL_CODE: u16 = 0x08;
pub(crate) const KERNEL_DATA: u16 = 0x10;
/// 32-bit code of the user; base of SYSRET's selectors.
pub(crate) const USER_CODE32: u16 = 0x1b;
pub(crate) const USER_DATA: u16 = 0x23;
pub(crate) const USER_CODE: u16 = 0x2b;
pub(crate) const TSS_SELECTOR: u16 = 0x30;
/// First selector that tests may use.
pub(crate) const SPARE: u16 = 0x40;

pub(crate) const CODE64: u64 = 0x00af_9b00_0000_ffff;
pub(crate) const CODE32: u64 = 0x00cf_9b00_0000_ffff;
pub(crate) const DATA: u64 = 0x00cf_9300_0000_ffff;
/// DPL 3.
pub(crate) const DPL3: u64 = 3 << 45;
/// The present bit.
pub(crate) const PRESENT: u64 = 1 << 47;

/// A guest in 64-bit mode with tables.
pub(crate) struct Kernel {
    pub(crate) guest: Guest,
}

/// What a handler finds on its stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) vector: u8,
    pub(crate) error_code: Option<u64>,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

impl Kernel {
    /// A kernel at CPL 0 on processor 0 of one.
    pub(crate) fn new() -> Self {
        Self::with_cpus(1)
    }

    pub(crate) fn with_cpus(cpus: usize) -> Self {
        Self::on(Guest::with_cpus(Start::Kernel64, cpus))
    }

    /// A kernel on this machine.
    pub(crate) fn on(mut guest: Guest) -> Self {
        guest.vcpu.catch_exceptions(false);
        let mut kernel = Self { guest };
        kernel.build_tables();
        kernel.set_level(0);
        kernel
    }

    fn build_tables(&mut self) {
        for (selector, descriptor) in [
            (KERNEL_CODE, CODE64),
            (KERNEL_DATA, DATA),
            (USER_CODE32, CODE32 | DPL3),
            (USER_DATA, DATA | DPL3),
            (USER_CODE, CODE64 | DPL3),
            (TSS_SELECTOR, 0x0000_8b00_0000_0067 | TSS << 16),
        ] {
            self.set_descriptor(selector, descriptor);
        }
        self.guest.write_u64(TSS + 4, RSP0);
        self.guest.write_u64(TSS + 36, IST1);
        for vector in 0..=255 {
            self.set_gate(vector, HANDLERS + u64::from(vector) * 16, system_type::INTERRUPT_GATE);
            self.guest.write(HANDLERS + u64::from(vector) * 16, &[0xf4]);
        }
        let cpu = &mut self.guest.vcpu.cpu;
        cpu.arch.gdtr = TableRegister { base: GDT, limit: 0x7ff };
        cpu.arch.idtr = TableRegister { base: IDT, limit: 0xfff };
        cpu.arch.segs[seg::TR] =
            Segment { selector: TSS_SELECTOR, base: TSS, limit: 0x67, rights: Rights(0x8b) };
        cpu.arch.segs[seg::LDTR].rights = Rights(Rights::UNUSABLE);
    }

    /// Puts eight bytes into the GDT.
    pub(crate) fn set_descriptor(&mut self, selector: u16, descriptor: u64) {
        self.guest.write_u64(GDT + u64::from(selector & !7), descriptor);
    }

    /// Points an IDT entry at a handler.
    pub(crate) fn set_gate(&mut self, vector: u8, handler: u64, kind: u32) {
        let low = (handler & 0xffff)
            | u64::from(KERNEL_CODE) << 16
            | u64::from(0x80 | kind) << 40
            | (handler & 0xffff_0000) << 32;
        self.set_gate_words(vector, low, handler >> 32);
    }

    pub(crate) fn set_gate_words(&mut self, vector: u8, low: u64, high: u64) {
        self.guest.write_u64(IDT + u64::from(vector) * 16, low);
        self.guest.write_u64(IDT + u64::from(vector) * 16 + 8, high);
    }

    pub(crate) fn gate_low(&self, vector: u8) -> u64 {
        self.guest.read_u64(IDT + u64::from(vector) * 16)
    }

    /// Lets code at privilege level `cpl` run next, with the flat segments of that level.
    pub(crate) fn set_level(&mut self, cpl: u8) {
        let cpu = &mut self.guest.vcpu.cpu;
        let (code, data) =
            if cpl == 0 { (KERNEL_CODE, KERNEL_DATA) } else { (USER_CODE, USER_DATA) };
        let dpl = u32::from(cpl) << 5;
        for (index, segment) in cpu.arch.segs[..6].iter_mut().enumerate() {
            let (selector, rights) = if index == seg::CS { (code, 0xa09b) } else { (data, 0xc093) };
            *segment = Segment { selector, base: 0, limit: u32::MAX, rights: Rights(rights | dpl) };
        }
        cpu.arch.cpl = cpl;
        cpu.update_mode();
    }

    /// Assembles 64-bit code at [`CODE`], followed by HLT.
    pub(crate) fn assemble(
        &mut self,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        self.guest.assemble_at(CODE, 64, |a| {
            code(a)?;
            a.hlt()
        });
    }

    pub(crate) fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.guest.vcpu
    }

    /// Runs until a handler halts, and returns what it found.
    pub(crate) fn run_to_handler(&mut self) -> Frame {
        let exit = self.guest.vcpu.run();
        assert_eq!(exit, Exit::Hlt);
        self.frame()
    }

    /// The frame of the handler that has just halted.
    pub(crate) fn frame(&self) -> Frame {
        let cpu = &self.guest.vcpu.cpu;
        let offset = cpu.arch.rip.wrapping_sub(1).wrapping_sub(HANDLERS);
        assert!(
            offset < 0x1000 && offset.is_multiple_of(16),
            "not in a handler: RIP {:#x}",
            cpu.arch.rip
        );
        let vector = (offset / 16) as u8;
        let has_code = matches!(vector, 8 | 10..=14 | 17);
        let mut at = cpu.arch.gpr[Gpr::Rsp];
        let mut next = || {
            at += 8;
            self.guest.read_u64(at - 8)
        };
        Frame {
            vector,
            error_code: has_code.then(&mut next),
            rip: next(),
            cs: next(),
            rflags: next(),
            rsp: next(),
            ss: next(),
        }
    }

    /// Continues after the HLT that ended the last run.
    pub(crate) fn wake(&mut self) {
        self.guest.vcpu.cpu.set_activity(Activity::Active);
    }
}
