//! Random straight code in a loop, so that it is translated.

use cloister_cpu::testing::{DATA, STACK};
use cloister_x86::Gpr;
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Instruction, InstructionBlock, MemoryOperand, Register,
};

use super::{Pair, ROOM};
use crate::host::HostFeatures;

/// A generator of numbers: xorshift64*.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Numbers of registers that code may change: not RSP, and not the bases and the index.
const FREE: [usize; 11] = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 15];

pub(super) fn register(size: usize, number: usize) -> Register {
    const R8: [Register; 16] = [
        Register::AL,
        Register::CL,
        Register::DL,
        Register::BL,
        Register::SPL,
        Register::BPL,
        Register::SIL,
        Register::DIL,
        Register::R8L,
        Register::R9L,
        Register::R10L,
        Register::R11L,
        Register::R12L,
        Register::R13L,
        Register::R14L,
        Register::R15L,
    ];
    match size {
        1 => R8[number],
        2 => Register::AX + number as u32,
        4 => Register::EAX + number as u32,
        _ => Register::RAX + number as u32,
    }
}

/// Memory within the data: by RBP or R13, with R14 as an index or without.
fn memory(random: &mut Random) -> MemoryOperand {
    let base = random.pick(&[Register::RBP, Register::R13]);
    let index = random.pick(&[Register::None, Register::None, Register::R14, Register::R12]);
    // Some cross into the second page.
    let disp = random.pick(&[0, 8, 100, -40, 2040, 4090, 4093]) + random.below(3) as i64;
    let scale = if index == Register::None { 1 } else { random.pick(&[1, 2, 4, 8]) };
    MemoryOperand::new(base, index, scale, disp, 8, false, Register::None)
}

/// The forms `r, rm` and `rm, r`, by size, of operations on two operands.
const PAIRS: [[[Code; 4]; 2]; 9] = [
    [
        [Code::Add_r8_rm8, Code::Add_r16_rm16, Code::Add_r32_rm32, Code::Add_r64_rm64],
        [Code::Add_rm8_r8, Code::Add_rm16_r16, Code::Add_rm32_r32, Code::Add_rm64_r64],
    ],
    [
        [Code::Adc_r8_rm8, Code::Adc_r16_rm16, Code::Adc_r32_rm32, Code::Adc_r64_rm64],
        [Code::Adc_rm8_r8, Code::Adc_rm16_r16, Code::Adc_rm32_r32, Code::Adc_rm64_r64],
    ],
    [
        [Code::Sub_r8_rm8, Code::Sub_r16_rm16, Code::Sub_r32_rm32, Code::Sub_r64_rm64],
        [Code::Sub_rm8_r8, Code::Sub_rm16_r16, Code::Sub_rm32_r32, Code::Sub_rm64_r64],
    ],
    [
        [Code::Sbb_r8_rm8, Code::Sbb_r16_rm16, Code::Sbb_r32_rm32, Code::Sbb_r64_rm64],
        [Code::Sbb_rm8_r8, Code::Sbb_rm16_r16, Code::Sbb_rm32_r32, Code::Sbb_rm64_r64],
    ],
    [
        [Code::And_r8_rm8, Code::And_r16_rm16, Code::And_r32_rm32, Code::And_r64_rm64],
        [Code::And_rm8_r8, Code::And_rm16_r16, Code::And_rm32_r32, Code::And_rm64_r64],
    ],
    [
        [Code::Or_r8_rm8, Code::Or_r16_rm16, Code::Or_r32_rm32, Code::Or_r64_rm64],
        [Code::Or_rm8_r8, Code::Or_rm16_r16, Code::Or_rm32_r32, Code::Or_rm64_r64],
    ],
    [
        [Code::Xor_r8_rm8, Code::Xor_r16_rm16, Code::Xor_r32_rm32, Code::Xor_r64_rm64],
        [Code::Xor_rm8_r8, Code::Xor_rm16_r16, Code::Xor_rm32_r32, Code::Xor_rm64_r64],
    ],
    [
        [Code::Cmp_r8_rm8, Code::Cmp_r16_rm16, Code::Cmp_r32_rm32, Code::Cmp_r64_rm64],
        [Code::Cmp_rm8_r8, Code::Cmp_rm16_r16, Code::Cmp_rm32_r32, Code::Cmp_rm64_r64],
    ],
    [
        [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32, Code::Mov_r64_rm64],
        [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32, Code::Mov_rm64_r64],
    ],
];

