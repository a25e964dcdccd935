//! VM entry: what is refused, what fails with an exit, and what is loaded.

use cloister_x86::Gpr;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, PinControls, ProcControls, SecondaryControls};

use super::machine::{End, HOST, Machine, PAGE, VMCS};
use crate::state::Shadow;

type Change = fn(&mut Machine);

const INVALID_GUEST: End = End::Host(1 << 31 | 33);
const INVALID_MSR: End = End::Host(1 << 31 | 34);

#[test]
fn the_state_of_the_machine_of_these_tests_is_entered() {
    assert_eq!(Machine::new().run(|_| Ok(())), End::Guest);
}

#[test]
fn launch_state_decides_between_vmlaunch_and_vmresume() {
    let mut machine = Machine::new();
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    machine.guest.vcpu.complete(0);
    machine.guest.vcpu.cpu.arch.rip = crate::testing::CODE;
    assert_eq!(machine.launch(), End::Refused(Some(4)));
}

#[test]
fn entry_under_mov_ss_and_without_a_vmcs_is_refused() {
    let mut machine = Machine::new();
    machine.guest.vcpu.cpu.set_shadow(Shadow::MovSs);
    assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(26)));
    let mut machine = Machine::new();
    machine.guest.vcpu.cpu.arch.vmx.current = None;
    assert_eq!(machine.run(|_| Ok(())), End::Refused(None));
}

#[test]
fn invalid_controls_are_refused() {
    let table: [(&str, Change); 21] = [
        ("pin, required", |m| m.write(Field::PIN_CONTROLS, 0)),
        ("pin, reserved", |m| m.set(Field::PIN_CONTROLS, 1 << 31)),
        ("primary, required", |m| m.write(Field::PROC_CONTROLS, 0)),
        ("secondary, reserved", |m| {
            m.control(ProcControls::SECONDARY);
            m.set(Field::SECONDARY_CONTROLS, 1 << 31);
        }),
        ("exit, required", |m| m.write(Field::EXIT_CONTROLS, 0)),
        ("entry, SMM", |m| m.set(Field::ENTRY_CONTROLS, 1 << 10)),
        ("CR3 targets", |m| m.write(Field::CR3_TARGET_COUNT, 5)),
        ("I/O bitmap", |m| {
            m.control(ProcControls::IO_BITMAPS);
            m.write(Field::IO_BITMAP_B, 8);
        }),
        ("MSR bitmap", |m| {
            m.control(ProcControls::MSR_BITMAP);
            m.write(Field::MSR_BITMAP, 1 << 50);
        }),
        ("TPR threshold", |m| {
            m.control(ProcControls::TPR_SHADOW);
            m.write(Field::VIRTUAL_APIC, PAGE);
            m.write(Field::TPR_THRESHOLD, 1);
        }),
        ("virtual NMIs", |m| m.set(Field::PIN_CONTROLS, PinControls::VIRTUAL_NMIS.bits())),
        ("NMI window", |m| m.control(ProcControls::NMI_WINDOW)),
        ("VPID 0", |m| m.second(SecondaryControls::VPID)),
        ("EPTP", |m| m.second(SecondaryControls::EPT)),
        ("unrestricted without EPT", |m| m.second(SecondaryControls::UNRESTRICTED_GUEST)),
        ("timer saved", |m| m.set(Field::EXIT_CONTROLS, 1 << 22)),
        ("MSR list", |m| {
            m.write(Field::EXIT_MSR_STORE_COUNT, 1);
            m.write(Field::EXIT_MSR_STORE_ADDRESS, 8);
        }),
        ("event, type 1", |m| m.write(Field::ENTRY_INTERRUPTION, 1 << 31 | 1 << 8)),
        ("event, NMI vector", |m| m.write(Field::ENTRY_INTERRUPTION, 1 << 31 | 2 << 8 | 3)),
        ("event, no error code", |m| m.write(Field::ENTRY_INTERRUPTION, 1 << 31 | 3 << 8 | 13)),
        ("event, length", |m| {
            m.write(Field::ENTRY_INTERRUPTION, 1 << 31 | 4 << 8 | 0x80);
            m.write(Field::ENTRY_INSTRUCTION_LENGTH, 16);
        }),
    ];
    for (name, change) in table {
        let mut machine = Machine::new();
        change(&mut machine);
        assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(7)), "{name}");
    }
}

