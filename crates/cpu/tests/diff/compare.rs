//! What must be equal.
//!
//! The interpreter is an Intel processor. Where AMD processors are known to differ, `amd` says so.

mod amd;

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::case::{Case, RETIRED};
use super::host::Host;

const ARITHMETIC: u64 = 0x8d5;
/// TF, DF, NT, AC, ID: what user code can change besides the arithmetic flags.
const SYSTEM: u64 = 0x24_4500;

/// Differences between the native and the interpreted outcome of a case that began as `before`.
pub(crate) fn differences(
    host: &Host,
    instruction: &Instruction,
    before: &Case,
    native: &Case,
    soft: &Case,
) -> Vec<String> {
    let mut out = Vec::new();
    if host.is_amd() && amd::is_known_difference(instruction, before, native, soft) {
        return out;
    }
    if !same_fault(host, instruction, native, soft) {
        out.push(format!("fault: native {:x?}, soft {:x?}", native.fault, soft.fault));
        return out;
    }
    if native.fault.vector != soft.fault.vector {
        return out;
    }
    let (n, s) = (&native.state, &soft.state);
    let retired = native.fault.vector == RETIRED;
    for i in 0..16 {
        if n.gpr[i] != s.gpr[i] && !is_undefined_gpr(instruction, before, i) {
            out.push(format!("gpr {i}: native {:#x}, soft {:#x}", n.gpr[i], s.gpr[i]));
        }
    }
    if (n.fs_base, n.gs_base) != (s.fs_base, s.gs_base) {
        out.push(format!(
            "bases: native {:#x} {:#x}, soft {:#x} {:#x}",
            n.fs_base, n.gs_base, s.fs_base, s.gs_base
        ));
    }
    if n.rip != s.rip {
        out.push(format!("rip: native {:#x}, soft {:#x}", n.rip, s.rip));
    }
    let ignored = match retired {
        true => undefined_flags(instruction, before),
        false if host.is_amd() => amd::flags_of_fault(instruction),
        false => 0,
    };
    // The host may have no random number left, the interpreter has always (SDM Vol. 2B, RDSEED).
    let random = matches!(instruction.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed);
    let ignored = if random && n.rflags & 1 == 0 { ignored | 1 } else { ignored };
    let mask = SYSTEM | (ARITHMETIC & !ignored);
    if (n.rflags ^ s.rflags) & mask != 0 {
        out.push(format!(
            "rflags: native {:#x}, soft {:#x}, compared {mask:#x}",
            n.rflags, s.rflags
        ));
    }
    compare_x87(host, instruction, before, native, soft, &mut out);
    if n.fx.mxcsr != s.fx.mxcsr {
        out.push(format!("mxcsr: native {:#x}, soft {:#x}", n.fx.mxcsr, s.fx.mxcsr));
    }
    for (i, (a, b)) in n.fx.xmm.iter().zip(&s.fx.xmm).enumerate() {
        if a != b && !is_approximation(instruction, a, b) {
            out.push(format!("xmm{i}: native {a:02x?}, soft {b:02x?}"));
        }
    }
    for (i, (a, b)) in n.high.iter().zip(&s.high).enumerate() {
        if a != b && !is_approximation(instruction, a, b) {
            out.push(format!("high half of ymm{i}: native {a:02x?}, soft {b:02x?}"));
        }
    }
    let unlike = host.is_amd() && amd::has_image(instruction);
    if n.data != s.data && !unlike && !is_undefined_memory(instruction, before) {
        let at = n.data.iter().zip(&s.data).position(|(a, b)| a != b).unwrap_or(0);
        let start = at & !15;
        out.push(format!(
            "memory +{at:#x}: native {:02x?}, soft {:02x?}",
            &n.data[start..start + 16],
            &s.data[start..start + 16]
        ));
    }
    out
}

