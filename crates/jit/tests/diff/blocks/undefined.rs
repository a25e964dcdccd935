//! Which flags instructions have left undefined. Translated code leaves them as the host's processor
//! does, the interpreter as it likes.

use iced_x86::{Instruction, Mnemonic as M, OpKind, Register, RflagsBits};

/// Flags that are undefined.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Undefined {
    /// By their bits in RFLAGS.
    pub(crate) flags: u64,
    /// Whether an instruction has read one of them: nothing is known of what comes then.
    pub(crate) read: bool,
}

impl Undefined {
    /// Takes an instruction that has retired. `count` was CL before it.
    pub(crate) fn retire(&mut self, instruction: &Instruction, count: u8) {
        let pushes = matches!(
            instruction.mnemonic(),
            M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter
        );
        let read = if pushes { u64::MAX } else { bits(instruction.rflags_read()) };
        self.read |= read & self.flags != 0;
        let by_count = instruction.op1_register() == Register::CL;
        // A count of 0 changes none.
        let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
        if !(repeated || by_count && count & 0x1f == 0) {
            self.flags &= !bits(instruction.rflags_modified());
        }
        self.flags |= bits(instruction.rflags_undefined());
        if by_count || is_shift(instruction.mnemonic()) {
            // OF by more than 1, and the others by more than the operand is wide.
            self.flags |= bits(instruction.rflags_modified());
        }
        // To the decoder, a rotation through CF by all bits modifies nothing.
        let rotates = matches!(instruction.mnemonic(), M::Rcl | M::Rcr);
        if rotates
            && instruction.op1_kind() == OpKind::Immediate8
            && instruction.immediate8() & 0x1f > 1
        {
            self.flags |= OF;
        }
    }
}

/// RFLAGS.OF.
const OF: u64 = 0x800;

fn is_shift(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    )
}

/// Flags of the decoder as bits of RFLAGS.
fn bits(flags: u32) -> u64 {
    let known = [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ];
    known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, bit)| bit).sum()
}
