//! The checks of VM entry on guest state (SDM Vol. 3C, 26.3.1).

use cloister_sgx::SgxFeatures;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, PinControls, SecondaryControls};

use super::ept::with_ept;
use super::machine::{End, GUEST, HOST, Machine, PAGE, VMCS};
use crate::testing::DATA;

const INVALID_GUEST: End = End::Host(1 << 31 | 33);
const VALID: u64 = 1 << 31;

/// A row of changes that together are valid or not.
type Row<'a> = (&'a str, &'a [(Field, u64)], End);

fn check(new: fn() -> Machine, table: &[Row<'_>]) {
    for (name, changes, end) in table {
        let mut machine = new();
        for &(field, value) in *changes {
            machine.write(field, value);
        }
        assert_eq!(machine.run(|_| Ok(())), *end, "{name}");
    }
}

/// A guest outside IA-32e mode, with PAE paging and the page-directory pointers at [`PAGE`].
fn legacy() -> Machine {
    let mut machine = Machine::new();
    machine.clear_entry(EntryControls::IA32E);
    machine.write(Field::GUEST_CS_RIGHTS, 0xc09b);
    machine.write(Field::GUEST_EFER, 0);
    machine.write(Field::GUEST_CR3, PAGE);
    machine.guest.write_u64(PAGE, 0x3000 | 1);
    machine
}

/// A guest in virtual-8086 mode, whose first instruction exits.
fn virtual_8086() -> Machine {
    let mut machine = legacy();
    machine.write(Field::GUEST_RFLAGS, 0x2_3002);
    for n in 0..6 {
        machine.write(Field::GUEST_ES_SELECTOR.plus(n), 0);
        machine.write(Field::GUEST_ES_BASE.plus(n), 0);
        machine.write(Field::GUEST_ES_LIMIT.plus(n), 0xffff);
        machine.write(Field::GUEST_ES_RIGHTS.plus(n), 0xf3);
    }
    machine.write(Field::GUEST_CS_SELECTOR, 0x1000);
    machine.write(Field::GUEST_CS_BASE, 0x1_0000);
    machine.write(Field::GUEST_RIP, 0);
    machine.guest.assemble_at(0x1_0000, 16, |a| a.ud2());
    machine.write(Field::EXCEPTION_BITMAP, 1 << 6);
    machine
}

/// An unrestricted guest in real-address mode, with its code in the lowest 64 KiB.
fn real_address_mode() -> Machine {
    let mut machine = with_ept(false);
    machine.second(SecondaryControls::UNRESTRICTED_GUEST);
    machine.clear_entry(EntryControls::IA32E);
    machine.write(Field::GUEST_EFER, 0);
    machine.write(Field::GUEST_CR0, 0x30);
    for n in 0..6 {
        machine.write(Field::GUEST_ES_RIGHTS.plus(n), if n == 1 { 0x9b } else { 0x93 });
        machine.write(Field::GUEST_ES_LIMIT.plus(n), 0xffff);
        machine.write(Field::GUEST_ES_SELECTOR.plus(n), 0);
    }
    machine.write(Field::GUEST_CS_BASE, GUEST);
    machine.write(Field::GUEST_RIP, 0);
    machine
}

#[test]
fn invalid_guest_state_is_an_exit_that_saves_nothing() {
    let table: [(&str, Field, u64, u64); 82] = [
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
        ("CR0, PG without PE", Field::GUEST_CR0, 0x8000_0020, 0),
        ("CR0, NE", Field::GUEST_CR0, 0x8000_0011, 0),
        ("CR0, reserved", Field::GUEST_CR0, 1 << 32 | 0x8000_0031, 0),
        ("CR4, reserved", Field::GUEST_CR4, 1 << 31 | 0x2020, 0),
        ("SYSENTER_ESP", Field::GUEST_SYSENTER_ESP, 1 << 50, 0),
        ("RFLAGS, bit 5", Field::GUEST_RFLAGS, 0x22, 0),
        ("RFLAGS, bit 15", Field::GUEST_RFLAGS, 0x8002, 0),
        ("RFLAGS, bit 22", Field::GUEST_RFLAGS, 0x40_0002, 0),
        ("GS", Field::GUEST_GS_BASE, 1 << 50, 0),
        ("TR", Field::GUEST_TR_BASE, 1 << 50, 0),
        ("CS", Field::GUEST_CS_BASE, 1 << 32, 0),
        ("SS", Field::GUEST_SS_BASE, 1 << 32, 0),
        ("ES", Field::GUEST_ES_BASE, 1 << 32, 0),
        ("CS, data", Field::GUEST_CS_RIGHTS, 0xc093, 0),
        ("CS, system", Field::GUEST_CS_RIGHTS, 0xa08b, 0),
        ("CS, unusable", Field::GUEST_CS_RIGHTS, 0x1_a09b, 0),
        ("CS, conforming above SS", Field::GUEST_CS_RIGHTS, 0xa0ff, 0),
        ("CS, reserved above", Field::GUEST_CS_RIGHTS, 0x2_a09b, 0),
        ("CS, G clear", Field::GUEST_CS_RIGHTS, 0x209b, 0),
        ("CS, G set", Field::GUEST_CS_LIMIT, 0xffff_f000, 0),
        ("SS, not present", Field::GUEST_SS_RIGHTS, 0xc013, 0),
        ("SS, system", Field::GUEST_SS_RIGHTS, 0xc083, 0),
        ("SS, reserved", Field::GUEST_SS_RIGHTS, 0xc193, 0),
        ("SS, G clear", Field::GUEST_SS_RIGHTS, 0x4093, 0),
        ("DS, execute-only", Field::GUEST_DS_RIGHTS, 0xc099, 0),
        ("DS, system", Field::GUEST_DS_RIGHTS, 0xc083, 0),
        ("ES, not present", Field::GUEST_ES_RIGHTS, 0xc013, 0),
        ("ES, DPL below RPL", Field::GUEST_ES_SELECTOR, 0x13, 0),
        ("FS, reserved", Field::GUEST_FS_RIGHTS, 0xc193, 0),
        ("GS, reserved above", Field::GUEST_GS_RIGHTS, 0x2_c093, 0),
        ("TR, 16-bit", Field::GUEST_TR_RIGHTS, 0x83, 0),
        ("TR, not system", Field::GUEST_TR_RIGHTS, 0x9b, 0),
        ("TR, not present", Field::GUEST_TR_RIGHTS, 0x0b, 0),
        ("TR, reserved", Field::GUEST_TR_RIGHTS, 0x18b, 0),
        ("TR, G set", Field::GUEST_TR_RIGHTS, 0x808b, 0),
        ("TR, G clear", Field::GUEST_TR_LIMIT, 0x10_0067, 0),
        ("TR, unusable", Field::GUEST_TR_RIGHTS, 0x1_008b, 0),
        ("LDTR, not system", Field::GUEST_LDTR_RIGHTS, 0x92, 0),
        ("LDTR, not present", Field::GUEST_LDTR_RIGHTS, 0x02, 0),
        ("LDTR, reserved", Field::GUEST_LDTR_RIGHTS, 0x182, 0),
        ("GDTR, base", Field::GUEST_GDTR_BASE, 1 << 50, 0),
        ("IDTR, base", Field::GUEST_IDTR_BASE, 1 << 50, 0),
        ("IDTR", Field::GUEST_IDTR_LIMIT, 0x1_0000, 0),
        ("activity, reserved", Field::GUEST_ACTIVITY, 4, 0),
        ("interruptibility, reserved", Field::GUEST_INTERRUPTIBILITY, 1 << 5, 0),
        ("enclave interruption without SGX", Field::GUEST_INTERRUPTIBILITY, 1 << 4, 0),
        ("pending debug, bit 13", Field::GUEST_PENDING_DEBUG, 1 << 13, 0),
        ("pending debug, bit 15", Field::GUEST_PENDING_DEBUG, 1 << 15, 0),
        ("pending debug, RTM", Field::GUEST_PENDING_DEBUG, 1 << 16 | 1 << 12, 0),
        ("pending debug, bit 17", Field::GUEST_PENDING_DEBUG, 1 << 17, 0),
        ("link pointer, too high", Field::LINK_POINTER, 1 << 51, 4),
        ("link pointer, revision", Field::LINK_POINTER, PAGE, 4),
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
fn registers_that_entries_load_where_asked_are_checked_where_asked() {
    let table = [
        (EntryControls::LOAD_DEBUG, Field::GUEST_DEBUGCTL, 1 << 63),
        (EntryControls::LOAD_DEBUG, Field::GUEST_DR7, 1 << 32 | 0x400),
        (EntryControls::LOAD_PAT, Field::GUEST_PAT, 2),
        (EntryControls::LOAD_PAT, Field::GUEST_PAT, 8 << 56),
        (EntryControls::LOAD_EFER, Field::GUEST_EFER, 0x501 | 1 << 1),
        (EntryControls::LOAD_EFER, Field::GUEST_EFER, 0x101),
        (EntryControls::LOAD_EFER, Field::GUEST_EFER, 0x401),
    ];
    for (control, field, value) in table {
        let mut machine = Machine::new();
        machine.clear_entry(EntryControls::LOAD_DEBUG);
        machine.write(field, value);
        assert_eq!(machine.run(|_| Ok(())), End::Guest, "{field:x?} {value:#x}");
        let mut machine = Machine::new();
        machine.write(field, value);
        machine.set(Field::ENTRY_CONTROLS, control.bits());
        assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "{field:x?} {value:#x}");
    }
}

#[test]
fn guests_outside_ia32e_mode_have_no_pcids_and_32_bits() {
    check(
        legacy,
        &[
            ("as it should be", &[], End::Guest),
            ("PCIDE", &[(Field::GUEST_CR4, 0x2_2020)], INVALID_GUEST),
            ("RIP", &[(Field::GUEST_RIP, 1 << 32 | GUEST)], INVALID_GUEST),
            ("TR, 16-bit", &[(Field::GUEST_TR_RIGHTS, 0x83)], End::Guest),
            ("TR, 16-bit, not busy", &[(Field::GUEST_TR_RIGHTS, 0x81)], INVALID_GUEST),
        ],
    );
    let mut machine = Machine::new();
    machine.write(Field::GUEST_CS_RIGHTS, 0xc09b);
    machine.write(Field::GUEST_RIP, 1 << 32 | GUEST);
    assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "compatibility mode");
}

#[test]
fn segments_that_are_unusable_are_not_looked_at() {
    check(
        Machine::new,
        &[
            (
                "DS",
                &[(Field::GUEST_DS_RIGHTS, 1 << 16), (Field::GUEST_DS_BASE, 1 << 40)],
                End::Guest,
            ),
            (
                "SS",
                &[(Field::GUEST_SS_RIGHTS, 1 << 16), (Field::GUEST_SS_BASE, 1 << 40)],
                End::Guest,
            ),
            (
                "LDTR",
                &[(Field::GUEST_LDTR_SELECTOR, 4), (Field::GUEST_LDTR_BASE, 1 << 50)],
                End::Guest,
            ),
            (
                "LDTR, usable, TI",
                &[(Field::GUEST_LDTR_SELECTOR, 4), (Field::GUEST_LDTR_RIGHTS, 0x82)],
                INVALID_GUEST,
            ),
            (
                "LDTR, usable, base",
                &[(Field::GUEST_LDTR_BASE, 1 << 50), (Field::GUEST_LDTR_RIGHTS, 0x82)],
                INVALID_GUEST,
            ),
            (
                "LDTR, usable, G clear",
                &[(Field::GUEST_LDTR_LIMIT, 0x10_0fff), (Field::GUEST_LDTR_RIGHTS, 0x82)],
                INVALID_GUEST,
            ),
            (
                "LDTR, usable, G set",
                &[(Field::GUEST_LDTR_LIMIT, 0xff0), (Field::GUEST_LDTR_RIGHTS, 0x8082)],
                INVALID_GUEST,
            ),
        ],
    );
}

#[test]
fn privilege_levels_of_code_and_stack_fit_together() {
    let code = Field::GUEST_CS_RIGHTS;
    check(
        Machine::new,
        &[
            ("non-conforming, DPL above", &[(code, 0xa0fb)], INVALID_GUEST),
            ("conforming, DPL as SS", &[(code, 0xa09f)], End::Guest),
            ("RPL of CS and SS", &[(Field::GUEST_CS_SELECTOR, 9)], INVALID_GUEST),
            (
                "DS, conforming, RPL above DPL",
                &[(Field::GUEST_DS_SELECTOR, 0x13), (Field::GUEST_DS_RIGHTS, 0xc09f)],
                End::Guest,
            ),
        ],
    );
}

#[test]
fn segments_in_virtual_8086_mode_are_those_of_an_8086() {
    assert_eq!(virtual_8086().run(|_| Ok(())), End::Host(0));
    for n in 0..6 {
        for (field, value) in [
            (Field::GUEST_ES_BASE, 0x8_0000),
            (Field::GUEST_ES_LIMIT, 0xfffe),
            (Field::GUEST_ES_RIGHTS, 0x93),
        ] {
            let mut machine = virtual_8086();
            machine.write(field.plus(n), value);
            assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "{n} {field:x?}");
        }
    }
}

