//! ENCLU\[EREPORT\] (SDM Vol. 3D, 38.4, EREPORT): a report that another enclave can verify.

use cloister_x86::Gpr;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::encls::read_secs;
use crate::enclu::EncluOutcome;
use crate::enclu::operand::enclave_operand;
use crate::identity::PlatformFuses;
use crate::keys::{Key, KeyDependencies, mac};
use crate::layout::{Report, TargetInfo, key_name};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;

/// RBX: TARGETINFO; RCX: REPORTDATA; RDX: where the REPORT goes.
pub(super) fn leaf(
    platform: &Platform,
    state: &EnclaveState,
    port: &mut impl LeafPort,
    cpu: &ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_ref().ok_or(GP)?;
    let (page, at) = enclave_operand(
        platform,
        enclave,
        port,
        cpu.gpr[Gpr::Rbx],
        size_of::<TargetInfo>() as u64,
        512,
        EpcAccess::Read,
    )?;
    let mut target = TargetInfo::new_zeroed();
    page.read(at, target.as_mut_bytes());
    // Reserved space; the CET attributes belong to it where CET is not supported.
    if target.cet_attributes != 0
        || target.reserved1 != 0
        || target.reserved2 != [0; 8]
        || target.reserved3.iter().any(|&byte| byte != 0)
    {
        return Err(GP);
    }
    let (page, at) =
        enclave_operand(platform, enclave, port, cpu.gpr[Gpr::Rcx], 64, 128, EpcAccess::Read)?;
    let mut reportdata = [0; 64];
    page.read(at, &mut reportdata);
    let (output, at) = enclave_operand(
        platform,
        enclave,
        port,
        cpu.gpr[Gpr::Rdx],
        size_of::<Report>() as u64,
        512,
        EpcAccess::Write,
    )?;

    let identity = platform.identity();
    let secs = read_secs(platform.page(enclave.secs));
    let mut report = Report {
        cpusvn: identity.fuses.cpusvn,
        miscselect: secs.miscselect,
        isvextprodid: secs.isvextprodid,
        attributes: secs.attributes,
        mrenclave: secs.mrenclave,
        mrsigner: secs.mrsigner,
        configid: secs.configid,
        isvprodid: secs.isvprodid,
        isvsvn: secs.isvsvn,
        configsvn: secs.configsvn,
        isvfamilyid: secs.isvfamilyid,
        reportdata,
        keyid: identity.report_keyid,
        ..Report::new_zeroed()
    };
    let key = report_key(&identity.fuses, &target, &report.keyid);
    report.mac = mac(&key, &report.as_bytes()[..Report::MACED]);
    output.write(at, report.as_bytes());
    Ok(EncluOutcome::default())
}

/// The key of reports to `target` whose KEYID is `keyid`: what `target` gets as its REPORT_KEY.
pub(crate) fn report_key(fuses: &PlatformFuses, target: &TargetInfo, keyid: &[u8; 32]) -> Key {
    KeyDependencies {
        sgxownerepoch: fuses.owner_epoch,
        attributes: target.attributes,
        mrenclave: target.measurement,
        keyid: *keyid,
        seal_key_fuses: fuses.seal_fuses,
        cpusvn: fuses.cpusvn,
        miscselect: target.miscselect,
        configid: target.configid,
        configsvn: target.configsvn,
        ..KeyDependencies::new(key_name::REPORT)
    }
    .derive(fuses)
}
