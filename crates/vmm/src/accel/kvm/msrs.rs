//! Model-specific registers: those that KVM is told after reset, in place of firmware, and the way to it.

use cloister_x86::msr;
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::accel::VcpuError;

/// IA32_MTRR_DEF_TYPE as firmware leaves it: MTRRs on, write-back.
const DEF_TYPE_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MISC_ENABLE: fast strings; BTS and PEBS unavailable (SDM Vol. 4, MSR 1A0H).
const MISC_ENABLE: u64 = 1 << 0 | 1 << 11 | 1 << 12;

/// What KVM's own list of features is for: what the host's processor says of itself.
const OF_THE_HOST: [u32; 2] = [msr::ARCH_CAPABILITIES, msr::BIOS_SIGN_ID];

/// Reads a register of a processor that does not run. `None` for one that the host lacks.
///
/// # Errors
///
/// [`VcpuError::Kvm`].
pub(super) fn get(vcpu: &VcpuFd, index: u32) -> Result<Option<u64>, VcpuError> {
    let mut list = list(&[(index, 0)])?;
    let known = vcpu.get_msrs(&mut list).map_err(|error| VcpuError::kvm("KVM_GET_MSRS", error))?;
    Ok((known == 1).then(|| list.as_slice()[0].data))
}

/// Writes registers of a processor that does not run, one after the other: KVM stops at the first that it
/// does not know, and registers that the host lacks are not there for the guest either.
///
/// # Errors
///
/// [`VcpuError::Kvm`].
pub(super) fn set(vcpu: &VcpuFd, values: &[(u32, u64)]) -> Result<(), VcpuError> {
    for value in values {
        let written = vcpu.set_msrs(&list(std::slice::from_ref(value))?);
        if written.map_err(|error| VcpuError::kvm("KVM_SET_MSRS", error))? == 0 {
            tracing::debug!(msr = format_args!("{:#x}", value.0), "KVM does not take the value");
        }
    }
    Ok(())
}

/// What the host's KVM says of its processor, of registers that tell the guest what it need not work
/// around.
pub(super) fn of_the_host(kvm: &Kvm) -> Vec<(u32, u64)> {
    let value = |index| {
        let mut list = list(&[(index, 0)]).ok()?;
        let known = kvm.get_msrs(&mut list).is_ok_and(|known| known == 1);
        known.then(|| (index, list.as_slice()[0].data))
    };
    OF_THE_HOST.into_iter().filter_map(value).collect()
}

/// What a processor has after reset and firmware. `feature_control` is IA32_FEATURE_CONTROL, where there
/// is something to enable.
pub(super) fn after_firmware(
    of_the_host: &[(u32, u64)],
    feature_control: Option<u64>,
) -> Vec<(u32, u64)> {
    let mut values = of_the_host.to_vec();
    values.extend([(msr::MTRR_DEF_TYPE, DEF_TYPE_WRITE_BACK), (msr::MISC_ENABLE, MISC_ENABLE)]);
    values.extend(feature_control.map(|value| (msr::FEATURE_CONTROL, value)));
    values
}

fn list(values: &[(u32, u64)]) -> Result<Msrs, VcpuError> {
    let entries =
        values.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    let entries: Vec<_> = entries.collect();
    // Only a list of more than KVM takes is refused.
    Msrs::from_entries(&entries).map_err(|_| VcpuError::Memory)
}
