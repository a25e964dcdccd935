//! What a task switch saves, loads and links.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::seg;

use super::machine::*;
use crate::testing::{CODE, STACK};

const NT: u32 = Rflags::NT.bits() as u32;
const BT: u64 = 1 << 15;
const BS: u64 = 1 << 14;

#[test]
fn jmp_saves_one_task_and_loads_the_other() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    for n in 0..8 {
        machine.cpu().arch.gpr[n] = 0x1111_1111 * (n as u64 + 1);
        machine.set_new(tss::EAX + n as u64 * 4, 0x8888_0000 + n as u32);
    }
    machine.cpu().set_rflags(0xad7);
    machine.set_new(tss::EFLAGS, 0x247);

    assert_eq!(machine.run(), TASK + 1);

    let saved = std::array::from_fn(|n| machine.old(tss::EAX + n as u64 * 4));
    assert_eq!(saved, std::array::from_fn::<u32, 8, _>(|n| 0x1111_1111 * (n as u32 + 1)));
    assert_eq!((machine.old(tss::EIP), machine.old(tss::EFLAGS)), (CODE as u32 + 7, 0xad7));
    let selectors = [tss::ES, tss::CS, tss::SS, tss::DS].map(|at| machine.old(at));
    assert_eq!(selectors, [0x10, 8, 0x10, 0x10]);
    let cpu = machine.cpu();
    let loaded: [u64; 8] = std::array::from_fn(|n| cpu.arch.gpr[n]);
    assert_eq!(loaded, std::array::from_fn(|n| 0x8888_0000 + n as u64));
    assert_eq!(cpu.rflags(), 0x247);
    assert_eq!(cpu.arch.segs[..6].iter().map(|segment| segment.limit).min(), Some(u32::MAX));
}

#[test]
fn jmp_frees_the_old_task_and_leaves_links_alone() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.set_new(tss::LINK, 0x1234);

    machine.run();

    assert_eq!((machine.access(OLD), machine.access(NEW)), (TSS32, TSS32_BUSY));
    assert_eq!((machine.task(), machine.new_link()), (NEW, 0x1234));
    assert_eq!(machine.cpu().arch.segs[seg::TR].rights.kind(), 0xb);
    assert!(machine.cpu().arch.cr0.contains(Cr0::TS));
    assert_eq!(machine.cpu().rflags(), 2);
}

#[test]
fn jmp_keeps_nt_of_both_tasks() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.cpu().set_rflags(u64::from(2 | NT));
    machine.set_new(tss::EFLAGS, 2 | NT);

    machine.run();

    assert_eq!(machine.old(tss::EFLAGS), 2 | NT);
    assert_eq!(machine.cpu().rflags(), u64::from(2 | NT));
}

#[test]
fn call_nests_the_new_task_and_iret_returns_from_it() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.guest.write(TASK, &[HLT, IRET]);
    machine.cpu().arch.gpr[Gpr::Rbx] = 0x33;

    assert_eq!(machine.run(), TASK + 1);
    assert_eq!((machine.access(OLD), machine.access(NEW)), (TSS32_BUSY, TSS32_BUSY));
    assert_eq!((machine.new_link(), machine.cpu().rflags()), (OLD.into(), u64::from(2 | NT)));
    machine.cpu().arch.cr0.remove(Cr0::TS);

    assert_eq!(machine.run(), CODE + 8);
    assert_eq!((machine.access(OLD), machine.access(NEW)), (TSS32_BUSY, TSS32));
    assert_eq!(
        (machine.task(), machine.cpu().arch.gpr[Gpr::Rbx], machine.cpu().arch.gpr[Gpr::Rsp]),
        (OLD, 0x33, STACK)
    );
    assert!(machine.cpu().arch.cr0.contains(Cr0::TS));
    // The image that is saved for the task which ends has NT clear, and continues after IRET.
    let saved = [tss::EFLAGS, tss::EIP].map(|at| machine.word(NEW_TSS + at));
    assert_eq!(saved, [2, TASK as u32 + 2]);
}

#[test]
fn a_task_that_was_left_by_iret_goes_on_after_it() {
    let code = [far(CALL, NEW), far(CALL, NEW)].concat();
    let mut machine = Machine::with_code(&code);
    machine.guest.write(TASK, &[0x40, IRET, 0x43, IRET]); // INC EAX; IRET; INC EBX; IRET

    assert_eq!(machine.run(), CODE + 15);

    let registers = [tss::EAX, tss::EAX + 12].map(|at| machine.word(NEW_TSS + at));
    assert_eq!(registers, [1, 1]);
}

#[test]
fn a_task_gate_leads_to_its_task_whatever_the_tss_and_the_selector_in_it_say_of_privilege() {
    for opcode in [JMP, CALL] {
        let mut machine = Machine::with_code(&far(opcode, GATE | 3));
        machine.set_descriptor(GATE, gate(TASK_GATE | 0x60, NEW | 3));
        machine.enter_user(TASK_STACK);

        assert_eq!(machine.run(), TASK + 1);

        assert_eq!((machine.task() & !3, machine.cpu().arch.cpl), (NEW, 0));
    }
}

#[test]
fn a_task_gate_in_the_ldt_leads_to_its_task() {
    let mut machine = Machine::with_code(&far(JMP, 0x0c));
    machine.guest.write_u64(LDT_TABLE + 8, gate(TASK_GATE, NEW));
    let cpu = machine.cpu();
    cpu.arch.segs[seg::LDTR].base = LDT_TABLE;
    cpu.arch.segs[seg::LDTR].limit = 0x1f;
    cpu.arch.segs[seg::LDTR].rights.0 = 0x82;

    assert_eq!(machine.run(), TASK + 1);

    assert_eq!(machine.task(), NEW);
    assert!(machine.cpu().arch.segs[seg::LDTR].rights.unusable());
}

