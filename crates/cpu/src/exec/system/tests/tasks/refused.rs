//! Task switches that fail before the new task runs: nothing has happened but the fault.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::seg;

use super::super::kernel::Kernel;
use super::machine::*;
use crate::Exit;
use crate::testing::{CODE, DATA, DEVICE};

/// Faults of JMP and CALL in the order of their checks (SDM Vol. 2A, CALL; Vol. 3A, table 7-1):
/// what is wrong, where the branch goes, vector and error code.
type Case = (&'static str, fn(&mut Machine), u16, u8, u32);

const CASES: [Case; 17] = [
    ("TSS: RPL above DPL", |_| {}, NEW | 3, 13, 0x30),
    ("TSS: in the LDT", ldt_with_tss, 0x0c, 13, 0x0c),
    ("TSS: busy", |m| m.set_descriptor(NEW, system(0x8b, NEW_TSS, 0x67)), NEW, 13, 0x30),
    ("TSS: the task's own", |_| {}, OLD, 13, 0x28),
    ("TSS: absent", |m| m.set_descriptor(NEW, system(0x09, NEW_TSS, 0x67)), NEW, 11, 0x30),
    ("TSS: short", |m| m.set_descriptor(NEW, system(0x89, NEW_TSS, 0x66)), NEW, 10, 0x30),
    ("16-bit TSS: busy", |m| m.set_descriptor(NEW, system(0x83, NEW_TSS, 0x2b)), NEW, 13, 0x30),
    ("16-bit TSS: short", |m| m.set_descriptor(NEW, system(0x81, NEW_TSS, 0x2a)), NEW, 10, 0x30),
    ("busy and absent", |m| m.set_descriptor(NEW, system(0x0b, NEW_TSS, 0x67)), NEW, 13, 0x30),
    ("absent and short", |m| m.set_descriptor(NEW, system(0x09, NEW_TSS, 0)), NEW, 11, 0x30),
    ("gate: RPL above DPL", |_| {}, GATE | 1, 13, 0x38),
    ("gate: absent", |m| m.set_descriptor(GATE, gate(0x05, NEW)), GATE, 11, 0x38),
    ("gate: to the LDT", |m| m.set_descriptor(GATE, gate(0x85, NEW | 4)), GATE, 13, 0x34),
    ("gate: beyond the GDT", |m| m.set_descriptor(GATE, gate(0x85, BEYOND)), GATE, 13, 0x100),
    ("gate: to null", |m| m.set_descriptor(GATE, gate(0x85, 3)), GATE, 13, 0),
    ("gate: to a busy TSS", |m| m.set_descriptor(GATE, gate(0x85, OLD)), GATE, 13, 0x28),
    ("gate: to code", |m| m.set_descriptor(GATE, gate(0x85, KERNEL_CODE)), GATE, 13, 8),
];

fn ldt_with_tss(machine: &mut Machine) {
    machine.guest.write_u64(LDT_TABLE + 8, system(TSS32, NEW_TSS, 0x67));
    let ldtr = &mut machine.cpu().arch.segs[seg::LDTR];
    (ldtr.base, ldtr.limit, ldtr.rights.0) = (LDT_TABLE, 0x1f, 0x82);
}

#[test]
fn jmp_and_call_fault_in_the_old_task_by_what_the_tss_or_gate_is() {
    for opcode in [JMP, CALL] {
        for (name, arrange, selector, vector, code) in CASES {
            let mut machine = Machine::with_code(&far(opcode, selector));
            arrange(&mut machine);
            let before = machine.access(NEW);

            let frame = machine.run_to_handler();

            let expected = Frame { vector, error_code: Some(code), eip: CODE as u32, cs: 8 };
            assert_eq!(frame, expected, "{name}");
            assert_eq!((machine.task(), machine.access(NEW)), (OLD, before), "{name}");
            assert_eq!((machine.old(tss::EIP), machine.access(OLD)), (0, TSS32_BUSY), "{name}");
            assert!(!machine.cpu().arch.cr0.contains(Cr0::TS), "{name}");
        }
    }
}

#[test]
fn the_user_may_use_neither_a_tss_nor_a_gate_of_the_kernel() {
    for selector in [NEW, GATE] {
        let mut machine = Machine::with_code(&far(CALL, selector));
        machine.enter_user(TASK_STACK);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (13, Some(selector.into())));
    }
}

