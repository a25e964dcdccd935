//! VMCS shadowing (SDM Vol. 3C, 24.10, 25.1.3 and 26.1).

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::SecondaryControls;
use cloister_x86::{Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::instruction::{FAIL_VALID, SUCCEED, outcome};
use super::machine::{End, Machine, PAGE, VMCS};
use crate::testing::DATA;
use crate::vmx::region::{REVISION, SHADOW};

/// The shadow VMCS.
const LINKED: u64 = 0x10_7000;
const READ_BITMAP: u64 = PAGE;
const WRITE_BITMAP: u64 = PAGE + 0x1000;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
/// VMREAD and VMWRITE of the field in RCX; flags go to RBX.
const READ: Code = |a| {
    a.vmread(rax, rcx)?;
    a.pushfq()?;
    a.pop(rbx)
};
const WRITE: Code = |a| {
    a.vmwrite(rcx, rax)?;
    a.pushfq()?;
    a.pop(rbx)
};

/// A machine whose guest may access the field in RCX of a linked VMCS.
fn shadowing(encoding: u64) -> Machine {
    let mut machine = Machine::new();
    machine.second(SecondaryControls::VMCS_SHADOWING);
    machine.write(Field::VMREAD_BITMAP, READ_BITMAP);
    machine.write(Field::VMWRITE_BITMAP, WRITE_BITMAP);
    machine.write(Field::LINK_POINTER, LINKED);
    machine.guest.write_u64(LINKED, (REVISION | SHADOW).into());
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = encoding;
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 0x1234;
    machine
}

fn linked(machine: &Machine, field: Field) -> u64 {
    machine.guest.vcpu.cpu.vmcs(LINKED).read(field)
}

#[test]
fn fields_of_the_linked_vmcs_are_read_and_written_without_an_exit() {
    let field = Field::GUEST_RIP;
    let mut machine = shadowing(field.encoding().into());
    machine.guest.vcpu.cpu.vmcs(LINKED).write(field, 0x5678);
    assert_eq!(machine.run(READ), End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x5678);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx] & 0x41, 0);

    let mut machine = shadowing(field.encoding().into());
    assert_eq!(machine.run(WRITE), End::Guest);
    assert_eq!(linked(&machine, field), 0x1234);
    assert_ne!(machine.read(field), 0x1234);
}

#[test]
fn bits_of_the_bitmaps_and_encodings_beyond_them_exit() {
    for (code, bitmap, reason) in [(READ, READ_BITMAP, 23), (WRITE, WRITE_BITMAP, 25)] {
        let encoding = u64::from(Field::GUEST_RIP.encoding());
        let mut machine = shadowing(encoding);
        machine.guest.write(bitmap + encoding / 8, &[1 << (encoding & 7)]);
        assert_eq!(machine.run(code), End::Host(reason));
        for beyond in [1 << 15 | encoding, 1 << 63 | encoding] {
            assert_eq!(shadowing(beyond).run(code), End::Host(reason), "{beyond:#x}");
        }
        // The other bitmap is not the instruction's.
        let mut machine = shadowing(encoding);
        let other = READ_BITMAP + WRITE_BITMAP - bitmap;
        machine.guest.write(other + encoding / 8, &[1 << (encoding & 7)]);
        assert_eq!(machine.run(code), End::Guest);
    }
}

#[test]
fn without_a_link_or_a_field_the_instruction_fails() {
    for code in [READ, WRITE] {
        let mut machine = shadowing(Field::GUEST_RIP.encoding().into());
        machine.write(Field::LINK_POINTER, u64::MAX);
        assert_eq!(machine.run(code), End::Guest);
        assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx] & 0x8d5, 1, "VMfailInvalid");

        let mut machine = shadowing(0x1000);
        assert_eq!(machine.run(code), End::Guest);
        assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rbx] & 0x8d5, 0x40, "VMfailValid");
        assert_eq!(machine.read(Field::INSTRUCTION_ERROR), 12);
    }
    let mut machine = shadowing(Field::GUEST_RIP.encoding().into());
    machine.write(Field::EXCEPTION_BITMAP, 1 << Vector::Gp as u32);
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rdx] = 0;
    // At CPL 3.
    machine.write(Field::GUEST_SS_SELECTOR, 0x13);
    machine.write(Field::GUEST_SS_RIGHTS, 0xc0f3);
    machine.write(Field::GUEST_CS_SELECTOR, 0xb);
    machine.write(Field::GUEST_CS_RIGHTS, 0xa0fb);
    assert_eq!(machine.run(READ), End::Host(0));
}

#[test]
fn the_link_must_be_to_a_shadow_vmcs() {
    let mut machine = shadowing(0);
    machine.guest.write_u64(LINKED, REVISION.into());
    assert_eq!(machine.run(|_| Ok(())), End::Host(33 | 1 << 31));
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 4);
}

#[test]
fn a_shadow_vmcs_can_be_current_but_not_entered() {
    let mut machine = Machine::new();
    machine.guest.write_u64(VMCS, (REVISION | SHADOW).into());
    assert_eq!(machine.run(|_| Ok(())), End::Refused(None));

    machine.guest.write_u64(PAGE, (REVISION | SHADOW).into());
    machine.guest.write_u64(DATA, PAGE);
    assert_eq!(outcome(&mut machine, |a| a.vmptrld(qword_ptr(rbx))), SUCCEED);
    assert_eq!(machine.guest.vcpu.cpu.arch.vmx.current, Some(PAGE));
    machine.guest.write_u64(DATA, PAGE + 0x1000);
    machine.guest.write_u64(PAGE + 0x1000, (SHADOW | 2).into());
    assert_eq!(outcome(&mut machine, |a| a.vmptrld(qword_ptr(rbx))), FAIL_VALID);
}
