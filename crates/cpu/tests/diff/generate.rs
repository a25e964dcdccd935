//! Makes instructions of an encoding, with states that reach its special cases.

use iced_x86::{
    Code, Encoder, EncodingKind, FlowControl, Instruction, OpCodeOperandKind as Kind, OpKind,
    Register,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::case::{CODE, Case, DATA, DATA_LEN, Fault, Fx, State};
use super::encodings::is_tested;
use super::host::Host;
use super::prepare::prepare;

/// Draws of one seed.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// A sequence that depends on `seed` alone.
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const GPR64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn numbered(base: Register, n: u64) -> Register {
    base + n as u32
}

/// A random case of an encoding, or `None` if the drawn operands cannot be encoded.
pub(crate) fn case(code: Code, host: &Host, random: &mut Random) -> Option<(Case, Instruction)> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut state = state(random);
    if host.has_avx() {
        state.high.fill_with(|| vector(random));
    }
    let mut memory = false;
    for n in 0..info.op_count() {
        memory |= operand(&mut instruction, n, info.op_kind(n), &mut state, random)?;
    }
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
    }
    prepare(&instruction, &mut state, random);
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, CODE).ok()?;
    let mut bytes = encoder.take_buffer();
    if info.encoding() == EncodingKind::VEX && random.one_in(24) {
        damage(&mut bytes, random);
    }
    if bytes.len() > 15 {
        return None;
    }
    let mut encoded = [0xcc; 16];
    encoded[..bytes.len()].copy_from_slice(&bytes);
    state.rip = CODE;
    let fault = Fault { vector: 0, code: 0, address: 0 };
    // Decode again: the encoder may have chosen among equal forms, and flags information wants
    // the instruction as it stands.
    let mut decoder =
        iced_x86::Decoder::with_ip(64, &encoded, CODE, iced_x86::DecoderOptions::NONE);
    let decoded = decoder.decode();
    let branches = !decoded.is_invalid() && decoded.flow_control() != FlowControl::Next;
    if decoded.code() != code && branches {
        // Near branches with an operand-size prefix: AMD processors truncate RIP, Intel's ignore it.
        return None;
    }
    // What is not even an instruction has to be #UD. No other may begin behind a damaged one.
    let comparable = decoded.is_invalid()
        || decoded.code() == code
        || decoded.len() >= bytes.len() && is_tested(decoded.code());
    comparable.then_some((Case { code: encoded, code_len: bytes.len(), state, fault }, decoded))
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
fn operand(
    instruction: &mut Instruction,
    n: u32,
    kind: Kind,
    state: &mut State,
    random: &mut Random,
) -> Option<bool> {
    let wants_memory = random.one_in(2);
    let mut register = |register: Register| {
        instruction.set_op_kind(n, OpKind::Register);
        instruction.set_op_register(n, register);
    };
    let any16 = random.below(16);
    match kind {
        Kind::mem => {
            memory(instruction, n, state, random);
            return Some(true);
        }
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
        | Kind::ymm_or_mem
            if wants_memory =>
        {
            memory(instruction, n, state, random);
            return Some(true);
        }
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
            register(numbered(Register::AL, random.below(20)));
        }
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_reg_mem | Kind::r16_rm | Kind::r16_opcode => {
            register(numbered(Register::AX, any16));
        }
        Kind::r32_or_mem
        | Kind::r32_reg
        | Kind::r32_reg_mem
        | Kind::r32_rm
        | Kind::r32_opcode
        | Kind::r32_vvvv => register(numbered(Register::EAX, any16)),
        Kind::r64_or_mem
        | Kind::r64_reg
        | Kind::r64_reg_mem
        | Kind::r64_rm
        | Kind::r64_opcode
        | Kind::r64_vvvv => register(numbered(Register::RAX, any16)),
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => {
            register(numbered(Register::MM0, random.below(8)));
        }
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
            register(numbered(Register::XMM0, any16));
        }
        Kind::ymm_or_mem | Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
            register(numbered(Register::YMM0, any16));
        }
        Kind::mem_vsib32x => return Some(vsib(instruction, n, Register::XMM0, 4, state, random)),
        Kind::mem_vsib64x => return Some(vsib(instruction, n, Register::XMM0, 8, state, random)),
        Kind::mem_vsib32y => return Some(vsib(instruction, n, Register::YMM0, 4, state, random)),
        Kind::mem_vsib64y => return Some(vsib(instruction, n, Register::YMM0, 8, state, random)),
        Kind::al => register(Register::AL),
        Kind::cl => register(Register::CL),
        Kind::ax => register(Register::AX),
        Kind::dx => register(Register::DX),
        Kind::eax => register(Register::EAX),
        Kind::rax => register(Register::RAX),
        Kind::st0 => register(Register::ST0),
        Kind::sti_opcode => register(numbered(Register::ST0, random.below(8))),
        Kind::imm8_const_1 => set_immediate(instruction, n, OpKind::Immediate8, 1),
        Kind::imm8 => {
            // ENTER's second immediate.
            let earlier = (0..n).any(|m| is_immediate(instruction.op_kind(m)));
            if earlier {
                instruction.set_op_kind(n, OpKind::Immediate8_2nd);
                instruction.set_immediate8_2nd(random.below(4) as u8);
            } else {
                set_immediate(instruction, n, OpKind::Immediate8, immediate(random, 8));
            }
        }
        Kind::imm8sex16 => {
            set_immediate(instruction, n, OpKind::Immediate8to16, immediate(random, 8));
        }
        Kind::imm8sex32 => {
            set_immediate(instruction, n, OpKind::Immediate8to32, immediate(random, 8));
        }
        Kind::imm8sex64 => {
            set_immediate(instruction, n, OpKind::Immediate8to64, immediate(random, 8));
        }
        Kind::imm16 => set_immediate(instruction, n, OpKind::Immediate16, immediate(random, 16)),
        Kind::imm32 => set_immediate(instruction, n, OpKind::Immediate32, immediate(random, 32)),
        Kind::imm32sex64 => {
            set_immediate(instruction, n, OpKind::Immediate32to64, immediate(random, 32));
        }
        Kind::imm64 => set_immediate(instruction, n, OpKind::Immediate64, immediate(random, 64)),
        Kind::mem_offs => {
            instruction.set_op_kind(n, OpKind::Memory);
            instruction.set_memory_displ_size(8);
            let at = effective_address(random).wrapping_sub(segment(instruction, state, random));
            instruction.set_memory_displacement64(at);
            return Some(true);
        }
        Kind::seg_rSI => {
            instruction.set_op_kind(n, OpKind::MemorySegRSI);
            let base = segment(instruction, state, random);
            state.gpr[6] = state.gpr[6].wrapping_sub(base);
        }
        Kind::es_rDI => instruction.set_op_kind(n, OpKind::MemoryESRDI),
        Kind::seg_rDI => {
            instruction.set_op_kind(n, OpKind::MemorySegRDI);
            let base = segment(instruction, state, random);
            state.gpr[7] = effective_address(random).wrapping_sub(base);
        }
        Kind::seg_rBX_al => {
            instruction.set_op_kind(n, OpKind::Memory);
            instruction.set_memory_base(Register::RBX);
            instruction.set_memory_index(Register::AL);
            let base = segment(instruction, state, random);
            state.gpr[3] = effective_address(random).wrapping_sub(base);
        }
        Kind::br64_1 | Kind::br64_4 => {
            instruction.set_op_kind(n, OpKind::NearBranch64);
            instruction.set_near_branch64(CODE + 20 + random.below(90));
        }
        _ => return None,
    }
    Some(false)
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

