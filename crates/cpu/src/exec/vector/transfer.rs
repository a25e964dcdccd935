//! Data transfer: MOVAPS to MOVUPS, MOVD, MOVQ, LDDQU, and their non-temporal and duplicating
//! relatives (SDM Vol. 1, 9.4.1, 10.4.1, 11.4.1, 12.3).

use iced_x86::{Code, Instruction};

use super::form::{mmx, sse, value_of, with_low, with_low32};
use super::lane::{Element, Lane};
use crate::cpu::Cpu;
use crate::exec::table::{always, choose, rewrite, vector_rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, LEGACY, NO_MEMORY, Op, VEX_128, VEX_256};

vector_rows! {
    Movaps | Movapd | Movdqa | Vmovaps | Vmovapd | Vmovdqa => choose(|_, op| {
        if op.mem_operand == 0 { store::<true>(op) } else { sse!(op, M128_ALIGNED, |_, b| b) }
    }),
    Movntps | Movntpd | Movntdq | Vmovntps | Vmovntpd | Vmovntdq => {
        choose(|_, op| store::<true>(op))
    },
    Movntdqa | Vmovntdqa => choose(|_, op| sse!(op, M128_ALIGNED, |_, b| b)),
    Movups | Movupd | Movdqu | Vmovups | Vmovupd | Vmovdqu => choose(|_, op| {
        if op.mem_operand == 0 { store::<false>(op) } else { sse!(op, M128_ANY, |_, b| b) }
    }),
    Lddqu | Vlddqu => choose(|_, op| sse!(op, M128_ANY, |_, b| b)),
    Movss | Vmovss => choose(|_, op| match op.mem_operand {
        0 => store_low::<u32>,
        NO_MEMORY => sse!(op, M32, |a, b| with_low32(a, b[0] as u32)),
        _ => sse!(op, M32, |_, b| b),
    }),
    // MOVSD, which is also the name of a string instruction, has its row there.
    Vmovsd => rewrite(|instruction, _, op| movsd(instruction, op)),
    Movlps | Movlpd | Vmovlps | Vmovlpd => choose(|_, op| {
        if op.mem_operand == 0 { store_low::<u64> } else { sse!(op, M64, |a, b| with_low(a, b[0])) }
    }),
    Movhps | Movhpd | Vmovhps | Vmovhpd => choose(|_, op| {
        if op.mem_operand == 0 { store_high } else { sse!(op, M64, |a, b| [a[0], b[0]]) }
    }),
    Movlhps | Vmovlhps => choose(|_, op| sse!(op, M64, |a, b| [a[0], b[0]])),
    Movhlps | Vmovhlps => choose(|_, op| sse!(op, M64, |a, b| [b[1], a[1]])),
    Movddup | Vmovddup => choose(|_, op| match op.vex {
        VEX_256 => sse!(op, M128, |_, b| [b[0]; 2]),
        _ => sse!(op, M64, |_, b| [b[0]; 2]),
    }),
    Movshdup | Vmovshdup => choose(|_, op| {
        sse!(op, M128, |_, b| b.map(|q| q >> 32 | q & !0xffff_ffff))
    }),
    Movsldup | Vmovsldup => choose(|_, op| {
        sse!(op, M128, |_, b| b.map(|q| q << 32 | q & 0xffff_ffff))
    }),
    Movd | Movq | Vmovd | Vmovq => rewrite(move_scalar),
    Movdq2q => always(movdq2q),
    Movq2dq => always(movq2dq),
    Movntq => always(store_mmx::<u64>),
    Movmskps | Vmovmskps => always(mask_to_register::<u32>),
    Movmskpd | Vmovmskpd => always(mask_to_register::<u64>),
    Pmovmskb | Vpmovmskb => choose(|instruction, _| {
        if instruction.op1_register().is_mm() { pmovmskb_mmx } else { mask_to_register::<u8> }
    }),
}

