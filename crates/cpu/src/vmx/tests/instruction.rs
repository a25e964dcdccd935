//! VMX instructions in root operation: their errors, in the order of the manual.

use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::vmcs::Field;
use cloister_x86::{Exception, Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{Machine, PAGE, VMCS, VMXON};
use crate::state::VmxState;
use crate::testing::{DATA, Ending, Guest, Start};

pub(super) type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The arithmetic flags after an instruction, or the vector of its exception.
pub(super) type Outcome = Result<u64, Vector>;
type Change = fn(&mut Machine);
/// Name, instruction, operand in memory, RAX, RCX, error number.
type ErrorRow = (&'static str, Code, [u64; 2], u64, u64, u32);

/// The arithmetic flags after an instruction whose operand is [`DATA`], or its exception.
pub(super) fn outcome(machine: &mut Machine, code: Code) -> Outcome {
    machine.guest.vcpu.catch_exceptions(true);
    machine.guest.assemble(code);
    let cpu = &mut machine.guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = DATA;
    cpu.arch.rip = crate::testing::CODE;
    cpu.arch.flags.set_bits(0x8d5);
    let code = match machine.guest.run() {
        Ending::Exception(exception) => exception,
        Ending::Exit(exit) => panic!("{exit:?}"),
    };
    let cpu = &machine.guest.vcpu.cpu;
    // UD2 follows the instruction.
    if cpu.arch.rip == crate::testing::CODE { Err(code.vector) } else { Ok(cpu.rflags() & 0x8d5) }
}

pub(super) const SUCCEED: Outcome = Ok(0);
const FAIL_INVALID: Outcome = Ok(1);
pub(super) const FAIL_VALID: Outcome = Ok(0x40);

const VMXON_CODE: Code = |a| a.vmxon(qword_ptr(rbx));

#[test]
fn without_vmx_its_instructions_are_undefined_and_cr4_has_no_vmxe() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA;
    guest.assemble(|a| a.vmxon(qword_ptr(rbx)));
    assert_eq!(guest.run(), Ending::Exception(Exception::ud()));

    let mut guest = Guest::new(Start::Kernel64);
    let value = guest.vcpu.cpu.arch.cr4 | Cr4::VMXE;
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = value.bits();
    guest.assemble(|a| a.mov(cr4, rax));
    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
}

#[test]
fn vmxon_checks_mode_privilege_registers_feature_control_and_its_region() {
    let table: [(&str, Change, Outcome); 9] = [
        ("as it should be", |_| {}, SUCCEED),
        ("VMXE clear", |m| m.guest.vcpu.cpu.arch.cr4.remove(Cr4::VMXE), Err(Vector::Ud)),
        ("CPL 3", |m| m.guest.vcpu.cpu.arch.cpl = 3, Err(Vector::Gp)),
        ("NE clear", |m| m.guest.vcpu.cpu.arch.cr0.remove(Cr0::NE), Err(Vector::Gp)),
        ("not enabled", |m| m.guest.vcpu.cpu.ctl.vmx_enabled = false, Err(Vector::Gp)),
        ("unaligned", |m| m.guest.write_u64(DATA, VMXON + 8), FAIL_INVALID),
        ("too high", |m| m.guest.write_u64(DATA, 1 << 52), FAIL_INVALID),
        ("wrong revision", |m| m.guest.write_u64(VMXON, 0x55), FAIL_INVALID),
        ("shadow", |m| m.guest.write_u64(VMXON, 0x8000_0001), FAIL_INVALID),
    ];
    for (name, change, expected) in table {
        let mut machine = Machine::new();
        machine.guest.vcpu.cpu.arch.vmx = VmxState::default();
        machine.guest.write_u64(DATA, VMXON);
        change(&mut machine);
        machine.guest.vcpu.cpu.update_mode();

        assert_eq!(outcome(&mut machine, VMXON_CODE), expected, "{name}");
        let entered = machine.guest.vcpu.cpu.arch.vmx.vmxon == Some(VMXON);
        assert_eq!(entered, expected == SUCCEED, "{name}");
    }
}

#[test]
fn instructions_outside_vmx_operation_are_undefined() {
    let table: [Code; 11] = [
        |a| a.vmxoff(),
        |a| a.vmcall(),
        |a| a.vmlaunch(),
        |a| a.vmresume(),
        |a| a.vmclear(qword_ptr(rbx)),
        |a| a.vmptrld(qword_ptr(rbx)),
        |a| a.vmptrst(qword_ptr(rbx)),
        |a| a.vmread(rax, rcx),
        |a| a.vmwrite(rax, rcx),
        |a| a.invept(rax, xmmword_ptr(rbx)),
        |a| a.invvpid(rax, xmmword_ptr(rbx)),
    ];
    for (n, code) in table.into_iter().enumerate() {
        let mut machine = Machine::new();
        machine.guest.vcpu.cpu.arch.vmx = VmxState::default();
        assert_eq!(outcome(&mut machine, code), Err(Vector::Ud), "{n}");
        let mut machine = Machine::new();
        machine.guest.vcpu.cpu.arch.cpl = 3;
        machine.guest.vcpu.cpu.update_mode();
        assert_eq!(outcome(&mut machine, code), Err(Vector::Gp), "{n} at CPL 3");
    }
}

#[test]
fn each_error_of_an_instruction_has_its_number() {
    let table: [ErrorRow; 17] = [
        ("VMXON again", VMXON_CODE, [VMXON, 0], 0, 0, 15),
        ("VMCALL", |a| a.vmcall(), [0; 2], 0, 0, 1),
        ("VMCLEAR, unaligned", |a| a.vmclear(qword_ptr(rbx)), [VMCS + 1, 0], 0, 0, 2),
        ("VMCLEAR, too high", |a| a.vmclear(qword_ptr(rbx)), [1 << 51, 0], 0, 0, 2),
        ("VMCLEAR, VMXON region", |a| a.vmclear(qword_ptr(rbx)), [VMXON, 0], 0, 0, 3),
        ("VMPTRLD, unaligned", |a| a.vmptrld(qword_ptr(rbx)), [VMCS + 1, 0], 0, 0, 9),
        ("VMPTRLD, VMXON region", |a| a.vmptrld(qword_ptr(rbx)), [VMXON, 0], 0, 0, 10),
        ("VMPTRLD, revision", |a| a.vmptrld(qword_ptr(rbx)), [PAGE, 0], 0, 0, 11),
        ("VMRESUME", |a| a.vmresume(), [0; 2], 0, 0, 5),
        ("VMREAD, no field", |a| a.vmread(rax, rcx), [0; 2], 0, 0x1000, 12),
        ("VMWRITE, no field", |a| a.vmwrite(rcx, rax), [0; 2], 0, 0x1000, 12),
        ("INVEPT, type", |a| a.invept(rax, xmmword_ptr(rbx)), [0; 2], 0, 0, 28),
        ("INVEPT, EPTP", |a| a.invept(rax, xmmword_ptr(rbx)), [0; 2], 1, 0, 28),
        ("INVVPID, type", |a| a.invvpid(rax, xmmword_ptr(rbx)), [0; 2], 4, 0, 28),
        ("INVVPID, VPID 0", |a| a.invvpid(rax, xmmword_ptr(rbx)), [0; 2], 1, 0, 28),
        ("INVVPID, reserved", |a| a.invvpid(rax, xmmword_ptr(rbx)), [1 << 16, 0], 2, 0, 28),
        ("INVVPID, address", |a| a.invvpid(rax, xmmword_ptr(rbx)), [1, 1 << 50], 0, 0, 28),
    ];
    for (name, code, operand, accumulator, counter, error) in table {
        let mut machine = Machine::new();
        machine.guest.write_u64(DATA, operand[0]);
        machine.guest.write_u64(DATA + 8, operand[1]);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax] = accumulator;
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = counter;

        assert_eq!(outcome(&mut machine, code), FAIL_VALID, "{name}");
        assert_eq!(machine.read(Field::INSTRUCTION_ERROR), error.into(), "{name}");
        // Without a current VMCS there is no number.
        machine.guest.vcpu.cpu.arch.vmx.current = None;
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax] = accumulator;
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = counter;
        assert_eq!(outcome(&mut machine, code), FAIL_INVALID, "{name}");
    }
}

