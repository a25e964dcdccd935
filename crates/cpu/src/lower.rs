//! From bytes to ops.

use cloister_x86::segment::seg;
use iced_x86::{Decoder, DecoderError, EncodingKind, Instruction, Mnemonic, OpKind, Register};

use crate::controls::Features;
use crate::cpu::Cpu;
use crate::exec::{self, Flow, Lowered};
use crate::exit::Exec;
use crate::mode::Mode;
use crate::op::{
    BLOCK_SLOT, LEGACY, LOCK, MEM_ADDR16, MEM_ADDR32, MEM_SEGMENT, MEM_SPECIAL, NO_MEMORY, Op,
    REPE, REPNE, VEX_128, VEX_256, ZERO_SLOT,
};

/// Bytes of the longest instruction.
pub(crate) const MAX_LEN: usize = 15;
/// Ops in a block before it is ended.
const MAX_OPS: usize = 40;
/// Conditional branches in a block before it is ended.
const MAX_BRANCHES: usize = 4;

/// A decoder of code as a processor with these features reads it. Instruction addresses count from
/// its start: see `BLOCK_SLOT`.
#[must_use]
pub(crate) fn decoder<'a>(bytes: &'a [u8], mode: Mode, features: &Features) -> Decoder<'a> {
    Decoder::with_ip(mode.bitness(), bytes, 0, features.decoder_options())
}

/// Decodes a block from `bytes`, which reach to the end of the page or are more than one
/// instruction can have, or decodes one instruction (`single`): appends its ops and returns how
/// many bytes were decoded. No op is appended if the first instruction does not end within the
/// bytes.
pub(crate) fn lower(
    bytes: &[u8],
    mode: Mode,
    features: &Features,
    single: bool,
    ops: &mut Vec<Op>,
) -> usize {
    let mut decoder = decoder(bytes, mode, features);
    let mut instruction = Instruction::default();
    let mut end = 0;
    let mut branches = 0;
    loop {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            let runs_out = decoder.last_error() == DecoderError::NoMoreBytes;
            if runs_out && bytes.len() - end < MAX_LEN {
                // The rest may be on the next page.
                break;
            }
            let long = instruction.len() == MAX_LEN && is_too_long(&bytes[end..], mode, features);
            let fault = if long { exec::too_long } else { exec::invalid };
            ops.push(bare(fault, end, instruction.len() as u8));
            return (end + MAX_LEN).min(bytes.len());
        }
        let Lowered { op, flow } = lower_one(&instruction, mode, features, end);
        ops.push(op);
        end += instruction.len();
        match flow {
            Flow::Leaves => return end,
            // The block goes on where it is not taken.
            Flow::Branch => branches += 1,
            Flow::Next | Flow::EndsBlock => {}
        }
        if flow == Flow::EndsBlock
            || single
            || ops.len() >= MAX_OPS
            || branches >= MAX_BRANCHES
            || end >= bytes.len()
        {
            break;
        }
    }
    if !ops.is_empty() {
        ops.push(terminator(end));
    }
    end
}

/// Whether the instruction whose first 15 bytes begin `bytes`, and which the decoder rejects, is
/// longer than that. Of 15 bytes the decoder does not say that more are missing, but of 14 it does:
/// it is asked again without a prefix that changes neither the length nor what is valid.
fn is_too_long(bytes: &[u8], mode: Mode, features: &Features) -> bool {
    let is_segment = |byte: u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
    let is_rex = |byte: u8| mode.is_64() && byte & 0xf0 == 0x40;
    let is_prefix = |byte: &u8| {
        is_segment(*byte) || is_rex(*byte) || matches!(byte, 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
    };
    let first: [u8; MAX_LEN] = std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0));
    let run = first.iter().take_while(|byte| is_prefix(byte)).count();
    let idle = (0..run).find(|&n| {
        let after = &first[n + 1..run];
        let byte = first[n];
        is_segment(byte) || after.contains(&byte) || is_rex(byte) && !after.is_empty()
    });
    // Where every prefix counts, so many bytes are the beginning of a defined instruction.
    let Some(idle) = idle else { return true };
    let mut rest = [0; MAX_LEN - 1];
    rest[..idle].copy_from_slice(&first[..idle]);
    rest[idle..].copy_from_slice(&first[idle + 1..]);
    let mut decoder = decoder(&rest, mode, features);
    decoder.decode_out(&mut Instruction::default());
    decoder.last_error() == DecoderError::NoMoreBytes
}

/// An op without operands.
pub(crate) fn bare(run: crate::op::Handler, offset: usize, len: u8) -> Op {
    Op {
        mnemonic: Mnemonic::INVALID,
        run,
        imm: 0,
        disp: 0,
        base: ZERO_SLOT,
        index: ZERO_SLOT,
        scale: 0,
        seg: seg::DS as u8,
        special: 0,
        dst: 0,
        src: 0,
        third: 0,
        high: 0,
        prefix: 0,
        size: 0,
        addr_size: 8,
        mem_operand: NO_MEMORY,
        len,
        offset: offset as u16,
        vex: LEGACY,
        extra: 0,
    }
}

/// Ends a block whose last instruction is not a branch.
pub(crate) fn terminator(offset: usize) -> Op {
    extern "C" fn advance(cpu: &mut Cpu, op: &Op) -> Exec {
        cpu.arch.rip = cpu.op_rip(op);
        Ok(())
    }
    bare(advance, offset, 0)
}

