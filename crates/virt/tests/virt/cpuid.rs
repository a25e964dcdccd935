//! CPUID leaves 7 and 12H.

use cloister_sgx::{AttributeFlags, SgxFeatures};
use cloister_virt::{SgxCpuid, SgxVm};
use cloister_x86::cpuid::CpuidResult;

use crate::host;

const GIB: u64 = 1 << 30;

/// A value that no register of leaf 12H has.
const OTHER: CpuidResult = CpuidResult { eax: !0, ebx: !4, ecx: !(1 << 30), edx: !0 };

fn vm(sections: &[(u64, u64)], cpuid: SgxCpuid) -> SgxVm {
    let sections: Vec<_> =
        sections.iter().map(|&(base, size)| host::section(base, size / 4096)).collect();
    SgxVm::new(host::pool(1).unlimited("vm"), &sections, cpuid).expect("a valid machine")
}

/// What Linux makes of a subleaf (`sgx_page_cache_init` and `sgx_calc_section_metric`): nothing
/// more to come, or base and size.
fn as_linux(sub: CpuidResult) -> Option<(u64, u64)> {
    let metric =
        |low: u32, high: u32| u64::from(low & 0xffff_f000) + (u64::from(high & 0x000f_ffff) << 32);
    match sub.eax & 0xf {
        0 => None,
        1 => Some((metric(sub.eax, sub.ebx), metric(sub.ecx, sub.edx))),
        kind => panic!("a section of type {kind}"),
    }
}

#[test]
fn leaf_7_says_sgx_and_launch_control_and_leaves_the_rest_alone() {
    for (launch_control, lc) in [(true, 1 << 30), (false, 0)] {
        let cpuid = SgxCpuid { launch_control, ..host::everything() };
        let vm = vm(&[], cpuid);

        let zero = vm.amend_cpuid(7, 0, CpuidResult::default());
        let full = vm.amend_cpuid(7, 0, CpuidResult { ecx: !0, ..OTHER });

        assert_eq!(zero, CpuidResult { eax: 0, ebx: 4, ecx: lc, edx: 0 });
        assert_eq!(full, CpuidResult { eax: !0, ebx: !0, ecx: !(1 << 30) | lc, edx: !0 });
        assert_eq!(vm.amend_cpuid(7, 1, OTHER), OTHER);
    }
}

#[test]
fn other_leaves_are_left_alone() {
    let vm = vm(&[(GIB, GIB)], host::everything());

    for leaf in [0, 1, 0xd, 0x11, 0x13, 0x4000_0012, 0x8000_0012] {
        assert_eq!(vm.amend_cpuid(leaf, 0, OTHER), OTHER, "{leaf:#x}");
    }
}

#[test]
fn leaf_12h_enumerates_what_the_guest_has_bit_by_bit() {
    let full = vm(&[], host::everything());
    let mut cpuid = SgxCpuid::all_of(&host::capabilities(), None);
    cpuid.capabilities.features = SgxFeatures::SGX1;
    cpuid.capabilities.attributes.remove(AttributeFlags::KSS);
    cpuid.capabilities.xfrm = 3;
    cpuid.capabilities.miscselect = 0;
    cpuid.capabilities.max_enclave_size_64 = 35;
    let less = vm(&[], cpuid);

    // SDM Vol. 3D, 34.7.2: SGX1 and SGX2; EXINFO; the largest sizes. Then DEBUG, MODE64BIT,
    // PROVISIONKEY, EINITTOKEN_KEY and KSS; x87, SSE and AVX.
    let leaf = |vm: &SgxVm, sub| vm.amend_cpuid(0x12, sub, OTHER);
    assert_eq!(leaf(&full, 0), CpuidResult { eax: 3, ebx: 1, ecx: 0, edx: 36 << 8 | 31 });
    assert_eq!(leaf(&full, 1), CpuidResult { eax: 0xb6, ebx: 0, ecx: 7, edx: 0 });
    assert_eq!(leaf(&less, 0), CpuidResult { eax: 1, ebx: 0, ecx: 0, edx: 35 << 8 | 31 });
    assert_eq!(leaf(&less, 1), CpuidResult { eax: 0x26, ebx: 0, ecx: 3, edx: 0 });
}

#[test]
fn linux_finds_every_section_and_their_end() {
    let eight: Vec<_> = (0..8).map(|n| (64 * GIB + n * GIB, 4096 << n)).collect();
    let table: [(&str, &[(u64, u64)]); 5] = [
        ("none", &[]),
        ("one of 64 MiB", &[(0x1_4000_0000, 64 << 20)]),
        ("one page below 4 GiB and 512 GiB", &[(0xfff_f000, 4096), (1 << 40, 512 * GIB)]),
        ("eight", &eight),
        ("the last that 52 bits can name", &[((1 << 52) - 4096, 4096)]),
    ];
    for (name, sections) in table {
        let vm = vm(sections, host::everything());

        // Linux asks for SGX_MAX_EPC_SECTIONS subleaves, or up to the first invalid one.
        let subleaves = (2..).map(|n| vm.amend_cpuid(0x12, n, OTHER));
        let found: Vec<_> = subleaves.map_while(as_linux).collect();

        assert_eq!(found, sections, "{name}");
        for n in (2 + sections.len() as u32..20).chain([u32::MAX]) {
            assert_eq!(vm.amend_cpuid(0x12, n, OTHER), CpuidResult::default(), "{name}, {n}");
        }
    }
}

#[test]
fn sections_are_protected_and_their_reserved_bits_zero() {
    let sub =
        vm(&[(0x12_3456_7000, 0x5_0000_1000)], host::everything()).amend_cpuid(0x12, 2, OTHER);

    // Type 1; property 1: confidentiality and integrity.
    assert_eq!(sub, CpuidResult { eax: 0x3456_7001, ebx: 0x12, ecx: 0x1001, edx: 5 });
}