/// `rm, imm`, by size.
const IMMEDIATES: [[Code; 4]; 8] = [
    [Code::Add_rm8_imm8, Code::Add_rm16_imm16, Code::Add_rm32_imm32, Code::Add_rm64_imm32],
    [Code::Adc_rm8_imm8, Code::Adc_rm16_imm8, Code::Adc_rm32_imm8, Code::Adc_rm64_imm8],
    [Code::Sub_rm8_imm8, Code::Sub_rm16_imm8, Code::Sub_rm32_imm32, Code::Sub_rm64_imm8],
    [Code::Sbb_rm8_imm8, Code::Sbb_rm16_imm16, Code::Sbb_rm32_imm8, Code::Sbb_rm64_imm32],
    [Code::And_rm8_imm8, Code::And_rm16_imm8, Code::And_rm32_imm32, Code::And_rm64_imm8],
    [Code::Cmp_rm8_imm8, Code::Cmp_rm16_imm16, Code::Cmp_rm32_imm8, Code::Cmp_rm64_imm32],
    [Code::Test_rm8_imm8, Code::Test_rm16_imm16, Code::Test_rm32_imm32, Code::Test_rm64_imm32],
    [Code::Mov_rm8_imm8, Code::Mov_rm16_imm16, Code::Mov_rm32_imm32, Code::Mov_rm64_imm32],
];

const UNARY: [[Code; 4]; 4] = [
    [Code::Inc_rm8, Code::Inc_rm16, Code::Inc_rm32, Code::Inc_rm64],
    [Code::Dec_rm8, Code::Dec_rm16, Code::Dec_rm32, Code::Dec_rm64],
    [Code::Neg_rm8, Code::Neg_rm16, Code::Neg_rm32, Code::Neg_rm64],
    [Code::Not_rm8, Code::Not_rm16, Code::Not_rm32, Code::Not_rm64],
];

const SHIFTS: [[Code; 4]; 7] = [
    [Code::Rcl_rm8_imm8, Code::Rcl_rm16_imm8, Code::Rcl_rm32_imm8, Code::Rcl_rm64_imm8],
    [Code::Rcr_rm8_imm8, Code::Rcr_rm16_imm8, Code::Rcr_rm32_imm8, Code::Rcr_rm64_imm8],
    [Code::Shl_rm8_imm8, Code::Shl_rm16_imm8, Code::Shl_rm32_imm8, Code::Shl_rm64_imm8],
    [Code::Shr_rm8_imm8, Code::Shr_rm16_imm8, Code::Shr_rm32_imm8, Code::Shr_rm64_imm8],
    [Code::Sar_rm8_imm8, Code::Sar_rm16_imm8, Code::Sar_rm32_imm8, Code::Sar_rm64_imm8],
    [Code::Rol_rm8_imm8, Code::Rol_rm16_imm8, Code::Rol_rm32_imm8, Code::Rol_rm64_imm8],
    [Code::Ror_rm8_imm8, Code::Ror_rm16_imm8, Code::Ror_rm32_imm8, Code::Ror_rm64_imm8],
];

const BY_CL: [[Code; 4]; 4] = [
    [Code::Rcr_rm8_CL, Code::Rcr_rm16_CL, Code::Rcr_rm32_CL, Code::Rcr_rm64_CL],
    [Code::Shl_rm8_CL, Code::Shl_rm16_CL, Code::Shl_rm32_CL, Code::Shl_rm64_CL],
    [Code::Sar_rm8_CL, Code::Sar_rm16_CL, Code::Sar_rm32_CL, Code::Sar_rm64_CL],
    [Code::Rcl_rm8_CL, Code::Rcl_rm16_CL, Code::Rcl_rm32_CL, Code::Rcl_rm64_CL],
];

