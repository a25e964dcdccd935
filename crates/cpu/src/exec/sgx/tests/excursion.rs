//! Leaves and enclaves on a processor that stands in for another one.

use std::time::Duration;

use cloister_sgx::enclu;
use cloister_x86::Gpr;
use cloister_x86::Vector;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::host::{AEP, EXITED, Host, exit};
use crate::exec::system::tests::kernel::HANDLERS;
use crate::{DebugStop, Exit};

const LONG: Duration = Duration::from_secs(60);
const OVER: Exit = Exit::Debug(DebugStop::Step);
const UD_HANDLER: u64 = HANDLERS + 16 * Vector::Ud as u64;

fn host(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Host {
    let mut host = Host::new();
    host.load(code);
    host.enter();
    host
}

fn endless(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.inc(r8)?;
    a.jmp(again)
}

/// RIP, and whether the processor is in an enclave.
fn place(host: &mut Host) -> (u64, bool) {
    let cpu = &host.kernel.vcpu().cpu;
    (cpu.arch.rip, cpu.enclave.in_enclave())
}

#[test]
fn it_ends_where_the_enclave_exits_to() {
    let mut host = host(|a| {
        a.mov(r8, 1000u64)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.dec(r8)?;
        a.jnz(again)?;
        exit(a)
    });

    host.kernel.vcpu().begin_excursion(LONG);

    assert_eq!(host.kernel.vcpu().run(), OVER);
    assert_eq!(place(&mut host), (EXITED, false));
}

#[test]
fn it_ends_at_the_handler_of_an_exception_in_the_enclave() {
    let mut host = host(|a| a.ud2());

    host.kernel.vcpu().begin_excursion(LONG);

    assert_eq!(host.kernel.vcpu().run(), OVER);
    assert_eq!(place(&mut host), (UD_HANDLER, false));
}

#[test]
fn it_ends_at_the_handler_of_an_exception_of_the_leaf() {
    let mut host = host(exit);
    host.kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = 0x1234;

    host.kernel.vcpu().begin_excursion(LONG);

    assert_eq!(host.kernel.vcpu().run(), OVER);
    let (rip, inside) = place(&mut host);
    assert_eq!((rip & !0xff0, inside), (HANDLERS, false));
}

#[test]
fn one_that_lasts_too_long_ends_with_an_aex_and_goes_on_with_eresume() {
    let mut host = host(endless);
    let mut counted = 0;

    for _ in 0..3 {
        host.kernel.vcpu().begin_excursion(Duration::ZERO);
        assert_eq!(host.kernel.vcpu().run(), Exit::Requested);
        let inside = host.kernel.vcpu().cpu.arch.gpr[Gpr::R8];
        host.kernel.vcpu().end_excursion();

        assert!(inside > counted);
        counted = inside;
        assert_eq!(place(&mut host), (AEP, false));
        let leaf = host.kernel.vcpu().cpu.arch.gpr[Gpr::Rax];
        assert_eq!(leaf, u64::from(enclu::leaf::ERESUME));
    }
}

#[test]
fn the_delivery_of_an_exception_is_taken_back() {
    let mut host = host(exit);
    host.kernel.vcpu().cpu.arch.rip = EXITED;
    let before = host.kernel.vcpu().cpu.state().clone();

    // UD2.
    host.kernel.vcpu().begin_excursion(LONG);
    assert_eq!(host.kernel.vcpu().run(), OVER);
    assert_eq!(place(&mut host), (UD_HANDLER, false));

    assert!(host.kernel.vcpu().undo_exception());
    let after = host.kernel.vcpu().cpu.state();
    assert_eq!((after.rip, after.cpl, after.rflags()), (before.rip, before.cpl, before.rflags()));
    assert_eq!((&after.gpr, &after.segs), (&before.gpr, &before.segs));
}

#[test]
fn what_is_no_frame_is_left_alone() {
    let mut host = host(exit);
    host.kernel.set_level(0);
    // Not canonical.
    host.kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = 1 << 63;
    let before = host.kernel.vcpu().cpu.state().clone();

    assert!(!host.kernel.vcpu().undo_exception());

    let after = host.kernel.vcpu().cpu.state();
    assert_eq!((after.rip, &after.gpr, after.cpl), (before.rip, &before.gpr, before.cpl));
}
