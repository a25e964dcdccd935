//! Guest RAM.

use std::ops::Range;

use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::layout::Layout;
use crate::size::format_size;

/// The host has no address space or memory for the guest's RAM.
#[derive(Debug, Error)]
#[error("the host cannot map {} of RAM", format_size(*.size))]
pub struct RamError {
    /// Bytes asked for.
    size: u64,
    /// What the host said.
    source: FromRangesError,
}

/// Maps the RAM of `layout`: anonymous memory that the host backs when the guest touches it.
///
/// # Errors
///
/// [`RamError`] when the host refuses the mapping.
pub fn map_ram(layout: &Layout) -> Result<GuestMemoryMmap, RamError> {
    let ranges: Vec<(GuestAddress, usize)> = layout
        .ram()
        .into_iter()
        .map(|Range { start, end }| (GuestAddress(start), (end - start) as usize))
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).map_err(|source| RamError {
        size: ranges.iter().map(|&(_, size)| size as u64).sum(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryBackend;

    #[test]
    fn ram_is_mapped_where_the_layout_says_and_nowhere_else() {
        let layout = Layout::new(4 << 30, &[64 << 20]).unwrap();

        let ram = map_ram(&layout).unwrap();

        for (address, is_ram) in [
            (0, true),
            (0xbfff_ffff, true),
            (0xc000_0000, false),
            (0xffff_ffff, false),
            (0x1_0000_0000, true),
            (0x1_3fff_ffff, true),
            (0x1_4000_0000, false),
        ] {
            assert_eq!(ram.address_in_range(GuestAddress(address)), is_ram, "{address:#x}");
        }
    }
}
