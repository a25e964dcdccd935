//! What an operator sees of the virtual EPC while the guest uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, SgxStatus};
use cloister_virt::{EpcExhausted, LISTED_ENCLAVES, PageCounts, SectionConfig, SgxVm};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::enclave::{BASE, create, fill, init, mrenclave, secs, sigstruct};
use crate::guest::{DONE, Guest, epc, reported};
use crate::host::{self, EPC_GPA};
use crate::kernel::Kernel;
use crate::signer::Signer;

const fn gpa(page: u64) -> Gpa {
    Gpa(EPC_GPA + page * PAGE_SIZE)
}

/// A machine on a host of `host_pages` pages.
fn machine(host_pages: u32, sections: &[SectionConfig]) -> Arc<SgxVm> {
    let account = host::pool(host_pages).unlimited("vm");
    Arc::new(SgxVm::new(account, sections, host::everything()).expect("a machine"))
}

fn touch(vm: &SgxVm, page: u64) -> EpcIndex {
    vm.populate(gpa(page)).expect("EPC").expect("a page")
}

#[test]
fn an_enclave_across_two_sections_is_counted_in_both_and_listed_once() {
    let second = EPC_GPA + (1 << 20);
    let vm = machine(32, &[host::section(EPC_GPA, 3), host::section(second, 8)]);
    let mut guest = Guest::new(vm.clone());
    guest.trust(Signer::trusted());
    // The SECS and two pages in the first section, two more and a version array in the second.
    assert_eq!(create(&mut guest, &secs(), 0), DONE);
    fill(&mut guest, 0, 4);
    assert_eq!(guest.encls(leaf::EPA, 3, epc(7), 0), DONE);

    let before = vm.census(|_, _, _| {});
    let signed = sigstruct(&secs(), 4, Signer::trusted());
    assert_eq!(init(&mut guest, &signed, 0), reported(SgxStatus::Success));
    let after = vm.census(|_, _, _| {});

    assert_eq!(before.enclaves[0].view.identity, None, "not initialized yet");
    assert_eq!((after.enclaves.len(), after.unlisted), (1, 0));
    let [first, second] = &after.sections[..] else { panic!("two sections") };
    assert_eq!((first.total, first.backed, first.faults), (3, 3, 3));
    assert_eq!(first.pages, PageCounts { valid: 3, secs: 1, reg: 2, ..PageCounts::default() });
    assert_eq!((second.total, second.backed, second.faults), (8, 3, 3));
    assert_eq!(second.pages, PageCounts { valid: 3, reg: 2, va: 1, ..PageCounts::default() });
    let enclave = &after.enclaves[0];
    assert_eq!((enclave.section, enclave.gpa), (0, gpa(0)));
    assert_eq!(enclave.pages, [3, 2]);
    assert_eq!(enclave.view.identity.expect("initialized").mrenclave, mrenclave(4));
    assert_eq!((enclave.view.base, enclave.view.children), (BASE, 4));
    assert!(enclave.view.attributes.has(AttributeFlags::INIT | AttributeFlags::DEBUG));
}

#[test]
fn threads_inside_and_blocked_pages_are_seen() {
    let vm = machine(16, &[host::section(EPC_GPA, 8)]);
    let mut kernel = Kernel::new(vm.platform().clone());
    let [secs, tcs, ssa] = [0, 1, 2].map(|page| touch(&vm, page));
    kernel.threaded(secs, tcs, ssa);
    let inside = kernel.enter();
    assert_eq!(kernel.block(ssa), Ok(SgxStatus::Success));
    let mut blocked = Vec::new();

    let census = vm.census(|section, page, view| {
        if view.flags.contains(EpcmFlags::BLOCKED) {
            blocked.push((section, page));
        }
    });

    assert_eq!(blocked, [(0, 2)]);
    let pages = PageCounts { valid: 3, secs: 1, tcs: 1, reg: 1, blocked: 1, ..Default::default() };
    assert_eq!(census.sections[0].pages, pages);
    assert_eq!(census.enclaves[0].view.threads_inside, 1);
    assert_eq!(census.enclaves[0].counts, pages);
    kernel.exit(inside);
    assert_eq!(vm.census(|_, _, _| {}).enclaves[0].view.threads_inside, 0);
}

