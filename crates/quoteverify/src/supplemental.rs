//! What callers may ask besides the result (`sgx_ql_qv_supplemental_t`, sgx_qve_header.h).

use cloister_attest::verify::Verdict;

/// Major and minor version.
const VERSION: [u16; 2] = [3, 3];
/// Bytes of the list of advisories, with the zero at its end.
const ADVISORIES: usize = 320;

/// The structure. What is not told is zero: dates and numbers of the collateral, and what the PCK certificate says
/// besides the PPID.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supplemental {
    version: [u16; 2],
    dates: [i64; 4],
    crl_and_tcb_numbers: [u32; 3],
    root_key_id: [u8; 48],
    ppid: [u8; 16],
    cpusvn: [u8; 16],
    pcesvn: u16,
    pce_id: u16,
    tee_type: u32,
    sgx_type: u8,
    platform_instance_id: [u8; 16],
    flags: [u32; 3],
    /// Advisories, with commas between them.
    advisories: [u8; ADVISORIES],
    qe_identity_dates: [i64; 4],
    qe_identity_number: u32,
    qe_identity_status: u32,
}

impl Supplemental {
    /// What is told of a quote; nothing of one that cannot be believed.
    pub(crate) fn of(verdict: Option<&Verdict>) -> Self {
        let mut told = Self {
            version: VERSION,
            dates: [0; 4],
            crl_and_tcb_numbers: [0; 3],
            root_key_id: [0; 48],
            ppid: [0; 16],
            cpusvn: [0; 16],
            pcesvn: 0,
            pce_id: 0,
            tee_type: 0,
            sgx_type: 0,
            platform_instance_id: [0; 16],
            flags: [0; 3],
            advisories: [0; ADVISORIES],
            qe_identity_dates: [0; 4],
            qe_identity_number: 0,
            qe_identity_status: 0,
        };
        if let Some(verdict) = verdict {
            copy(&verdict.ppid, &mut told.ppid);
            let advisories = verdict.advisories.join(",");
            copy(advisories.as_bytes(), &mut told.advisories[..ADVISORIES - 1]);
        }
        told
    }
}

/// As many bytes as there are and as there is room for.
fn copy(from: &[u8], to: &mut [u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}
