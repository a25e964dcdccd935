//! Leaves of several processors at the same moment.

use std::sync::Arc;
use std::sync::Barrier;
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, Secs};
use cloister_sgx::{EpcIndex, SgxStatus, Stop, enclv};

use super::store::{EVICTED, PCMD, evict, ewb, load, slot, with_va};
use crate::enclave::{DATA, PAGEINFO};
use crate::machine::{GP, Machine};

#[test]
fn a_version_is_used_by_one_of_two_loads() {
    let mut machine = with_va();
    for number in [leaf::ELDU, leaf::ELDUC] {
        for _ in 0..100 {
            evict(&mut machine, 4, 0);
            let page = (machine.memory.get(EVICTED, 4096), machine.memory.get(PCMD, 128));
            let barrier = Arc::new(Barrier::new(2));
            let loads: Vec<_> = [30u32, 31]
                .into_iter()
                .map(|target| {
                    let mut machine = Machine::on(machine.platform.clone());
                    machine.memory.put(EVICTED, &page.0);
                    machine.memory.put(PCMD, &page.1);
                    let barrier = barrier.clone();
                    thread::spawn(move || {
                        barrier.wait();
                        load(&mut machine, number, target, 0, DATA, Machine::window(0))
                    })
                })
                .collect();
            let outcomes: Vec<_> =
                loads.into_iter().map(|thread| thread.join().expect("no panic")).collect();

            let won = outcomes.iter().filter(|outcome| **outcome == Ok(SgxStatus::Success));
            assert_eq!(won.count(), 1, "{outcomes:?}");
            let conflict =
                if number == leaf::ELDU { Err(GP) } else { Ok(SgxStatus::EpcPageConflict) };
            let known = [Ok(SgxStatus::Success), Ok(SgxStatus::MacCompareFail), conflict];
            assert!(outcomes.iter().all(|outcome| known.contains(outcome)), "{outcomes:?}");
            let kept = if outcomes[0] == Ok(SgxStatus::Success) { 30 } else { 31 };
            let back = {
                machine.status(leaf::EBLOCK, 0, Machine::window(kept), 0);
                machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
                let out = ewb(&mut machine, kept, 0);
                assert_eq!(out, Ok(SgxStatus::Success));
                load(&mut machine, leaf::ELDU, 4, 0, DATA, Machine::window(0))
            };
            assert_eq!(back, Ok(SgxStatus::Success));
        }
    }
}

#[test]
fn eviction_and_tracking_of_one_enclave_exclude_each_other() {
    let mut machine = with_va();
    let platform = machine.platform.clone();
    let tracker = thread::spawn(move || {
        let mut machine = Machine::on(platform);
        (0..2000)
            .map(|_| machine.encls(leaf::ETRACK, 0, Machine::window(0), 0))
            .filter(|outcome| match outcome {
                Ok(outcome) => outcome.status != Some(SgxStatus::Success),
                Err(stop) => *stop != GP,
            })
            .collect::<Vec<_>>()
    });

    let mut outcomes: Vec<Result<SgxStatus, Stop>> = Vec::new();
    loop {
        // On a busy host the tracker may be at work through all tries but the last.
        let last = tracker.is_finished() && outcomes.len() >= 200;
        machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
        let _ = machine.encls(leaf::ETRACK, 0, Machine::window(0), 0);
        let outcome = ewb(&mut machine, 4, 0);
        if outcome == Ok(SgxStatus::Success) {
            load(&mut machine, leaf::ELDU, 4, 0, DATA, Machine::window(0)).expect("completes");
        }
        outcomes.push(outcome);
        if last {
            break;
        }
    }

    let odd = tracker.join().expect("no panic");
    // #GP(0) while an ETRACK is at work; SGX_NOT_TRACKED if that ETRACK began the cycle and this
    // processor's own failed before it.
    let known = [Ok(SgxStatus::Success), Ok(SgxStatus::NotTracked), Err(GP)];
    assert_eq!(odd, []);
    assert!(outcomes.iter().all(|outcome| known.contains(outcome)), "{outcomes:?}");
    assert!(outcomes.contains(&Ok(SgxStatus::Success)));
}

#[test]
fn no_virtual_child_is_lost() {
    let machine = with_va();
    let processors: Vec<_> = (0..4)
        .map(|number| {
            let mut machine = Machine::on(machine.platform.clone());
            thread::spawn(move || {
                let (page, secs) = (Machine::window(1 + number), Machine::window(0));
                for _ in 0..3000 {
                    for leaf in [
                        enclv::leaf::EINCVIRTCHILD,
                        enclv::leaf::EINCVIRTCHILD,
                        enclv::leaf::EDECVIRTCHILD,
                    ] {
                        let outcome = machine.enclv(leaf, page, secs, 0);
                        assert_eq!(outcome.map(|out| out.status), Ok(Some(SgxStatus::Success)));
                    }
                }
            })
        })
        .collect();
    for processor in processors {
        processor.join().expect("no panic");
    }

    let count = machine.platform.page(EpcIndex(0)).load(core::mem::offset_of!(Secs, virtchildcnt));
    assert_eq!(count, 12_000);
}

#[test]
fn a_page_is_evicted_by_one_of_two() {
    let mut machine = with_va();
    for _ in 0..50 {
        machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
        machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
        let barrier = Arc::new(Barrier::new(2));
        let evictions: Vec<_> = (0..2u64)
            .map(|number| {
                let mut machine = Machine::on(machine.platform.clone());
                machine.memory.put(EVICTED, &[0; 4096]);
                machine.memory.put(PCMD, &[0; 128]);
                let barrier = barrier.clone();
                thread::spawn(move || {
                    let pageinfo = PageInfo {
                        srcpge: EVICTED.into(),
                        secinfo: PCMD.into(),
                        ..PageInfo::default()
                    };
                    machine.operand(PAGEINFO, &pageinfo);
                    barrier.wait();
                    let outcome =
                        machine.encls(leaf::EWB, PAGEINFO, Machine::window(4), slot(number));
                    (outcome.map(|outcome| outcome.status), machine, number)
                })
            })
            .collect();
        let mut done: Vec<_> =
            evictions.into_iter().map(|thread| thread.join().expect("no panic")).collect();

        done.retain(|(outcome, ..)| outcome.is_ok());
        assert_eq!(done.len(), 1);
        let (_, winner, number) = &done[0];
        machine.memory.put(EVICTED, &winner.memory.get(EVICTED, 4096));
        machine.memory.put(PCMD, &winner.memory.get(PCMD, 128));
        let back = load(&mut machine, leaf::ELDU, 4, *number, DATA, Machine::window(0));
        assert_eq!(back, Ok(SgxStatus::Success));
    }
}
