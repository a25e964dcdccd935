//! The APIC-access page (SDM Vol. 3C, 29.4).

use cloister_x86::Gpr;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{PinControls, ProcControls, SecondaryControls};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::ept::with_ept;
use super::machine::{End, GUEST, Machine, PAGE};
use crate::testing::{DATA, DEVICE, EPC};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
type Change = fn(&mut Machine);

const VALID: u64 = 1 << 31;
const ACCESS: End = End::Host(44);
const WRITTEN: End = End::Host(56);
/// Registers by their offsets.
const TPR: u64 = 0x80;
const ICR_HIGH: u64 = 0x310;

/// A guest whose accesses to [`DATA`] are those to [`PAGE`].
fn accessing(machine: Machine) -> Machine {
    let mut machine = machine;
    machine.control(ProcControls::TPR_SHADOW);
    machine.second(SecondaryControls::APIC_ACCESSES);
    machine.write(Field::VIRTUAL_APIC, PAGE);
    machine.write(Field::APIC_ACCESS, DATA);
    machine
}

/// As [`accessing`], with most registers.
fn registers() -> Machine {
    let mut machine = accessing(Machine::new());
    machine.second(SecondaryControls::APIC_REGISTERS);
    machine
}

fn register(machine: &Machine, offset: u64) -> u32 {
    u32::from_le_bytes(machine.guest.read(PAGE + offset))
}

#[test]
fn the_task_priority_is_that_of_the_virtual_apic_page() {
    let mut machine = accessing(Machine::new());
    machine.guest.write_u64(PAGE + TPR, 0x50);
    let end = machine.run(|a| {
        a.mov(ebx, dword_ptr(DATA + TPR))?;
        a.mov(dword_ptr(DATA + TPR), 0x1234_5660)?;
        a.mov(ecx, dword_ptr(DATA + TPR))?;
        a.or(dword_ptr(DATA + TPR), 1)?;
        a.mov(dl, byte_ptr(DATA + TPR))?;
        a.mov(rsi, cr8)
    });
    assert_eq!(end, End::Guest);
    let gpr = &machine.guest.vcpu.cpu.arch.gpr;
    let values = [Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].map(|register| gpr[register]);
    assert_eq!(values, [0x50, 0x60, 0x61, 6]);
    // What is in the APIC-access page does not matter.
    assert_eq!(machine.guest.read_u64(DATA + TPR), 0);
}

#[test]
fn a_task_priority_below_the_threshold_exits_after_the_access() {
    let mut machine = accessing(Machine::new());
    machine.write(Field::TPR_THRESHOLD, 5);
    machine.guest.write_u64(PAGE + TPR, 0x50);
    assert_eq!(machine.run(|a| a.mov(byte_ptr(DATA + TPR), 0x40)), End::Host(43));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 8);
    assert_eq!(register(&machine, TPR), 0x40);
    // On VM entry too: it is no check of the controls with APIC accesses.
    let mut machine = accessing(Machine::new());
    machine.write(Field::TPR_THRESHOLD, 1);
    assert_eq!(machine.run(|_| Ok(())), End::Host(43));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
}

