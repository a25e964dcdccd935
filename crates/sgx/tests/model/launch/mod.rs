//! EINIT: measurement, signature, attributes and launch control.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, SigStruct};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, SgxStatus};
use cloister_x86::{La, PageFaultCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::enclave::{Page, SIGSTRUCT, Spec, TOKEN};
use crate::keys::einittoken;
use crate::machine::{GP, Machine, epcm_fault};
use crate::signer::Signer;

/// EINIT of [`Spec::simple`] with a SIGSTRUCT that `change` made of a good one.
fn einit(change: impl FnOnce(&mut SigStruct)) -> SgxStatus {
    let spec = Spec::simple();
    let mut machine = Machine::new(16);
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let mut sigstruct = spec.sigstruct(Signer::a());
    change(&mut sigstruct);
    spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none()).expect("EINIT completes")
}

/// Random enclaves: pages in random order with random permissions, some chunks unmeasured.
fn enclaves() -> impl Strategy<Value = Spec> {
    let page = (0..64u64, any::<[u8; 8]>(), any::<u16>(), 0..4u8, any::<bool>());
    (proptest::collection::vec(page, 0..6), 1..5u32, any::<bool>(), 14..30u32).prop_map(
        |(pages, ssaframesize, exinfo, size)| {
            let mut spec = Spec::simple();
            spec.ssaframesize = ssaframesize;
            spec.miscselect = exinfo.into();
            spec.size = 1 << size.max(18);
            spec.base = 0;
            spec.pages.clear();
            let mut used = std::collections::BTreeSet::new();
            for (place, seed, measured, permissions, thread) in pages {
                if !used.insert(place) {
                    continue;
                }
                let mut contents = [0; 4096];
                if thread {
                    contents = crate::enclave::tcs(u64::from(seed[0]) << 12, 1, place);
                } else {
                    for (at, byte) in contents.iter_mut().enumerate() {
                        *byte = seed[at % 8] ^ (at / 8) as u8;
                    }
                }
                let flags = [1, 3, 5, 7][usize::from(permissions)];
                let flags = cloister_sgx::layout::SecInfoFlags::from_bits_truncate(flags);
                let mut page = if thread {
                    Page::tcs(place << 12, contents)
                } else {
                    Page::reg(place << 12, flags, contents)
                };
                page.measured = measured;
                spec.pages.push(page);
            }
            spec
        },
    )
}

#[test]
fn measurements_and_signatures_agree_with_sgxs_and_rsa_for_200_enclaves() {
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let result = runner.run(&enclaves(), |spec| {
        let mut machine = Machine::new(16);
        let status = spec.start(&mut machine, 0, Signer::a());
        // EINIT compares its own measurement with that of sgxs in the SIGSTRUCT.
        prop_assert_eq!(status, SgxStatus::Success);
        let mut measured = [0; 32];
        machine.platform.page(EpcIndex(0)).read(64, &mut measured);
        prop_assert_eq!(measured, spec.mrenclave());
        Ok(())
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn einit_initializes_and_reports_success() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    machine.operand(SIGSTRUCT, &spec.sigstruct(Signer::a()));
    machine.operand(TOKEN, &EinitToken::none());

    let returned = machine
        .encls_registers(leaf::EINIT, SIGSTRUCT, Machine::window(0), TOKEN)
        .expect("EINIT completes");

    assert_eq!(returned.rax, 0);
    assert_eq!(returned.rflags, 0x2, "CF, PF, AF, ZF, SF and OF are clear");
    let page = machine.platform.page(EpcIndex(0));
    assert_eq!(page.load(48) & 1, 1, "INIT");
    assert_eq!(page.load(256) as u16, 9, "ISVPRODID");
    assert_eq!((page.load(256) >> 16) as u16, 4, "ISVSVN");
    let mut mrsigner = [0; 32];
    page.read(128, &mut mrsigner);
    assert_eq!(mrsigner, Signer::a().mrsigner());
}

#[test]
fn einit_of_an_initialized_enclave_faults() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    spec.start(&mut machine, 0, Signer::a());
    let sigstruct = spec.sigstruct(Signer::a());

    let again = spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none());

    assert_eq!(again, Err(GP));
}