#[test]
fn invalid_host_state_is_refused() {
    let table: [(&str, Field, u64); 15] = [
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
        ("FS", Field::HOST_FS_BASE, 1 << 50),
        ("TR", Field::HOST_TR_BASE, 1 << 50),
        ("GDTR", Field::HOST_GDTR_BASE, 1 << 50),
        ("IDTR", Field::HOST_IDTR_BASE, 1 << 50),
        ("RIP", Field::HOST_RIP, 1 << 50),
    ];
    for (name, field, value) in table {
        let mut machine = Machine::new();
        machine.write(field, value);
        assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(8)), "{name}");
    }
    let mut machine = Machine::new();
    let value = machine.read(Field::EXIT_CONTROLS) & !(1 << 9);
    machine.write(Field::EXIT_CONTROLS, value);
    assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(8)), "32-bit host");
}

#[test]
fn invalid_guest_state_is_an_exit_that_saves_nothing() {
    let table: [(&str, Field, u64, u64); 30] = [
        ("CR0", Field::GUEST_CR0, 0x11, 0),
        ("CR4", Field::GUEST_CR4, 0x20, 0),
        ("PAE clear", Field::GUEST_CR4, 0x2000, 0),
        ("CR3", Field::GUEST_CR3, 1 << 51, 0),
        ("SYSENTER_EIP", Field::GUEST_SYSENTER_EIP, 1 << 50, 0),
        ("RFLAGS, bit 1", Field::GUEST_RFLAGS, 0, 0),
        ("RFLAGS, bit 3", Field::GUEST_RFLAGS, 0xa, 0),
        ("RFLAGS.VM", Field::GUEST_RFLAGS, 0x2_0002, 0),
        ("RIP", Field::GUEST_RIP, 1 << 50, 0),
        ("TR, TI", Field::GUEST_TR_SELECTOR, 4, 0),
        ("SS, RPL", Field::GUEST_SS_SELECTOR, 3, 0),
        ("FS", Field::GUEST_FS_BASE, 1 << 50, 0),
        ("DS", Field::GUEST_DS_BASE, 1 << 40, 0),
        ("CS, type", Field::GUEST_CS_RIGHTS, 0xa093, 0),
        ("CS, not present", Field::GUEST_CS_RIGHTS, 0xa01b, 0),
        ("CS, D and L", Field::GUEST_CS_RIGHTS, 0xe09b, 0),
        ("CS, reserved", Field::GUEST_CS_RIGHTS, 0xa19b, 0),
        ("SS, type", Field::GUEST_SS_RIGHTS, 0xc091, 0),
        ("SS, DPL", Field::GUEST_SS_RIGHTS, 0xc0f3, 0),
        ("DS, not accessed", Field::GUEST_DS_RIGHTS, 0xc092, 0),
        ("DS, G", Field::GUEST_DS_RIGHTS, 0x4093, 0),
        ("TR, not busy", Field::GUEST_TR_RIGHTS, 0x89, 0),
        ("LDTR, type", Field::GUEST_LDTR_RIGHTS, 0x83, 0),
        ("GDTR", Field::GUEST_GDTR_LIMIT, 0x1_0000, 0),
        ("activity", Field::GUEST_ACTIVITY, 2, 0),
        ("STI without IF", Field::GUEST_INTERRUPTIBILITY, 1, 0),
        ("SMI", Field::GUEST_INTERRUPTIBILITY, 4, 0),
        ("pending debug", Field::GUEST_PENDING_DEBUG, 1 << 4, 0),
        ("link pointer", Field::LINK_POINTER, VMCS, 4),
        ("link pointer, unaligned", Field::LINK_POINTER, 8, 4),
    ];
    for (name, field, value, qualification) in table {
        let mut machine = Machine::new();
        machine.write(field, value);
        assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "{name}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification, "{name}");
        assert_eq!(machine.read(field), value, "{name}");
        let arch = &machine.guest.vcpu.cpu.arch;
        assert_eq!((arch.rip, arch.vmx.guest.is_none()), (HOST, true), "{name}");
    }
}

