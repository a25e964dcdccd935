//! The owner's debugger and enclaves: nothing of one without DEBUG is seen.

use std::collections::BTreeSet;

use cloister_sgx::{AttributeFlags, Attributes, enclu};
use cloister_x86::Gpr;
use iced_x86::code_asm::*;

use super::host::{AEP, APP, CODE, DATA, EXITED, Host, SHARED, exit, window};
use crate::{DebugPoints, DebugStop, Exit, Watchpoint};

/// A user about to enter an enclave that counts in R8 and writes to its data and to memory outside.
fn host(debug: bool) -> Host {
    let mut host = Host::new();
    let flags = if debug { AttributeFlags::DEBUG } else { AttributeFlags::empty() };
    host.load_with(Attributes::new(AttributeFlags::MODE64BIT | flags, 3), |a| {
        a.inc(r8)?;
        a.mov(r9, DATA)?;
        a.mov(qword_ptr(r9), r8)?;
        a.mov(r9, SHARED)?;
        a.mov(qword_ptr(r9), r8)?;
        exit(a)
    });
    host.enter();
    host
}

fn stops(host: &mut Host, breakpoints: &[u64], watched: &[u64]) {
    let watched = watched.iter().map(|&la| Watchpoint { la, len: 8, writes_only: true });
    let points = DebugPoints {
        breakpoints: breakpoints.iter().copied().collect(),
        watchpoints: watched.collect::<BTreeSet<_>>(),
    };
    host.kernel.vcpu().set_debug_points(Some(&points));
}

fn step(host: &mut Host) -> (Exit, u64) {
    host.kernel.vcpu().debug_step();
    (host.kernel.vcpu().run(), host.kernel.vcpu().cpu.arch.rip)
}

const STEP: Exit = Exit::Debug(DebugStop::Step);

#[test]
fn breakpoints_hold_in_an_enclave_with_debug_whether_it_opted_in_or_not() {
    for opt_in in [false, true] {
        let mut host = host(true);
        if opt_in {
            host.kernel.set_level(0);
            host.opt_in();
            host.enter();
        }
        stops(&mut host, &[CODE + 3], &[]);

        assert_eq!(host.kernel.vcpu().run(), Exit::Debug(DebugStop::Breakpoint { la: CODE + 3 }));
        assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1);
        let (exit, rip) = step(&mut host);
        assert_eq!((exit, rip > CODE + 3), (STEP, true));
    }
}

#[test]
fn an_enclave_without_debug_has_no_breakpoints_and_is_one_step() {
    let mut host = host(false);
    stops(&mut host, &[CODE, CODE + 3, EXITED], &[DATA]);

    assert_eq!(step(&mut host), (STEP, EXITED));

    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1);
    assert_eq!(host.kernel.vcpu().run(), Exit::Debug(DebugStop::Breakpoint { la: EXITED }));
}

#[test]
fn a_pause_in_an_enclave_without_debug_shows_what_a_vm_exit_leaves() {
    let mut host = host(false);
    // Its store to memory outside.
    stops(&mut host, &[], &[SHARED]);
    assert_eq!(host.kernel.vcpu().run(), Exit::Debug(DebugStop::Watchpoint { la: SHARED }));
    assert!(host.kernel.vcpu().cpu.enclave.in_enclave());

    host.kernel.vcpu().debug_pause();

    let cpu = &host.kernel.vcpu().cpu;
    assert!(!cpu.enclave.in_enclave());
    assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::R8]), (AEP, 0));
    assert_eq!(cpu.arch.gpr[Gpr::Rax], u64::from(enclu::leaf::ERESUME));
    // It goes on where it was.
    stops(&mut host, &[EXITED], &[]);
    assert_eq!(host.kernel.vcpu().run(), Exit::Debug(DebugStop::Breakpoint { la: EXITED }));
    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1);
}

#[test]
fn a_pause_in_an_enclave_with_debug_stays_in_it() {
    let mut host = host(true);
    stops(&mut host, &[CODE], &[]);
    host.kernel.vcpu().run();

    host.kernel.vcpu().debug_pause();

    assert_eq!(host.kernel.vcpu().cpu.arch.rip, CODE);
    assert!(host.kernel.vcpu().cpu.enclave.in_enclave());
}

#[test]
fn the_epc_reads_as_ones_and_is_not_written() {
    let host = host(true);
    let cpu = &host.kernel.guest.vcpu.cpu;
    for la in [CODE, window(1)] {
        let mut read = [0; 4];
        assert_eq!((cpu.debug_read(la, &mut read), read), (4, [0xff; 4]));
        assert!(!cpu.debug_write(la, &read));
    }
    let mut read = [0; 2];
    assert_eq!((cpu.debug_read(APP, &mut read), read), (2, [0x0f, 0x01]));
}
