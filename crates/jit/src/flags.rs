//! Which arithmetic flags are still wanted after each instruction of a block.

use iced_x86::{Instruction, RflagsBits};

/// CF, PF, AF, ZF, SF and OF in iced's bits.
pub(crate) const ALL: u32 = RflagsBits::CF
    | RflagsBits::PF
    | RflagsBits::AF
    | RflagsBits::ZF
    | RflagsBits::SF
    | RflagsBits::OF;

/// What translated code does with the flags at an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    /// Flags that it reads, or leaves as they are in some cases.
    pub(crate) reads: u32,
    /// Flags that it certainly replaces.
    pub(crate) writes: u32,
    /// Whether translated code may be left at it, before or after: then all of them are wanted.
    pub(crate) leaves: bool,
}

impl Use {
    /// Of an instruction at which the code may be left or not.
    pub(crate) fn of(instruction: &Instruction, leaves: bool) -> Self {
        let changes = instruction.rflags_modified() & ALL;
        // A count of zero in CL leaves all flags.
        let may_keep = is_shift_by_cl(instruction);
        Self {
            reads: instruction.rflags_read() & ALL | if may_keep { ALL } else { 0 },
            writes: if may_keep { 0 } else { changes },
            leaves,
        }
    }

    /// Whether the flags have to be in the host's register before the instruction: it reads some, or
    /// changes some and leaves others that are wanted after it.
    pub(crate) fn needs_flags(&self, wanted_after: u32) -> bool {
        self.writes != 0 && wanted_after & !self.writes != 0 || self.reads != 0
    }
}

/// Whether it shifts or rotates by CL.
pub(crate) fn is_shift_by_cl(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic::{Rcl, Rcr, Rol, Ror, Sar, Shl, Shld, Shr, Shrd};
    let last = instruction.op_count().wrapping_sub(1);
    matches!(instruction.mnemonic(), Rol | Ror | Rcl | Rcr | Shl | Shr | Sar | Shld | Shrd)
        && instruction.op_kind(last) == iced_x86::OpKind::Register
}

/// The flags wanted after each instruction, where all are wanted after the last.
pub(crate) fn wanted_after(uses: &[Use]) -> Vec<u32> {
    let mut wanted = vec![ALL; uses.len()];
    let mut now = ALL;
    for (after, flags) in wanted.iter_mut().zip(uses).rev() {
        *after = now;
        now = now & !flags.writes | flags.reads | if flags.leaves { ALL } else { 0 };
    }
    wanted
}
