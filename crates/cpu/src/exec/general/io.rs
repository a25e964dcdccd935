//! IN and OUT. INS and OUTS are with the string instructions.

use cloister_x86::Gpr;
use iced_x86::{Instruction, OpKind};

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::{Exec, Exit};
use crate::mem::Int;
use crate::op::{Handler, Op};
use crate::vmx::intercept::IoAccess;

rows! {
    In => choose(input_form).ends_block().illegal_in_enclave(),
    Out => choose(output_form).ends_block().illegal_in_enclave(),
}

fn input_form(instruction: &Instruction, _op: &Op) -> Handler {
    let by_dx = instruction.op1_kind() == OpKind::Register;
    match (instruction.op0_register().size(), by_dx) {
        (1, false) => input_port::<u8, false>,
        (2, false) => input_port::<u16, false>,
        (_, false) => input_port::<u32, false>,
        (1, true) => input_port::<u8, true>,
        (2, true) => input_port::<u16, true>,
        (_, true) => input_port::<u32, true>,
    }
}

fn output_form(instruction: &Instruction, _op: &Op) -> Handler {
    let by_dx = instruction.op0_kind() == OpKind::Register;
    match (instruction.op1_register().size(), by_dx) {
        (1, false) => output_port::<u8, false>,
        (2, false) => output_port::<u16, false>,
        (_, false) => output_port::<u32, false>,
        (1, true) => output_port::<u8, true>,
        (2, true) => output_port::<u16, true>,
        (_, true) => output_port::<u32, true>,
    }
}

#[inline(always)]
fn port<const BY_DX: bool>(cpu: &Cpu, op: &Op) -> u16 {
    if BY_DX { cpu.arch.gpr[Gpr::Rdx] as u16 } else { op.imm as u8 as u16 }
}

fn access(port: u16, size: usize, input: bool, immediate: bool) -> IoAccess {
    IoAccess { port, size: size as u8, input, string: None, immediate }
}

extern "C" fn input_port<T: Int, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let port = port::<BY_DX>(cpu, op);
    cpu.io_permission(port, T::SIZE as u8)?;
    cpu.intercept_io(op, access(port, T::SIZE, true, !BY_DX))?;
    let value = cpu.device(Exit::IoIn { port, size: T::SIZE as u8 })?;
    cpu.set_reg(0, false, T::trunc(value));
    Ok(())
}

extern "C" fn output_port<T: Int, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let port = port::<BY_DX>(cpu, op);
    cpu.io_permission(port, T::SIZE as u8)?;
    cpu.intercept_io(op, access(port, T::SIZE, false, !BY_DX))?;
    let value = cpu.reg::<T>(0, false).zext() as u32;
    cpu.device(Exit::IoOut { port, size: T::SIZE as u8, value }).map(drop)
}