fn lower_one(instruction: &Instruction, mode: Mode, features: &Features, offset: usize) -> Lowered {
    let mut op = bare(exec::invalid, offset, instruction.len() as u8);
    let numbers: [(u8, bool); 3] = std::array::from_fn(|n| {
        let n = n as u32;
        if n < instruction.op_count() && instruction.op_kind(n) == OpKind::Register {
            register(instruction.op_register(n))
        } else {
            (0, false)
        }
    });
    (op.dst, op.src, op.third) = (numbers[0].0, numbers[1].0, numbers[2].0);
    op.high = u8::from(numbers[0].1) | u8::from(numbers[1].1) << 1;
    op.prefix = if instruction.has_lock_prefix() { LOCK } else { 0 }
        | if instruction.has_rep_prefix() { REPE } else { 0 }
        | if instruction.has_repne_prefix() { REPNE } else { 0 };
    op.size = operand_size(instruction, mode);
    op.vex = vector_form(instruction);
    op.addr_size = (mode.bitness() / 8) as u8;
    for n in 0..instruction.op_count() {
        match instruction.op_kind(n) {
            OpKind::Memory => {
                op.mem_operand = n as u8;
                lower_memory(&mut op, instruction, mode);
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = instruction.near_branch_target();
            }
            OpKind::FarBranch16 => {
                op.imm = u64::from(instruction.far_branch16());
                op.extra = u32::from(instruction.far_branch_selector());
            }
            OpKind::FarBranch32 => {
                op.imm = u64::from(instruction.far_branch32());
                op.extra = u32::from(instruction.far_branch_selector());
            }
            OpKind::Register => {}
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => op.imm = instruction.immediate(n),
            OpKind::Immediate8_2nd => {
                op.extra = u32::from(instruction.immediate8_2nd());
            }
            string => {
                op.addr_size = string_address_size(string);
                if has_segment(string) {
                    lower_segment(&mut op, instruction, mode);
                }
            }
        }
    }
    // The op stays as it is, #UD, for what the processor does not have.
    exec::select(instruction, mode, features, op).unwrap_or(Lowered { op, flow: Flow::Leaves })
}

/// Register number and whether it is a high byte register.
#[must_use]
pub(crate) fn register(register: Register) -> (u8, bool) {
    let number = register.number() as u8;
    if register.is_gpr8() {
        match number {
            0..4 => (number, false),
            4..8 => (number, true),
            _ => (number - 4, false),
        }
    } else {
        (number, false)
    }
}

/// Size in bytes of the general-purpose operand that names the instruction: of operand 0 if it has
/// a size of its own, else of the mode and prefixes.
fn operand_size(instruction: &Instruction, mode: Mode) -> u8 {
    if instruction.op_count() > 0 && instruction.op_kind(0) == OpKind::Register {
        return instruction.op_register(0).size() as u8;
    }
    match instruction.memory_size().size() {
        size @ (1 | 2 | 4 | 8) => size as u8,
        _ => (mode.bitness() / 8).min(4) as u8,
    }
}

/// VEX or not, and the vector length. VEX.L of instructions that ignore it says nothing.
fn vector_form(instruction: &Instruction) -> u8 {
    if instruction.encoding() != EncodingKind::VEX {
        return LEGACY;
    }
    let wide = instruction.memory_size().size() == 32
        || (0..instruction.op_count()).any(|n| {
            instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).is_ymm()
        });
    if wide { VEX_256 } else { VEX_128 }
}

fn lower_memory(op: &mut Op, instruction: &Instruction, mode: Mode) {
    let slot = |register: Register| {
        if register == Register::None { ZERO_SLOT } else { register.number() as u8 }
    };
    let base = instruction.memory_base();
    // The index of a gather is a vector register: `lower_one` does not look at it.
    let vector_index = instruction.memory_index().is_vector_register();
    let index = if vector_index { Register::None } else { instruction.memory_index() };
    op.index = slot(index);
    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    op.disp = instruction.memory_displacement64();
    op.base = match base {
        // iced gives the address that RIP + displacement yields, from the block's start.
        Register::RIP | Register::EIP => BLOCK_SLOT,
        _ => slot(base),
    };
    let width = if base.is_gpr16() || index.is_gpr16() {
        2
    } else if base.is_gpr32() || base == Register::EIP || index.is_gpr32() {
        4
    } else if base == Register::None && index == Register::None {
        match instruction.memory_displ_size() {
            // Its size is the address size.
            size @ (2 | 4 | 8) => size as u8,
            _ => (mode.bitness() / 8) as u8,
        }
    } else {
        8
    };
    // iced has extended an absolute displacement. The size still matters with a 67H prefix: to the
    // bit offsets of BT and its relatives.
    op.addr_size = width;
    op.special |= match op.addr_size {
        2 => MEM_ADDR16 | MEM_SPECIAL,
        4 => MEM_ADDR32 | MEM_SPECIAL,
        _ => 0,
    };
    if op.addr_size == 4 && !mode.is_64() || op.addr_size == 2 {
        op.disp &= 0xffff_ffff;
    }
    lower_segment(op, instruction, mode);
}

/// Sets the segment of the memory operand or of a string's source.
fn lower_segment(op: &mut Op, instruction: &Instruction, mode: Mode) {
    let segment = instruction.memory_segment();
    if !mode.is_64() || matches!(segment, Register::FS | Register::GS) {
        op.seg = segment.number() as u8;
        op.special |= MEM_SEGMENT | MEM_SPECIAL;
        return;
    }
    // Prefixes for the other segments say nothing (SDM Vol. 1, 3.4.2.1). What is left of
    // segmentation is that a non-canonical stack address is #SS.
    let base = instruction.memory_base().full_register();
    let stack = matches!(base, Register::RSP | Register::RBP);
    op.seg = if stack { seg::SS } else { seg::DS } as u8;
}

fn string_address_size(kind: OpKind) -> u8 {
    match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
        _ => 8,
    }
}

fn has_segment(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
    )
}
