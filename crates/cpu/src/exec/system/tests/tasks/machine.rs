//! A guest in 32-bit protected mode with two tasks, whose handlers halt.

use cloister_x86::Gpr;
use cloister_x86::segment::{Rights, Segment, TableRegister, seg};

use super::super::kernel::{CODE32, DATA, DPL3};
use crate::Exit;
use crate::cpu::Cpu;
use crate::state::Activity;
use crate::testing::{CODE, Guest, STACK, Start};

pub(super) const GDT: u64 = 0x6000;
pub(super) const IDT: u64 = 0x7000;
/// Handler of vector n: HLT at `HANDLERS + n * 16`.
pub(super) const HANDLERS: u64 = 0x10_0000;

pub(super) const KERNEL_CODE: u16 = 0x08;
pub(super) const KERNEL_DATA: u16 = 0x10;
pub(super) const USER_CODE: u16 = 0x1b;
pub(super) const USER_DATA: u16 = 0x23;
/// TSS of the task that runs first.
pub(super) const OLD: u16 = 0x28;
/// TSS of the task that is switched to.
pub(super) const NEW: u16 = 0x30;
/// A task gate to [`NEW`], of DPL 0.
pub(super) const GATE: u16 = 0x38;
/// The new task's LDT, if it has one.
pub(super) const LDT: u16 = 0x40;
/// First selector that tests may use.
pub(super) const SPARE: u16 = 0x48;
/// A selector beyond the GDT.
pub(super) const BEYOND: u16 = 0x100;

pub(super) const OLD_TSS: u64 = 0xd000;
pub(super) const NEW_TSS: u64 = 0xe000;
/// Where the LDT is.
pub(super) const LDT_TABLE: u64 = 0xf000;
/// Where the new task starts; a HLT is there.
pub(super) const TASK: u64 = 0xa000;
/// The new task's stack pointer.
pub(super) const TASK_STACK: u64 = 0x3_0000;
/// The new task's stack pointer at CPL 0.
pub(super) const TASK_STACK0: u64 = 0x3_8000;

/// Access bytes of descriptors.
pub(super) const TSS32: u64 = 0x89;
pub(super) const TSS32_BUSY: u64 = 0x8b;
pub(super) const TSS16: u64 = 0x81;
pub(super) const LDT_TYPE: u64 = 0x82;
pub(super) const TASK_GATE: u64 = 0x85;
pub(super) const PRESENT: u64 = 0x80;

/// Offsets in a 32-bit TSS.
pub(super) mod tss {
    pub(crate) const LINK: u64 = 0;
    pub(crate) const ESP0: u64 = 4;
    pub(crate) const SS0: u64 = 8;
    pub(crate) const CR3: u64 = 28;
    pub(crate) const EIP: u64 = 32;
    pub(crate) const EFLAGS: u64 = 36;
    pub(crate) const EAX: u64 = 40;
    pub(crate) const ESP: u64 = 56;
    pub(crate) const ES: u64 = 72;
    pub(crate) const CS: u64 = 76;
    pub(crate) const SS: u64 = 80;
    pub(crate) const DS: u64 = 84;
    pub(crate) const FS: u64 = 88;
    pub(crate) const LDT: u64 = 96;
    pub(crate) const TRAP: u64 = 100;
}

/// A system descriptor.
pub(super) const fn system(access: u64, base: u64, limit: u64) -> u64 {
    (limit & 0xffff) | (base & 0xff_ffff) << 16 | access << 40 | (base & 0xff00_0000) << 32
}

/// A task gate.
pub(super) const fn gate(access: u64, selector: u16) -> u64 {
    (selector as u64) << 16 | access << 40
}

/// The code of a far JMP or CALL to a selector.
pub(super) fn far(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    // The offset does not matter.
    [opcode, 0xf4, 0xf4, 0xf4, 0xf4, low, high]
}

pub(super) const JMP: u8 = 0xea;
pub(super) const CALL: u8 = 0x9a;
pub(super) const HLT: u8 = 0xf4;
pub(super) const IRET: u8 = 0xcf;

pub(super) struct Machine {
    pub(super) guest: Guest,
}

impl Machine {
    /// At CPL 0 in the first task.
    pub(super) fn new() -> Self {
        let mut guest = Guest::new(Start::Flat32);
        guest.vcpu.catch_exceptions(false);
        let mut machine = Self { guest };
        for (selector, descriptor) in [
            (KERNEL_CODE, CODE32),
            (KERNEL_DATA, DATA),
            (USER_CODE, CODE32 | DPL3),
            (USER_DATA, DATA | DPL3),
            (OLD, system(TSS32_BUSY, OLD_TSS, 0x67)),
            (NEW, system(TSS32, NEW_TSS, 0x67)),
            (GATE, gate(TASK_GATE, NEW)),
            (LDT, system(LDT_TYPE, LDT_TABLE, 0x1f)),
        ] {
            machine.set_descriptor(selector, descriptor);
        }
        for vector in 0..=255 {
            let handler = HANDLERS + u64::from(vector) * 16;
            machine.set_gate(vector, 0x8e, handler);
            machine.guest.write(handler, &[HLT]);
        }
        for (at, value) in [
            (tss::ESP0, TASK_STACK0),
            (tss::SS0, KERNEL_DATA.into()),
            (tss::EIP, TASK),
            (tss::EFLAGS, 2),
            (tss::ESP, TASK_STACK),
        ] {
            machine.set_new(at, value as u32);
        }
        machine.set_new_segments(KERNEL_CODE, KERNEL_DATA);
        machine.guest.write(TASK, &[HLT]);
        let cpu = machine.cpu();
        cpu.arch.gdtr = TableRegister { base: GDT, limit: 0xff };
        cpu.arch.idtr = TableRegister { base: IDT, limit: 0x7ff };
        cpu.arch.segs[seg::TR] =
            Segment { selector: OLD, base: OLD_TSS, limit: 0x67, rights: Rights(0x8b) };
        cpu.arch.segs[seg::LDTR].rights = Rights(Rights::UNUSABLE);
        for segment in &mut cpu.arch.segs[..6] {
            segment.selector = KERNEL_DATA;
        }
        cpu.arch.segs[seg::CS].selector = KERNEL_CODE;
        machine
    }

