//! The processor's mode as far as decoding depends on it.

/// What the bytes of an instruction mean depends on this, so blocks are keyed by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub(crate) struct Mode(u8);

impl Mode {
    const CODE64: u8 = 1;
    const CODE32: u8 = 2;
    const STACK32: u8 = 4;
    const ENCLAVE: u8 = 8;
    const REAL: u8 = 16;

    /// 64-bit code.
    #[must_use]
    pub(crate) const fn code64() -> Self {
        Self(Self::CODE64)
    }

    /// Legacy or compatibility-mode code with CS.D and SS.B as given.
    #[must_use]
    pub(crate) const fn legacy(code32: bool, stack32: bool) -> Self {
        Self(if code32 { Self::CODE32 } else { 0 } | if stack32 { Self::STACK32 } else { 0 })
    }

    /// The same mode inside or outside an enclave.
    #[must_use]
    pub(crate) const fn with_enclave(self, enclave: bool) -> Self {
        Self(if enclave { self.0 | Self::ENCLAVE } else { self.0 & !Self::ENCLAVE })
    }

    /// The same mode as a real-address or virtual-8086 one, or not.
    #[must_use]
    pub(crate) const fn with_real(self, real: bool) -> Self {
        Self(if real { self.0 | Self::REAL } else { self.0 & !Self::REAL })
    }

    /// Whether the mode is real-address or virtual-8086 mode, in which no instruction has a VEX
    /// prefix (SDM Vol. 2A, table 2-14 and following).
    #[must_use]
    pub(crate) const fn is_real(self) -> bool {
        self.0 & Self::REAL != 0
    }

    /// Whether CS.L is in force.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_64(self) -> bool {
        self.0 & Self::CODE64 != 0
    }

    /// Width of code in bits: 16, 32 or 64.
    #[must_use]
    pub(crate) const fn bitness(self) -> u32 {
        if self.is_64() {
            64
        } else if self.0 & Self::CODE32 != 0 {
            32
        } else {
            16
        }
    }

    /// Width of the stack pointer in bytes: 2, 4 or 8.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn stack_size(self) -> u8 {
        if self.is_64() {
            8
        } else if self.0 & Self::STACK32 != 0 {
            4
        } else {
            2
        }
    }

    /// Whether the code runs inside an enclave.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_enclave(self) -> bool {
        self.0 & Self::ENCLAVE != 0
    }

    /// The bits, for a hash key.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
}