#[test]
fn unrestricted_guests_run_without_paging_or_protection() {
    check(
        real_address_mode,
        &[
            ("as it should be", &[], End::Guest),
            ("code is data", &[(Field::GUEST_CS_RIGHTS, 0x93)], End::Guest),
            ("code is data, DPL 3", &[(Field::GUEST_CS_RIGHTS, 0xf3)], INVALID_GUEST),
            ("SS, DPL 3", &[(Field::GUEST_SS_RIGHTS, 0xf3)], INVALID_GUEST),
            ("RPL of CS and SS", &[(Field::GUEST_CS_SELECTOR, 3)], End::Guest),
            ("DS, RPL above DPL", &[(Field::GUEST_DS_SELECTOR, 3)], End::Guest),
            ("PG without PE", &[(Field::GUEST_CR0, 0x8000_0030)], INVALID_GUEST),
            ("VM", &[(Field::GUEST_RFLAGS, 0x2_0002)], INVALID_GUEST),
            ("NE", &[(Field::GUEST_CR0, 0x10)], INVALID_GUEST),
        ],
    );
    let mut machine = real_address_mode();
    machine.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 11 | 3 << 8 | 13);
    assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(7)), "an error code");
}

#[test]
fn activity_and_blocking_allow_what_is_injected_or_not() {
    const HLT: (Field, u64) = (Field::GUEST_ACTIVITY, 1);
    const IF: (Field, u64) = (Field::GUEST_RFLAGS, 0x202);
    const BLOCKING: Field = Field::GUEST_INTERRUPTIBILITY;
    let inject = |event: u64| (Field::ENTRY_INTERRUPTION, VALID | event);
    let user = [
        HLT,
        (Field::GUEST_CS_SELECTOR, 0xb),
        (Field::GUEST_SS_SELECTOR, 0x13),
        (Field::GUEST_CS_RIGHTS, 0xa0fb),
        (Field::GUEST_SS_RIGHTS, 0xc0f3),
    ];
    let shutdown = End::Host(2);
    check(
        Machine::new,
        &[
            ("HLT at CPL 3", &user, INVALID_GUEST),
            ("HLT under STI", &[HLT, IF, (BLOCKING, 1)], INVALID_GUEST),
            ("HLT under MOV SS", &[HLT, (BLOCKING, 2)], INVALID_GUEST),
            ("HLT, interrupt", &[HLT, IF, inject(0x80)], shutdown),
            ("HLT, NMI", &[HLT, inject(2 << 8 | 2)], shutdown),
            ("HLT, #DB", &[HLT, inject(3 << 8 | 1)], shutdown),
            ("HLT, #MC", &[HLT, inject(3 << 8 | 18)], shutdown),
            ("HLT, #UD", &[HLT, inject(3 << 8 | 6)], INVALID_GUEST),
            ("HLT, INT n", &[HLT, inject(4 << 8 | 0x80)], INVALID_GUEST),
            ("HLT, MTF", &[HLT, inject(7 << 8)], End::Host(37)),
            ("wait for SIPI, NMI", &[(HLT.0, 3), inject(2 << 8 | 2)], INVALID_GUEST),
            ("interrupt, IF clear", &[inject(0x80)], INVALID_GUEST),
            ("interrupt under STI", &[IF, (BLOCKING, 1), inject(0x80)], INVALID_GUEST),
            ("interrupt under MOV SS", &[IF, (BLOCKING, 2), inject(0x80)], INVALID_GUEST),
            ("NMI under MOV SS", &[(BLOCKING, 2), inject(2 << 8 | 2)], INVALID_GUEST),
            ("NMI under NMI", &[(BLOCKING, 8), inject(2 << 8 | 2)], shutdown),
            ("STI and MOV SS", &[IF, (BLOCKING, 3)], INVALID_GUEST),
        ],
    );
    let mut machine = Machine::new();
    let virtual_nmis = PinControls::NMI | PinControls::VIRTUAL_NMIS;
    machine.set(Field::PIN_CONTROLS, virtual_nmis.bits());
    machine.write(Field::GUEST_INTERRUPTIBILITY, 8);
    machine.write(Field::ENTRY_INTERRUPTION, VALID | 2 << 8 | 2);
    assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "a virtual NMI under another");
}

