//! Virtual-8086 mode: SDM Vol. 3B, chapter 20.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr4, Rflags};
use cloister_x86::segment::{Rights, seg};

use super::super::kernel::CODE32;
use super::machine::*;
use crate::testing::STACK;

const VM: u32 = Rflags::VM.bits() as u32;
const IOPL3: u32 = 0x3000;
const IF: u32 = Rflags::IF.bits() as u32;
/// Where 8086 code is: 1000H:0010H.
const REAL_CODE: u64 = 0x1_0010;
/// What EIP the handlers find for it.
const REAL_EIP: u32 = 0x10;

/// A machine whose first task returns to 8086 code by IRETD with these flags; interrupts go to
/// [`TASK_STACK0`].
fn virtual_8086(flags: u32, code: &[u8]) -> Machine {
    let mut machine = Machine::with_code(&[IRET]);
    let frame = [REAL_EIP, 0x1000, flags | VM, 0xfff0, 0x2000, 0x3000, 0x3800, 0x2800, 0x2c00];
    for (at, value) in (STACK..).step_by(4).zip(frame) {
        machine.guest.write(at, &value.to_le_bytes());
    }
    machine.guest.write(OLD_TSS + tss::ESP0, &(TASK_STACK0 as u32).to_le_bytes());
    machine.guest.write(OLD_TSS + tss::SS0, &KERNEL_DATA.to_le_bytes());
    machine.guest.write(REAL_CODE, code);
    machine
}

#[test]
fn iretd_enters_the_mode_and_an_exception_leaves_it_with_all_segments_on_the_stack() {
    // UD2
    let mut machine = virtual_8086(2 | IF, &[0x0f, 0x0b]);

    let frame = machine.run_to_handler();

    assert_eq!(frame, Frame { vector: 6, error_code: None, eip: REAL_EIP, cs: 0x1000 });
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], TASK_STACK0 - 36);
    let pushed: [u32; 7] = std::array::from_fn(|n| machine.word(TASK_STACK0 - 28 + n as u64 * 4));
    let rf = Rflags::RF.bits() as u32;
    assert_eq!(pushed, [2 | IF | VM | rf, 0xfff0, 0x2000, 0x3000, 0x3800, 0x2800, 0x2c00]);
    let cpu = machine.cpu();
    assert_eq!((cpu.rflags(), cpu.arch.cpl), (2, 0));
    let data = [seg::ES, seg::DS, seg::FS, seg::GS].map(|index| cpu.arch.segs[index]);
    assert!(data.iter().all(|segment| segment.selector == 0 && segment.rights.unusable()));
}

#[test]
fn the_handler_returns_to_the_mode() {
    // UD2; INC AX; UD2
    let mut machine = virtual_8086(2, &[0x0f, 0x0b, 0x40, 0x0f, 0x0b]);
    // ADD DWORD [ESP], 2; IRETD; once.
    machine.guest.write(HANDLERS + 6 * 16, &[0x83, 0x04, 0x24, 0x02, 0xcf]);
    machine.guest.write(REAL_CODE + 3, &[0xf4]);

    let frame = machine.run_to_handler();

    // HLT is for the monitor.
    assert_eq!((frame.vector, frame.error_code, frame.eip), (13, Some(0), REAL_EIP + 3));
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rax], 1);
}

#[test]
fn segments_are_64_kib_from_their_paragraph() {
    // MOV AX, 2345H; MOV DS, AX; MOV AL, [10H]; MOV CS:[20H], AL; MOV AL, DS:[67H:FFFFH as EAX]
    let code = [0xb8, 0x45, 0x23, 0x8e, 0xd8, 0xa0, 0x10, 0, 0x2e, 0xa2, 0x40, 0, 0x67, 0x8a, 0x03];
    let mut machine = virtual_8086(2, &code);
    machine.guest.write(0x2_3460, &[0x77]);
    machine.cpu().arch.gpr[Gpr::Rbx] = 0x1_0000;

    let frame = machine.run_to_handler();

    // EBX reaches beyond the segment.
    assert_eq!((frame.vector, frame.error_code, frame.eip), (13, Some(0), REAL_EIP + 12));
    assert_eq!(machine.guest.read::<1>(0x1_0040), [0x77]);
}

