//! What EINIT leaves in registers and in the SECS.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::EinitToken;
use cloister_sgx::{AttributeFlags, EpcIndex, SgxStatus};

use super::einit::{Case, SECS, empty, flags, good, launcher, machine, run};
use crate::enclave::{SIGSTRUCT, Spec, TOKEN};
use crate::machine::Machine;
use crate::signer::Signer;

#[test]
fn success_clears_rax_and_flags_and_enters_the_signers_fields_in_the_secs() {
    let mut machine = machine();
    let case = good();
    case.enclave.ecreate(&mut machine, SECS).expect("the enclave can be built");
    machine.operand(SIGSTRUCT, &case.sigstruct);
    machine.operand(TOKEN, &case.token);

    let returned = machine
        .encls_registers(leaf::EINIT, SIGSTRUCT, Machine::window(SECS), TOKEN)
        .expect("EINIT completes");

    assert_eq!((returned.rax, returned.rflags), (0, 0x2));
    let page = machine.platform.page(EpcIndex(SECS));
    assert_eq!(page.load(48) & 1, 1, "INIT");
    assert_eq!(page.load(256) as u16, 9, "ISVPRODID");
    assert_eq!((page.load(256) >> 16) as u16, 4, "ISVSVN");
    let (mut mrenclave, mut mrsigner) = ([0; 32], [0; 32]);
    page.read(64, &mut mrenclave);
    page.read(128, &mut mrsigner);
    assert_eq!(mrenclave, empty().mrenclave());
    assert_eq!(mrsigner, Signer::a().mrsigner());
}

#[test]
fn an_error_sets_zf_and_rax_and_leaves_the_enclave_uninitialized() {
    let mut machine = machine();
    let case = good();
    case.enclave.ecreate(&mut machine, SECS).expect("the enclave can be built");
    machine.operand(SIGSTRUCT, &case.sigstruct);
    machine.operand(TOKEN, &EinitToken::none());
    let before = machine.platform.page(EpcIndex(SECS)).to_bytes();

    let returned = machine
        .encls_registers(leaf::EINIT, SIGSTRUCT, Machine::window(SECS), TOKEN)
        .expect("EINIT completes");

    assert_eq!((returned.rax, returned.rflags), (16, 0x42));
    assert_eq!(machine.platform.page(EpcIndex(SECS)).to_bytes(), before);
}

#[test]
fn attributes_and_miscselect_outside_the_masks_do_not_count() {
    let with = |change: fn(&mut Case)| {
        let mut case = good();
        change(&mut case);
        run(case)
    };
    let success = Ok(Some(SgxStatus::Success));

    assert_eq!(
        with(|case| {
            case.sigstruct.attributes.flags ^= 2;
            case.sigstruct.attributemask.flags ^= 2;
        }),
        success,
        "DEBUG"
    );
    assert_eq!(
        with(|case| {
            case.sigstruct.attributes.xfrm ^= 4;
            case.sigstruct.attributemask.xfrm ^= 4;
        }),
        success,
        "XFRM"
    );
    assert_eq!(
        with(|case| {
            case.sigstruct.miscselect ^= 1;
            case.sigstruct.miscmask ^= 1;
        }),
        success,
        "MISCSELECT"
    );
    assert_eq!(with(|case| case.sigstruct.vendor = 0x8086.into()), success, "VENDOR Intel");
}

#[test]
fn kss_admits_family_and_product_identities() {
    let mut case = good();
    flags(&mut case, AttributeFlags::MODE64BIT | AttributeFlags::DEBUG | AttributeFlags::KSS);
    case.sigstruct.isvfamilyid = [0xfa; 16];
    case.sigstruct.isvextprodid = [0xeb; 16];
    let mut machine = machine();
    case.enclave.ecreate(&mut machine, SECS).expect("the enclave can be built");
    Signer::a().resign(&mut case.sigstruct);
    launcher().seal(&mut case.token);

    let status = case.enclave.einit(&mut machine, SECS, &case.sigstruct, &case.token);

    assert_eq!(status, Ok(SgxStatus::Success));
    let page = machine.platform.page(EpcIndex(SECS)).to_bytes();
    assert_eq!(page[260 + 4..280], [0xfa; 16]);
    assert_eq!(page[280..296], [0xeb; 16]);
}

#[test]
fn the_hash_and_the_events_are_those_that_the_port_names() {
    let spec = Spec::simple();
    let mut machine = Machine::new(16);
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let sigstruct = spec.sigstruct(Signer::a());
    let mut run = |hash: [u8; 32], event: bool| {
        (machine.memory.le_hash, machine.memory.event) = (hash, event);
        spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none())
    };

    let event = run(Signer::a().mrsigner(), true);
    let wrong = run(Signer::b().mrsigner(), false);
    let right = run(Signer::a().mrsigner(), false);

    assert_eq!(event, Ok(SgxStatus::UnmaskedEvent));
    assert_eq!(wrong, Ok(SgxStatus::InvalidEinitToken));
    assert_eq!(right, Ok(SgxStatus::Success));
}
