//! FMA: fused multiplication and addition (SDM Vol. 1, 14.5).

use cloister_float::{Env, Format, fma};

use crate::cpu::Cpu;
use crate::exec::table::{float_rows, rewrite};
use crate::exec::vector::form::{by_form, with_low, with_low32};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{Op, VEX_256};

/// [`Op::extra`]: which operands are multiplied, the number of the mnemonic.
const ORDER: u32 = 0xff;
/// [`Op::extra`]: the product is negated.
const NEGATE_PRODUCT: u32 = 1 << 8;
/// [`Op::extra`]: the addend is negated in elements with an even number.
const SUBTRACT_EVEN: u32 = 1 << 9;
/// [`Op::extra`]: the addend is negated in elements with an odd number.
const SUBTRACT_ODD: u32 = 1 << 10;
/// [`Op::extra`]: the addend is negated.
const SUBTRACT: u32 = SUBTRACT_EVEN | SUBTRACT_ODD;

/// The rows of operations, each with a mnemonic for each order of its operands. [`Op::extra`] says
/// which of them it is.
macro_rules! fused_rows {
    ($($handler:ident $kind:ident, $flags:expr => $m132:ident $m213:ident $m231:ident;)*) => {
        float_rows! {
            $(
                $m132 => rewrite(|_, _, op| {
                    Some(Op { run: by_form!(op, $handler, $kind), extra: 132 | $flags, ..op })
                }),
                $m213 => rewrite(|_, _, op| {
                    Some(Op { run: by_form!(op, $handler, $kind), extra: 213 | $flags, ..op })
                }),
                $m231 => rewrite(|_, _, op| {
                    Some(Op { run: by_form!(op, $handler, $kind), extra: 231 | $flags, ..op })
                })
            ),*
        }
    };
}

fused_rows! {
    ps M128, 0 => Vfmadd132ps Vfmadd213ps Vfmadd231ps;
    pd M128, 0 => Vfmadd132pd Vfmadd213pd Vfmadd231pd;
    ss M32, 0 => Vfmadd132ss Vfmadd213ss Vfmadd231ss;
    sd M64, 0 => Vfmadd132sd Vfmadd213sd Vfmadd231sd;
    ps M128, SUBTRACT => Vfmsub132ps Vfmsub213ps Vfmsub231ps;
    pd M128, SUBTRACT => Vfmsub132pd Vfmsub213pd Vfmsub231pd;
    ss M32, SUBTRACT => Vfmsub132ss Vfmsub213ss Vfmsub231ss;
    sd M64, SUBTRACT => Vfmsub132sd Vfmsub213sd Vfmsub231sd;
    ps M128, NEGATE_PRODUCT => Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps;
    pd M128, NEGATE_PRODUCT => Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd;
    ss M32, NEGATE_PRODUCT => Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss;
    sd M64, NEGATE_PRODUCT => Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd;
    ps M128, NEGATE_PRODUCT | SUBTRACT => Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps;
    pd M128, NEGATE_PRODUCT | SUBTRACT => Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd;
    ss M32, NEGATE_PRODUCT | SUBTRACT => Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss;
    sd M64, NEGATE_PRODUCT | SUBTRACT => Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd;
    ps M128, SUBTRACT_EVEN => Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps;
    pd M128, SUBTRACT_EVEN => Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd;
    ps M128, SUBTRACT_ODD => Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps;
    pd M128, SUBTRACT_ODD => Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd;
}

/// One element: `x`, `y` and `z` are the first, second and third operand, of which the mnemonic's
/// digits name the two that are multiplied and the one that is added.
#[inline(always)]
fn element<F: Format>(env: &mut Env, spec: u32, i: usize, x: F, y: F, z: F) -> F {
    let (a, b, c) = match spec & ORDER {
        132 => (x, z, y),
        213 => (y, x, z),
        _ => (y, z, x),
    };
    let subtract = if i.is_multiple_of(2) { SUBTRACT_EVEN } else { SUBTRACT_ODD };
    fma(env, a, b, c, spec & NEGATE_PRODUCT != 0, spec & subtract != 0)
}

#[inline(always)]
fn lane<F: Format + Element>(env: &mut Env, spec: u32, x: Lane, y: Lane, z: Lane) -> Lane {
    let (mut x, y, z) = (F::split(x), F::split(y), F::split(z));
    let others = y.as_ref().iter().zip(z.as_ref());
    for (i, (x, (&y, &z))) in x.as_mut().iter_mut().zip(others).enumerate() {
        *x = element(env, spec, i, *x, y, z);
    }
    F::join(x)
}

#[inline(always)]
fn packed<const FORM: u8, const KIND: u8, F: Format + Element>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let spec = op.extra;
    if FORM == VEX_256 {
        let z = cpu.ymm_source::<KIND>(op)?;
        let (x, y) = (cpu.arch.vector.ymm(op.dst), cpu.arch.vector.ymm(op.third));
        let result = cpu.simd(|env| [0, 1].map(|n| lane::<F>(env, spec, x[n], y[n], z[n])))?;
        cpu.arch.vector.set_ymm(op.dst, result);
    } else {
        let z = cpu.xmm_source::<FORM, KIND>(op)?;
        let (x, y) = (cpu.arch.vector.xmm(op.dst), cpu.arch.vector.xmm(op.third));
        let result = cpu.simd(|env| lane::<F>(env, spec, x, y, z))?;
        cpu.arch.vector.set_low::<FORM>(op.dst, result);
    }
    Ok(())
}

extern "C" fn ps<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    packed::<FORM, KIND, u32>(cpu, op)
}

extern "C" fn pd<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    packed::<FORM, KIND, u64>(cpu, op)
}

extern "C" fn ss<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let z = cpu.xmm_source::<FORM, KIND>(op)?[0] as u32;
    let (x, y) = (cpu.arch.vector.xmm(op.dst), cpu.arch.vector.xmm(op.third)[0] as u32);
    let result = cpu.simd(|env| element(env, op.extra, 0, x[0] as u32, y, z))?;
    cpu.arch.vector.set_low::<FORM>(op.dst, with_low32(x, result));
    Ok(())
}

extern "C" fn sd<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let z = cpu.xmm_source::<FORM, KIND>(op)?[0];
    let (x, y) = (cpu.arch.vector.xmm(op.dst), cpu.arch.vector.xmm(op.third)[0]);
    let result = cpu.simd(|env| element(env, op.extra, 0, x[0], y, z))?;
    cpu.arch.vector.set_low::<FORM>(op.dst, with_low(x, result));
    Ok(())
}
