//! Model-specific registers that the processor leaves to its owner: plain storage, or constants.
//! What is in no list is #GP, as on hardware (SDM Vol. 4, table 2-2).

use cloister_x86::msr;

use crate::cpuid::{ARCH_CAPABILITIES, TSC_HZ};
use crate::layout::PHYS_BITS;

/// Variable-range MTRR pairs.
const VARIABLE_MTRRS: usize = 10;
/// IA32_MTRRCAP: the number of pairs, fixed ranges, write combining.
const MTRRCAP: u64 = VARIABLE_MTRRS as u64 | 1 << 8 | 1 << 10;
/// IA32_MTRR_DEF_TYPE after our firmware, which is none: MTRRs on, write-back.
const DEF_TYPE_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MISC_ENABLE: fast strings; BTS and PEBS unavailable (SDM Vol. 4, MSR 1A0H).
const MISC_ENABLE: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// IA32_MISC_ENABLE: CPUID ends with leaf 2.
const MISC_ENABLE_LIMIT_CPUID: u64 = 1 << 22;
/// IA32_MISC_ENABLE: there is no execute-disable bit.
const MISC_ENABLE_XD_DISABLE: u64 = 1 << 34;
/// Bits of IA32_MISC_ENABLE that software may change. Besides these two and fast strings they are the
/// switches of what this processor does not have: thermal control, SpeedStep, MONITOR, xTPR messages.
const MISC_ENABLE_WRITABLE: u64 = 1 << 0
    | 1 << 3
    | 1 << 16
    | 1 << 18
    | MISC_ENABLE_LIMIT_CPUID
    | 1 << 23
    | MISC_ENABLE_XD_DISABLE;
/// Microcode revision, in the upper half of IA32_BIOS_SIGN_ID.
const MICROCODE_REVISION: u64 = 0x0d00_0404 << 32;

/// The owner's registers of one processor.
#[derive(Clone, Debug)]
pub(super) struct MsrBank {
    misc_enable: u64,
    microcode: u64,
    mtrr_def_type: u64,
    mtrr_variable: [u64; 2 * VARIABLE_MTRRS],
    mtrr_fixed: [u64; 11],
    /// IA32_FEATURE_CONTROL of a processor without SGX, if it has one.
    feature_control: Option<u64>,
}

impl Default for MsrBank {
    fn default() -> Self {
        Self {
            misc_enable: MISC_ENABLE,
            microcode: MICROCODE_REVISION,
            mtrr_def_type: DEF_TYPE_WRITE_BACK,
            mtrr_variable: [0; 2 * VARIABLE_MTRRS],
            // Write-back, eight ranges a register.
            mtrr_fixed: [0x0606_0606_0606_0606; 11],
            feature_control: None,
        }
    }
}

impl MsrBank {
    /// Those of a processor after reset and firmware. That opts in to VMX where there is VMX, and locks
    /// IA32_FEATURE_CONTROL; where there is SGX, the register is [`cloister_virt::SgxVcpu`]'s.
    pub(super) fn new(vmx: bool) -> Self {
        let enabled = msr::FEATURE_CONTROL_LOCK | msr::FEATURE_CONTROL_VMX;
        Self { feature_control: vmx.then_some(enabled), ..Self::default() }
    }

    /// Whether CPUID ends with leaf 2.
    pub(super) const fn limits_cpuid(&self) -> bool {
        self.misc_enable & MISC_ENABLE_LIMIT_CPUID != 0
    }

    /// Whether the processor has the execute-disable bit.
    pub(super) const fn has_execute_disable(&self) -> bool {
        self.misc_enable & MISC_ENABLE_XD_DISABLE == 0
    }

    /// RDMSR. `None` is #GP(0).
    pub(super) fn read(&self, index: u32) -> Option<u64> {
        Some(match index {
            // XSS: no supervisor state component is supported.
            msr::PLATFORM_ID | msr::MCG_CAP | msr::MCG_STATUS | msr::XSS => 0,
            msr::FEATURE_CONTROL => return self.feature_control,
            msr::BIOS_SIGN_ID => self.microcode,
            msr::PLATFORM_INFO => (TSC_HZ / 100_000_000) << 8,
            msr::MTRRCAP => MTRRCAP,
            msr::ARCH_CAPABILITIES => ARCH_CAPABILITIES,
            msr::MISC_ENABLE => self.misc_enable,
            msr::MTRR_DEF_TYPE => self.mtrr_def_type,
            _ => match (variable_slot(index), fixed_slot(index)) {
                (Some(slot), _) => self.mtrr_variable[slot],
                (_, Some(slot)) => self.mtrr_fixed[slot],
                _ => return None,
            },
        })
    }

