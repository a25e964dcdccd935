//! The shapes of handlers: where operands come from and where the result goes.
//!
//! The semantics of packed instructions are functions of [`Lane`]s; the macros here make the
//! handlers of an instruction from such a function: one for each form ([`Op::vex`]) and place of
//! the last operand. Operands are where `super::select` has put them: `dst` is the destination,
//! `third` the first source (for legacy SSE forms the destination again), `src` the last source.
//! 256-bit instructions do in each lane what the 128-bit ones do in theirs.

use cloister_float::{Env, Flags};
use cloister_x86::regs::Cr4;
use cloister_x86::{Exception, Vector};

use super::lane::{Lane, Wide};
use crate::cpu::Cpu;
use crate::exit::{Exec, Stop};
use crate::mem::Plain;
use crate::mem::tlb::AccessKind;
use crate::op::{LEGACY, Op, VEX_256};

/// Source kind: a register.
pub(crate) const REGISTER: u8 = 0;
/// Source kind: 8 bits of memory.
pub(crate) const M8: u8 = 1;
/// Source kind: 16 bits of memory.
pub(crate) const M16: u8 = 2;
/// Source kind: 32 bits of memory.
pub(crate) const M32: u8 = 4;
/// Source kind: 64 bits of memory.
pub(crate) const M64: u8 = 8;
/// Source kind: a vector in memory, at a 16-byte boundary without a VEX prefix.
pub(crate) const M128: u8 = 16;
/// Source kind: a vector in memory at any address.
pub(crate) const M128_ANY: u8 = 17;
/// Source kind: a vector in memory at a multiple of its size.
pub(crate) const M128_ALIGNED: u8 = 18;

/// The quadwords of a 16-byte value.
#[inline(always)]
pub(crate) fn lane_of(value: u128) -> Lane {
    [value as u64, (value >> 64) as u64]
}

/// The 16-byte value of two quadwords.
#[inline(always)]
pub(crate) fn value_of(lane: Lane) -> u128 {
    u128::from(lane[0]) | u128::from(lane[1]) << 64
}

/// Replaces the low quadword.
#[inline(always)]
pub(crate) fn with_low(old: Lane, low: u64) -> Lane {
    [low, old[1]]
}

/// Replaces the low doubleword.
#[inline(always)]
pub(crate) fn with_low32(old: Lane, low: u32) -> Lane {
    [old[0] & !0xffff_ffff | u64::from(low), old[1]]
}

impl Cpu {
    /// Linear address of a vector operand that has to be aligned to its size.
    ///
    /// # Errors
    ///
    /// #GP(0) where it is not (SDM Vol. 1, 10.4.1.1 and 14.9), and as [`Cpu::linear`].
    #[inline(always)]
    pub(crate) fn linear_aligned(&mut self, op: &Op, size: usize, kind: AccessKind) -> Exec<u64> {
        self.linear_at_multiple(op, size as u64, size, kind)
    }

    /// Reads the last source operand, of `KIND`, into the low bits of a lane, with zeros above.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load_operand`], and #GP(0) of an alignment.
    #[inline(always)]
    pub(crate) fn xmm_source<const FORM: u8, const KIND: u8>(&mut self, op: &Op) -> Exec<Lane> {
        Ok(match KIND {
            REGISTER => self.arch.vector.xmm(op.src),
            M8 => [u64::from(self.load_operand::<u8>(op)?), 0],
            M16 => [u64::from(self.load_operand::<u16>(op)?), 0],
            M32 => [u64::from(self.load_operand::<u32>(op)?), 0],
            M64 => [self.load_operand::<u64>(op)?, 0],
            _ if is_aligned::<FORM, KIND>() => {
                let la = self.linear_aligned(op, 16, AccessKind::Read)?;
                lane_of(self.load::<u128>(la)?)
            }
            _ => lane_of(self.load_operand::<u128>(op)?),
        })
    }

