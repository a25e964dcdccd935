//! EINIT with an EINITTOKEN that is not quite the right one.

use std::sync::{LazyLock, Mutex, PoisonError};

use aes::Aes128;
use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, KeyRequest, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, SgxStatus};
use cloister_x86::Gpr;
use cmac::{Cmac, KeyInit as _, Mac as _};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::choices::Choices;
use crate::enclave::{DATA, SIGSTRUCT, Spec, TCS, TOKEN};
use crate::machine::Machine;
use crate::signer::Signer;

/// EPC page of the SECS that a token is for.
const SECS: u32 = 16;

/// An enclave of A that is ready for EINIT, and what the launch enclave of B knows.
struct Loaded {
    machine: Machine,
    spec: Spec,
    mrenclave: [u8; 32],
    key: [u8; 16],
    right: EinitToken,
    secs: [u8; 4096],
}

static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(|| {
    let mut launcher = Spec::simple();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::EINITTOKEN_KEY;
    launcher.attributes = Attributes::new(flags, 3);
    let mut machine = Machine::new(32);
    let started = launcher.start(&mut machine, 0, Signer::b());
    assert_eq!(started, SgxStatus::Success);
    let request = KeyRequest {
        keyname: key_name::EINITTOKEN.into(),
        isvsvn: launcher.isvsvn.into(),
        cpusvn: *machine.platform.cpusvn(),
        attributemask: Attributes { flags: (!0).into(), xfrm: (!0).into() },
        keyid: [0x42; 32],
        ..KeyRequest::new_zeroed()
    };
    // The launch enclave's code would write the request and read the key.
    let data = EpcIndex(4);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine.platform.page(data).write(0, request.as_bytes());
    machine.enclu(user::EGETKEY, DATA, DATA + 0x200, 0).expect("EGETKEY completes");
    assert_eq!(machine.cpu.gpr[Gpr::Rax], 0, "the launch key is given");
    let mut key = [0; 16];
    machine.platform.page(data).read(0x200, &mut key);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    let spec = Spec::simple();
    spec.load(&mut machine, SECS).expect("the enclave can be built");
    machine.operand(SIGSTRUCT, &spec.sigstruct(Signer::a()));
    let mut right = EinitToken::none();
    right.valid = 1.into();
    right.attributes = spec.attributes;
    right.mrenclave = spec.mrenclave();
    right.mrsigner = Signer::a().mrsigner();
    right.cpusvnle = request.cpusvn;
    right.isvprodidle = launcher.isvprodid.into();
    right.isvsvnle = launcher.isvsvn.into();
    right.maskedattributesle = Attributes::new(flags | AttributeFlags::INIT, 3);
    right.keyid = request.keyid;
    right.mac = mac(&key, &right);
    let secs = machine.platform.page(EpcIndex(SECS)).to_bytes();
    let mrenclave = spec.mrenclave();
    Mutex::new(Loaded { machine, spec, mrenclave, key, right, secs })
});

/// The MAC that the launch enclave makes over a token.
fn mac(key: &[u8; 16], token: &EinitToken) -> [u8; 16] {
    let mut mac = Cmac::<Aes128>::new(&(*key).into());
    mac.update(&token.as_bytes()[..EinitToken::MACED]);
    mac.finalize().into_bytes().into()
}

/// Spoils a token before or after it is MACed.
pub(crate) fn einittoken(data: &[u8]) {
    let mut choices = Choices::Bytes(data);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { machine, spec, mrenclave, key, right, secs } = &mut *loaded;

    // Launch control may trust the enclave's own signer instead.
    let trusted = choices.one_in(8);
    machine.memory.le_hash = if trusted { Signer::a() } else { Signer::b() }.mrsigner();
    let mut bytes = right.as_bytes().to_vec();
    choices.spoil(&mut bytes);
    let mut given = EinitToken::read_from_bytes(&bytes).expect("a token");
    if choices.one_in(2) {
        given.mac = mac(key, &given);
    }
    machine.operand(TOKEN, &given);
    let outcome = machine.encls(leaf::EINIT, SIGSTRUCT, Machine::window(SECS), TOKEN);
    let status = outcome.expect("EINIT completes").status.expect("EINIT reports");

    let page = machine.platform.page(EpcIndex(SECS));
    let fits = given.mrenclave == *mrenclave
        && given.mrsigner == Signer::a().mrsigner()
        && given.attributes == spec.attributes;
    // What else the launch key depends on.
    let same_key = given.cpusvnle == right.cpusvnle
        && given.isvprodidle == right.isvprodidle
        && given.isvsvnle == right.isvsvnle
        && given.maskedmiscselectle == right.maskedmiscselectle
        && given.maskedattributesle == right.maskedattributesle
        && given.keyid == right.keyid;
    let unused = given.valid.get() & 1 == 0;
    let right_token =
        given.valid.get() == 1 && given.mac == mac(key, &given) && same_key && !trusted && fits;
    let accepted = status == SgxStatus::Success;
    if unused {
        assert_eq!(accepted, trusted, "without a token the signer decides");
    } else {
        assert!(!accepted || right_token, "EINIT accepted a token that nobody made");
        if given.as_bytes() == right.as_bytes() && !trusted {
            assert!(accepted, "EINIT refused the right token: {status:?}");
        }
    }
    let changed = page.to_bytes() != *secs;
    assert_eq!(changed, accepted, "{status:?}");
    page.write(0, &secs[..]);
}
