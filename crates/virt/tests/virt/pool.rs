//! The host's pool: every page once, local pages first, nothing shared by accident, and each
//! machine within its limits.

use std::collections::BTreeSet;
use std::thread;

use cloister_sgx::EpcIndex;
use cloister_virt::{
    AccountStatistics, EpcError, EpcExhausted, EpcLimits, LimitError, NodeStatistics,
    PoolStatistics, SectionConfig, SgxVm, VirtualEpc, VmError,
};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::host::{self, EPC_GPA, drain};

#[test]
fn every_page_is_given_out_once_and_then_the_pool_is_exhausted() {
    let pool = host::pool_of(&[(5, 0), (7, 1), (3, 0)]);

    let (_section, pages) = drain(&pool.unlimited("vm"), 0);

    let pages: BTreeSet<u32> = pages.into_iter().map(|page| page.0).collect();
    assert_eq!(pages, (0..15).collect());
    let other = VirtualEpc::new(pool.unlimited("another"), Gpa(0), 1, 1);
    assert_eq!(other.populate(Gpa(0)), Some(Err(EpcExhausted::Host)));
    let expected = PoolStatistics { total: 15, used: 15, ..PoolStatistics::default() };
    assert_eq!(pool.statistics(), expected);
}

#[test]
fn local_pages_come_first_then_those_of_other_nodes() {
    for (node, local) in [(0, 0..4), (1, 4..10), (2, 0..0)] {
        let pool = host::pool_of(&[(4, 0), (6, 1)]);

        let (_section, pages) = drain(&pool.unlimited("vm"), node);

        let (first, rest) = pages.split_at(local.len());
        assert!(first.iter().all(|page| local.contains(&page.0)), "node {node}: {pages:?}");
        assert!(rest.iter().all(|page| !local.contains(&page.0)), "node {node}: {pages:?}");
        assert_eq!(pages.len(), 10);
    }
}

#[test]
fn a_page_goes_back_to_its_own_node_and_is_used_again_before_untouched_ones() {
    let pool = host::pool_of(&[(4, 0), (4, 1)]);
    let account = pool.unlimited("vm");
    let section = VirtualEpc::new(account.clone(), Gpa(0), 2, 1);
    section.preallocate().expect("enough");

    drop(section);

    let (_section, again) = drain(&account, 1);
    let first: BTreeSet<u32> = again[..2].iter().map(|page| page.0).collect();
    assert_eq!(first, BTreeSet::from([4, 5]));
    assert_eq!(again[4], EpcIndex(0));
}

#[test]
fn the_pages_of_each_node_are_counted_on_it() {
    let pool = host::pool_of(&[(5, 1), (7, 0), (3, 1)]);
    let account = pool.unlimited("vm");
    let near = VirtualEpc::new(account.clone(), Gpa(0), 6, 1);
    let far = VirtualEpc::new(account, Gpa(0), 2, 0);
    near.preallocate().expect("enough");
    far.preallocate().expect("enough");

    let node = |node, total, used| NodeStatistics { node, total, used };
    assert_eq!(pool.nodes(), [node(0, 7, 2), node(1, 8, 6)]);
    drop(near);
    assert_eq!(pool.nodes(), [node(0, 7, 2), node(1, 8, 0)]);
}

#[test]
fn a_machine_has_no_more_pages_than_its_quota_and_gets_some_back_by_a_release() {
    let pool = host::pool(16);
    let account = pool.open("vm", EpcLimits { reservation: 0, quota: 5 }).expect("enough");
    let other = VirtualEpc::new(account.clone(), Gpa(0), 2, 0);
    other.preallocate().expect("within the quota");

    let (section, pages) = drain(&account, 0);

    assert_eq!(pages.len(), 3);
    let more = section.populate(Gpa(3 * PAGE_SIZE));
    assert_eq!(more, Some(Err(EpcExhausted::Quota)));
    let expected = AccountStatistics { used: 5, refused: 2, ..AccountStatistics::default() };
    assert_eq!(account.statistics(), expected);
    assert_eq!(pool.statistics().used, 5);
    drop(other);
    assert!(matches!(section.populate(Gpa(3 * PAGE_SIZE)), Some(Ok(_))));
}