    /// Reads the last source operand, a YMM register or 256 bits of memory.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load_operand`], and #GP(0) of an alignment.
    #[inline(always)]
    pub(crate) fn ymm_source<const KIND: u8>(&mut self, op: &Op) -> Exec<Wide> {
        if KIND == REGISTER {
            return Ok(self.arch.vector.ymm(op.src));
        }
        let [a, b, c, d] = if is_aligned::<VEX_256, KIND>() {
            let la = self.linear_aligned(op, 32, AccessKind::Read)?;
            self.load::<[u64; 4]>(la)?
        } else {
            self.load_operand::<[u64; 4]>(op)?
        };
        Ok([[a, b], [c, d]])
    }

    /// Writes a YMM register's value to the memory operand, at a multiple of 32 where `ALIGNED`.
    ///
    /// # Errors
    ///
    /// As [`Cpu::store_operand`], and #GP(0) of an alignment.
    #[inline(always)]
    pub(crate) fn store_ymm<const ALIGNED: bool>(&mut self, op: &Op, [low, high]: Wide) -> Exec {
        let la = if ALIGNED {
            self.linear_aligned(op, 32, AccessKind::Write)?
        } else {
            self.linear(op, 32, AccessKind::Write)?
        };
        self.store(la, [low[0], low[1], high[0], high[1]])
    }

    /// Runs a floating-point computation under MXCSR (SDM Vol. 1, 11.5).
    ///
    /// # Errors
    ///
    /// #XM where it raises an unmasked exception, #UD where the system has not enabled #XM; only
    /// the flags of MXCSR have changed then.
    #[inline(always)]
    pub(crate) fn simd<R>(&mut self, compute: impl FnOnce(&mut Env) -> R) -> Exec<R> {
        let mut env = Env::sse(self.arch.vector.mxcsr);
        let result = compute(&mut env);
        if !env.pending.is_empty() {
            return Err(self.simd_exception(&env));
        }
        self.arch.vector.mxcsr |= u32::from(env.flags.bits());
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
        self.arch.vector.mxcsr |= u32::from(flags.bits());
        if !self.arch.cr4.contains(Cr4::OSXMMEXCPT) {
            return self.ud();
        }
        self.raise(Exception::new(Vector::Xm))
    }
}

/// Whether memory of a kind has to be aligned.
const fn is_aligned<const FORM: u8, const KIND: u8>() -> bool {
    KIND == M128_ALIGNED || KIND == M128 && FORM == LEGACY
}

/// `dst = f(a, b)`.
#[inline(always)]
pub(crate) fn binary<const FORM: u8, const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(Lane, Lane) -> Lane,
) -> Exec {
    cpu.check_form::<FORM>()?;
    if FORM == VEX_256 {
        let b = cpu.ymm_source::<KIND>(op)?;
        let a = cpu.arch.vector.ymm(op.third);
        cpu.arch.vector.set_ymm(op.dst, [f(a[0], b[0]), f(a[1], b[1])]);
    } else {
        let b = cpu.xmm_source::<FORM, KIND>(op)?;
        let a = cpu.arch.vector.xmm(op.third);
        cpu.arch.vector.set_low::<FORM>(op.dst, f(a, b));
    }
    Ok(())
}

/// `dst = f(a, b, imm8)`; the high lane sees the immediate shifted right by `SHIFT`.
#[inline(always)]
pub(crate) fn binary_imm<const FORM: u8, const KIND: u8, const SHIFT: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(Lane, Lane, u8) -> Lane,
) -> Exec {
    let imm = op.imm as u8;
    cpu.check_form::<FORM>()?;
    if FORM == VEX_256 {
        let b = cpu.ymm_source::<KIND>(op)?;
        let a = cpu.arch.vector.ymm(op.third);
        cpu.arch.vector.set_ymm(op.dst, [f(a[0], b[0], imm), f(a[1], b[1], imm >> SHIFT)]);
    } else {
        let b = cpu.xmm_source::<FORM, KIND>(op)?;
        let a = cpu.arch.vector.xmm(op.third);
        cpu.arch.vector.set_low::<FORM>(op.dst, f(a, b, imm));
    }
    Ok(())
}

