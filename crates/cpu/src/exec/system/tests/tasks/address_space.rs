//! Task switches with paging: CR3, and TSSs that are not there.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Cr4};

use super::machine::*;
use crate::testing::CODE;

/// A page directory of 4 MiB pages for each task.
const OLD_DIRECTORY: u64 = 0x5_0000;
const NEW_DIRECTORY: u64 = 0x5_1000;
/// A page table for the first 4 MiB of the old task.
const TABLE: u64 = 0x5_2000;
const PAGE: u32 = 0x7;
const LARGE: u32 = 0x87;

/// The two tasks with page tables, all of memory mapped to itself.
fn paged(code: &[u8]) -> Machine {
    let mut machine = Machine::with_code(code);
    let entry = |machine: &mut Machine, at: u64, value: u32| {
        machine.guest.write(at, &value.to_le_bytes());
    };
    entry(&mut machine, OLD_DIRECTORY, TABLE as u32 | PAGE);
    entry(&mut machine, NEW_DIRECTORY, LARGE);
    for page in 0..1024 {
        entry(&mut machine, TABLE + page * 4, (page as u32) << 12 | PAGE);
    }
    // Both tasks have their memory at 1 GiB too.
    entry(&mut machine, OLD_DIRECTORY + 0x400, TABLE as u32 | PAGE);
    entry(&mut machine, NEW_DIRECTORY + 0x400, LARGE);
    machine.set_new(tss::CR3, NEW_DIRECTORY as u32);
    let cpu = machine.cpu();
    cpu.arch.cr4 = Cr4::PSE;
    cpu.arch.cr3 = OLD_DIRECTORY;
    cpu.arch.cr0 |= Cr0::PG | Cr0::WP;
    cpu.run.tlb.flush_all();
    cpu.update_mode();
    machine
}

fn unmap(machine: &mut Machine, address: u64, flags: u32) {
    let entry = (address as u32 & !0xfff) | flags;
    machine.guest.write(TABLE + (address >> 12) * 4, &entry.to_le_bytes());
}

#[test]
fn cr3_of_the_new_task_is_loaded_and_translations_of_the_old_one_are_gone() {
    // MOV EAX, [1 GiB] before and after.
    let load = [0xa1, 0, 0, 0, 0x40];
    let mut machine = paged(&[&load[..], &far(JMP, NEW)].concat());
    machine.guest.write(TABLE, &(0x2_0000_u32 | PAGE).to_le_bytes());
    machine.guest.write(0x2_0000, &[1, 0, 0, 0]);
    machine.guest.write(0, &[2, 0, 0, 0]);
    machine.guest.write(TASK, &[&load[..], &[HLT]].concat());

    assert_eq!(machine.run(), TASK + 6);

    assert_eq!((machine.cpu().arch.cr3, machine.cpu().arch.gpr[Gpr::Rax]), (NEW_DIRECTORY, 2));
    assert_eq!((machine.old(tss::EAX), machine.old(tss::CR3)), (1, 0));
}

#[test]
fn without_paging_cr3_of_the_tss_is_not_loaded() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.set_new(tss::CR3, 0xdead_b000);
    machine.cpu().arch.cr3 = 0x5000;

    machine.run();

    assert_eq!(machine.cpu().arch.cr3, 0x5000);
}

#[test]
fn a_tss_or_descriptor_that_cannot_be_accessed_faults_in_the_old_task() {
    // (what is not mapped, page, flags, opcode, error code, CR2)
    for (name, page, flags, opcode, code, address) in [
        ("the new TSS", NEW_TSS, 0, JMP, 0, NEW_TSS),
        ("the old TSS", OLD_TSS, 0, JMP, 2, OLD_TSS + 32),
        ("the old TSS, read-only", OLD_TSS, 5, CALL, 3, OLD_TSS + 32),
        ("the link, read-only", NEW_TSS, 5, CALL, 3, NEW_TSS),
        ("the GDT, read-only", GDT, 5, JMP, 3, GDT + 0x28 + 5),
        ("the GDT, read-only", GDT, 5, CALL, 3, GDT + 0x30 + 5),
    ] {
        let mut machine = paged(&far(opcode, NEW));
        unmap(&mut machine, page, flags);

        let frame = machine.run_to_handler();

        let expected = Frame { vector: 14, error_code: Some(code), eip: CODE as u32, cs: 8 };
        assert_eq!(frame, expected, "{name}");
        assert_eq!((machine.cpu().arch.cr2, machine.task()), (address, OLD), "{name}");
        assert_eq!((machine.access(OLD), machine.access(NEW)), (TSS32_BUSY, TSS32), "{name}");
        assert_eq!(machine.cpu().arch.cr3, OLD_DIRECTORY, "{name}");
    }
}

#[test]
fn a_read_only_new_tss_serves_a_jmp() {
    let mut machine = paged(&far(JMP, NEW));
    unmap(&mut machine, NEW_TSS, 5);

    assert_eq!(machine.run(), TASK + 1);
}

#[test]
fn a_descriptor_that_the_new_task_has_not_mapped_faults_in_the_new_task() {
    let mut machine = paged(&far(JMP, NEW));
    // The new task has the old one's table, whose LDT is away.
    machine.set_new(tss::CR3, OLD_DIRECTORY as u32);
    machine.set_new_segments(USER_CODE, USER_DATA);
    machine.set_new(tss::LDT, LDT.into());
    machine.set_new(tss::DS, 0x0f);
    unmap(&mut machine, LDT_TABLE, 0);

    let frame = machine.run_to_handler();

    let expected =
        Frame { vector: 14, error_code: Some(0), eip: TASK as u32, cs: USER_CODE.into() };
    assert_eq!(frame, expected);
    assert_eq!((machine.cpu().arch.cr2, machine.task()), (LDT_TABLE + 8, NEW));
}

#[test]
fn pdptes_with_reserved_bits_fault_before_the_switch() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    let (good, bad) = (0x5_0000, 0x5_0020);
    // 2 MiB pages by way of a directory.
    for entry in 0..2 {
        machine.guest.write_u64(0x5_1000 + entry * 8, entry << 21 | 0x87);
    }
    machine.guest.write_u64(good, 0x5_1001);
    machine.guest.write_u64(bad, 0x5_1001);
    machine.guest.write_u64(bad + 8, 0x5_1001 | 1 << 1);
    machine.set_new(tss::CR3, bad as u32);
    let cpu = machine.cpu();
    cpu.arch.cr4 = Cr4::PAE;
    cpu.arch.cr3 = good;
    cpu.arch.pdptes = [0x5_1001, 0, 0, 0];
    cpu.arch.cr0 |= Cr0::PG;
    cpu.run.tlb.flush_all();
    cpu.update_mode();

    let frame = machine.run_to_handler();

    assert_eq!(frame, Frame { vector: 13, error_code: Some(0), eip: CODE as u32, cs: 8 });
    assert_eq!((machine.task(), machine.access(NEW)), (OLD, TSS32));
    assert_eq!(machine.cpu().arch.cr3, good);
}
