//! Conflicts of leaves that hold their page for a moment only: two processors run into each other
//! until one of them loses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, PageType, SgxStatus, Stop};
use cloister_x86::Gpr;
use zerocopy::IntoBytes as _;

use crate::machine::{GP, Machine};
use crate::order::Outcome;
use crate::scenario::{
    AEP, FOUR, ONE, TCS, TCS_2, TWO, eaug, enter, epc, exit, map, outside, spec,
};

const RW: SecInfoFlags = SecInfoFlags::R.union(SecInfoFlags::W);
const NEW: u64 = FOUR + 0x1000;
/// SECINFOs in page ONE.
const ALL: u64 = ONE + 0x40;
const WRONG: u64 = ONE + 0x80;
const COPY: u64 = ONE + 0xc0;
/// SECINFOs in the kernel's memory.
const KERNEL_ALL: u64 = 0x20_0000;
const KERNEL_TRIM: u64 = 0x20_0040;
const KERNEL_TCS: u64 = 0x20_0080;

/// Two processors inside, each on its thread: page NEW is pending, FOUR is regular, and TWO leads
/// to the pending page as well.
fn pair() -> (Machine, Machine) {
    let mut machine = outside(AttributeFlags::empty());
    let mut other = Machine::on(machine.platform.clone());
    spec(AttributeFlags::empty()).map(&mut other, 0);
    let all = SecInfo::new(RW | SecInfoFlags::X, PageType::Reg);
    for (la, secinfo) in [
        (ALL, all),
        (WRONG, SecInfo::new(SecInfoFlags::X | SecInfoFlags::PENDING, PageType::Reg)),
        (COPY, SecInfo::new(RW, PageType::Reg)),
    ] {
        machine.platform.page(EpcIndex(epc(ONE))).write((la - ONE) as usize, secinfo.as_bytes());
    }
    eaug(&mut machine, epc(NEW), NEW).expect("EAUG completes");
    for processor in [&mut machine, &mut other] {
        map(processor, NEW, epc(NEW));
        map(processor, TWO, epc(NEW));
        processor.operand(KERNEL_ALL, &all);
        processor.operand(KERNEL_TRIM, &SecInfo::new(SecInfoFlags::empty(), PageType::Trim));
        processor.operand(KERNEL_TCS, &SecInfo::new(SecInfoFlags::empty(), PageType::Tcs));
    }
    enter(&mut machine);
    other.enclu(user::EENTER, TCS_2, AEP, 0).expect("EENTER completes");
    (machine, other)
}

/// Repeats `first` and `second` on two processors until `first` ends with `conflict`; anything
/// else than `usual` is returned at once.
fn contend(
    usual: Outcome,
    conflict: Outcome,
    first: impl Fn(&mut Machine) -> Outcome,
    second: impl Fn(&mut Machine) -> Outcome + Send + 'static,
) -> Outcome {
    contend_on(pair(), usual, conflict, first, second)
}

/// The same with processors that are not inside.
fn contend_on(
    (mut machine, mut other): (Machine, Machine),
    usual: Outcome,
    conflict: Outcome,
    first: impl Fn(&mut Machine) -> Outcome,
    second: impl Fn(&mut Machine) -> Outcome + Send + 'static,
) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let opponent = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // It wins or loses in its turn.
            let _: Outcome = second(&mut other);
        }
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut outcome = usual;
    while outcome == usual && outcome != conflict && Instant::now() < deadline {
        outcome = first(&mut machine);
    }
    stop.store(true, Ordering::Relaxed);
    opponent.join().expect("no panic");
    outcome
}

fn enclu(number: u32, rbx: u64, rcx: u64, rdx: u64) -> impl Fn(&mut Machine) -> Outcome {
    move |machine| {
        machine.enclu(number, rbx, rcx, rdx)?;
        Ok(machine.cpu.gpr[Gpr::Rax])
    }
}

fn encls(number: u32, rbx: u64, page: u32) -> impl Fn(&mut Machine) -> Outcome {
    move |machine| {
        let outcome = machine.encls(number, rbx, Machine::window(page), 0);
        Ok(outcome?.status.expect("it reports").rax())
    }
}

const MISMATCH: Outcome = Ok(SgxStatus::PageAttributesMismatch as u64);
const NOT_MODIFIABLE: Outcome = Ok(SgxStatus::PageNotModifiable as u64);
const CONFLICT: Outcome = Ok(SgxStatus::EpcPageConflict as u64);

