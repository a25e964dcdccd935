//! Vector instructions and others that the host does itself: each encoding, with random operands,
//! states and values, on hosts that lack this or that.

use cloister_cpu::ArchState;
use cloister_cpu::testing::{DATA, Ending, STACK};
use cloister_x86::regs::{Cr0, Cr4, Xfeatures};
use cloister_x86::{Exception, Gpr};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, CpuidFeature, EncodingKind, Instruction,
    InstructionBlock, MemoryOperand, OpCodeOperandKind, OpKind, Register,
};

use super::random::{LABELS, Random, register};
use super::{Pair, ROOM};
use crate::host::{HostFeatures, KNOWN};

/// Whether an extension's instructions are tried: those of every host, and those that translated code
/// makes use of where the host has them.
fn is_tried(feature: CpuidFeature) -> bool {
    matches!(feature, CpuidFeature::SSE | CpuidFeature::SSE2) || KNOWN.contains(&feature)
}

/// Every encoding of these extensions that 64-bit code can have.
fn codes() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.mode64()
                && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                && !code.cpuid_features().is_empty()
                && code.cpuid_features().iter().all(|&feature| is_tried(feature))
        })
        .collect()
}

/// Where memory operands are: mostly at a multiple of 32, at times anywhere, or across the second
/// page, which programs may leave out.
fn memory(random: &mut Random) -> MemoryOperand {
    let base = random.pick(&[Register::RBP, Register::RBP, Register::R13]);
    let disp = match random.below(16) {
        0..=7 => 32 * random.below(100) as i64,
        8..=11 => 16 * random.below(200) as i64,
        12 | 13 => random.below(3000) as i64,
        14 => 4096 + 32 * random.below(60) as i64,
        _ => 4096 - random.below(40) as i64,
    };
    MemoryOperand::new(base, Register::None, 1, disp, 8, false, Register::None)
}

/// An instruction of an encoding with random operands; `None` for those that have operands of a kind
/// that is not translated.
fn instance(random: &mut Random, code: Code) -> Option<Instruction> {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for n in 0..info.op_count() {
        let xmm = Register::XMM0 + random.below(16) as u32;
        let ymm = Register::YMM0 + random.below(16) as u32;
        // Not RSP and the bases.
        let number = random.pick(&[0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 15]);
        let in_memory = random.below(2) == 0;
        let register = match info.op_kind(n) {
            K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => xmm,
            K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => ymm,
            K::xmm_or_mem if !in_memory => xmm,
            K::ymm_or_mem if !in_memory => ymm,
            K::r32_reg | K::r32_rm | K::r32_vvvv => register(4, number),
            K::r64_reg | K::r64_rm | K::r64_vvvv => register(8, number),
            K::r16_reg | K::r16_rm => register(2, number),
            K::r8_or_mem if !in_memory => register(1, number),
            K::r16_or_mem if !in_memory => register(2, number),
            K::r32_or_mem | K::r32_or_mem_mpx if !in_memory => register(4, number),
            K::r64_or_mem | K::r64_or_mem_mpx if !in_memory => register(8, number),
            K::imm8 => {
                instruction.set_op_kind(n, OpKind::Immediate8);
                instruction.set_immediate8(random.next() as u8);
                continue;
            }
            K::imm8_const_1 => return None,
            K::xmm_or_mem
            | K::ymm_or_mem
            | K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mem => {
                let place = memory(random);
                instruction.set_op_kind(n, OpKind::Memory);
                instruction.set_memory_base(place.base);
                instruction.set_memory_displacement64(place.displacement as u64);
                instruction.set_memory_displ_size(8);
                continue;
            }
            _ => return None,
        };
        instruction.set_op_kind(n, OpKind::Register);
        instruction.set_op_register(n, register);
    }
    Some(instruction)
}

/// A loop of instructions: 6 rounds, counted in memory. Flags that one leaves undefined are set again.
fn program(body: &[Instruction]) -> Vec<u8> {
    let counter = MemoryOperand::with_base_displ_size(Register::RSP, 0x100, 8);
    let mut code = vec![Instruction::with2(Code::Mov_rm64_imm32, counter, 6).unwrap()];
    code[0].set_ip(LABELS - 1);
    let mut top = Instruction::with(Code::Nopd);
    top.set_ip(LABELS);
    code.push(top);
    for instruction in body {
        code.push(*instruction);
        if instruction.rflags_undefined() != 0 {
            code.push(
                Instruction::with2(Code::Add_r64_rm64, Register::RAX, Register::RDX).unwrap(),
            );
        }
    }
    code.push(Instruction::with1(Code::Dec_rm64, counter).unwrap());
    code.push(Instruction::with_branch(Code::Jne_rel32_64, LABELS).unwrap());
    code.push(Instruction::with2(Code::Add_r64_rm64, Register::RBX, Register::RBX).unwrap());
    let block = InstructionBlock::new(&code, cloister_cpu::testing::CODE);
    BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).expect("encodes").code_buffer
}