#[test]
fn an_old_tss_without_room_for_the_state_is_invalid() {
    // (rights, limit)
    for (rights, limit) in [(0x8b, 0x5e), (0x83, 0x28)] {
        let mut machine = Machine::with_code(&far(CALL, NEW));
        let tr = &mut machine.cpu().arch.segs[seg::TR];
        (tr.rights.0, tr.limit) = (rights, limit);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (10, Some(OLD.into())));
        assert_eq!((machine.task(), machine.access(NEW)), (OLD, TSS32));
    }
}

#[test]
fn an_old_tss_that_jmp_cannot_free_is_invalid() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.cpu().arch.segs[seg::TR].selector = BEYOND;

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (10, Some(BEYOND.into())));
}

#[test]
fn iret_faults_in_the_old_task_by_what_the_link_names() {
    let other = SPARE;
    // (what is wrong, link, descriptor at SPARE, vector, error code)
    for (name, link, descriptor, vector, code) in [
        ("null", 3, 0, 10, 0),
        ("in the LDT", other | 4, system(0x8b, NEW_TSS, 0x67), 10, 0x4c),
        ("beyond the GDT", BEYOND, 0, 10, 0x100),
        ("no TSS", KERNEL_DATA, 0, 10, 0x10),
        ("not busy", other, system(0x89, NEW_TSS, 0x67), 10, 0x48),
        ("absent", other, system(0x0b, NEW_TSS, 0x67), 11, 0x48),
        ("short", other, system(0x8b, NEW_TSS, 0x66), 10, 0x48),
        ("16-bit, short", other, system(0x83, NEW_TSS, 0x2a), 10, 0x48),
        ("neither busy nor present", other, system(0x09, NEW_TSS, 0x67), 10, 0x48),
    ] {
        let mut machine = Machine::with_code(&[IRET]);
        machine.guest.write(OLD_TSS, &link.to_le_bytes());
        machine.set_descriptor(other, descriptor);
        machine.cpu().set_rflags(2 | Rflags::NT.bits());

        let frame = machine.run_to_handler();

        let expected = Frame { vector, error_code: Some(code), eip: CODE as u32, cs: 8 };
        assert_eq!(frame, expected, "{name}");
        assert_eq!((machine.task(), machine.access(OLD)), (OLD, TSS32_BUSY), "{name}");
    }
}

#[test]
fn iret_from_a_tss_without_a_link_is_invalid() {
    let mut machine = Machine::with_code(&[IRET]);
    machine.cpu().arch.segs[seg::TR].limit = 0;
    machine.cpu().set_rflags(2 | Rflags::NT.bits());

    let frame = machine.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (10, Some(OLD.into())));
}

#[test]
fn ia_32e_mode_refuses_tss_descriptors_and_task_gates() {
    for access in [TSS32, TSS32_BUSY, TASK_GATE] {
        let mut kernel = Kernel::new();
        kernel.set_descriptor(SPARE, gate(access, NEW));
        kernel.guest.write_u64(DATA, u64::from(SPARE) << 32);
        // JMP FAR [RDI] with a 32-bit offset.
        kernel.guest.load_code(&[0xff, 0x2f]);
        kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (13, Some(SPARE.into())), "{access:#x}");
    }
}

#[test]
fn ia_32e_mode_refuses_a_task_gate_in_the_idt() {
    let mut kernel = Kernel::new();
    kernel.guest.load_code(&[0xcd, 0x40]);
    kernel.set_gate_words(0x40, gate(TASK_GATE, NEW), 0);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (13, Some(0x40 << 3 | 2)));
}

#[test]
fn a_tss_in_device_registers_shuts_the_processor_down() {
    let mut machine = Machine::with_code(&far(JMP, NEW));
    machine.set_descriptor(NEW, system(TSS32, DEVICE, 0x67));

    assert_eq!(machine.guest.vcpu.run(), Exit::TripleFault);
}
