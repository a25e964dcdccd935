//! ENCLU\[EGETKEY\] (SDM Vol. 3D, 38.4, EGETKEY): a key of the enclave or platform.

use cloister_x86::Gpr;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::attributes::{AttributeFlags, Attributes};
use crate::encls::read_secs;
use crate::enclu::operand::enclave_operand;
use crate::enclu::{EncluOutcome, report_status};
use crate::identity::PlatformFuses;
use crate::keys::{Key, KeyDependencies, cpusvn_beyond};
use crate::layout::{KeyPolicy, KeyRequest, Secs, key_name};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;
use crate::status::SgxStatus;

/// RBX: KEYREQUEST; RCX: where the key goes.
pub(super) fn leaf(
    platform: &Platform,
    state: &EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_ref().ok_or(GP)?;
    let (page, at) = enclave_operand(
        platform,
        enclave,
        port,
        cpu.gpr[Gpr::Rbx],
        size_of::<KeyRequest>() as u64,
        512,
        EpcAccess::Read,
    )?;
    let mut request = KeyRequest::new_zeroed();
    page.read(at, request.as_mut_bytes());
    let (output, at) =
        enclave_operand(platform, enclave, port, cpu.gpr[Gpr::Rcx], 16, 16, EpcAccess::Write)?;
    // Reserved space; the CET mask belongs to it where CET is not supported.
    let policy = request.keypolicy.get();
    if request.cet_attributes_mask != 0
        || request.reserved1 != 0
        || request.reserved2.iter().any(|&byte| byte != 0)
        || policy & !KeyPolicy::all().bits() != 0
    {
        return Err(GP);
    }
    let secs = read_secs(platform.page(enclave.secs));
    // CONFIGSVN and the newer policy bits need KSS.
    if !secs.attributes.has(AttributeFlags::KSS)
        && (policy & 0x3c != 0 || request.configsvn.get() > 0)
    {
        return Err(GP);
    }
    let status = match derive(platform.fuses(), &secs, &request, &port.le_pubkey_hash()) {
        Ok(key) => {
            output.write(at, &key);
            SgxStatus::Success
        }
        Err(status) => status,
    };
    report_status(cpu, status);
    Ok(EncluOutcome::default())
}

/// The key that an initialized enclave with this SECS gets for this request, whose reserved space
/// has been checked, or why it gets none.
pub(crate) fn derive(
    fuses: &PlatformFuses,
    secs: &Secs,
    request: &KeyRequest,
    le_hash: &[u8; 32],
) -> Result<Key, SgxStatus> {
    Ok(dependencies(fuses, secs, request, le_hash)?.derive(fuses))
}

