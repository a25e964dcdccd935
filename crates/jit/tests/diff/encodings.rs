//! Which encodings are tested.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind as Kind};

use super::case::Mode;

/// The encodings to test: user-mode instructions of the features that the interpreter has.
pub(crate) fn codes(mode: Mode) -> Vec<Code> {
    Code::values().filter(|&code| is_tested(code, mode)).collect()
}

/// Whether an encoding is among them.
pub(crate) fn is_tested(code: Code, mode: Mode) -> bool {
    let info = code.op_code();
    let exists = match mode {
        Mode::Bits16 => info.mode16(),
        Mode::Bits32 => info.mode32(),
        Mode::Bits64 => info.mode64(),
    };
    if !info.is_instruction() || !exists || !info.cpl3() {
        return false;
    }
    if !matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return false;
    }
    code.cpuid_features().iter().all(|&feature| has_feature(feature))
        && !is_left_out(code.mnemonic())
        && (!mode.is_64() || !loads_segment(code))
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
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
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
            | F::XSAVE
            | F::XSAVEC
            | F::XSAVEOPT
            | F::FSGSBASE
            | F::RDRAND
            | F::RDSEED
    )
}

/// Instructions whose result depends on the host's kernel or identity, or that leave user mode.
fn is_left_out(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        // They enter a handler: `exec::system::tests` has the kernel that these lead to.
        M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter | M::Sysexit | M::Sysret
            | M::Iret | M::Iretd | M::Iretq
            // Far branches: `exec::system::tests`.
            | M::Retf
            // The host's kernel chooses what user mode reads here, or emulates them
            // (CR4.UMIP): `exec::system::tests::modes`.
            | M::Sldt | M::Str | M::Smsw | M::Sgdt | M::Sidt
            // Identity and time of the host: the tests of the monitor compare CPUID with its
            // table, and `exec::system::tests` what CR4.TSD and CR4.PCE allow.
            | M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpmc
            // No effect on Intel processors since the 387; the host decodes them as it likes.
            | M::Fneni | M::Feni | M::Fndisi | M::Fdisi | M::Fnsetpm | M::Fsetpm | M::Frstpm
            // Two instructions: FWAIT and the form that does not wait, which both are tested.
            | M::Fclex | M::Finit | M::Fstcw | M::Fstsw | M::Fstdw | M::Fstsg | M::Fstenv | M::Fsave
    )
}

/// In 64-bit mode the selectors of the host's process are left alone: `exec::system::tests`.
fn loads_segment(code: Code) -> bool {
    use Mnemonic as M;
    let first = code.op_code().op_kind(0);
    let segment = matches!(first, Kind::seg_reg | Kind::fs | Kind::gs);
    matches!(code.mnemonic(), M::Lss | M::Lfs | M::Lgs) || segment && code.mnemonic() != M::Push
}

/// Control and debug registers, far and truncated branches: `exec::system::tests`.
fn has_operand(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::cr_reg
            | Kind::dr_reg
            | Kind::tr_reg
            | Kind::farbr2_2
            | Kind::farbr4_2
            | Kind::brdisp_2
            | Kind::brdisp_4
            | Kind::xbegin_2
            | Kind::xbegin_4
    )
}
