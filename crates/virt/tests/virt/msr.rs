//! FEATURE_CONTROL, IA32_SGXLEPUBKEYHASH0-3 and the other MSRs of SGX.

use std::sync::Arc;

use cloister_sgx::{DEFAULT_LE_HASH, SgxFeatures};
use cloister_virt::{RdmsrOutcome, SgxCpuid, SgxVcpu, SgxVm, WrmsrOutcome};
use cloister_x86::msr::{
    FEATURE_CONTROL, SGX_SVN_STATUS, SGXLEPUBKEYHASH0, SGXLEPUBKEYHASH3, SGXOWNEREPOCH0,
    SGXOWNEREPOCH1, TSC,
};

use crate::host;

const LOCK: u64 = 1 << 0;
const VMX: u64 = 1 << 2;
const LC: u64 = 1 << 17;
const SGX: u64 = 1 << 18;

/// A processor before firmware: FEATURE_CONTROL is 0.
pub(crate) fn unlocked(vm: &Arc<SgxVm>) -> SgxVcpu {
    SgxVcpu::after_reset(vm.clone())
}

fn without_lc() -> SgxCpuid {
    SgxCpuid { launch_control: false, ..host::everything() }
}

fn without_sgx1() -> SgxCpuid {
    let mut cpuid = host::everything();
    cpuid.capabilities.features = SgxFeatures::empty();
    cpuid
}

#[test]
fn firmware_leaves_sgx_on_and_launch_control_as_cpuid_says() {
    for (cpuid, expected) in [(host::everything(), LOCK | LC | SGX), (without_lc(), LOCK | SGX)] {
        let vcpu = host::vm(cpuid).new_vcpu();

        assert_eq!(vcpu.rdmsr(FEATURE_CONTROL), RdmsrOutcome::Value(expected));
        assert!(vcpu.sgx_enabled());
    }
}

#[test]
fn vmx_has_its_bit_on_a_processor_with_vmx() {
    let vm = host::vm(host::everything());
    let (with, without) = (SgxVcpu::new(vm.clone()).with_vmx(), SgxVcpu::new(vm.clone()));
    let enabled = RdmsrOutcome::Value(LOCK | VMX | LC | SGX);
    assert_eq!((with.rdmsr(FEATURE_CONTROL), with.vmx_enabled()), (enabled, true));
    assert!(!without.vmx_enabled());

    let (mut with, mut without) = (unlocked(&vm).with_vmx(), unlocked(&vm));
    assert_eq!(with.rdmsr(FEATURE_CONTROL), RdmsrOutcome::Value(0));
    assert_eq!(without.wrmsr(FEATURE_CONTROL, LOCK | VMX), WrmsrOutcome::GeneralProtection);
    assert_eq!(with.wrmsr(FEATURE_CONTROL, LOCK | VMX), WrmsrOutcome::Handled);
    assert!(with.vmx_enabled() && !with.sgx_enabled());
}

#[test]
fn feature_control_takes_the_bits_of_what_is_there_until_it_is_locked() {
    let (all, no_lc) = (host::everything(), without_lc());
    let (handled, gp) = (WrmsrOutcome::Handled, WrmsrOutcome::GeneralProtection);
    let table = [
        ("nothing", all, 0, handled),
        ("lock", all, LOCK, handled),
        ("SGX", all, LOCK | SGX, handled),
        ("SGX unlocked", all, SGX, handled),
        ("launch control", all, LOCK | SGX | LC, handled),
        ("launch control without SGX", all, LOCK | LC, handled),
        ("launch control that is not there", no_lc, LOCK | SGX | LC, gp),
        ("SGX without launch control", no_lc, LOCK | SGX, handled),
        ("VMX in SMX", all, LOCK | 1 << 1, gp),
        ("VMX outside SMX", all, LOCK | 1 << 2, gp),
        ("SENTER", all, LOCK | 1 << 15, gp),
        ("bit 19", all, LOCK | 1 << 19, gp),
        ("LMCE", all, LOCK | 1 << 20, gp),
        ("bit 63", all, 1 << 63, gp),
    ];
    for (name, cpuid, value, expected) in table {
        let vm = host::vm(cpuid);
        let mut vcpu = unlocked(&vm);

        let outcome = vcpu.wrmsr(FEATURE_CONTROL, value);

        assert_eq!(outcome, expected, "{name}");
        let kept = if expected == handled { value } else { 0 };
        assert_eq!(vcpu.rdmsr(FEATURE_CONTROL), RdmsrOutcome::Value(kept), "{name}");
        assert_eq!(vcpu.sgx_enabled(), kept & (LOCK | SGX) == LOCK | SGX, "{name}");
        let again = vcpu.wrmsr(FEATURE_CONTROL, kept);
        assert_eq!(again, if kept & LOCK == 0 { handled } else { gp }, "{name}, written again");
    }
}