#[test]
fn iret_to_the_task_itself_goes_on_after_the_iret() {
    let mut machine = Machine::with_code(&[IRET]);
    machine.guest.write(OLD_TSS, &OLD.to_le_bytes());
    machine.cpu().set_rflags(u64::from(2 | NT));
    machine.cpu().arch.gpr[Gpr::Rcx] = 0x77;

    assert_eq!(machine.run(), CODE + 2);

    assert_eq!((machine.cpu().rflags(), machine.cpu().arch.gpr[Gpr::Rcx]), (2, 0x77));
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], STACK);
}

#[test]
fn a_16_bit_tss_holds_the_lower_halves() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_descriptor(NEW, system(TSS16, NEW_TSS, 0x2b));
    let words = [0xa000_u16, 0x4046, 1, 2, 3, 4, 0xf000, 6, 7, 8, 0x10, 8, 0x10, 0x10, 0];
    for (at, word) in (14..).step_by(2).zip(words) {
        machine.guest.write(NEW_TSS + at, &word.to_le_bytes());
    }
    machine.guest.write(TASK, &[HLT, IRET]);
    machine.cpu().arch.cr3 = 0x5000;

    assert_eq!(machine.run(), TASK + 1);
    let cpu = machine.cpu();
    let registers = [0, 3, 4, 7].map(|n| cpu.arch.gpr[n] as u16);
    assert_eq!(registers, [1, 4, 0xf000, 8]);
    assert_eq!((cpu.rflags(), cpu.arch.cr3), (0x4046, 0x5000));
    assert_eq!(cpu.arch.segs.map(|segment| segment.selector)[..6], [0x10, 8, 0x10, 0x10, 0, 0]);
    assert!(cpu.arch.segs[seg::FS].rights.unusable());

    let cpu = machine.cpu();
    cpu.arch.gpr[Gpr::Rax] = 0x1234_5678;
    assert_eq!(machine.run(), CODE + 8);
    let saved: [u8; 6] = machine.guest.read(NEW_TSS + 14);
    assert_eq!(saved, [0x02, 0xa0, 0x46, 0, 0x78, 0x56]);
    // Nothing else was written: SS2:SP2 before, the LDT's selector after.
    assert_eq!(machine.guest.read::<2>(NEW_TSS + 12), [0, 0]);
    assert_eq!(machine.guest.read::<4>(NEW_TSS + 42), [0, 0, 0, 0]);
    assert_eq!((machine.access(NEW), machine.task()), (TSS16, OLD));
}

#[test]
fn the_new_tasks_flags_are_all_loaded_and_resume_lasts_for_one_instruction() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    let flags = Rflags::RF | Rflags::AC | Rflags::ID | Rflags::IOPL0 | Rflags::IF;
    machine.set_new(tss::EFLAGS, flags.bits() as u32 | 2);
    machine.guest.write(TASK, &[0x90, HLT]);

    machine.run();

    assert_eq!(machine.cpu().rflags(), (flags - Rflags::RF).bits() | 2);
}

#[test]
fn the_trap_flag_of_a_tss_traps_before_the_first_instruction() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.set_new(tss::TRAP, 1);

    let frame = machine.run_to_handler();

    assert_eq!(frame, Frame { vector: 1, error_code: None, eip: TASK as u32, cs: 8 });
    assert_eq!(machine.cpu().arch.dr6 & (BT | BS), BT);
    assert_eq!(machine.task(), NEW);
}

#[test]
fn single_stepping_a_jmp_to_a_task_traps_in_the_task() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.cpu().set_rflags(2 | Rflags::TF.bits());

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.eip), (1, TASK as u32));
    assert_eq!(machine.cpu().arch.dr6 & (BT | BS), BS);
    assert_eq!(machine.old(tss::EFLAGS), 2 | Rflags::TF.bits() as u32);
}

#[test]
fn a_task_switch_disarms_local_breakpoints_only() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.cpu().write_dr7(0x3ff);
    machine.cpu().arch.dr = [0xffff_0000; 4];

    machine.run();

    assert_eq!(machine.cpu().arch.dr7, 0x6aa);
}

#[test]
fn the_new_tasks_ldt_serves_its_segments() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.guest.write_u64(LDT_TABLE + 8, super::super::kernel::DATA);
    machine.set_new(tss::LDT, LDT.into());
    machine.set_new(tss::DS, 0x0c);

    machine.run();

    let cpu = machine.cpu();
    assert_eq!((cpu.arch.segs[seg::LDTR].base, cpu.arch.segs[seg::LDTR].limit), (LDT_TABLE, 0x1f));
    assert_eq!((cpu.arch.segs[seg::DS].selector, cpu.arch.segs[seg::DS].limit), (0x0c, u32::MAX));
}

#[test]
fn a_task_starts_at_the_privilege_level_of_its_code_selector() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_new_segments(USER_CODE, USER_DATA);

    // HLT at CPL 3 faults: its handler runs on the new task's inner stack.
    let frame = machine.run_to_handler();

    let expected =
        Frame { vector: 13, error_code: Some(0), eip: TASK as u32, cs: USER_CODE.into() };
    assert_eq!(frame, expected);
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], TASK_STACK0 - 24);
}

#[test]
fn descriptors_of_a_new_task_are_marked_accessed() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.set_descriptor(SPARE, super::super::kernel::DATA & !(1 << 40));
    machine.set_new(tss::FS, SPARE.into());

    machine.run();

    assert_eq!(machine.access(SPARE), 0x93);
}
