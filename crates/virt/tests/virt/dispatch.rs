//! Which leaves exit, and what an exit becomes before any operand is looked at.

use std::sync::Arc;

use cloister_sgx::encls::leaf;
use cloister_sgx::{AttributeFlags, Platform, SgxFeatures};
use cloister_virt::encls::Action;
use cloister_virt::{EpcPool, SgxCpuid, SgxVm, WrmsrOutcome};
use cloister_x86::Exception;
use cloister_x86::msr::{FEATURE_CONTROL, FEATURE_CONTROL_LOCK, FEATURE_CONTROL_SGX};

use crate::guest::{GP, Guest};
use crate::host;
use crate::msr::unlocked;

const UD: Action = Action::Inject(Exception::ud());

const ECREATE: u64 = 1 << leaf::ECREATE;
const EINIT: u64 = 1 << leaf::EINIT;
/// EAUG, EMODPR, EMODT.
const SGX2: u64 = 0b111 << leaf::EAUG;
/// Leaves that no guest has but with EPC oversubscription.
const UNKNOWN: u64 = !0 << 16;

type Change = fn(&mut SgxCpuid);

fn cpuid(change: Change) -> SgxCpuid {
    let mut cpuid = host::everything();
    change(&mut cpuid);
    cpuid
}

#[test]
fn leaves_exit_where_policy_has_a_say_and_nowhere_else() {
    let table: [(&str, Change, u64); 9] = [
        ("all of the platform", |_| {}, EINIT | UNKNOWN),
        (
            "no provisioning",
            |c| c.capabilities.attributes.remove(AttributeFlags::PROVISIONKEY),
            ECREATE | EINIT | UNKNOWN,
        ),
        ("less MISCSELECT", |c| c.capabilities.miscselect = 0, ECREATE | EINIT | UNKNOWN),
        ("less XFRM", |c| c.capabilities.xfrm = 3, ECREATE | EINIT | UNKNOWN),
        ("smaller", |c| c.capabilities.max_enclave_size_64 = 35, ECREATE | EINIT | UNKNOWN),
        ("smaller", |c| c.capabilities.max_enclave_size_not64 = 30, ECREATE | EINIT | UNKNOWN),
        ("no SGX2", |c| c.capabilities.features = SgxFeatures::SGX1, EINIT | SGX2 | UNKNOWN),
        ("no SGX1", |c| c.capabilities.features = SgxFeatures::empty(), !0),
        ("no launch control", |c| c.launch_control = false, EINIT | UNKNOWN),
    ];
    for (name, change, expected) in table {
        let guest = Guest::new(host::vm(cpuid(change)));

        let bitmap = guest.vcpu.encls_exiting();

        assert_eq!(bitmap, expected, "{name}: {:#x}", bitmap ^ expected);
    }
}

#[test]
fn the_leaves_of_epc_oversubscription_run_where_cpuid_announces_them() {
    let oversubscription = SgxFeatures::OVERSUB_ENCLS | SgxFeatures::OVERSUB_ENCLV;
    let mut config = host::config(32);
    config.capabilities.features |= oversubscription;
    let platform = Arc::new(Platform::new(config).expect("a valid platform"));
    let mut announced = host::everything();
    announced.capabilities.features |= oversubscription;
    let guest = |cpuid: SgxCpuid| {
        let sections = [host::section(host::EPC_GPA, 16)];
        let vm = SgxVm::new(EpcPool::new(platform.clone()).unlimited("vm"), &sections, cpuid);
        Guest::new(Arc::new(vm.expect("a valid machine")))
    };
    let (none, both) = (guest(host::everything()), guest(announced));

    // ERDINFO, ETRACKC, ELDBC, ELDUC.
    let leaves = 0b1111 << leaf::ERDINFO;
    assert_eq!(none.vcpu.encls_exiting(), EINIT | UNKNOWN);
    assert_eq!(both.vcpu.encls_exiting(), EINIT | UNKNOWN & !leaves);
    assert_eq!((none.vm.enclv_exiting(), both.vm.enclv_exiting()), (None, Some(0)));
}

