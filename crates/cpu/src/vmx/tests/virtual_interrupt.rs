//! Virtual interrupts, posted interrupts, and the x2APIC (SDM Vol. 3C, 29.1, 29.2, 29.5 and 29.6).

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{ExitControls, PinControls, ProcControls, SecondaryControls};
use cloister_x86::{Gpa, Gpr};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{End, GUEST, IN_GUEST, Machine, PAGE};
use crate::Exit;
use crate::testing::{DATA, Ending, enable_apic};

const VALID: u64 = 1 << 31;
/// Where the guest has its APIC.
const APIC: u64 = 0x2_8000;
/// Posted-interrupt descriptor.
const POSTED: u64 = 0x10_8040;
/// Registers by their offsets.
const TPR: u64 = 0x80;
const PPR: u64 = 0xa0;
const EOI: u64 = 0xb0;
const ISR: u64 = 0x100;
const IRR: u64 = 0x200;
const ICR: u64 = 0x300;
/// The interrupt command register of the processor's own APIC.
const OWN_ICR: Gpa = Gpa(0xfee0_0300);
const NOTIFICATION: u8 = 0xf2;

/// A guest with virtual interrupts, of which each handler writes its vector to RBX and ends the run.
fn virtual_interrupts() -> Machine {
    let mut machine = Machine::new();
    machine.control(ProcControls::TPR_SHADOW);
    machine.second(SecondaryControls::VIRTUAL_INTERRUPTS | SecondaryControls::APIC_ACCESSES);
    machine.set(Field::PIN_CONTROLS, PinControls::EXTERNAL_INTERRUPT.bits());
    machine.write(Field::VIRTUAL_APIC, PAGE);
    machine.write(Field::APIC_ACCESS, APIC);
    let handlers = GUEST + 0x100;
    for vector in [0x31u64, 0x41, 0x51] {
        let handler = handlers + vector;
        machine.code(handler, |a| {
            a.mov(bl, vector as u32)?;
            a.out(IN_GUEST, al)
        });
        let gate = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | handler >> 16 << 48;
        machine.guest.write_u64(DATA + 16 * vector, gate);
    }
    machine.guest.write_u64(DATA + 0x1008, 0x00af_9b00_0000_ffff);
    for (field, value) in [
        (Field::GUEST_IDTR_BASE, DATA),
        (Field::GUEST_IDTR_LIMIT, 0xfff),
        (Field::GUEST_GDTR_BASE, DATA + 0x1000),
        (Field::GUEST_GDTR_LIMIT, 0xf),
        (Field::GUEST_RFLAGS, 0x202),
    ] {
        machine.write(field, value);
    }
    machine
}

/// Sets the bit of a vector from the register at `first` on.
fn set(machine: &mut Machine, first: u64, vector: u64) {
    let at = PAGE + first + (vector >> 5) * 16;
    let old = u32::from_le_bytes(machine.guest.read(at));
    machine.guest.write(at, &(old | 1 << (vector & 31)).to_le_bytes());
}

fn has(machine: &Machine, first: u64, vector: u64) -> bool {
    let bits = u32::from_le_bytes(machine.guest.read(PAGE + first + (vector >> 5) * 16));
    bits >> (vector & 31) & 1 != 0
}

fn register(machine: &Machine, offset: u64) -> u32 {
    u32::from_le_bytes(machine.guest.read(PAGE + offset))
}

/// The vector whose handler ended the run; 0 for none.
fn handled(machine: &Machine) -> u64 {
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx]
}

fn status(machine: &Machine) -> u16 {
    let guest = machine.guest.vcpu.cpu.arch.vmx.guest.as_ref();
    guest.map_or(0, |guest| guest.interrupts.status())
}

#[test]
fn a_requested_interrupt_is_delivered_after_entry() {
    let mut machine = virtual_interrupts();
    set(&mut machine, IRR, 0x31);
    set(&mut machine, IRR, 0x41);
    machine.write(Field::GUEST_INTERRUPT_STATUS, 0x41);
    assert_eq!(machine.run(|a| a.nop()), End::Guest);
    assert_eq!(handled(&machine), 0x41);
    assert_eq!(status(&machine), 0x4131);
    assert_eq!(register(&machine, PPR), 0x40);
    assert!(has(&machine, ISR, 0x41) && !has(&machine, IRR, 0x41) && has(&machine, IRR, 0x31));
}

