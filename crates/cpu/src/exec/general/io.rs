//! IN and OUT. INS and OUTS are with the string instructions.

use cloister_x86::Gpr;
use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::Cpu;
use crate::exit::{Exec, Exit};
use crate::mem::Int;
use crate::op::{Handler, Op};

/// The handler of IN and OUT.
pub fn select(instruction: &Instruction, _op: &mut Op) -> Option<Handler> {
    let (data, port) = match instruction.mnemonic() {
        Mnemonic::In => (0, 1),
        Mnemonic::Out => (1, 0),
        _ => return None,
    };
    let input = data == 0;
    let by_dx = instruction.op_kind(port) == OpKind::Register;
    Some(match (input, instruction.op_register(data).size(), by_dx) {
        (true, 1, false) => input_port::<u8, false> as Handler,
        (true, 2, false) => input_port::<u16, false>,
        (true, _, false) => input_port::<u32, false>,
        (true, 1, true) => input_port::<u8, true>,
        (true, 2, true) => input_port::<u16, true>,
        (true, _, true) => input_port::<u32, true>,
        (false, 1, false) => output_port::<u8, false>,
        (false, 2, false) => output_port::<u16, false>,
        (false, _, false) => output_port::<u32, false>,
        (false, 1, true) => output_port::<u8, true>,
        (false, 2, true) => output_port::<u16, true>,
        (false, _, true) => output_port::<u32, true>,
    })
}

#[inline(always)]
fn port<const BY_DX: bool>(cpu: &Cpu, op: &Op) -> u16 {
    if BY_DX { cpu.arch.gpr[Gpr::Rdx] as u16 } else { op.imm as u8 as u16 }
}

fn input_port<T: Int, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let port = port::<BY_DX>(cpu, op);
    cpu.io_permission(port, T::SIZE as u8)?;
    let value = cpu.device(Exit::IoIn { port, size: T::SIZE as u8 })?;
    cpu.set_reg(0, false, T::trunc(value));
    Ok(())
}

fn output_port<T: Int, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let port = port::<BY_DX>(cpu, op);
    cpu.io_permission(port, T::SIZE as u8)?;
    let value = cpu.reg::<T>(0, false).zext() as u32;
    cpu.device(Exit::IoOut { port, size: T::SIZE as u8, value }).map(drop)
}