#[test]
fn an_enclaves_interruption_needs_sgx_and_no_mov_ss() {
    for (blocking, end) in [(0x10, End::Guest), (0x12, INVALID_GUEST)] {
        let mut machine = Machine::new();
        machine.guest.vcpu.cpu.ctl.features.sgx.features = SgxFeatures::SGX1;
        machine.write(Field::GUEST_INTERRUPTIBILITY, blocking);
        assert_eq!(machine.run(|_| Ok(())), end, "{blocking:#x}");
    }
}

#[test]
fn a_pending_step_fits_tf_and_btf_where_it_is_blocked() {
    const BLOCKED: (Field, u64) = (Field::GUEST_INTERRUPTIBILITY, 1);
    const HLT: (Field, u64) = (Field::GUEST_ACTIVITY, 1);
    const STEP: (Field, u64) = (Field::GUEST_PENDING_DEBUG, 1 << 14);
    const TF: (Field, u64) = (Field::GUEST_RFLAGS, 0x302);
    const IF: (Field, u64) = (Field::GUEST_RFLAGS, 0x202);
    const BTF: (Field, u64) = (Field::GUEST_DEBUGCTL, 2);
    check(
        Machine::new,
        &[
            ("TF without BS", &[BLOCKED, TF], INVALID_GUEST),
            ("BS without TF", &[BLOCKED, IF, STEP], INVALID_GUEST),
            ("BS with BTF", &[BLOCKED, TF, STEP, BTF], INVALID_GUEST),
            ("BTF without BS", &[BLOCKED, TF, BTF], End::Guest),
            ("HLT, TF without BS", &[HLT, TF], INVALID_GUEST),
            ("MOV SS, TF without BS", &[(BLOCKED.0, 2), TF], INVALID_GUEST),
        ],
    );
}

