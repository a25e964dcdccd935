//! The requests of ioctl(2) that a machine under KVM makes, by who makes them: what the sandbox lets
//! through (linux/kvm.h).

use super::vepc::REMOVE_ALL;
use kvm_bindings::{
    kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_device_attr, kvm_enable_cap, kvm_guest_debug,
    kvm_irq_routing, kvm_mp_state, kvm_msi, kvm_msr_filter, kvm_msrs, kvm_regs, kvm_sregs,
    kvm_translation, kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// Requests by who makes them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ioctls {
    /// Who makes the machine's processors and memory.
    pub setup: &'static [u64],
    /// A processor's own thread.
    pub vcpu: &'static [u64],
    /// Whoever may raise an interrupt, or have a machine go on that was stopped.
    pub every: &'static [u64],
}

/// Those of KVM.
pub(in crate::accel) const IOCTLS: Ioctls = Ioctls { setup: SETUP, vcpu: VCPU, every: EVERY };

const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// KVMIO.
const KIND: u32 = 0xae;

/// The number of a request whose argument has `size` bytes (asm-generic/ioctl.h).
const fn number(direction: u32, number: u32, size: usize) -> u64 {
    // 14 bits.
    assert!(size < 1 << 14);
    (direction << 30 | KIND << 8 | number) as u64 | (size as u64) << 16
}

const fn none(request: u32) -> u64 {
    number(NONE, request, 0)
}

const fn write<T>(request: u32) -> u64 {
    number(WRITE, request, size_of::<T>())
}

const fn read<T>(request: u32) -> u64 {
    number(READ, request, size_of::<T>())
}

const SETUP: &[u64] = &[
    // KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE.
    none(0x01),
    none(0x03),
    none(0x04),
    // KVM_CREATE_VCPU, KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_USER_MEMORY_REGION.
    none(0x41),
    none(0x47),
    write::<u64>(0x48),
    write::<kvm_userspace_memory_region>(0x46),
    REMOVE_ALL,
    // KVM_X86_SET_MSR_FILTER.
    write::<kvm_msr_filter>(0xc6),
    // KVM_SET_CPUID2, KVM_ENABLE_CAP.
    write::<kvm_cpuid2>(0x90),
    write::<kvm_enable_cap>(0xa3),
];

const VCPU: &[u64] = &[
    // KVM_RUN.
    none(0x80),
    // Registers: KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS.
    read::<kvm_regs>(0x81),
    write::<kvm_regs>(0x82),
    read::<kvm_sregs>(0x83),
    write::<kvm_sregs>(0x84),
    // KVM_TRANSLATE, KVM_GET_MSRS, KVM_SET_MSRS.
    number(READ | WRITE, 0x85, size_of::<kvm_translation>()),
    number(READ | WRITE, 0x88, size_of::<kvm_msrs>()),
    write::<kvm_msrs>(0x89),
    // KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_SET_GUEST_DEBUG.
    read::<kvm_mp_state>(0x98),
    write::<kvm_mp_state>(0x99),
    write::<kvm_guest_debug>(0x9b),
    // KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS.
    read::<kvm_vcpu_events>(0x9f),
    write::<kvm_vcpu_events>(0xa0),
    read::<kvm_debugregs>(0xa1),
    write::<kvm_debugregs>(0xa2),
    // KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS, KVM_SET_XCRS.
    read::<kvm_xsave>(0xa4),
    write::<kvm_xsave>(0xa5),
    read::<kvm_xcrs>(0xa6),
    write::<kvm_xcrs>(0xa7),
    // KVM_SET_DEVICE_ATTR, GET_DEVICE_ATTR: the time stamp counter's offset.
    SET_DEVICE_ATTR,
    GET_DEVICE_ATTR,
];

const EVERY: &[u64] = &[
    // KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI.
    write::<kvm_irq_routing>(0x6a),
    write::<kvm_msi>(0xa5),
    // KVM_SET_CLOCK, KVM_GET_CLOCK.
    write::<kvm_clock_data>(0x7b),
    read::<kvm_clock_data>(0x7c),
];

/// KVM_SET_DEVICE_ATTR, which kvm-ioctls lacks for processors.
pub(super) const SET_DEVICE_ATTR: u64 = write::<kvm_device_attr>(0xe1);
/// KVM_GET_DEVICE_ATTR, the same.
pub(super) const GET_DEVICE_ATTR: u64 = write::<kvm_device_attr>(0xe2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        // As strace(1) has them.
        assert_eq!(none(0x80), 0xae80);
        assert_eq!(read::<kvm_regs>(0x81), 0x8090_ae81);
        assert_eq!(write::<kvm_sregs>(0x84), 0x4138_ae84);
        assert_eq!(write::<kvm_userspace_memory_region>(0x46), 0x4020_ae46);
        assert_eq!(write::<kvm_cpuid2>(0x90), 0x4008_ae90);
        assert_eq!(write::<kvm_msi>(0xa5), 0x4020_aea5);
        assert_eq!(read::<kvm_xsave>(0xa4), 0x9000_aea4);
        assert_eq!(GET_DEVICE_ATTR, 0x4018_aee2);
    }
}
