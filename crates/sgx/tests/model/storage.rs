//! The page store and the configuration of a platform.

use cloister_sgx::{
    Capabilities, EpcIndex, EpcSectionConfig, Platform, PlatformConfig, PlatformError,
    PlatformIdentity, SgxFeatures,
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

    assert_ne!(first.root_key, second.root_key);
}