/// By a register, by an immediate: of 32 and 64 bits.
const BITS: [[[Code; 2]; 2]; 4] = [
    [[Code::Bt_rm32_r32, Code::Bt_rm64_r64], [Code::Bt_rm32_imm8, Code::Bt_rm64_imm8]],
    [[Code::Bts_rm32_r32, Code::Bts_rm64_r64], [Code::Bts_rm32_imm8, Code::Bts_rm64_imm8]],
    [[Code::Btr_rm32_r32, Code::Btr_rm64_r64], [Code::Btr_rm32_imm8, Code::Btr_rm64_imm8]],
    [[Code::Btc_rm32_r32, Code::Btc_rm64_r64], [Code::Btc_rm32_imm8, Code::Btc_rm64_imm8]],
];

const COUNTS: [[Code; 2]; 5] = [
    [Code::Bsf_r32_rm32, Code::Bsf_r64_rm64],
    [Code::Bsr_r32_rm32, Code::Bsr_r64_rm64],
    [Code::Tzcnt_r32_rm32, Code::Tzcnt_r64_rm64],
    [Code::Lzcnt_r32_rm32, Code::Lzcnt_r64_rm64],
    [Code::Popcnt_r32_rm32, Code::Popcnt_r64_rm64],
];

/// `rm, r`, by size.
const EXCHANGES: [[Code; 4]; 3] = [
    [Code::Xchg_rm8_r8, Code::Xchg_rm16_r16, Code::Xchg_rm32_r32, Code::Xchg_rm64_r64],
    [Code::Xadd_rm8_r8, Code::Xadd_rm16_r16, Code::Xadd_rm32_r32, Code::Xadd_rm64_r64],
    [Code::Cmpxchg_rm8_r8, Code::Cmpxchg_rm16_r16, Code::Cmpxchg_rm32_r32, Code::Cmpxchg_rm64_r64],
];

/// An instruction that exchanges, or a locked one.
fn exchange(
    random: &mut Random,
    class: usize,
    place: MemoryOperand,
    a: Register,
    b: Register,
) -> Result<Instruction, iced_x86::IcedError> {
    match random.below(8) {
        0 => Instruction::with2(random.pick(&EXCHANGES)[class], a, b),
        1..=4 => {
            let mut instruction = Instruction::with2(random.pick(&EXCHANGES)[class], place, b)?;
            instruction.set_has_lock_prefix(random.below(2) == 0);
            Ok(instruction)
        }
        5 => {
            let mut instruction = Instruction::with2(random.pick(&PAIRS[..7])[1][class], place, b)?;
            instruction.set_has_lock_prefix(true);
            Ok(instruction)
        }
        6 => {
            let mut instruction = Instruction::with1(random.pick(&UNARY)[class], place)?;
            instruction.set_has_lock_prefix(true);
            Ok(instruction)
        }
        _ => {
            let forms = [Code::Movbe_r64_m64, Code::Movbe_r32_m32];
            let form = random.pick(&forms);
            let size = if form == forms[0] { 8 } else { 4 };
            let to = register(size, random.pick(&FREE));
            if random.below(2) == 0 {
                return Instruction::with2(form, to, place);
            }
            let store = if size == 8 { Code::Movbe_m64_r64 } else { Code::Movbe_m32_r32 };
            Instruction::with2(store, place, to)
        }
    }
}