#[test]
fn every_leaf_exits_until_firmware_locked_sgx_on() {
    let mut guest = Guest::new(host::vm(host::everything()));
    guest.vcpu = unlocked(&guest.vm);
    let mut write = |value| {
        let outcome = guest.vcpu.wrmsr(FEATURE_CONTROL, value);
        assert_eq!(outcome, WrmsrOutcome::Handled);
        guest.vcpu.encls_exiting()
    };

    assert_eq!(write(0), !0);
    assert_eq!(write(FEATURE_CONTROL_SGX), !0);
    assert_eq!(write(FEATURE_CONTROL_SGX | FEATURE_CONTROL_LOCK), EINIT | UNKNOWN);
}

#[test]
fn a_leaf_that_cpuid_does_not_announce_is_gp_with_sgx_on_and_off() {
    let sgx1 = |c: &mut SgxCpuid| c.capabilities.features = SgxFeatures::SGX1;
    for (change, leaves) in
        [(sgx1 as Change, leaf::EAUG..=leaf::EMODT), (|_| {}, leaf::EMODT + 1..=70)]
    {
        for on in [true, false] {
            let mut guest = Guest::new(host::vm(cpuid(change)));
            if !on {
                guest.vcpu = unlocked(&guest.vm);
            }
            for leaf in leaves.clone().chain([u32::MAX]) {
                assert_eq!(guest.encls(leaf, 1, 1, 1), GP, "leaf {leaf:#x}, SGX on: {on}");
            }
            assert!(guest.reads.is_empty());
        }
    }
}

#[test]
fn every_leaf_is_ud_without_sgx1_with_sgx_on_and_off() {
    for on in [true, false] {
        let nothing = cpuid(|c| c.capabilities.features = SgxFeatures::empty());
        let mut guest = Guest::new(host::vm(nothing));
        if !on {
            guest.vcpu = unlocked(&guest.vm);
        }
        for leaf in (0..=70).chain([u32::MAX]) {
            assert_eq!(guest.encls(leaf, 1, 1, 1), UD, "leaf {leaf:#x}, SGX on: {on}");
        }
    }
}

#[test]
fn without_paging_every_leaf_that_exits_is_gp_and_no_operand_is_read() {
    let mut guest = Guest::new(host::vm(cpuid(|c| c.capabilities.miscselect = 0)));
    guest.paging = false;
    let exiting = guest.vcpu.encls_exiting();
    assert_eq!(exiting, ECREATE | EINIT | UNKNOWN);

    for leaf in (0..=63).filter(|leaf| exiting & 1 << leaf != 0) {
        assert_eq!(guest.exit(leaf, 0x1000, 0x2000, 0x3000), GP, "leaf {leaf:#x}");
    }
    assert!(guest.reads.is_empty());
}

#[test]
fn with_sgx_off_an_announced_leaf_is_gp_whatever_its_operands() {
    let mut guest = Guest::new(host::vm(host::everything()));
    guest.vcpu = unlocked(&guest.vm);

    for leaf in leaf::ECREATE..=leaf::EMODT {
        assert_eq!(guest.encls(leaf, 1, 1, 1), GP, "leaf {leaf:#x}");
        assert_eq!(guest.encls(leaf, 0, 0, 0), GP, "leaf {leaf:#x}");
    }
    assert!(guest.reads.is_empty());
}

#[test]
fn an_exit_that_no_rule_asked_for_is_gp() {
    let mut guest = Guest::new(host::vm(host::everything()));

    for leaf in [leaf::EADD, leaf::EREMOVE, leaf::ETRACK, leaf::EAUG, leaf::EMODT] {
        assert_eq!(guest.exit(leaf, 0, 0, 0), GP, "leaf {leaf:#x}");
    }
    assert!(guest.reads.is_empty());
}

#[test]
fn exits_are_counted_by_leaf_for_all_processors_of_a_machine() {
    let guest = Guest::new(host::vm(cpuid(|c| c.capabilities.miscselect = 0)));
    let mut processors = [guest.sibling(), guest];

    for (processor, leaf) in [
        (0, leaf::ECREATE),
        (1, leaf::ECREATE),
        (1, leaf::EINIT),
        // This one does not exit.
        (0, leaf::EREMOVE),
        (0, leaf::EMODT + 1),
        (1, u32::MAX),
        (0, 63),
    ] {
        processors[processor].encls(leaf, 1, 1, 1);
    }

    let exits = processors[0].vm.encls_exits();
    assert_eq!((exits.ecreate, exits.einit, exits.others), (2, 1, 3));
}
