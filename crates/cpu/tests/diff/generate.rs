//! Makes instructions of every encoding that the processor claims, with states that reach their
//! special cases.

use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, FlowControl, Instruction, Mnemonic,
    OpCodeOperandKind as Kind, OpKind, Register,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::case::{CODE, Case, DATA, DATA_LEN, Fault, Fx, State};

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

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// The encodings to test: user-mode 64-bit instructions of the features that the interpreter has.
pub(crate) fn codes() -> Vec<Code> {
    Code::values().filter(|&code| is_tested(code)).collect()
}

fn is_tested(code: Code) -> bool {
    let info = code.op_code();
    if !info.is_instruction() || !info.mode64() || !info.cpl3() {
        return false;
    }
    if !matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return false;
    }
    code.cpuid_features().iter().all(|&feature| has_feature(feature))
        && !is_left_out(code.mnemonic())
        && (0..info.op_count()).all(|n| has_operand(info.op_kind(n)))
        && !matches!(
            code,
            Code::Bswap_r16
                | Code::Call_m1616
                | Code::Call_m1632
                | Code::Call_m1664
                | Code::Jmp_m1616
                | Code::Jmp_m1632
                | Code::Jmp_m1664
                // PREFETCH with a register: a reserved NOP on Intel processors, #UD on AMD's.
                | Code::Reservednop_rm16_r16_0F0D
                | Code::Reservednop_rm32_r32_0F0D
                | Code::Reservednop_rm64_r64_0F0D
        )
}

fn has_feature(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CMOV
            | F::CX8
            | F::CMPXCHG16B
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::POPCNT
            | F::LZCNT
            | F::BMI1
            | F::BMI2
            | F::ADX
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
            | F::MOVBE
            | F::FXSR
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::CLWB
            | F::PREFETCHW
    )
}

/// Instructions whose result depends on the host's kernel or identity, or that leave user mode.
fn is_left_out(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        // INT3 enters a handler, which the tests of event delivery look at.
        M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter | M::Sysexit | M::Sysret | M::Cpuid
            // Segments: selectors and descriptor tables of the host's kernel.
            | M::Lar | M::Lsl | M::Verr | M::Verw | M::Lss | M::Lfs | M::Lgs | M::Sldt | M::Str
            | M::Smsw | M::Sgdt | M::Sidt | M::Iret | M::Iretd | M::Iretq | M::Retf
            | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Ud0 | M::Ud1
            // The image holds the host's instruction and data pointers: tested in the units.
            | M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64
            | M::Fnstenv | M::Fstenv | M::Fnsave | M::Fsave | M::Fldenv | M::Frstor
            // No effect on Intel processors since the 387; the host decodes them as it likes.
            | M::Fneni | M::Feni | M::Fndisi | M::Fdisi | M::Fnsetpm | M::Fsetpm | M::Frstpm
            | M::Wait
            // Two instructions: FWAIT and the form that does not wait.
            | M::Fclex | M::Finit | M::Fstcw | M::Fstsw | M::Fstdw | M::Fstsg
    )
}

fn has_operand(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::seg_reg
            | Kind::cr_reg
            | Kind::dr_reg
            | Kind::tr_reg
            | Kind::es
            | Kind::cs
            | Kind::ss
            | Kind::ds
            | Kind::fs
            | Kind::gs
            | Kind::farbr2_2
            | Kind::farbr4_2
            | Kind::brdisp_2
            | Kind::brdisp_4
            | Kind::xbegin_2
            | Kind::xbegin_4
            | Kind::mem_offs
    )
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
pub(crate) fn case(code: Code, random: &mut Random) -> Option<(Case, Instruction)> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut state = state(random);
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
    let bytes = encoder.take_buffer();
    if bytes.len() > 15 {
        return None;
    }
    let mut encoded = [0xcc; 16];
    encoded[..bytes.len()].copy_from_slice(&bytes);
    state.rip = CODE;
    let fault = Fault { vector: 0, code: 0, address: 0 };
    // Decode again: the encoder may have chosen among equal forms, and flags information wants
    // the instruction as it stands.
    let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, CODE, iced_x86::DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.code() != code && decoded.flow_control() != FlowControl::Next {
        // Near branches with an operand-size prefix: AMD processors truncate RIP, Intel's ignore it.
        return None;
    }
    Some((Case { code: encoded, code_len: bytes.len(), state, fault }, decoded))
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
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => {
            register(numbered(Register::XMM0, any16));
        }
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
        Kind::seg_rSI => instruction.set_op_kind(n, OpKind::MemorySegRSI),
        Kind::es_rDI => instruction.set_op_kind(n, OpKind::MemoryESRDI),
        Kind::seg_rDI => {
            instruction.set_op_kind(n, OpKind::MemorySegRDI);
            state.gpr[7] = effective_address(random);
        }
        Kind::seg_rBX_al => {
            instruction.set_op_kind(n, OpKind::Memory);
            instruction.set_memory_base(Register::RBX);
            instruction.set_memory_index(Register::AL);
            state.gpr[3] = effective_address(random);
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
        _ => inside & !15,
    }
}

