//! The initramfs: PID 1, the kernel's modules in the order in which they are loaded, and what to do.
//!
//! The format is "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// How the names of compressed modules end, and what decompresses them.
const COMPRESSED: [(&str, &str); 3] = [("ko.xz", "xz"), ("ko.zst", "zstd"), ("ko.gz", "gzip")];

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

/// A module that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModuleError {
    /// What decompresses it is missing, or fails.
    #[error("{program} cannot decompress the module {}: {reason}: look whether {program} is installed", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What is to decompress it.
        program: &'static str,
        /// What the host, or the program, said.
        reason: String,
    },
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
        let Some(contents) = read(&modules.folder.join("kernel").join(module))? else { continue };
        archive.add(&format!("modules/{number:02}.ko"), FILE, (0, 0), &contents);
    }
    Ok(archive.finish())
}

/// A module, whose path lacks its ending; None where there is no such file.
fn read(module: &Path) -> Result<Option<Vec<u8>>, ModuleError> {
    let path = module.with_extension("ko");
    if path.exists() {
        return fs::read(&path).map(Some).map_err(|reason| ModuleError::Read { path, reason });
    }
    let compressed = COMPRESSED.map(|(ending, program)| (module.with_extension(ending), program));
    let Some((path, program)) = compressed.into_iter().find(|(path, _)| path.exists()) else {
        return Ok(None);
    };
    let output = Command::new(program).arg("-dc").arg(&path).stdin(Stdio::null()).output();
    let reason = match output {
        Ok(output) if output.status.success() => return Ok(Some(output.stdout)),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(ModuleError::Compressed { path, program, reason })
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
    fn a_compressed_module_is_decompressed_and_a_damaged_one_named() {
        let folder = std::env::temp_dir().join(format!("cloister-modules-{}", std::process::id()));
        let module = folder.join("kernel/fs/fuse/fuse.ko.gz");
        fs::create_dir_all(module.parent().unwrap()).unwrap();
        let modules = Modules { folder: &folder, network: false, disk: false };
        // "module", stored without compression (RFC 1951, 3.2.4; RFC 1952).
        let stored =
            b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x06\0\xf9\xffmodule\x28\x26\x24\x0c\x06\0\0\0";

        fs::write(&module, stored).unwrap();
        let archive = make(b"", &modules, b"").unwrap();
        fs::write(&module, "damaged").unwrap();
        let error = make(b"", &modules, b"").unwrap_err();

        assert!(String::from_utf8_lossy(&archive).contains("modules/07.ko\0"));
        assert!(archive.windows(6).any(|window| window == b"module"));
        assert!(error.to_string().starts_with("gzip cannot decompress the module "), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
