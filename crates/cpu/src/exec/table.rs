//! The table of instructions: a row for each mnemonic, which its family declares beside the
//! handlers.
//!
//! [`select`] finds the row of a decoded instruction by its mnemonic and turns the op that
//! [`crate::lower`] made of its operands into the one that runs.

use iced_x86::{Instruction, Mnemonic};

use super::{general, sgx, system, vector, vmx, x87};
use crate::controls::Features;
use crate::mode::Mode;
use crate::op::{Handler, Op};

/// An instruction whose handler is chosen, and how its block goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lowered {
    /// The op, ready to run.
    pub(crate) op: Op,
    /// What follows it in a block.
    pub(crate) flow: Flow,
}

/// What follows an op in its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// The next instruction.
    Next,
    /// The next instruction, where the branch is not taken. One that is taken writes `rip` and says
    /// [`Stop::JUMP`](crate::Stop::JUMP).
    Branch,
    /// Nothing: what comes next may mean something else after it (mode, translations, code), or an
    /// event has to be looked at first. The handler leaves `rip` to the op that ends the block.
    EndsBlock,
    /// Nothing: the handler writes `rip` itself, or never retires.
    Leaves,
}

/// What the table says of an instruction.
///
/// A column tells one thing of each instruction; the constructors [`always`], [`choose`] and
/// [`rewrite`] fill all of them with what is usual, and the methods change one.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Row {
    mnemonics: &'static [Mnemonic],
    select: Select,
    registers: Registers,
    flow: Flow,
    ends_block: Holds,
    illegal_in_enclave: Holds,
    under_mxcsr: bool,
}

/// How the handler of an instruction is found.
#[derive(Clone, Copy, Debug)]
enum Select {
    /// It is the same for all operands.
    Always(Handler),
    /// It depends on the operands.
    Choose(fn(&Instruction, &Op) -> Handler),
    /// It depends on the mode, too, or needs other operands than [`crate::lower`] found; or not
    /// all operands are valid. `None` is #UD.
    Rewrite(fn(&Instruction, Mode, Op) -> Option<Op>),
}

/// Where handlers look for registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Registers {
    /// As [`Op`] says.
    General,
    /// As [`vector::arrange`] puts them.
    Vector,
}

/// Whether something is true of an instruction.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Never,
    Always,
    /// It depends on the operands.
    If(fn(&Instruction) -> bool),
}

impl Holds {
    #[inline(always)]
    fn of(self, instruction: &Instruction) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::If(holds) => holds(instruction),
        }
    }
}

/// A row of an instruction with one handler.
pub(in crate::exec) const fn always(handler: Handler) -> Row {
    Row::new(Select::Always(handler))
}

/// A row of an instruction whose operands choose between handlers.
pub(in crate::exec) const fn choose(select: fn(&Instruction, &Op) -> Handler) -> Row {
    Row::new(Select::Choose(select))
}

/// A row of an instruction whose op is not just what its operands are lowered to. `None` is #UD.
pub(in crate::exec) const fn rewrite(select: fn(&Instruction, Mode, Op) -> Option<Op>) -> Row {
    Row::new(Select::Rewrite(select))
}

impl Row {
    const fn new(select: Select) -> Self {
        Self {
            mnemonics: &[],
            select,
            registers: Registers::General,
            flow: Flow::Next,
            ends_block: Holds::Never,
            illegal_in_enclave: Holds::Never,
            under_mxcsr: false,
        }
    }

    /// The mnemonics whose row it is: those of one operation, such as ADDPS and VADDPS.
    pub(in crate::exec) const fn of(self, mnemonics: &'static [Mnemonic]) -> Self {
        Self { mnemonics, ..self }
    }

    /// The handlers find registers where [`vector::arrange`] puts them.
    pub(in crate::exec) const fn arranged(self) -> Self {
        Self { registers: Registers::Vector, ..self }
    }

    /// Its result depends on MXCSR, or it sets flags of MXCSR.
    pub(in crate::exec) const fn under_mxcsr(self) -> Self {
        Self { under_mxcsr: true, ..self }
    }

    /// It is a conditional branch.
    pub(in crate::exec) const fn branches(self) -> Self {
        Self { flow: Flow::Branch, ..self }
    }

    /// The handler writes `rip` itself, or never retires.
    pub(in crate::exec) const fn leaves(self) -> Self {
        Self { flow: Flow::Leaves, ..self }
    }

    /// It changes what the code after it means, what may interrupt it or what translated code takes
    /// for granted from the start of a block on ([`crate::native::barred`]), or it is a serializing
    /// instruction: the code after it is to be fetched again (SDM Vol. 3A, 8.3).
    pub(in crate::exec) const fn ends_block(self) -> Self {
        Self { ends_block: Holds::Always, ..self }
    }

    /// As [`Row::ends_block`], with some operands.
    pub(in crate::exec) const fn ends_block_if(self, holds: fn(&Instruction) -> bool) -> Self {
        Self { ends_block: Holds::If(holds), ..self }
    }

    /// Enclave mode forbids it whatever the CPL: #UD (SDM Vol. 3D, 39.6.1 and table 39-1).
    /// Privileged instructions fault by their own checks, since enclaves run at CPL 3; INT1 and
    /// INT3 depend on how the enclave was entered and check that themselves.
    pub(in crate::exec) const fn illegal_in_enclave(self) -> Self {
        Self { illegal_in_enclave: Holds::Always, ..self }
    }