/// MOVSD and VMOVSD between memory and XMM registers.
pub(in crate::exec) fn movsd(instruction: &Instruction, op: Op) -> Option<Op> {
    let run = match instruction.code() {
        Code::Movsd_xmmm64_xmm | Code::VEX_Vmovsd_m64_xmm if op.mem_operand == 0 => {
            store_low::<u64>
        }
        Code::Movsd_xmm_xmmm64 | Code::VEX_Vmovsd_xmm_m64 if op.mem_operand != NO_MEMORY => {
            sse!(op, M64, |_, b| b)
        }
        Code::Movsd_xmmm64_xmm
        | Code::Movsd_xmm_xmmm64
        | Code::VEX_Vmovsd_xmm_xmm_xmm
        | Code::VEX_Vmovsd_xmm_xmm_xmm_0F11 => sse!(op, M64, |a, b| with_low(a, b[0])),
        _ => return None,
    };
    Some(Op { run, ..op })
}

/// The handler of a store of a whole vector.
fn store<const ALIGNED: bool>(op: &Op) -> Handler {
    match op.vex {
        LEGACY => store_vector::<LEGACY, ALIGNED>,
        VEX_128 => store_vector::<VEX_128, ALIGNED>,
        _ => store_vector::<VEX_256, ALIGNED>,
    }
}

fn move_scalar(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let run = match instruction.code() {
        Code::Movd_mm_rm32 if op.mem_operand == NO_MEMORY => register_to_mmx::<u32>,
        Code::Movd_mm_rm32 => mmx!(op, u32, |_, b| b),
        Code::Movq_mm_rm64 if op.mem_operand == NO_MEMORY => register_to_mmx::<u64>,
        Code::Movq_mm_rm64 | Code::Movq_mm_mmm64 => mmx!(op, u64, |_, b| b),
        Code::Movq_mmm64_mm if op.mem_operand == NO_MEMORY => mmx!(op, u64, |_, b| b),
        Code::Movd_rm32_mm if op.mem_operand == NO_MEMORY => mmx_to_register::<u32>,
        Code::Movq_rm64_mm if op.mem_operand == NO_MEMORY => mmx_to_register::<u64>,
        Code::Movd_rm32_mm => store_mmx::<u32>,
        Code::Movq_rm64_mm | Code::Movq_mmm64_mm => store_mmx::<u64>,
        Code::Movd_xmm_rm32 | Code::VEX_Vmovd_xmm_rm32 if op.mem_operand == NO_MEMORY => {
            register_to_xmm::<u32>
        }
        Code::Movd_xmm_rm32 | Code::VEX_Vmovd_xmm_rm32 => sse!(op, M32, |_, b| b),
        Code::Movq_xmm_rm64 | Code::VEX_Vmovq_xmm_rm64 if op.mem_operand == NO_MEMORY => {
            register_to_xmm::<u64>
        }
        Code::Movq_xmm_rm64
        | Code::VEX_Vmovq_xmm_rm64
        | Code::Movq_xmm_xmmm64
        | Code::VEX_Vmovq_xmm_xmmm64 => sse!(op, M64, |_, b| [b[0], 0]),
        Code::Movq_xmmm64_xmm | Code::VEX_Vmovq_xmmm64_xmm if op.mem_operand == NO_MEMORY => {
            sse!(op, M64, |_, b| [b[0], 0])
        }
        Code::Movd_rm32_xmm | Code::VEX_Vmovd_rm32_xmm if op.mem_operand == NO_MEMORY => {
            xmm_to_register::<u32>
        }
        Code::Movq_rm64_xmm | Code::VEX_Vmovq_rm64_xmm if op.mem_operand == NO_MEMORY => {
            xmm_to_register::<u64>
        }
        Code::Movd_rm32_xmm | Code::VEX_Vmovd_rm32_xmm => store_low::<u32>,
        Code::Movq_rm64_xmm
        | Code::VEX_Vmovq_rm64_xmm
        | Code::Movq_xmmm64_xmm
        | Code::VEX_Vmovq_xmmm64_xmm => store_low::<u64>,
        _ => return None,
    };
    Some(Op { run, ..op })
}

