//! EINIT with a SIGSTRUCT that is not quite the right one.

use std::sync::{LazyLock, Mutex, PoisonError};

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, SigStruct};
use cloister_sgx::{EpcIndex, SgxStatus};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::choices::Choices;
use crate::enclave::{SIGSTRUCT, Spec, TOKEN};
use crate::machine::Machine;
use crate::signer::Signer;

/// An enclave that is ready for EINIT.
struct Loaded {
    machine: Machine,
    spec: Spec,
    mrenclave: [u8; 32],
    right: SigStruct,
    /// The SECS as it was before.
    secs: [u8; 4096],
}

static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(|| {
    let spec = Spec::simple();
    let mut machine = Machine::new(16);
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    machine.operand(TOKEN, &EinitToken::none());
    let right = spec.sigstruct(Signer::a());
    let secs = machine.platform.page(EpcIndex(0)).to_bytes();
    let mrenclave = spec.mrenclave();
    Mutex::new(Loaded { machine, spec, mrenclave, right, secs })
});

/// Spoils a SIGSTRUCT before or after it is signed. The oracle is the author's own signature,
/// which is unique, and what the enclave was built from.
pub(crate) fn sigstruct(data: &[u8]) {
    let mut choices = Choices::Bytes(data);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { machine, spec, mrenclave, right, secs } = &mut *loaded;

    let mut bytes = right.as_bytes().to_vec();
    if choices.one_in(16) {
        // Signing takes long, so it is the rarer case.
        let part = [0..128, 900..1028][choices.below(2)].clone();
        choices.spoil(&mut bytes[part]);
    }
    let mut signed = SigStruct::read_from_bytes(&bytes).expect("a SIGSTRUCT");
    if bytes != right.as_bytes() {
        Signer::a().resign(&mut signed);
    }
    let mut bytes = signed.as_bytes().to_vec();
    choices.spoil(&mut bytes);
    let given = SigStruct::read_from_bytes(&bytes).expect("a SIGSTRUCT");
    machine.operand(SIGSTRUCT, &given);
    let outcome = machine.encls(leaf::EINIT, SIGSTRUCT, Machine::window(0), TOKEN);
    let status = outcome.expect("EINIT completes").status.expect("EINIT reports");

    let page = machine.platform.page(EpcIndex(0));
    let authentic = given.signed_parts() == signed.signed_parts()
        && given.modulus == signed.modulus
        && given.signature == signed.signature
        && given.q1 == signed.q1
        && given.q2 == signed.q2;
    let mask = given.attributemask;
    let misc = given.miscmask.get();
    let fits = given.enclavehash == *mrenclave
        && given.attributes.and(mask) == spec.attributes.and(mask)
        && given.miscselect.get() & misc == spec.miscselect & misc;
    match status {
        SgxStatus::Success => assert!(authentic && fits, "EINIT accepted what nobody signed"),
        SgxStatus::InvalidSignature => assert!(!authentic, "EINIT refused its author"),
        SgxStatus::InvalidMeasurement | SgxStatus::InvalidAttribute => assert!(!fits),
        SgxStatus::InvalidSigStruct => assert_ne!(given.as_bytes(), right.as_bytes()),
        other => panic!("EINIT returned {other:?}"),
    }
    let changed = page.to_bytes() != *secs;
    assert_eq!(changed, status == SgxStatus::Success, "{status:?}");
    page.write(0, &secs[..]);
}
