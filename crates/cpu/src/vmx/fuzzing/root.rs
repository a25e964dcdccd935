//! VMX instructions of the hypervisor's own, with any operands.

use cloister_x86::Gpr;
use cloister_x86::vmcs::{Field, Width};
use iced_x86::Mnemonic;

use super::contents::operands;
use crate::cpu::Cpu;
use crate::state::{ArchState, VmxState};
use crate::testing::{CODE, Numbers};
use crate::vmx::region::Component;
use crate::{Stop, Vcpu};

/// Where an instruction is put, and its operand in memory.
const PLACE: u64 = CODE + 0x100;
pub(super) const OPERAND: u64 = 0x10_a000;
/// RFLAGS of VMsucceed, VMfailInvalid and VMfailValid, and which of its bits these are (SDM Vol. 3C, 30.2).
const SUCCEED: u64 = 0;
const FAIL_INVALID: u64 = 1;
const FAIL_VALID: u64 = 1 << 6;
const ARITHMETIC: u64 = 0x8d5;

/// An instruction, and the errors that it can have (SDM Vol. 3C, table 30-1).
struct Instruction {
    bytes: &'static [u8],
    mnemonic: Mnemonic,
    errors: &'static [u64],
}

const INSTRUCTIONS: [Instruction; 11] = {
    const fn row(bytes: &'static [u8], mnemonic: Mnemonic, errors: &'static [u64]) -> Instruction {
        Instruction { bytes, mnemonic, errors }
    }
    [
        row(&[0x0f, 0xc7, 0x30], Mnemonic::Vmptrld, &[9, 10, 11]), // [RAX]
        row(&[0x66, 0x0f, 0xc7, 0x30], Mnemonic::Vmclear, &[2, 3]), // [RAX]
        row(&[0x0f, 0xc7, 0x38], Mnemonic::Vmptrst, &[]),          // [RAX]
        row(&[0xf3, 0x0f, 0xc7, 0x30], Mnemonic::Vmxon, &[15]),    // [RAX]
        row(&[0x0f, 0x01, 0xc4], Mnemonic::Vmxoff, &[]),
        row(&[0x0f, 0x01, 0xc1], Mnemonic::Vmcall, &[1]),
        row(&[0x0f, 0x78, 0xc8], Mnemonic::Vmread, &[12]), // RAX, RCX
        row(&[0x0f, 0x79, 0xc8], Mnemonic::Vmwrite, &[12]), // RCX, RAX
        row(&[0x0f, 0x79, 0x08], Mnemonic::Vmwrite, &[12]), // RCX, [RAX]
        row(&[0x66, 0x0f, 0x38, 0x80, 0x08], Mnemonic::Invept, &[28]), // RCX, [RAX]
        row(&[0x66, 0x0f, 0x38, 0x81, 0x08], Mnemonic::Invvpid, &[28]), // RCX, [RAX]
    ]
};

/// Executes one of them and judges what it did. RIP is as before.
///
/// Returns whether the processor can go on: its operand may be a device's, or its memory spoilt.
///
/// # Panics
///
/// If it did something that the SDM does not say of it.
pub(super) fn operate(vcpu: &mut Vcpu, numbers: &mut Numbers) -> bool {
    let chosen = &INSTRUCTIONS[numbers.below(INSTRUCTIONS.len() as u64) as usize];
    let rip = vcpu.cpu.arch.rip;
    operands(&mut vcpu.cpu, numbers);
    let mut code = [0x90; 8];
    code[..chosen.bytes.len()].copy_from_slice(chosen.bytes);
    vcpu.cpu.physical_page(PLACE).write(PLACE as usize, u64::from_le_bytes(code));
    vcpu.cpu.arch.rip = PLACE;
    let before = vcpu.cpu.arch.clone();
    let operand = vcpu.cpu.physical_page(OPERAND).read(OPERAND as usize);
    vcpu.decoded.clear();
    let executed = vcpu.execute_one();
    let ours = vcpu.decoded.first().is_some_and(|op| op.mnemonic == chosen.mnemonic);
    match executed {
        Ok(()) | Err(Stop::JUMP) if ours => judge(&vcpu.cpu, chosen, before, operand),
        Err(Stop::FAULT) if ours => {
            vcpu.cpu.take_fault();
            assert_eq!(vcpu.cpu.arch, before, "a fault changes nothing");
        }
        _ => return false,
    }
    vcpu.cpu.arch.rip = rip;
    true
}

/// Judges an instruction that retired. `operand` is what was at [`OPERAND`].
fn judge(cpu: &Cpu, executed: &Instruction, before: ArchState, operand: u64) {
    let (now, was) = (&cpu.arch.vmx, before.vmx.clone());
    let (rax, rcx) = (before.gpr[Gpr::Rax], before.gpr[Gpr::Rcx]);
    let flags = cpu.arch.rflags() & ARITHMETIC;
    let mut expected = before;
    expected.rip = cpu.arch.rip;
    expected.flags = cpu.arch.flags;
    expected.vmx = now.clone();
    if executed.mnemonic == Mnemonic::Vmread && flags == SUCCEED {
        expected.gpr[Gpr::Rax] = cpu.arch.gpr[Gpr::Rax];
    }
    assert_eq!(cpu.arch, expected);
    match flags {
        SUCCEED => {}
        FAIL_INVALID => assert_eq!((now, now.current), (&was, None)),
        FAIL_VALID => {
            assert_eq!(now, &was);
            let current = now.current.expect("the error number is in the current VMCS");
            let error = cpu.vmcs(current).read(Field::INSTRUCTION_ERROR);
            assert!(executed.errors.contains(&error), "{:?}: {error}", executed.mnemonic);
        }
        _ => panic!("{:?}: {flags:#x}", executed.mnemonic),
    }
    if flags != SUCCEED {
        return;
    }
    match executed.mnemonic {
        Mnemonic::Vmxon => assert!(was.vmxon.is_none() && now.current.is_none()),
        Mnemonic::Vmxoff => assert_eq!(now, &VmxState::default()),
        Mnemonic::Vmptrld if rax == OPERAND => assert_eq!(now.current, Some(operand)),
        Mnemonic::Vmclear if rax == OPERAND => {
            assert!(now.current != Some(operand) && !cpu.vmcs(operand).is_launched());
        }
        Mnemonic::Vmptrst if rax == OPERAND => {
            let stored = cpu.physical_page(OPERAND).read(OPERAND as usize);
            assert_eq!(stored, now.current.unwrap_or(u64::MAX));
        }
        Mnemonic::Vmread => assert_eq!(component(cpu, rcx), cpu.arch.gpr[Gpr::Rax]),
        Mnemonic::Vmwrite if executed.bytes[2] == 0xc8 => {
            let bits = match Component::of(rcx).map(|one| one.field.width()) {
                Some(Width::Bits16) => 16,
                Some(Width::Bits64) if rcx & 1 == 0 => 64,
                Some(Width::Natural) => 64,
                _ => 32,
            };
            assert_eq!(component(cpu, rcx), rax & u64::MAX >> (64 - bits));
        }
        _ => {}
    }
}

/// What the current VMCS has for an encoding.
fn component(cpu: &Cpu, encoding: u64) -> u64 {
    let component = Component::of(encoding).expect("the instruction found it");
    let current = cpu.arch.vmx.current.expect("the instruction found it");
    cpu.vmcs(current).load(component)
}