#[test]
fn vmx_instructions_are_undefined_in_compatibility_mode() {
    let table: [Code; 4] =
        [|a| a.vmlaunch(), |a| a.vmresume(), |a| a.vmxoff(), |a| a.vmptrld(qword_ptr(ebx))];
    for (n, code) in table.into_iter().enumerate() {
        let mut machine = Machine::new();
        machine.guest.vcpu.cpu.arch.segs[seg::CS].rights = Rights(0xc09b);
        machine.guest.vcpu.cpu.update_mode();
        assert_eq!(outcome(&mut machine, code), Err(Vector::Ud), "{n}");
    }
}

#[test]
fn vmclear_and_vmptrld_change_the_current_vmcs_and_vmptrst_stores_it() {
    let mut machine = Machine::new();
    machine.guest.write_u64(DATA, VMCS);
    assert_eq!(outcome(&mut machine, |a| a.vmclear(qword_ptr(rbx))), SUCCEED);
    assert_eq!(machine.guest.vcpu.cpu.arch.vmx.current, None);
    assert_eq!(outcome(&mut machine, |a| a.vmptrst(qword_ptr(rbx))), SUCCEED);
    assert_eq!(machine.guest.read_u64(DATA), u64::MAX);
    machine.guest.write_u64(DATA, VMCS);
    assert_eq!(outcome(&mut machine, |a| a.vmptrld(qword_ptr(rbx))), SUCCEED);
    assert_eq!(machine.guest.vcpu.cpu.arch.vmx.current, Some(VMCS));
}

#[test]
fn fields_keep_what_is_written_in_their_width() {
    const VALUE: u64 = 0x1122_3344_5566_7788;
    for (encoding, expected) in [
        (Field::VPID.encoding(), 0x7788),
        (Field::EXCEPTION_BITMAP.encoding(), 0x5566_7788),
        (Field::TSC_OFFSET.encoding(), VALUE),
        (Field::GUEST_RSP.encoding(), VALUE),
        (Field::EXIT_REASON.encoding(), 0x5566_7788),
    ] {
        let mut machine = Machine::new();
        let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
        (gpr[Gpr::Rcx], gpr[Gpr::Rax]) = (encoding.into(), VALUE);
        let code: Code = |a| {
            a.vmwrite(rcx, rax)?;
            a.vmread(rdx, rcx)
        };
        assert_eq!(outcome(&mut machine, code), SUCCEED);
        assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rdx], expected, "{encoding:#x}");
    }
    // The high half of a 64-bit field alone.
    let mut machine = Machine::new();
    machine.write(Field::TSC_OFFSET, 5);
    let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
    (gpr[Gpr::Rcx], gpr[Gpr::Rax]) = (u64::from(Field::TSC_OFFSET.encoding() | 1), VALUE);
    assert_eq!(outcome(&mut machine, |a| a.vmwrite(rcx, rax)), SUCCEED);
    assert_eq!(machine.read(Field::TSC_OFFSET), 0x5566_7788_0000_0005);
}