/// Whether both ended in the same way.
fn same_fault(host: &Host, instruction: &Instruction, native: &Case, soft: &Case) -> bool {
    let (mut n, mut s) = (native.fault, soft.fault);
    if n.vector == 14 && n.address >= 0x7fff_ffff_f000 {
        // Linux tells a process that kernel addresses are present whatever is there.
        n.code |= 1;
        s.code |= 1;
    }
    n == s || host.is_amd() && amd::is_same_fault(instruction, n.vector, s.vector)
}

fn compare_x87(
    host: &Host,
    instruction: &Instruction,
    before: &Case,
    native: &Case,
    soft: &Case,
    out: &mut Vec<String>,
) {
    if host.is_amd() && amd::is_x87_state_different(instruction, native) {
        return;
    }
    let (n, s) = (&native.state.fx, &soft.state.fx);
    if n.control != s.control {
        out.push(format!("fcw: native {:#x}, soft {:#x}", n.control, s.control));
    }
    let mut ignored = undefined_conditions(instruction);
    if host.is_amd() {
        ignored |= amd::status_differences(instruction, before);
    }
    if (n.status ^ s.status) & !ignored != 0 {
        out.push(format!("fsw: native {:#x}, soft {:#x}", n.status, s.status));
    }
    if n.tags != s.tags {
        out.push(format!("ftw: native {:#x}, soft {:#x}", n.tags, s.tags));
    }
    // See `amd::has_image`: what an AMD host's kernel saves is not what the case left.
    if !host.is_amd() && (n.fop, n.fip, n.fdp) != (s.fop, s.fip, s.fdp) {
        out.push(format!(
            "pointers: native {:x} {:x} {:x}, soft {:x} {:x} {:x}",
            n.fop, n.fip, n.fdp, s.fop, s.fip, s.fdp
        ));
    }
    for (i, (a, b)) in n.st.iter().zip(&s.st).enumerate() {
        if a[..10] != b[..10] && !within_an_ulp(instruction, a, b) {
            out.push(format!("st{i}: native {:02x?}, soft {:02x?}", &a[..10], &b[..10]));
        }
    }
}

/// Shift and rotate counts decide which flags are defined (SDM Vol. 2B, SAL/SAR/SHL/SHR and
/// RCL/RCR/ROL/ROR; Vol. 2B, SHLD, SHRD).
fn shift_count(instruction: &Instruction, before: &Case) -> Option<u32> {
    use Mnemonic as M;
    let operand = match instruction.mnemonic() {
        M::Sal | M::Shl | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => 1,
        M::Shld | M::Shrd => 2,
        _ => return None,
    };
    let count = match instruction.op_kind(operand) {
        OpKind::Register => before.state.gpr[1] as u32,
        _ => instruction.immediate(operand) as u32,
    };
    Some(count & if operand_bits(instruction) == 64 { 63 } else { 31 })
}

fn operand_bits(instruction: &Instruction) -> u32 {
    match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size() as u32 * 8,
        _ => instruction.memory_size().size() as u32 * 8,
    }
}

fn undefined_flags(instruction: &Instruction, before: &Case) -> u64 {
    const OF: u64 = 0x800;
    const AF: u64 = 0x10;
    const CF: u64 = 1;
    if let Some(count) = shift_count(instruction, before) {
        use Mnemonic as M;
        let rotate = matches!(instruction.mnemonic(), M::Rol | M::Ror | M::Rcl | M::Rcr);
        let double = matches!(instruction.mnemonic(), M::Shld | M::Shrd);
        let bits = operand_bits(instruction);
        if double && count > bits {
            return ARITHMETIC;
        }
        return match count {
            0 => 0,
            1 if rotate => 0,
            1 => AF,
            _ if rotate => OF,
            // CF is undefined for SHL and SHR by the operand's width and more.
            count if count >= bits && instruction.mnemonic() != M::Sar => OF | AF | CF,
            _ => OF | AF,
        };
    }
    let bits = instruction.rflags_undefined();
    let mut mask = 0;
    for (bit, flag) in [
        (iced_x86::RflagsBits::OF, OF),
        (iced_x86::RflagsBits::SF, 0x80),
        (iced_x86::RflagsBits::ZF, 0x40),
        (iced_x86::RflagsBits::AF, AF),
        (iced_x86::RflagsBits::CF, CF),
        (iced_x86::RflagsBits::PF, 4),
    ] {
        if bits & bit != 0 {
            mask |= flag;
        }
    }
    mask
}

