//! Makes instructions of an encoding, with states that reach its special cases.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, EncodingKind, FlowControl, Instruction,
    OpCodeOperandKind as Kind, OpKind, Register,
};

use super::case::{Case, Mode};
use super::encodings::is_tested;
use super::host::Host;
use super::place::{Place, address_size};
use super::prepare::prepare;
use super::random::Random;
use super::values;

fn numbered(base: Register, n: u64) -> Register {
    base + n as u32
}

/// A random case of an encoding, or `None` if the drawn operands cannot be encoded.
pub(crate) fn case(
    code: Code,
    mode: Mode,
    host: &Host,
    random: &mut Random,
) -> Option<(Case, Instruction)> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut state = values::state(mode, random);
    if host.has_avx() {
        state.high.fill_with(|| values::vector(random));
    }
    let mut place = Place {
        instruction: &mut instruction,
        state: &mut state,
        mode,
        size: address_size(mode, random),
    };
    let mut memory = false;
    for n in 0..info.op_count() {
        memory |= operand(&mut place, n, info.op_kind(n), random)?;
    }
    let size = place.size;
    if memory && info.can_use_lock_prefix() && instruction.op0_kind() == OpKind::Memory {
        instruction.set_has_lock_prefix(random.one_in(3));
    }
    let string = (0..info.op_count()).any(|n| is_string(info.op_kind(n)));
    if string && info.can_use_rep_prefix() && random.one_in(2) {
        if random.one_in(2) {
            instruction.set_has_repe_prefix(true);
        } else if info.can_use_repne_prefix() {
            instruction.set_has_repne_prefix(true);
        }
        state.gpr[1] = random.below(70);
        if size < 64 && random.one_in(4) {
            // What CX or ECX leaves out.
            state.gpr[1] |= random.next() << size;
        }
    }
    prepare(&instruction, mode, &mut state, random);
    let mut encoder = Encoder::new(mode.bits());
    let entry = state.rip;
    encoder.encode(&instruction, entry).ok()?;
    let mut bytes = encoder.take_buffer();
    if info.encoding() == EncodingKind::VEX && random.one_in(24) {
        damage(&mut bytes, random);
    }
    if bytes.len() > 15 {
        return None;
    }
    let case = Case::new(mode, &bytes, state);
    // Decode again: the encoder may have chosen among equal forms, and flags information wants
    // the instruction as it stands.
    let mut decoder = Decoder::with_ip(mode.bits(), &case.code[..16], entry, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let branches = !decoded.is_invalid() && decoded.flow_control() != FlowControl::Next;
    if decoded.code() != code && branches {
        // Near branches with an operand-size prefix: AMD processors truncate RIP, Intel's ignore
        // it.
        return None;
    }
    // What is not even an instruction has to be #UD. No other may begin after a damaged one.
    let comparable = decoded.is_invalid()
        || decoded.code() == code
        || decoded.len() >= bytes.len() && is_tested(decoded.code(), mode);
    comparable.then_some((case, decoded))
}

/// Changes a VEX prefix, or puts another prefix before it: another instruction, or none.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some(vex) = bytes.iter().position(|byte| matches!(byte, 0xc4 | 0xc5)) else { return };
    match random.below(4) {
        0 => bytes.insert(vex, random.pick(&[0x66, 0xf2, 0xf3, 0x40, 0x48, 0xf0])),
        _ => {
            // Not the bits that extend the register numbers of a memory operand.
            let (at, bits) = if bytes[vex] == 0xc5 || random.one_in(2) {
                let at = if bytes[vex] == 0xc5 { vex + 1 } else { vex + 2 };
                (at, if bytes[vex] == 0xc5 { 7 } else { 8 })
            } else {
                (vex + 1, 5)
            };
            bytes[at] ^= 1 << random.below(bits);
        }
    }
}

fn is_string(kind: Kind) -> bool {
    matches!(kind, Kind::seg_rSI | Kind::es_rDI)
}

