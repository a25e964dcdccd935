//! ENCLS and ENCLV in a guest (SDM Vol. 3C, 25.1.3).

use cloister_sgx::SgxFeatures;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EXIT_REASON_ENCLAVE, Interruptibility, SecondaryControls};
use cloister_x86::{Gpr, msr};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{End, Machine};
use crate::vmx::capability;

const ENCLS: u32 = 60;
const ENCLV: u32 = 70;

/// ENCLV; the assembler knows none without an operand of its own.
fn enclv(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&[0x0f, 0x01, 0xc0])
}

/// A machine whose guest is about to execute `leaf`.
fn machine(leaf: u64) -> Machine {
    let mut machine = Machine::new();
    let cpu = &mut machine.guest.vcpu.cpu;
    cpu.ctl.features.sgx.features = SgxFeatures::SGX1 | SgxFeatures::OVERSUB_ENCLV;
    cpu.ctl.enclv_exiting = Some(0);
    cpu.arch.gpr[Gpr::Rax] = leaf;
    machine
}

#[test]
fn what_the_processor_has_of_sgx_it_lets_hypervisors_intercept() {
    let mut machine = machine(0);
    let optional = |machine: &Machine| {
        let features = &machine.guest.vcpu.cpu.ctl.features;
        let bits = capability::read(msr::VMX_PROCBASED_CTLS2, features).unwrap_or(0) >> 32;
        [15, 28, 29].map(|bit| bits >> bit & 1 != 0)
    };
    assert_eq!(optional(&machine), [true, true, true]);
    machine.guest.vcpu.cpu.ctl.features.sgx.features = SgxFeatures::SGX1;
    assert_eq!(optional(&machine), [true, false, false]);
    machine.guest.vcpu.cpu.ctl.features.sgx.features = SgxFeatures::empty();
    assert_eq!(optional(&machine), [false, false, false]);
    machine.second(SecondaryControls::ENCLS);
    assert_eq!(machine.run(|a| a.nop()), End::Refused(Some(7)));
}

#[test]
fn leaves_exit_by_the_bitmap_of_the_guests_hypervisor_first() {
    // Leaf, bitmap, whether it exits.
    let table: [(u64, u64, bool); 7] = [
        (0, 1, true),
        (2, 1 << 2, true),
        (2, !(1 << 2), false),
        (62, 1 << 62, true),
        (63, 1 << 63, true),
        (0xffff_ffff, 1 << 63, true),
        (64, !(1 << 63), false),
    ];
    for (leaf, bitmap, exits) in table {
        for (control, field, reason) in [
            (SecondaryControls::ENCLS, Field::ENCLS_EXITING, ENCLS),
            (SecondaryControls::ENCLV, Field::ENCLV_EXITING, ENCLV),
        ] {
            let mut machine = machine(leaf);
            machine.guest.vcpu.cpu.ctl.encls_exiting = u64::MAX;
            machine.second(control);
            machine.write(field, bitmap);
            let end = machine.run(|a| if reason == ENCLS { a.encls() } else { enclv(a) });
            assert_eq!(end == End::Host(reason), exits, "{reason} {leaf:#x} {bitmap:#x}: {end:?}");
            if exits {
                assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 3);
            }
        }
    }
}

#[test]
fn without_its_control_encls_does_not_exit_and_enclv_is_undefined() {
    // #GP without a platform to run leaves on, #UD.
    for (encls, interruption) in [(true, 0x8000_0b0d), (false, 0x8000_0306)] {
        let mut machine = machine(3);
        machine.write(Field::ENCLS_EXITING, u64::MAX);
        machine.write(Field::ENCLV_EXITING, u64::MAX);
        machine.write(Field::EXCEPTION_BITMAP, 1 << 6 | 1 << 13);
        assert_eq!(machine.run(|a| if encls { a.encls() } else { enclv(a) }), End::Host(0));
        assert_eq!(machine.read(Field::EXIT_INTERRUPTION), interruption);
    }
}

#[test]
fn an_exit_of_an_injected_event_keeps_the_enclaves_interruption() {
    const UNDEFINED: u64 = 0x8000_0306;
    for state in [0, Interruptibility::ENCLAVE.bits()] {
        let reason = if state == 0 { 0 } else { EXIT_REASON_ENCLAVE };
        let mut machine = machine(0);
        // The gate is missing: #GP, which exits.
        machine.write(Field::GUEST_IDTR_LIMIT, 0);
        machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
        machine.write(Field::ENTRY_INTERRUPTION, UNDEFINED);
        machine.write(Field::GUEST_INTERRUPTIBILITY, state.into());
        assert_eq!(machine.run(|a| a.nop()), End::Host(reason));
        assert_eq!(machine.read(Field::GUEST_INTERRUPTIBILITY), u64::from(state));
        assert_eq!(machine.read(Field::IDT_VECTORING), UNDEFINED);
    }
    // What comes later is the guest's own.
    let mut machine = machine(0);
    machine.write(Field::GUEST_INTERRUPTIBILITY, Interruptibility::ENCLAVE.bits().into());
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    assert_eq!(machine.read(Field::GUEST_INTERRUPTIBILITY), 0);
}
