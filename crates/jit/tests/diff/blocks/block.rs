//! Makes blocks: instructions of the single cases, whose memory operands and branches fit together.

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, FlowControl, Instruction, InstructionBlock,
    Mnemonic as M, OpKind, Register,
};

use super::super::case::{CODE, CODE_ROOM, Case, DATA, Mode, State};
use super::super::generate;
use super::super::host::Host;
use super::super::random::Random;
use super::super::segments::{CS, DS};
use super::super::values;

/// What ordinary code consists of.
const COMMON: [M; 44] = [
    M::Mov,
    M::Mov,
    M::Mov,
    M::Add,
    M::Adc,
    M::Sub,
    M::Sbb,
    M::And,
    M::Or,
    M::Xor,
    M::Cmp,
    M::Test,
    M::Inc,
    M::Dec,
    M::Neg,
    M::Not,
    M::Shl,
    M::Shr,
    M::Sar,
    M::Rol,
    M::Lea,
    M::Movzx,
    M::Movsx,
    M::Movsxd,
    M::Cmove,
    M::Cmovb,
    M::Cmovg,
    M::Sete,
    M::Setl,
    M::Push,
    M::Pop,
    M::Xchg,
    M::Imul,
    M::Mul,
    M::Bt,
    M::Bts,
    M::Bswap,
    M::Movaps,
    M::Movdqu,
    M::Paddd,
    M::Pxor,
    M::Pshufb,
    M::Addsd,
    M::Mulps,
];

/// Branches on a condition, in each mode, as `Code` of the short form.
const CONDITIONS: [[Code; 3]; 8] = [
    [Code::Je_rel8_64, Code::Je_rel8_32, Code::Je_rel8_16],
    [Code::Jne_rel8_64, Code::Jne_rel8_32, Code::Jne_rel8_16],
    [Code::Jb_rel8_64, Code::Jb_rel8_32, Code::Jb_rel8_16],
    [Code::Jbe_rel8_64, Code::Jbe_rel8_32, Code::Jbe_rel8_16],
    [Code::Js_rel8_64, Code::Js_rel8_32, Code::Js_rel8_16],
    [Code::Jo_rel8_64, Code::Jo_rel8_32, Code::Jo_rel8_16],
    [Code::Jle_rel8_64, Code::Jle_rel8_32, Code::Jle_rel8_16],
    [Code::Jp_rel8_64, Code::Jp_rel8_32, Code::Jp_rel8_16],
];
/// Branches that count RCX, ECX or CX down, and one that is always taken.
const LOOPS: [Code; 3] = [Code::Loop_rel8_64_RCX, Code::Loop_rel8_32_ECX, Code::Loop_rel8_16_CX];
const ALWAYS: [Code; 3] = [Code::Jmp_rel8_64, Code::Jmp_rel8_32, Code::Jmp_rel8_16];

/// Distinguishes the addresses of labels from those in operands, also in 16 bits.
const LABELS: u64 = 0x9000;

/// Some instructions with the state that they begin in. Each is its own label; one more, a NOP,
/// is after the last.
#[derive(Clone)]
pub(super) struct Block {
    mode: Mode,
    instructions: Vec<Instruction>,
    state: State,
    writes_code: bool,
}

impl Block {
    /// A random block of 2 to 12 instructions.
    pub(super) fn new(mode: Mode, codes: &[Code], host: &Host, random: &mut Random) -> Self {
        let mut state = values::state(mode, random);
        if host.has_avx() {
            state.high.fill_with(|| values::vector(random));
        }
        let common: Vec<Code> =
            codes.iter().copied().filter(|code| COMMON.contains(&code.mnemonic())).collect();
        let wanted = 2 + random.below(11);
        let mut instructions = Vec::new();
        while (instructions.len() as u64) < wanted {
            let from = if random.one_in(4) { codes } else { &common };
            let code = random.pick(from);
            instructions.extend(straight(code, mode, &state, host, random));
        }
        let writes_code = random.one_in(8);
        if writes_code {
            let at = random.below(wanted) as usize;
            instructions[at] = patch(mode, &state, random);
        }
        for (n, instruction) in instructions.iter_mut().enumerate() {
            if random.one_in(8) {
                // Forward, now and then back.
                let to = if random.one_in(6) { 0 } else { n as u64 + 1 + random.below(3) };
                let code = if random.one_in(8) { &ALWAYS } else { &random.pick(&CONDITIONS) };
                *instruction = branch(code, mode, to.min(wanted));
            }
        }
        if random.one_in(3) {
            let last = instructions.len() - 1;
            instructions[last] = branch(&LOOPS, mode, random.below(wanted / 2 + 1));
            state.gpr[1] = 1 + random.below(5);
        }
        Self { mode, instructions, state, writes_code }
    }

    pub(super) fn len(&self) -> usize {
        self.instructions.len()
    }

    pub(super) fn writes_code(&self) -> bool {
        self.writes_code
    }

    /// The case of it; `None` if it cannot be encoded or is too long.
    pub(super) fn case(&self) -> Option<Case> {
        let bytes = self.bytes()?;
        let mut case = Case::new(self.mode, &bytes, self.state);
        case.writes_code = self.writes_code;
        Some(case)
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let mut all = self.instructions.clone();
        all.push(Instruction::with(Code::Nopd));
        for (n, instruction) in all.iter_mut().enumerate() {
            instruction.set_ip(LABELS + n as u64);
        }
        let entry = CODE - self.state.base(self.mode, CS);
        let block = InstructionBlock::new(&all, entry);
        let options = BlockEncoderOptions::DONT_FIX_BRANCHES;
        let bytes = BlockEncoder::encode(self.mode.bits(), block, options).ok()?.code_buffer;
        (bytes.len() <= CODE_ROOM).then_some(bytes)
    }

