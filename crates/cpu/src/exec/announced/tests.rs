//! Every encoding that the decoder knows, on the announced processor.

use std::collections::BTreeSet;

use cloister_sgx::Capabilities;
use cloister_x86::regs::Xfeatures;
use cloister_x86::{Exception, Gpr, Vector};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic};

use crate::controls::Features;
use crate::exec::table;
use crate::lower::{decoder, lower};
use crate::mode::Mode;
use crate::testing::{CODE, DATA, Ending, Guest, Start};

/// #UD of the instruction after the code: everything before it retired.
const RETIRED: Ending = Ending::Exception(Exception::ud());

/// What an encoding does on the announced processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Executes,
    /// It is a no-operation.
    Hint,
    /// It is the instruction that it is without its prefix.
    Without(Mnemonic),
    Undefined,
}

/// What the manual says of a processor with these features.
fn outcome(code: Code, features: &Features) -> Outcome {
    use CpuidFeature as F;
    let has = |feature: &CpuidFeature| features.has(*feature);
    let known = matches!(code.op_code().encoding(), EncodingKind::Legacy | EncodingKind::VEX);
    match code.cpuid_features() {
        needed if known && needed.iter().all(has) => Outcome::Executes,
        [F::CET_IBT | F::CLDEMOTE | F::MPX | F::PREFETCHITI | F::PREFETCHWT1] => Outcome::Hint,
        [F::CET_SS] if matches!(code, Code::Rdsspd_r32 | Code::Rdsspq_r64) => Outcome::Hint,
        [F::WBNOINVD] => Outcome::Without(Mnemonic::Wbinvd),
        _ => Outcome::Undefined,
    }
}

/// Whether the decoder finds the encoding in some bytes without being asked to read them as a
/// particular old processor does.
fn is_usual(code: Code) -> bool {
    let info = code.op_code();
    info.is_instruction()
        && !FOREIGN.contains(&code)
        // Two instructions, of which FWAIT is the first.
        && !info.fwait()
        && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && matches!(info.decoder_option(), DecoderOptions::NONE | DecoderOptions::MPX)
}

/// Encodings that the decoder finds for processors of another maker, or for the 8086, only.
const FOREIGN: [Code; 8] = [
    Code::Popw_CS,
    Code::Loopne_rel8_16_RCX,
    Code::Loope_rel8_16_RCX,
    Code::Loop_rel8_16_RCX,
    Code::Jrcxz_rel8_16,
    Code::Montmul_16,
    Code::Montmul_64,
    Code::Ud0,
];

const MODES: [Mode; 3] = [Mode::code64(), Mode::legacy(true, true), Mode::legacy(false, false)];

/// ModR/M bytes with each register: plain memory, memory with a SIB byte, and the registers of
/// `numbers`.
fn modrm_bytes(numbers: u8) -> impl Iterator<Item = u8> {
    (0..8).flat_map(move |reg| {
        let memory = [0, 4].into_iter();
        memory.chain((0..numbers).map(|rm| 0xc0 | rm)).map(move |rest| rest | reg << 3)
    })
}

/// What follows opcode and ModR/M byte: a SIB byte with an index register of its own for VSIB, then
/// zeros.
const TAIL: [u8; 9] = [0x10, 0, 0, 0, 0, 0, 0, 0, 0];

/// Instructions with each combination of the prefixes that choose between encodings, of each opcode
/// and ModR/M byte.
fn each_legacy_encoding(mode: Mode, mut visit: impl FnMut(&[u8])) {
    let rex: &[&[u8]] = if mode.is_64() { &[&[], &[0x48]] } else { &[&[]] };
    let mandatory: [&[u8]; 5] = [&[], &[0x66], &[0xf2], &[0xf3], &[0x66, 0xf2]];
    let address: [&[u8]; 2] = [&[], &[0x67]];
    // Behind 0FH and D8H to DFH the ModR/M byte's last bits may choose.
    let maps: [(&[u8], u8); 4] = [(&[], 8), (&[0x0f], 8), (&[0x0f, 0x38], 2), (&[0x0f, 0x3a], 2)];
    for prefix in mandatory {
        for (size, rex) in address.iter().flat_map(|size| rex.iter().map(move |rex| (size, rex))) {
            for (map, numbers) in maps {
                for opcode in 0..=255 {
                    for modrm in modrm_bytes(numbers) {
                        visit(&[prefix, size, rex, map, &[opcode, modrm], &TAIL].concat());
                    }
                }
            }
        }
    }
}

/// The same of the three opcode maps of VEX prefixes, with each VEX.W, VEX.L and VEX.pp.
fn each_vex_encoding(mut visit: impl FnMut(&[u8])) {
    for map in 1..=3 {
        for fields in (0..8).flat_map(|low| [low, low | 0x80]) {
            for opcode in 0..=255 {
                for modrm in modrm_bytes(2) {
                    let prefix = [0xc4, 0xe0 | map, 0x78 | fields];
                    visit(&[&prefix[..], &[opcode, modrm], &TAIL].concat());
                }
            }
        }
    }
}

