//! How commands end: GRUB's error numbers, which scripts see as `$?`.

use std::fmt;

/// How a command ended. Zero is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(pub(super) u32);

impl Status {
    pub(super) const SUCCESS: Self = Self(0);
    /// `false`, and a condition that does not hold.
    pub(super) const FALSE: Self = Self(1);
    pub(super) const BAD_FILE_TYPE: Self = Self(4);
    pub(super) const FILE_NOT_FOUND: Self = Self(5);
    pub(super) const FILE_READ_ERROR: Self = Self(6);
    pub(super) const BAD_FILENAME: Self = Self(7);
    pub(super) const UNKNOWN_FS: Self = Self(8);
    pub(super) const BAD_NUMBER: Self = Self(10);
    pub(super) const OUT_OF_RANGE: Self = Self(11);
    pub(super) const UNKNOWN_DEVICE: Self = Self(12);
    pub(super) const BAD_DEVICE: Self = Self(13);
    pub(super) const INVALID_COMMAND: Self = Self(17);
    pub(super) const BAD_ARGUMENT: Self = Self(18);
    pub(super) const BAD_OS: Self = Self(21);
    pub(super) const NO_KERNEL: Self = Self(22);
    pub(super) const MENU: Self = Self(27);
    pub(super) const BAD_ADDRESS: Self = Self(32);

    /// Success where `holds`, else [`Self::FALSE`].
    pub(super) const fn holds(holds: bool) -> Self {
        if holds { Self::SUCCESS } else { Self::FALSE }
    }

    pub(super) fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is a C enumeration, which GRUB writes as a signed number.
        write!(f, "{}", self.0.cast_signed())
    }
}