#[test]
fn what_is_not_virtualized_exits_with_offset_type_and_length() {
    let table: [(&str, Change, Code, u64, u64); 10] = [
        ("read", |_| {}, |a| a.mov(ecx, dword_ptr(DATA + 0x90)), 0x90, 7),
        ("write", |_| {}, |a| a.mov(dword_ptr(DATA + 0x90), ecx), 0x1090, 7),
        ("read, then write", |_| {}, |a| a.or(dword_ptr(DATA + 0xb0), 1), 0x10b0, 8),
        ("8 bytes", |_| {}, |a| a.mov(rcx, qword_ptr(DATA + TPR)), 0x80, 8),
        ("across", |_| {}, |a| a.mov(ecx, dword_ptr(DATA + TPR + 2)), 0x82, 7),
        ("a byte beside", |_| {}, |a| a.mov(cl, byte_ptr(DATA + TPR + 1)), 0x81, 7),
        ("split read", |_| {}, |a| a.mov(ecx, dword_ptr(DATA - 2)), 0, 7),
        ("split write", |_| {}, |a| a.mov(dword_ptr(DATA + 0xffe), ecx), 0x1ffe, 7),
        (
            "without TPR shadow",
            |m| {
                let value = m.read(Field::PROC_CONTROLS);
                let shadow = u64::from(ProcControls::TPR_SHADOW.bits());
                m.write(Field::PROC_CONTROLS, value & !shadow);
            },
            |a| a.mov(ecx, dword_ptr(DATA + TPR)),
            0x80,
            7,
        ),
        ("more than one register", |_| {}, |a| a.movups(xmmword_ptr(DATA + TPR), xmm0), 0x1080, 8),
    ];
    for (name, change, code, qualification, length) in table {
        let mut machine = accessing(Machine::new());
        change(&mut machine);
        let before: [u8; 16] = machine.guest.read(DATA - 8);
        assert_eq!(machine.run(code), ACCESS, "{name}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification, "{name}");
        assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), length, "{name}");
        assert_eq!(machine.read(Field::GUEST_RIP), GUEST, "{name}");
        assert_eq!(machine.guest.read::<16>(DATA - 8), before, "{name}");
        assert_eq!(machine.guest.read_u64(DATA + 0x1000), 0, "{name}");
    }
    let mut machine = accessing(Machine::new());
    let end = machine.run(|a| {
        a.mov(rax, DATA + 0x123)?;
        a.jmp(rax)
    });
    assert_eq!(end, ACCESS);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x2123, "a fetch");
    assert_eq!(machine.read(Field::GUEST_RIP), DATA + 0x123);
}

#[test]
fn registers_are_virtualized_as_the_manual_lists_them() {
    // SDM Vol. 3C, 29.4.2 and 29.4.3.
    let written = |offset: u64| {
        matches!(offset, 0x20 | 0x80 | 0xb0 | 0xd0 | 0xe0 | 0xf0 | 0x280 | 0x300 | 0x310 | 0x3e0)
            || (0x320..=0x380).contains(&offset)
    };
    let read = |offset| written(offset) || offset == 0x30 || (0x100..=0x270).contains(&offset);
    for offset in (0..0x400).step_by(16) {
        let mut machine = registers();
        machine.guest.write_u64(PAGE + offset, offset + 0x55);
        let end = machine.run(|a| a.mov(ebx, dword_ptr(DATA + offset)));
        assert_eq!(end, if read(offset) { End::Guest } else { ACCESS }, "read {offset:#x}");
        if read(offset) {
            assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx], offset + 0x55, "{offset:#x}");
        }
        let mut machine = registers();
        let end = machine.run(|a| a.mov(dword_ptr(DATA + offset), 0x0100_0080));
        let expected = match offset {
            TPR | ICR_HIGH => End::Guest,
            _ if written(offset) => WRITTEN,
            _ => ACCESS,
        };
        assert_eq!(end, expected, "write {offset:#x}");
        if expected == WRITTEN {
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), offset);
            assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 11);
            assert_eq!(register(&machine, offset), 0x0100_0080);
        }
    }
}

#[test]
fn parts_of_registers_are_accessed_within_them() {
    let mut machine = registers();
    machine.guest.write_u64(PAGE + 0x300, 0x8877_6655_4433_2211);
    assert_eq!(machine.run(|a| a.mov(bx, word_ptr(DATA + 0x301))), End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx], 0x3322);
    let mut machine = registers();
    assert_eq!(machine.run(|a| a.mov(byte_ptr(DATA + TPR + 3), 0x77)), WRITTEN);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), TPR + 3);
    assert_eq!(register(&machine, TPR), 0x7700_0000);
    // Only the destination of the high half of ICR is kept.
    let mut machine = registers();
    machine.guest.write_u64(PAGE + ICR_HIGH, 0x1122_3344);
    assert_eq!(machine.run(|a| a.mov(byte_ptr(DATA + ICR_HIGH + 1), 0x99)), End::Guest);
    assert_eq!(register(&machine, ICR_HIGH), 0x1100_0000);
}

