//! Exits between instructions, and what comes right after VM entry (SDM Vol. 3C, 25.2, 26.5 and 26.6).

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{PinControls, ProcControls};
use cloister_x86::{Gpa, Gpr};
use iced_x86::code_asm::*;

use super::machine::{End, GUEST, IN_GUEST, Machine, PAGE};
use crate::Exit;
use crate::testing::{DATA, Ending, enable_apic};

const VALID: u64 = 1 << 31;
/// The interrupt command register, for a message to the processor itself.
const ICR: Gpa = Gpa(0xfee0_0300);

#[test]
fn the_nmi_window_is_open_while_no_virtual_nmi_is_blocked() {
    for (blocking, end) in [(0, End::Host(8)), (8, End::Guest)] {
        let mut machine = Machine::new();
        let virtual_nmis = PinControls::NMI | PinControls::VIRTUAL_NMIS;
        machine.set(Field::PIN_CONTROLS, virtual_nmis.bits());
        machine.control(ProcControls::NMI_WINDOW);
        machine.write(Field::GUEST_INTERRUPTIBILITY, blocking);
        assert_eq!(machine.run(|a| a.nop()), end, "{blocking}");
        if end == End::Host(8) {
            assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
        }
    }
}

#[test]
fn a_task_priority_below_the_threshold_exits_after_the_instruction() {
    for (priority, end) in [(5, End::Guest), (4, End::Host(43))] {
        let mut machine = Machine::new();
        machine.control(ProcControls::TPR_SHADOW);
        machine.write(Field::VIRTUAL_APIC, PAGE);
        machine.write(Field::TPR_THRESHOLD, 5);
        machine.guest.write(PAGE + 0x80, &[0x50]);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = priority;
        assert_eq!(machine.run(|a| a.mov(cr8, rcx)), end, "{priority}");
        if end != End::Guest {
            assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 4);
        }
    }
}

#[test]
fn an_init_that_root_operation_blocked_exits_right_after_entry() {
    let mut machine = Machine::new();
    let cpu = &mut machine.guest.vcpu.cpu;
    enable_apic(cpu);
    cpu.apic_mmio_write(ICR, 4, 0x4500);
    assert_eq!(machine.run(|a| a.nop()), End::Host(3));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
}

#[test]
fn a_start_up_ipi_exits_from_the_wait_for_it_with_its_vector() {
    let mut machine = Machine::new();
    machine.write(Field::GUEST_ACTIVITY, 3);
    assert_eq!(machine.run(|a| a.nop()), End::Other(Ending::Exit(Exit::Hlt)));
    let cpu = &mut machine.guest.vcpu.cpu;
    enable_apic(cpu);
    cpu.apic_mmio_write(ICR, 4, 0x4600 | 0x12);
    assert_eq!(machine.go(), End::Host(4));
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x12);
    assert_eq!(machine.read(Field::GUEST_ACTIVITY), 3);
}

#[test]
fn injected_events_are_delivered_through_the_guests_idt() {
    // Event, error code, instruction length, what is on top of the stack.
    for (event, error_code, length, top) in [
        (0x80, 0, 7, GUEST),
        (4 << 8 | 0x80, 0, 7, GUEST + 7),
        (6 << 8 | 3, 0, 1, GUEST + 1),
        (5 << 8 | 1, 0, 1, GUEST + 1),
        (3 << 8 | 6, 0, 7, GUEST),
        (1 << 11 | 3 << 8 | 13, 0x1234, 0, 0x1234),
        (2 << 8 | 2, 0, 0, GUEST),
    ] {
        let mut machine = Machine::new();
        let handler = GUEST + 0x100;
        machine.code(handler, |a| {
            a.mov(rax, qword_ptr(rsp))?;
            a.out(IN_GUEST, al)
        });
        let gate = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | handler >> 16 << 48;
        machine.guest.write_u64(DATA + 16 * (event & 0xff), gate);
        machine.guest.write_u64(PAGE + 8, 0x00af_9b00_0000_ffff);
        for (field, value) in [
            (Field::GUEST_IDTR_BASE, DATA),
            (Field::GUEST_IDTR_LIMIT, 0xfff),
            (Field::GUEST_GDTR_BASE, PAGE),
            (Field::GUEST_GDTR_LIMIT, 0xf),
            (Field::GUEST_RFLAGS, 0x202),
            (Field::ENTRY_INTERRUPTION, VALID | event),
            (Field::ENTRY_ERROR_CODE, error_code),
            (Field::ENTRY_INSTRUCTION_LENGTH, length),
        ] {
            machine.write(field, value);
        }
        assert_eq!(machine.run(|a| a.ud2()), End::Guest, "{event:#x}");
        let arch = &machine.guest.vcpu.cpu.arch;
        assert_eq!(arch.gpr[Gpr::Rax], top, "{event:#x}");
        assert_eq!(arch.nmi_blocked, event & 0xff == 2, "{event:#x}");
    }
}

#[test]
fn pending_debug_exceptions_are_delivered_after_entry_unless_mov_ss_blocks() {
    for (blocking, rip) in [(0, GUEST), (2, GUEST + 1)] {
        let mut machine = Machine::new();
        machine.write(Field::EXCEPTION_BITMAP, 1 << 1);
        machine.write(Field::GUEST_PENDING_DEBUG, 1 << 12 | 1);
        machine.write(Field::GUEST_INTERRUPTIBILITY, blocking);
        assert_eq!(machine.run(|a| a.nop()), End::Host(0), "{blocking}");
        assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | 3 << 8 | 1, "{blocking}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 1, "{blocking}");
        assert_eq!(machine.read(Field::GUEST_RIP), rip, "{blocking}");
    }
}