/// Where a memory operand lies: mostly inside the scratch pages and aligned, sometimes across
/// their border, across their end, or nowhere.
fn effective_address(random: &mut Random) -> u64 {
    let inside = DATA + 1024 + random.below(DATA_LEN as u64 - 2048);
    match random.below(40) {
        0 => DATA + 4096 - random.below(40),
        1 => DATA + DATA_LEN as u64 - random.below(40),
        2 => DATA - random.below(40),
        3 => 0x8000_0000_0000 + random.below(4096),
        4..20 => inside,
        20..25 => inside & !7,
        25..30 => inside & !63,
        _ => inside & !15,
    }
}

/// Gives a memory operand an FS or GS prefix now and then: the base to reckon with.
fn segment(instruction: &mut Instruction, state: &State, random: &mut Random) -> u64 {
    if !random.one_in(10) {
        return 0;
    }
    let (register, base) =
        random.pick(&[(Register::FS, state.fs_base), (Register::GS, state.gs_base)]);
    instruction.set_segment_prefix(register);
    base
}

fn memory(instruction: &mut Instruction, n: u32, state: &mut State, random: &mut Random) {
    let wanted = effective_address(random).wrapping_sub(segment(instruction, state, random));
    instruction.set_op_kind(n, OpKind::Memory);
    instruction.set_memory_displ_size(8);
    if wanted < 0x7000_0000 && random.one_in(16) {
        instruction.set_memory_displacement64(wanted);
        return;
    }
    let base = random.pick(&GPR64);
    let displacement = match random.below(3) {
        0 => 0,
        1 => i64::from(random.next() as i8),
        _ => i64::from(random.next() as i16),
    };
    instruction.set_memory_base(base);
    instruction.set_memory_displacement64(displacement as u64);
    let mut offset = displacement as u64;
    if random.one_in(2) {
        let index = random.pick(&GPR64);
        if index != base && index != Register::RSP {
            let scale = 1 << random.below(4);
            instruction.set_memory_index(index);
            instruction.set_memory_index_scale(scale);
            // Small values keep the base canonical; others test the wrap.
            let slot = &mut state.gpr[index.number()];
            if !random.one_in(8) {
                *slot = random.below(1 << 16);
            }
            offset = offset.wrapping_add(slot.wrapping_mul(u64::from(scale)));
        }
    }
    state.gpr[base.number()] = wanted.wrapping_sub(offset);
}