/// `dst = f(a, b)` under MXCSR.
#[inline(always)]
pub(crate) fn float<const FORM: u8, const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(&mut Env, Lane, Lane) -> Lane,
) -> Exec {
    cpu.check_form::<FORM>()?;
    if FORM == VEX_256 {
        let b = cpu.ymm_source::<KIND>(op)?;
        let a = cpu.arch.vector.ymm(op.third);
        let result = cpu.simd(|env| [f(env, a[0], b[0]), f(env, a[1], b[1])])?;
        cpu.arch.vector.set_ymm(op.dst, result);
    } else {
        let b = cpu.xmm_source::<FORM, KIND>(op)?;
        let a = cpu.arch.vector.xmm(op.third);
        let result = cpu.simd(|env| f(env, a, b))?;
        cpu.arch.vector.set_low::<FORM>(op.dst, result);
    }
    Ok(())
}

/// The source of an instruction whose result elements are wider than its source elements: the
/// part for the low lane, `BYTES` long, and the one for the high lane. Memory is `BYTES` long for
/// 128-bit results, twice that for 256-bit ones.
#[inline(always)]
fn narrow_source<const FORM: u8, const MEMORY: bool, const BYTES: u8>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec<Wide> {
    let size = if FORM == VEX_256 { 2 * BYTES } else { BYTES };
    let b = match size {
        _ if !MEMORY => cpu.arch.vector.xmm(op.src),
        2 => [u64::from(cpu.load_operand::<u16>(op)?), 0],
        4 => [u64::from(cpu.load_operand::<u32>(op)?), 0],
        8 => [cpu.load_operand::<u64>(op)?, 0],
        _ => lane_of(cpu.load_operand::<u128>(op)?),
    };
    Ok([b, lane_of(value_of(b) >> (8 * BYTES))])
}

/// `dst = f(b)` in each lane, of source elements that are narrower than those of the result.
#[inline(always)]
pub(crate) fn widen<const FORM: u8, const MEMORY: bool, const BYTES: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(Lane) -> Lane,
) -> Exec {
    cpu.check_form::<FORM>()?;
    let [low, high] = narrow_source::<FORM, MEMORY, BYTES>(cpu, op)?;
    if FORM == VEX_256 {
        cpu.arch.vector.set_ymm(op.dst, [f(low), f(high)]);
    } else {
        cpu.arch.vector.set_low::<FORM>(op.dst, f(low));
    }
    Ok(())
}

/// [`widen`] under MXCSR, from half as wide elements.
#[inline(always)]
pub(crate) fn float_widen<const FORM: u8, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(&mut Env, u64) -> Lane,
) -> Exec {
    cpu.check_form::<FORM>()?;
    let [low, high] = narrow_source::<FORM, MEMORY, 8>(cpu, op)?;
    if FORM == VEX_256 {
        let result = cpu.simd(|env| [f(env, low[0]), f(env, high[0])])?;
        cpu.arch.vector.set_ymm(op.dst, result);
    } else {
        let result = cpu.simd(|env| f(env, low[0]))?;
        cpu.arch.vector.set_low::<FORM>(op.dst, result);
    }
    Ok(())
}

/// `xmm = f(b)` under MXCSR, where the elements of the result are half as wide as those of the
/// source: a quadword for each lane of it, with zeros above.
#[inline(always)]
pub(crate) fn float_narrow<const FORM: u8, const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(&mut Env, Lane) -> u64,
) -> Exec {
    cpu.check_form::<FORM>()?;
    let result = if FORM == VEX_256 {
        let b = cpu.ymm_source::<KIND>(op)?;
        cpu.simd(|env| [f(env, b[0]), f(env, b[1])])?
    } else {
        let b = cpu.xmm_source::<FORM, KIND>(op)?;
        [cpu.simd(|env| f(env, b))?, 0]
    };
    cpu.arch.vector.set_low::<FORM>(op.dst, result);
    Ok(())
}

