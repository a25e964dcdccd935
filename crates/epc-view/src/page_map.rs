//! The page map of a section: a letter for each page, or for each 2, 4, 8, ... pages of a large one.

/// Cells in a map at most: 64 MiB of EPC with a cell for each page.
pub const MAX_CELLS: usize = 1 << 14;

/// Bytes of a page of EPC.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// What a cell of a page map holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CellKind {
    /// No page of the host's EPC is behind it.
    Unbacked,
    /// Backed, and not VALID.
    Unused,
    /// PT_SECS.
    Secs,
    /// PT_TCS.
    Tcs,
    /// PT_REG.
    Reg,
    /// PT_VA.
    Va,
    /// PT_TRIM.
    Trim,
    /// PT_SS_FIRST and PT_SS_REST.
    ShadowStack,
    /// BLOCKED, of whatever type.
    Blocked,
}

impl CellKind {
    /// All kinds, in the order of their values.
    pub const ALL: [Self; 9] = [
        Self::Unbacked,
        Self::Unused,
        Self::Secs,
        Self::Tcs,
        Self::Reg,
        Self::Va,
        Self::Trim,
        Self::ShadowStack,
        Self::Blocked,
    ];

    /// The letter in [`PageMap::cells`](crate::PageMap::cells): `.` unbacked, `-` unused, `S` SECS, `T` TCS, `R` REG,
    /// `V` VA, `X` TRIM, `K` shadow stack, `B` blocked.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Unbacked => '.',
            Self::Unused => '-',
            Self::Secs => 'S',
            Self::Tcs => 'T',
            Self::Reg => 'R',
            Self::Va => 'V',
            Self::Trim => 'X',
            Self::ShadowStack => 'K',
            Self::Blocked => 'B',
        }
    }

    /// The kind that a letter stands for.
    #[must_use]
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_letter_of_its_own() {
        let letters: String = CellKind::ALL.into_iter().map(CellKind::letter).collect();

        assert_eq!(letters, ".-STRVXKB");
        for (value, kind) in CellKind::ALL.into_iter().enumerate() {
            assert_eq!((CellKind::from_letter(kind.letter()), kind as usize), (Some(kind), value));
        }
        assert_eq!(CellKind::from_letter('?'), None);
    }
}
