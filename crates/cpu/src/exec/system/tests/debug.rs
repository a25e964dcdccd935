//! Debug exceptions: SDM Vol. 3B, chapter 17.

use cloister_x86::regs::{Cr0, Cr4, Rflags};
use cloister_x86::{Gpr, msr};
use iced_x86::code_asm::*;

use super::kernel::{HANDLERS, KERNEL_DATA, Kernel};
use crate::Exit;
use crate::run_state::attention;
use crate::testing::{CODE, DATA};

const TF: u64 = Rflags::TF.bits();
const RF: u64 = Rflags::RF.bits();
/// DR6 without any cause.
const CLEAR: u64 = 0xffff_0ff0;
const BS: u64 = 1 << 14;
const BD: u64 = 1 << 13;
/// DR7 fields for breakpoint 0: global enable, then R/W and LEN.
const G0: u64 = 2;
const G1: u64 = 8;
const WRITE: u64 = 1 << 16;
const IO: u64 = 2 << 16;
const READ_WRITE: u64 = 3 << 16;
const LEN4: u64 = 3 << 18;

fn traps_at(kernel: &mut Kernel, causes: u64) -> u64 {
    let frame = kernel.run_to_handler();
    assert_eq!(frame.vector, 1);
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | causes);
    frame.rip
}

#[test]
fn single_step_traps_after_each_instruction_and_the_handler_runs_without() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.nop()?;
        a.inc(eax)?;
        a.nop()
    });
    kernel.guest.assemble_at(HANDLERS + 16, 64, |a| {
        a.hlt()?;
        a.iretq()
    });
    kernel.vcpu().cpu.set_rflags(2 | TF);

    assert_eq!(traps_at(&mut kernel, BS), CODE + 1);
    assert_eq!(kernel.vcpu().cpu.rflags() & TF, 0);
    kernel.wake();
    assert_eq!(traps_at(&mut kernel, BS), CODE + 3);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 1);
}

#[test]
fn with_btf_single_step_traps_after_branches_alone_and_once() {
    let mut kernel = Kernel::new();
    // REP STOSB stays where it is between iterations, which is not a branch.
    kernel.assemble(|a| {
        let [mut there, mut back] = [a.create_label(), a.create_label()];
        a.nop()?;
        a.rep().stosb()?;
        a.cpuid()?;
        a.cmp(eax, eax)?;
        a.jne(there)?;
        a.je(there)?;
        a.set_label(&mut back)?;
        a.nop()?;
        a.set_label(&mut there)?;
        a.hlt()?;
        a.jmp(back)
    });
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.gpr[Gpr::Rcx] = 2;
    cpu.arch.gpr[Gpr::Rdi] = DATA;
    cpu.arch.msrs.debugctl = msr::DEBUGCTL_BTF;
    cpu.set_rflags(2 | TF);

    let exit = kernel.vcpu().run();
    assert!(matches!(exit, Exit::Cpuid { .. }), "{exit:?}");
    kernel.vcpu().skip();
    let rip = traps_at(&mut kernel, BS);

    assert_eq!(rip, CODE + 1 + 2 + 2 + 2 + 2 + 2 + 1);
    assert_eq!(kernel.vcpu().cpu.arch.msrs.debugctl, 0);
}

#[test]
fn popf_that_sets_tf_traps_after_the_next_instruction() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.push(0x102)?;
        a.popfq()?;
        a.inc(eax)?;
        a.inc(eax)
    });

    let rip = traps_at(&mut kernel, BS);

    assert_eq!((rip, kernel.vcpu().cpu.arch.gpr[Gpr::Rax]), (CODE + 5 + 1 + 2, 1));
}

#[test]
fn single_step_stops_after_each_iteration_of_a_string_instruction() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.rep().stosb()?;
        a.nop()
    });
    kernel.guest.assemble_at(HANDLERS + 16, 64, |a| {
        a.hlt()?;
        a.iretq()
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = 2;
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.vcpu().cpu.set_rflags(2 | TF);

    let first = kernel.run_to_handler();
    assert_eq!(
        (first.rip, first.rflags, kernel.vcpu().cpu.arch.gpr[Gpr::Rcx]),
        (CODE, 2 | TF | RF, 1)
    );
    kernel.wake();
    let second = kernel.run_to_handler();
    assert_eq!(
        (second.rip, second.rflags, kernel.vcpu().cpu.arch.gpr[Gpr::Rcx]),
        (CODE + 2, 2 | TF, 0)
    );
}

#[test]
fn a_branch_to_itself_is_over_after_each_round_and_leaves_rf_clear() {
    let mut kernel = Kernel::new();
    kernel.guest.load_code(&[0xe2, 0xfe, 0xf4]); // 1: LOOP 1b; HLT
    kernel.guest.assemble_at(HANDLERS + 16, 64, |a| {
        a.hlt()?;
        a.iretq()
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = 3;
    kernel.vcpu().cpu.set_rflags(2 | TF);

    for (rip, count) in [(CODE, 2), (CODE, 1), (CODE + 2, 0)] {
        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip, frame.rflags), (1, rip, 2 | TF));
        assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rcx], count);
        kernel.wake();
    }
}

