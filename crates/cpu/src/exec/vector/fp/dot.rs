//! DPPS and DPPD: dot products (SDM Vol. 2A).
//!
//! Multiplication and each level of addition are steps of their own: an unmasked exception ends
//! the instruction with the flags of the steps so far.

use cloister_float::{add, mul};

use crate::cpu::Cpu;
use crate::exec::table::{choose, float_rows};
use crate::exec::vector::form::by_form;
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{Op, VEX_256};

float_rows! {
    Dpps | Vdpps => choose(|_, op| by_form!(op, handle_dpps, M128)),
    Dppd | Vdppd => choose(|_, op| by_form!(op, handle_dppd, M128)),
}

extern "C" fn handle_dpps<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_form::<FORM>()?;
    let imm = op.imm as u8;
    if FORM == VEX_256 {
        let b = cpu.ymm_source::<KIND>(op)?;
        let result = dpps(cpu, cpu.arch.vector.ymm(op.third), b, imm)?;
        cpu.arch.vector.set_ymm(op.dst, result);
    } else {
        let b = cpu.xmm_source::<FORM, KIND>(op)?;
        let [result] = dpps(cpu, [cpu.arch.vector.xmm(op.third)], [b], imm)?;
        cpu.arch.vector.set_low::<FORM>(op.dst, result);
    }
    Ok(())
}

extern "C" fn handle_dppd<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_form::<FORM>()?;
    let b = cpu.xmm_source::<FORM, KIND>(op)?;
    let result = dppd(cpu, cpu.arch.vector.xmm(op.third), b, op.imm as u8)?;
    cpu.arch.vector.set_low::<FORM>(op.dst, result);
    Ok(())
}

/// DPPS in one or two lanes: products where bits 7:4 of the immediate have ones, their sum where
/// bits 3:0 have.
///
/// # Errors
///
/// As [`Cpu::simd`].
pub(crate) fn dpps<const LANES: usize>(
    cpu: &mut Cpu,
    a: [Lane; LANES],
    b: [Lane; LANES],
    imm: u8,
) -> Exec<[Lane; LANES]> {
    let (a, b) = (a.map(u32::split), b.map(u32::split));
    let products: [[u32; 4]; LANES] = cpu.simd(|env| {
        std::array::from_fn(|n| {
            std::array::from_fn(|i| {
                if imm >> (4 + i) & 1 != 0 { mul(env, a[n][i], b[n][i]) } else { 0 }
            })
        })
    })?;
    // Every element of the destination gets a sum of its own, with its neighbours in an order of
    // its own: on Intel processors the elements differ where several products are NaNs.
    let pairs: [[u32; 4]; LANES] =
        cpu.simd(|env| products.map(|p| std::array::from_fn(|i| add(env, p[i ^ 1], p[i]))))?;
    let sums: [[u32; 4]; LANES] =
        cpu.simd(|env| pairs.map(|p| std::array::from_fn(|i| add(env, p[i], p[i ^ 2]))))?;
    Ok(sums.map(|sums| {
        u32::join(std::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 }))
    }))
}

/// DPPD: products where bits 5:4 of the immediate have ones, their sum where bits 1:0 have.
///
/// # Errors
///
/// As [`Cpu::simd`].
pub(crate) fn dppd(cpu: &mut Cpu, a: Lane, b: Lane, imm: u8) -> Exec<Lane> {
    let products: Lane = cpu.simd(|env| {
        std::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { mul(env, a[i], b[i]) } else { 0 })
    })?;
    let sums: Lane =
        cpu.simd(|env| std::array::from_fn(|i| add(env, products[i], products[i ^ 1])))?;
    Ok(std::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 }))
}
