//! Interrupts and exceptions through task gates.

use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, Vector};

use super::super::kernel::DATA;
use super::machine::*;
use crate::Exit;
use crate::testing::{CODE, STACK};

const RF: u32 = Rflags::RF.bits() as u32;
const NT: u64 = Rflags::NT.bits();
const IF: u64 = Rflags::IF.bits();

#[test]
fn int_n_through_a_task_gate_nests_the_task_and_iret_returns_after_it() {
    let mut machine = Machine::with_code(&[0xcd, 0x40]);
    machine.set_task_gate(0x40);
    machine.guest.write(TASK, &[HLT, IRET]);
    machine.cpu().set_rflags(2 | IF);
    machine.set_new(tss::EFLAGS, 0x202);

    assert_eq!(machine.run(), TASK + 1);
    // A task gate clears no flag: all come from the TSS.
    assert_eq!(machine.cpu().rflags(), 2 | IF | NT);
    assert_eq!((machine.task(), machine.new_link()), (NEW, OLD.into()));
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], TASK_STACK);

    assert_eq!(machine.run(), CODE + 3);
    assert_eq!((machine.task(), machine.cpu().rflags()), (OLD, 2 | IF));
}

#[test]
fn a_fault_through_a_task_gate_saves_its_instruction_with_rf_and_pushes_its_error_code() {
    // MOV ES, AX
    let mut machine = Machine::with_code(&[0x8e, 0xc0]);
    machine.set_task_gate(13);
    machine.cpu().arch.gpr[Gpr::Rax] = 0x1234;

    assert_eq!(machine.run(), TASK + 1);

    assert_eq!((machine.old(tss::EIP), machine.old(tss::EFLAGS)), (CODE as u32, 2 | RF));
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], TASK_STACK - 4);
    assert_eq!(machine.word(TASK_STACK - 4), 0x1234);
}

#[test]
fn a_16_bit_task_gets_an_error_code_of_16_bits() {
    let mut machine = Machine::with_code(&[0x8e, 0xc0]);
    machine.set_task_gate(13);
    machine.set_descriptor(NEW, system(TSS16, NEW_TSS, 0x2b));
    machine.guest.write(NEW_TSS, &[0; 0x2c]);
    for (at, word) in [(14, 0xa000_u16), (16, 2), (26, 0xf000), (36, 8), (38, SPARE), (42, 0)] {
        machine.guest.write(NEW_TSS + at, &word.to_le_bytes());
    }
    // A stack segment of 64 KiB.
    machine.set_descriptor(SPARE, DATA & !(0xc << 52 | 0xf << 48));
    machine.cpu().arch.gpr[Gpr::Rax] = 0x1234;

    assert_eq!(machine.run(), TASK + 1);

    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp] as u16, 0xeffe);
    assert_eq!(machine.guest.read::<2>(0xeffe), [0x34, 0x12]);
}

#[test]
fn a_double_fault_through_a_task_gate_gets_a_good_stack() {
    // PUSH with a stack pointer beyond the stack segment: #SS, which cannot push either.
    let mut machine = Machine::with_code(&[0x50]);
    machine.set_task_gate(8);
    let cpu = machine.cpu();
    cpu.arch.segs[seg::SS].limit = 0xfff;
    cpu.arch.gpr[Gpr::Rsp] = 0x1_0000;
    cpu.arch.gpr[Gpr::Rax] = 0x99;

    assert_eq!(machine.run(), TASK + 1);

    assert_eq!(
        (machine.word(TASK_STACK - 4), machine.cpu().arch.gpr[Gpr::Rsp]),
        (0, TASK_STACK - 4)
    );
    let saved = [tss::EIP, tss::ESP, tss::EAX].map(|at| machine.old(at));
    assert_eq!(saved, [CODE as u32, 0x1_0000, 0x99]);
}

#[test]
fn error_codes_of_a_switch_for_an_event_have_ext_where_the_program_did_not_ask_for_it() {
    let absent = system(TSS32 & !PRESENT, NEW_TSS, 0x67);
    let busy = system(TSS32_BUSY, NEW_TSS, 0x67);
    let short = system(TSS32, NEW_TSS, 0x10);
    // UD2 and INT 40H; (descriptor, vector, error code without EXT)
    for (code, ext) in [([0x0f, 0x0b], 1), ([0xcd, 0x40], 0)] {
        for (descriptor, vector, error) in [(absent, 11, 0x30), (busy, 13, 0x30), (short, 10, 0x30)]
        {
            let mut machine = Machine::with_code(&code);
            machine.set_task_gate(6);
            machine.set_task_gate(0x40);
            machine.set_descriptor(NEW, descriptor);

            let frame = machine.run_to_handler();

            let error_code = Some(error | ext);
            assert_eq!(frame, Frame { vector, error_code, eip: CODE as u32, cs: 8 });
            assert_eq!(machine.task(), OLD);
        }
    }
}

