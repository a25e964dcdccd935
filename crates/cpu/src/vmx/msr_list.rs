//! Lists of MSRs that VM entries and exits load and store (SDM Vol. 3C, 24.7.2, 26.4, 27.4 and 27.6).
//! MSRs that the processor leaves to its owner cannot be in them.

use cloister_x86::msr;

use super::capability::MOST_MSRS;
use super::controls::MsrList;
use crate::cpu::Cpu;

/// IA32_SMM_MONITOR_CTL.
const SMM_MONITOR_CTL: u32 = 0x9b;
/// IA32_SMBASE.
const SMBASE: u32 = 0x9e;

/// Address of entry `n`.
const fn entry(list: MsrList, n: u32) -> u64 {
    list.address + 16 * n as u64
}

/// The MSR number of entry `n`, at `at`; `None` if reserved bits are set, or of one too many.
fn number(cpu: &Cpu, n: u32, at: u64) -> Option<u32> {
    u32::try_from(cpu.physical_page(at).read(at as usize)).ok().filter(|_| n < MOST_MSRS)
}

/// Whether an MSR is the x2APIC's, in x2APIC mode.
fn is_x2apic(cpu: &Cpu, index: u32) -> bool {
    cpu.apic.is_x2apic() && (msr::X2APIC..msr::X2APIC + 0x100).contains(&index)
}

/// Loads MSRs.
///
/// # Errors
///
/// The number, from 1, of the entry that cannot be loaded.
pub(super) fn load(cpu: &mut Cpu, list: MsrList) -> Result<(), u32> {
    for n in 0..list.count {
        let at = entry(list, n);
        let index = number(cpu, n, at).filter(|&index| {
            !matches!(index, msr::FS_BASE | msr::GS_BASE | SMM_MONITOR_CTL)
                && !is_x2apic(cpu, index)
        });
        let value = cpu.physical_page(at).read(at as usize + 8);
        let loaded = index.is_some_and(|index| matches!(cpu.write_msr(index, value), Ok(true)));
        if !loaded {
            cpu.run.fault = None;
            return Err(n + 1);
        }
    }
    Ok(())
}

/// Stores MSRs.
///
/// # Errors
///
/// An entry cannot be stored: a VMX abort.
pub(super) fn store(cpu: &mut Cpu, list: MsrList) -> Result<(), ()> {
    for n in 0..list.count {
        let at = entry(list, n);
        let index = number(cpu, n, at).filter(|&index| index != SMBASE && !is_x2apic(cpu, index));
        match index.map(|index| cpu.read_msr(index)) {
            Some(Ok(Some(value))) => cpu.physical_page(at).write(at as usize + 8, value),
            _ => {
                cpu.run.fault = None;
                return Err(());
            }
        }
    }
    Ok(())
}