#[test]
fn far_branches_take_paragraphs() {
    // JMP 1800H:0020H, there CALL 1000H:0100H, there RETF; then HLT.
    let mut machine = virtual_8086(2, &[0xea, 0x20, 0, 0, 0x18]);
    machine.guest.write(0x1_8020, &[0x9a, 0, 1, 0, 0x10, HLT]);
    machine.guest.write(0x1_0100, &[0xcb]);

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.eip, frame.cs), (13, 0x25, 0x1800));
    // The return address lies on the stack of the mode.
    assert_eq!(machine.guest.read::<4>(0x2_ffec), [0x25, 0, 0, 0x18]);
}

#[test]
fn sensitive_instructions_fault_below_iopl_3() {
    let instructions: [(&str, &[u8]); 8] = [
        ("CLI", &[0xfa]),
        ("STI", &[0xfb]),
        ("PUSHF", &[0x9c]),
        ("PUSHFD", &[0x66, 0x9c]),
        ("POPF", &[0x9d]),
        ("INT n", &[0xcd, 0x40]),
        ("IRET", &[0xcf]),
        ("IRETD", &[0x66, 0xcf]),
    ];
    for (name, code) in instructions {
        let mut machine = virtual_8086(0x2002, code);
        machine.set_gate(0x40, 0xee, HANDLERS + 0x400);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (13, Some(0)), "{name}");
        assert_eq!((frame.eip, frame.cs), (REAL_EIP, 0x1000), "{name}");
    }
}

#[test]
fn with_iopl_3_they_work_and_keep_iopl() {
    // CLI; PUSHF; POP AX; AND AX, 8FFFH (IOPL 0); PUSH AX; POPF; STI; INT 40H
    let code = [0xfa, 0x9c, 0x58, 0x25, 0xff, 0x8f, 0x50, 0x9d, 0xfb, 0xcd, 0x40];
    let mut machine = virtual_8086(2 | IOPL3 | IF, &code);
    machine.set_gate(0x40, 0xee, HANDLERS + 0x400);

    let frame = machine.run_to_handler();

    let expected = Frame { vector: 0x40, error_code: None, eip: REAL_EIP + 11, cs: 0x1000 };
    assert_eq!(frame, expected);
    assert_eq!(machine.word(TASK_STACK0 - 28), 2 | IOPL3 | IF | VM);
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rax], 2);
}

#[test]
fn iret_of_the_mode_stays_in_it_and_keeps_iopl() {
    // IRET to 1800H:0020H with flags that have CF set and IOPL clear, NT even.
    let mut machine = virtual_8086(2 | IOPL3 | Rflags::NT.bits() as u32, &[0xcf]);
    machine.guest.write(0x2_fff0, &[0x20, 0, 0, 0x18, 0x03, 0]);
    machine.guest.write(0x1_8020, &[0x0f, 0x0b]);

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.eip, frame.cs), (6, 0x20, 0x1800));
    let flags = machine.word(TASK_STACK0 - 28) & !(Rflags::RF.bits() as u32);
    assert_eq!(flags, 3 | IOPL3 | VM);
    assert_eq!(machine.word(TASK_STACK0 - 24), 0xfff6);
}

#[test]
fn instructions_that_need_protected_mode_are_undefined() {
    let instructions: [(&str, &[u8]); 9] = [
        ("SLDT", &[0x0f, 0x00, 0xc0]),
        ("STR", &[0x0f, 0x00, 0xc8]),
        ("LLDT", &[0x0f, 0x00, 0xd0]),
        ("LTR", &[0x0f, 0x00, 0xd8]),
        ("VERR", &[0x0f, 0x00, 0xe0]),
        ("LAR", &[0x0f, 0x02, 0xc0]),
        ("LSL", &[0x0f, 0x03, 0xc0]),
        ("ARPL", &[0x63, 0xc0]),
        ("VZEROUPPER", &[0xc5, 0xf8, 0x77]),
    ];
    for (name, code) in instructions {
        let mut machine = virtual_8086(2 | IOPL3, code);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.eip), (6, REAL_EIP), "{name}");
    }
}

#[test]
fn ports_are_for_the_bitmap_whatever_iopl_is() {
    // IN AL, 80H, without a bitmap.
    let mut machine = virtual_8086(2 | IOPL3, &[0xe4, 0x80]);
    machine.guest.write(OLD_TSS + 102, &0x67_u16.to_le_bytes());

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.error_code, frame.eip), (13, Some(0), REAL_EIP));
}