#[test]
fn the_hash_is_the_platforms_after_reset() {
    let vcpu = host::vm(host::everything()).new_vcpu();

    let read = (SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3).map(|msr| vcpu.rdmsr(msr));

    // SOURCES: the hash of the signer that processors trust after reset.
    let expected = [
        0xa605_3e05_1270_b7ac,
        0x6cfb_e8ba_8b3b_413d,
        0xc491_6d99_f2b3_735d,
        0xd4f8_c059_09f9_bb3b,
    ];
    assert_eq!(read.collect::<Vec<_>>(), expected.map(RdmsrOutcome::Value));
    assert_eq!(vcpu.le_hash(), DEFAULT_LE_HASH);
}

#[test]
fn the_hash_is_there_with_sgx1_and_lc_and_writable_when_both_lock_and_lc_are_set() {
    let (all, no_lc, no_sgx1) = (host::everything(), without_lc(), without_sgx1());
    let table = [
        ("locked on", all, LOCK | SGX | LC, true, true),
        ("locked on, SGX off", all, LOCK | LC, true, true),
        ("locked off", all, LOCK | SGX, true, false),
        ("not locked", all, SGX | LC, true, false),
        ("untouched", all, 0, true, false),
        ("no SGX_LC", no_lc, LOCK | SGX, false, false),
        ("no SGX1", no_sgx1, LOCK | SGX | LC, false, false),
    ];
    for (name, cpuid, feature_control, readable, writable) in table {
        let vm = host::vm(cpuid);
        let mut vcpu = unlocked(&vm);
        let hash = vcpu.le_hash();
        let outcome = vcpu.wrmsr(FEATURE_CONTROL, feature_control);
        assert_eq!(outcome, WrmsrOutcome::Handled, "{name}");

        for msr in SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 {
            let read = vcpu.rdmsr(msr);
            let written = vcpu.wrmsr(msr, u64::from(msr) << 40);

            assert_eq!(matches!(read, RdmsrOutcome::Value(_)), readable, "{name}");
            assert_ne!(read, RdmsrOutcome::NotHandled, "{name}");
            assert_eq!(written == WrmsrOutcome::Handled, writable, "{name}");
            assert_ne!(written, WrmsrOutcome::NotHandled, "{name}");
            if writable {
                let value = RdmsrOutcome::Value(u64::from(msr) << 40);
                assert_eq!(vcpu.rdmsr(msr), value, "{name}");
            }
        }
        assert_eq!(vcpu.le_hash() == hash, !writable, "{name}");
    }
}

#[test]
fn other_msrs_of_sgx_cannot_be_written_and_the_owner_epoch_not_be_read() {
    let (handled, gp) = (RdmsrOutcome::Value(0), RdmsrOutcome::GeneralProtection);
    let table = [
        (SGX_SVN_STATUS, host::everything(), handled),
        (SGX_SVN_STATUS, without_sgx1(), gp),
        (SGXOWNEREPOCH0, host::everything(), gp),
        (SGXOWNEREPOCH1, host::everything(), gp),
    ];
    for (msr, cpuid, expected) in table {
        let mut vcpu = host::vm(cpuid).new_vcpu();

        assert_eq!(vcpu.rdmsr(msr), expected, "{msr:#x}");
        assert_eq!(vcpu.wrmsr(msr, 0), WrmsrOutcome::GeneralProtection, "{msr:#x}");
    }
}

#[test]
fn msrs_of_others_are_left_to_them() {
    let mut vcpu = host::vm(host::everything()).new_vcpu();

    for msr in [TSC, SGXLEPUBKEYHASH0 - 1, SGXLEPUBKEYHASH3 + 1, 0x302, 0x501, u32::MAX] {
        assert_eq!(vcpu.rdmsr(msr), RdmsrOutcome::NotHandled, "{msr:#x}");
        assert_eq!(vcpu.wrmsr(msr, 1), WrmsrOutcome::NotHandled, "{msr:#x}");
    }
}
