//! MRENCLAVE, against `sgxs`.

use cloister_sgx::layout::{EinitToken, SecInfoFlags};
use cloister_sgx::{
    AttributeFlags, Attributes, EpcIndex, MISCSELECT_EXINFO, PlatformConfig, PlatformIdentity,
    SgxStatus,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::enclave::{Page, Spec, tcs};
use crate::machine::Machine;
use crate::signer::{Signer, rsa_accepts};

/// An enclave and what its SECS says beyond a [`Spec`].
#[derive(Clone, PartialEq, Debug)]
struct Enclave {
    spec: Spec,
    /// CONFIGID and CONFIGSVN, for an enclave with KSS.
    config: Option<([u8; 8], u16)>,
    family: u8,
}

/// Pages in random order with random permissions, some chunks unmeasured.
fn pages() -> impl Strategy<Value = Vec<Page>> {
    let page = (0..64u64, any::<[u8; 8]>(), any::<u16>(), 0..4usize, any::<bool>());
    proptest::collection::vec(page, 0..6).prop_map(|pages| {
        let mut used = std::collections::BTreeSet::new();
        pages
            .into_iter()
            .filter(|page| used.insert(page.0))
            .map(|(place, seed, measured, permissions, thread)| {
                let mut page = if thread {
                    Page::tcs(place << 12, tcs(u64::from(seed[0]) << 12, 1, place))
                } else {
                    let flags = SecInfoFlags::from_bits_truncate([1, 3, 5, 7][permissions]);
                    let contents = std::array::from_fn(|at| seed[at % 8] ^ (at / 8) as u8);
                    Page::reg(place << 12, flags, contents)
                };
                page.measured = measured;
                page
            })
            .collect()
    })
}

/// Enclaves of every size from 256 KiB on, for both modes, with each legal XFRM of the platform.
fn enclaves() -> impl Strategy<Value = Enclave> {
    let secs = (18..36u32, 1..5u32, any::<bool>(), any::<bool>(), 0..4usize, any::<u8>());
    let config = proptest::option::of((any::<[u8; 8]>(), any::<u16>()));
    (pages(), secs, config, any::<bool>()).prop_map(
        |(pages, (size, ssaframesize, exinfo, mode64, xfrm, family), config, debug)| {
            let mut flags = AttributeFlags::empty();
            flags.set(AttributeFlags::MODE64BIT, mode64);
            flags.set(AttributeFlags::DEBUG, debug);
            flags.set(AttributeFlags::KSS, config.is_some());
            let size = if mode64 { size } else { size.min(30) };
            let spec = Spec {
                base: if mode64 { 1 << 46 } else { 1 << 30 },
                size: 1 << size,
                ssaframesize,
                miscselect: if exinfo { MISCSELECT_EXINFO } else { 0 },
                attributes: Attributes::new(flags, [3, 7, 0xe7, 0x2ff][xfrm]),
                pages,
                isvsvn: u16::from(family),
                isvprodid: size as u16,
                debug_mask: true,
            };
            Enclave { spec, config, family }
        },
    )
}

#[test]
fn measurements_and_signatures_agree_with_sgxs_and_rsa_for_256_enclaves() {
    let mut runner =
        TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let result = runner.run(&enclaves(), |enclave| {
        let mut config = PlatformConfig::single(16, PlatformIdentity::from_seed(&[7; 32]));
        config.capabilities.xfrm = 0x2ff;
        let mut machine = Machine::with(config);
        machine.memory.le_hash = Signer::a().mrsigner();
        let spec = &enclave.spec;
        let mut secs = spec.secs();
        let mut sigstruct = spec.sigstruct(Signer::a());
        if let Some((id, svn)) = enclave.config {
            secs.configid[..8].copy_from_slice(&id);
            secs.configsvn = svn.into();
            sigstruct.isvfamilyid = [enclave.family; 16];
            Signer::a().resign(&mut sigstruct);
        }
        let loaded = spec.load_with(&mut machine, 0, &secs);
        prop_assert_eq!(loaded, Ok(()));

        let status = spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none());

        // EINIT compares its own measurement with that of sgxs in the SIGSTRUCT.
        prop_assert_eq!(status, Ok(SgxStatus::Success));
        let mut measured = [0; 32];
        machine.platform.page(EpcIndex(0)).read(64, &mut measured);
        prop_assert_eq!(measured, spec.mrenclave());
        prop_assert!(rsa_accepts(&sigstruct));
        Ok(())
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn a_measurement_that_sgxs_does_not_have_is_refused() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    let mut other = Spec::simple();
    other.pages[2].contents[100] ^= 1;
    machine.memory.le_hash = Signer::a().mrsigner();
    other.load(&mut machine, 0).expect("the enclave can be built");

    let status = spec.einit(&mut machine, 0, &spec.sigstruct(Signer::a()), &EinitToken::none());

    assert_eq!(status, Ok(SgxStatus::InvalidMeasurement));
}

#[test]
fn configuration_and_base_are_not_measured() {
    let build = |base: u64, configid: u8| {
        let mut spec = Spec::simple();
        spec.base = base;
        let flags = spec.attributes.known_flags() | AttributeFlags::KSS;
        spec.attributes = Attributes::new(flags, 3);
        let mut machine = Machine::new(16);
        let mut secs = spec.secs();
        secs.configid = [configid; 64];
        spec.load_with(&mut machine, 0, &secs).expect("the enclave can be built");
        let mut state = [0; 32];
        machine.platform.page(EpcIndex(0)).read(64, &mut state);
        state
    };

    assert_eq!(build(0x10_0000, 0), build(0x7f00_0000_0000, 9));
}
