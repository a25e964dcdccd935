//! The files that the image has besides those of packages.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::disk::ROOT_UUID;
use crate::enclave::Signed;
use crate::guest::Programs;
use crate::process;
use crate::selftests::Built;

/// Contents and whether it is a program, by path from the root.
pub(super) struct Overlay(BTreeMap<String, (Vec<u8>, bool)>);

impl Overlay {
    /// # Errors
    /// A program that cannot be read.
    pub(super) fn new(programs: &Programs, signed: Signed, selftests: &Built) -> Result<Self> {
        let mut overlay = Self(BTreeMap::new());
        overlay.program("usr/local/bin/enclave-demo", process::read(&programs.enclave_demo)?);
        overlay.file("enclave/demo.sgxs", signed.stream);
        overlay.file("enclave/demo.sig", signed.sigstruct);
        overlay.file("enclave/demo.mrenclave", signed.mrenclave.to_vec());
        overlay.program("usr/local/lib/test_sgx/test_sgx", process::read(&selftests.program)?);
        overlay.file("usr/local/lib/test_sgx/test_encl.elf", process::read(&selftests.enclave)?);
        overlay.program("usr/local/bin/test_sgx", TEST_SGX);
        overlay.file("etc/initramfs-tools/conf.d/cloister", INITRAMFS);
        overlay.file("etc/initramfs-tools/modules", "virtio_mmio\nvirtio_blk\next4\n");
        overlay.file("etc/default/grub", GRUB);
        overlay.file("etc/fstab", format!("UUID={ROOT_UUID} / ext4 defaults 0 0\n"));
        overlay.file("etc/hostname", "cloister\n");
        // A machine that has none takes the boot for its first, and sets itself up.
        overlay.file("etc/machine-id", "c10157e4c10157e4c10157e4c10157e4\n");
        overlay.file("etc/systemd/journald.conf.d/volatile.conf", "[Journal]\nStorage=volatile\n");
        Ok(overlay)
    }

    fn file(&mut self, path: &str, contents: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), (contents.into(), false));
    }

    fn program(&mut self, path: &str, contents: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), (contents.into(), true));
    }

    /// Adds all that is in it to a digest.
    pub(super) fn describe(&self, digest: &mut Sha256) {
        for (path, (contents, program)) in &self.0 {
            digest.update(format!("{path} {program} {}\n", contents.len()));
            digest.update(contents);
        }
    }

    /// Writes the files into a folder that holds nothing else.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(folder);
        for (path, (contents, program)) in &self.0 {
            let path = folder.join(path);
            let write = || {
                fs::create_dir_all(path.parent().unwrap_or(folder))?;
                fs::write(&path, contents)?;
                let mode = if *program { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            };
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Finds its enclave relative to the working directory.
const TEST_SGX: &str = "#!/bin/sh\ncd /usr/local/lib/test_sgx && exec ./test_sgx \"$@\"\n";

/// Only what a machine of virtio-mmio needs: the system on which the image is made is another.
const INITRAMFS: &str = "MODULES=list\nCOMPRESS=lz4\nRESUME=none\n";

/// As an administrator of a machine with a serial console writes it.
const GRUB: &str = "GRUB_DEFAULT=saved\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\n\
                    GRUB_CMDLINE_LINUX=\"console=ttyS0\"\nGRUB_TERMINAL=console\n";
