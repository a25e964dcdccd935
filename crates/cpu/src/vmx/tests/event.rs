//! Events: exceptions and interrupts that exit, injection, and what IDT-vectoring information says.

use cloister_x86::regs::Rflags;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{ExitControls, PinControls, ProcControls};
use iced_x86::code_asm::*;

use super::machine::{End, GUEST, Machine};

const VALID: u64 = 1 << 31;
const HARDWARE: u64 = 3 << 8;
const CODE: u64 = 1 << 11;

/// A guest without an IDT, whose exceptions become triple faults.
fn without_idt() -> Machine {
    let mut machine = Machine::new();
    machine.write(Field::GUEST_IDTR_LIMIT, 0);
    machine
}

#[test]
fn the_exception_bitmap_chooses_exceptions() {
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 6);
    assert_eq!(machine.run(|a| a.ud2()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | 6);
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
    // The saved RF is that of the frame that delivery would push.
    assert_eq!(machine.read(Field::GUEST_RFLAGS), 2 | Rflags::RF.bits());

    assert_eq!(without_idt().run(|a| a.ud2()), End::Host(2));
}

#[test]
fn a_guest_at_the_end_of_its_lower_half_is_entered_and_faults_at_its_fetch() {
    for rip in [1 << 47, 0xffff << 48] {
        let mut machine = without_idt();
        machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
        machine.write(Field::GUEST_RIP, rip);
        assert_eq!(machine.run(|a| a.nop()), End::Host(0), "{rip:#x}");
        assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | CODE | 13);
        assert_eq!(machine.read(Field::GUEST_RIP), rip);
    }
}

#[test]
fn page_faults_are_matched_and_leave_cr2_alone() {
    for (mask, matched, expected) in
        [(0, 0, End::Host(0)), (0, 1, End::Host(2)), (1, 0, End::Host(0))]
    {
        let mut machine = without_idt();
        machine.write(Field::EXCEPTION_BITMAP, 1 << 14);
        machine.write(Field::PAGE_FAULT_MASK, mask);
        machine.write(Field::PAGE_FAULT_MATCH, matched);
        let end = machine.run(|a| a.mov(al, byte_ptr(0x4000_0000)));
        assert_eq!(end, expected, "{mask} {matched}");
        if expected == End::Host(0) {
            assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | CODE | 14);
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x4000_0000);
            assert_eq!(machine.guest.vcpu.cpu.arch.cr2, 0);
        }
    }
}

#[test]
fn an_exception_of_delivery_reports_what_was_delivered() {
    // #UD through a missing gate is #GP.
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
    assert_eq!(machine.run(|a| a.ud2()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | CODE | 13);
    assert_eq!(machine.read(Field::IDT_VECTORING), VALID | HARDWARE | 6);

    // So is INT n, whose length comes along.
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
    assert_eq!(machine.run(|a| a.int(0x80)), End::Host(0));
    assert_eq!(machine.read(Field::IDT_VECTORING), VALID | 4 << 8 | 0x80);
    assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 2);
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);

    // A double fault is an event of its own.
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 8);
    assert_eq!(machine.run(|a| a.ud2()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | CODE | 8);
    assert_eq!(machine.read(Field::IDT_VECTORING) & VALID, 0);
}

#[test]
fn software_exceptions_exit_with_their_length() {
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 3);
    assert_eq!(machine.run(|a| a.int3()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | 6 << 8 | 3);
    assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 1);
}

#[test]
fn injection_does_not_exit_by_the_bitmap_and_is_reported_if_it_fails() {
    let mut machine = without_idt();
    machine.write(Field::EXCEPTION_BITMAP, 1 << 13 | 1 << 6);
    machine.write(Field::ENTRY_INTERRUPTION, VALID | HARDWARE | 6);
    assert_eq!(machine.run(|a| a.nop()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | HARDWARE | CODE | 13);
    assert_eq!(machine.read(Field::IDT_VECTORING), VALID | HARDWARE | 6);
    assert_eq!(machine.read(Field::ENTRY_INTERRUPTION) & VALID, 0);
}

#[test]
fn interrupts_exit_whatever_if_is_and_are_acknowledged_where_asked() {
    for acknowledge in [false, true] {
        let mut machine = Machine::new();
        machine.set(Field::PIN_CONTROLS, PinControls::EXTERNAL_INTERRUPT.bits());
        if acknowledge {
            machine.set(Field::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT.bits());
        }
        let cpu = &mut machine.guest.vcpu.cpu;
        cpu.apic_mmio_write(cloister_x86::Gpa(0xfee0_00f0), 4, 0x1ff);
        cpu.package().deliver_msi(0xfee0_0000, 0x52);
        assert_eq!(machine.run(|a| a.nop()), End::Host(1));
        let information = if acknowledge { VALID | 0x52 } else { 0 };
        assert_eq!(machine.read(Field::EXIT_INTERRUPTION), information);
        let waits = machine.guest.vcpu.cpu.apic.deliverable().is_some();
        assert_eq!(waits, !acknowledge);
    }
}

#[test]
fn the_interrupt_window_opens_with_if_after_the_shadow_of_sti() {
    let mut machine = Machine::new();
    machine.control(ProcControls::INTERRUPT_WINDOW);
    let end = machine.run(|a| {
        a.sti()?;
        a.nop()?;
        a.nop()
    });
    assert_eq!(end, End::Host(7));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 2);
}

#[test]
fn an_nmi_exits_and_blocks_others() {
    let mut machine = Machine::new();
    machine.set(Field::PIN_CONTROLS, PinControls::NMI.bits());
    // The host takes none itself, and the guest's state does not block them.
    let cpu = &mut machine.guest.vcpu.cpu;
    cpu.arch.nmi_blocked = true;
    cpu.package().deliver_msi(0xfee0_0000, 4 << 8);

    assert_eq!(machine.run(|a| a.nop()), End::Host(0));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | 2 << 8 | 2);
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
    assert!(machine.guest.vcpu.cpu.arch.nmi_blocked);
}
