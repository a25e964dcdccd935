//! A block one instruction at a time: where it goes, and what of it is defined.

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic as M, OpKind, Register,
};

use super::super::case::{Case, Fault, RETIRED};
use super::super::encodings::is_tested;
use super::super::soft::Soft;
use super::super::variance::is_approximate;
use super::undefined::Undefined;

/// Instructions, or iterations of one, after which a block counts as endless.
const LONGEST: u32 = 600;

/// How a block ran.
pub(super) struct Trace {
    /// Whether the host must end alike, but for flags that are `undefined`.
    pub(super) defined: bool,
    pub(super) undefined: Undefined,
    /// Whether it branched back.
    pub(super) went_back: bool,
}

impl Trace {
    /// Runs a case to its end: the state that it led to. `None` if it does not end, or meets what is not
    /// the same twice or undefined.
    pub(super) fn of(soft: &mut Soft, before: &Case) -> Option<(Case, Self)> {
        soft.load(before);
        let mut after = *before;
        let traced = Self::steps(soft, before);
        soft.unload(&mut after);
        let (fault, trace) = traced.filter(|(_, trace)| !trace.undefined.read)?;
        after.fault = fault;
        Some((after, trace))
    }

    fn steps(soft: &mut Soft, before: &Case) -> Option<(Fault, Self)> {
        let mode = before.mode;
        let mut trace = Self { defined: true, undefined: Undefined::default(), went_back: false };
        let mut information = InstructionInfoFactory::new();
        let mut last = 0;
        for _ in 0..LONGEST {
            let retired = Fault { vector: RETIRED, code: 0, address: 0 };
            let Some((rip, bytes)) = soft.next(mode) else { return Some((retired, trace)) };
            if bytes[0] == 0xcc {
                return Some((retired, trace));
            }
            let mut decoder = Decoder::with_ip(mode.bits(), &bytes, rip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if is_refused(&instruction) {
                return None;
            }
            trace.went_back |= rip < last;
            last = rip;
            // What a store has made may be an instruction of the host alone.
            trace.defined &= is_tested(instruction.code(), mode);
            trace.defined &= is_defined(&instruction, &mut information);
            // AMD processors cut RIP to 16 bits then, and Intel's pay no heed: see `generate`.
            let narrow = bytes[..instruction.len()].contains(&0x66);
            let branches = instruction.flow_control() != FlowControl::Next;
            trace.defined &= !(narrow && branches && mode.is_64());
            let count = soft.count();
            if let Some(fault) = soft.step() {
                return Some((fault, trace));
            }
            trace.undefined.retire(&instruction, count);
        }
        None
    }
}

/// What is not the same twice, or leads out of the case.
fn is_refused(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        M::Rdrand | M::Rdseed | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpid | M::Cpuid | M::Xgetbv
            | M::Syscall | M::Sysenter | M::Int | M::Int1 | M::Int3 | M::Into
            // Of what they load, TF and AC act on what follows.
            | M::Popf | M::Popfd | M::Popfq | M::Iret | M::Iretd | M::Iretq
    )
}

/// Whether the host must do the same: no row of `docs/cpu.md` is about the instruction.
fn is_defined(instruction: &Instruction, information: &mut InstructionInfoFactory) -> bool {
    use CpuidFeature as F;
    let features = instruction.cpuid_features();
    let x87_or_image = |feature: &CpuidFeature| {
        matches!(
            feature,
            F::FPU
                | F::FPU287
                | F::FPU387
                | F::MMX
                | F::FXSR
                | F::XSAVE
                | F::XSAVEC
                | F::XSAVEOPT
                | F::FSGSBASE
                | F::SHA
        )
    };
    let loads_segment = information.info(instruction).used_registers().iter().any(|used| {
        used.register().is_segment_register() && used.access() != iced_x86::OpAccess::Read
    });
    let uses_mmx = (0..instruction.op_count()).any(|n| instruction.op_register(n).is_mm());
    let pushes_segment = instruction.mnemonic() == M::Push
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().is_segment_register();
    // With FS or GS, AMD processors want an offset of eight bytes to be canonical by itself.
    let long_offset = instruction.memory_displ_size() == 8
        && matches!(instruction.segment_prefix(), Register::FS | Register::GS);
    // And read 32 bits of memory to extend 16.
    let extends_16 = instruction.mnemonic() == M::Movsxd && instruction.op0_register().is_gpr16();
    !long_offset
        && !extends_16
        && !features.iter().any(x87_or_image)
        && !loads_segment
        && !uses_mmx
        && !pushes_segment
        && !instruction.is_string_instruction()
        && !instruction.is_vsib()
        && !instruction.has_lock_prefix()
        && !is_approximate(instruction.mnemonic())
        && !matches!(
            instruction.mnemonic(),
            M::Shld
                | M::Shrd
                | M::Bsf
                | M::Bsr
                | M::Enter
                | M::Pusha
                | M::Pushad
                | M::Popa
                | M::Popad
                | M::Dpps
                | M::Dppd
                | M::Vdpps
                | M::Vdppd
                | M::Maskmovdqu
                | M::Vmaskmovdqu
                | M::Vmaskmovps
                | M::Vmaskmovpd
                | M::Vpmaskmovd
                | M::Vpmaskmovq
                | M::Vcvtps2ph
                | M::Pushf
                | M::Pushfd
                | M::Pushfq
                | M::Lsl
                | M::Lar
                | M::Verr
                | M::Verw
                | M::Daa
                | M::Das
                | M::Aaa
                | M::Aas
                | M::Aam
                | M::Aad
        )
}