#[test]
fn faults_are_touches_of_pages_without_backing_and_preallocation_has_none() {
    let preallocated = SectionConfig { preallocate: true, ..host::section(EPC_GPA, 4) };
    let vm = machine(6, &[preallocated, host::section(EPC_GPA + (1 << 20), 8)]);
    let touch = |page| vm.populate(Gpa(EPC_GPA + (1 << 20) + page * PAGE_SIZE)).expect("EPC");
    assert!(touch(0).is_ok());
    assert!(touch(5).is_ok());
    assert_eq!(touch(1), Err(EpcExhausted::Host));

    let census = vm.census(|_, _, _| {});

    let counts = census.sections.iter().map(|section| (section.backed, section.faults));
    assert_eq!(counts.collect::<Vec<_>>(), [(4, 0), (2, 3)]);
    assert_eq!(vm.account().statistics().refused, 1);
}

#[test]
fn a_huge_section_costs_what_is_backed_of_it() {
    const PAGES: u64 = 1 << 27;
    let vm = machine(16, &[host::section(EPC_GPA, PAGES)]);
    for page in [0, PAGES / 2, PAGES - 1] {
        touch(&vm, page);
    }
    let mut visited = Vec::new();

    let census = vm.census(|_, page, _| visited.push(page as u64));

    assert_eq!(visited, [0, PAGES / 2, PAGES - 1]);
    let section = census.sections[0];
    assert_eq!((section.total as u64, section.backed, section.pages.valid), (PAGES, 3, 0));
    assert_eq!(vm.platform().backed_pages(), 0, "the store is not touched by looking");
}

#[test]
fn enclaves_beyond_the_list_are_counted() {
    let count = LISTED_ENCLAVES as u64 + 7;
    let vm = machine(count as u32, &[host::section(EPC_GPA, count)]);
    let mut kernel = Kernel::new(vm.platform().clone());
    for page in 0..count {
        kernel.create(touch(&vm, page)).expect("ECREATE");
    }

    let census = vm.census(|_, _, _| {});

    assert_eq!((census.enclaves.len(), census.unlisted), (LISTED_ENCLAVES, 7));
    assert_eq!(census.sections[0].pages.secs as u64, count);
    assert!(census.enclaves.is_sorted_by_key(|enclave| enclave.gpa));
}

/// Three kernels build, enter and remove enclaves; any conflict fails them.
#[test]
fn a_census_disturbs_no_leaf_and_counts_no_nonsense() {
    const KERNELS: usize = 3;
    let vm = machine(32, &[host::section(EPC_GPA, 16)]);
    let running = AtomicUsize::new(KERNELS);
    let (mut inside_seen, mut censuses) = (0, 0);

    thread::scope(|scope| {
        for number in 0..KERNELS as u64 {
            let (vm, running) = (&vm, &running);
            scope.spawn(move || {
                let mut kernel = Kernel::new(vm.platform().clone());
                let [secs, tcs, ssa] = [0, 1, 2].map(|page| touch(vm, number * 4 + page));
                for _ in 0..2_000 {
                    kernel.threaded(secs, tcs, ssa);
                    let inside = kernel.enter();
                    thread::yield_now();
                    kernel.exit(inside);
                    for page in [tcs, ssa, secs] {
                        assert_eq!(kernel.remove(page), Ok(SgxStatus::Success));
                    }
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        let mut alive = KERNELS;
        while alive != 0 && censuses < 1_000_000 {
            alive = running.load(Ordering::Acquire);
            let census = vm.census(|_, _, _| {});
            censuses += 1;
            let section = census.sections[0];
            let PageCounts { valid, secs, tcs, reg, .. } = section.pages;
            assert_eq!(valid, secs + tcs + reg);
            assert!(valid <= section.backed && section.backed <= 3 * KERNELS);
            for enclave in &census.enclaves {
                assert_eq!(enclave.view.base, BASE);
                assert!(enclave.view.threads_inside <= 1 && enclave.view.children <= 2);
                inside_seen += enclave.view.threads_inside;
            }
        }
    });

    assert!(inside_seen > 0, "{censuses} censuses");
    let census = vm.census(|_, _, _| {});
    assert_eq!((census.enclaves.len(), census.sections[0].pages.valid), (0, 0));
}
