//! What is in the virtual EPC of a machine, counted while the machine runs.

use std::collections::HashMap;
use std::ops::AddAssign;

use cloister_sgx::{EnclaveView, EpcIndex, EpcmFlags, EpcmView, PageType};
use cloister_x86::{Gpa, PAGE_SIZE};

use super::guest::GuestEpc;
use super::store::EpcStore;

/// Enclaves that a census lists; a guest can have as many as pages, and the host lists no more of
/// them than it can keep an eye on.
pub const LISTED_ENCLAVES: usize = 1024;

/// Pages by what their EPCM entries said (SDM Vol. 3D, 35.19).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageCounts {
    /// VALID: in use by an enclave, or as a version array. The sum of the seven types.
    pub valid: usize,
    /// PT_SECS.
    pub secs: usize,
    /// PT_TCS.
    pub tcs: usize,
    /// PT_REG.
    pub reg: usize,
    /// PT_VA.
    pub va: usize,
    /// PT_TRIM.
    pub trim: usize,
    /// PT_SS_FIRST.
    pub ss_first: usize,
    /// PT_SS_REST.
    pub ss_rest: usize,
    /// BLOCKED: on their way out of the EPC.
    pub blocked: usize,
    /// PENDING: added by EAUG and not accepted yet.
    pub pending: usize,
    /// MODIFIED: of a type that was changed by EMODT and not accepted yet.
    pub modified: usize,
    /// PR: with permissions that were restricted by EMODPR and not accepted yet.
    pub restricted: usize,
}

impl AddAssign<&EpcmView> for PageCounts {
    /// Counts one more page.
    fn add_assign(&mut self, view: &EpcmView) {
        if !view.valid() {
            return;
        }
        self.valid += 1;
        *match view.page_type {
            PageType::Secs => &mut self.secs,
            PageType::Tcs => &mut self.tcs,
            PageType::Reg => &mut self.reg,
            PageType::Va => &mut self.va,
            PageType::Trim => &mut self.trim,
            PageType::SsFirst => &mut self.ss_first,
            PageType::SsRest => &mut self.ss_rest,
        } += 1;
        for (flag, count) in [
            (EpcmFlags::BLOCKED, &mut self.blocked),
            (EpcmFlags::PENDING, &mut self.pending),
            (EpcmFlags::MODIFIED, &mut self.modified),
            (EpcmFlags::PR, &mut self.restricted),
        ] {
            *count += usize::from(view.flags.contains(flag));
        }
    }
}

/// One section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SectionCensus {
    /// Pages that the guest sees.
    pub total: usize,
    /// Pages of the host's EPC that back them.
    pub backed: usize,
    /// What the backed pages are.
    pub pages: PageCounts,
    /// EPC faults since the section was made ([`VirtualEpc::faults`](crate::VirtualEpc::faults)).
    pub faults: u64,
}

/// One enclave.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EnclaveCensus {
    /// The page of its SECS, by which the EPCM entries of its pages name it.
    pub secs: EpcIndex,
    /// What its SECS says.
    pub view: EnclaveView,
    /// The section that its SECS is in.
    pub section: usize,
    /// Guest-physical address of its SECS.
    pub gpa: Gpa,
    /// Its pages in each section, the SECS included.
    pub pages: Vec<usize>,
    /// What its pages are.
    pub counts: PageCounts,
}

/// All sections of a machine and the enclaves in them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EpcCensus {
    /// The sections, in the order of the machine's.
    pub sections: Vec<SectionCensus>,
    /// The first [`LISTED_ENCLAVES`] enclaves, in the order of the addresses of their SECS pages.
    pub enclaves: Vec<EnclaveCensus>,
    /// Enclaves beyond those.
    pub unlisted: usize,
}

/// What was found of an enclave so far.
struct Found {
    /// Section and address of the SECS.
    seat: Option<(usize, Gpa)>,
    pages: Vec<usize>,
    counts: PageCounts,
}

impl<S: EpcStore> GuestEpc<S> {
    /// Counts the pages of each section and lists the enclaves. `visit` is told of each backed
    /// page: section, number in the section, EPCM entry. A store whose EPCM cannot be seen has
    /// backed pages, and nothing is known of them.
    ///
    /// The guest runs meanwhile, and neither its leaves nor other machines notice: no lock is
    /// taken, and other threads get their turn every few thousand pages. Each page is seen at a
    /// moment of its own, so a page that moves may be counted twice or not at all. It takes as long
    /// as there are backed pages; what was never touched costs nothing.
    pub fn census(&self, mut visit: impl FnMut(usize, usize, &EpcmView)) -> EpcCensus {
        let store = self.account().pool().store();
        let count = self.sections().len();
        let mut found: HashMap<EpcIndex, Found> = HashMap::new();
        let mut unlisted = 0;
        let mut sections = Vec::with_capacity(count);
        for (n, section) in self.sections().iter().enumerate() {
            let (mut backed, mut counts) = (0, PageCounts::default());
            for (gpa, index, _) in section.yielding() {
                let Some(view) = store.epcm(index) else {
                    backed += 1;
                    continue;
                };
                visit(n, ((gpa.0 - section.base().0) / PAGE_SIZE) as usize, &view);
                backed += 1;
                counts += &view;
                if !view.valid() || view.page_type == PageType::Va {
                    continue;
                }
                let is_secs = view.page_type == PageType::Secs;
                if found.len() >= LISTED_ENCLAVES && !found.contains_key(&view.secs) {
                    unlisted += usize::from(is_secs);
                    continue;
                }
                let enclave = found.entry(view.secs).or_insert_with(|| Found {
                    seat: None,
                    pages: vec![0; count],
                    counts: PageCounts::default(),
                });
                enclave.pages[n] += 1;
                enclave.counts += &view;
                if is_secs {
                    enclave.seat = Some((n, gpa));
                }
            }
            let total = section.pages();
            sections.push(SectionCensus { total, backed, pages: counts, faults: section.faults() });
        }
        // One that has gone meanwhile is not listed.
        let listed = found.into_iter().filter_map(|(secs, found)| {
            let (section, gpa) = found.seat?;
            let view = store.enclave(secs)?;
            Some(EnclaveCensus {
                secs,
                view,
                section,
                gpa,
                pages: found.pages,
                counts: found.counts,
            })
        });
        let mut enclaves: Vec<EnclaveCensus> = listed.collect();
        enclaves.sort_by_key(|enclave| (enclave.section, enclave.gpa));
        EpcCensus { sections, enclaves, unlisted }
    }
}
