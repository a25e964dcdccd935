//! Time that is not to have passed for the guest.

#![expect(unsafe_code, reason = "asks KVM by ioctls with pointers to memory")]

use cloister_x86::msr;
use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_clock_data, kvm_device_attr};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::ioctls::{GET_DEVICE_ATTR, SET_DEVICE_ATTR};
use super::msrs;
use crate::accel::VcpuError;

/// Sets the time stamp counter back by what passed between `told` and `total` nanoseconds of standing
/// still. Processors that are told the same totals, in whatever steps, stay at the same time.
///
/// A kernel before 5.16 does not let its offset be set: there the time has passed.
///
/// # Errors
///
/// [`VcpuError::Kvm`].
pub(super) fn take_back(
    vcpu: &VcpuFd,
    tsc_khz: u32,
    told: u64,
    total: u64,
) -> Result<(), VcpuError> {
    let mut offset = 0_u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: &raw mut offset as u64,
        flags: 0,
    };
    // SAFETY: KVM writes the eight bytes at `addr`, which is `offset`.
    if unsafe { ioctl_with_ref(vcpu, GET_DEVICE_ATTR, &attribute) } != 0 {
        return Ok(());
    }
    offset = offset.wrapping_sub(ticks(total, tsc_khz).wrapping_sub(ticks(told, tsc_khz)));
    let attribute = kvm_device_attr { addr: &raw const offset as u64, ..attribute };
    // SAFETY: KVM reads the eight bytes at `addr`, which is `offset`.
    if unsafe { ioctl_with_ref(vcpu, SET_DEVICE_ATTR, &attribute) } != 0 {
        return Err(VcpuError::kvm("KVM_SET_DEVICE_ATTR", kvm_ioctls::Error::last()));
    }
    // A deadline is a time of that counter, and KVM's timer for it began to run before: it is set again,
    // also one that has passed while the counter stood still.
    match msrs::get(vcpu, msr::TSC_DEADLINE)? {
        Some(deadline) if deadline != 0 => msrs::set(vcpu, &[(msr::TSC_DEADLINE, deadline)]),
        _ => Ok(()),
    }
}

/// Sets KVM's clock for guests back by so many nanoseconds.
///
/// # Errors
///
/// [`VcpuError::Kvm`].
pub(super) fn set_back(vm: &VmFd, nanoseconds: u64) -> Result<(), VcpuError> {
    let now = vm.get_clock().map_err(|error| VcpuError::kvm("KVM_GET_CLOCK", error))?;
    let clock = now.clock.saturating_sub(nanoseconds);
    vm.set_clock(&kvm_clock_data { clock, ..Default::default() })
        .map_err(|error| VcpuError::kvm("KVM_SET_CLOCK", error))
}

/// Ticks of the counter in so many nanoseconds.
fn ticks(nanoseconds: u64, tsc_khz: u32) -> u64 {
    let ticks = u128::from(nanoseconds) * u128::from(tsc_khz) / 1_000_000;
    // Modulo 2^64, as the counter is.
    let [a, b, c, d, e, f, g, h, ..] = ticks.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let steps = [0_u64, 1, 7, 1_000, 1_000_001, 3_600_000_000_000];
        let sum: u64 = steps
            .windows(2)
            .map(|pair| ticks(pair[1], 2_899_977) - ticks(pair[0], 2_899_977))
            .sum();

        assert_eq!(sum, ticks(3_600_000_000_000, 2_899_977));
        assert_eq!(ticks(1_000_000_000, 2_000_000), 2_000_000_000);
    }
}
