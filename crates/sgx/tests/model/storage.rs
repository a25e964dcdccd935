//! The page store and the configuration of a platform.

use cloister_sgx::{
    Capabilities, EPC_PAGE_SIZE, EpcIndex, EpcSectionConfig, Platform, PlatformConfig,
    PlatformError, PlatformIdentity, SgxFeatures,
};

fn config(pages: &[u32]) -> PlatformConfig {
    let sections = pages.iter().enumerate();
    PlatformConfig {
        sections: sections
            .map(|(node, &pages)| EpcSectionConfig { pages, node: node as u32 })
            .collect(),
        ..PlatformConfig::single(1, PlatformIdentity::from_seed(&[0; 32]))
    }
}

#[test]
fn an_epc_of_64_gib_costs_nothing_until_it_is_touched() {
    let pages = 16 << 20;
    let platform = Platform::new(config(&[pages])).expect("a valid platform");

    let untouched = platform.backed_pages();
    platform.page(EpcIndex(pages - 1)).store(8, 0x55);
    let touched = platform.backed_pages();

    assert_eq!(untouched, 0);
    assert_eq!(touched, 512);
    assert_eq!(platform.page(EpcIndex(pages - 1)).load(8), 0x55);
}

#[test]
fn pages_are_aligned_as_pages() {
    let platform = Platform::new(config(&[1100])).expect("a valid platform");

    for index in (0..1100).map(EpcIndex) {
        let address = platform.page(index).words.as_ptr().addr();
        assert_eq!(address % EPC_PAGE_SIZE, 0, "{index:?} at {address:#x}");
    }
}

/// What the system says is resident of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a mounted /proc");
    let pages = statm.split(' ').nth(1).expect("a second word").parse::<usize>();
    pages.expect("a number of pages") * EPC_PAGE_SIZE
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_in_use_costs_its_own_memory_and_not_that_of_its_neighbours() {
    let (pages, stride) = (128 << 10, 128);
    let platform = Platform::new(config(&[pages])).expect("a valid platform");

    let before = resident();
    for index in (0..pages).step_by(stride as usize) {
        platform.page(EpcIndex(index)).store(0, 1);
    }
    let cost = resident().saturating_sub(before);

    // 512 MiB of EPC, of which 4 MiB are in use. Other tests of this process may allocate too.
    assert!(cost < 64 << 20, "{cost} bytes are resident for {} pages", pages / stride);
}

#[test]
fn sections_follow_each_other() {
    let platform = Platform::new(config(&[100, 700, 3])).expect("a valid platform");

    let firsts: Vec<_> = platform.sections().iter().map(|section| section.first).collect();

    assert_eq!(firsts, [EpcIndex(0), EpcIndex(100), EpcIndex(800)]);
    assert_eq!(platform.pages(), 803);
}

#[test]
fn impossible_platforms_are_refused() {
    let refused = |config: PlatformConfig| Platform::new(config).map(drop).unwrap_err();
    let with = |capabilities: Capabilities| PlatformConfig { capabilities, ..config(&[1]) };

    assert_eq!(refused(config(&[1, 0])), PlatformError::EmptySection { index: 1 });
    assert_eq!(refused(config(&[u32::MAX, 1])), PlatformError::TooLarge);
    for capabilities in [
        Capabilities { features: SgxFeatures::SGX2, ..Capabilities::default() },
        Capabilities { xfrm: 1, ..Capabilities::default() },
        Capabilities { xfrm: 1 << 63 | 3, ..Capabilities::default() },
        Capabilities { miscselect: 2, ..Capabilities::default() },
        Capabilities { max_enclave_size_64: 64, ..Capabilities::default() },
    ] {
        assert!(matches!(refused(with(capabilities)), PlatformError::Capabilities(_)));
    }
}

#[test]
fn cpuid_enumerates_the_capabilities() {
    let platform = Platform::new(config(&[1])).expect("a valid platform");

    let leaf0 = platform.capabilities().cpuid_leaf0();
    let leaf1 = platform.capabilities().cpuid_leaf1();

    assert_eq!((leaf0.eax, leaf0.ebx, leaf0.edx), (3, 1, 0x241f));
    assert_eq!((leaf1.eax, leaf1.ebx, leaf1.ecx, leaf1.edx), (0xb6, 0, 7, 0));
}

#[test]
fn partial_writes_keep_the_bytes_beside_them() {
    let platform = Platform::new(config(&[1])).expect("a valid platform");
    let page = platform.page(EpcIndex(0));
    page.write(0, &[0xff; 4096]);

    page.write(5, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let mut read = [0; 14];
    page.read(4, &mut read);

    assert_eq!(read, [0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff]);
}

#[test]
fn throw_away_identities_differ() {
    let first = PlatformIdentity::throw_away().expect("a random source");
    let second = PlatformIdentity::throw_away().expect("a random source");

    assert_ne!(first.fuses.root_key, second.fuses.root_key);
}
