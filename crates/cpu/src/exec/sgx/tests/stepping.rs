//! Single steps over SGX instructions and through enclaves (SDM Vol. 3D, 40.2).

use core::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::GprSgx;
use cloister_x86::regs::Rflags;
use cloister_x86::{Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::host::{AEP, APP, CODE, DATA, EXITED, Host, STUB, exit, window};
use crate::exec::system::tests::kernel::Frame;

const TF: u64 = Rflags::TF.bits();
const RF: u64 = Rflags::RF.bits();
const DB: u8 = Vector::Db as u8;
const UD: u8 = Vector::Ud as u8;
/// DR6 without any cause, and BS.
const CLEAR: u64 = 0xffff_0ff0;
const BS: u64 = 1 << 14;

const RIP: usize = offset_of!(GprSgx, rip);
const RFLAGS: usize = offset_of!(GprSgx, rflags);

/// Enters an enclave under single step, and runs until a handler halts.
fn step_in(
    opt_in: bool,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Host, Frame) {
    let mut host = Host::new();
    host.load(code);
    if opt_in {
        host.opt_in();
    }
    host.enter();
    host.kernel.vcpu().cpu.set_rflags(2 | TF);
    let frame = host.kernel.run_to_handler();
    (host, frame)
}

#[test]
fn encls_traps_after_it() {
    let mut host = Host::new();
    let cpu = &mut host.kernel.vcpu().cpu;
    (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx]) =
        (STUB, u64::from(leaf::EREMOVE), window(9));
    cpu.set_rflags(2 | TF);

    let frame = host.kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (DB, STUB + 3));
    assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | BS);
}

#[test]
fn an_entry_opted_out_is_one_step_up_to_the_exit() {
    let (mut host, frame) = step_in(false, |a| {
        a.inc(r8)?;
        a.mov(rsp, DATA + 0x800)?;
        a.pushfq()?;
        a.pop(r9)?;
        exit(a)
    });

    assert_eq!((frame.vector, frame.rip, frame.rflags & TF), (DB, EXITED, TF));
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!(
        (cpu.arch.gpr[Gpr::R8], cpu.arch.gpr[Gpr::R9] & TF, cpu.arch.dr6),
        (1, 0, CLEAR | BS)
    );
}

#[test]
fn opted_out_popf_does_not_set_tf_and_sets_the_rest() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rsp, DATA + 0x800)?;
        a.push(0x101)?;
        a.popfq()?;
        a.inc(r8)?;
        a.inc(r8)?;
        a.setc(r9b)?;
        exit(a)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.rip, frame.rflags & TF), (UD, EXITED, 0));
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.arch.gpr[Gpr::R9]), (2, 1));
}

#[test]
fn opted_in_popf_sets_tf() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rsp, DATA + 0x800)?;
        a.push(0x102)?;
        a.popfq()?;
        a.inc(r8)?;
        a.inc(r8)
    });
    host.opt_in();

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.rip), (DB, AEP));
    assert_eq!(host.saved(8 * 8), 1);
}

#[test]
fn a_fault_after_an_entry_opted_out_gives_tf_back_and_no_step() {
    let (mut host, frame) = step_in(false, |a| a.ud2());

    // TF is as it was at entry, in the frame; in the SSA it is 0.
    assert_eq!((frame.vector, frame.rip, frame.rflags & TF), (UD, AEP, TF));
    assert_eq!((host.saved(RIP), host.saved(RFLAGS) & TF), (CODE, 0));
    assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR);
}

#[test]
fn eresume_opted_out_under_single_step_runs_to_the_exit() {
    let (mut host, fault) = step_in(false, |a| {
        a.ud2()?;
        a.inc(r8)?;
        exit(a)
    });
    host.set_saved(RIP, CODE + 2);

    // As IRET does: TF is set when ERESUME begins.
    let frame = host.return_and_run(&fault);

    assert_eq!((frame.vector, frame.rip), (DB, EXITED));
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.arch.dr6), (1, CLEAR | BS));
}

#[test]
fn an_entry_opted_in_traps_before_the_first_instruction_and_then_after_each() {
    let (mut host, mut frame) = step_in(true, |a| {
        a.inc(r8)?;
        a.inc(r9)?;
        exit(a)
    });

    assert_eq!((frame.vector, frame.rip, frame.rflags & TF), (DB, AEP, TF));
    assert_eq!((host.saved(RIP), host.saved(RFLAGS) & TF), (CODE, 0));
    assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | BS);
    // No trap follows ERESUME itself, so that each return is one step.
    let mut steps = Vec::new();
    for _ in 0..4 {
        frame = host.return_and_run(&frame);
        assert_eq!((frame.vector, frame.rip), (DB, AEP));
        steps.push(host.saved(RIP) - CODE);
    }
    assert_eq!(steps[..2], [3, 6]);
    assert!(steps[2] < steps[3]);
    // The last step is EEXIT.
    let end = host.return_and_run(&frame);
    assert_eq!((end.vector, end.rip, end.rflags & TF), (DB, EXITED, TF));
}

#[test]
fn a_leaf_inside_opted_in_traps_like_any_instruction_and_opted_out_does_not() {
    for opt_in in [true, false] {
        let mut host = Host::new();
        host.load(|a| {
            // EGETKEY of a key name that is none: SGX_INVALID_KEYNAME.
            a.mov(rbx, DATA)?;
            a.mov(word_ptr(rbx), 99)?;
            a.lea(rcx, qword_ptr(rbx + 0x800))?;
            a.mov(eax, 1)?;
            a.mov(rsp, DATA + 0x700)?;
            a.push(0x102)?;
            a.popfq()?;
            a.enclu()?;
            a.mov(r8, rax)?;
            exit(a)
        });
        if opt_in {
            host.opt_in();
        }

        let frame = host.enter_and_run();

        if opt_in {
            assert_eq!((frame.vector, frame.rip), (DB, AEP));
            assert_eq!(host.saved(0), 256);
        } else {
            assert_eq!((frame.vector, frame.rip), (UD, EXITED));
            assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 256);
        }
    }
}

#[test]
fn an_entry_that_faults_does_not_trap() {
    for opt_in in [false, true] {
        let mut host = Host::new();
        host.load(exit);
        if opt_in {
            host.opt_in();
        }
        host.enter();
        // No TCS.
        host.kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = DATA;
        host.kernel.vcpu().cpu.set_rflags(2 | TF);

        let frame = host.kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip), (Vector::Pf as u8, APP));
        assert_eq!((frame.rflags & (TF | RF), host.kernel.vcpu().cpu.arch.dr6), (TF | RF, CLEAR));
    }
}
