//! Where the boot structures lie in the first MiB, and the writes that both protocols share.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::error::CommandLineError;

/// The boot GDT.
pub(super) const GDT: u64 = 0x500;
/// PVH: `hvm_start_info`.
pub(super) const START_INFO: u64 = 0x6000;
/// PVH: the module list.
pub(super) const MODULE_LIST: u64 = 0x6100;
/// PVH: the memory map.
pub(super) const PVH_MEMORY_MAP: u64 = 0x6200;
/// Linux: `boot_params`, the "zero page".
pub(super) const BOOT_PARAMS: u64 = 0x7000;
/// Top of the stack that the 64-bit entry is given.
pub(super) const STACK_TOP: u64 = 0x8ff0;
/// Page tables: PML4, page-directory-pointer table, four page directories.
pub(super) const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line.
pub(super) const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes that may follow [`COMMAND_LINE`], the NUL included.
pub(super) const COMMAND_LINE_SPACE: usize = 0x1_0000;
/// Kernels lie above the first MiB: below it are the structures named here.
pub(super) const LOWEST_KERNEL: u64 = 0x10_0000;

/// Checks the command line against the kernel's limit of `max` bytes without the NUL.
pub(super) fn check_command_line(line: &str, max: usize) -> Result<(), CommandLineError> {
    let max = max.min(COMMAND_LINE_SPACE - 1);
    if line.len() > max {
        return Err(CommandLineError::TooLong { len: line.len(), max });
    }
    if line.contains('\0') {
        return Err(CommandLineError::Nul);
    }
    Ok(())
}

/// Writes the command line and its NUL.
pub(super) fn write_command_line(
    ram: &GuestMemoryMmap,
    line: &str,
) -> Result<(), GuestMemoryError> {
    ram.write_slice(line.as_bytes(), GuestAddress(COMMAND_LINE))?;
    ram.write_obj(0_u8, GuestAddress(COMMAND_LINE + line.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_measured_without_its_nul() {
        assert_eq!(check_command_line("12345678", 8), Ok(()));
        assert_eq!(
            check_command_line("123456789", 8).unwrap_err().to_string(),
            "9 bytes are more than the 8 that this kernel takes: write a shorter line"
        );
        assert_eq!(check_command_line("a\0b", 8), Err(CommandLineError::Nul));
        assert_eq!(
            check_command_line(&"x".repeat(0x1_0000), usize::MAX),
            Err(CommandLineError::TooLong { len: 0x1_0000, max: 0xffff })
        );
    }
}
