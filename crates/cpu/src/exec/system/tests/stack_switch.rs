//! Debug exceptions that MOV SS holds back, and what the next instruction makes of them: SDM Vol.
//! 3A, 6.8.3; Vol. 3C, 26.6.3.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::kernel::{DPL3, HANDLERS, KERNEL_CODE, Kernel, USER_DATA};
use crate::testing::{CODE, DATA};

const TF: u64 = Rflags::TF.bits();
/// DR6 without any cause.
const CLEAR: u64 = 0xffff_0ff0;
const BS: u64 = 1 << 14;
const BD: u64 = 1 << 13;
/// DR7: breakpoint 0 watches four bytes for reads and writes.
const WATCH: u64 = 2 | 0xf << 16;
const GENERAL_DETECT: u64 = 1 << 13;
/// Bytes of MOV SS, [RDI].
const MOV_SS: u64 = 2;
const UNMAPPED: u64 = 0x80_0000;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn handler(vector: u8) -> u64 {
    HANDLERS + u64::from(vector) * 16
}

/// A user whose first instruction is MOV SS, [RDI], followed by `next`.
fn user(next: Code) -> Kernel {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.mov(ss, word_ptr(rdi))?;
        next(a)
    });
    kernel.guest.write_u64(DATA, USER_DATA.into());
    kernel.set_level(3);
    for vector in [3, 0x80] {
        let gate = kernel.gate_low(vector) | DPL3;
        kernel.set_gate_words(vector, gate, 0);
    }
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.gpr[Gpr::Rdi] = DATA;
    cpu.arch.gpr[Gpr::Rsi] = UNMAPPED;
    cpu.arch.msrs.lstar = handler(0xfe);
    cpu.arch.msrs.star = u64::from(KERNEL_CODE) << 32;
    kernel
}

const FAULTS: [(Code, u8); 6] = [
    (|a| a.ud2(), 6),
    (|a| a.mov(rax, qword_ptr(rsi)), 14),
    (|a| a.cli(), 13),
    (|a| a.div(edx), 0),
    (|a| a.int(4), 13),
    (|a| a.hlt(), 13),
];

#[test]
fn a_fault_after_mov_ss_loses_the_single_step() {
    for (next, vector) in FAULTS {
        let mut kernel = user(next);
        kernel.vcpu().cpu.set_rflags(2 | TF);

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip), (vector, CODE + MOV_SS));
        assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR, "vector {vector}");
        assert_eq!(kernel.vcpu().cpu.arch.debug_pending, 0, "vector {vector}");
    }
}

#[test]
fn a_fault_after_mov_ss_loses_the_watchpoint() {
    for (next, vector) in FAULTS {
        let mut kernel = user(next);
        kernel.vcpu().cpu.arch.dr[0] = DATA;
        kernel.vcpu().cpu.write_dr7(WATCH);

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip), (vector, CODE + MOV_SS));
        assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR, "vector {vector}");
        assert_eq!(kernel.vcpu().cpu.arch.debug_pending, 0, "vector {vector}");
    }
}

#[test]
fn a_fault_that_the_owner_injects_after_mov_ss_loses_the_single_step() {
    let mut kernel = user(|a| a.cpuid());
    kernel.vcpu().cpu.set_rflags(2 | TF);
    assert_eq!(kernel.vcpu().run(), crate::Exit::Cpuid { leaf: 0, subleaf: 0 });

    assert_eq!(kernel.vcpu().inject(cloister_x86::Exception::gp(0)), Ok(()));

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.rip), (13, CODE + MOV_SS));
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR);
}

#[test]
fn int1_after_mov_ss_is_one_debug_exception_without_the_single_step() {
    let mut kernel = user(|a| a.int1());
    kernel.vcpu().cpu.set_rflags(2 | TF);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip, frame.rflags), (1, CODE + MOV_SS + 1, 2 | TF));
    assert_eq!((kernel.vcpu().cpu.arch.dr6, kernel.vcpu().cpu.arch.debug_pending), (CLEAR, 0));
}

#[test]
fn a_second_mov_ss_in_a_row_holds_off_nothing() {
    let mut kernel = user(|a| {
        a.mov(ss, word_ptr(rdi))?;
        a.int1()
    });
    kernel.vcpu().cpu.set_rflags(2 | TF);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (1, CODE + 2 * MOV_SS));
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | BS);
}

#[test]
fn int1_after_mov_ss_takes_the_watchpoint_along() {
    let mut kernel = user(|a| a.int1());
    kernel.vcpu().cpu.set_rflags(2 | TF);
    kernel.vcpu().cpu.arch.dr[0] = DATA;
    kernel.vcpu().cpu.write_dr7(WATCH);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (1, CODE + MOV_SS + 1));
    assert_eq!((kernel.vcpu().cpu.arch.dr6, kernel.vcpu().cpu.arch.debug_pending), (CLEAR | 1, 0));
}

#[test]
fn general_detect_after_mov_ss_takes_the_watchpoint_along_and_not_the_single_step() {
    let mut kernel = user(|a| a.mov(rax, dr0));
    kernel.guest.write_u64(DATA, super::kernel::KERNEL_DATA.into());
    kernel.set_level(0);
    kernel.vcpu().cpu.set_rflags(2 | TF);
    kernel.vcpu().cpu.arch.dr[0] = DATA;
    kernel.vcpu().cpu.write_dr7(WATCH | GENERAL_DETECT);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (1, CODE + MOV_SS));
    assert_eq!(
        (kernel.vcpu().cpu.arch.dr6, kernel.vcpu().cpu.arch.debug_pending),
        (CLEAR | BD | 1, 0)
    );
}

#[test]
fn an_instruction_after_mov_ss_that_enters_the_kernel_meets_the_trap_there() {
    let entries: [(Code, u64); 3] = [
        (|a| a.int3(), handler(3)),
        (|a| a.int(0x80), handler(0x80)),
        (|a| a.syscall(), handler(0xfe)),
    ];
    for (next, entry) in entries {
        let mut kernel = user(next);
        kernel.vcpu().cpu.arch.msrs.fmask = TF;
        kernel.vcpu().cpu.set_rflags(2 | TF);

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip, frame.cs), (1, entry, KERNEL_CODE.into()));
        assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | BS);
    }
}