#[test]
fn einit_rejects_each_illegal_header() {
    let invalid = SgxStatus::InvalidSigStruct;
    assert_eq!(einit(|sig| sig.header[0] ^= 1), invalid, "HEADER");
    assert_eq!(einit(|sig| sig.vendor = 1.into()), invalid, "VENDOR");
    assert_eq!(einit(|sig| sig.header2[15] ^= 1), invalid, "HEADER2");
    assert_eq!(einit(|sig| sig.exponent = 65537.into()), invalid, "EXPONENT");
    assert_eq!(einit(|sig| sig.reserved1[83] = 1), invalid, "reserved");
    assert_eq!(einit(|sig| sig.reserved2[0] = 1), invalid, "reserved");
    assert_eq!(einit(|sig| sig.reserved3[0] = 1), invalid, "reserved");
    assert_eq!(einit(|sig| sig.reserved4[0] = 1), invalid, "reserved");
    assert_eq!(einit(|sig| sig.cet_attributes = 1), invalid, "no CET");
}

#[test]
fn einit_rejects_each_wrong_signature() {
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
fn einit_gives_way_to_a_pending_event_after_the_header() {
    let spec = Spec::simple();
    let mut machine = Machine::new(16);
    machine.memory.event = true;
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let good = spec.sigstruct(Signer::a());
    let mut bad_header = good.clone();
    bad_header.header[0] ^= 1;
    let mut bad_signature = good.clone();
    bad_signature.signature[0] ^= 1;
    let none = EinitToken::none();

    let first = spec.einit(&mut machine, 0, &bad_header, &none);
    let second = spec.einit(&mut machine, 0, &bad_signature, &none);
    let third = spec.einit(&mut machine, 0, &good, &none);

    assert_eq!(first, Ok(SgxStatus::InvalidSigStruct));
    assert_eq!(second, Ok(SgxStatus::UnmaskedEvent));
    assert_eq!(third, Ok(SgxStatus::UnmaskedEvent));
}

#[test]
fn einit_compares_the_measurement() {
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
fn einit_compares_attributes_and_miscselect_under_their_masks() {
    let mut built = Spec::simple();
    let start = |built: &Spec, signed: &Spec| {
        let mut machine = Machine::new(16);
        machine.memory.le_hash = Signer::a().mrsigner();
        built.load(&mut machine, 0).expect("the enclave can be built");
        let sigstruct = signed.sigstruct(Signer::a());
        built.einit(&mut machine, 0, &sigstruct, &EinitToken::none()).expect("EINIT completes")
    };
    let mut signed = Spec::simple();
    signed.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);

    let debug_free = start(&built, &signed);
    signed.debug_mask = true;
    let debug_bound = start(&built, &signed);
    built.miscselect = 0;
    let misc = start(&built, &Spec::simple());

    assert_eq!(debug_free, SgxStatus::Success, "DEBUG is outside the mask");
    assert_eq!(debug_bound, SgxStatus::InvalidAttribute);
    assert_eq!(misc, SgxStatus::InvalidAttribute);
}

#[test]
fn einit_without_a_token_needs_the_trusted_signer() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    machine.memory.le_hash = Signer::b().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");

    let status = spec.einit(&mut machine, 0, &spec.sigstruct(Signer::a()), &EinitToken::none());

    assert_eq!(status, Ok(SgxStatus::InvalidEinitToken));
}

#[test]
fn only_the_trusted_signer_may_have_the_token_key() {
    let mut spec = Spec::simple();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::EINITTOKEN_KEY;
    spec.attributes = Attributes::new(flags, 3);
    let run = |le: &Signer| {
        let mut machine = Machine::new(16);
        machine.memory.le_hash = le.mrsigner();
        spec.load(&mut machine, 0).expect("the enclave can be built");
        let sigstruct = spec.sigstruct(Signer::a());
        spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none())
    };

    assert_eq!(run(Signer::a()), Ok(SgxStatus::Success));
    assert_eq!(run(Signer::b()), Ok(SgxStatus::InvalidAttribute));
}