/// A number that is special as one or two floating-point numbers, or any.
fn value(random: &mut Random) -> u64 {
    let single = |random: &mut Random| {
        let sign = (random.next() as u32 & 1) << 31;
        let magnitude = match random.below(10) {
            0 => 0,
            1 => 0x7f80_0000,
            2 => 0x7fc0_0000 | random.next() as u32 & 0x3f_ffff,
            3 => 0x7f80_0001 | random.next() as u32 & 0x3f_ffff,
            4 => random.next() as u32 & 0x7f_ffff,
            5 => 0x3f80_0000,
            6 => 0x0080_0000 | random.next() as u32 & 0xf,
            7 => 0x7f7f_ffff,
            _ => 0x3000_0000 + (random.next() as u32 & 0x1fff_ffff),
        };
        u64::from(sign | magnitude)
    };
    match random.below(8) {
        0..=2 => single(random) | single(random) << 32,
        3..=5 => {
            let sign = random.next() << 63;
            let magnitude = match random.below(10) {
                0 => 0,
                1 => 0x7ff0_0000_0000_0000,
                2 => 0x7ff8_0000_0000_0000 | random.next() >> 13,
                3 => 0x7ff0_0000_0000_0001 | random.next() >> 13,
                4 => random.next() >> 12,
                5 => 0x3ff0_0000_0000_0000,
                6 => 0x0010_0000_0000_0000,
                7 => 0x7fef_ffff_ffff_ffff,
                _ => 0x3f00_0000_0000_0000 + (random.next() >> 9),
            };
            sign | magnitude
        }
        6 => random.next() & 0xff,
        _ => random.next(),
    }
}

/// Registers and MXCSR: one in four with exceptions unmasked, one in four with the upper halves clear.
fn prepare(random: &mut Random, state: &mut ArchState) {
    state.gpr.set_registers(&std::array::from_fn(|_| value(random)));
    state.gpr[Gpr::Rsp] = STACK;
    state.gpr[Gpr::Rbp] = DATA;
    state.gpr[Gpr::R13] = DATA;
    let narrow = random.below(4) == 0;
    for register in &mut state.vector.ymm {
        *register = std::array::from_fn(|_| value(random));
        if narrow {
            [register[2], register[3]] = [0, 0];
        }
    }
    let mxcsr = random.next() as u32 & 0xe07f;
    let masks = if random.below(4) == 0 { random.next() as u32 & 0x1f80 } else { 0x1f80 };
    state.vector.mxcsr = mxcsr | masks;
    state.set_rflags(random.next() & 0x8d5 | 2);
}

/// Instructions that the interpreter does, between which the vector registers have to move.
fn other(random: &mut Random) -> Instruction {
    let place = MemoryOperand::with_base_displ_size(Register::RBP, 512, 8);
    match random.below(3) {
        0 => Instruction::with1(Code::Fxsave_m512byte, place),
        1 => Instruction::with1(Code::Stmxcsr_m32, place),
        _ => Instruction::with3(Code::Dpps_xmm_xmmm128_imm8, Register::XMM1, Register::XMM2, 0xff),
    }
    .unwrap()
}

/// Programs of all encodings end on a host without `lacking` as under the interpreter.
fn check(seed: u64, rounds: usize, lacking: &[CpuidFeature]) {
    let mut pair = Pair::new(HostFeatures::detect().without(lacking));
    let mut random = Random(seed);
    let codes = codes();
    assert!(codes.len() > 700, "{}", codes.len());
    let mut whole = 0;
    for round in 0..rounds {
        for first in (0..codes.len()).step_by(3) {
            // Neighbours are alike; others come between.
            let mut body: Vec<Instruction> = (0..5)
                .filter_map(|n| {
                    let code = if n < 3 {
                        *codes.get(first + n)?
                    } else {
                        codes[random.below(codes.len())]
                    };
                    instance(&mut random, code)
                })
                .collect();
            if random.below(4) == 0 {
                body.insert(random.below(body.len()), other(&mut random));
            }
            let seed = random.next() | 1;
            let mut values = Random(seed);
            let data: Vec<u8> =
                (0..ROOM / 8).flat_map(|_| value(&mut values).to_le_bytes()).collect();
            let what = format!("round {round}, program {first}");
            let ending = pair.check(&what, &program(&body), &data, &|state| {
                prepare(&mut Random(seed), state);
            });
            whole += usize::from(ending == Ending::Exception(Exception::ud()));
        }
    }
    // Most are not ended by a fault before.
    assert!(whole > rounds * codes.len() / 3 / 2, "{whole}");
}

