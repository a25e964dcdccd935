//! EGETKEY with any KEYREQUEST.

use std::sync::{LazyLock, Mutex, PoisonError};

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyPolicy, KeyRequest, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, SgxStatus, Stop};
use cloister_x86::Gpr;
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::choices::Choices;
use crate::enclave::{DATA, Spec, TCS};
use crate::machine::{GP, Machine};
use crate::signer::Signer;

/// A processor inside an enclave, and the EPC page of the enclave's data.
struct Inside {
    machine: Machine,
    data: EpcIndex,
    spec: Spec,
}

/// Enclaves of one signer on one platform, which differ in attributes and contents.
static INSIDE: LazyLock<Mutex<Vec<Inside>>> = LazyLock::new(|| {
    let platform = Machine::new(64).platform;
    let all = AttributeFlags::PROVISIONKEY | AttributeFlags::EINITTOKEN_KEY | AttributeFlags::KSS;
    let kinds = [AttributeFlags::empty(), AttributeFlags::DEBUG, all];
    let enter = |(number, flags): (usize, AttributeFlags)| {
        let mut spec = Spec::simple();
        spec.attributes = Attributes::new(AttributeFlags::MODE64BIT | flags, 3);
        spec.pages[2].contents[0] = number as u8;
        let mut machine = Machine::on(platform.clone());
        let secs = number as u32 * 16;
        assert_eq!(spec.start(&mut machine, secs, Signer::a()), SgxStatus::Success);
        machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
        Inside { machine, data: EpcIndex(secs + 4), spec }
    };
    Mutex::new(kinds.into_iter().enumerate().map(enter).collect())
});

/// What EGETKEY gives: a key, or why not.
fn egetkey(
    inside: &mut Inside,
    request: &KeyRequest,
    rbx: u64,
    rcx: u64,
) -> Result<Option<[u8; 16]>, Stop> {
    let page = inside.machine.platform.page(inside.data);
    page.write(0, &[0; 4096]);
    page.write(0, request.as_bytes());
    inside.machine.enclu(user::EGETKEY, rbx, rcx, 0)?;
    let mut key = [0; 16];
    inside.machine.platform.page(inside.data).read((rcx & 0xfff) as usize, &mut key);
    if inside.machine.cpu.gpr[Gpr::Rax] == 0 { Ok(Some(key)) } else { Ok(None) }
}

/// Asks for one key in several ways, and by enclaves that must not share it.
pub(crate) fn keyrequest(data: &[u8]) {
    let mut choices = Choices::Bytes(data);
    let mut all = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let hash = if choices.one_in(4) { Signer::b() } else { Signer::a() }.mrsigner();
    let number = choices.below(all.len());
    let mut request = KeyRequest::new_zeroed();
    request.keyname = (choices.below(6) as u16).into();
    request.keypolicy = (choices.below(0x48) as u16).into();
    request.isvsvn = (choices.below(6) as u16).into();
    request.attributemask =
        Attributes { flags: choices.word().into(), xfrm: choices.word().into() };
    request.miscmask = (choices.word() as u32).into();
    let mut bytes = request.as_bytes().to_vec();
    choices.spoil(&mut bytes);
    let request = KeyRequest::read_from_bytes(&bytes).expect("a KEYREQUEST");
    let (mut rbx, mut rcx) = (DATA, DATA + 0x200);
    let astray = choices.one_in(8);
    if astray {
        rbx = rbx.wrapping_add(choices.below(8192) as u64);
        rcx = rcx.wrapping_add(choices.below(8192) as u64);
    }
    for inside in all.iter_mut() {
        inside.machine.memory.le_hash = hash;
    }

    let key = egetkey(&mut all[number], &request, rbx, rcx);
    if astray {
        // Somewhere else in the page lies another request.
        assert!(matches!(key, Ok(_) | Err(Stop::Fault(_))), "{key:?}");
        return;
    }
    assert_eq!(egetkey(&mut all[number], &request, rbx, rcx), key, "keys do not change");
    let well_formed = request.cet_attributes_mask == 0
        && request.reserved1 == 0
        && request.reserved2.iter().all(|&byte| byte == 0)
        && request.keypolicy.get() & !KeyPolicy::all().bits() == 0;
    match key {
        Err(stop) => {
            assert_eq!(stop, GP);
            let kss = all[number].spec.attributes.has(AttributeFlags::KSS);
            assert!(!well_formed || !kss, "a well-formed request faulted");
        }
        Ok(None) => {
            let mut output = [0; 16];
            all[number].machine.platform.page(all[number].data).read(0x200, &mut output);
            assert_eq!(output, [0; 16], "a key was refused and given");
        }
        Ok(Some(key)) => {
            assert!(well_formed);
            given(&mut all, number, &request, key, &hash);
        }
    }
}

/// What must hold for a key that enclave `number` got.
fn given(all: &mut [Inside], number: usize, request: &KeyRequest, key: [u8; 16], hash: &[u8; 32]) {
    let spec = &all[number].spec;
    let name = request.keyname.get();
    if name != key_name::REPORT {
        assert!(request.isvsvn.get() <= spec.isvsvn, "a key of the future was given");
    }
    match name {
        key_name::EINITTOKEN => {
            assert!(spec.attributes.has(AttributeFlags::EINITTOKEN_KEY));
            assert_eq!(*hash, Signer::a().mrsigner());
        }
        key_name::PROVISION | key_name::PROVISION_SEAL => {
            assert!(spec.attributes.has(AttributeFlags::PROVISIONKEY));
        }
        key_name::REPORT | key_name::SEAL => {}
        other => panic!("there is no key {other}"),
    }
    // Every key but the provisioning keys depends on KEYID.
    let mut other = request.clone();
    other.keyid[0] ^= 1;
    let another = egetkey(&mut all[number], &other, DATA, DATA + 0x200);
    let provisioning = matches!(name, key_name::PROVISION | key_name::PROVISION_SEAL);
    assert_eq!(another == Ok(Some(key)), provisioning);
    // Enclaves share no key that is bound to MRENCLAVE.
    let policy = KeyPolicy::from_bits_truncate(request.keypolicy.get());
    let bound = name == key_name::REPORT
        || (name == key_name::SEAL && policy.contains(KeyPolicy::MRENCLAVE));
    let next = (number + 1) % all.len();
    if bound {
        let foreign = egetkey(&mut all[next], request, DATA, DATA + 0x200);
        assert_ne!(foreign, Ok(Some(key)), "two enclaves have one key");
    }
}