    /// WRMSR. `false` is #GP(0): no such register, read-only, or a reserved bit.
    pub(super) fn write(&mut self, index: u32, value: u64) -> bool {
        match index {
            msr::MCG_STATUS | msr::XSS => return value == 0,
            // Software writes zero, executes CPUID, and reads the revision (SDM Vol. 3A, 9.11.7.1):
            // it is there whatever was written.
            msr::BIOS_SIGN_ID => self.microcode = MICROCODE_REVISION,
            // There is no update to load.
            msr::BIOS_UPDT_TRIG => {}
            msr::MISC_ENABLE if (value ^ MISC_ENABLE) & !MISC_ENABLE_WRITABLE == 0 => {
                self.misc_enable = value;
            }
            msr::MTRR_DEF_TYPE if value & !0xc07 == 0 && is_memory_type(value & 7) => {
                self.mtrr_def_type = value;
            }
            _ => match (variable_slot(index), fixed_slot(index)) {
                (Some(slot), _) if is_variable_mtrr(slot, value) => {
                    self.mtrr_variable[slot] = value;
                }
                (_, Some(slot))
                    if value.to_le_bytes().iter().all(|&kind| is_memory_type(kind.into())) =>
                {
                    self.mtrr_fixed[slot] = value;
                }
                _ => return false,
            },
        }
        true
    }
}

/// Memory types that an MTRR may have (SDM Vol. 3A, table 11-8).
const fn is_memory_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

/// Checks the reserved bits of a base (even slots) or a mask (SDM Vol. 3A, figure 11-7).
const fn is_variable_mtrr(slot: usize, value: u64) -> bool {
    let low = if slot.is_multiple_of(2) { 0xff } else { 0x800 };
    let address = ((1 << PHYS_BITS) - 1) & !0xfff;
    value & !(address | low) == 0 && (!slot.is_multiple_of(2) || is_memory_type(value & 0xff))
}

fn variable_slot(index: u32) -> Option<usize> {
    let slot = index.checked_sub(msr::MTRR_PHYSBASE0)? as usize;
    (slot < 2 * VARIABLE_MTRRS).then_some(slot)
}

fn fixed_slot(index: u32) -> Option<usize> {
    Some(match index {
        msr::MTRR_FIX64K_00000 => 0,
        msr::MTRR_FIX16K_80000 => 1,
        msr::MTRR_FIX16K_A0000 => 2,
        _ => index.checked_sub(msr::MTRR_FIX4K_C0000).filter(|&n| n < 8)? as usize + 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtrrs_say_write_back_everywhere_and_keep_what_is_written() {
        let mut bank = MsrBank::default();

        assert_eq!(bank.read(msr::MTRR_DEF_TYPE), Some(0x806));
        assert!(bank.write(0x202, 0xc000_0000) && bank.write(0x203, 0x3fff_c000_0800));
        assert!(bank.write(0x26f, 0x0404_0404_0404_0404));

        assert_eq!(
            (bank.read(0x202), bank.read(0x203)),
            (Some(0xc000_0000), Some(0x3fff_c000_0800))
        );
        assert_eq!(bank.read(0x26f), Some(0x0404_0404_0404_0404));
    }

    #[test]
    fn feature_control_is_locked_with_vmx_where_there_is_vmx() {
        let index = msr::FEATURE_CONTROL;
        let mut bank = MsrBank::new(true);

        assert_eq!((bank.read(index), bank.write(index, 5)), (Some(5), false));
        assert_eq!(MsrBank::new(false).read(index), None);
    }

    #[test]
    fn reserved_bits_and_registers_that_are_not_there_fault() {
        let mut bank = MsrBank::default();

        for (index, value) in [
            (msr::ARCH_CAPABILITIES, 0),
            (msr::MTRRCAP, 0),
            (msr::MTRR_DEF_TYPE, 2),
            (msr::MTRR_DEF_TYPE, 1 << 12),
            (0x200, 3),
            (0x201, 1 << 46),
            (0x250, 7),
            (0x214, 0),
            (msr::MISC_ENABLE, 0),
            (0xc001_0015, 0),
        ] {
            assert!(!bank.write(index, value), "{index:#x}");
        }
        for index in [0x214, 0x251, 0x270, 0x1234, 0xc001_0015] {
            assert_eq!(bank.read(index), None, "{index:#x}");
        }
    }

    #[test]
    fn the_switches_of_misc_enable_can_be_thrown_and_what_it_reports_cannot() {
        let mut bank = MsrBank::default();
        let before = bank.read(msr::MISC_ENABLE).unwrap();

        for bit in 0..64 {
            let writable = matches!(bit, 0 | 3 | 16 | 18 | 22 | 23 | 34);
            assert_eq!(bank.write(msr::MISC_ENABLE, before ^ 1 << bit), writable, "{bit}");
            let after = if writable { before ^ 1 << bit } else { before };
            assert_eq!(bank.read(msr::MISC_ENABLE), Some(after), "{bit}");
            assert!(bank.write(msr::MISC_ENABLE, before));
        }
    }

    #[test]
    fn misc_enable_tells_what_is_left_of_cpuid_and_execute_disable() {
        let mut bank = MsrBank::default();
        let before = bank.read(msr::MISC_ENABLE).unwrap();
        assert!(!bank.limits_cpuid() && bank.has_execute_disable());

        assert!(bank.write(msr::MISC_ENABLE, before | 1 << 22 | 1 << 34));

        assert!(bank.limits_cpuid() && !bank.has_execute_disable());
    }

    #[test]
    fn the_microcode_revision_survives_the_ritual_of_reading_it() {
        let mut bank = MsrBank::default();

        assert!(bank.write(msr::BIOS_SIGN_ID, 0));

        assert_ne!(bank.read(msr::BIOS_SIGN_ID).unwrap() >> 32, 0);
    }
}
