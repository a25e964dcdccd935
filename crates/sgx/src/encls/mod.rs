//! ENCLS leaf functions (SDM Vol. 3D, 38.3), one file each, in the order of their numbers.

mod eadd;
mod eaug;
mod eblock;
mod ecreate;
mod edbgrd;
mod edbgwr;
mod eextend;
mod einit;
mod eld;
mod emodpr;
mod emodt;
mod epa;
mod erdinfo;
mod eremove;
mod etrack;
mod etrackc;
mod ewb;

pub(crate) use einit::read_secs;

use cloister_x86::Exception;

use crate::capabilities::SgxFeatures;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::status::SgxStatus;

/// The registers of an ENCLS or ENCLV leaf. In 64-bit mode whole; otherwise their low halves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EnclsRegs {
    /// EAX: the leaf number.
    pub eax: u32,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// Whether the processor is in 64-bit mode (IA32_EFER.LMA and CS.L).
    pub mode64: bool,
}

/// How a leaf that completed changes the registers. RIP then moves past the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeafOutcome {
    /// For leaves that report: what goes to RAX, and through [`SgxStatus::flags`] to RFLAGS. Other
    /// leaves change neither RAX nor flags.
    pub status: Option<SgxStatus>,
    /// RBX, if the leaf returns something there.
    pub rbx: Option<u64>,
    /// Whether the leaf reports its status as information, in CF, although other leaves report
    /// the same status as an error, in ZF: ERDINFO does so with [`SgxStatus::PgInvld`].
    pub information: bool,
}

impl LeafOutcome {
    /// A leaf that reports `status`.
    pub(crate) const fn status(status: SgxStatus) -> Self {
        Self { status: Some(status), rbx: None, information: false }
    }

    /// A leaf that reports `status` as information.
    pub(crate) const fn information(status: SgxStatus) -> Self {
        Self { status: Some(status), rbx: None, information: true }
    }

    /// Applies the outcome to RAX, RBX and RFLAGS.
    pub fn apply(&self, rax: &mut u64, rbx: &mut u64, rflags: &mut u64) {
        if let Some(status) = self.status {
            *rax = status.rax();
            *rflags = if self.information {
                status.flags_as(true, *rflags)
            } else {
                status.flags(*rflags)
            };
        }
        if let Some(value) = self.rbx {
            *rbx = value;
        }
    }
}

/// Executes ENCLS leaf `regs.eax`, after the processor's own checks (see the crate
/// documentation).
///
/// # Errors
/// [`Stop`] if the leaf did not complete; nothing was committed.
pub fn execute(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let features = port.capabilities().features;
    let sgx2 = features.contains(SgxFeatures::SGX2);
    let oversubscription = features.contains(SgxFeatures::OVERSUB_ENCLS);
    match regs.eax {
        leaf::ECREATE => ecreate::leaf(platform, port, regs),
        leaf::EADD => eadd::leaf(platform, port, regs),
        leaf::EINIT => einit::leaf(platform, port, regs),
        leaf::EREMOVE => eremove::leaf(platform, port, regs),
        leaf::EDBGRD => edbgrd::leaf(platform, port, regs),
        leaf::EDBGWR => edbgwr::leaf(platform, port, regs),
        leaf::EEXTEND => eextend::leaf(platform, port, regs),
        leaf::ELDB | leaf::ELDU => eld::leaf(platform, port, regs),
        leaf::EBLOCK => eblock::leaf(platform, port, regs),
        leaf::EPA => epa::leaf(platform, port, regs),
        leaf::EWB => ewb::leaf(platform, port, regs),
        leaf::ETRACK => etrack::leaf(platform, port, regs),
        leaf::EAUG if sgx2 => eaug::leaf(platform, port, regs),
        leaf::EMODPR if sgx2 => emodpr::leaf(platform, port, regs),
        leaf::EMODT if sgx2 => emodt::leaf(platform, port, regs),
        leaf::ERDINFO if oversubscription => erdinfo::leaf(platform, port, regs),
        leaf::ETRACKC if oversubscription => etrackc::leaf(platform, port, regs),
        leaf::ELDBC | leaf::ELDUC if oversubscription => eld::leaf(platform, port, regs),
        // SDM Vol. 2, ENCLS: an invalid leaf number, or one that CPUID 12H does not announce.
        _ => Err(Stop::Fault(Exception::gp(0))),
    }
}

/// ENCLS leaf numbers (SDM Vol. 3D, table 34-1).
pub mod leaf {
    /// ECREATE.
    pub const ECREATE: u32 = 0x00;
    /// EADD.
    pub const EADD: u32 = 0x01;
    /// EINIT.
    pub const EINIT: u32 = 0x02;
    /// EREMOVE.
    pub const EREMOVE: u32 = 0x03;
    /// EDBGRD.
    pub const EDBGRD: u32 = 0x04;
    /// EDBGWR.
    pub const EDBGWR: u32 = 0x05;
    /// EEXTEND.
    pub const EEXTEND: u32 = 0x06;
    /// ELDB.
    pub const ELDB: u32 = 0x07;
    /// ELDU.
    pub const ELDU: u32 = 0x08;
    /// EBLOCK.
    pub const EBLOCK: u32 = 0x09;
    /// EPA.
    pub const EPA: u32 = 0x0a;
    /// EWB.
    pub const EWB: u32 = 0x0b;
    /// ETRACK.
    pub const ETRACK: u32 = 0x0c;
    /// EAUG.
    pub const EAUG: u32 = 0x0d;
    /// EMODPR.
    pub const EMODPR: u32 = 0x0e;
    /// EMODT.
    pub const EMODT: u32 = 0x0f;
    /// ERDINFO.
    pub const ERDINFO: u32 = 0x10;
    /// ETRACKC.
    pub const ETRACKC: u32 = 0x11;
    /// ELDBC.
    pub const ELDBC: u32 = 0x12;
    /// ELDUC.
    pub const ELDUC: u32 = 0x13;
}