#[test]
fn a_handler_of_the_mode_has_to_run_at_level_0() {
    // UD2 to a conforming segment, and to one of DPL 1.
    for descriptor in [CODE32 | 4 << 40, CODE32 | 1 << 45] {
        let mut machine = virtual_8086(2, &[0x0f, 0x0b]);
        machine.set_descriptor(SPARE, descriptor);
        let handler = HANDLERS + 0x60;
        let low = handler & 0xffff | u64::from(SPARE) << 16;
        machine.guest.write_u64(IDT + 6 * 8, low | 0x8e << 40 | (handler >> 16) << 48);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (13, Some(u32::from(SPARE) | 1)));
    }
}

#[test]
fn iretd_to_the_mode_checks_eip() {
    let mut machine = virtual_8086(2, &[]);
    machine.guest.write(STACK, &0x1_0000_u32.to_le_bytes());

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.error_code, frame.cs), (13, Some(0), 8));
    assert_eq!(machine.cpu().arch.gpr[Gpr::Rsp], STACK - 16);
}

#[test]
fn a_task_enters_the_mode_by_its_flags_and_leaves_it_by_a_task_gate() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_new_segments(0x1000, 0x3000);
    machine.set_new(tss::EFLAGS, 2 | VM);
    machine.set_new(tss::EIP, REAL_EIP);
    machine.guest.write(REAL_CODE, &[0x0f, 0x0b]);
    machine.set_descriptor(SPARE, system(TSS32, OLD_TSS + 0x200, 0x67));
    machine.guest.write_u64(IDT + 6 * 8, gate(TASK_GATE, SPARE));
    let third = OLD_TSS + 0x200;
    for (at, value) in [(tss::EIP, TASK as u32), (tss::CS, 8), (tss::SS, 0x10), (tss::EFLAGS, 2)] {
        machine.guest.write(third + at, &value.to_le_bytes());
    }

    assert_eq!(machine.run(), TASK + 1);

    let saved = [tss::EIP, tss::CS, tss::DS].map(|at| machine.word(NEW_TSS + at));
    assert_eq!(saved, [REAL_EIP, 0x1000, 0x3000]);
    let flags = machine.word(NEW_TSS + tss::EFLAGS);
    assert_eq!(flags, 2 | VM | (Rflags::NT | Rflags::RF).bits() as u32);
    assert_eq!((machine.task(), machine.word(third)), (SPARE, NEW.into()));
    assert!(!machine.cpu().arch.system_flags.contains(Rflags::VM));
}

#[test]
fn a_virtual_8086_tasks_ldt_is_checked_all_the_same() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_new_segments(0x1000, 0x3000);
    machine.set_new(tss::EFLAGS, 2 | VM);
    machine.set_new(tss::EIP, REAL_EIP);
    machine.set_new(tss::LDT, u32::from(LDT));
    machine.set_descriptor(LDT, system(LDT_TYPE & !PRESENT, LDT_TABLE, 0x1f));

    let frame = machine.run_to_handler();

    let expected = Frame { vector: 10, error_code: Some(LDT.into()), eip: REAL_EIP, cs: 0x1000 };
    assert_eq!(frame, expected);
}

const VIF: u32 = Rflags::VIF.bits() as u32;
const VIP: u32 = Rflags::VIP.bits() as u32;
/// Where the TSS has its I/O map, behind the map of interrupts.
const IO_MAP: u64 = 0x100;

/// The same with CR4.VME, and with interrupt 40H alone for the monitor.
fn extended(flags: u32, code: &[u8]) -> Machine {
    let mut machine = virtual_8086(flags, code);
    machine.guest.write(OLD_TSS + 102, &(IO_MAP as u16).to_le_bytes());
    machine.guest.write(OLD_TSS + IO_MAP - 32, &[0; 32]);
    machine.guest.write(OLD_TSS + IO_MAP - 32 + 8, &[1]);
    let cpu = machine.cpu();
    cpu.arch.cr4 |= Cr4::VME;
    cpu.arch.segs[seg::TR].limit = 0x1ff;
    machine
}

/// EFLAGS that the handler of the monitor finds, without RF.
fn pushed(machine: &mut Machine) -> u32 {
    machine.word(TASK_STACK0 - 28) & !(Rflags::RF.bits() as u32)
}

#[test]
fn with_the_extensions_vif_stands_for_if_below_iopl_3() {
    // STI; PUSHF; POP AX; CLI; PUSHF; POP BX; PUSH AX; POPF; UD2
    let code = [0xfb, 0x9c, 0x58, 0xfa, 0x9c, 0x5b, 0x50, 0x9d, 0x0f, 0x0b];
    let mut machine = extended(2, &code);

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.eip), (6, REAL_EIP + 8));
    assert_eq!(pushed(&mut machine), 2 | VIF | VM);
    let gpr = &machine.cpu().arch.gpr;
    assert_eq!((gpr[Gpr::Rax], gpr[Gpr::Rbx]), (u64::from(2 | IOPL3 | IF), u64::from(2 | IOPL3)));
}

