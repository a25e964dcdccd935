//! Conversions: MOVZX, MOVSX, MOVSXD, CBW, CWDE, CDQE, CWD, CDQ, CQO, BSWAP, MOVBE.

use iced_x86::{Instruction, OpKind};

use crate::cpu::Cpu;
use crate::exec::table::{always, choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Movzx => choose(extend_form::<false>),
    Movsx | Movsxd => choose(extend_form::<true>),
    Cbw => always(widen::<u8, u16>),
    Cwde => always(widen::<u16, u32>),
    Cdqe => always(widen::<u32, u64>),
    Cwd => always(spread::<u16>),
    Cdq => always(spread::<u32>),
    Cqo => always(spread::<u64>),
    Bswap => choose(|_, op| match op.size {
        // The result is undefined for 16 bits (SDM Vol. 2A, BSWAP); processors clear them.
        2 => clear_word as Handler,
        4 => swap_bytes::<u32>,
        _ => swap_bytes::<u64>,
    }),
    Movbe => choose(|_, op| match (op.size, op.mem_operand) {
        (2, 0) => store_swapped::<u16> as Handler,
        (2, _) => load_swapped::<u16>,
        (4, 0) => store_swapped::<u32>,
        (4, _) => load_swapped::<u32>,
        (_, 0) => store_swapped::<u64>,
        _ => load_swapped::<u64>,
    }),
}

fn source_size(instruction: &Instruction) -> usize {
    if instruction.op1_kind() == OpKind::Register {
        instruction.op1_register().size()
    } else {
        instruction.memory_size().size()
    }
}

fn extend_form<const SIGNED: bool>(instruction: &Instruction, op: &Op) -> Handler {
    macro_rules! pick {
        ($($to:literal $from:literal $to_type:ty, $from_type:ty;)*) => {
            match (op.size, source_size(instruction), op.mem_operand != NO_MEMORY) {
                $(
                    ($to, $from, false) => extend::<$from_type, $to_type, SIGNED, false> as Handler,
                    ($to, $from, true) => extend::<$from_type, $to_type, SIGNED, true>,
                )*
                (_, _, false) => extend::<u32, u64, SIGNED, false>,
                (_, _, true) => extend::<u32, u64, SIGNED, true>,
            }
        };
    }
    // MOVSXD also moves without extending: 16 from 16 bits, 32 from 32 bits.
    pick!(
        2 1 u16, u8;
        4 1 u32, u8;
        8 1 u64, u8;
        2 2 u16, u16;
        4 2 u32, u16;
        8 2 u64, u16;
        2 4 u16, u32;
        4 4 u32, u32;
    )
}

extern "C" fn extend<F: Int, T: Int, const SIGNED: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let value = if MEMORY {
        match cpu.quick_operand::<F>(op) {
            Some(value) => value,
            None => return extend_slow::<F, T, SIGNED>(cpu, op),
        }
    } else {
        cpu.src::<F>(op)
    };
    cpu.set_dst(op, T::trunc(if SIGNED { value.sext() } else { value.zext() }));
    Ok(())
}

#[inline(never)]
fn extend_slow<F: Int, T: Int, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.load_operand::<F>(op)?;
    cpu.set_dst(op, T::trunc(if SIGNED { value.sext() } else { value.zext() }));
    Ok(())
}

/// CBW, CWDE, CDQE.
extern "C" fn widen<F: Int, T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = cpu.reg::<F>(0, false).sext();
    cpu.set_reg(0, false, T::trunc(value));
    Ok(())
}

/// CWD, CDQ, CQO: the sign of the accumulator fills DX, EDX, RDX.
extern "C" fn spread<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let sign = (cpu.reg::<T>(0, false).sext() as i64 >> 63) as u64;
    cpu.set_reg(2, false, T::trunc(sign));
    Ok(())
}

#[inline(always)]
fn swapped<T: Int>(value: T) -> T {
    T::trunc(value.zext().swap_bytes() >> (64 - T::BITS))
}

extern "C" fn clear_word(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.set_dst(op, 0u16);
    Ok(())
}

extern "C" fn swap_bytes<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.dst::<T>(op);
    cpu.set_dst(op, swapped(value));
    Ok(())
}

extern "C" fn load_swapped<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.load_operand::<T>(op)?;
    cpu.set_dst(op, swapped(value));
    Ok(())
}

extern "C" fn store_swapped<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.src::<T>(op);
    cpu.store_operand(op, swapped(value))
}