/// `ymm = f(a, b, imm8)` for an instruction that crosses lanes.
#[inline(always)]
pub(crate) fn cross_imm<const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(Wide, Wide, u8) -> Wide,
) -> Exec {
    cpu.check_avx()?;
    let b = cpu.ymm_source::<KIND>(op)?;
    let a = cpu.arch.vector.ymm(op.third);
    cpu.arch.vector.set_ymm(op.dst, f(a, b, op.imm as u8));
    Ok(())
}

/// `mm1 = f(mm1, mm2/mem)`; a memory operand has the size of `M`.
#[inline(always)]
pub(crate) fn mmx_binary<M: Plain + Into<u64>, const MEMORY: bool>(
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

/// The handler among the instances `$run::<FORM, KIND, ..>` of a function that an op needs.
macro_rules! by_form {
    ($op:expr, $run:ident, M8 $(, $more:tt)*) => {
        $crate::exec::vector::form::by_form!(@low $op, $run, M8 $(, $more)*)
    };
    ($op:expr, $run:ident, M16 $(, $more:tt)*) => {
        $crate::exec::vector::form::by_form!(@low $op, $run, M16 $(, $more)*)
    };
    ($op:expr, $run:ident, M32 $(, $more:tt)*) => {
        $crate::exec::vector::form::by_form!(@low $op, $run, M32 $(, $more)*)
    };
    ($op:expr, $run:ident, M64 $(, $more:tt)*) => {
        $crate::exec::vector::form::by_form!(@low $op, $run, M64 $(, $more)*)
    };
    ($op:expr, $run:ident, $kind:ident $(, $more:tt)*) => {{
        use $crate::exec::vector::form::{$kind, REGISTER};
        use $crate::op::{LEGACY, NO_MEMORY, VEX_128, VEX_256};
        match ($op.vex, $op.mem_operand == NO_MEMORY) {
            (LEGACY, true) => $run::<LEGACY, REGISTER $(, $more)*> as $crate::op::Handler,
            (LEGACY, false) => $run::<LEGACY, $kind $(, $more)*>,
            (VEX_128, true) => $run::<VEX_128, REGISTER $(, $more)*>,
            (VEX_128, false) => $run::<VEX_128, $kind $(, $more)*>,
            (_, true) => $run::<VEX_256, REGISTER $(, $more)*>,
            (_, false) => $run::<VEX_256, $kind $(, $more)*>,
        }
    }};
    // Scalars and single elements have no 256-bit form.
    (@low $op:expr, $run:ident, $kind:ident $(, $more:tt)*) => {{
        use $crate::exec::vector::form::{$kind, REGISTER};
        use $crate::op::{LEGACY, NO_MEMORY, VEX_128};
        match ($op.vex, $op.mem_operand == NO_MEMORY) {
            (LEGACY, true) => $run::<LEGACY, REGISTER $(, $more)*> as $crate::op::Handler,
            (LEGACY, false) => $run::<LEGACY, $kind $(, $more)*>,
            (_, true) => $run::<VEX_128, REGISTER $(, $more)*>,
            (_, false) => $run::<VEX_128, $kind $(, $more)*>,
        }
    }};
}

/// The handler of `dst = f(a, b)` with a memory operand of the given kind.
macro_rules! sse {
    ($op:expr, $kind:ident, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::binary::<FORM, KIND>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form!($op, run, $kind)
    }};
}

/// The handler of `dst = f(a, b, imm8)`; where a shift is given, the high lane of a 256-bit form
/// has its immediate that many bits further up.
macro_rules! sse_imm {
    ($op:expr, $kind:ident, $f:expr) => {
        $crate::exec::vector::form::sse_imm!($op, $kind, $f, 0)
    };
    ($op:expr, $kind:ident, $f:expr, $shift:literal) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::binary_imm::<FORM, KIND, $shift>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form!($op, run, $kind)
    }};
}

/// The handler of `dst = f(a, b)` under MXCSR.
macro_rules! sse_float {
    ($op:expr, $kind:ident, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::float::<FORM, KIND>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form!($op, run, $kind)
    }};
}