/// The instruction as the processor reads it, and whether it has a handler.
fn read(bytes: &[u8], mode: Mode, features: &Features) -> (Instruction, bool) {
    let instruction = decoder(bytes, mode, features).decode();
    if instruction.is_invalid() {
        return (instruction, false);
    }
    let mut ops = Vec::new();
    lower(bytes, mode, features, true, &mut ops);
    (instruction, ops[0].mnemonic != Mnemonic::INVALID)
}

#[test]
fn every_encoding_is_announced_and_executes_or_is_what_it_was_before_its_extension() {
    let features = Features { sgx: Capabilities::default(), ..Features::default() };
    let (mut seen, mut executed) = (BTreeSet::new(), BTreeSet::new());
    let mut wrong = BTreeSet::new();

    for mode in MODES {
        let mut visit = |bytes: &[u8]| {
            let known = Decoder::with_ip(mode.bitness(), bytes, 0, DecoderOptions::MPX).decode();
            if known.is_invalid() {
                return;
            }
            let code = known.code();
            seen.insert(code as usize);
            let (found, executes) = read(bytes, mode, &features);
            let right = match outcome(code, &features) {
                // A register that an instruction does not take is #UD: CR1, CS.
                Outcome::Executes => true,
                Outcome::Hint => executes && found.mnemonic() == Mnemonic::Reservednop,
                Outcome::Without(mnemonic) => executes && found.mnemonic() == mnemonic,
                Outcome::Undefined => !executes,
            };
            if executes {
                executed.insert(code as usize);
            }
            if !right {
                wrong.insert(format!("{code:?} in {} bits: {bytes:x?}", mode.bitness()));
            }
        };
        each_legacy_encoding(mode, &mut visit);
        each_vex_encoding(&mut visit);
    }

    let missed = |code: &Code| match outcome(*code, &features) {
        Outcome::Executes => !executed.contains(&(*code as usize)),
        _ => !seen.contains(&(*code as usize)),
    };
    let missed: Vec<Code> = Code::values().filter(|code| is_usual(*code)).filter(missed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(missed.is_empty(), "announced without a handler, or not met: {missed:?}");
}

#[test]
fn the_mnemonics_with_a_row_are_those_that_the_processor_has() {
    let features = Features { sgx: Capabilities::default(), vmx: true, ..Features::default() };

    let announced = |code: &Code| outcome(*code, &features) == Outcome::Executes;
    let claimed: BTreeSet<Mnemonic> = table::mnemonics().collect();

    let usual = Code::values().filter(|code| is_usual(*code) && announced(code));
    let missing: BTreeSet<_> =
        usual.map(Code::mnemonic).filter(|mnemonic| !claimed.contains(mnemonic)).collect();
    let has: BTreeSet<_> = Code::values().filter(announced).map(Code::mnemonic).collect();
    let foreign: BTreeSet<_> = claimed.difference(&has).collect();

    // The decoder reads these as the hints that they are.
    let hints = BTreeSet::from([
        Mnemonic::Prefetch,
        Mnemonic::Prefetchnta,
        Mnemonic::Prefetcht0,
        Mnemonic::Prefetcht1,
        Mnemonic::Prefetcht2,
        Mnemonic::Prefetchw,
    ]);
    assert_eq!((missing, foreign), (hints, BTreeSet::new()));
}

#[test]
fn encodings_with_other_prefixes_than_vex_are_undefined() {
    let features = Features::default();
    let foreign = |code: &Code| {
        !matches!(code.op_code().encoding(), EncodingKind::Legacy | EncodingKind::VEX)
    };

    for code in Code::values().filter(foreign) {
        let mut instruction = Instruction::default();
        instruction.set_code(code);

        assert!(!features.has_encoding(&instruction, Mode::code64()), "{code:?}");
    }
}

#[test]
fn a_vex_prefix_is_undefined_in_real_mode() {
    let mut guest = Guest::new(Start::Real16);
    guest.load_code(&[0xc5, 0xf8, 0x77]); // VZEROUPPER

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::ud()));
    assert_eq!(guest.vcpu.cpu.arch.rip, CODE);
}

#[test]
fn without_avx_in_xcr0_its_instructions_are_not_there_and_others_with_vex_are() {
    let features = Features { xcr0: Xfeatures::X87 | Xfeatures::SSE, ..Features::default() };
    let addps = [0xc5, 0xf0, 0x58, 0xc2];
    let andn = [0xc4, 0xe2, 0x70, 0xf2, 0xc2];

    assert!(!read(&addps, Mode::code64(), &features).1);
    assert!(read(&andn, Mode::code64(), &features).1);
    assert!(read(&addps, Mode::code64(), &Features::default()).1);
}

/// The opcodes after 0FH that are set aside for hints (SDM Vol. 2B, NOP, and appendix A).
const HINTS: [u8; 9] = [0x0d, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];

