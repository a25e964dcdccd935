//! The architectural state of a logical processor, as plain data.
//!
//! [`ArchState`] is what software can observe of a processor between two instructions, apart from
//! the local APIC, enclave mode and the memory that it shares with others. A debugger, a snapshot
//! or another accelerator exchanges exactly this type with a processor, by
//! [`Cpu::state`](crate::Cpu::state) and [`Cpu::set_state`](crate::Cpu::set_state).

mod msr;
mod reset;
pub(crate) mod vector;
mod vmx;
pub(crate) mod x87;

use std::ops::{Deref, DerefMut, Index, IndexMut};

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags, Xfeatures};
use cloister_x86::{Gpr, Segment, TableRegister};

pub use msr::Msrs;
pub use vector::VectorState;
pub use vmx::VmxState;
pub use x87::Fpu;

use crate::flags::Flags;

/// The general-purpose registers in encoding order, followed by slots for the instruction that
/// runs (see [`crate::op`]), which are not part of the state: they take no part in comparisons.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub struct Gprs([u64; Gprs::SLOTS]);

impl Gprs {
    /// Registers and further slots: a power of two, so that a masked number needs no check.
    pub const SLOTS: usize = 32;

    /// RAX to R15 with these values, in encoding order.
    #[must_use]
    pub const fn new(registers: [u64; Gpr::COUNT]) -> Self {
        let mut slots = [0; Self::SLOTS];
        slots.split_at_mut(Gpr::COUNT).0.copy_from_slice(&registers);
        Self(slots)
    }

    /// RAX to R15.
    #[must_use]
    pub fn registers(&self) -> [u64; Gpr::COUNT] {
        std::array::from_fn(|n| self.0[n])
    }

    /// Replaces RAX to R15.
    pub fn set_registers(&mut self, registers: &[u64; Gpr::COUNT]) {
        self.0[..Gpr::COUNT].copy_from_slice(registers);
    }
}

impl PartialEq for Gprs {
    fn eq(&self, other: &Self) -> bool {
        self.0[..Gpr::COUNT] == other.0[..Gpr::COUNT]
    }
}

impl Eq for Gprs {}

impl Deref for Gprs {
    type Target = [u64; Gprs::SLOTS];

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Gprs {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Index<Gpr> for Gprs {
    type Output = u64;

    #[inline(always)]
    fn index(&self, register: Gpr) -> &u64 {
        &self.0[register.index()]
    }
}

impl IndexMut<Gpr> for Gprs {
    #[inline(always)]
    fn index_mut(&mut self, register: Gpr) -> &mut u64 {
        &mut self.0[register.index()]
    }
}

impl Index<usize> for Gprs {
    type Output = u64;

    #[inline(always)]
    fn index(&self, slot: usize) -> &u64 {
        &self.0[slot]
    }
}

impl IndexMut<usize> for Gprs {
    #[inline(always)]
    fn index_mut(&mut self, slot: usize) -> &mut u64 {
        &mut self.0[slot]
    }
}

/// Whether a processor executes instructions (the activity states of SDM Vol. 3C, 24.4.2, that
/// this one has).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activity {
    /// It does.
    #[default]
    Active,
    /// It executed HLT: an interrupt or NMI wakes it.
    Halted,
    /// It waits for a start-up IPI.
    WaitForSipi,
}

/// What the instruction just executed holds off for one instruction (SDM Vol. 3A, 6.8.1 and
/// 6.8.3; the interruptibility state of Vol. 3C, table 24-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shadow {
    /// Nothing.
    #[default]
    None,
    /// STI set IF: maskable interrupts.
    Sti,
    /// MOV SS or POP SS: interrupts and debug exceptions.
    MovSs,
}

/// The architectural state of a logical processor.
#[derive(Clone, Debug, PartialEq)]
#[repr(C)]
pub struct ArchState {
    /// RAX to R15.
    pub gpr: Gprs,
    /// Instruction pointer; stale while a block runs.
    pub rip: u64,
    /// Arithmetic flags.
    pub flags: Flags,
    /// The other flags in RFLAGS positions (never an arithmetic one; bit 1 is implied).
    pub system_flags: Rflags,
    /// Current privilege level.
    pub cpl: u8,
    /// ES, CS, SS, DS, FS, GS, TR, LDTR: see [`cloister_x86::segment::seg`].
    pub segs: [Segment; 8],
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: Xfeatures,
    /// PDPTE registers of PAE paging (SDM Vol. 3A, 4.4.1).
    pub pdptes: [u64; 4],
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6 bits of the debug trap that is due before the next instruction (pending debug
    /// exceptions: SDM Vol. 3C, 24.4.2).
    pub debug_pending: u64,
    /// What is held off for the next instruction.
    pub shadow: Shadow,
    /// An NMI was delivered and no IRET came since.
    pub nmi_blocked: bool,
    /// Whether it executes.
    pub activity: Activity,
    /// Model-specific registers that are plain storage.
    pub msrs: Msrs,
    /// x87 registers, which are the MMX registers too.
    pub fpu: Fpu,
    /// XMM/YMM registers and MXCSR.
    pub vector: VectorState,
    /// VMX operation.
    pub vmx: VmxState,
}

impl ArchState {
    /// All of RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.flags.bits() | self.system_flags.bits() | 2
    }

    /// Replaces all of RFLAGS, without any privilege check.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags.set_bits(value);
        self.system_flags = Rflags::from_bits_truncate(value & !Flags::MASK);
    }

    /// I/O privilege level.
    #[must_use]
    pub(crate) fn iopl(&self) -> u8 {
        (self.system_flags.bits() >> 12 & 3) as u8
    }

    /// Whether IA-32e mode is active.
    #[inline(always)]
    #[must_use]
    pub(crate) fn long_mode(&self) -> bool {
        self.efer.contains(Efer::LMA)
    }
}