#[test]
fn a_breakpoint_on_a_branch_to_itself_hits_in_each_round() {
    let mut kernel = Kernel::new();
    kernel.guest.load_code(&[0xe2, 0xfe, 0xf4]); // 1: LOOP 1b; HLT
    kernel.guest.assemble_at(HANDLERS + 16, 64, |a| {
        a.hlt()?;
        a.or(dword_ptr(rsp + 16), RF as i32)?;
        a.iretq()
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = 3;
    kernel.vcpu().cpu.arch.dr[0] = CODE;
    kernel.vcpu().cpu.write_dr7(G0);

    for count in [3, 2, 1] {
        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip, frame.rflags & RF), (1, CODE, 0));
        assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rcx], count);
        kernel.wake();
    }
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.rip, CODE + 3);
}

#[test]
fn int_n_under_single_step_does_not_trap() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.int(0x40));
    kernel.vcpu().cpu.set_rflags(2 | TF);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rflags), (0x40, 2 | TF));
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR);
}

#[test]
fn a_faulting_instruction_under_single_step_gives_its_fault_alone() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.ud2());
    kernel.vcpu().cpu.set_rflags(2 | TF);

    assert_eq!(kernel.run_to_handler().vector, 6);
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR);
}

#[test]
fn sysret_that_sets_tf_traps_before_the_users_first_instruction() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.sysretq());
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.msrs.star = 0x1b << 48;
    cpu.arch.gpr[Gpr::Rcx] = 0x9000;
    cpu.arch.gpr[Gpr::R11] = 2 | TF;

    assert_eq!(traps_at(&mut kernel, BS), 0x9000);
}

#[test]
fn an_instruction_breakpoint_faults_before_its_instruction_and_rf_lets_it_pass() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.inc(eax)?;
        a.inc(ebx)?;
        a.inc(ecx)
    });
    // The handler sets RF in its frame and returns.
    kernel.guest.assemble_at(HANDLERS + 16, 64, |a| {
        a.hlt()?;
        a.or(dword_ptr(rsp + 16), RF as i32)?;
        a.iretq()
    });
    kernel.vcpu().cpu.arch.dr[0] = CODE + 2;
    kernel.vcpu().cpu.write_dr7(G0);

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.rip, frame.rflags & RF), (1, CODE + 2, 0));
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | 1);
    assert_eq!(
        (kernel.vcpu().cpu.arch.gpr[Gpr::Rax], kernel.vcpu().cpu.arch.gpr[Gpr::Rbx]),
        (1, 0)
    );
    kernel.wake();
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    let cpu = &kernel.vcpu().cpu;
    assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::Rbx]), (CODE + 7, 1, 1));
    assert_eq!(cpu.rflags() & RF, 0);
}

#[test]
fn a_data_breakpoint_traps_after_the_access_that_overlaps_it() {
    // (condition, reads, address, hits)
    for (condition, read, at, hits) in [
        (WRITE | LEN4, false, DATA + 3, true),
        (WRITE | LEN4, false, DATA + 4, false),
        (WRITE | LEN4, true, DATA, false),
        (READ_WRITE | LEN4, true, DATA + 1, true),
        (READ_WRITE, true, DATA, true),
        (READ_WRITE, true, DATA + 1, false),
    ] {
        let mut kernel = Kernel::new();
        kernel.assemble(|a| {
            if read { a.mov(al, byte_ptr(rdi)) } else { a.mov(byte_ptr(rdi), al) }?;
            a.nop()
        });
        kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = at;
        kernel.vcpu().cpu.arch.dr[0] = DATA;
        kernel.vcpu().cpu.write_dr7(G0 | condition);

        assert_eq!(kernel.vcpu().run(), Exit::Hlt);

        let rip = kernel.vcpu().cpu.arch.rip;
        if hits {
            let frame = kernel.frame();
            assert_eq!((frame.vector, frame.rip), (1, CODE + 2), "{condition:#x} {at:#x}");
            assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | 1);
        } else {
            assert_eq!(rip, CODE + 4, "{condition:#x} {at:#x}");
        }
    }
}

#[test]
fn a_flushed_line_is_a_read_for_data_breakpoints_and_a_prefetched_one_is_not() {
    for (flush, causes) in [(true, 1), (false, 0)] {
        let mut kernel = Kernel::new();
        kernel.assemble(
            |a| {
                if flush { a.clflush(byte_ptr(rdi)) } else { a.prefetcht0(byte_ptr(rdi)) }
            },
        );
        kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
        kernel.vcpu().cpu.arch.dr[0] = DATA;
        kernel.vcpu().cpu.write_dr7(G0 | READ_WRITE);

        assert_eq!(kernel.vcpu().run(), Exit::Hlt);

        assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR | causes, "flush: {flush}");
    }
}

#[test]
fn a_data_breakpoint_on_an_access_that_faults_is_forgotten() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.mov(byte_ptr(rdi), al));
    kernel.guest.set_page_flags(DATA, 0b001);
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.vcpu().cpu.arch.dr[0] = DATA;
    kernel.vcpu().cpu.write_dr7(G0 | WRITE);

    assert_eq!(kernel.run_to_handler().vector, 14);
    assert_eq!(kernel.vcpu().cpu.arch.dr6, CLEAR);
}

