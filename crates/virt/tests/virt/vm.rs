//! What a virtual machine can have.

use cloister_sgx::{AttributeFlags, Platform, PlatformConfig, SgxFeatures};
use cloister_virt::{EpcError, EpcPool, SectionConfig, SectionError, SgxCpuid, SgxVm, VmError};
use cloister_x86::Gpa;

use crate::host::{self, EPC_GPA, section};

#[test]
fn sections_that_cannot_be_are_refused_by_their_place() {
    let whole = section(EPC_GPA, 4);
    let at = |base| SectionConfig { base: Gpa(base), ..whole };
    let of = |size| SectionConfig { size, ..whole };
    let sections = |error| VmError::Epc(EpcError::Sections(error));
    let table: [(&str, &[SectionConfig], VmError); 12] = [
        ("empty", &[of(0)], sections(SectionError::Size(0))),
        ("a page and a half", &[of(6144)], sections(SectionError::Size(0))),
        ("a byte", &[section(1 << 30, 1), of(1)], sections(SectionError::Size(1))),
        ("base within a page", &[at(EPC_GPA + 2048)], sections(SectionError::Size(0))),
        ("end above 52 bits", &[at((1 << 52) - 4096)], sections(SectionError::Address(0))),
        ("end above 64 bits", &[at(!4095)], sections(SectionError::Address(0))),
        ("all addresses", &[SectionConfig { base: Gpa(0), size: !4095, ..whole }], {
            sections(SectionError::Address(0))
        }),
        ("twice the same", &[whole, whole], sections(SectionError::Overlap(1))),
        ("one page shared", &[whole, at(EPC_GPA + 3 * 4096)], sections(SectionError::Overlap(1))),
        (
            "one in another",
            &[whole, section(EPC_GPA + 4096, 1)],
            sections(SectionError::Overlap(1)),
        ),
        ("nine", &[section(EPC_GPA, 1); 9], sections(SectionError::Count(9))),
        (
            "more than the host has, preallocated",
            &[section(1 << 30, 1), SectionConfig { preallocate: true, size: 33 << 12, ..whole }],
            VmError::Epc(EpcError::Exhausted(1)),
        ),
    ];
    for (name, refused, expected) in table {
        let pool = host::pool(32);

        let error = SgxVm::new(pool.unlimited("vm"), refused, host::everything()).expect_err(name);

        assert_eq!(error, expected, "{name}");
        assert_eq!(pool.statistics().used, 0, "{name}");
    }
}

#[test]
fn neighbours_and_sections_in_any_order_are_fine() {
    let sections = [section(EPC_GPA + (4 << 12), 4), section(EPC_GPA, 4), section(1 << 51, 1)];

    assert!(SgxVm::new(host::pool(32).unlimited("vm"), &sections, host::everything()).is_ok());
}

type Change = fn(&mut SgxCpuid);

#[test]
fn a_cpuid_that_contradicts_itself_or_exceeds_the_platform_is_refused_with_the_reason() {
    let table: [(&str, Change); 10] = [
        ("SGX1", |c| c.capabilities.features = SgxFeatures::SGX2),
        ("SGX1", |c| c.capabilities.features = SgxFeatures::EDECCSSA),
        ("leaves", |c| c.capabilities.features |= SgxFeatures::EDECCSSA),
        ("MISCSELECT", |c| c.capabilities.miscselect = 2),
        ("ATTRIBUTES", |c| c.capabilities.attributes |= AttributeFlags::AEXNOTIFY),
        ("XFRM", |c| c.capabilities.xfrm = 0xf),
        ("XFRM", |c| c.capabilities.xfrm = 1),
        ("larger", |c| c.capabilities.max_enclave_size_64 = 37),
        ("larger", |c| c.capabilities.max_enclave_size_not64 = 32),
        ("larger", |c| c.capabilities.max_enclave_size_64 = u8::MAX),
    ];
    for (reason, change) in table {
        let mut cpuid = host::everything();
        change(&mut cpuid);

        let error = SgxVm::new(host::pool(1).unlimited("vm"), &[], cpuid).expect_err(reason);

        assert!(error.to_string().contains(reason), "{error} is not about {reason}");
    }
}

#[test]
fn launch_control_needs_a_host_whose_hash_can_be_written() {
    let config = PlatformConfig { le_hash_writable: false, ..host::config(1) };
    let pool = EpcPool::new(Platform::new(config).expect("a valid platform").into());
    let with = host::everything();
    let without = SgxCpuid { launch_control: false, ..with };

    let error = SgxVm::new(pool.unlimited("vm"), &[], with).expect_err("SGX_LC on a locked host");

    assert!(error.to_string().contains("SGX_LC"), "{error}");
    assert!(SgxVm::new(pool.unlimited("vm"), &[], without).is_ok());
}
