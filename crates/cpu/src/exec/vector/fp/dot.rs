//! DPPS and DPPD: dot products (SDM Vol. 2A).
//!
//! Multiplication and each level of addition are steps of their own: an unmasked exception ends
//! the instruction with the flags of the steps so far.

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::{M128, REGISTER};
use crate::exec::vector::lane::{Element, Lane};
use crate::float::{add, mul};
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::{Cpu, Exec};

/// The handler of a dot product.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    let memory = op.mem_operand != NO_MEMORY;
    Some(match instruction.mnemonic() {
        Mnemonic::Dpps if memory => handle_dpps::<M128>,
        Mnemonic::Dpps => handle_dpps::<REGISTER>,
        Mnemonic::Dppd if memory => handle_dppd::<M128>,
        Mnemonic::Dppd => handle_dppd::<REGISTER>,
        _ => return None,
    })
}

fn handle_dpps<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    let b = cpu.xmm_source::<KIND>(op)?;
    let result = dpps(cpu, cpu.vector.xmm(op.dst), b, op.imm as u8)?;
    cpu.vector.set_xmm(op.dst, result);
    Ok(())
}

fn handle_dppd<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    let b = cpu.xmm_source::<KIND>(op)?;
    let result = dppd(cpu, cpu.vector.xmm(op.dst), b, op.imm as u8)?;
    cpu.vector.set_xmm(op.dst, result);
    Ok(())
}

/// DPPS: products where bits 7:4 of the immediate have ones, their sum where bits 3:0 have.
///
/// # Errors
///
/// As [`Cpu::simd`].
pub fn dpps(cpu: &mut Cpu, a: Lane, b: Lane, imm: u8) -> Exec<Lane> {
    let (a, b) = (u32::split(a), u32::split(b));
    let products: [u32; 4] = cpu.simd(|env| {
        std::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { mul(env, a[i], b[i]) } else { 0 })
    })?;
    // Every element of the destination gets a sum of its own, with its neighbours in an order of
    // its own: on Intel processors the elements differ where several products are NaNs.
    let pairs: [u32; 4] =
        cpu.simd(|env| std::array::from_fn(|i| add(env, products[i ^ 1], products[i])))?;
    let sums: [u32; 4] =
        cpu.simd(|env| std::array::from_fn(|i| add(env, pairs[i], pairs[i ^ 2])))?;
    Ok(u32::join(std::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 })))
}

/// DPPD: products where bits 5:4 of the immediate have ones, their sum where bits 1:0 have.
///
/// # Errors
///
/// As [`Cpu::simd`].
pub fn dppd(cpu: &mut Cpu, a: Lane, b: Lane, imm: u8) -> Exec<Lane> {
    let products: Lane = cpu.simd(|env| {
        std::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { mul(env, a[i], b[i]) } else { 0 })
    })?;
    let sums: Lane =
        cpu.simd(|env| std::array::from_fn(|i| add(env, products[i], products[i ^ 1])))?;
    Ok(std::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 }))
}