#[test]
fn a_gate_in_the_idt_is_checked_before_its_task() {
    // (access byte of the gate, CPL, vector, error code)
    for (access, user, vector, code) in [
        (0x05, false, 11, 0x40 << 3 | 2),
        (0x85, true, 13, 0x40 << 3 | 2),
        (0x05, true, 13, 0x40 << 3 | 2),
    ] {
        let mut machine = Machine::with_code(&[0xcd, 0x40]);
        machine.guest.write_u64(IDT + 0x40 * 8, gate(access, NEW));
        if user {
            machine.enter_user(TASK_STACK);
        }

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (vector, Some(code)), "{access:#x} {user}");
    }
}

#[test]
fn what_the_new_task_of_an_event_faults_with_has_ext() {
    // UD2 and INT 40H to a task without a stack segment.
    for (code, ext) in [([0x0f, 0x0b], 1), ([0xcd, 0x40], 0)] {
        let mut machine = Machine::with_code(&code);
        machine.set_task_gate(6);
        machine.set_task_gate(0x40);
        machine.set_new_segments(USER_CODE, USER_DATA);
        machine.set_new(tss::DS, 0x103);

        let frame = machine.run_to_handler();

        let error_code = Some(0x100 | ext);
        let expected = Frame { vector: 10, error_code, eip: TASK as u32, cs: USER_CODE.into() };
        assert_eq!(frame, expected);
    }
}

#[test]
fn an_error_code_without_room_on_the_new_stack_is_a_stack_fault_of_the_new_task() {
    let mut machine = Machine::new();
    machine.set_task_gate(17);
    machine.set_new_segments(USER_CODE, USER_DATA);
    machine.set_descriptor(SPARE, (DATA | 3 << 45) & !(1 << 55 | 0xf << 48));
    machine.set_new(tss::SS, u32::from(SPARE) | 3);

    machine.guest.vcpu.inject(Exception::with_code(Vector::Ac, 0)).unwrap();
    let frame = machine.run_to_handler();

    let expected =
        Frame { vector: 12, error_code: Some(1), eip: TASK as u32, cs: USER_CODE.into() };
    assert_eq!(frame, expected);
    assert_eq!(machine.old(tss::EIP), CODE as u32);
}

#[test]
fn a_contributory_exception_whose_task_faults_becomes_a_double_fault_in_that_task() {
    let mut machine = Machine::with_code(&[0x8e, 0xc0]);
    machine.set_task_gate(13);
    machine.set_new_segments(USER_CODE, USER_DATA);
    machine.set_new(tss::DS, 0x103);
    machine.cpu().arch.gpr[Gpr::Rax] = 0x1234;

    let frame = machine.run_to_handler();

    let expected = Frame { vector: 8, error_code: Some(0), eip: TASK as u32, cs: USER_CODE.into() };
    assert_eq!(frame, expected);
}

#[test]
fn a_task_that_cannot_even_double_fault_shuts_the_processor_down() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_new(tss::SS, 0);

    // #TS at CPL 0 has no stack, nor has #DF.
    assert_eq!(machine.guest.vcpu.run(), Exit::TripleFault);
}

#[test]
fn an_nmi_through_a_task_gate_blocks_nmis_until_the_task_returns() {
    let mut machine = Machine::with_code(&[0x90]);
    machine.set_task_gate(2);
    machine.guest.write(TASK, &[HLT, IRET]);
    machine.cpu().package.deliver_msi(0xfee0_0000, 4 << 8);

    assert_eq!(machine.run(), TASK + 1);
    assert!(machine.cpu().arch.nmi_blocked);
    assert_eq!(machine.old(tss::EIP), CODE as u32);
    assert_eq!(machine.run(), CODE + 2);
    assert!(!machine.cpu().arch.nmi_blocked);
}

#[test]
fn no_single_step_trap_follows_an_int_n_that_switches_tasks() {
    let mut machine = Machine::with_code(&[0xcd, 0x40]);
    machine.set_task_gate(0x40);
    machine.cpu().set_rflags(2 | Rflags::TF.bits());

    assert_eq!(machine.run(), TASK + 1);

    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], TASK_STACK);
    assert_eq!(machine.old(tss::ESP), STACK as u32);
}

#[test]
fn a_task_wakes_for_an_interrupt_that_comes_again() {
    let mut machine = Machine::with_code(&[0xcd, 0x40, 0xcd, 0x40]);
    machine.set_task_gate(0x40);
    // INC EAX; IRET; JMP to the start.
    machine.guest.write(TASK, &[0x40, IRET, 0xeb, 0xfc]);

    assert_eq!(machine.run(), CODE + 5);

    assert_eq!(machine.word(NEW_TSS + tss::EAX), 2);
}