#[test]
fn a_reservation_is_there_however_much_the_others_take() {
    let pool = host::pool(16);
    let reserving = pool.open("vm", EpcLimits { reservation: 6, quota: 16 }).expect("enough");
    assert_eq!(pool.statistics().reserved, 6);

    let (greedy, taken) = drain(&pool.unlimited("greedy"), 0);
    let (section, reserved) = drain(&reserving, 0);

    assert_eq!((taken.len(), reserved.len()), (10, 6));
    assert_eq!(pool.statistics().reserved, 0);
    assert_eq!(reserving.statistics().refused, 1);
    // What comes back is reserved again; what the others return is for anybody.
    drop(section);
    assert_eq!(pool.statistics().reserved, 6);
    assert_eq!(greedy.populate(Gpa(15 * PAGE_SIZE)), Some(Err(EpcExhausted::Host)));
    drop(greedy);
    assert_eq!(drain(&reserving, 0).1.len(), 16);
}

#[test]
fn a_reservation_ends_with_its_machine() {
    let pool = host::pool(16);
    let account = pool.open("vm", EpcLimits { reservation: 6, quota: 6 }).expect("enough");
    let (section, _) = drain(&account, 0);

    drop(account);
    assert_eq!(drain(&pool.unlimited("another"), 0).1.len(), 10);
    drop(section);

    assert_eq!(pool.statistics(), PoolStatistics { total: 16, ..PoolStatistics::default() });
    assert_eq!(drain(&pool.unlimited("another"), 0).1.len(), 16);
}

#[test]
fn limits_that_cannot_be_are_refused_with_the_numbers() {
    let pool = host::pool(16);
    let _reserved = pool.open("vm", EpcLimits { reservation: 5, quota: 9 }).expect("enough");
    let (_section, _) = {
        let few = pool.open("few", EpcLimits { reservation: 0, quota: 3 }).expect("enough");
        drain(&few, 0)
    };
    let open =
        |reservation, quota| pool.open("another", EpcLimits { reservation, quota }).map(drop);

    let above = LimitError::AboveQuota { reservation: 4, quota: 3 };
    assert_eq!(open(4, 3), Err(above));
    let unavailable = LimitError::Unavailable { reservation: 9, available: 8 };
    assert_eq!(open(9, 9), Err(unavailable));
    assert!(open(usize::MAX, usize::MAX).is_err());
    assert_eq!(open(8, 8), Ok(()));
    assert_eq!(pool.statistics().reserved, 5, "what was refused or has ended reserves nothing");
}

#[test]
fn preallocation_beyond_the_quota_says_so_and_takes_nothing() {
    let pool = host::pool(16);
    let account = pool.open("vm", EpcLimits { reservation: 2, quota: 6 }).expect("enough");
    let section = |base, pages| SectionConfig { preallocate: true, ..host::section(base, pages) };
    let (fits, too_many) = (section(EPC_GPA, 4), section(1 << 30, 3));

    let error = SgxVm::new(account.clone(), &[fits, too_many], host::everything());

    assert_eq!(error.map(drop), Err(VmError::Epc(EpcError::Quota(1))));
    assert_eq!(account.statistics().used, 0);
    assert_eq!(pool.statistics().reserved, 2);
    let vm = SgxVm::new(account.clone(), &[fits], host::everything()).expect("enough");
    assert_eq!(vm.account().statistics().used, 4);
}

#[test]
fn processors_that_touch_at_once_get_each_page_once() {
    const PAGES: usize = 64;
    let pool = host::pool(2 * PAGES as u32);
    let section = VirtualEpc::new(pool.unlimited("vm"), Gpa(0), PAGES, 0);
    let touch = |first: usize| {
        let pages = (0..PAGES).map(|n| (first + n) % PAGES);
        for page in pages {
            section.populate(Gpa(page as u64 * PAGE_SIZE)).expect("EPC").expect("a page");
        }
    };

    thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || touch(n * 16));
        }
    });

    assert_eq!(pool.statistics().used, PAGES);
}

#[test]
fn machines_that_come_and_go_at_once_return_every_page() {
    let pool = host::pool(100);

    thread::scope(|scope| {
        for node in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for size in 1..100_usize {
                    let limits = EpcLimits { reservation: size % 20, quota: 100 };
                    let account = match pool.open("vm", limits) {
                        Ok(account) => account,
                        // The others use so much beside what they have reserved.
                        Err(LimitError::Unavailable { .. }) => continue,
                        Err(error) => panic!("{error}"),
                    };
                    let section = VirtualEpc::new(account, Gpa(0), size % 40 + 1, node);
                    // Whether the others leave enough does not matter, but for the reservation.
                    let outcome = section.preallocate();
                    assert!(outcome.is_ok() || size % 40 + 1 > size % 20);
                }
            });
        }
    });

    assert_eq!(pool.statistics(), PoolStatistics { total: 100, ..PoolStatistics::default() });
    let (_section, pages) = drain(&pool.unlimited("vm"), 0);
    assert_eq!(pages.into_iter().collect::<BTreeSet<_>>().len(), 100);
}
