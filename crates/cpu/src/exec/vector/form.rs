//! The shapes of handlers: where operands come from and where the result goes.
//!
//! The semantics of packed instructions are functions of [`Lane`]s; the macros here make the
//! handlers of an instruction from such a function.

use cloister_x86::regs::Cr4;
use cloister_x86::{Exception, Vector};

use super::lane::Lane;
use crate::exit::Stop;
use crate::float::{Env, Flags};
use crate::mem::Plain;
use crate::mem::tlb::AccessKind;
use crate::op::Op;
use crate::state::{Cpu, Exec};

/// Source kind: a register.
pub const REGISTER: u8 = 0;
/// Source kind: 16 bits of memory.
pub const M16: u8 = 2;
/// Source kind: 32 bits of memory.
pub const M32: u8 = 4;
/// Source kind: 64 bits of memory.
pub const M64: u8 = 8;
/// Source kind: 128 bits of memory at a 16-byte boundary.
pub const M128: u8 = 16;
/// Source kind: 128 bits of memory at any address.
pub const M128_ANY: u8 = 17;

/// The quadwords of a 16-byte value.
#[inline(always)]
pub fn lane_of(value: u128) -> Lane {
    [value as u64, (value >> 64) as u64]
}

/// The 16-byte value of two quadwords.
#[inline(always)]
pub fn value_of(lane: Lane) -> u128 {
    u128::from(lane[0]) | u128::from(lane[1]) << 64
}

/// Replaces the low quadword.
#[inline(always)]
pub fn with_low(old: Lane, low: u64) -> Lane {
    [low, old[1]]
}

/// Replaces the low doubleword.
#[inline(always)]
pub fn with_low32(old: Lane, low: u32) -> Lane {
    [old[0] & !0xffff_ffff | u64::from(low), old[1]]
}

impl Cpu {
    /// Linear address of a 16-byte operand that has to be aligned.
    ///
    /// # Errors
    ///
    /// #GP(0) where it is not (SDM Vol. 1, 10.4.1.1), and as [`Cpu::linear`].
    #[inline(always)]
    pub fn linear_aligned(&mut self, op: &Op, kind: AccessKind) -> Exec<u64> {
        let la = self.linear(op, 16, kind)?;
        if la & 15 != 0 {
            return Err(self.gp(0));
        }
        Ok(la)
    }

    /// Reads a source operand of `KIND` into the low bits of a lane, with zeros above.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load_operand`], and #GP(0) of an alignment.
    #[inline(always)]
    pub fn xmm_source<const KIND: u8>(&mut self, op: &Op) -> Exec<Lane> {
        Ok(match KIND {
            REGISTER => self.vector.xmm(op.src),
            M16 => [u64::from(self.load_operand::<u16>(op)?), 0],
            M32 => [u64::from(self.load_operand::<u32>(op)?), 0],
            M64 => [self.load_operand::<u64>(op)?, 0],
            M128 => {
                let la = self.linear_aligned(op, AccessKind::Read)?;
                lane_of(self.load::<u128>(la)?)
            }
            _ => lane_of(self.load_operand::<u128>(op)?),
        })
    }

    /// Runs a floating-point computation under MXCSR (SDM Vol. 1, 11.5).
    ///
    /// # Errors
    ///
    /// #XM where it raises an unmasked exception, #UD where the system has not enabled #XM; only
    /// the flags of MXCSR have changed then.
    #[inline(always)]
    pub fn simd<R>(&mut self, compute: impl FnOnce(&mut Env) -> R) -> Exec<R> {
        let mut env = Env::sse(self.vector.mxcsr);
        let result = compute(&mut env);
        if !env.pending.is_empty() {
            return Err(self.simd_exception(&env));
        }
        self.vector.mxcsr |= u32::from(env.flags.bits());
        Ok(result)
    }

    #[cold]
    #[inline(never)]
    fn simd_exception(&mut self, env: &Env) -> Stop {
        let mut flags = env.flags;
        if env.pending.intersects(Flags::PRE_COMPUTATION) {
            // No element got as far as a result (SDM Vol. 1, 11.5.2).
            flags &= Flags::PRE_COMPUTATION;
        }
        self.vector.mxcsr |= u32::from(flags.bits());
        if !self.cr4.contains(Cr4::OSXMMEXCPT) {
            return self.ud();
        }
        self.raise(Exception::new(Vector::Xm))
    }
}

/// `xmm1 = f(xmm1, xmm2/mem)`.
#[inline(always)]
pub fn binary<const KIND: u8>(cpu: &mut Cpu, op: &Op, f: impl Fn(Lane, Lane) -> Lane) -> Exec {
    cpu.check_sse()?;
    let b = cpu.xmm_source::<KIND>(op)?;
    let a = cpu.vector.xmm(op.dst);
    cpu.vector.set_xmm(op.dst, f(a, b));
    Ok(())
}