#[test]
fn a_launch_enclaves_token_lets_another_signer_in() {
    let run = |change: &dyn Fn(&mut EinitToken)| {
        let mut machine = Machine::new(32);
        let spec = Spec::simple();
        let mut token = einittoken(&mut machine, &spec);
        change(&mut token);
        spec.load(&mut machine, 16).expect("the enclave can be built");
        let sigstruct = spec.sigstruct(Signer::a());
        spec.einit(&mut machine, 16, &sigstruct, &token).expect("EINIT completes")
    };

    assert_eq!(run(&|_| {}), SgxStatus::Success);
    let invalid = SgxStatus::InvalidEinitToken;
    assert_eq!(run(&|token| token.mac[0] ^= 1), invalid, "MAC");
    assert_eq!(run(&|token| token.mrenclave[0] ^= 1), invalid, "MACed field");
    assert_eq!(run(&|token| token.valid = 3.into()), invalid, "VALID reserved bits");
    assert_eq!(run(&|token| token.reserved4[0] = 1), invalid, "reserved");
    assert_eq!(run(&|token| token.keyid[0] ^= 1), invalid, "KEYID");
    assert_eq!(run(&|token| token.isvsvnle = 7.into()), invalid, "another launch enclave");
    assert_eq!(run(&|token| token.cpusvnle[15] = 1), SgxStatus::InvalidCpuSvn, "CPUSVN");
    assert_eq!(
        run(&|token| token.valid = 0.into()),
        invalid,
        "without VALID the signer must be the trusted one"
    );
}

#[test]
fn a_token_holds_for_one_enclave_only() {
    let run = |change: &dyn Fn(&mut Spec)| {
        let mut machine = Machine::new(32);
        let token = einittoken(&mut machine, &Spec::simple());
        let mut other = Spec::simple();
        change(&mut other);
        other.load(&mut machine, 16).expect("the enclave can be built");
        let sigstruct = other.sigstruct(Signer::a());
        other.einit(&mut machine, 16, &sigstruct, &token).expect("EINIT completes")
    };
    let debug = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    let provision = Attributes::new(debug | AttributeFlags::PROVISIONKEY, 3);
    let production = Attributes::new(AttributeFlags::MODE64BIT, 3);

    let hash = run(&|spec| spec.pages[3].contents[0] ^= 1);
    let attributes = run(&|spec| spec.attributes = provision);
    let debug_launcher = run(&|spec| spec.attributes = production);

    assert_eq!(hash, SgxStatus::InvalidMeasurement);
    assert_eq!(attributes, SgxStatus::InvalidAttribute);
    assert_eq!(debug_launcher, SgxStatus::InvalidEinitToken, "launches debug enclaves only");
}

#[test]
fn einit_checks_its_operands() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    machine.operand(SIGSTRUCT, &spec.sigstruct(Signer::a()));
    machine.operand(TOKEN, &EinitToken::none());
    let secs = Machine::window(0);
    let write = PageFaultCode::WRITE;
    let mut run =
        |rbx: u64, rcx: u64, rdx: u64| machine.encls(leaf::EINIT, rbx, rcx, rdx).unwrap_err();

    assert_eq!(run(SIGSTRUCT + 64, secs, TOKEN), GP, "SIGSTRUCT alignment");
    assert_eq!(run(SIGSTRUCT, secs + 64, TOKEN), GP, "SECS alignment");
    assert_eq!(run(SIGSTRUCT, secs, TOKEN + 64), GP, "token alignment");
    assert_eq!(run(SIGSTRUCT, TOKEN, TOKEN), epcm_fault(TOKEN, write), "not in the EPC");
    let child = Machine::window(1);
    assert_eq!(run(SIGSTRUCT, child, TOKEN), epcm_fault(child, write), "not an SECS");
    let unused = Machine::window(15);
    assert_eq!(run(SIGSTRUCT, unused, TOKEN), epcm_fault(unused, write), "not VALID");
}

#[test]
fn a_hypervisor_initializes_on_copies_with_the_vcpus_own_hash() {
    let spec = Spec::simple();
    let mut machine = Machine::new(16);
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let sigstruct = spec.sigstruct(Signer::a());
    let token = EinitToken::none();
    let la = La(Machine::window(0));
    let run = |hash: [u8; 32], event: bool| {
        machine.platform.einit(EpcIndex(0), la, &sigstruct, &token, &hash, || event)
    };

    let event = run(Signer::a().mrsigner(), true);
    let wrong = run(Signer::b().mrsigner(), false);
    let right = run(Signer::a().mrsigner(), false);

    assert_eq!(event, Ok(SgxStatus::UnmaskedEvent));
    assert_eq!(wrong, Ok(SgxStatus::InvalidEinitToken));
    assert_eq!(right, Ok(SgxStatus::Success));
}