#[test]
fn a_link_pointer_to_another_region_is_allowed() {
    let mut machine = Machine::new();
    machine.guest.write_u64(DATA, 1);
    machine.write(Field::LINK_POINTER, DATA);
    assert_eq!(machine.run(|_| Ok(())), End::Guest);
    machine = Machine::new();
    machine.guest.write_u64(DATA, 0x8000_0001);
    machine.write(Field::LINK_POINTER, DATA);
    assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST, "a shadow VMCS");
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 4);
}

#[test]
fn reserved_bits_of_page_directory_pointers_fail_the_entry() {
    let mut machine = legacy();
    machine.guest.write_u64(PAGE + 8, 1 << 1 | 1);
    assert_eq!(machine.run(|_| Ok(())), INVALID_GUEST);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 2);
    // Those of the VMCS, with EPT.
    for (pdpte, end) in [(0, End::Guest), (1 << 1 | 1, INVALID_GUEST)] {
        let mut machine = with_ept(false);
        machine.clear_entry(EntryControls::IA32E);
        machine.write(Field::GUEST_CS_RIGHTS, 0xc09b);
        machine.write(Field::GUEST_EFER, 0);
        machine.write(Field::GUEST_PDPTE0, 0x3000 | 1);
        machine.write(Field::GUEST_PDPTE0.plus(3), pdpte);
        assert_eq!(machine.run(|_| Ok(())), end, "{pdpte}");
    }
}