/// The handler of `dst = f(a, b, imm8)` under MXCSR.
macro_rules! sse_float_imm {
    ($op:expr, $kind:ident, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            let imm = op.imm as u8;
            $crate::exec::vector::form::float::<FORM, KIND>(cpu, op, |env, a, b| $f(env, a, b, imm))
        }
        $crate::exec::vector::form::by_form!($op, run, $kind)
    }};
}

/// The handler among the instances `$run::<FORM, MEMORY>` of a function that an op needs.
macro_rules! by_form_and_memory {
    ($op:expr, $run:ident) => {{
        use $crate::op::{LEGACY, NO_MEMORY, VEX_128, VEX_256};
        match ($op.vex, $op.mem_operand != NO_MEMORY) {
            (LEGACY, false) => $run::<LEGACY, false> as $crate::op::Handler,
            (LEGACY, true) => $run::<LEGACY, true>,
            (VEX_128, false) => $run::<VEX_128, false>,
            (VEX_128, true) => $run::<VEX_128, true>,
            (_, false) => $run::<VEX_256, false>,
            (_, true) => $run::<VEX_256, true>,
        }
    }};
}

/// The handler of `dst = f(b)` in each lane, of `$bytes` source bytes for each.
macro_rules! sse_widen {
    ($op:expr, $bytes:literal, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const MEMORY: bool>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::widen::<FORM, MEMORY, $bytes>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form_and_memory!($op, run)
    }};
}

/// The handler of `dst = f(b)` under MXCSR, of elements twice as wide as those of the source.
macro_rules! sse_float_widen {
    ($op:expr, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const MEMORY: bool>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::float_widen::<FORM, MEMORY>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form_and_memory!($op, run)
    }};
}

/// The handler of `ymm = f(a, b, imm8)` for an instruction that crosses lanes.
macro_rules! wide_imm {
    ($op:expr, $f:expr) => {{
        use $crate::exec::vector::form::{M128, REGISTER};
        extern "C" fn run<const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::cross_imm::<KIND>(cpu, op, $f)
        }
        if $op.mem_operand == $crate::op::NO_MEMORY {
            run::<REGISTER> as $crate::op::Handler
        } else {
            run::<M128>
        }
    }};
}

/// The handler of `xmm = f(b)` under MXCSR, of elements half as wide as those of the source.
macro_rules! sse_float_narrow {
    ($op:expr, $f:expr) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
            $crate::exec::vector::form::float_narrow::<FORM, KIND>(cpu, op, $f)
        }
        $crate::exec::vector::form::by_form!($op, run, M128)
    }};
}

/// The handler of `mm1 = f(mm1, mm2/mem)` for a function of two quadwords.
macro_rules! mmx {
    ($op:expr, $memory:ty, $f:expr) => {{
        extern "C" fn run<const MEMORY: bool>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
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
        extern "C" fn run<const MEMORY: bool>(
            cpu: &mut $crate::cpu::Cpu,
            op: &$crate::op::Op,
        ) -> $crate::exit::Exec {
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

/// Picks an instance of a handler whose last generic argument is whether it has a memory operand.
macro_rules! by_memory {
    ($op:expr, $handler:ident $(, $t:ty)?) => {
        if $op.mem_operand == $crate::op::NO_MEMORY {
            $handler::<$($t,)? false> as $crate::op::Handler
        } else {
            $handler::<$($t,)? true>
        }
    };
}

/// The choice of a handler of an instruction that treats elements one by one: the MMX form operates
/// on the low half of a lane.
macro_rules! packed {
    ($f:expr) => {
        |instruction, op| {
            if instruction.op0_register().is_mm() {
                $crate::exec::vector::form::mmx!(op, u64, |a, b| $f([a, 0], [b, 0])[0])
            } else {
                $crate::exec::vector::form::sse!(op, M128, $f)
            }
        }
    };
}

pub(super) use {
    by_form, by_form_and_memory, by_memory, mmx, mmx_imm, packed, sse, sse_float, sse_float_imm,
    sse_float_narrow, sse_float_widen, sse_imm, sse_widen, wide_imm,
};
