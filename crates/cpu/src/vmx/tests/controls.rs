//! The checks of VM entry on its controls (SDM Vol. 3C, 26.2.1).

use cloister_x86::msr;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{ExitControls, PinControls, ProcControls, SecondaryControls};

use super::ept::{PML4, with_ept};
use super::machine::{End, Machine, PAGE};
use crate::vmx::capability;

type Change = fn(&mut Machine);

const VALID: u64 = 1 << 31;
const REFUSED: End = End::Refused(Some(7));

/// Has the guest translated by extended page tables at `eptp`.
fn ept(machine: &mut Machine, eptp: u64) {
    machine.second(SecondaryControls::EPT);
    machine.write(Field::EPTP, eptp);
}

#[test]
fn invalid_controls_are_refused() {
    let table: [(&str, Change); 39] = [
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
        ("unrestricted without EPT", |m| m.second(SecondaryControls::UNRESTRICTED_GUEST)),
        ("timer saved", |m| m.set(Field::EXIT_CONTROLS, 1 << 22)),
        ("event, type 1", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 8)),
        ("event, NMI vector", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 2 << 8 | 3)),
        ("event, no error code", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 3 << 8 | 13)),
        ("I/O bitmap A, too high", |m| {
            m.control(ProcControls::IO_BITMAPS);
            m.write(Field::IO_BITMAP_A, 1 << 51);
        }),
        ("MSR bitmap, unaligned", |m| {
            m.control(ProcControls::MSR_BITMAP);
            m.write(Field::MSR_BITMAP, PAGE + 8);
        }),
        ("virtual APIC, unaligned", |m| {
            m.control(ProcControls::TPR_SHADOW);
            m.write(Field::VIRTUAL_APIC, PAGE + 0x80);
        }),
        ("virtual APIC, too high", |m| {
            m.control(ProcControls::TPR_SHADOW);
            m.write(Field::VIRTUAL_APIC, 1 << 51);
        }),
        ("TPR threshold, reserved", |m| {
            m.control(ProcControls::TPR_SHADOW);
            m.write(Field::VIRTUAL_APIC, PAGE);
            m.guest.write(PAGE + 0x80, &[0xff]);
            m.write(Field::TPR_THRESHOLD, 0x10);
        }),
        ("PML without EPT", |m| m.second(SecondaryControls::PAGE_MODIFICATION_LOG)),
        ("PML, unaligned", |m| {
            ept(m, PML4 | 3 << 3 | 6);
            m.second(SecondaryControls::PAGE_MODIFICATION_LOG);
            m.write(Field::PML_ADDRESS, 8);
        }),
        ("PML, too high", |m| {
            ept(m, PML4 | 3 << 3 | 6);
            m.second(SecondaryControls::PAGE_MODIFICATION_LOG);
            m.write(Field::PML_ADDRESS, 1 << 51);
        }),
        ("VMREAD bitmap, unaligned", |m| {
            m.second(SecondaryControls::VMCS_SHADOWING);
            m.write(Field::VMREAD_BITMAP, 8);
        }),
        ("VMWRITE bitmap, too high", |m| {
            m.second(SecondaryControls::VMCS_SHADOWING);
            m.write(Field::VMWRITE_BITMAP, 1 << 51);
        }),
        ("EPTP, uncacheable", |m| ept(m, PML4 | 3 << 3)),
        ("EPTP, five levels", |m| ept(m, PML4 | 4 << 3 | 6)),
        ("EPTP, reserved", |m| ept(m, PML4 | 1 << 7 | 3 << 3 | 6)),
        ("EPTP, too high", |m| ept(m, 1 << 51 | 3 << 3 | 6)),
        ("event, exception above 31", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 3 << 8 | 32)),
        ("event, other than MTF", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 7 << 8 | 1)),
        ("event, error code of an interrupt", |m| {
            m.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 11 | 4 << 8 | 13);
        }),
        ("event, error code of #UD", |m| {
            m.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 11 | 3 << 8 | 6);
        }),
        ("event, reserved", |m| m.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 12 | 3 << 8 | 6)),
        ("event, error code above 16 bits", |m| {
            m.write(Field::ENTRY_INTERRUPTION, VALID | 1 << 11 | 3 << 8 | 13);
            m.write(Field::ENTRY_ERROR_CODE, 1 << 16);
        }),
        ("event, length", |m| {
            m.write(Field::ENTRY_INTERRUPTION, VALID | 4 << 8 | 0x80);
            m.write(Field::ENTRY_INSTRUCTION_LENGTH, 16);
        }),
    ];
    for (name, change) in table {
        let mut machine = Machine::new();
        change(&mut machine);
        assert_eq!(machine.run(|_| Ok(())), REFUSED, "{name}");
    }
}

