//! The host's pool: every page once, local pages first, nothing shared by accident.

use std::collections::BTreeSet;
use std::thread;

use cloister_sgx::EpcIndex;
use cloister_virt::{EpcExhausted, EpcPool, PoolStatistics, VirtualEpc};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::host;

fn drain(pool: &EpcPool, node: u32) -> Vec<u32> {
    std::iter::from_fn(|| pool.allocate(node).ok()).map(|index| index.0).collect()
}

#[test]
fn every_page_is_given_out_once_and_then_the_pool_is_exhausted() {
    let pool = host::pool_of(&[(5, 0), (7, 1), (3, 0)]);

    let pages: BTreeSet<u32> = drain(&pool, 0).into_iter().collect();

    assert_eq!(pages, (0..15).collect());
    assert_eq!(pool.allocate(1), Err(EpcExhausted));
    assert_eq!(pool.statistics(), PoolStatistics { total: 15, used: 15, zombies: 0, leaked: 0 });
}

#[test]
fn local_pages_come_first_then_those_of_other_nodes() {
    for (node, local) in [(0, 0..4), (1, 4..10), (2, 0..0)] {
        let pool = host::pool_of(&[(4, 0), (6, 1)]);

        let pages = drain(&pool, node);

        let (first, rest) = pages.split_at(local.len());
        assert!(first.iter().all(|page| local.contains(page)), "node {node}: {pages:?}");
        assert!(rest.iter().all(|page| !local.contains(page)), "node {node}: {pages:?}");
        assert_eq!(pages.len(), 10);
    }
}

#[test]
fn a_page_goes_back_to_its_own_node_and_is_used_again_before_untouched_ones() {
    let pool = host::pool_of(&[(4, 0), (4, 1)]);
    let section = VirtualEpc::new(pool.clone(), Gpa(0), 2, 1);
    section.preallocate().expect("enough");

    drop(section);

    let mut again = [pool.allocate(1), pool.allocate(1)].map(|page| page.expect("a page").0);
    again.sort_unstable();
    assert_eq!(again, [4, 5]);
    assert_eq!(pool.allocate(0), Ok(EpcIndex(0)));
}

#[test]
fn processors_that_touch_at_once_get_each_page_once() {
    const PAGES: usize = 64;
    let pool = host::pool(2 * PAGES as u32);
    let section = VirtualEpc::new(pool.clone(), Gpa(0), PAGES, 0);
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
                for size in 1..100 {
                    let section = VirtualEpc::new(pool.clone(), Gpa(0), size % 40 + 1, node);
                    // Whether the others leave enough does not matter.
                    let _ = section.preallocate();
                }
            });
        }
    });

    assert_eq!(pool.statistics().used, 0);
    let pages: BTreeSet<u32> = drain(&pool, 0).into_iter().collect();
    assert_eq!(pages.len(), 100);
}
