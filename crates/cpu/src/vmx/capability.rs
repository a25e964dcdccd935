//! What the processor can do in VMX operation: the capability MSRs (SDM Vol. 3C, appendix A).

use cloister_sgx::SgxFeatures;
use cloister_x86::msr;
use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{
    EntryControls, ExitControls, PinControls, ProcControls, SecondaryControls, basic, ept_vpid,
    function, misc,
};

use super::region::{REVISION, SIZE};
use crate::controls::Features;
use crate::exec::system::control::CR4_ALLOWED;

/// CR0 bits that are 1 in VMX operation; PE and PG not in an unrestricted guest.
pub(crate) const CR0_FIXED: Cr0 = Cr0::PE.union(Cr0::NE).union(Cr0::PG);
/// CR4 bits that are 1 in VMX operation.
pub(crate) const CR4_FIXED: Cr4 = Cr4::VMXE;
/// CR3-target values of a VMCS.
pub(crate) const CR3_TARGETS: u32 = 4;
/// log2 of the TSC's counts to one of the VMX-preemption timer.
pub(crate) const PREEMPTION_RATE: u32 = 5;
/// IA32_VMX_MISC's word for [`MOST_MSRS`].
const MSR_LIST: u64 = 0;
/// Most entries of an MSR list. What more do is left to the processor (SDM Vol. 3C, A.6): here they
/// cannot be loaded or stored, so that no list keeps the processor from its owner.
pub(super) const MOST_MSRS: u32 = 512 * (MSR_LIST as u32 + 1);

/// Settings that a word of controls may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Bits that were reserved as 1 in the first processors with VMX.
    default1: u32,
    /// Those of `default1` that may be 0, as the TRUE capability MSRs say.
    relaxed: u32,
    /// Other bits that may be 1.
    optional: u32,
}

impl Settings {
    /// Whether a word of controls is one of them.
    pub(crate) const fn permit(self, word: u32) -> bool {
        let required = self.default1 & !self.relaxed;
        word & required == required && word & !(self.default1 | self.optional) == 0
    }

    /// The capability MSR of the first processors.
    const fn msr(self) -> u64 {
        self.default1 as u64 | ((self.default1 | self.optional) as u64) << 32
    }

    /// The TRUE capability MSR.
    const fn true_msr(self) -> u64 {
        (self.default1 & !self.relaxed) as u64 | ((self.default1 | self.optional) as u64) << 32
    }
}

/// Pin-based controls.
pub(crate) const PIN: Settings =
    Settings { default1: 0x16, relaxed: 0, optional: PinControls::all().bits() };
/// Primary processor-based controls.
pub(crate) const PROC: Settings = Settings {
    default1: 0x0401_e172,
    relaxed: ProcControls::CR3_LOAD.union(ProcControls::CR3_STORE).bits(),
    optional: ProcControls::all().bits(),
};
/// Secondary processor-based controls of a processor with these features.
pub(crate) const fn secondary(features: &Features) -> Settings {
    let mut missing = SecondaryControls::empty();
    if !features.has_sgx(SgxFeatures::SGX1) {
        missing = missing.union(SecondaryControls::ENCLS);
    }
    if !features.has_sgx(SgxFeatures::OVERSUB_ENCLV) {
        missing =
            missing.union(SecondaryControls::ENCLV.union(SecondaryControls::EPC_VIRTUALIZATION));
    }
    let optional = SecondaryControls::all().difference(missing).bits();
    Settings { default1: 0, relaxed: 0, optional }
}
/// VM-exit controls.
pub(crate) const EXIT: Settings = Settings {
    default1: 0x0003_6dff,
    relaxed: ExitControls::SAVE_DEBUG.bits(),
    optional: ExitControls::all().bits(),
};
/// VM-entry controls. There is no SMM.
pub(crate) const ENTRY: Settings = Settings {
    default1: 0x11ff,
    relaxed: EntryControls::LOAD_DEBUG.bits(),
    optional: EntryControls::all().difference(EntryControls::SMM).bits()
        & !EntryControls::DUAL_MONITOR.bits(),
};

/// IA32_VMX_EPT_VPID_CAP.
pub(crate) const EPT_VPID: u64 = ept_vpid::EXECUTE_ONLY
    | ept_vpid::LEVELS_4
    | ept_vpid::WRITE_BACK
    | ept_vpid::PAGES_2M
    | ept_vpid::PAGES_1G
    | ept_vpid::INVEPT
    | ept_vpid::ACCESSED_DIRTY
    | ept_vpid::INVEPT_SINGLE
    | ept_vpid::INVEPT_ALL
    | ept_vpid::INVVPID
    | ept_vpid::INVVPID_TYPES;

/// IA32_VMX_VMFUNC.
pub(crate) const FUNCTIONS: u64 = function::EPTP_SWITCHING;

/// The highest index of a field, as IA32_VMX_VMCS_ENUM has it.
const HIGHEST_INDEX: u64 = {
    let mut highest = 0;
    let mut n = 0;
    while n < Field::ALL.len() {
        let index = Field::ALL[n].index() as u64;
        if index > highest {
            highest = index;
        }
        n += 1;
    }
    highest << 1
};

/// The value of a capability MSR of VMX.
pub(crate) const fn read(index: u32, features: &Features) -> Option<u64> {
    const WRITE_BACK: u64 = 6;
    Some(match index {
        msr::VMX_BASIC => {
            REVISION as u64
                | (SIZE as u64) << basic::SIZE_SHIFT
                | WRITE_BACK << basic::MEMORY_TYPE_SHIFT
                | basic::INS_OUTS
                | basic::TRUE_CONTROLS
        }
        msr::VMX_PINBASED_CTLS => PIN.msr(),
        msr::VMX_PROCBASED_CTLS => PROC.msr(),
        msr::VMX_EXIT_CTLS => EXIT.msr(),
        msr::VMX_ENTRY_CTLS => ENTRY.msr(),
        msr::VMX_MISC => {
            PREEMPTION_RATE as u64
                | misc::STORES_LMA
                | misc::HLT
                | misc::WAIT_FOR_SIPI
                | (CR3_TARGETS as u64) << misc::CR3_TARGETS_SHIFT
                | MSR_LIST << 25
                | misc::VMWRITE_ANY
                | misc::ZERO_LENGTH
        }
        msr::VMX_CR0_FIXED0 => CR0_FIXED.bits(),
        msr::VMX_CR0_FIXED1 => 0xffff_ffff,
        msr::VMX_CR4_FIXED0 => CR4_FIXED.bits(),
        msr::VMX_CR4_FIXED1 => CR4_ALLOWED.union(Cr4::VMXE).bits(),
        msr::VMX_VMCS_ENUM => HIGHEST_INDEX,
        msr::VMX_PROCBASED_CTLS2 => secondary(features).msr(),
        msr::VMX_EPT_VPID_CAP => EPT_VPID,
        msr::VMX_TRUE_PINBASED_CTLS => PIN.true_msr(),
        msr::VMX_TRUE_PROCBASED_CTLS => PROC.true_msr(),
        msr::VMX_TRUE_EXIT_CTLS => EXIT.true_msr(),
        msr::VMX_TRUE_ENTRY_CTLS => ENTRY.true_msr(),
        msr::VMX_VMFUNC => FUNCTIONS,
        _ => return None,
    })
}