/// Virtual interrupts, posted by other processors.
fn posted(machine: &mut Machine) {
    machine.control(ProcControls::TPR_SHADOW);
    machine.write(Field::VIRTUAL_APIC, PAGE);
    machine.second(SecondaryControls::VIRTUAL_INTERRUPTS);
    let pin = PinControls::EXTERNAL_INTERRUPT | PinControls::POSTED_INTERRUPTS;
    machine.set(Field::PIN_CONTROLS, pin.bits());
    machine.set(Field::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT.bits());
}

#[test]
fn controls_of_the_virtual_apic_are_checked() {
    use SecondaryControls as S;
    let table: [(&str, Change, End); 14] = [
        ("x2APIC without TPR shadow", |m| m.second(S::X2APIC), REFUSED),
        ("registers without TPR shadow", |m| m.second(S::APIC_REGISTERS), REFUSED),
        (
            "virtual interrupts without TPR shadow",
            |m| {
                m.set(Field::PIN_CONTROLS, PinControls::EXTERNAL_INTERRUPT.bits());
                m.second(S::VIRTUAL_INTERRUPTS);
            },
            REFUSED,
        ),
        (
            "virtual interrupts without external-interrupt exiting",
            |m| {
                m.control(ProcControls::TPR_SHADOW);
                m.write(Field::VIRTUAL_APIC, PAGE);
                m.second(S::VIRTUAL_INTERRUPTS);
            },
            REFUSED,
        ),
        (
            "APIC-access page, unaligned",
            |m| {
                m.second(S::APIC_ACCESSES);
                m.write(Field::APIC_ACCESS, PAGE + 8);
            },
            REFUSED,
        ),
        (
            "APIC-access page, too high",
            |m| {
                m.second(S::APIC_ACCESSES);
                m.write(Field::APIC_ACCESS, 1 << 51);
            },
            REFUSED,
        ),
        (
            "APIC accesses with x2APIC",
            |m| {
                posted(m);
                m.second(S::APIC_ACCESSES | S::X2APIC);
            },
            REFUSED,
        ),
        ("posted interrupts", posted, End::Guest),
        (
            "posted without virtual interrupts",
            |m| {
                posted(m);
                m.write(Field::SECONDARY_CONTROLS, 0);
            },
            REFUSED,
        ),
        (
            "posted without acknowledgement",
            |m| {
                posted(m);
                m.clear_exit(ExitControls::ACKNOWLEDGE_INTERRUPT);
            },
            REFUSED,
        ),
        (
            "notification vector",
            |m| {
                posted(m);
                m.write(Field::POSTED_VECTOR, 0x100);
            },
            REFUSED,
        ),
        (
            "descriptor, unaligned",
            |m| {
                posted(m);
                m.write(Field::POSTED_DESCRIPTOR, PAGE + 0x20);
            },
            REFUSED,
        ),
        (
            "descriptor, too high",
            |m| {
                posted(m);
                m.write(Field::POSTED_DESCRIPTOR, 1 << 51);
            },
            REFUSED,
        ),
        (
            "a threshold that virtual interrupts do not use",
            |m| {
                posted(m);
                m.write(Field::TPR_THRESHOLD, 0x1f);
            },
            End::Guest,
        ),
    ];
    for (name, change, end) in table {
        let mut machine = Machine::new();
        change(&mut machine);
        assert_eq!(machine.run(|_| Ok(())), end, "{name}");
    }
}