/// Appends a random instruction, and an ADD after one that leaves flags undefined.
fn append(random: &mut Random, code: &mut Vec<Instruction>) {
    let class = random.below(4);
    let size = 1 << class;
    let mut any = |size: usize| register(size, random.pick(&FREE));
    let (a, b) = (any(size), any(size));
    let (wide_a, wide_b) = (any(8), any(8));
    let (a4, b4) = (any(4), any(4));
    let (byte, word) = (any(1), any(2));
    let to_memory = random.below(3) == 0;
    let from_memory = random.below(2) == 0;
    let place = memory(random);
    let imm = random.next() as i8 as i32;
    let instruction = match random.below(20) {
        0..=4 => {
            let [to_register, to_rm] = random.pick(&PAIRS);
            match (to_memory, from_memory) {
                (true, _) => Instruction::with2(to_rm[class], place, b),
                (false, true) => Instruction::with2(to_register[class], a, place),
                _ => Instruction::with2(random.pick(&[to_register, to_rm])[class], a, b),
            }
        }
        5 | 6 => {
            let form = random.pick(&IMMEDIATES)[class];
            if to_memory {
                Instruction::with2(form, place, imm)
            } else {
                Instruction::with2(form, a, imm)
            }
        }
        7 => {
            let form = random.pick(&UNARY)[class];
            if to_memory { Instruction::with1(form, place) } else { Instruction::with1(form, a) }
        }
        8 => {
            let form = random.pick(&SHIFTS)[class];
            let count = random.below(33) as u32;
            if to_memory {
                Instruction::with2(form, place, count)
            } else {
                Instruction::with2(form, a, count)
            }
        }
        9 => {
            let form = random.pick(&BY_CL)[class];
            if to_memory {
                Instruction::with2(form, place, Register::CL)
            } else {
                Instruction::with2(form, a, Register::CL)
            }
        }
        10 => {
            let form =
                random.pick(&[Code::Sete_rm8, Code::Setb_rm8, Code::Setl_rm8, Code::Seto_rm8]);
            if to_memory { Instruction::with1(form, place) } else { Instruction::with1(form, byte) }
        }
        11 => {
            let forms = [
                (Code::Cmovb_r32_rm32, a4, b4),
                (Code::Cmovne_r64_rm64, wide_a, wide_b),
                (Code::Cmovg_r32_rm32, a4, b4),
                (Code::Imul_r32_rm32, a4, b4),
                (Code::Imul_r64_rm64, wide_a, wide_b),
                (Code::Movzx_r32_rm8, a4, byte),
                (Code::Movzx_r64_rm16, wide_a, word),
                (Code::Movsx_r64_rm8, wide_a, byte),
                (Code::Movsxd_r64_rm32, wide_a, b4),
            ];
            let (form, to, from) = random.pick(&forms);
            if from_memory {
                Instruction::with2(form, to, place)
            } else {
                Instruction::with2(form, to, from)
            }
        }
        12 => Instruction::with2(random.pick(&[Code::Lea_r64_m, Code::Lea_r32_m]), wide_a, place),
        13 => match random.below(6) {
            0 => Ok(Instruction::with(Code::Cdq)),
            1 => Ok(Instruction::with(Code::Cqo)),
            2 => Instruction::with1(Code::Bswap_r64, wide_a),
            3 => Instruction::with2(Code::Xchg_rm64_r64, wide_a, wide_b),
            4 => Instruction::with1(Code::Mul_rm64, wide_b),
            _ => Instruction::with2(Code::Bt_rm64_imm8, wide_a, random.below(64) as u32),
        },
        16 => {
            // Bits, by a register that says where.
            let [to_register, immediate] = random.pick(&BITS);
            let wide = class >> 1 & 1;
            let (a, b) = if wide == 1 { (wide_a, wide_b) } else { (a4, b4) };
            match (random.below(2), to_memory) {
                (0, true) => Instruction::with2(immediate[wide], place, random.below(64) as u32),
                (0, false) => Instruction::with2(immediate[wide], a, random.below(64) as u32),
                (_, true) => {
                    let small =
                        Instruction::with2(Code::And_rm64_imm32, register(8, b.number()), 0x7f);
                    code.push(small.unwrap());
                    Instruction::with2(to_register[wide], place, b)
                }
                _ => Instruction::with2(to_register[wide], a, b),
            }
        }
        17 => {
            let [narrow, wide] = random.pick(&COUNTS);
            let (form, to, from) =
                if class & 1 == 0 { (narrow, a4, b4) } else { (wide, wide_a, wide_b) };
            if from_memory {
                Instruction::with2(form, to, place)
            } else {
                Instruction::with2(form, to, from)
            }
        }
        18 => exchange(random, class, place, a, b),
        19 => match random.below(6) {
            0 => Instruction::with3(Code::Shld_rm64_r64_imm8, wide_a, wide_b, 1 + imm as u32 % 63),
            1 => Instruction::with3(Code::Shrd_rm32_r32_CL, a4, b4, Register::CL),
            2 => Instruction::with3(Code::Shld_rm64_r64_CL, place, wide_b, Register::CL),
            3 => {
                // A dividend that fits, mostly.
                let form = random.pick(&[Code::Div_rm32, Code::Idiv_rm32]);
                code.push(Instruction::with(Code::Cdq));
                code.push(Instruction::with2(Code::Or_rm32_imm8, b4, 1).unwrap());
                Instruction::with1(form, b4)
            }
            4 => {
                let form = random.pick(&[Code::Div_rm64, Code::Idiv_rm64]);
                code.push(Instruction::with(Code::Cqo));
                Instruction::with1(form, wide_b)
            }
            _ => {
                let form = random.pick(&[Code::Clc, Code::Stc, Code::Cmc, Code::Cbw, Code::Cwd]);
                Ok(Instruction::with(form))
            }
        },
        14 => {
            let count = random.below(10);
            for (form, count) in [(Code::Push_r64, count + 1), (Code::Pop_r64, count)] {
                for _ in 0..count {
                    let any = register(8, random.pick(&FREE));
                    code.push(Instruction::with1(form, any).unwrap());
                }
            }
            Instruction::with1(Code::Pop_r64, wide_b)
        }
        _ => {
            // A branch over one instruction, taken or not.
            let form = random.pick(&[
                Code::Je_rel8_64,
                Code::Jb_rel8_64,
                Code::Js_rel8_64,
                Code::Jo_rel8_64,
            ]);
            let label = (code.len() + 1) as u64 + LABELS;
            let mut skipped = Instruction::with2(Code::Mov_r64_rm64, wide_a, wide_b).unwrap();
            code.push(Instruction::with_branch(form, label).unwrap());
            skipped.set_ip(0);
            code.push(skipped);
            let mut target = Instruction::with(Code::Nopd);
            target.set_ip(label);
            Ok(target)
        }
    };
    let mut instruction = instruction.expect("a valid form");
    if matches!(instruction.code(), Code::Lea_r32_m) {
        instruction.set_op0_register(a4);
    }
    code.push(instruction);
    let undefined = instruction.rflags_undefined();
    let logic = undefined == iced_x86::RflagsBits::AF && instruction.rflags_cleared() != 0;
    if undefined != 0 && !logic {
        code.push(Instruction::with2(Code::Add_r64_rm64, wide_a, wide_b).unwrap());
    }
}