#[test]
fn every_encoding_does_on_the_host_what_it_does_under_the_interpreter() {
    check(0x1234_5678_9abc_def1, 12, &[]);
}

#[test]
fn a_host_without_an_extension_gives_the_same_results() {
    for (n, feature) in (2..).zip(KNOWN) {
        check(0x1111 + 77 * n, 1, &[*feature]);
    }
    // Without any of what came after SSE2.
    check(0x2222, 1, KNOWN);
}

/// A loop of an SSE and an AVX instruction under MXCSR.
fn both_kinds() -> Vec<u8> {
    let place = MemoryOperand::with_base_displ_size(Register::RBP, 64, 8);
    program(&[
        Instruction::with2(Code::Addps_xmm_xmmm128, Register::XMM1, place).unwrap(),
        Instruction::with3(
            Code::VEX_Vpaddd_ymm_ymm_ymmm256,
            Register::YMM2,
            Register::YMM1,
            Register::YMM2,
        )
        .unwrap(),
    ])
}

#[test]
fn units_that_the_system_has_not_enabled_fault_as_under_the_interpreter() {
    let code = both_kinds();
    let changes: [fn(&mut ArchState); 6] = [
        |state| state.cr0 |= Cr0::TS,
        |state| state.cr0 |= Cr0::EM,
        |state| state.cr4.remove(Cr4::OSFXSR),
        |state| state.cr4.remove(Cr4::OSXSAVE),
        |state| state.xcr0.remove(Xfeatures::AVX),
        |state| state.vector.mxcsr = 0,
    ];
    let mut pair = Pair::new(HostFeatures::detect());
    let start = |state: &mut ArchState| {
        prepare(&mut Random(5), state);
        state.vector.mxcsr = 0x1f80;
    };
    // Translated while all is enabled.
    pair.check("enabled", &code, &[0x40; ROOM], &start);
    for (n, change) in changes.iter().enumerate() {
        pair.check(&format!("change {n}"), &code, &[0x40; ROOM], &|state| {
            start(state);
            change(state);
        });
    }
}

#[test]
fn an_access_that_faults_changes_nothing_but_what_came_before() {
    let mut pair = Pair::new(HostFeatures::detect());
    for guest in [&mut pair.interpreted, &mut pair.translated] {
        // The second page of the data is not there.
        guest.set_page_flags(DATA + 0x1000, 0b110);
    }
    let across = MemoryOperand::with_base_displ_size(Register::RBP, 0xff0, 8);
    let bodies = [
        Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, across, Register::YMM3),
        Instruction::with2(Code::VEX_Vmovups_ymm_ymmm256, Register::YMM3, across),
        Instruction::with3(
            Code::VEX_Vaddpd_ymm_ymm_ymmm256,
            Register::YMM3,
            Register::YMM4,
            across,
        ),
        // Masked elements may be missing.
        Instruction::with3(
            Code::VEX_Vpmaskmovd_m256_ymm_ymm,
            across,
            Register::YMM5,
            Register::YMM6,
        ),
        Instruction::with3(
            Code::VEX_Vpmaskmovd_ymm_ymm_m256,
            Register::YMM3,
            Register::YMM5,
            across,
        ),
    ];
    // As often as it has to be for the loop to be translated, the address is a good one.
    for body in bodies.map(|body| body.expect("a valid form")) {
        for upper in [0, u64::MAX] {
            let step = Instruction::with2(Code::Add_rm64_imm32, Register::RBP, 0x80).unwrap();
            let code = program(&[body, step]);
            pair.check("across", &code, &[0x40; ROOM], &|state| {
                prepare(&mut Random(9), state);
                state.vector.mxcsr = 0x1f80;
                state.gpr[Gpr::Rbp] = DATA - 0x280;
                state.vector.ymm[5] = [u64::MAX, 0, upper, upper];
            });
        }
    }
}
