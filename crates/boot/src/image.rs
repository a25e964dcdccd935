//! Telling kernel files apart.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::bzimage::BzImage;
use super::error::KernelError;
use super::pvh::ElfKernel;

/// No kernel is larger than the RAM below the 32-bit hole.
const MAX_FILE: u64 = 1 << 30;

/// A kernel file, read and judged.
#[derive(Debug)]
pub enum KernelImage {
    /// A Linux bzImage.
    BzImage(BzImage),
    /// An ELF kernel with a PVH entry.
    Elf(ElfKernel),
}

impl KernelImage {
    /// Reads a kernel file.
    ///
    /// # Errors
    ///
    /// [`KernelError`] when the file cannot be read or is not a kernel that boots here.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let read = |reason| KernelError::Read { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            return Err(KernelError::NotAFile(path.to_owned()));
        }
        if metadata.len() > MAX_FILE {
            return Err(KernelError::TooLarge { path: path.to_owned(), size: metadata.len() });
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map_err(read)?;
        Self::from_bytes(bytes)
    }

    /// Judges the bytes of a kernel file.
    ///
    /// # Errors
    ///
    /// As [`KernelImage::open`], without its errors of reading.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, KernelError> {
        if bytes.is_empty() {
            Err(KernelError::Empty)
        } else if bytes.starts_with(b"\x7fELF") {
            ElfKernel::parse(bytes).map(Self::Elf)
        } else if BzImage::is_magic(&bytes) {
            BzImage::parse(bytes).map(Self::BzImage)
        } else {
            Err(KernelError::NotAKernel)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_that_are_no_kernel_say_so() {
        for (bytes, line) in [
            (vec![], "the file is empty: name a bzImage or an ELF kernel"),
            (
                vec![0; 4096],
                "the file is neither a bzImage nor an ELF kernel: name the vmlinuz of a Linux package",
            ),
            (
                b"#!/bin/sh\n".to_vec(),
                "the file is neither a bzImage nor an ELF kernel: name the vmlinuz of a Linux package",
            ),
            (b"\x7fELF".to_vec(), "the file is cut short, 4 bytes of 64: copy it again"),
        ] {
            assert_eq!(KernelImage::from_bytes(bytes).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        for (path, line) in [
            (
                "/nonexistent/vmlinuz",
                "cannot read /nonexistent/vmlinuz: No such file or directory (os error 2): \
                 name a bzImage or an ELF kernel",
            ),
            ("/", "/ is not a regular file: name a bzImage or an ELF kernel"),
            ("/dev/zero", "/dev/zero is not a regular file: name a bzImage or an ELF kernel"),
        ] {
            assert_eq!(KernelImage::open(Path::new(path)).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn a_user_program_is_not_a_kernel() {
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();

        let error = KernelImage::from_bytes(program).unwrap_err();

        assert!(matches!(error, KernelError::NoPvhEntry), "{error}");
    }

    proptest! {
        #[test]
        fn random_bytes_after_either_magic_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 64..1024),
            elf in any::<bool>(),
        ) {
            if elf {
                bytes[..4].copy_from_slice(b"\x7fELF");
            } else if bytes.len() > 0x206 {
                bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
                bytes[0x202..0x206].copy_from_slice(b"HdrS");
            }
            let _ = KernelImage::from_bytes(bytes);
        }
    }
}