#[test]
fn what_blocks_an_interrupt_holds_it_back_until_it_ends() {
    type Change = fn(&mut Machine);
    type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    // What blocks 41H, what ends that, the vector handled, or 0.
    let table: [(&str, Change, Code, u64); 8] = [
        ("IF", |m| m.write(Field::GUEST_RFLAGS, 2), |a| a.nop(), 0),
        (
            "IF, until STI and its shadow",
            |m| m.write(Field::GUEST_RFLAGS, 2),
            |a| {
                a.sti()?;
                a.mov(cl, 1)?;
                a.mov(cl, 2)
            },
            0x41,
        ),
        ("shadow", |m| m.write(Field::GUEST_INTERRUPTIBILITY, 1), |a| a.mov(cl, 1), 0x41),
        ("priority", |m| m.guest.write_u64(PAGE + TPR, 0x4f), |a| a.nop(), 0),
        (
            "priority, until MOV to CR8",
            |m| m.guest.write_u64(PAGE + TPR, 0x50),
            |a| {
                a.mov(cl, 1)?;
                a.mov(cr8, rdx)?;
                a.mov(cl, 2)
            },
            0x41,
        ),
        (
            "priority, until a write to the APIC",
            |m| m.guest.write_u64(PAGE + TPR, 0x50),
            |a| {
                a.mov(cl, 1)?;
                a.mov(dword_ptr(APIC + TPR), edx)?;
                a.mov(cl, 2)
            },
            0x41,
        ),
        ("another in service", |m| m.write(Field::GUEST_INTERRUPT_STATUS, 0x4741), |a| a.nop(), 0),
        (
            "another in service, until EOI",
            |m| {
                m.write(Field::GUEST_INTERRUPT_STATUS, 0x5141);
                set(m, ISR, 0x51);
            },
            |a| {
                a.mov(cl, 1)?;
                a.mov(dword_ptr(APIC + EOI), edx)?;
                a.mov(cl, 2)
            },
            0x41,
        ),
    ];
    for (name, change, code, vector) in table {
        let mut machine = virtual_interrupts();
        set(&mut machine, IRR, 0x41);
        machine.write(Field::GUEST_INTERRUPT_STATUS, 0x41);
        change(&mut machine);
        assert_eq!(machine.run(code), End::Guest, "{name}");
        assert_eq!(handled(&machine), vector, "{name}");
        if vector != 0 {
            assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx], 1, "{name}");
        }
    }
}

#[test]
fn the_interrupt_window_exits_instead_of_a_virtual_interrupt() {
    let mut machine = virtual_interrupts();
    machine.control(ProcControls::INTERRUPT_WINDOW);
    machine.write(Field::GUEST_INTERRUPT_STATUS, 0x41);
    assert_eq!(machine.run(|a| a.nop()), End::Host(7));
    assert_eq!(machine.read(Field::GUEST_INTERRUPT_STATUS), 0x41);
}

#[test]
fn an_interrupt_wakes_from_hlt_and_from_the_activity_state() {
    let mut machine = virtual_interrupts();
    machine.write(Field::GUEST_RFLAGS, 2);
    machine.write(Field::GUEST_INTERRUPT_STATUS, 0x41);
    let end = machine.run(|a| {
        a.sti()?;
        a.hlt()
    });
    assert_eq!((end, handled(&machine)), (End::Guest, 0x41));

    let mut machine = virtual_interrupts();
    machine.write(Field::GUEST_ACTIVITY, 1);
    machine.write(Field::GUEST_INTERRUPT_STATUS, 0x41);
    assert_eq!(machine.run(|a| a.nop()), End::Guest);
    assert_eq!(handled(&machine), 0x41);
}

#[test]
fn the_end_of_an_interrupt_exits_by_its_bitmap() {
    for exits in [false, true] {
        let mut machine = virtual_interrupts();
        machine.write(Field::GUEST_INTERRUPT_STATUS, 0x4100);
        set(&mut machine, ISR, 0x31);
        set(&mut machine, ISR, 0x41);
        machine.write(Field::EOI_EXIT_BITMAP1, if exits { 1 << 1 } else { !(1 << 1) });
        let end = machine.run(|a| a.mov(dword_ptr(APIC + EOI), ecx));
        assert!(!has(&machine, ISR, 0x41) && has(&machine, ISR, 0x31));
        assert_eq!((register(&machine, PPR), register(&machine, EOI)), (0x30, 0));
        if exits {
            assert_eq!(end, End::Host(45));
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x41);
            assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 7);
            assert_eq!(machine.read(Field::GUEST_INTERRUPT_STATUS), 0x3100);
        } else {
            assert_eq!((end, status(&machine)), (End::Guest, 0x3100));
        }
    }
}

#[test]
fn interrupts_that_the_guest_sends_to_itself_are_delivered() {
    // ICR, and whether it is virtualized.
    for (command, virtualized) in [
        (0x4_0041, true),
        (0x4_4841, true),
        (0x4_000f, false),
        (0x4_8041, false),
        (0x4_1041, false),
        (0x4_0441, false),
        (0x8_0041, false),
        (0x41, false),
        (0x14_0041, false),
    ] {
        let mut machine = virtual_interrupts();
        let end = machine.run(|a| a.mov(dword_ptr(APIC + ICR), command));
        let expected = if virtualized { End::Guest } else { End::Host(56) };
        assert_eq!(end, expected, "{command:#x}");
        assert_eq!(handled(&machine), if virtualized { 0x41 } else { 0 }, "{command:#x}");
    }
}