    /// The block without an instruction. Branches to it lead to the next one.
    pub(super) fn without(&self, at: usize) -> Self {
        let mut shorter = self.clone();
        shorter.instructions.remove(at);
        for instruction in &mut shorter.instructions {
            let to = instruction.near_branch_target();
            if is_branch(instruction) && to > LABELS + at as u64 {
                set_target(instruction, self.mode, to - 1);
            }
        }
        shorter
    }

    /// What it is, to run it again.
    pub(super) fn describe(&self) -> String {
        let bytes = self.bytes().unwrap_or_default();
        let listing: Vec<String> = self
            .instructions
            .iter()
            .enumerate()
            .map(|(n, instruction)| format!("    {:x}: {instruction}", LABELS + n as u64))
            .collect();
        let State { gpr, rip, rflags, selectors, fx, .. } = &self.state;
        let vectors: Vec<String> =
            fx.xmm.iter().map(|xmm| format!("{:032x}", u128::from_le_bytes(*xmm))).collect();
        format!(
            "{}-bit block{} [{bytes:02x?}]\n{}\n    rip {rip:x} gpr {gpr:x?} rflags {rflags:x} selectors \
             {selectors:x?} mxcsr {:x} xmm {vectors:?}",
            self.mode.bits(),
            if self.writes_code { " that may store to code" } else { "" },
            listing.join("\n"),
            fx.mxcsr
        )
    }
}

/// An instruction that goes on to the next one. Most use memory by RSI or RDI, which begin in it, and
/// leave these alone.
fn straight(
    code: Code,
    mode: Mode,
    state: &State,
    host: &Host,
    random: &mut Random,
) -> Option<Instruction> {
    let (_, mut instruction) = generate::case(code, mode, host, random)?;
    if instruction.is_invalid()
        || instruction.flow_control() != FlowControl::Next
        || !host.has(instruction.code())
    {
        return None;
    }
    let writes_pointer = instruction.op0_kind() == OpKind::Register
        && matches!(instruction.op0_register().full_register(), Register::RSI | Register::RDI);
    if writes_pointer && !random.one_in(8) {
        return None;
    }
    let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    let absolute = instruction.memory_base() == Register::None;
    if memory && !absolute && !instruction.is_vsib() && !random.one_in(16) {
        instruction.set_segment_prefix(Register::None);
        instruction.set_memory_index(Register::None);
        instruction.set_memory_index_scale(1);
        address(&mut instruction, mode, state, random);
    }
    Some(instruction)
}

/// Gives a memory operand an address: RSI or RDI with a displacement, or in 64-bit mode one relative to
/// RIP.
fn address(instruction: &mut Instruction, mode: Mode, state: &State, random: &mut Random) {
    let wide = match instruction.memory_displ_size() {
        8 => 8,
        4 => 4,
        2 => 2,
        _ => mode.bits() / 8,
    };
    if wide == 8 && random.one_in(6) {
        instruction.set_memory_base(Register::RIP);
        let place = DATA + 1024 + random.below(6000);
        instruction.set_memory_displacement64(place.wrapping_sub(state.base(mode, DS)));
        instruction.set_memory_displ_size(8);
        return;
    }
    let [si, di] = match wide {
        8 => [Register::RSI, Register::RDI],
        4 => [Register::ESI, Register::EDI],
        _ => [Register::SI, Register::DI],
    };
    instruction.set_memory_base(random.pick(&[si, si, di]));
    let reach = if random.one_in(12) { 8192 } else { 512 };
    let displacement =
        (random.below(reach) as i64 - reach as i64 / 2) & if random.one_in(3) { -1 } else { -16 };
    let cut = if wide == 8 { u64::MAX } else { (1 << (8 * wide)) - 1 };
    instruction.set_memory_displacement64(displacement as u64 & cut);
    instruction.set_memory_displ_size(wide);
}

/// `MOV byte [address], NOP` with an address in the block.
fn patch(mode: Mode, state: &State, random: &mut Random) -> Instruction {
    let at = CODE + random.below(40);
    let mut instruction = Instruction::default();
    instruction.set_code(Code::Mov_rm8_imm8);
    instruction.set_op0_kind(OpKind::Memory);
    instruction.set_memory_displ_size(mode.bits().max(32) / 8);
    instruction.set_memory_displacement64(at.wrapping_sub(state.base(mode, DS)) & 0xffff_ffff);
    instruction.set_op1_kind(OpKind::Immediate8);
    instruction.set_immediate8(random.pick(&[0x90, 0x90, 0x40, 0x00]));
    instruction
}

/// The number of a mode in the tables of branches.
fn column(mode: Mode) -> usize {
    match mode {
        Mode::Bits64 => 0,
        Mode::Bits32 => 1,
        Mode::Bits16 => 2,
    }
}

fn branch(codes: &[Code; 3], mode: Mode, to: u64) -> Instruction {
    let mut instruction = Instruction::default();
    instruction.set_code(codes[column(mode)]);
    set_target(&mut instruction, mode, LABELS + to);
    instruction
}

fn is_branch(instruction: &Instruction) -> bool {
    matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
}

fn set_target(instruction: &mut Instruction, mode: Mode, to: u64) {
    match mode {
        Mode::Bits64 => {
            instruction.set_op0_kind(OpKind::NearBranch64);
            instruction.set_near_branch64(to);
        }
        Mode::Bits32 => {
            instruction.set_op0_kind(OpKind::NearBranch32);
            instruction.set_near_branch32(to as u32);
        }
        Mode::Bits16 => {
            instruction.set_op0_kind(OpKind::NearBranch16);
            instruction.set_near_branch16(to as u16);
        }
    }
}
