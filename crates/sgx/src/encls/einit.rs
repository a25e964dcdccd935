//! ENCLS\[EINIT\] (SDM Vol. 3D, 38.3, EINIT): makes an enclave ready to be entered.

use core::sync::atomic::{Ordering, fence};

use cloister_x86::Exception;
use zerocopy::IntoBytes as _;

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EpcPage;
use crate::epcm::{Family, PageType};
use crate::keys::{KeyDependencies, cpusvn_beyond, mac};
use crate::layout::{EinitToken, Secs, SigStruct, key_name};
use crate::measurement::Measurement;
use crate::operand::{EpcOperand, Privilege, linear_aligned, read_struct};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::signature::{mrsigner, verify};
use crate::status::SgxStatus;

/// RBX: SIGSTRUCT; RCX: the SECS; RDX: EINITTOKEN.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let sigstruct_la = linear_aligned(port, regs.rbx, size_of::<SigStruct>() as u64, 4096)?;
    let secs_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let token_la = linear_aligned(port, regs.rdx, size_of::<EinitToken>() as u64, 512)?;
    let target = EpcOperand::resolve(port, secs_la, EpcAccess::Write, Privilege::Supervisor)?;
    let sigstruct: SigStruct = read_struct(port, sigstruct_la)?;
    let token: EinitToken = read_struct(port, token_la)?;
    let status = einit(platform, port, &target, &sigstruct, &token)?;
    Ok(LeafOutcome::status(status))
}

/// From the check of SIGSTRUCT's header on.
fn einit(
    platform: &Platform,
    port: &mut impl LeafPort,
    target: &EpcOperand,
    sigstruct: &SigStruct,
    token: &EinitToken,
) -> Result<SgxStatus, Exception> {
    if !header_is_valid(sigstruct) {
        return Ok(SgxStatus::InvalidSigStruct);
    }
    // The "event window".
    if port.event_pending() {
        return Ok(SgxStatus::UnmaskedEvent);
    }
    let Some(message) = verify(sigstruct) else {
        return Ok(SgxStatus::InvalidSignature);
    };

    // Tables 38-26 and 38-27.
    let entry = platform.entry(target.index);
    let _lock = entry.try_shared().ok_or(Exception::gp(0))?;
    if !entry.view().is(PageType::Secs) {
        return Err(target.page_fault());
    }
    let page = platform.page(target.index);
    let kss = page.load(Secs::ATTRIBUTES) & AttributeFlags::KSS.bits() != 0;
    if sigstruct.isvfamilyid != [0; 16] && !kss {
        return Ok(SgxStatus::InvalidSigStruct);
    }
    let _measure = entry.try_family(Family::Measure).ok_or(Exception::gp(0))?;
    let secs = read_secs(page);
    // SDM Vol. 3D, EINIT, exceptions: #GP(0) if the enclave is already initialized.
    if secs.attributes.has(AttributeFlags::INIT) {
        return Err(Exception::gp(0));
    }

    let mrenclave = Measurement::load(page).finish();
    if sigstruct.enclavehash != mrenclave {
        return Ok(SgxStatus::InvalidMeasurement);
    }
    let mrsigner = mrsigner(sigstruct);
    let le_hash = port.le_pubkey_hash();
    // CONTROLLED_ATTRIBUTES.
    if secs.attributes.has(AttributeFlags::EINITTOKEN_KEY) && mrsigner != le_hash {
        return Ok(SgxStatus::InvalidAttribute);
    }
    let mask = sigstruct.attributemask;
    if secs.attributes.and(mask) != sigstruct.attributes.and(mask) {
        return Ok(SgxStatus::InvalidAttribute);
    }
    let mask = sigstruct.miscmask.get();
    if secs.miscselect.get() & mask != sigstruct.miscselect.get() & mask {
        return Ok(SgxStatus::InvalidAttribute);
    }
    if token.valid.get() & 1 == 0 {
        if mrsigner != le_hash {
            return Ok(SgxStatus::InvalidEinitToken);
        }
    } else {
        let status = check_token(platform, token, &secs, &mrenclave, &mrsigner, &le_hash);
        if status != SgxStatus::Success {
            return Ok(status);
        }
    }

    commit(page, secs, sigstruct, mrenclave, mrsigner, message.padding);
    Ok(SgxStatus::Success)
}

