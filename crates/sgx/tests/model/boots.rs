//! One platform over several boots: what enclaves sealed stays theirs, the rest does not.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyRequest, key_name};
use cloister_sgx::{EpcIndex, PlatformConfig, PlatformFuses, SgxStatus};
use cloister_x86::Gpr;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::enclave::{DATA, Spec, TCS};
use crate::machine::Machine;
use crate::signer::Signer;

/// EPC page of the simple enclave's data page.
const DATA_PAGE: EpcIndex = EpcIndex(4);

/// The seal key that an enclave gets on a platform that has just booted.
fn seal_key(fuses: &PlatformFuses) -> [u8; 16] {
    let identity = fuses.boot().expect("there are random numbers");
    let mut machine = Machine::with(PlatformConfig::single(32, identity));
    assert_eq!(Spec::simple().start(&mut machine, 0, Signer::a()), SgxStatus::Success);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    // Bound to MRENCLAVE and MRSIGNER.
    let request = KeyRequest {
        keyname: key_name::SEAL.into(),
        keypolicy: 3.into(),
        ..KeyRequest::new_zeroed()
    };
    machine.platform.page(DATA_PAGE).write(0, request.as_bytes());
    machine.enclu(user::EGETKEY, DATA, DATA + 0x200, 0).expect("EGETKEY completes");
    assert_eq!(machine.cpu.gpr[Gpr::Rax], 0);
    let mut key = [0; 16];
    machine.platform.page(DATA_PAGE).read(0x200, &mut key);
    key
}

#[test]
fn a_seal_key_survives_a_boot_and_is_that_of_the_platform() {
    let (one, two) = (PlatformFuses::draw().unwrap(), PlatformFuses::draw().unwrap());

    assert_eq!(seal_key(&one), seal_key(&one));
    assert_ne!(seal_key(&one), seal_key(&two));
}

#[test]
fn a_seal_key_depends_on_each_secret_of_the_platform() {
    let fuses = PlatformFuses::draw().unwrap();
    let first = seal_key(&fuses);
    let mut changed = [fuses.clone(), fuses.clone(), fuses];
    changed[0].root_key[3] ^= 1;
    changed[1].seal_fuses[3] ^= 1;
    changed[2].owner_epoch[3] ^= 1;

    for fuses in changed {
        assert_ne!(seal_key(&fuses), first);
    }
}
