use cloister_x86::regs::{Cr4, Xfeatures};

use super::filter::{LEAF_1_ECX_OSXSAVE, LEAF_1_EDX_APIC};
use super::model::regs;
use super::*;

const STATE: CpuidState = CpuidState::at_reset(2);

fn table() -> CpuidTable {
    CpuidTable::new(CpuModel::software(Xfeatures::X87 | Xfeatures::SSE), 3)
}

fn text(words: &[u32]) -> String {
    words.iter().flat_map(|word| word.to_le_bytes()).map(char::from).collect()
}

#[test]
fn vendor_brand_and_hypervisor_are_spelled_right() {
    let vendor = table().query(0, 0, &STATE);
    let kvm = table().query(0x4000_0000, 0, &STATE);
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .map(|leaf| table().query(leaf, 0, &STATE))
        .flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx])
        .collect();

    assert_eq!(text(&[vendor.ebx, vendor.edx, vendor.ecx]), "GenuineIntel");
    assert_eq!(text(&[kvm.ebx, kvm.ecx, kvm.edx]), "KVMKVMKVM\0\0\0");
    assert_eq!(text(&brand).trim_end_matches('\0'), "Intel Xeon Processor (Icelake), by Cloister");
}

#[test]
fn limited_leaves_end_with_leaf_2() {
    let limited = CpuidState { leaves_limited: true, ..STATE };
    let leaf_2 = table().query(2, 0, &STATE);

    assert_eq!(table().query(0, 0, &limited).eax, 2);
    assert_eq!(table().query(1, 0, &limited), table().query(1, 0, &STATE));
    for leaf in [3, 7, 0x16, 0x17, 0x9000_0000] {
        assert_eq!(table().query(leaf, 0, &limited), leaf_2, "{leaf:#x}");
    }
    let extended = table().query(0x8000_0001, 0, &limited);
    assert_eq!(extended, table().query(0x8000_0001, 0, &STATE));
}

#[test]
fn execute_disable_is_told_unless_it_is_switched_off() {
    let off = CpuidState { execute_disable: false, ..STATE };
    let told = |state| table().query(0x8000_0001, 0, state).edx;

    assert_eq!(told(&STATE) ^ told(&off), 1 << 20);
    assert_ne!(told(&STATE) & 1 << 20, 0);
}

#[test]
fn the_tsc_frequency_follows_from_leaves_15h_and_16h_alike() {
    let crystal = table().query(0x15, 0, &STATE);
    let megahertz = table().query(0x16, 0, &STATE);

    let hz = u64::from(crystal.ecx) * u64::from(crystal.ebx) / u64::from(crystal.eax);
    assert_eq!(hz, TSC_HZ);
    assert_eq!(u64::from(megahertz.eax) * 1_000_000, TSC_HZ);
}

#[test]
fn family_and_model_are_those_of_an_ice_lake_server() {
    let version = table().query(1, 0, &STATE).eax;

    // The arithmetic of SDM Vol. 2A, CPUID, "displayed model".
    let (family, model) = (version >> 8 & 0xf, version >> 16 & 0xf);
    assert_eq!((family, model << 4 | version >> 4 & 0xf, version & 0xf), (6, 0x6a, 6));
}

#[test]
fn dynamic_bits_follow_the_processor() {
    let off = CpuidState { apic_enabled: false, ..STATE };
    let on = CpuidState { cr4: Cr4::OSXSAVE, xcr0: Xfeatures::X87 | Xfeatures::SSE, ..STATE };

    assert_eq!(table().query(1, 0, &off).edx & LEAF_1_EDX_APIC, 0);
    assert_ne!(table().query(1, 0, &on).edx & LEAF_1_EDX_APIC, 0);
    assert_eq!(table().query(1, 0, &off).ecx & LEAF_1_ECX_OSXSAVE, 0);
    assert_ne!(table().query(1, 0, &on).ecx & LEAF_1_ECX_OSXSAVE, 0);
    assert_eq!(table().query(1, 0, &on).ebx >> 24, 2);
    assert_eq!(table().query(0xb, 1, &on).edx, 2);
}

#[test]
fn topology_levels_end_and_the_shift_covers_all_processors() {
    for (cpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (64, 6)] {
        let table = CpuidTable::new(CpuModel::software(Xfeatures::X87), cpus);

        let core = table.query(0xb, 1, &STATE);

        assert_eq!((core.eax, core.ebx, core.ecx), (shift, cpus, 0x201));
        assert_eq!(table.query(0xb, 2, &STATE), regs(0, 0, 2, 2));
    }
}

#[test]
fn xsave_sizes_follow_the_features() {
    let all = Xfeatures::X87 | Xfeatures::SSE | Xfeatures::AVX;
    let avx = CpuidTable::new(CpuModel::software(all), 1);

    assert_eq!(table().query(0xd, 0, &STATE), regs(3, 576, 576, 0));
    assert_eq!(avx.query(0xd, 0, &STATE), regs(7, 576, 832, 0));
    assert_eq!(avx.query(0xd, 2, &STATE), regs(256, 576, 0, 0));
    assert_eq!(table().query(0xd, 2, &STATE), CpuidResult::default());
}

#[test]
fn caches_have_the_sizes_of_ice_lake() {
    let size = |subleaf| {
        let cache = table().query(4, subleaf, &STATE);
        ((cache.ebx >> 22) + 1) * ((cache.ebx & 0xfff) + 1) * (cache.ecx + 1)
    };

    assert_eq!([size(0), size(1), size(2)], [48 << 10, 32 << 10, 1280 << 10]);
    assert_eq!(table().query(4, 4, &STATE).eax & 0x1f, 0);
}

#[test]
fn a_leaf_beyond_the_highest_is_the_highest_basic_one() {
    let highest = table().query(0x16, 0, &STATE);

    for leaf in [0x17, 0x1f, 0x3fff_ffff, 0x4000_0002, 0x8000_0009, u32::MAX] {
        assert_eq!(table().query(leaf, 0, &STATE), highest, "{leaf:#x}");
    }
}