/// `xmm1 = f(xmm1, xmm2/mem)` under MXCSR.
#[inline(always)]
pub fn float<const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(&mut Env, Lane, Lane) -> Lane,
) -> Exec {
    cpu.check_sse()?;
    let b = cpu.xmm_source::<KIND>(op)?;
    let a = cpu.vector.xmm(op.dst);
    let result = cpu.simd(|env| f(env, a, b))?;
    cpu.vector.set_xmm(op.dst, result);
    Ok(())
}

/// `mm1 = f(mm1, mm2/mem)`; a memory operand has the size of `M`.
#[inline(always)]
pub fn mmx_binary<M: Plain + Into<u64>, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(u64, u64) -> u64,
) -> Exec {
    cpu.check_mmx()?;
    let b = if MEMORY { cpu.load_operand::<M>(op)?.into() } else { cpu.mmx(op.src) };
    let a = cpu.mmx(op.dst);
    cpu.set_mmx(op.dst, f(a, b));
    Ok(())
}

/// The handler of `xmm1 = f(xmm1, xmm2/mem)` with a memory operand of the given kind.
macro_rules! sse {
    ($op:expr, $kind:ident, $f:expr) => {{
        fn run<const KIND: u8>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            $crate::exec::vector::form::binary::<KIND>(cpu, op, $f)
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<{ $crate::exec::vector::form::REGISTER }> as $crate::op::Handler
        } else {
            run::<{ $crate::exec::vector::form::$kind }>
        }
    }};
}

/// The handler of `xmm1 = f(xmm1, xmm2/mem, imm8)`.
macro_rules! sse_imm {
    ($op:expr, $kind:ident, $f:expr) => {{
        fn run<const KIND: u8>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            let imm = op.imm as u8;
            $crate::exec::vector::form::binary::<KIND>(cpu, op, |a, b| $f(a, b, imm))
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<{ $crate::exec::vector::form::REGISTER }> as $crate::op::Handler
        } else {
            run::<{ $crate::exec::vector::form::$kind }>
        }
    }};
}

/// The handler of `xmm1 = f(xmm1, xmm2/mem)` under MXCSR.
macro_rules! sse_float {
    ($op:expr, $kind:ident, $f:expr) => {{
        fn run<const KIND: u8>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            $crate::exec::vector::form::float::<KIND>(cpu, op, $f)
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<{ $crate::exec::vector::form::REGISTER }> as $crate::op::Handler
        } else {
            run::<{ $crate::exec::vector::form::$kind }>
        }
    }};
}

/// The handler of `xmm1 = f(xmm1, xmm2/mem, imm8)` under MXCSR.
macro_rules! sse_float_imm {
    ($op:expr, $kind:ident, $f:expr) => {{
        fn run<const KIND: u8>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            let imm = op.imm as u8;
            $crate::exec::vector::form::float::<KIND>(cpu, op, |env, a, b| $f(env, a, b, imm))
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<{ $crate::exec::vector::form::REGISTER }> as $crate::op::Handler
        } else {
            run::<{ $crate::exec::vector::form::$kind }>
        }
    }};
}

/// The handler of `mm1 = f(mm1, mm2/mem)` for a function of two quadwords.
macro_rules! mmx {
    ($op:expr, $memory:ty, $f:expr) => {{
        fn run<const MEMORY: bool>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            $crate::exec::vector::form::mmx_binary::<$memory, MEMORY>(cpu, op, $f)
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<false> as $crate::op::Handler
        } else {
            run::<true>
        }
    }};
}

/// The handler of `mm1 = f(mm1, mm2/mem, imm8)`.
macro_rules! mmx_imm {
    ($op:expr, $memory:ty, $f:expr) => {{
        fn run<const MEMORY: bool>(
            cpu: &mut $crate::state::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::state::Exec {
            let imm = op.imm as u8;
            $crate::exec::vector::form::mmx_binary::<$memory, MEMORY>(cpu, op, |a, b| $f(a, b, imm))
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<false> as $crate::op::Handler
        } else {
            run::<true>
        }
    }};
}

/// The handler of an instruction that treats elements one by one: the MMX form operates on the
/// low half of a lane.
macro_rules! packed {
    ($instruction:expr, $op:expr, $f:expr) => {
        if $instruction.op0_register().is_mm() {
            $crate::exec::vector::form::mmx!($op, u64, |a, b| $f([a, 0], [b, 0])[0])
        } else {
            $crate::exec::vector::form::sse!($op, M128, $f)
        }
    };
}

pub(super) use {mmx, mmx_imm, packed, sse, sse_float, sse_float_imm, sse_imm};
