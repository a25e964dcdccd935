//! A launch enclave of our own: it asks EGETKEY for its launch key and makes EINITTOKENs with it.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, KeyRequest, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, SgxStatus};
use cloister_x86::Gpr;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::enclave::{DATA, Spec, TCS};
use crate::keys::cmac;
use crate::machine::Machine;
use crate::signer::Signer;

const KEYREQUEST: u64 = DATA;
const KEY: u64 = DATA + 0x200;

/// A launch enclave that has its key.
pub(super) struct Launcher {
    pub(super) key: [u8; 16],
    isvprodid: u16,
    isvsvn: u16,
    attributes: Attributes,
    cpusvn: [u8; 16],
    keyid: [u8; 32],
}

/// What a launch enclave is, and which key it asks for.
pub(super) struct Options {
    pub(super) debug: bool,
    pub(super) cpusvn: Option<[u8; 16]>,
}

impl Options {
    /// A production launch enclave that asks for the key of the platform's CPUSVN.
    pub(super) const PRODUCTION: Self = Self { debug: false, cpusvn: None };
    /// The same as a debug enclave.
    pub(super) const DEBUG: Self = Self { debug: true, cpusvn: None };
}

/// The launch enclave as it is built, signed and asked for in [`Launcher::start`].
pub(super) fn spec(debug: bool) -> Spec {
    let mut spec = Spec::simple();
    let mut flags = AttributeFlags::MODE64BIT | AttributeFlags::EINITTOKEN_KEY;
    flags.set(AttributeFlags::DEBUG, debug);
    spec.attributes = Attributes::new(flags, 3);
    spec
}

/// EGETKEY for the launch key by the enclave in EPC pages 0 to 8; the status if it is refused.
pub(super) fn launch_key(machine: &mut Machine, request: &KeyRequest) -> Result<[u8; 16], u64> {
    // The enclave's code would write the request and read the key.
    let page = EpcIndex(4);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine.platform.page(page).write(0, request.as_bytes());
    machine.enclu(user::EGETKEY, KEYREQUEST, KEY, 0).expect("EGETKEY completes");
    let status = machine.cpu.gpr[Gpr::Rax];
    let mut key = [0; 16];
    machine.platform.page(page).read(0x200, &mut key);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    if status == 0 { Ok(key) } else { Err(status) }
}

/// The request for the launch key of an enclave of this ISVSVN at this CPUSVN.
pub(super) fn request(isvsvn: u16, cpusvn: [u8; 16]) -> KeyRequest {
    KeyRequest {
        keyname: key_name::EINITTOKEN.into(),
        isvsvn: isvsvn.into(),
        cpusvn,
        attributemask: Attributes { flags: (!0u64).into(), xfrm: (!0u64).into() },
        keyid: [0x42; 32],
        ..KeyRequest::new_zeroed()
    }
}

impl Launcher {
    /// Builds and enters the launch enclave, signed by B, in EPC pages 0 to 8 of a machine whose
    /// launch-control hash is B's.
    pub(super) fn start(machine: &mut Machine, options: &Options) -> Self {
        let spec = spec(options.debug);
        spec.load(machine, 0).expect("the launch enclave can be built");
        let sigstruct = spec.sigstruct(Signer::b());
        let status = spec.einit(machine, 0, &sigstruct, &EinitToken::none());
        assert_eq!(status, Ok(SgxStatus::Success));
        let cpusvn = options.cpusvn.unwrap_or(*machine.platform.cpusvn());
        let request = request(spec.isvsvn, cpusvn);
        let key = launch_key(machine, &request).expect("the launch key is given");
        let flags = spec.attributes.flags.get() | AttributeFlags::INIT.bits();
        Self {
            key,
            isvprodid: spec.isvprodid,
            isvsvn: spec.isvsvn,
            attributes: Attributes { flags: flags.into(), xfrm: spec.attributes.xfrm },
            cpusvn,
            keyid: request.keyid,
        }
    }

    /// A token for `enclave` as `signer` signed it.
    pub(super) fn token(&self, enclave: &Spec, signer: &Signer) -> EinitToken {
        let mut token = EinitToken::none();
        token.valid = 1.into();
        token.attributes = enclave.attributes;
        token.mrenclave = enclave.mrenclave();
        token.mrsigner = signer.mrsigner();
        token.cpusvnle = self.cpusvn;
        token.isvprodidle = self.isvprodid.into();
        token.isvsvnle = self.isvsvn.into();
        token.maskedattributesle = self.attributes;
        token.keyid = self.keyid;
        self.seal(&mut token);
        token
    }

    /// MACs what the token says now.
    pub(super) fn seal(&self, token: &mut EinitToken) {
        token.mac = cmac(&self.key, &token.as_bytes()[..192]);
    }
}