/// HEADER, VENDOR, HEADER2, EXPONENT and the reserved space of SIGSTRUCT. Without CET its fields
/// are reserved.
fn header_is_valid(sigstruct: &SigStruct) -> bool {
    let vendor = sigstruct.vendor.get();
    sigstruct.header == SigStruct::HEADER
        && (vendor == 0 || vendor == 0x8086)
        && sigstruct.header2 == SigStruct::HEADER2
        && sigstruct.exponent.get() == 3
        && sigstruct.reserved1.iter().all(|&byte| byte == 0)
        && sigstruct.cet_attributes == 0
        && sigstruct.cet_attributes_mask == 0
        && sigstruct.reserved2 == [0; 2]
        && sigstruct.reserved3 == [0; 16]
        && sigstruct.reserved4 == [0; 12]
}

/// The checks on a valid EINITTOKEN, in the order of the pseudo-code.
fn check_token(
    platform: &Platform,
    token: &EinitToken,
    secs: &Secs,
    mrenclave: &[u8; 32],
    mrsigner: &[u8; 32],
    le_hash: &[u8; 32],
) -> SgxStatus {
    // A debug launch enclave cannot launch production enclaves.
    if token.maskedattributesle.has(AttributeFlags::DEBUG)
        && !secs.attributes.has(AttributeFlags::DEBUG)
    {
        return SgxStatus::InvalidEinitToken;
    }
    if token.valid.get() != 1
        || token.reserved1 != [0; 44]
        || token.reserved2 != [0; 32]
        || token.reserved3 != [0; 32]
        || token.cet_masked_attributes_le != 0
        || token.reserved4 != [0; 23]
    {
        return SgxStatus::InvalidEinitToken;
    }
    let fuses = platform.fuses();
    if cpusvn_beyond(&token.cpusvnle, &fuses.cpusvn) {
        return SgxStatus::InvalidCpuSvn;
    }
    let key = KeyDependencies {
        isvprodid: token.isvprodidle,
        isvsvn: token.isvsvnle,
        sgxownerepoch: fuses.owner_epoch,
        attributes: token.maskedattributesle,
        mrsigner: *le_hash,
        keyid: token.keyid,
        seal_key_fuses: fuses.seal_fuses,
        cpusvn: token.cpusvnle,
        miscselect: token.maskedmiscselectle,
        ..KeyDependencies::new(key_name::EINITTOKEN)
    }
    .derive(fuses);
    if mac(&key, &token.as_bytes()[..EinitToken::MACED]) != token.mac {
        return SgxStatus::InvalidEinitToken;
    }
    if token.mrenclave != *mrenclave || token.mrsigner != *mrsigner {
        return SgxStatus::InvalidMeasurement;
    }
    if token.attributes != secs.attributes {
        // SGX_INVALID_EINIT_ATTRIBUTE of the pseudo-code, which table 38-4 knows by this name.
        return SgxStatus::InvalidAttribute;
    }
    SgxStatus::Success
}

/// A copy of the SECS in `page`.
pub(crate) fn read_secs(page: EpcPage<'_>) -> Secs {
    let mut secs = <Secs as zerocopy::FromZeros>::new_zeroed();
    page.read(0, secs.as_mut_bytes());
    secs
}

fn commit(
    page: EpcPage<'_>,
    mut secs: Secs,
    sigstruct: &SigStruct,
    mrenclave: [u8; 32],
    mrsigner: [u8; 32],
    padding: [u8; 352],
) {
    secs.mrenclave = mrenclave;
    secs.mrsigner = mrsigner;
    secs.isvextprodid = sigstruct.isvextprodid;
    secs.isvprodid = sigstruct.isvprodid;
    secs.isvsvn = sigstruct.isvsvn;
    secs.isvfamilyid = sigstruct.isvfamilyid;
    secs.padding = padding;
    page.write(0, secs.as_bytes());
    // Initialized, last, also for who looks without a lock.
    fence(Ordering::Release);
    page.store(Secs::ATTRIBUTES, secs.attributes.flags.get() | AttributeFlags::INIT.bits());
}
