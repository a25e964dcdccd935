//! What `x-query-sgx-epc` of QMP returns: the EPC of a machine at one moment. Names of fields are
//! written as QAPI writes them, with hyphens, and all counts are of pages of 4 KiB.

use serde::{Deserialize, Serialize};

/// The `version` of the reports that this crate makes and reads. A field that is added does not
/// change it; one that goes or changes its meaning does.
pub const VERSION: u32 = 1;

/// The EPC of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EpcReport {
    /// [`VERSION`].
    pub version: u32,
    /// The machine's name.
    pub name: String,
    /// The host's EPC that the machine draws on.
    pub pool: PoolReport,
    /// What the machine has of it.
    pub account: AccountReport,
    /// ENCLS leaves of its guest that exited.
    #[serde(default)]
    pub encls_exits: EnclsExitsReport,
    /// EPC faults of all sections.
    pub faults: u64,
    /// Sections in the order of CPUID; none if the guest has no SGX.
    pub sections: Vec<SectionReport>,
    /// Enclaves in the order of their SECS pages, at most 1024.
    pub enclaves: Vec<EnclaveReport>,
    /// Enclaves beyond those.
    pub enclaves_unlisted: u64,
}

impl EpcReport {
    /// EPC faults of each section in a second, from `earlier` to this report of the same machine,
    /// `seconds` later. Sections stay as they are while a machine runs.
    #[must_use]
    pub fn fault_rates(&self, earlier: &Self, seconds: f64) -> Vec<f64> {
        let before =
            earlier.sections.iter().map(|section| section.faults).chain(std::iter::repeat(0));
        let sections = self.sections.iter().zip(before);
        sections
            .map(|(section, before)| section.faults.saturating_sub(before) as f64 / seconds)
            .collect()
    }
}

/// The host's EPC.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoolReport {
    /// All pages.
    pub total: u64,
    /// Pages given out to machines, zombies and leaked pages included.
    pub used: u64,
    /// Pages not in use that are kept for machines which reserved them.
    pub reserved: u64,
    /// SECS pages of released sections that wait for their children to go.
    pub zombies: u64,
    /// Pages that EREMOVE refused for good.
    pub leaked: u64,
}

/// What one machine has of the host's EPC.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AccountReport {
    /// Pages, zombies and leaked pages included.
    pub used: u64,
    /// SECS pages of released sections that wait for their children to go.
    pub zombies: u64,
    /// Pages that EREMOVE refused for good.
    pub leaked: u64,
    /// How often the machine wanted a page and got none.
    pub refused: u64,
    /// Pages that the machine can have whatever others take.
    pub reservation: u64,
    /// Pages that it can have at most; absent if there is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

/// How many ENCLS leaves of a machine exited since it was started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EnclsExitsReport {
    /// ECREATE.
    pub ecreate: u64,
    /// EINIT.
    pub einit: u64,
    /// All other leaves together, which only exit to fault.
    pub others: u64,
}

/// One section of virtual EPC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SectionReport {
    /// Its id, by which it was asked for.
    pub id: String,
    /// First guest-physical address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// Host NUMA node that its pages are taken from first.
    pub host_node: u64,
    /// Its pages by state.
    pub pages: PagesReport,
    /// How often the guest touched a page that had no backing.
    pub faults: u64,
    /// What each page is, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_map: Option<PageMap>,
}

/// Pages by state. `valid` is the sum of `secs` to `ss-rest`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PagesReport {
    /// Pages that the guest sees.
    pub total: u64,
    /// Pages with a page of the host's EPC behind them.
    pub backed: u64,
    /// VALID: in use by enclaves and as version arrays.
    pub valid: u64,
    /// PT_SECS.
    pub secs: u64,
    /// PT_TCS.
    pub tcs: u64,
    /// PT_REG.
    pub reg: u64,
    /// PT_VA.
    pub va: u64,
    /// PT_TRIM.
    pub trim: u64,
    /// PT_SS_FIRST.
    pub ss_first: u64,
    /// PT_SS_REST.
    pub ss_rest: u64,
    /// BLOCKED.
    pub blocked: u64,
    /// PENDING.
    pub pending: u64,
    /// MODIFIED.
    pub modified: u64,
    /// PR: permissions were restricted.
    pub restricted: u64,
}

/// What the pages of a section are, in cells of equally many pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PageMap {
    /// Pages in a cell, a power of two; the last cell may have fewer.
    pub pages_per_cell: u64,
    /// A letter for each cell, [`CellKind::letter`](super::CellKind::letter).
    pub cells: String,
    /// Whose the cells are, in their order; those of no enclave, and of one that is not listed, are left out. A cell of
    /// several pages is that enclave's which has more than half of those in use, or of one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnedCells>,
}

/// Cells of an enclave, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OwnedCells {
    /// Its number in [`EpcReport::enclaves`], from 0.
    pub enclave: u64,
    /// The first of the cells, counted from 0.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

/// One enclave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EnclaveReport {
    /// Guest-physical address of the SECS.
    pub secs: u64,
    /// The section that the SECS is in.
    pub section: String,
    /// EID: unique among the enclaves of a platform.
    pub eid: u64,
    /// Whether EINIT has completed.
    pub initialized: bool,
    /// MRENCLAVE in hexadecimal digits; absent before EINIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrenclave: Option<String>,
    /// MRSIGNER in hexadecimal digits; absent before EINIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrsigner: Option<String>,
    /// ISVPRODID; absent before EINIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isv_prod_id: Option<u16>,
    /// ISVSVN; absent before EINIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isv_svn: Option<u16>,
    /// BASEADDR of ELRANGE.
    pub base: u64,
    /// SIZE of ELRANGE in bytes.
    pub size: u64,
    /// The low quadword of ATTRIBUTES.
    pub attributes: u64,
    /// XFRM, the high one.
    pub xfrm: u64,
    /// MISCSELECT.
    pub miscselect: u32,
    /// Whether ATTRIBUTES has DEBUG.
    pub debug: bool,
    /// Logical processors that execute in the enclave.
    pub threads_inside: u64,
    /// Child pages in the EPC.
    pub children: u64,
    /// VIRTCHILDCNT.
    pub virtual_children: u64,
    /// Pages in the EPC that are BLOCKED.
    pub blocked: u64,
    /// Its pages in each section that has some, the SECS included.
    pub pages: Vec<EnclavePages>,
}

/// Pages of an enclave in one section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EnclavePages {
    /// The section.
    pub section: String,
    /// Pages.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use crate::sample;

    #[test]
    fn rates_are_faults_in_a_second() {
        let before = sample::report();
        let mut after = before.clone();
        after.sections[0].faults += 30;
        // A counter that went back is another machine's.
        after.sections[1].faults = 0;

        assert_eq!(after.fault_rates(&before, 2.0), [15.0, 0.0]);
    }
}