#[test]
fn hints_are_no_operations_that_access_nothing() {
    for start in [Start::User64, Start::User32, Start::Flat32, Start::Real16] {
        let mut guest = Guest::new(start);
        // Nothing is at the addresses that the memory forms name.
        let before: [u64; 16] =
            std::array::from_fn(|n| if n == 4 { 0x4_f000 } else { 0xffff_f000 });
        for prefix in [&[][..], &[0x66], &[0xf2], &[0xf3]] {
            for opcode in HINTS {
                for modrm in (0..=255).step_by(3) {
                    let tail = [0x0f, opcode, modrm, 0x90, 0x90, 0x90, 0x90, 0x90];
                    guest.load_code(&[prefix, &tail].concat());
                    guest.vcpu.cpu.arch.gpr.set_registers(&before);
                    guest.vcpu.cpu.arch.rip = CODE;

                    let ending = guest.run();

                    let what = format!("{start:?}: {prefix:x?} 0f {opcode:x} {modrm:x}");
                    assert_eq!(ending, RETIRED, "{what}");
                    assert_eq!(guest.vcpu.cpu.arch.rip, CODE + prefix.len() as u64 + 8, "{what}");
                    assert_eq!(guest.vcpu.cpu.arch.gpr.registers(), before, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_locked_hint_is_undefined() {
    let mut guest = Guest::new(Start::User64);
    guest.load_code(&[0xf0, 0x0f, 0x1e, 0xc8]);

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::ud()));
    assert_eq!(guest.vcpu.cpu.arch.rip, CODE);
}

#[test]
fn rdssp_without_shadow_stacks_changes_nothing() {
    let encodings: [&[u8]; 4] = [
        &[0xf3, 0x0f, 0x1e, 0xc8],       // RDSSPD EAX
        &[0xf3, 0x0f, 0x1e, 0xca],       // RDSSPD EDX
        &[0xf3, 0x48, 0x0f, 0x1e, 0xc8], // RDSSPQ RAX
        &[0xf3, 0x48, 0x0f, 0x1e, 0xca], // RDSSPQ RDX
    ];
    for encoding in encodings {
        let mut guest = Guest::new(Start::User64);
        guest.load_code(encoding);
        (guest.vcpu.cpu.arch.gpr[Gpr::Rax], guest.vcpu.cpu.arch.gpr[Gpr::Rdx]) = (DATA, u64::MAX);

        let ending = guest.run();

        assert_eq!(ending, RETIRED, "{encoding:x?}");
        assert_eq!(guest.vcpu.cpu.arch.rip, CODE + encoding.len() as u64, "{encoding:x?}");
        let (rax, rdx) = (guest.vcpu.cpu.arch.gpr[Gpr::Rax], guest.vcpu.cpu.arch.gpr[Gpr::Rdx]);
        assert_eq!((rax, rdx), (DATA, u64::MAX), "{encoding:x?}");
    }
}

#[test]
fn wbnoinvd_is_wbinvd() {
    let code = [0xf3, 0x0f, 0x09];
    let mut kernel = Guest::new(Start::Kernel64);
    let mut user = Guest::new(Start::User64);
    kernel.load_code(&code);
    user.load_code(&code);

    let endings = (kernel.run(), user.run());

    let refused = Ending::Exception(Exception::with_code(Vector::Gp, 0));
    assert_eq!(endings, (RETIRED, refused));
    assert_eq!((kernel.vcpu.cpu.arch.rip, user.vcpu.cpu.arch.rip), (CODE + 3, CODE));
}

/// The manual leaves F3 REX.B 90 open. Intel processors take it for PAUSE, others exchange.
#[test]
fn f3_makes_90_a_pause_even_with_rex_b_as_intel_processors_do() {
    let (rax, r8) = (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00);
    let cases: [(&[u8], [u64; 2]); 6] = [
        (&[0xf3, 0x41, 0x90], [rax, r8]),
        (&[0xf3, 0x49, 0x90], [rax, r8]),
        (&[0x66, 0xf3, 0x41, 0x90], [rax, r8]),
        (&[0xf2, 0xf3, 0x41, 0x90], [rax, r8]),
        // The last of F2 and F3 counts.
        (&[0xf3, 0xf2, 0x41, 0x90], [r8 & 0xffff_ffff, rax & 0xffff_ffff]),
        (&[0x41, 0x90], [r8 & 0xffff_ffff, rax & 0xffff_ffff]),
    ];
    for (encoding, expected) in cases {
        let mut guest = Guest::new(Start::User64);
        guest.load_code(encoding);
        (guest.vcpu.cpu.arch.gpr[Gpr::Rax], guest.vcpu.cpu.arch.gpr[Gpr::R8]) = (rax, r8);

        let ending = guest.run();

        assert_eq!(ending, RETIRED, "{encoding:x?}");
        let after = [guest.vcpu.cpu.arch.gpr[Gpr::Rax], guest.vcpu.cpu.arch.gpr[Gpr::R8]];
        assert_eq!(after, expected, "{encoding:x?}");
    }
}
