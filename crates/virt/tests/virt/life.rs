//! The life of virtual EPC: first touch, preallocation, exhaustion, reset and release.

use std::sync::{Arc, Barrier};
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::{EpcIndex, PageType, SgxStatus};
use cloister_virt::{
    Backing, EpcAccount, EpcExhausted, EpcPool, RemoveError, SectionConfig, SgxVm, VirtualEpc,
};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::enclave::{create, fill, init, secs, sigstruct};
use crate::guest::{DONE, Guest, epc, reported};
use crate::host::{self, EPC_GPA};
use crate::kernel::Kernel;
use crate::signer::Signer;

fn section(account: &Arc<EpcAccount>, pages: usize) -> VirtualEpc {
    VirtualEpc::new(account.clone(), Gpa(EPC_GPA), pages, 0)
}

const fn gpa(page: u64) -> Gpa {
    Gpa(EPC_GPA + page * PAGE_SIZE)
}

fn touch(section: &VirtualEpc, page: u64) -> EpcIndex {
    section.populate(gpa(page)).expect("in the section").expect("a page")
}

/// Pages in use, zombies, leaked.
fn counts(pool: &EpcPool) -> (usize, usize, usize) {
    let statistics = pool.statistics();
    (statistics.used, statistics.zombies, statistics.leaked)
}

#[test]
fn a_page_is_backed_when_it_is_first_touched_and_keeps_its_backing() {
    let pool = host::pool(8);
    let account = pool.unlimited("vm");
    let section = section(&account, 4);
    assert_eq!(section.backing(gpa(2)), Some(Backing::None));

    let index = touch(&section, 2);
    let within = section.populate(Gpa(gpa(2).0 + 4095));

    assert_eq!(within, Some(Ok(index)));
    assert_eq!(section.backing(gpa(2)), Some(Backing::Page(index)));
    assert_eq!(section.backing(gpa(1)), Some(Backing::None));
    assert_eq!(counts(&pool), (1, 0, 0));
}

#[test]
fn an_address_outside_is_no_epc() {
    let pool = host::pool(8);
    let account = pool.unlimited("vm");
    let section = section(&account, 4);

    for outside in [Gpa(0), Gpa(EPC_GPA - 1), gpa(4), Gpa(u64::MAX)] {
        assert_eq!(section.backing(outside), None, "{outside}");
        assert_eq!(section.populate(outside), None, "{outside}");
    }
    assert_eq!(counts(&pool), (0, 0, 0));
}

#[test]
fn a_preallocated_section_is_backed_from_the_beginning() {
    let pool = host::pool(8);
    let config = SectionConfig { preallocate: true, ..host::section(EPC_GPA, 5) };
    let vm = SgxVm::new(pool.unlimited("vm"), &[config], host::everything()).expect("enough");

    assert_eq!(counts(&pool), (5, 0, 0));
    assert!((0..5).all(|page| matches!(vm.backing(gpa(page)), Some(Backing::Page(_)))));
    drop(vm);
    assert_eq!(counts(&pool), (0, 0, 0));
}

#[test]
fn exhaustion_tells_the_guest_that_wants_more_and_harms_no_other() {
    let pool = host::pool(4);
    let account = pool.unlimited("vm");
    let large = section(&account, 16);
    let small = section(&pool.unlimited("another"), 16);
    let kept = touch(&small, 0);
    for page in 0..3 {
        touch(&large, page);
    }

    let outcome = large.populate(gpa(3));

    assert_eq!(outcome, Some(Err(EpcExhausted::Host)));
    assert_eq!(account.statistics().refused, 1);
    assert_eq!(small.populate(gpa(1)), Some(Err(EpcExhausted::Host)));
    assert_eq!(small.populate(gpa(0)), Some(Ok(kept)));
    drop(large);
    assert!(matches!(small.populate(gpa(1)), Some(Ok(_))));
    assert_eq!(counts(&pool), (2, 0, 0));
}

#[test]
fn a_section_that_cannot_be_preallocated_takes_no_page_of_others() {
    let pool = host::pool(8);
    let account = pool.unlimited("vm");
    let large = section(&account, 16);
    let kept = touch(&large, 5);

    let outcome = large.preallocate();

    assert_eq!(outcome, Err(EpcExhausted::Host));
    assert_eq!(large.backing(gpa(5)), Some(Backing::Page(kept)));
    assert_eq!(counts(&pool), (1, 0, 0));
    assert_eq!(pool.statistics().reserved, 0);
}

#[test]
fn a_guest_that_sanitizes_untouched_epc_backs_none_of_it() {
    let mut guest = Guest::new(host::vm(host::everything()));

    for page in 0..16 {
        assert_eq!(guest.encls(leaf::EREMOVE, 0, epc(page), 0), reported(SgxStatus::Success));
    }

    assert!((0..16).all(|page| guest.backing(page).is_none()));
}

