//! The checks of VM entry on host state (SDM Vol. 3C, 26.2.2 to 26.2.4).

use cloister_x86::regs::{Cr4, Efer};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, ExitControls};

use super::machine::{End, Machine, PAGE, fill};

type Change = fn(&mut Machine);

const REFUSED: End = End::Refused(Some(8));

/// A hypervisor outside IA-32e mode, with 32-bit paging that maps all of memory to itself.
fn legacy() -> Machine {
    let mut machine = Machine::new();
    machine.guest.write_u64(PAGE, 0x87);
    let arch = &mut machine.guest.vcpu.cpu.arch;
    arch.efer.remove(Efer::LME | Efer::LMA);
    arch.cr3 = PAGE;
    arch.cr4 = Cr4::VMXE | Cr4::PSE;
    arch.segs[seg::CS].rights = Rights(0xc09b);
    machine.guest.vcpu.cpu.derive();
    fill(&mut machine.guest);
    machine.clear_exit(ExitControls::HOST_64);
    machine
}

#[test]
fn invalid_host_state_is_refused() {
    let table: [(&str, Field, u64); 20] = [
        ("CR0", Field::HOST_CR0, 1),
        ("CR3", Field::HOST_CR3, 1 << 51),
        ("CR4, VMXE", Field::HOST_CR4, 0x20),
        ("CR4, PAE", Field::HOST_CR4, 0x2000),
        ("SYSENTER_ESP", Field::HOST_SYSENTER_ESP, 1 << 50),
        ("SYSENTER_EIP", Field::HOST_SYSENTER_EIP, 1 << 50),
        ("CS 0", Field::HOST_CS_SELECTOR, 0),
        ("TR 0", Field::HOST_TR_SELECTOR, 0),
        ("RPL", Field::HOST_DS_SELECTOR, 3),
        ("TI", Field::HOST_GS_SELECTOR, 4),
        ("CR0, PG", Field::HOST_CR0, 0x21),
        ("CR0, NE", Field::HOST_CR0, 0x8000_0001),
        ("CR0, reserved", Field::HOST_CR0, 1 << 32 | 0x8000_0021),
        ("CR4, reserved", Field::HOST_CR4, 1 << 31 | 0x2020),
        ("GS", Field::HOST_GS_BASE, 1 << 50),
        ("FS", Field::HOST_FS_BASE, 1 << 50),
        ("TR", Field::HOST_TR_BASE, 1 << 50),
        ("GDTR", Field::HOST_GDTR_BASE, 1 << 50),
        ("IDTR", Field::HOST_IDTR_BASE, 1 << 50),
        ("RIP", Field::HOST_RIP, 1 << 50),
    ];
    for (name, field, value) in table {
        let mut machine = Machine::new();
        machine.write(field, value);
        assert_eq!(machine.run(|_| Ok(())), REFUSED, "{name}");
    }
}

#[test]
fn each_selector_of_the_host_has_rpl_and_ti_clear() {
    for n in 0..7 {
        for bit in [1, 2, 4] {
            let mut machine = Machine::new();
            let field = Field::HOST_ES_SELECTOR.plus(n);
            machine.write(field, 0x18 | bit);
            assert_eq!(machine.run(|_| Ok(())), REFUSED, "{n} {bit}");
        }
    }
}

#[test]
fn registers_that_exits_load_where_asked_are_checked_where_asked() {
    let table = [
        (ExitControls::LOAD_PAT, Field::HOST_PAT, 2),
        (ExitControls::LOAD_PAT, Field::HOST_PAT, 3 << 56),
        (ExitControls::LOAD_PAT, Field::HOST_PAT, 8 << 8),
        (ExitControls::LOAD_EFER, Field::HOST_EFER, 0x501 | 1 << 1),
        (ExitControls::LOAD_EFER, Field::HOST_EFER, 0x101),
        (ExitControls::LOAD_EFER, Field::HOST_EFER, 0x401),
    ];
    for (control, field, value) in table {
        let mut machine = Machine::new();
        machine.write(field, value);
        assert_eq!(machine.run(|_| Ok(())), End::Guest, "{value:#x}");
        let mut machine = Machine::new();
        machine.write(field, value);
        machine.set(Field::EXIT_CONTROLS, control.bits());
        assert_eq!(machine.run(|_| Ok(())), REFUSED, "{value:#x}");
    }
}

#[test]
fn a_host_in_ia32e_mode_comes_back_to_it() {
    let mut machine = Machine::new();
    machine.clear_exit(ExitControls::HOST_64);
    assert_eq!(machine.run(|_| Ok(())), REFUSED);
}

#[test]
fn a_host_outside_ia32e_mode_has_no_guest_in_it_and_32_bits() {
    assert_eq!(legacy().run(|_| Ok(())), End::Guest);
    assert_eq!(legacy().run(|a| a.cpuid()), End::Host(10));
    let table: [(&str, Change); 5] = [
        ("IA-32e mode guest", |m| m.set(Field::ENTRY_CONTROLS, EntryControls::IA32E.bits())),
        ("64-bit host", |m| m.set(Field::EXIT_CONTROLS, ExitControls::HOST_64.bits())),
        ("SS 0", |m| m.write(Field::HOST_SS_SELECTOR, 0)),
        ("PCIDE", |m| m.write(Field::HOST_CR4, (Cr4::VMXE | Cr4::PCIDE).bits())),
        ("RIP", |m| m.write(Field::HOST_RIP, 1 << 32)),
    ];
    for (name, change) in table {
        let mut machine = legacy();
        change(&mut machine);
        assert_eq!(machine.run(|_| Ok(())), REFUSED, "{name}");
    }
}
