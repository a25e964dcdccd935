//! What tells an enclave that the quoting enclave of its platform made a quote (`sgx_qe_report_info_t`): a
//! nonce and the enclave's TARGETINFO, to which the quoting enclave's REPORT comes.

use cloister_sgx::PlatformFuses;
use cloister_sgx::layout::{Report, TargetInfo};
use sha2::{Digest as _, Sha256};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::quoting_enclave as qe;

const NONCE: usize = 16;
const TARGET: usize = size_of::<TargetInfo>();

/// The same with the REPORT, whose REPORTDATA is the digest of nonce and quote; nothing if it has another
/// length.
pub(super) fn fill(platform: &PlatformFuses, asked: &[u8], quote: &[u8]) -> Option<Vec<u8>> {
    let (asked, report) = asked.split_at_checked(NONCE + TARGET)?;
    if report.len() != size_of::<Report>() {
        return None;
    }
    let (nonce, target) = asked.split_at(NONCE);
    let target = TargetInfo::read_from_bytes(target).ok()?;
    let mut reportdata = [0; 64];
    let digest = Sha256::new().chain_update(nonce).chain_update(quote).finalize();
    reportdata[..32].copy_from_slice(&digest);
    let mut report = qe::report(platform, reportdata);
    report.mac = platform.report_mac(&report, &target);
    Some([asked, report.as_bytes()].concat())
}