#[test]
fn leaves_that_do_not_exit_back_their_operands_too() {
    let mut guest = Guest::new(host::vm(host::everything()));

    assert_eq!(guest.encls(leaf::EPA, 3, epc(7), 0), DONE);

    let index = guest.backing(7).expect("backed");
    assert!(guest.vm.platform().epcm(index).is(PageType::Va));
}

#[test]
fn release_takes_an_secs_after_its_children() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let section = section(&account, 8);
    let pages: Vec<_> = (0..8).map(|page| touch(&section, page)).collect();
    kernel.create(pages[0]).expect("ECREATE");
    for page in 1..4 {
        kernel.add(pages[0], pages[page], page as u64, PageType::Reg).expect("EADD");
    }
    kernel.version_array(pages[4]).expect("EPA");

    drop(section);

    assert_eq!(counts(&pool), (0, 0, 0));
    assert!(pages.iter().all(|&page| !pool.store().epcm(page).valid()));
}

#[test]
fn an_secs_with_children_in_another_section_is_a_zombie_until_the_last_is_gone() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let (home, abroad, far) = (section(&account, 4), section(&account, 4), section(&account, 4));
    let (secs, near) = (touch(&home, 0), touch(&home, 1));
    let (second, third) = (touch(&abroad, 0), touch(&far, 0));
    kernel.create(secs).expect("ECREATE");
    for (number, page) in [(0, near), (1, second), (2, third)] {
        kernel.add(secs, page, number, PageType::Reg).expect("EADD");
    }

    drop(home);
    assert_eq!(counts(&pool), (3, 1, 0));
    assert!(pool.store().epcm(secs).is(PageType::Secs));
    drop(abroad);
    assert_eq!(counts(&pool), (2, 1, 0));
    drop(far);
    assert_eq!(counts(&pool), (0, 0, 0));
    assert!(!pool.store().epcm(secs).valid());
}

#[test]
fn a_zombie_whose_last_child_the_guest_removed_goes_with_the_next_release() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let (home, abroad) = (section(&account, 4), section(&account, 4));
    let (secs, child) = (touch(&home, 0), touch(&abroad, 0));
    kernel.create(secs).expect("ECREATE");
    kernel.add(secs, child, 0, PageType::Reg).expect("EADD");
    drop(home);

    assert_eq!(kernel.remove(child), Ok(SgxStatus::Success));
    assert_eq!(counts(&pool), (2, 1, 0));
    drop(section(&account, 1));

    assert_eq!(counts(&pool), (1, 0, 0));
}

#[test]
fn a_zombie_is_no_business_of_other_machines() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let (home, abroad) = (section(&account, 4), section(&account, 4));
    let (secs, child) = (touch(&home, 0), touch(&abroad, 0));
    kernel.create(secs).expect("ECREATE");
    kernel.add(secs, child, 0, PageType::Reg).expect("EADD");
    drop(home);
    assert_eq!(kernel.remove(child), Ok(SgxStatus::Success));

    drop(section(&pool.unlimited("another"), 1));
    assert_eq!(account.statistics().zombies, 1, "nobody looked");
    drop(section(&account, 1));

    assert_eq!(account.statistics().zombies, 0);
    assert_eq!(counts(&pool), (1, 0, 0));
}

#[test]
fn children_that_go_first_leave_no_zombie() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let (home, abroad) = (section(&account, 4), section(&account, 4));
    let (secs, child) = (touch(&home, 0), touch(&abroad, 0));
    kernel.create(secs).expect("ECREATE");
    kernel.add(secs, child, 0, PageType::Reg).expect("EADD");

    drop(abroad);
    assert_eq!(counts(&pool), (1, 0, 0));
    drop(home);
    assert_eq!(counts(&pool), (0, 0, 0));
}

#[test]
fn sections_released_at_the_same_time_leave_no_zombie_behind() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    for _ in 0..2_000 {
        let sections = [section(&account, 4), section(&account, 4)];
        let secs = [touch(&sections[0], 0), touch(&sections[1], 0)];
        for (n, secs) in secs.into_iter().enumerate() {
            let child = touch(&sections[1 - n], 1);
            kernel.create(secs).expect("ECREATE");
            kernel.add(secs, child, 0, PageType::Reg).expect("EADD");
        }
        let start = Barrier::new(2);

        thread::scope(|scope| {
            for section in sections {
                scope.spawn(|| {
                    start.wait();
                    drop(section);
                });
            }
        });

        assert_eq!(counts(&pool), (0, 0, 0));
    }
}