#[test]
fn eaccept_loses_to_a_leaf_that_changes_the_page() {
    let eaccept = || enclu(user::EACCEPT, WRONG, NEW, 0);
    let on_regular = enclu(user::EACCEPT, WRONG, FOUR, 0);
    let emodpe = enclu(user::EMODPE, ALL, FOUR, 0);

    assert_eq!(
        contend(MISMATCH, Err(GP), eaccept(), encls(leaf::EMODT, KERNEL_TRIM, epc(NEW))),
        Err(GP),
        "exclusive access"
    );
    assert_eq!(contend(MISMATCH, Err(GP), on_regular, emodpe), Err(GP), "another SGX2 leaf");
}

#[test]
fn emodpe_loses_to_another_sgx2_leaf() {
    let emodpe = enclu(user::EMODPE, ALL, FOUR, 0);
    let opponent = encls(leaf::EMODPR, KERNEL_ALL, epc(FOUR));

    let outcome = contend(Ok(u64::from(user::EMODPE)), Err(GP), emodpe, opponent);

    assert_eq!(outcome, Err(GP));
}

#[test]
fn eacceptcopy_loses_to_another_sgx2_leaf() {
    // Both take the pending page for one at TWO, so that it stays pending.
    let eacceptcopy = enclu(user::EACCEPTCOPY, COPY, TWO, FOUR);
    let opponent = enclu(user::EACCEPT, WRONG, TWO, 0);

    assert_eq!(contend(MISMATCH, Err(GP), eacceptcopy, opponent), Err(GP));
}

#[test]
fn emodpr_loses_to_another_sgx2_leaf() {
    let emodpr = encls(leaf::EMODPR, KERNEL_ALL, epc(FOUR));
    let opponent = enclu(user::EMODPE, ALL, FOUR, 0);

    assert_eq!(contend(Ok(0), CONFLICT, emodpr, opponent), CONFLICT);
}

#[test]
fn emodt_loses_to_any_other_leaf_on_the_page() {
    let emodt = || encls(leaf::EMODT, KERNEL_TRIM, epc(NEW));
    let shared = enclu(user::EACCEPT, WRONG, NEW, 0);
    let sgx2 = enclu(user::EACCEPTCOPY, COPY, TWO, FOUR);

    assert_eq!(contend(NOT_MODIFIABLE, CONFLICT, emodt(), shared), CONFLICT);
    assert_eq!(contend(NOT_MODIFIABLE, CONFLICT, emodt(), sgx2), CONFLICT);
}

#[test]
fn edeccssa_loses_to_a_leaf_that_changes_the_thread() {
    let edeccssa = |machine: &mut Machine| {
        machine.platform.page(EpcIndex(epc(TCS))).store(24, 2 << 32 | 1);
        machine.enclu(user::EDECCSSA, 0, 0, 0).map(|_| 0)
    };
    // A thread does not become one again, which EMODT finds with the page locked.
    let opponent = encls(leaf::EMODT, KERNEL_TCS, epc(TCS));

    assert_eq!(contend(Ok(0), Err(GP), edeccssa, opponent), Err(GP));
}

/// A page comes and goes.
fn eaug_and_eremove(machine: &mut Machine) -> Outcome {
    // It may still be there, if somebody was inside when it was to go.
    let _: Result<(), Stop> = eaug(machine, epc(NEW), NEW);
    machine.encls(leaf::EREMOVE, 0, Machine::window(epc(NEW)), 0).map(|_| 0)
}

#[test]
fn eenter_loses_to_the_removal_of_a_page() {
    let machine = outside(AttributeFlags::empty());
    let other = Machine::on(machine.platform.clone());
    let eenter = |machine: &mut Machine| {
        machine.enclu(user::EENTER, TCS, AEP, 0)?;
        exit(machine);
        Ok(0)
    };

    let outcome = contend_on((machine, other), Ok(0), Err(GP), eenter, eaug_and_eremove);

    assert_eq!(outcome, Err(GP));
}

#[test]
fn eresume_loses_to_the_removal_of_a_page() {
    let mut machine = outside(AttributeFlags::empty());
    let other = Machine::on(machine.platform.clone());
    enter(&mut machine);
    machine.xsave.image_mut(3).fill(0);
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let eresume = |machine: &mut Machine| {
        machine.enclu(user::ERESUME, TCS, AEP, 0)?;
        machine.aex(ExitingEvent::Interrupt).expect("inside");
        Ok(0)
    };

    let outcome = contend_on((machine, other), Ok(0), Err(GP), eresume, eaug_and_eremove);

    assert_eq!(outcome, Err(GP));
}