#[test]
fn a_repeated_instruction_is_virtualized_one_iteration_at_a_time() {
    let mut machine = registers();
    let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
    (gpr[Gpr::Rdi], gpr[Gpr::Rcx], gpr[Gpr::Rax]) = (DATA + 0x20, 2, 0x1234);
    assert_eq!(machine.run(|a| a.rep().stosd()), WRITTEN);
    let gpr = &machine.guest.vcpu.cpu.arch.gpr;
    assert_eq!((gpr[Gpr::Rdi], gpr[Gpr::Rcx]), (DATA + 0x24, 1));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 0x20);
}

#[test]
fn a_write_that_is_followed_by_the_monitor_trap_flag_exits_first() {
    let mut machine = registers();
    machine.control(ProcControls::MONITOR_TRAP);
    assert_eq!(machine.run(|a| a.mov(dword_ptr(DATA + 0x20), eax)), WRITTEN);
}

#[test]
fn accesses_of_event_delivery_say_so() {
    let mut machine = accessing(Machine::new());
    let gate = GUEST | 8 << 16 | 0x8e00 << 32 | GUEST >> 16 << 48;
    machine.guest.write_u64(DATA + 0x2000 + 16 * 0x80, gate & !(0xffff << 16) | 8 << 16);
    machine.guest.write_u64(DATA + 0x3008, 0x00af_9b00_0000_ffff);
    for (field, value) in [
        (Field::GUEST_IDTR_BASE, DATA + 0x2000),
        (Field::GUEST_IDTR_LIMIT, 0xfff),
        (Field::GUEST_GDTR_BASE, DATA + 0x3000),
        (Field::GUEST_GDTR_LIMIT, 0xf),
        (Field::GUEST_RSP, DATA + 0x800),
    ] {
        machine.write(field, value);
    }
    assert_eq!(machine.run(|a| a.int(0x80)), ACCESS);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION) >> 12, 3);
    assert_eq!(machine.read(Field::IDT_VECTORING), VALID | 4 << 8 | 0x80);
    assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 2);
}

#[test]
fn paging_structures_in_the_page_exit_as_guest_physical_accesses() {
    let mut machine = accessing(with_ept(false));
    let root = machine.read(Field::GUEST_CR3);
    machine.write(Field::APIC_ACCESS, root);
    assert_eq!(machine.run(|a| a.nop()), ACCESS);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 15 << 12);
    // An EPT violation comes first.
    let mut machine = accessing(with_ept(false));
    machine.guest.write_u64(super::ept::ENTRY, 0);
    assert_eq!(machine.run(|a| a.mov(ecx, dword_ptr(DATA + TPR))), End::Host(48));
}

#[test]
fn pages_that_are_no_memory_do_no_harm() {
    for page in [DEVICE, EPC, 1 << 39] {
        for field in [Field::VIRTUAL_APIC, Field::APIC_ACCESS, Field::POSTED_DESCRIPTOR] {
            let mut machine = registers();
            machine.second(SecondaryControls::VIRTUAL_INTERRUPTS);
            let pin = PinControls::EXTERNAL_INTERRUPT | PinControls::POSTED_INTERRUPTS;
            machine.set(Field::PIN_CONTROLS, pin.bits());
            machine.set(Field::EXIT_CONTROLS, 1 << 15);
            machine.write(Field::GUEST_INTERRUPT_STATUS, 0x5060);
            machine.write(Field::GUEST_RFLAGS, 0x202);
            machine.write(field, page);
            let end = machine.run(|a| {
                a.mov(dword_ptr(DATA + 0xb0), eax)?;
                a.mov(dword_ptr(DATA + TPR), eax)?;
                a.mov(eax, dword_ptr(DATA + 0x100))?;
                a.mov(dword_ptr(DATA + 0x300), 0x4_0099)
            });
            assert!(matches!(end, End::Host(_) | End::Guest), "{page:#x} {field:?} {end:?}");
        }
    }
}