fn memory(instruction: &mut Instruction, n: u32, state: &mut State, random: &mut Random) {
    let wanted = effective_address(random);
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

/// What certain instructions need in order not to fault every time.
fn prepare(instruction: &Instruction, state: &mut State, random: &mut Random) {
    let at_address = |state: &mut State, address: u64, bytes: &[u8]| {
        let offset = address.wrapping_sub(DATA) as usize;
        if let Some(slot) = state.data.get_mut(offset..offset.saturating_add(bytes.len())) {
            slot.copy_from_slice(bytes);
        }
    };
    match instruction.mnemonic() {
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
            // No trap flag and no alignment checks: they act on what follows.
            let flags = random.next() & !0x4_0100;
            let sp = state.gpr[4];
            at_address(state, sp, &flags.to_le_bytes());
        }
        Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr if !random.one_in(8) => {
            let mxcsr = random.next() as u32 & 0xffff;
            let at = address_of(instruction, state);
            at_address(state, at, &mxcsr.to_le_bytes());
        }
        Mnemonic::Call | Mnemonic::Jmp | Mnemonic::Ret => {
            // Targets that exist.
            let target = (CODE + 20 + random.below(90)).to_le_bytes();
            let at = if instruction.mnemonic() == Mnemonic::Ret {
                state.gpr[4]
            } else if instruction.op0_kind() == OpKind::Memory {
                address_of(instruction, state)
            } else {
                if instruction.op0_kind() == OpKind::Register && !random.one_in(8) {
                    state.gpr[instruction.op0_register().number()] = u64::from_le_bytes(target);
                }
                return;
            };
            if !random.one_in(8) {
                at_address(state, at, &target);
            }
        }
        Mnemonic::Div | Mnemonic::Idiv if !random.one_in(4) => {
            // Quotients that fit.
            state.gpr[2] = if random.one_in(2) { 0 } else { random.below(200) };
            state.gpr[0] >>= random.below(64);
        }
        Mnemonic::Cmpxchg16b | Mnemonic::Cmpxchg8b if random.one_in(2) => {
            let at = address_of(instruction, state);
            let (rax, rdx) = (state.gpr[0], state.gpr[2]);
            if instruction.mnemonic() == Mnemonic::Cmpxchg16b {
                at_address(state, at, &rax.to_le_bytes());
                at_address(state, at.wrapping_add(8), &rdx.to_le_bytes());
            } else {
                at_address(state, at, &(rax as u32).to_le_bytes());
                at_address(state, at.wrapping_add(4), &(rdx as u32).to_le_bytes());
            }
        }
        _ => {}
    }
}

/// Effective address of the memory operand.
pub(crate) fn address_of(instruction: &Instruction, state: &State) -> u64 {
    let value = |register: Register| match register {
        Register::None => 0,
        register => state.gpr[register.number()],
    };
    value(instruction.memory_base())
        .wrapping_add(
            value(instruction.memory_index())
                .wrapping_mul(u64::from(instruction.memory_index_scale())),
        )
        .wrapping_add(instruction.memory_displacement64())
}

fn state(random: &mut Random) -> State {
    let mut state =
        State { gpr: [0; 16], rip: CODE, rflags: 0x202, fx: fx(random), data: [0; DATA_LEN] };
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
        fop: 0,
        fip: 0,
        fdp: 0,
        mxcsr,
        mxcsr_mask: 0,
        st: std::array::from_fn(|_| extended(random)),
        xmm: std::array::from_fn(|_| vector(random)),
        rest: [0; 96],
    }
}