/// As [`virtual_interrupts`], with the x2APIC in place of APIC accesses.
fn x2apic() -> Machine {
    let mut machine = virtual_interrupts();
    let secondary = SecondaryControls::VIRTUAL_INTERRUPTS | SecondaryControls::X2APIC;
    machine.write(Field::SECONDARY_CONTROLS, secondary.bits().into());
    machine.control(ProcControls::MSR_BITMAP);
    machine.write(Field::MSR_BITMAP, PAGE + 0x1000);
    machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
    machine
}

#[test]
fn msrs_of_the_x2apic_are_virtualized() {
    const FAULT: End = End::Host(0);
    // MSR, value, end, vector handled.
    for (index, value, end, vector) in [
        (0x808, 0x50, End::Guest, 0),
        (0x808, 0x100, FAULT, 0),
        (0x80b, 0, End::Guest, 0),
        (0x80b, 1, FAULT, 0),
        (0x83f, 0x41, End::Guest, 0x41),
        (0x83f, 0x0f, End::Host(56), 0),
        (0x83f, 0x141, FAULT, 0),
        // Not in x2APIC mode, the processor's own APIC refuses.
        (0x830, 0x41, FAULT, 0),
    ] {
        let mut machine = x2apic();
        let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
        (gpr[Gpr::Rcx], gpr[Gpr::Rax]) = (index, value);
        assert_eq!(machine.run(|a| a.wrmsr()), end, "{index:#x} {value:#x}");
        assert_eq!(handled(&machine), vector, "{index:#x} {value:#x}");
        if end == End::Host(56) {
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x3f0);
            assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 2);
        }
    }
    for (index, registers, end) in
        [(0x808, false, End::Guest), (0x830, false, FAULT), (0x830, true, End::Guest)]
    {
        let mut machine = x2apic();
        if registers {
            machine.second(SecondaryControls::APIC_REGISTERS);
        }
        machine.guest.write_u64(PAGE + ((index & 0xff) << 4), 0x12_0000_0034);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = index;
        assert_eq!(machine.run(|a| a.rdmsr()), end, "{index:#x}");
        if end == End::Guest {
            let gpr = &machine.guest.vcpu.cpu.arch.gpr;
            assert_eq!((gpr[Gpr::Rdx], gpr[Gpr::Rax]), (0x12, 0x34));
        }
    }
    // The bitmap comes first.
    let mut machine = x2apic();
    machine.guest.write(PAGE + 0x1000 + 0x808 / 8, &[1]);
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = 0x808;
    assert_eq!(machine.run(|a| a.rdmsr()), End::Host(31));
}

/// A guest with posted interrupts 31H and 41H, whose notification has arrived.
fn posted() -> Machine {
    let mut machine = virtual_interrupts();
    machine.set(Field::PIN_CONTROLS, PinControls::POSTED_INTERRUPTS.bits());
    machine.set(Field::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT.bits());
    machine.write(Field::POSTED_VECTOR, NOTIFICATION.into());
    machine.write(Field::POSTED_DESCRIPTOR, POSTED);
    machine.guest.write_u64(POSTED, 1 << 0x31);
    machine.guest.write_u64(POSTED + 8, 1 << 1);
    machine.guest.write_u64(POSTED + 32, 0xf1 << 16 | 1);
    let cpu = &mut machine.guest.vcpu.cpu;
    enable_apic(cpu);
    cpu.apic_mmio_write(OWN_ICR, 4, 0x4_0000 | u32::from(NOTIFICATION) as u64);
    machine
}

#[test]
fn posted_interrupts_are_taken_without_an_exit() {
    for activity in [0, 1] {
        let mut machine = posted();
        machine.write(Field::GUEST_ACTIVITY, activity);
        assert_eq!(machine.run(|a| a.nop()), End::Guest);
        assert_eq!(handled(&machine), 0x41);
        assert_eq!(status(&machine), 0x4131);
        let descriptor = [0, 8, 32].map(|at| machine.guest.read_u64(POSTED + at));
        assert_eq!(descriptor, [0, 0, 0xf1 << 16]);
        // The notification is over.
        let cpu = &mut machine.guest.vcpu.cpu;
        assert_eq!(cpu.apic.deliverable(), None);
        assert_eq!(cpu.apic_mmio_read(Gpa(0xfee0_0170), 4), 0);
    }
}

#[test]
fn a_halted_guest_that_cannot_take_them_stays_halted() {
    let mut machine = posted();
    machine.write(Field::GUEST_ACTIVITY, 1);
    machine.write(Field::GUEST_RFLAGS, 2);
    assert_eq!(machine.run(|a| a.nop()), End::Other(Ending::Exit(Exit::Hlt)));
    assert_eq!(status(&machine), 0x41);
    assert!(has(&machine, IRR, 0x31) && has(&machine, IRR, 0x41));
}

#[test]
fn other_interrupts_exit_acknowledged() {
    let mut machine = posted();
    machine.write(Field::POSTED_VECTOR, 0xf3);
    assert_eq!(machine.run(|a| a.nop()), End::Host(1));
    assert_eq!(machine.read(Field::EXIT_INTERRUPTION), VALID | u64::from(NOTIFICATION));
    assert_eq!(machine.guest.read_u64(POSTED), 1 << 0x31);
}
