//! A row of the table, and what it is asked.

use iced_x86::Instruction;

use super::super::address::address_of;
use super::super::case::{Case, RETIRED};
use super::processor::{Processor, Vendor};

/// Something that processors may differ in.
pub(crate) struct Row {
    /// Its name in reports.
    pub(crate) name: &'static str,
    pub(crate) instructions: &'static str,
    /// What differs, and when.
    pub(crate) differs: &'static str,
    /// The section of a manual that allows it, or that says nothing.
    pub(crate) why: &'static str,
    pub(crate) hosts: Hosts,
    /// Whether the row allows a difference.
    pub(crate) allows: fn(&Trial<'_>, Part) -> bool,
}

/// Which hosts may differ from the interpreter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hosts {
    Any,
    Amd,
    Wide,
    UpdatingFdp,
    KeepingFpuSegments,
}

impl Hosts {
    /// As the table says it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Amd => "AMD, Hygon",
            Self::Wide => "with LA57",
            Self::UpdatingFdp => "without FDP_EXCPTN_ONLY",
            Self::KeepingFpuSegments => "without the deprecation of FPU CS and DS",
        }
    }

    /// Whether a processor is among them.
    pub(crate) fn include(self, processor: &Processor) -> bool {
        match self {
            Self::Any => true,
            Self::Amd => processor.vendor == Vendor::Amd,
            Self::Wide => processor.la57,
            Self::UpdatingFdp => !processor.fdp_on_exceptions_only,
            Self::KeepingFpuSegments => !processor.deprecates_fpu_cs_ds,
        }
    }
}

/// The part of an outcome that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The vector of the exception, or whether there was one.
    Vector,
    ErrorCode,
    /// CR2.
    Address,
    Rip,
    /// By number in encoding order.
    Gpr(usize),
    /// By number in encoding order.
    Selector(usize),
    FsBase,
    GsBase,
    /// A bit of RFLAGS.
    Flag(u64),
    /// The x87 control word.
    Control,
    /// A bit of the x87 status word.
    Status(u16),
    Tags,
    Fop,
    Fip,
    Fdp,
    /// ST(n).
    St(usize),
    /// A bit of MXCSR.
    Mxcsr(u32),
    Xmm(usize),
    /// The upper half of a YMM register.
    High(usize),
    /// A byte of scratch memory.
    Byte(usize),
    /// The code, which stored to itself.
    Code,
}

/// An instruction that ran on both sides.
pub(crate) struct Trial<'a> {
    pub(crate) instruction: &'a Instruction,
    pub(crate) before: &'a Case,
    pub(crate) native: &'a Case,
    pub(crate) soft: &'a Case,
}

impl Trial<'_> {
    /// The vectors that the host and the interpreter ended with.
    pub(crate) fn vectors(&self) -> (u64, u64) {
        (self.native.fault.vector, self.soft.fault.vector)
    }

    /// Whether both retired the instruction.
    pub(crate) fn retired(&self) -> bool {
        self.vectors() == (RETIRED, RETIRED)
    }

    /// Whether both ended with a fault of the memory access: #SS, #GP or #PF.
    pub(crate) fn access_faults(&self) -> bool {
        let (native, soft) = self.vectors();
        is_access_fault(native) && is_access_fault(soft)
    }

    /// The byte of the memory operand that a byte of scratch memory is.
    pub(crate) fn operand_byte(&self, byte: usize) -> u64 {
        let at = address_of(self.instruction, self.before.mode, &self.before.state);
        (super::super::case::DATA + byte as u64).wrapping_sub(at)
    }
}

/// #SS, #GP and #PF.
pub(crate) fn is_access_fault(vector: u64) -> bool {
    matches!(vector, 12..=14)
}

/// The number of the row that allows a difference from a processor.
pub(crate) fn excuse(processor: &Processor, trial: &Trial<'_>, part: Part) -> Option<usize> {
    super::ROWS.iter().position(|row| row.hosts.include(processor) && (row.allows)(trial, part))
}
