//! Several logical processors on one platform.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{EpcIndex, ExitingEvent, SgxStatus, Stop};

use crate::enclave::{Page, Spec, TCS, TCS_2, started, tcs};
use crate::machine::{GP, Machine};
use crate::signer::Signer;

#[test]
fn one_tcs_never_holds_two_processors() {
    let machine = started();
    let platform = machine.platform.clone();
    let inside = Arc::new(AtomicUsize::new(0));
    let entries = Arc::new(AtomicUsize::new(0));

    let processors: Vec<_> = (0..4)
        .map(|_| {
            let mut machine = Machine::on(platform.clone());
            let (inside, entries) = (inside.clone(), entries.clone());
            Spec::simple().map(&mut machine, 0);
            machine.xsave.image_mut(3).fill(0);
            thread::spawn(move || {
                let mut both = false;
                for round in 0..5000 {
                    let outcome = machine.enclu(user::EENTER, TCS, 0x40_2000, 0);
                    if outcome.is_err() {
                        both |= outcome != Err(GP);
                        continue;
                    }
                    both |= inside.fetch_add(1, Ordering::SeqCst) != 0;
                    entries.fetch_add(1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    if round % 2 == 0 {
                        machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
                    } else {
                        machine.aex(ExitingEvent::Interrupt).expect("inside");
                        // Another processor may be faster.
                        while machine.enclu(user::ERESUME, TCS, 0x40_2000, 0) == Err(GP)
                            && machine.platform.page(EpcIndex(1)).load(24) as u32 != 0
                        {
                            thread::yield_now();
                        }
                        if machine.state.in_enclave() {
                            machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT");
                        }
                    }
                }
                both
            })
        })
        .collect();
    let violations: Vec<bool> =
        processors.into_iter().map(|thread| thread.join().expect("no panic")).collect();

    assert_eq!(violations, [false; 4]);
    assert!(entries.load(Ordering::Relaxed) > 0);
    assert_eq!(platform.page(EpcIndex(1)).load(0), 0, "the TCS is free in the end");
}

#[test]
fn an_enclave_runs_on_four_processors_at_once() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.pages.truncate(2);
    *spec.pages[0].contents = tcs(0x4000, 1, 0x2010);
    *spec.pages[1].contents = tcs(0x5000, 1, 0x2010);
    spec.pages.push(Page::tcs(0x2000, tcs(0x6000, 1, 0x2010)));
    spec.pages.push(Page::tcs(0x3000, tcs(0x7000, 1, 0x2010)));
    spec.pages.extend(Spec::simple().pages.into_iter().skip(4));
    let status = spec.start(&mut machine, 0, Signer::a());
    let mut processors: Vec<_> = (0..4).map(|_| Machine::on(machine.platform.clone())).collect();

    let entered: Vec<_> = processors
        .iter_mut()
        .enumerate()
        .map(|(number, processor)| {
            spec.map(processor, 0);
            let thread = spec.base + number as u64 * 4096;
            processor.enclu(user::EENTER, thread, 0x40_2000, 0).is_ok()
        })
        .collect();
    let act = machine.eremove(5);

    assert_eq!(status, SgxStatus::Success);
    assert_eq!(entered, [true; 4]);
    assert_eq!(act, SgxStatus::EnclaveAct);
}

#[test]
fn removal_and_entry_exclude_each_other() {
    for _ in 0..200 {
        let machine = started();
        let platform = machine.platform.clone();
        let go = Arc::new(AtomicBool::new(false));
        let remover = {
            let mut machine = Machine::on(platform.clone());
            let go = go.clone();
            thread::spawn(move || {
                while !go.load(Ordering::Acquire) {}
                machine.eremove(4)
            })
        };
        let mut enterer = Machine::on(platform.clone());
        Spec::simple().map(&mut enterer, 0);
        go.store(true, Ordering::Release);
        let entered = enterer.enclu(user::EENTER, TCS_2, 0x40_2000, 0);

        let removed = remover.join().expect("no panic");

        let gone = !platform.epcm(EpcIndex(4)).valid();
        assert_eq!(gone, removed == SgxStatus::Success);
        assert!(entered.is_ok() || entered == Err(GP), "{entered:?}");
        assert!(removed == SgxStatus::Success || removed == SgxStatus::EnclaveAct);
    }
}

#[test]
fn concurrent_measurements_of_one_enclave_conflict_or_follow_each_other() {
    let mut machine = Machine::new(32);
    let spec = Spec::simple();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let platform = machine.platform.clone();
    let before = platform.page(EpcIndex(0)).load(304);

    let processors: Vec<_> = (0..4)
        .map(|_| {
            let mut machine = Machine::on(platform.clone());
            thread::spawn(move || {
                let mut done = 0;
                while done < 500 {
                    let secs = Machine::window(0);
                    match machine.encls(leaf::EEXTEND, secs, Machine::window(3), 0) {
                        Ok(_) => done += 1,
                        Err(stop) => assert_eq!(stop, GP),
                    }
                }
                done
            })
        })
        .collect();
    let done: u64 = processors.into_iter().map(|thread| thread.join().expect("no panic")).sum();

    let after = platform.page(EpcIndex(0)).load(304);
    assert_eq!(after - before, done * 5, "no block of the measurement is lost");
}

#[test]
fn one_page_is_given_to_one_of_many() {
    for _ in 0..50 {
        let platform = Machine::new(8).platform;
        let winners: usize = (0..4)
            .map(|_| {
                let mut machine = Machine::on(platform.clone());
                thread::spawn(move || match Spec::simple().ecreate(&mut machine, 5) {
                    Ok(_) => 1,
                    Err(Stop::Fault(_)) => 0,
                    Err(stop) => panic!("{stop:?}"),
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();

        assert_eq!(winners, 1);
    }
}