#[test]
fn pages_with_a_processor_inside_are_leaked_and_never_used_again() {
    let pool = host::pool(8);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let section = section(&account, 4);
    let [secs, tcs, ssa] = [0, 1, 2].map(|page| touch(&section, page));
    touch(&section, 3);
    kernel.threaded(secs, tcs, ssa);
    let inside = kernel.enter();

    drop(section);

    assert_eq!(counts(&pool), (3, 1, 2), "TCS and SSA frame leaked, SECS a zombie, one returned");
    kernel.exit(inside);
    drop(account);
    assert_eq!(counts(&pool), (3, 0, 3), "nobody will ever remove the children of the SECS");
    let (_section, rest) = host::drain(&pool.unlimited("another"), 0);
    assert_eq!(rest.len(), 5);
    assert!(!rest.iter().any(|page| [secs, tcs, ssa].contains(page)));
}

#[test]
fn a_page_that_another_leaf_holds_throughout_is_leaked() {
    let pool = host::pool(8);
    let account = pool.unlimited("vm");
    let released = section(&account, 2);
    let (held, other) = (touch(&released, 0), touch(&released, 1));
    let guard = pool.store().hold(held).expect("a page that no leaf has");

    drop(released);
    drop(guard);

    assert_eq!(counts(&pool), (1, 0, 1));
    assert_eq!(touch(&section(&account, 1), 0), other);
}

#[test]
fn remove_all_counts_the_secs_pages_that_need_another_pass_and_keeps_the_backing() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let section = section(&account, 8);
    let pages: Vec<_> = (0..6).map(|page| touch(&section, page)).collect();
    // Two SECS before their children, one after.
    for (secs, child) in [(0, 1), (2, 3), (5, 4)] {
        kernel.create(pages[secs]).expect("ECREATE");
        kernel.add(pages[secs], pages[child], 0, PageType::Reg).expect("EADD");
    }

    assert_eq!(section.remove_all(), Ok(2));
    assert_eq!(section.remove_all(), Ok(0));

    assert!(pages.iter().all(|&page| !pool.store().epcm(page).valid()));
    assert_eq!(section.backing(gpa(3)), Some(Backing::Page(pages[3])));
    assert_eq!(counts(&pool), (6, 0, 0));
}

#[test]
fn remove_all_names_a_page_in_use_and_succeeds_once_the_processor_left() {
    let pool = host::pool(16);
    let account = pool.unlimited("vm");
    let mut kernel = Kernel::new(pool.store().clone());
    let section = section(&account, 8);
    let [secs, tcs, ssa] = [4, 5, 6].map(|page| touch(&section, page));
    kernel.threaded(secs, tcs, ssa);
    let inside = kernel.enter();

    assert_eq!(section.remove_all(), Err(RemoveError { gpa: gpa(5) }));
    kernel.exit(inside);

    assert_eq!(section.remove_all(), Ok(1));
    assert_eq!(section.remove_all(), Ok(0));
}

#[test]
fn after_a_reset_no_page_is_valid_and_the_guest_builds_again() {
    // The SECS in the first section, children in both.
    let pool = host::pool(32);
    let sections = [host::section(EPC_GPA, 3), host::section(EPC_GPA + (1 << 20), 8)];
    let vm = SgxVm::new(pool.unlimited("vm"), &sections, host::everything()).expect("a machine");
    let mut guest = Guest::new(Arc::new(vm));
    guest.trust(Signer::trusted());
    let signed = sigstruct(&secs(), 4, Signer::trusted());
    let build = |guest: &mut Guest| {
        assert_eq!(create(guest, &secs(), 0), DONE);
        fill(guest, 0, 4);
        assert_eq!(init(guest, &signed, 0), reported(SgxStatus::Success));
    };
    build(&mut guest);

    assert_eq!(guest.vm.reset(), Ok(()));

    let platform = pool.store();
    let valid = (0..32).filter(|&page| platform.epcm(EpcIndex(page)).valid());
    assert_eq!(valid.count(), 0);
    assert_eq!(counts(&pool), (5, 0, 0));
    build(&mut guest);
    drop(guest);
    assert_eq!(counts(&pool), (0, 0, 0));
}

#[test]
fn a_machine_killed_with_its_secs_in_either_section_returns_every_page() {
    for secs_first in [true, false] {
        let pool = host::pool(16);
        let mut kernel = Kernel::new(pool.store().clone());
        let sections = [host::section(EPC_GPA, 4), host::section(EPC_GPA + (1 << 20), 4)];
        let vm =
            SgxVm::new(pool.unlimited("vm"), &sections, host::everything()).expect("a machine");
        let pages = sections.map(|section| vm.populate(section.base).expect("EPC").expect("one"));
        let (secs, child) = if secs_first { (pages[0], pages[1]) } else { (pages[1], pages[0]) };
        kernel.create(secs).expect("ECREATE");
        kernel.add(secs, child, 0, PageType::Reg).expect("EADD");

        drop(vm);

        assert_eq!(counts(&pool), (0, 0, 0), "SECS first: {secs_first}");
    }
}