#[test]
fn an_io_breakpoint_needs_cr4_de_and_traps_after_the_instruction() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.out(0x80, al)?;
        a.nop()
    });
    kernel.vcpu().cpu.arch.cr4.insert(Cr4::DE);
    kernel.vcpu().cpu.arch.dr[0] = 0x80;
    kernel.vcpu().cpu.write_dr7(G0 | IO);

    assert_eq!(kernel.vcpu().run(), Exit::IoOut { port: 0x80, size: 1, value: 0 });
    kernel.vcpu().complete(0);

    assert_eq!(traps_at(&mut kernel, 1), CODE + 2);
}

#[test]
fn general_detect_faults_before_the_access_and_is_cleared() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.mov(rax, dr0));
    kernel.vcpu().cpu.write_dr7(1 << 13);

    assert_eq!(traps_at(&mut kernel, BD), CODE);
    assert_eq!(kernel.vcpu().cpu.arch.dr7, 0x400);
}

#[test]
fn int1_needs_no_rights_and_sets_nothing_in_dr6() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.int1());
    kernel.set_level(3);

    assert_eq!(traps_at(&mut kernel, 0), CODE + 1);
}

#[test]
fn mov_ss_defers_its_data_breakpoint_past_the_next_instruction() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.mov(ss, word_ptr(rdi))?;
        a.inc(eax)?;
        a.inc(eax)
    });
    kernel.guest.write_u64(DATA, KERNEL_DATA.into());
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.vcpu().cpu.arch.dr[0] = DATA;
    kernel.vcpu().cpu.write_dr7(G0 | READ_WRITE);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, kernel.vcpu().cpu.arch.gpr[Gpr::Rax]), (1, 1));
}

#[test]
fn dr4_and_dr5_are_aliases_without_de_and_undefined_with_it() {
    let mut kernel = Kernel::new();
    kernel.guest.load_code(&[0x0f, 0x21, 0xe0, 0xf4]); // MOV RAX, DR4
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], CLEAR);

    let mut kernel = Kernel::new();
    kernel.guest.load_code(&[0x0f, 0x21, 0xe0, 0xf4]);
    kernel.vcpu().cpu.arch.cr4.insert(Cr4::DE);
    assert_eq!(kernel.run_to_handler().vector, 6);
}

#[test]
fn upper_halves_of_dr6_and_dr7_cannot_be_set() {
    for number in [6, 7] {
        let mut kernel = Kernel::new();
        kernel.assemble(|a| if number == 6 { a.mov(dr6, rax) } else { a.mov(dr7, rax) });
        kernel.vcpu().cpu.arch.gpr[Gpr::Rax] = 1 << 32;

        assert_eq!(kernel.run_to_handler().vector, 13);
    }
}

#[test]
fn alignment_is_checked_for_the_user_alone() {
    for (level, am, ac, at, faults) in [
        (3, true, true, DATA + 1, true),
        (3, true, true, DATA + 4, true),
        (3, true, true, DATA + 8, false),
        (3, false, true, DATA + 1, false),
        (3, true, false, DATA + 1, false),
        (0, true, true, DATA + 1, false),
    ] {
        let mut kernel = Kernel::new();
        kernel.assemble(|a| {
            a.mov(rax, qword_ptr(rdi))?;
            a.int3()
        });
        let gate = kernel.gate_low(3) | super::kernel::DPL3;
        kernel.set_gate_words(3, gate, 0);
        kernel.set_level(level);
        let cpu = &mut kernel.vcpu().cpu;
        cpu.arch.gpr[Gpr::Rdi] = at;
        cpu.arch.cr0.set(Cr0::AM, am);
        cpu.set_rflags(2 | if ac { Rflags::AC.bits() } else { 0 });

        let frame = kernel.run_to_handler();

        let expected = if faults { (17, Some(0)) } else { (3, None) };
        assert_eq!((frame.vector, frame.error_code), expected, "{level} {am} {ac} {at:#x}");
    }
}

#[test]
fn an_instruction_breakpoint_is_found_in_code_that_has_run_and_leaves_the_rest_fast() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.inc(eax)?;
        a.inc(ebx)?;
        a.hlt()
    });
    // Without one, and with ones elsewhere: so many that code is not to ask for each.
    for n in 0..200 {
        kernel.vcpu().cpu.arch.rip = CODE;
        assert_eq!(kernel.vcpu().run(), Exit::Hlt);
        let alone = kernel.vcpu().cpu.run.attention & attention::BREAKPOINTS != 0;
        assert!(n > 64 || !alone, "{n}");
        kernel.wake();
        kernel.vcpu().cpu.arch.dr[1] = 0x5000 + 8 * n;
        kernel.vcpu().cpu.write_dr7(G1);
    }
    kernel.vcpu().cpu.arch.rip = CODE;
    kernel.vcpu().cpu.arch.dr[0] = CODE + 2;
    kernel.vcpu().cpu.write_dr7(G0 | G1);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (1, CODE + 2));
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rbx], 200);
}