/// Sets an operand; whether it is memory.
fn operand(place: &mut Place<'_>, n: u32, kind: Kind, random: &mut Random) -> Option<bool> {
    if let Some(is_memory) = memory_operand(place, n, kind, random) {
        return Some(is_memory);
    }
    let entry = place.state.rip;
    let instruction = &mut *place.instruction;
    if let Some(register) = register_operand(place.mode, kind, random) {
        instruction.set_op_kind(n, OpKind::Register);
        instruction.set_op_register(n, register);
        return Some(false);
    }
    if let Some((kind, bits)) = immediate_operand(kind) {
        // ENTER's second immediate.
        let earlier = (0..n).any(|m| is_immediate(instruction.op_kind(m)));
        if earlier {
            instruction.set_op_kind(n, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(random.below(4) as u8);
        } else {
            set_immediate(instruction, n, kind, immediate(random, bits));
        }
        return Some(false);
    }
    let target = entry + 20 + random.below(90);
    match kind {
        Kind::imm8_const_1 => set_immediate(instruction, n, OpKind::Immediate8, 1),
        Kind::br16_1 | Kind::br16_2 => {
            instruction.set_op_kind(n, OpKind::NearBranch16);
            instruction.set_near_branch16(target as u16);
        }
        Kind::br32_1 | Kind::br32_4 => {
            instruction.set_op_kind(n, OpKind::NearBranch32);
            instruction.set_near_branch32(target as u32);
        }
        Kind::br64_1 | Kind::br64_4 => {
            instruction.set_op_kind(n, OpKind::NearBranch64);
            instruction.set_near_branch64(target);
        }
        _ => return None,
    }
    Some(false)
}

/// Sets an operand that is memory, or may be and is drawn to be; `None` for another. What a string
/// instruction or MASKMOV implies is not a memory operand.
fn memory_operand(place: &mut Place<'_>, n: u32, kind: Kind, random: &mut Random) -> Option<bool> {
    use OpKind as O;
    match kind {
        Kind::mem => place.memory(n, random),
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
        | Kind::ymm_or_mem
            if random.one_in(2) =>
        {
            place.memory(n, random);
        }
        Kind::mem_vsib32x => place.vsib(n, Register::XMM0, 4, random),
        Kind::mem_vsib64x => place.vsib(n, Register::XMM0, 8, random),
        Kind::mem_vsib32y => place.vsib(n, Register::YMM0, 4, random),
        Kind::mem_vsib64y => place.vsib(n, Register::YMM0, 8, random),
        Kind::mem_offs => place.absolute(n, random),
        Kind::seg_rSI => {
            place.string(n, [O::MemorySegSI, O::MemorySegESI, O::MemorySegRSI]);
            place.source_index(random);
            return Some(false);
        }
        Kind::es_rDI => {
            place.string(n, [O::MemoryESDI, O::MemoryESEDI, O::MemoryESRDI]);
            return Some(false);
        }
        Kind::seg_rDI => {
            place.string(n, [O::MemorySegDI, O::MemorySegEDI, O::MemorySegRDI]);
            place.destination_index(random);
            return Some(false);
        }
        Kind::seg_rBX_al => {
            place.table(n, random);
            return Some(false);
        }
        _ => return None,
    }
    Some(true)
}

/// A register for an operand, if it is one.
fn register_operand(mode: Mode, kind: Kind, random: &mut Random) -> Option<Register> {
    let any = random.below(mode.registers() as u64);
    Some(match kind {
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
            // The high bytes are numbered apart from SPL and what follows.
            numbered(Register::AL, random.below(if mode.is_64() { 20 } else { 8 }))
        }
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_reg_mem | Kind::r16_rm | Kind::r16_opcode => {
            numbered(Register::AX, any)
        }
        Kind::r32_or_mem
        | Kind::r32_reg
        | Kind::r32_reg_mem
        | Kind::r32_rm
        | Kind::r32_opcode
        | Kind::r32_vvvv => numbered(Register::EAX, any),
        Kind::r64_or_mem
        | Kind::r64_reg
        | Kind::r64_reg_mem
        | Kind::r64_rm
        | Kind::r64_opcode
        | Kind::r64_vvvv => numbered(Register::RAX, any),
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => numbered(Register::MM0, random.below(8)),
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
            numbered(Register::XMM0, any)
        }
        Kind::ymm_or_mem | Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
            numbered(Register::YMM0, any)
        }
        Kind::seg_reg => numbered(Register::ES, random.below(6)),
        Kind::es => Register::ES,
        Kind::cs => Register::CS,
        Kind::ss => Register::SS,
        Kind::ds => Register::DS,
        Kind::fs => Register::FS,
        Kind::gs => Register::GS,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        Kind::st0 => Register::ST0,
        Kind::sti_opcode => numbered(Register::ST0, random.below(8)),
        _ => return None,
    })
}

/// How an immediate is given to the encoder, and its width.
fn immediate_operand(kind: Kind) -> Option<(OpKind, u32)> {
    Some(match kind {
        Kind::imm8 => (OpKind::Immediate8, 8),
        Kind::imm8sex16 => (OpKind::Immediate8to16, 8),
        Kind::imm8sex32 => (OpKind::Immediate8to32, 8),
        Kind::imm8sex64 => (OpKind::Immediate8to64, 8),
        Kind::imm16 => (OpKind::Immediate16, 16),
        Kind::imm32 => (OpKind::Immediate32, 32),
        Kind::imm32sex64 => (OpKind::Immediate32to64, 32),
        Kind::imm64 => (OpKind::Immediate64, 64),
        _ => return None,
    })
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(kind, OpKind::Immediate8 | OpKind::Immediate16)
}

fn set_immediate(instruction: &mut Instruction, n: u32, kind: OpKind, value: u64) {
    instruction.set_op_kind(n, kind);
    match kind {
        OpKind::Immediate64 => instruction.set_immediate64(value),
        OpKind::Immediate32 => instruction.set_immediate32(value as u32),
        OpKind::Immediate16 => instruction.set_immediate16(value as u16),
        OpKind::Immediate8 => instruction.set_immediate8(value as u8),
        OpKind::Immediate8to16 => instruction.set_immediate8to16(i16::from(value as i8)),
        OpKind::Immediate8to32 => instruction.set_immediate8to32(i32::from(value as i8)),
        OpKind::Immediate8to64 => instruction.set_immediate8to64(i64::from(value as i8)),
        _ => instruction.set_immediate32to64(i64::from(value as i32)),
    }
}

fn immediate(random: &mut Random, bits: u32) -> u64 {
    match random.below(4) {
        0 => random.below(4),
        1 => 1u64 << (bits - 1),
        2 => random.below(u64::from(bits) + 2),
        _ => random.next(),
    }
}