    /// As [`Row::illegal_in_enclave`], with some operands.
    pub(in crate::exec) const fn illegal_in_enclave_if(
        self,
        holds: fn(&Instruction) -> bool,
    ) -> Self {
        Self { illegal_in_enclave: Holds::If(holds), ..self }
    }

    fn lower(&self, instruction: &Instruction, mode: Mode, op: Op) -> Option<Lowered> {
        if mode.is_enclave() && self.illegal_in_enclave.of(instruction) {
            return None;
        }
        let op = match self.registers {
            Registers::General => op,
            Registers::Vector => vector::arrange(instruction, op),
        };
        let op = match self.select {
            Select::Always(run) => Op { run, ..op },
            Select::Choose(choose) => Op { run: choose(instruction, &op), ..op },
            Select::Rewrite(rewrite) => rewrite(instruction, mode, op)?,
        };
        let ends = self.ends_block.of(instruction);
        let flow = if ends { Flow::EndsBlock } else { self.flow };
        Some(Lowered { op: Op { mnemonic: instruction.mnemonic(), ..op }, flow })
    }
}

/// Declares the rows of a family: `MNEMONIC | MNEMONIC => ROW, ...`.
macro_rules! rows {
    ($($(#[$comment:meta])* $($mnemonic:ident)|+ => $row:expr),* $(,)?) => {
        /// The rows of this family.
        pub(in $crate::exec) const ROWS: &[$crate::exec::table::Row] =
            &[$($row.of(&[$(iced_x86::Mnemonic::$mnemonic),+])),*];
    };
}
pub(in crate::exec) use rows;

/// As [`rows`], of instructions whose registers are arranged as vector instructions have them.
macro_rules! vector_rows {
    ($($($mnemonic:ident)|+ => $row:expr),* $(,)?) => {
        $crate::exec::table::rows! {
            $($($mnemonic)|+ => $row.arranged()),*
        }
    };
}
pub(in crate::exec) use vector_rows;

/// As [`vector_rows`], of instructions under MXCSR.
macro_rules! float_rows {
    ($($($mnemonic:ident)|+ => $row:expr),* $(,)?) => {
        $crate::exec::table::vector_rows! {
            $($($mnemonic)|+ => $row.under_mxcsr()),*
        }
    };
}
pub(in crate::exec) use float_rows;

/// All rows, by folder and family.
const FOLDERS: &[&[&[Row]]] = &[
    general::FAMILIES,
    system::FAMILIES,
    x87::FAMILIES,
    vector::FAMILIES,
    vector::integer::FAMILIES,
    vector::fp::FAMILIES,
    vector::crypto::FAMILIES,
    vector::avx::FAMILIES,
    vector::save::FAMILIES,
    &[sgx::ROWS],
    vmx::FAMILIES,
];

/// One more than the highest number of a mnemonic that has a row.
const SIZE: usize = {
    let mut size = 0;
    let mut rows = Rows::new();
    while let Some((_, mnemonic)) = rows.next() {
        if mnemonic as usize >= size {
            size = mnemonic as usize + 1;
        }
    }
    size
};

/// The rows by mnemonic. Two rows of one mnemonic do not compile.
static TABLE: [Option<&Row>; SIZE] = {
    let mut table = [None; SIZE];
    let mut rows = Rows::new();
    while let Some((row, mnemonic)) = rows.next() {
        assert!(table[mnemonic as usize].is_none(), "a mnemonic has two rows");
        table[mnemonic as usize] = Some(row);
    }
    table
};

/// Each mnemonic of each row; an iterator that constants can be made with.
struct Rows {
    folder: usize,
    family: usize,
    row: usize,
    mnemonic: usize,
}

impl Rows {
    const fn new() -> Self {
        Self { folder: 0, family: 0, row: 0, mnemonic: 0 }
    }

    const fn next(&mut self) -> Option<(&'static Row, Mnemonic)> {
        while self.folder < FOLDERS.len() {
            let families = FOLDERS[self.folder];
            while self.family < families.len() {
                let rows = families[self.family];
                while self.row < rows.len() {
                    let row = &rows[self.row];
                    if self.mnemonic < row.mnemonics.len() {
                        self.mnemonic += 1;
                        return Some((row, row.mnemonics[self.mnemonic - 1]));
                    }
                    (self.row, self.mnemonic) = (self.row + 1, 0);
                }
                (self.family, self.row) = (self.family + 1, 0);
            }
            (self.folder, self.family) = (self.folder + 1, 0);
        }
        None
    }
}

/// What runs for a decoded instruction; `None` for one that a processor with these features does
/// not have or that is illegal in this mode: #UD. `op` has its operands.
#[must_use]
pub(crate) fn select(
    instruction: &Instruction,
    mode: Mode,
    features: &Features,
    op: Op,
) -> Option<Lowered> {
    let row = TABLE.get(instruction.mnemonic() as usize).copied().flatten()?;
    // Encodings of other extensions have the same mnemonic.
    if !features.has_encoding(instruction, mode) {
        return None;
    }
    row.lower(instruction, mode, op)
}

/// Whether what an instruction does depends on MXCSR, or it sets flags there.
#[must_use]
pub fn under_mxcsr(mnemonic: Mnemonic) -> bool {
    TABLE.get(mnemonic as usize).copied().flatten().is_some_and(|row| row.under_mxcsr)
}

/// The mnemonics that have a row.
#[cfg(test)]
pub(in crate::exec) fn mnemonics() -> impl Iterator<Item = Mnemonic> {
    let mut rows = Rows::new();
    std::iter::from_fn(move || rows.next()).map(|(_, mnemonic)| mnemonic)
}

#[cfg(test)]
mod tests;
