//! The signature of SIGSTRUCT, against `rsa` and `sgxs`.

use cloister_sgx::SgxStatus;
use cloister_sgx::layout::{EinitToken, SigStruct};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::enclave::Spec;
use crate::machine::Machine;
use crate::signer::{Signer, divide, rsa_accepts};

/// EINIT of an enclave without pages with a SIGSTRUCT that `change` made of a good one.
fn einit(change: impl FnOnce(&mut SigStruct)) -> SgxStatus {
    let spec = Spec { pages: Vec::new(), ..Spec::simple() };
    let mut machine = Machine::new(4);
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.ecreate(&mut machine, 0).expect("the enclave can be built");
    let mut sigstruct = spec.sigstruct(Signer::a());
    change(&mut sigstruct);
    spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none()).expect("EINIT completes")
}

#[test]
fn each_wrong_signature_is_refused() {
    let invalid = SgxStatus::InvalidSignature;
    assert_eq!(einit(|sig| sig.vendor = 0x8086.into()), invalid, "signed field changed");
    assert_eq!(einit(|sig| sig.signature[0] ^= 1), invalid, "signature");
    assert_eq!(einit(|sig| sig.modulus[0] ^= 2), invalid, "modulus");
    assert_eq!(einit(|sig| sig.q1[0] ^= 1), invalid, "Q1");
    assert_eq!(einit(|sig| sig.q2[383] ^= 1), invalid, "Q2");
    assert_eq!(einit(|sig| sig.enclavehash[0] ^= 1), invalid, "hash not signed");
    assert_eq!(
        einit(|sig| {
            sig.modulus = [0; 384];
            sig.signature = [0; 384];
            sig.q1 = [0; 384];
            sig.q2 = [0; 384];
        }),
        invalid,
        "all zero"
    );
    assert_eq!(einit(|sig| sig.signature = sig.modulus), invalid, "signature not below modulus");
}

#[test]
fn another_key_signs_as_well() {
    let signed = einit(|sig| Signer::b().resign(sig));

    assert_eq!(signed, SgxStatus::InvalidEinitToken, "the signature holds, the signer is another");
}

#[test]
fn verification_agrees_with_rsa_on_flipped_bits() {
    // Fields that EINIT looks at before the signature stay as they are; Q1 and Q2 belong to what
    // the modulus and the signature say.
    let places = prop_oneof![
        20..24usize,
        40..44usize,
        128..512usize,
        516..900usize,
        900..908usize,
        912..992usize,
        1008..1028usize,
    ];
    let mut runner =
        TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let spec = Spec { pages: Vec::new(), ..Spec::simple() };
    let good = spec.sigstruct(Signer::a());

    let result = runner.run(&(places, 0..8u32), |(place, bit)| {
        let mut bytes = [0; 1808];
        bytes.copy_from_slice(good.as_bytes());
        bytes[place] ^= 1 << bit;
        let mut changed = SigStruct::read_from_bytes(&bytes).expect("a SIGSTRUCT");
        divide(&mut changed);
        let status = einit(|sig| *sig = changed.clone());
        prop_assert_eq!(status != SgxStatus::InvalidSignature, rsa_accepts(&changed));
        Ok(())
    });

    assert!(rsa_accepts(&good));
    assert_eq!(result, Ok(()));
}
