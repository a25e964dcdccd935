//! Several processors, one enclave.

use std::sync::Barrier;
use std::thread;

use cloister_sgx::SgxStatus;
use cloister_sgx::encls::leaf;
use cloister_x86::Gpr;
use iced_x86::code_asm::*;

use super::host::{
    DATA, EXITED, Host, SECS, STUB, THREADS, capabilities, enter, epc_page, exit, tcs_of, window,
};
use crate::state::Activity;
use crate::testing::{DEVICE, STACK};
use crate::{Exit, Vcpu};

/// Entries of each processor.
const ENTRIES: u64 = 2_000;

/// Puts a processor into user mode.
fn to_user(vcpu: &mut Vcpu) {
    let cpu = &mut vcpu.cpu;
    for segment in &mut cpu.arch.segs[..6] {
        segment.rights.0 |= 3 << 5;
    }
    cpu.arch.cpl = 3;
    cpu.update_mode();
}

/// An ENCLS leaf on a processor at CPL 0: RAX.
fn encls(vcpu: &mut Vcpu, number: u32, page: u64) -> u64 {
    let cpu = &mut vcpu.cpu;
    (cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp], cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx]) =
        (STUB, STACK, u64::from(number), page);
    assert_eq!(vcpu.run(), Exit::Hlt, "{:?}", vcpu.caught_exception());
    vcpu.cpu.set_activity(Activity::Active);
    vcpu.cpu.arch.gpr[Gpr::Rax]
}

#[test]
fn an_enclave_is_entered_on_four_processors_at_once() {
    let mut host = Host::with(capabilities(), THREADS as usize + 1);
    host.load(|a| {
        a.mov(rdi, DATA)?;
        a.lock().inc(qword_ptr(rdi))?;
        exit(a)
    });
    let mut vcpus: Vec<Vcpu> = (1..=THREADS as u32).map(|id| host.processor(id)).collect();
    let start = Barrier::new(vcpus.len());

    thread::scope(|scope| {
        for (n, vcpu) in (0..).zip(&mut vcpus) {
            let start = &start;
            scope.spawn(move || {
                to_user(vcpu);
                start.wait();
                for _ in 0..ENTRIES {
                    enter(vcpu, n);
                    assert_eq!(vcpu.run(), Exit::Requested);
                    let exception = vcpu.caught_exception().map(|exception| exception.vector);
                    assert_eq!(
                        (exception, vcpu.cpu.arch.rip),
                        (Some(cloister_x86::Vector::Ud), EXITED)
                    );
                }
            });
        }
    });

    assert_eq!(host.epc(DATA), THREADS * ENTRIES);
    for n in 0..THREADS {
        assert_eq!(host.epc(tcs_of(n)), 0, "thread {n} is inactive");
    }
}

#[test]
fn of_processors_that_enter_one_thread_all_but_one_are_refused() {
    let mut host = Host::with(capabilities(), 3);
    host.load(|a| a.mov(al, byte_ptr(DEVICE)));
    let (mut first, mut second) = (host.processor(1), host.processor(2));
    for vcpu in [&mut first, &mut second] {
        to_user(vcpu);
        enter(vcpu, 0);
    }

    // The first stays inside: its owner is to answer for the device.
    assert!(matches!(first.run(), Exit::MmioRead { .. }));
    second.run();

    assert!(first.cpu.enclave.in_enclave());
    assert_eq!(second.caught_exception(), Some(cloister_x86::Exception::gp(0)));
}

#[test]
fn pages_of_an_enclave_with_a_thread_inside_cannot_be_removed() {
    let mut host = Host::with(capabilities(), 3);
    host.load(|a| a.mov(al, byte_ptr(DEVICE)));
    let (mut inside, mut kernel) = (host.processor(1), host.processor(2));
    to_user(&mut inside);
    enter(&mut inside, 0);
    assert!(matches!(inside.run(), Exit::MmioRead { .. }));
    let mut remove = |page| encls(&mut kernel, leaf::EREMOVE, window(page));

    let active = [remove(epc_page(DATA)), remove(epc_page(tcs_of(1))), remove(SECS)];
    drop(inside);
    let left = [remove(epc_page(DATA)), remove(SECS)];

    let (act, child) = (SgxStatus::EnclaveAct.rax(), SgxStatus::ChildPresent.rax());
    assert_eq!(active[..2], [act, act]);
    // Children and threads: either may be said of an SECS.
    assert!(active[2] == act || active[2] == child, "{active:?}");
    assert_eq!(left, [0, child]);
}

#[test]
fn a_page_is_tracked_once_who_was_inside_has_left() {
    let mut host = Host::with(capabilities(), 3);
    host.load(|a| {
        a.mov(al, byte_ptr(DEVICE))?;
        exit(a)
    });
    let (mut inside, mut kernel) = (host.processor(1), host.processor(2));
    to_user(&mut inside);
    enter(&mut inside, 0);
    assert!(matches!(inside.run(), Exit::MmioRead { .. }));
    let mut leaf_on = |number, page| encls(&mut kernel, number, window(page));

    assert_eq!(leaf_on(leaf::ETRACK, SECS), 0);
    let while_inside = leaf_on(leaf::ETRACK, SECS);
    inside.complete(0);
    inside.run();
    assert_eq!(inside.cpu.arch.rip, EXITED);
    let after = leaf_on(leaf::ETRACK, SECS);

    assert_eq!((while_inside, after), (SgxStatus::PrevTrkIncmpl.rax(), 0));
}