/// TMP_KEYDEPENDENCIES for the requested key (SDM Vol. 3D, table 38-66), or why the enclave may
/// not have it.
fn dependencies(
    fuses: &PlatformFuses,
    secs: &Secs,
    request: &KeyRequest,
    le_hash: &[u8; 32],
) -> Result<KeyDependencies, SgxStatus> {
    // Attributes that are always included: INIT and DEBUG.
    let required = (AttributeFlags::INIT | AttributeFlags::DEBUG).bits();
    let mask = request.attributemask;
    let attributes = secs
        .attributes
        .and(Attributes { flags: (mask.flags.get() | required).into(), xfrm: mask.xfrm });
    let miscselect = (request.miscmask.get() & secs.miscselect.get()).into();
    let policy = KeyPolicy::from_bits_truncate(request.keypolicy.get());
    let name = request.keyname.get();
    let base = KeyDependencies { padding: secs.padding, ..KeyDependencies::new(name) };

    match name {
        key_name::SEAL => {
            check_svns(fuses, secs, request)?;
            if request.configsvn.get() > secs.configsvn.get() {
                return Err(SgxStatus::InvalidIsvSvn);
            }
            Ok(KeyDependencies {
                isvsvn: request.isvsvn,
                sgxownerepoch: fuses.owner_epoch,
                attributes,
                attributesmask: mask,
                mrenclave: chosen(policy, KeyPolicy::MRENCLAVE, secs.mrenclave),
                mrsigner: chosen(policy, KeyPolicy::MRSIGNER, secs.mrsigner),
                keyid: request.keyid,
                seal_key_fuses: fuses.seal_fuses,
                cpusvn: request.cpusvn,
                miscselect,
                miscmask: (!request.miscmask.get()).into(),
                keypolicy: request.keypolicy,
                ..with_policy(base, policy, secs, request)
            })
        }
        key_name::REPORT => Ok(KeyDependencies {
            sgxownerepoch: fuses.owner_epoch,
            attributes: secs.attributes,
            mrenclave: secs.mrenclave,
            keyid: request.keyid,
            seal_key_fuses: fuses.seal_fuses,
            cpusvn: fuses.cpusvn,
            miscselect: secs.miscselect,
            configid: secs.configid,
            configsvn: secs.configsvn,
            ..KeyDependencies::new(name)
        }),
        key_name::EINITTOKEN => {
            // The description asks for the launch enclave's signer besides the attribute.
            if !secs.attributes.has(AttributeFlags::EINITTOKEN_KEY) || secs.mrsigner != *le_hash {
                return Err(SgxStatus::InvalidAttribute);
            }
            check_svns(fuses, secs, request)?;
            Ok(KeyDependencies {
                isvprodid: secs.isvprodid,
                isvsvn: request.isvsvn,
                sgxownerepoch: fuses.owner_epoch,
                attributes,
                mrsigner: secs.mrsigner,
                keyid: request.keyid,
                seal_key_fuses: fuses.seal_fuses,
                cpusvn: request.cpusvn,
                miscselect,
                ..base
            })
        }
        key_name::PROVISION => {
            if !secs.attributes.has(AttributeFlags::PROVISIONKEY) {
                return Err(SgxStatus::InvalidAttribute);
            }
            check_svns(fuses, secs, request)?;
            Ok(KeyDependencies {
                isvprodid: secs.isvprodid,
                isvsvn: request.isvsvn,
                attributes,
                attributesmask: mask,
                mrsigner: secs.mrsigner,
                cpusvn: request.cpusvn,
                miscselect,
                miscmask: (!request.miscmask.get()).into(),
                ..base
            })
        }
        key_name::PROVISION_SEAL => {
            if !secs.attributes.has(AttributeFlags::PROVISIONKEY) {
                return Err(SgxStatus::InvalidAttribute);
            }
            check_svns(fuses, secs, request)?;
            Ok(KeyDependencies {
                isvsvn: request.isvsvn,
                attributes,
                attributesmask: mask,
                mrsigner: secs.mrsigner,
                seal_key_fuses: fuses.seal_fuses,
                cpusvn: request.cpusvn,
                miscselect,
                miscmask: (!request.miscmask.get()).into(),
                keypolicy: request.keypolicy,
                ..with_policy(base, policy, secs, request)
            })
        }
        _ => Err(SgxStatus::InvalidKeyName),
    }
}

/// CPUSVN is not beyond the platform's, ISVSVN not beyond the enclave's.
fn check_svns(fuses: &PlatformFuses, secs: &Secs, request: &KeyRequest) -> Result<(), SgxStatus> {
    if cpusvn_beyond(&request.cpusvn, &fuses.cpusvn) {
        return Err(SgxStatus::InvalidCpuSvn);
    }
    if request.isvsvn.get() > secs.isvsvn.get() {
        return Err(SgxStatus::InvalidIsvSvn);
    }
    Ok(())
}

/// The product and configuration identities that KEYPOLICY selects.
fn with_policy(
    base: KeyDependencies,
    policy: KeyPolicy,
    secs: &Secs,
    request: &KeyRequest,
) -> KeyDependencies {
    let configured = policy.contains(KeyPolicy::CONFIGID);
    KeyDependencies {
        isvfamilyid: chosen(policy, KeyPolicy::ISVFAMILYID, secs.isvfamilyid),
        isvextprodid: chosen(policy, KeyPolicy::ISVEXTPRODID, secs.isvextprodid),
        isvprodid: if policy.contains(KeyPolicy::NOISVPRODID) { 0.into() } else { secs.isvprodid },
        configid: chosen(policy, KeyPolicy::CONFIGID, secs.configid),
        configsvn: if configured { request.configsvn } else { 0.into() },
        ..base
    }
}

/// `value` if `policy` asks for it, else zeros.
fn chosen<const N: usize>(policy: KeyPolicy, bit: KeyPolicy, value: [u8; N]) -> [u8; N] {
    if policy.contains(bit) { value } else { [0; N] }
}