/// Memory with a vector of indices, of which most stay in the scratch pages: always memory.
fn vsib(
    instruction: &mut Instruction,
    n: u32,
    first: Register,
    size: usize,
    state: &mut State,
    random: &mut Random,
) -> bool {
    let wanted = DATA + DATA_LEN as u64 / 2;
    let index = random.below(16) as usize;
    let scale = 1 << random.below(4);
    let wild = if random.one_in(3) { 16 } else { u64::MAX };
    for i in 0..32 / size {
        let value =
            if random.one_in(wild) { random.next() } else { (random.below(900)).wrapping_sub(450) };
        let half = if i * size < 16 { &mut state.fx.xmm[index] } else { &mut state.high[index] };
        let at = i * size % 16;
        half[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    instruction.set_op_kind(n, OpKind::Memory);
    instruction.set_memory_displ_size(8);
    instruction.set_memory_index(first + index as u32);
    instruction.set_memory_index_scale(scale);
    if random.one_in(8) {
        instruction.set_memory_displacement64(wanted);
        return true;
    }
    let segment = segment(instruction, state, random);
    let base = random.pick(&GPR64);
    let displacement = i64::from(random.next() as i8) as u64;
    instruction.set_memory_base(base);
    instruction.set_memory_displacement64(displacement);
    state.gpr[base.number()] = wanted.wrapping_sub(segment).wrapping_sub(displacement);
    true
}

fn state(random: &mut Random) -> State {
    let mut state = State {
        gpr: [0; 16],
        rip: CODE,
        rflags: 0x202,
        fs_base: segment_base(random),
        gs_base: segment_base(random),
        fx: fx(random),
        high: [[0; 16]; 16],
        data: [0; DATA_LEN],
    };
    for value in &mut state.gpr {
        *value = integer(random);
    }
    for n in [4, 6, 7] {
        if !random.one_in(20) {
            state.gpr[n] = effective_address(random);
        }
    }
    // CF PF AF ZF SF OF, now and then DF.
    state.rflags |= random.next() & 0x8d5;
    if random.one_in(8) {
        state.rflags |= 0x400;
    }
    for chunk in state.data.chunks_exact_mut(16) {
        let value = if random.one_in(4) { vector(random) } else { random_16(random) };
        chunk.copy_from_slice(&value);
    }
    state
}

/// A canonical address.
fn segment_base(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => random.below(1 << 20),
        2 => random.next() >> 17,
        _ => !(random.next() >> 17),
    }
}

fn random_16(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_le_bytes());
    bytes[8..].copy_from_slice(&random.next().to_le_bytes());
    bytes
}