#[test]
fn an_msr_that_cannot_be_loaded_fails_the_entry_by_its_number() {
    let mut machine = Machine::new();
    machine.write(Field::ENTRY_MSR_LOAD_ADDRESS, PAGE);
    machine.write(Field::ENTRY_MSR_LOAD_COUNT, 2);
    machine.guest.write_u64(PAGE, cloister_x86::msr::KERNEL_GS_BASE.into());
    machine.guest.write_u64(PAGE + 8, 0x1234);
    machine.guest.write_u64(PAGE + 16, cloister_x86::msr::FS_BASE.into());

    assert_eq!(machine.run(|_| Ok(())), INVALID_MSR);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 2);
    assert_eq!(machine.guest.vcpu.cpu.arch.msrs.kernel_gs_base, 0x1234);
}

#[test]
fn an_msr_list_has_at_most_512_entries() {
    // As many as there is RAM for.
    const LIST: u64 = 0x20_0000;
    for (count, end) in [(512, End::Guest), (513, INVALID_MSR), (0x1_0000, INVALID_MSR)] {
        let mut machine = Machine::new();
        machine.write(Field::ENTRY_MSR_LOAD_ADDRESS, LIST);
        machine.write(Field::ENTRY_MSR_LOAD_COUNT, count);
        for n in 0..count {
            machine.guest.write_u64(LIST + 16 * n, cloister_x86::msr::KERNEL_GS_BASE.into());
            machine.guest.write_u64(LIST + 16 * n + 8, n);
        }

        assert_eq!(machine.run(|_| Ok(())), end, "{count}");
        assert_eq!(machine.guest.vcpu.cpu.arch.msrs.kernel_gs_base, 511, "{count}");
        if end == INVALID_MSR {
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 513, "{count}");
        }
    }
}

#[test]
fn guest_state_is_loaded_and_host_state_comes_back() {
    let mut machine = Machine::new();
    machine.write(Field::GUEST_RSP, 0x1_8000);
    machine.write(Field::GUEST_RFLAGS, 0x8d7);
    machine.write(Field::GUEST_SYSENTER_CS, 0x33);
    let before = machine.guest.vcpu.cpu.arch.gpr[Gpr::Rsp];

    assert_eq!(machine.run(|_| Ok(())), End::Guest);
    let arch = &machine.guest.vcpu.cpu.arch;
    assert_eq!(arch.gpr[Gpr::Rsp], 0x1_8000);
    assert_eq!((arch.rflags(), arch.msrs.sysenter_cs), (0x8d7, 0x33));

    let mut machine = Machine::new();
    machine.write(Field::GUEST_RSP, 0x1_8000);
    machine.write(Field::GUEST_RFLAGS, 0x8d7);
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    let arch = &machine.guest.vcpu.cpu.arch;
    assert_eq!((arch.gpr[Gpr::Rsp], arch.rflags()), (before, 2));
    assert_eq!(
        (machine.read(Field::GUEST_RSP), machine.read(Field::GUEST_RFLAGS)),
        (0x1_8000, 0x8d7)
    );
    assert_eq!(machine.read(Field::ENTRY_CONTROLS) as u32 & EntryControls::IA32E.bits(), 1 << 9);
}
