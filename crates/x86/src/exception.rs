//! Exceptions and interrupt vectors (SDM Vol. 3A, chapter 6).

use bitflags::bitflags;

/// Vector numbers of the architectural exceptions (SDM Vol. 3A, table 6-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Vector {
    /// #DE, divide error.
    De = 0,
    /// #DB, debug exception.
    Db = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// #BP, breakpoint (INT3).
    Bp = 3,
    /// #OF, overflow (INTO).
    Of = 4,
    /// #BR, BOUND range exceeded.
    Br = 5,
    /// #UD, invalid opcode.
    Ud = 6,
    /// #NM, device not available.
    Nm = 7,
    /// #DF, double fault.
    Df = 8,
    /// #TS, invalid TSS.
    Ts = 10,
    /// #NP, segment not present.
    Np = 11,
    /// #SS, stack-segment fault.
    Ss = 12,
    /// #GP, general protection.
    Gp = 13,
    /// #PF, page fault.
    Pf = 14,
    /// #MF, x87 floating-point error.
    Mf = 16,
    /// #AC, alignment check.
    Ac = 17,
    /// #MC, machine check.
    Mc = 18,
    /// #XM, SIMD floating-point exception.
    Xm = 19,
    /// #VE, virtualization exception.
    Ve = 20,
    /// #CP, control protection.
    Cp = 21,
}

impl Vector {
    /// Whether delivery pushes an error code (SDM Vol. 3A, 6.13).
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        use Vector::{Ac, Cp, Df, Gp, Np, Pf, Ss, Ts};
        matches!(self, Df | Ts | Np | Ss | Gp | Pf | Ac | Cp)
    }
}

/// A number that is not the vector of an architectural exception or the NMI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownVector(pub u8);

impl TryFrom<u8> for Vector {
    type Error = UnknownVector;

    /// # Errors
    ///
    /// [`UnknownVector`] for the reserved vectors 9, 15 and 22 to 31 and for those of interrupts.
    fn try_from(number: u8) -> Result<Self, UnknownVector> {
        use Vector::{
            Ac, Bp, Br, Cp, Db, De, Df, Gp, Mc, Mf, Nm, Nmi, Np, Of, Pf, Ss, Ts, Ud, Ve, Xm,
        };
        const ALL: [Vector; 20] =
            [De, Db, Nmi, Bp, Of, Br, Ud, Nm, Df, Ts, Np, Ss, Gp, Pf, Mf, Ac, Mc, Xm, Ve, Cp];
        ALL.into_iter().find(|&vector| vector as u8 == number).ok_or(UnknownVector(number))
    }
}

bitflags! {
    /// The error code of a page fault (SDM Vol. 3A, 4.7 and figure 4-12).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct PageFaultCode: u32 {
        /// P: the fault was a protection violation, not a missing page.
        const PRESENT = 1 << 0;
        /// W/R: the access was a write.
        const WRITE = 1 << 1;
        /// U/S: the access was a user-mode access.
        const USER = 1 << 2;
        /// RSVD: a reserved bit was set in a paging-structure entry.
        const RESERVED = 1 << 3;
        /// I/D: the access was an instruction fetch.
        const FETCH = 1 << 4;
        /// PK: a protection key forbade the access.
        const PROTECTION_KEY = 1 << 5;
        /// SS: a shadow-stack access.
        const SHADOW_STACK = 1 << 6;
        /// SGX: the access violated SGX access control; the page tables allowed it
        /// (SDM Vol. 3D, 35.3).
        const SGX = 1 << 15;
    }
}

/// An exception as the processor raises it: vector, error code where the vector has one, and the
/// faulting linear address of a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Which exception.
    pub vector: Vector,
    /// Error code; 0 for vectors that push none.
    pub error_code: u32,
    /// CR2 for #PF, pending DR6 bits for #DB; 0 otherwise.
    pub address: u64,
}

impl Exception {
    /// An exception without an error code.
    #[must_use]
    pub const fn new(vector: Vector) -> Self {
        Self { vector, error_code: 0, address: 0 }
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with_code(vector: Vector, error_code: u32) -> Self {
        Self { vector, error_code, address: 0 }
    }

    /// #GP(`error_code`).
    #[must_use]
    pub const fn gp(error_code: u32) -> Self {
        Self::with_code(Vector::Gp, error_code)
    }

    /// #UD.
    #[must_use]
    pub const fn ud() -> Self {
        Self::new(Vector::Ud)
    }

    /// #PF at linear address `address`.
    #[must_use]
    pub const fn pf(address: u64, code: PageFaultCode) -> Self {
        Self { vector: Vector::Pf, error_code: code.bits(), address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_exceptions_are_vectors_and_others_are_not() {
        for number in 0..=255 {
            let vector = Vector::try_from(number);
            let reserved = matches!(number, 9 | 15 | 22..);
            assert_eq!(vector.is_err(), reserved, "{number}");
            assert!(vector.is_ok_and(|vector| vector as u8 == number) || reserved, "{number}");
        }
    }
}