/// A 16-bit double shift by more than 16 leaves an undefined result.
fn is_undefined_shift(instruction: &Instruction, before: &Case) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd)
        && shift_count(instruction, before).is_some_and(|n| n > operand_bits(instruction))
}

fn is_undefined_memory(instruction: &Instruction, before: &Case) -> bool {
    is_undefined_shift(instruction, before) && instruction.op0_kind() == OpKind::Memory
}

fn is_undefined_gpr(instruction: &Instruction, before: &Case, number: usize) -> bool {
    match instruction.mnemonic() {
        // XCR0 is the choice of the host's kernel; a wrong number in ECX faults all the same.
        Mnemonic::Xgetbv => return matches!(number, 0 | 2),
        Mnemonic::Rdrand | Mnemonic::Rdseed => {
            return instruction.op0_register().number() == number;
        }
        _ => {}
    }
    is_undefined_shift(instruction, before)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().number() == number
}

/// x87 condition codes that an instruction leaves undefined (SDM Vol. 1, table 8-1).
fn undefined_conditions(instruction: &Instruction) -> u16 {
    const C0: u16 = 0x100;
    const C1: u16 = 0x200;
    const C2: u16 = 0x400;
    const C3: u16 = 0x4000;
    use Mnemonic as M;
    match instruction.mnemonic() {
        // C1 tells the direction of a rounding that may differ by an ulp.
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C0 | C1 | C3,
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan => C0 | C1 | C2 | C3,
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst
        | M::Fxam
        | M::Fprem
        | M::Fprem1
        | M::Fnclex
        | M::Fninit
        | M::Fnstsw
        | M::Fnstcw
        | M::Fldcw
        | M::Fnop
        | M::Ffree
        | M::Ffreep => 0,
        _ if is_x87(instruction.code()) => C0 | C2 | C3,
        _ => 0,
    }
}

fn is_x87(code: Code) -> bool {
    code.cpuid_features().iter().any(|feature| {
        use iced_x86::CpuidFeature as F;
        matches!(feature, F::FPU | F::FPU287 | F::FPU387)
    })
}

fn is_transcendental(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan
    )
}

/// Transcendental results are specified to within 1 ulp (SDM Vol. 1, 8.3.10).
fn within_an_ulp(instruction: &Instruction, a: &[u8; 16], b: &[u8; 16]) -> bool {
    if !is_transcendental(instruction.mnemonic()) {
        return false;
    }
    let value = |r: &[u8; 16]| {
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(&r[..10]);
        u128::from_le_bytes(bytes)
    };
    // Drop the explicit integer bit so that neighbours across a power of two are neighbours.
    let ordinal = |v: u128| ((v >> 64) << 63) | (v & (u128::MAX >> 65));
    ordinal(value(a)).abs_diff(ordinal(value(b))) <= 1
}

/// RCPPS, RSQRTPS and their scalar forms are specified to a relative error of 1.5 * 2^-12
/// (SDM Vol. 2B, RCPPS).
fn is_approximation(instruction: &Instruction, a: &[u8; 16], b: &[u8; 16]) -> bool {
    use Mnemonic as M;
    if !matches!(
        instruction.mnemonic(),
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
    ) {
        return false;
    }
    a.chunks_exact(4).zip(b.chunks_exact(4)).all(|(a, b)| {
        let float = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        let (x, y) = (f64::from(float(a)), f64::from(float(b)));
        // Each may be off by the bound in either direction.
        a == b || ((x - y) / y).abs() <= 2.0 * 1.5 / 4096.0
    })
}