/// What distinguishes the addresses of labels.
pub(super) const LABELS: u64 = 0x1000_0000;

/// A loop of random instructions: 40 rounds, counted in memory.
fn program(random: &mut Random, length: usize) -> Vec<u8> {
    let counter = MemoryOperand::with_base_displ_size(Register::RSP, 0x100, 8);
    let mut code = vec![Instruction::with2(Code::Mov_rm64_imm32, counter, 40).unwrap()];
    code[0].set_ip(LABELS - 1);
    let mut top = Instruction::with(Code::Nopd);
    top.set_ip(LABELS);
    code.push(top);
    while code.len() < length {
        append(random, &mut code);
    }
    // All flags are defined at the end.
    code.push(Instruction::with2(Code::Add_r64_rm64, Register::RAX, Register::RAX).unwrap());
    code.push(Instruction::with1(Code::Dec_rm64, counter).unwrap());
    code.push(Instruction::with_branch(Code::Jne_rel32_64, LABELS).unwrap());
    code.push(Instruction::with2(Code::Add_r64_rm64, Register::RBX, Register::RBX).unwrap());
    let block = InstructionBlock::new(&code, cloister_cpu::testing::CODE);
    BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).expect("encodes").code_buffer
}

#[test]
fn random_code_ends_as_under_the_interpreter() {
    let mut pair = Pair::new(HostFeatures::detect());
    let data: Vec<u8> = (0..ROOM).map(|n| (n * 7 + n / 256) as u8).collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    for n in 0..3000 {
        let length = 4 + random.below(40);
        let code = program(&mut random, length);
        let seed = random.next();
        pair.check(&format!("program {n}"), &code, &data, &|state| {
            let mut values = Random(seed | 1);
            let registers = std::array::from_fn(|_| match values.below(4) {
                0 => values.next() & 0xff,
                1 => values.next() as i32 as u64,
                _ => values.next(),
            });
            state.gpr.set_registers(&registers);
            state.gpr[Gpr::Rsp] = STACK;
            state.gpr[Gpr::Rbp] = DATA + 64;
            state.gpr[Gpr::R13] = DATA + 128;
            state.gpr[Gpr::R14] = 24;
            state.gpr[Gpr::R12] = 3;
            state.set_rflags(values.next() & 0x8d5 | 2);
        });
    }
}