#[test]
fn with_the_extensions_iret_takes_vif() {
    let mut machine = extended(2, &[0xcf]);
    machine.guest.write(0x2_fff0, &[0x20, 0, 0, 0x18, 0x03, 0x02]);
    machine.guest.write(0x1_8020, &[0x0f, 0x0b]);

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.eip, frame.cs), (6, 0x20, 0x1800));
    assert_eq!(pushed(&mut machine), 3 | VIF | VM);
}

#[test]
fn with_the_extensions_a_pending_interrupt_and_what_is_wide_are_the_monitors() {
    // What lets an interrupt in that is pending; TF; and operands of 32 bits.
    let instructions: [(&str, u32, &[u8]); 7] = [
        ("STI", VIP, &[0xfb]),
        ("POPF", VIP, &[0x9d]),
        ("IRET", VIP, &[0xcf]),
        ("PUSHFD", 0, &[0x66, 0x9c]),
        ("POPFD", 0, &[0x66, 0x9d]),
        ("IRETD", 0, &[0x66, 0xcf]),
        ("INT 40H", 0, &[0xcd, 0x40]),
    ];
    for (name, flags, code) in instructions {
        let mut machine = extended(2 | flags, code);
        machine.set_gate(0x40, 0xee, HANDLERS + 0x400);
        // IF for POPF; and for IRET, behind IP and CS.
        machine.guest.write(0x2_fff0, &[0, 2, 0, 0x18, 0, 2]);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (13, Some(0)), "{name}");
        assert_eq!((frame.eip, frame.cs), (REAL_EIP, 0x1000), "{name}");
        assert_eq!(machine.word(TASK_STACK0 - 24), 0xfff0, "{name}");
    }
    let mut machine = extended(2, &[0x9d]);
    machine.guest.write(0x2_fff0, &[0, 1]);
    assert_eq!(machine.run_to_handler().vector, 13);
}

#[test]
fn with_the_extensions_a_program_has_its_own_interrupts() {
    for (flags, pushed_flags, left) in [
        (2 | VIF, 2 | IOPL3 | IF, 2),
        (2, 2 | IOPL3, 2),
        (2 | IOPL3 | IF, 2 | IOPL3 | IF, 2 | IOPL3),
    ] {
        // INT 21H, whose handler is UD2.
        let mut machine = extended(flags, &[0xcd, 0x21]);
        machine.guest.write(0x21 * 4, &[0x30, 0, 0, 0x18]);
        machine.guest.write(0x1_8030, &[0x0f, 0x0b]);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.eip, frame.cs), (6, 0x30, 0x1800));
        assert_eq!(pushed(&mut machine), left | VM);
        assert_eq!(machine.word(TASK_STACK0 - 24), 0xffea);
        let stack: [u8; 6] = machine.guest.read(0x2_ffea);
        let [ip, cs, found] = [0, 2, 4].map(|at| u16::from_le_bytes([stack[at], stack[at + 1]]));
        assert_eq!((ip, cs, u32::from(found)), (REAL_EIP as u16 + 2, 0x1000, pushed_flags));
    }
}

#[test]
fn with_the_extensions_a_tss_without_the_map_has_no_interrupt_for_anybody() {
    for (base, limit) in [(0x10_u16, 0x1ff), (0x180, 0x163), (0x100, 0x66)] {
        let mut machine = extended(2 | IOPL3, &[0xcd, 0x21]);
        machine.guest.write(OLD_TSS + 102, &base.to_le_bytes());
        machine.cpu().arch.segs[seg::TR].limit = limit;

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code, frame.eip), (13, Some(0), REAL_EIP));
    }
    // A busy TSS of 16 bits, however long.
    let mut machine = extended(2 | IOPL3, &[0xcd, 0x21]);
    machine.cpu().arch.segs[seg::TR].rights = Rights(0x83);
    machine.guest.write(OLD_TSS + 2, &(TASK_STACK0 as u16).to_le_bytes());
    machine.guest.write(OLD_TSS + 4, &KERNEL_DATA.to_le_bytes());

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.error_code, frame.eip), (13, Some(0), REAL_EIP));
}
