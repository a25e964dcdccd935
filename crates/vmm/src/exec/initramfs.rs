//! The initramfs: PID 1, the kernel's modules in the order in which they are loaded, and what to do.
//!
//! The format is "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_600;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Modules of a stock Debian kernel that the machine needs, each after those that it needs itself, below
/// `kernel/`. What a kernel has built in has no file.
const MODULES: [&str; 10] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_mmio",
    "drivers/char/hw_random/virtio-rng",
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
    "fs/fuse/fuse",
    "fs/fuse/virtiofs",
    "fs/overlayfs/overlay",
];

/// Those of network devices besides.
const NETWORK_MODULES: [&str; 3] =
    ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];

/// Those of a disk that has the root, and of file systems that may be there.
const DISK_MODULES: [&str; 4] =
    ["drivers/block/virtio_blk", "fs/squashfs/squashfs", "lib/libcrc32c", "fs/erofs/erofs"];

/// Which modules the machine needs.
#[derive(Debug)]
pub(super) struct Modules<'a> {
    /// `lib/modules/RELEASE`.
    pub(super) folder: &'a Path,
    /// It has network devices.
    pub(super) network: bool,
    /// It has a disk with the root.
    pub(super) disk: bool,
}

/// A module that cannot be loaded as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModuleError {
    /// It is compressed.
    #[error("the module {path} is compressed", path = .0.display())]
    Compressed(PathBuf),
    /// It cannot be read.
    #[error("cannot read the module {path}: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
}

/// An initramfs in memory.
pub(super) fn make(
    init: &[u8],
    modules: &Modules<'_>,
    settings: &[u8],
) -> Result<Vec<u8>, ModuleError> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "modules"] {
        archive.add(folder, FOLDER, (0, 0), &[]);
    }
    archive.add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.add("init", PROGRAM, (0, 0), init);
    archive.add("exec.conf", FILE, (0, 0), settings);
    let network: &[&str] = if modules.network { &NETWORK_MODULES } else { &[] };
    let disk: &[&str] = if modules.disk { &DISK_MODULES } else { &[] };
    for (number, module) in MODULES.iter().chain(network).chain(disk).enumerate() {
        let path = modules.folder.join("kernel").join(format!("{module}.ko"));
        if !path.exists() {
            let packed = ["ko.xz", "ko.zst", "ko.gz"].map(|ending| path.with_extension(ending));
            match packed.into_iter().find(|path| path.exists()) {
                Some(path) => return Err(ModuleError::Compressed(path)),
                None => continue,
            }
        }
        let contents =
            fs::read(&path).map_err(|reason| ModuleError::Read { path: path.clone(), reason })?;
        archive.add(&format!("modules/{number:02}.ko"), FILE, (0, 0), &contents);
    }
    Ok(archive.finish())
}

/// Puts bytes where a file is wanted. The path is good as long as the file is open.
pub(super) fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("cloister-initramfs", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        // Inode, mode, user, group, links, time, size, device, its own device, name, checksum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_modules_gets_init_and_its_settings() {
        let folder = Path::new("/nonexistent");
        let modules = Modules { folder, network: true, disk: true };
        let bytes = make(b"program", &modules, b"settings").unwrap();

        let text = String::from_utf8_lossy(&bytes);
        assert!(bytes.len().is_multiple_of(4) && bytes.starts_with(b"070701"));
        for part in ["init\0", "program", "exec.conf\0", "settings", "dev/console\0", "TRAILER!!!"]
        {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn a_compressed_module_is_named() {
        let folder = std::env::temp_dir().join(format!("cloister-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("kernel/fs/fuse")).unwrap();
        fs::write(folder.join("kernel/fs/fuse/fuse.ko.xz"), "").unwrap();

        let error =
            make(b"", &Modules { folder: &folder, network: false, disk: false }, b"").unwrap_err();

        assert!(error.to_string().contains("fuse.ko.xz is compressed"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
