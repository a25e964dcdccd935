//! EPC that is not a software platform: a store as a mapping of `/dev/sgx_vepc` would be, whose pages
//! nobody can look at and that are removed all at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use cloister_sgx::{EnclaveView, EpcIndex, EpcSection, EpcmView};
use cloister_virt::epc::{InUse, Removal};
use cloister_virt::{Backing, EpcError, EpcExhausted, EpcLimits, EpcPool, EpcStore, GuestEpc};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::host::{EPC_GPA, section};

/// One mapping.
#[derive(Debug)]
struct Mapping {
    section: [EpcSection; 1],
    /// What the removals of all pages answer, one after the other: SECS pages that are left, or that a
    /// page is in use.
    answers: Mutex<Vec<Result<usize, InUse>>>,
}

impl EpcStore for Mapping {
    fn sections(&self) -> &[EpcSection] {
        &self.section
    }

    fn remove(&self, _: EpcIndex) -> Removal {
        Removal::Removed
    }

    fn remove_all(&self, _: &mut dyn Iterator<Item = EpcIndex>) -> Result<usize, InUse> {
        self.answers.lock().expect("not poisoned").remove(0)
    }

    fn epcm(&self, _: EpcIndex) -> Option<EpcmView> {
        None
    }

    fn enclave(&self, _: EpcIndex) -> Option<EnclaveView> {
        None
    }
}

fn mapping(pages: u32, answers: &[Result<usize, InUse>]) -> Arc<Mapping> {
    let section = [EpcSection { first: EpcIndex(0), pages, node: 0 }];
    Arc::new(Mapping { section, answers: Mutex::new(answers.to_vec()) })
}

fn touch(epc: &GuestEpc<Mapping>, page: u64) -> EpcIndex {
    epc.populate(Gpa(EPC_GPA + page * PAGE_SIZE)).expect("in the section").expect("a page")
}

#[test]
fn pages_are_given_out_within_the_limits_and_come_back() {
    let pool = EpcPool::new(mapping(8, &[]));
    let account = pool.open("vm", EpcLimits { reservation: 2, quota: 4 }).expect("limits");
    let epc = GuestEpc::new(account, &[section(EPC_GPA, 8)]).expect("a section");

    let pages: BTreeSet<u32> = (0..4).map(|page| touch(&epc, page).0).collect();
    let fifth = epc.populate(Gpa(EPC_GPA + 4 * PAGE_SIZE));

    assert_eq!(pages.len(), 4);
    assert_eq!(fifth, Some(Err(EpcExhausted::Quota)));
    assert_eq!(epc.backing(Gpa(EPC_GPA)), Some(Backing::Page(touch(&epc, 0))));
    assert_eq!(pool.statistics().used, 4);
    drop(epc);
    assert_eq!(pool.statistics().used, 0);
}

#[test]
fn a_reset_asks_again_only_if_an_secs_was_left_and_names_the_section_in_use() {
    let table: [(&[Result<usize, InUse>], bool); 4] = [
        (&[Ok(0)], true),
        (&[Ok(3), Ok(0)], true),
        (&[Err(InUse)], false),
        (&[Ok(1), Err(InUse)], false),
    ];
    for (answers, expected) in table {
        let store = mapping(4, answers);
        let account = EpcPool::new(store.clone()).unlimited("vm");
        let epc = GuestEpc::new(account, &[section(EPC_GPA, 4)]).expect("a section");
        touch(&epc, 2);

        let outcome = epc.reset();

        assert_eq!(outcome.is_ok(), expected, "{answers:?}");
        assert!(outcome.err().is_none_or(|error| error.gpa == Gpa(EPC_GPA)), "{answers:?}");
        assert!(store.answers.lock().expect("not poisoned").is_empty(), "{answers:?}");
    }
}

#[test]
fn a_census_without_an_epcm_counts_what_is_backed() {
    let account = EpcPool::new(mapping(4, &[])).unlimited("vm");
    let epc = GuestEpc::new(account, &[section(EPC_GPA, 4)]).expect("a section");
    touch(&epc, 0);
    touch(&epc, 3);

    let census = epc.census(|_, _, _| panic!("nothing is seen of a page"));

    assert_eq!((census.sections[0].backed, census.sections[0].pages.valid), (2, 0));
    assert!(census.enclaves.is_empty());
}

#[test]
fn what_does_not_suffice_is_not_preallocated() {
    let account = EpcPool::new(mapping(4, &[])).unlimited("vm");
    let sections = [cloister_virt::SectionConfig { preallocate: true, ..section(EPC_GPA, 5) }];

    let error = GuestEpc::new(account, &sections).map(drop);

    assert_eq!(error, Err(EpcError::Exhausted(0)));
}