/// A store of a whole vector, at a multiple of its size where `ALIGNED`.
extern "C" fn store_vector<const FORM: u8, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_form::<FORM>()?;
    if FORM == VEX_256 {
        let value = cpu.arch.vector.ymm(op.src);
        return cpu.store_ymm::<ALIGNED>(op, value);
    }
    let value = value_of(cpu.arch.vector.xmm(op.src));
    if ALIGNED {
        let la = cpu.linear_aligned(op, 16, AccessKind::Write)?;
        cpu.store(la, value)
    } else {
        cpu.store_operand(op, value)
    }
}

extern "C" fn store_low<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value = cpu.arch.vector.xmm(op.src)[0];
    cpu.store_operand(op, T::trunc(value))
}

extern "C" fn store_high(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value = cpu.arch.vector.xmm(op.src)[1];
    cpu.store_operand(op, value)
}

extern "C" fn register_to_xmm<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: T = cpu.src(op);
    cpu.set_vector_dst(op, [value.zext(), 0]);
    Ok(())
}

extern "C" fn xmm_to_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value = T::trunc(cpu.arch.vector.xmm(op.src)[0]);
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn register_to_mmx<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value: T = cpu.src(op);
    cpu.set_mmx(op.dst, value.zext());
    Ok(())
}

extern "C" fn mmx_to_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.enter_mmx();
    let value = T::trunc(cpu.mmx(op.src));
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn store_mmx<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    // On Intel processors, a store that faults leaves TOP at 0, as MMX operation has it.
    cpu.arch.fpu.top = 0;
    let value = cpu.mmx(op.src);
    cpu.store_operand(op, T::trunc(value))?;
    cpu.enter_mmx();
    Ok(())
}

extern "C" fn movdq2q(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let value = cpu.arch.vector.xmm(op.src)[0];
    cpu.set_mmx(op.dst, value);
    Ok(())
}

extern "C" fn movq2dq(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    cpu.enter_mmx();
    let value = cpu.mmx(op.src);
    cpu.arch.vector.set_xmm(op.dst, [value, 0]);
    Ok(())
}

/// The sign bit of each element, the lowest first.
#[inline(always)]
#[must_use]
pub(crate) fn sign_mask<T: Element + Int>(lane: Lane) -> u32 {
    let elements = T::split(lane);
    let mut mask = 0;
    for (i, element) in elements.as_ref().iter().enumerate() {
        mask |= ((element.zext() >> (T::BITS - 1)) as u32) << i;
    }
    mask
}

/// PMOVMSKB of a quadword: gathers the top bit of each byte by a multiplication whose partial
/// products do not overlap.
#[inline(always)]
fn byte_mask(quadword: u64) -> u64 {
    let tops = quadword >> 7 & 0x0101_0101_0101_0101;
    tops.wrapping_mul(0x0102_0408_1020_4080) >> 56
}

extern "C" fn mask_to_register<T: Element + Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let [low, high] = cpu.vector_register(op, op.src).map(|lane| {
        if T::BITS == 8 {
            byte_mask(lane[0]) | byte_mask(lane[1]) << 8
        } else {
            u64::from(sign_mask::<T>(lane))
        }
    });
    // A 64-bit destination is zero-extended, too.
    cpu.set_dst(op, low | high << (128 / T::BITS));
    Ok(())
}

extern "C" fn pmovmskb_mmx(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.enter_mmx();
    let mask = byte_mask(cpu.mmx(op.src));
    cpu.set_dst(op, mask);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_mask_gathers_the_top_bits_in_order() {
        for bit in 0..8 {
            assert_eq!(byte_mask(0x80 << (8 * bit)), 1 << bit);
        }
        assert_eq!(byte_mask(u64::MAX), 0xff);
        assert_eq!(byte_mask(0x7f7f_7f7f_7f7f_7f7f), 0);
    }

    #[test]
    fn sign_mask_numbers_elements_from_the_lowest() {
        assert_eq!(sign_mask::<u32>([0x8000_0000, 1 << 63]), 0b1001);
        assert_eq!(sign_mask::<u64>([0, 1 << 63]), 0b10);
    }
}