#[test]
fn controls_have_the_settings_that_the_capability_msrs_announce() {
    for (field, index) in [
        (Field::PIN_CONTROLS, msr::VMX_TRUE_PINBASED_CTLS),
        (Field::PROC_CONTROLS, msr::VMX_TRUE_PROCBASED_CTLS),
        (Field::SECONDARY_CONTROLS, msr::VMX_PROCBASED_CTLS2),
        (Field::EXIT_CONTROLS, msr::VMX_TRUE_EXIT_CTLS),
        (Field::ENTRY_CONTROLS, msr::VMX_TRUE_ENTRY_CTLS),
    ] {
        let features = Machine::new().guest.vcpu.cpu.ctl.features;
        let announced = capability::read(index, &features).unwrap_or(0);
        for bit in (0..32).map(|n| 1 << n) {
            let (required, permitted) = (announced & bit != 0, announced >> 32 & bit != 0);
            if permitted && !required {
                continue;
            }
            let mut machine = Machine::new();
            if field == Field::SECONDARY_CONTROLS {
                machine.control(ProcControls::SECONDARY);
            }
            let value = machine.read(field);
            machine.write(field, if required { value & !bit } else { value | bit });
            assert_eq!(machine.run(|_| Ok(())), REFUSED, "{field:x?} {bit:#x}");
        }
    }
}

#[test]
fn secondary_controls_that_are_not_activated_are_not_looked_at() {
    let mut machine = Machine::new();
    machine.write(Field::SECONDARY_CONTROLS, u64::MAX);
    assert_eq!(machine.run(|_| Ok(())), End::Guest);
}

#[test]
fn addresses_without_their_controls_and_lists_without_entries_are_not_looked_at() {
    let mut machine = Machine::new();
    for field in [
        Field::IO_BITMAP_A,
        Field::IO_BITMAP_B,
        Field::MSR_BITMAP,
        Field::VIRTUAL_APIC,
        Field::APIC_ACCESS,
        Field::POSTED_DESCRIPTOR,
        Field::EPTP,
        Field::EPTP_LIST,
        Field::VMREAD_BITMAP,
        Field::VMWRITE_BITMAP,
        Field::EXIT_MSR_STORE_ADDRESS,
        Field::EXIT_MSR_LOAD_ADDRESS,
        Field::ENTRY_MSR_LOAD_ADDRESS,
    ] {
        machine.write(field, u64::MAX);
    }
    assert_eq!(machine.run(|_| Ok(())), End::Guest);
}

#[test]
fn msr_lists_are_aligned_and_end_below_the_physical_address_width() {
    for (address, count) in [
        (Field::EXIT_MSR_STORE_ADDRESS, Field::EXIT_MSR_STORE_COUNT),
        (Field::EXIT_MSR_LOAD_ADDRESS, Field::EXIT_MSR_LOAD_COUNT),
        (Field::ENTRY_MSR_LOAD_ADDRESS, Field::ENTRY_MSR_LOAD_COUNT),
    ] {
        let end = 1 << Machine::new().guest.vcpu.cpu.ctl.features.physical_bits;
        for (at, entries) in [(PAGE + 8, 1), (end, 1), (end - 16, 2), (u64::MAX - 15, 1)] {
            let mut machine = Machine::new();
            machine.write(address, at);
            machine.write(count, entries);
            assert_eq!(machine.run(|_| Ok(())), REFUSED, "{address:x?} {at:#x}");
        }
    }
}

#[test]
fn accessed_flags_of_ept_and_an_instruction_length_of_0_are_allowed() {
    let mut machine = with_ept(true);
    machine.write(Field::ENTRY_INTERRUPTION, VALID | 4 << 8 | 0x80);
    machine.write(Field::ENTRY_INSTRUCTION_LENGTH, 0);
    machine.write(Field::GUEST_IDTR_LIMIT, 0);
    machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
    assert_eq!(machine.run(|_| Ok(())), End::Host(0), "injected");
}