    pub(super) fn cpu(&mut self) -> &mut Cpu {
        &mut self.guest.vcpu.cpu
    }

    /// The machine with code of the first task.
    pub(super) fn with_code(code: &[u8]) -> Self {
        let mut machine = Self::new();
        machine.guest.write(CODE, code);
        machine.guest.write(CODE + code.len() as u64, &[HLT]);
        machine
    }

    pub(super) fn set_descriptor(&mut self, selector: u16, descriptor: u64) {
        self.guest.write_u64(GDT + u64::from(selector & !7), descriptor);
    }

    /// The access byte of a descriptor.
    pub(super) fn access(&self, selector: u16) -> u64 {
        self.guest.read_u64(GDT + u64::from(selector & !7)) >> 40 & 0xff
    }

    pub(super) fn set_gate(&mut self, vector: u8, access: u64, handler: u64) {
        let gate = handler & 0xffff | u64::from(KERNEL_CODE) << 16 | access << 40;
        self.guest.write_u64(IDT + u64::from(vector) * 8, gate | (handler & 0xffff_0000) << 32);
    }

    /// Lets a vector switch to [`NEW`].
    pub(super) fn set_task_gate(&mut self, vector: u8) {
        self.guest.write_u64(IDT + u64::from(vector) * 8, gate(TASK_GATE | 0x60, NEW));
    }

    pub(super) fn set_new(&mut self, offset: u64, value: u32) {
        self.guest.write(NEW_TSS + offset, &value.to_le_bytes());
    }

    /// Sets all segments of the new task.
    pub(super) fn set_new_segments(&mut self, code: u16, data: u16) {
        for at in (tss::ES..tss::LDT).step_by(4) {
            self.set_new(at, data.into());
        }
        self.set_new(tss::CS, code.into());
    }

    pub(super) fn word(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.guest.read(at))
    }

    /// What the first task's TSS holds.
    pub(super) fn old(&self, offset: u64) -> u32 {
        self.word(OLD_TSS + offset)
    }

    pub(super) fn new_link(&self) -> u32 {
        self.word(NEW_TSS + tss::LINK)
    }

    /// Runs until a HLT: the address after it.
    pub(super) fn run(&mut self) -> u64 {
        assert_eq!(self.guest.vcpu.run(), Exit::Hlt);
        self.cpu().set_activity(Activity::Active);
        self.cpu().arch.rip
    }

    /// Runs until a handler halts: its vector, and the error code if it has one, EIP and CS.
    pub(super) fn run_to_handler(&mut self) -> Frame {
        let rip = self.run();
        let offset = rip.wrapping_sub(1).wrapping_sub(HANDLERS);
        assert!(offset < 0x1000 && offset.is_multiple_of(16), "not in a handler: EIP {rip:#x}");
        let vector = (offset / 16) as u8;
        let mut at = self.cpu().arch.gpr[Gpr::Rsp];
        let mut next = || {
            at += 4;
            self.word(at - 4)
        };
        let error_code = matches!(vector, 8 | 10..=14 | 17).then(&mut next);
        Frame { vector, error_code, eip: next(), cs: next() }
    }

    /// Selector in TR.
    pub(super) fn task(&mut self) -> u16 {
        self.cpu().arch.segs[seg::TR].selector
    }

    /// Lets the first task run at CPL 3 with this stack pointer; handlers use [`STACK`].
    pub(super) fn enter_user(&mut self, esp: u64) {
        self.guest.write_u64(OLD_TSS + tss::ESP0, STACK | u64::from(KERNEL_DATA) << 32);
        let cpu = self.cpu();
        for segment in &mut cpu.arch.segs[..6] {
            segment.selector = USER_DATA;
            segment.rights.0 |= 3 << 5;
        }
        cpu.arch.segs[seg::CS].selector = USER_CODE;
        cpu.arch.gpr[Gpr::Rsp] = esp;
        cpu.arch.cpl = 3;
        cpu.update_mode();
    }
}

/// The start of what a handler finds on its stack.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) vector: u8,
    pub(super) error_code: Option<u32>,
    pub(super) eip: u32,
    pub(super) cs: u32,
}