fn integer(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.below(8),
        1 => 1u64 << random.below(64),
        2 => (1u64 << random.below(64)).wrapping_sub(1),
        3 => random.pick(&[0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, u64::MAX]),
        4 => random.next() >> random.below(64),
        _ => random.next(),
    }
}

/// 16 bytes: integers, or floats of either width with many special ones.
fn vector(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    match random.below(4) {
        0 => return random_16(random),
        1 => {
            for chunk in bytes.chunks_exact_mut(8) {
                chunk.copy_from_slice(&integer(random).to_le_bytes());
            }
        }
        2 => {
            for chunk in bytes.chunks_exact_mut(4) {
                chunk.copy_from_slice(&single(random).to_le_bytes());
            }
        }
        _ => {
            for chunk in bytes.chunks_exact_mut(8) {
                chunk.copy_from_slice(&double(random).to_le_bytes());
            }
        }
    }
    bytes
}

/// A float of `exponent_bits` and `fraction_bits`, special in many ways.
fn float(random: &mut Random, exponent_bits: u32, fraction_bits: u32) -> u64 {
    let bias = (1u64 << (exponent_bits - 1)) - 1;
    let top = (1u64 << exponent_bits) - 1;
    let exponent = match random.below(12) {
        0 => 0,
        1 => top,
        2 => 1 + random.below(3),
        3 => top - 1 - random.below(3),
        4..9 => bias + random.below(70) - 35,
        _ => random.next() & top,
    };
    let fraction = match random.below(6) {
        0 => 0,
        1 => (1u64 << fraction_bits) - 1,
        2 => 1u64 << random.below(u64::from(fraction_bits)),
        3 => random.next() << random.below(u64::from(fraction_bits)),
        _ => random.next(),
    } & ((1u64 << fraction_bits) - 1);
    (random.below(2) << (exponent_bits + fraction_bits)) | exponent << fraction_bits | fraction
}

fn single(random: &mut Random) -> u32 {
    float(random, 8, 23) as u32
}

fn double(random: &mut Random) -> u64 {
    float(random, 11, 52)
}

/// An 80-bit register: normal values mostly, every special class sometimes.
fn extended(random: &mut Random) -> [u8; 16] {
    let bits = float(random, 15, 48);
    let mut sign_exp = (bits >> 48) as u16;
    let mut mantissa = 1 << 63
        | match random.below(3) {
            0 => random.next() >> 1,
            1 => (bits & 0xffff_ffff_ffff) << 15,
            _ => 0,
        };
    if sign_exp & 0x7fff == 0 || random.one_in(24) {
        // Denormals, zeros, and encodings that the 387 and later do not support.
        mantissa &= !(1 << 63);
    }
    if random.one_in(16) {
        (sign_exp, mantissa) = (sign_exp & 0x8000, 0);
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
    bytes[8..10].copy_from_slice(&sign_exp.to_le_bytes());
    bytes
}

fn fx(random: &mut Random) -> Fx {
    let masked = !random.one_in(6);
    let control = 0x40
        | if masked { 0x3f } else { random.below(0x40) as u16 }
        | (random.pick(&[0u16, 2, 3, 3, 3]) << 8)
        | (random.below(4) as u16) << 10;
    // Condition codes and TOP; flags mostly where nothing is pending by them.
    let mut status = (random.next() as u16) & 0x7f00;
    if masked || random.one_in(8) {
        status |= random.below(0x40) as u16;
    }
    if status & !control & 0x3f != 0 {
        // ES and B: they follow from the others.
        status |= 0x8080;
    }
    let mut mxcsr = random.next() as u32 & 0xe07f;
    mxcsr |= if random.one_in(6) { random.next() as u32 & 0x1f80 } else { 0x1f80 };
    if random.one_in(2) {
        // Neither DAZ nor FTZ.
        mxcsr &= !0x8040;
    }
    Fx {
        control,
        status,
        tags: if random.one_in(3) { random.next() as u8 } else { 0xff },
        reserved: 0,
        fop: random.next() as u16 & 0x7ff,
        fip: segment_base(random),
        fdp: segment_base(random),
        mxcsr,
        mxcsr_mask: 0,
        st: std::array::from_fn(|_| extended(random)),
        xmm: std::array::from_fn(|_| vector(random)),
        rest: [0; 96],
    }
}
