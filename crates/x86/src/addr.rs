//! Address newtypes.
//!
//! Four spaces meet in a VMM and must not be mixed up: linear addresses that a processor
//! translates, guest virtual and guest physical addresses as a hypervisor sees them, and indices
//! into the EPC (which live in the `sgx` crate).

use core::fmt;

/// Size of a base page in bytes.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The address of the 4 KiB page that holds this address.
            #[must_use]
            #[inline]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Offset in bytes within its 4 KiB page (0 to 4095).
            #[must_use]
            #[inline]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether the address is a multiple of `align`, which must be a power of two.
            #[must_use]
            #[inline]
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & (align - 1) == 0
            }

            /// The address `offset` bytes on, modulo 2^64.
            #[must_use]
            #[inline]
            pub const fn wrapping_add(self, offset: u64) -> Self {
                Self(self.0.wrapping_add(offset))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A linear address: what segmentation yields and paging translates (SDM Vol. 3A, 3.1).
    La
}
address! {
    /// A guest virtual address, as a hypervisor reads it from a guest's registers or structures.
    Gva
}
address! {
    /// A guest physical address: what the guest's page tables yield.
    Gpa
}

/// Whether `address` is canonical for 48-bit linear addresses (SDM Vol. 1, 3.3.7.1).
#[must_use]
#[inline]
pub const fn is_canonical(address: u64) -> bool {
    ((address as i64) << 16 >> 16) as u64 == address
}
