//! What a guest boots: the stock kernel and an initramfs of our own.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::debian::Debian;
use crate::guest::Programs;
use crate::kernel::Kernel;
use crate::{cpio, enclave, process, repository, selftests};

/// What the initramfs holds besides init, the demo and the bench program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing more.
    Demo,
    /// Linux's SGX selftests and the modules of virtio devices.
    Tests,
}

/// A bootable pair and what it will print.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) release: String,
    pub(crate) initrd: PathBuf,
    /// MRENCLAVE of the demo's enclave, in hexadecimal.
    pub(crate) mrenclave: String,
    /// The bench program, to run on the host too.
    pub(crate) bench: PathBuf,
}

impl Image {
    /// Fetches and builds whatever is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched, programs that do not compile.
    pub(crate) fn get(contents: Contents) -> Result<Self> {
        let archive = Archive::open()?;
        let kernel = Kernel::get(&archive)?;
        let programs = Programs::build()?;
        let signed = enclave::sign(&programs.enclave)?;

        let mut root = cpio::Archive::with_console();
        root.file("init", 0o755, process::read(&programs.init)?);
        root.file("bin/enclave-demo", 0o755, process::read(&programs.enclave_demo)?);
        root.file("bin/bench", 0o755, process::read(&programs.bench)?);
        root.file("enclave/demo.sgxs", 0o644, signed.stream);
        root.file("enclave/demo.sig", 0o644, signed.sigstruct);
        root.file("enclave/demo.mrenclave", 0o644, signed.mrenclave.to_vec());
        for directory in ["proc", "sys", "tmp"] {
            root.directory(directory);
        }
        let name = match contents {
            Contents::Demo => "demo",
            Contents::Tests => {
                add_modules(&mut root, &kernel)?;
                let busybox = archive.unpacked("busybox-static")?.join("bin/busybox");
                root.file("bin/busybox", 0o755, process::read(&busybox)?);
                root.link("bin/sh", "busybox");
                let built = selftests::build(&archive)?;
                root.file("bin/test_sgx", 0o755, process::read(&built.program)?);
                // The program opens it relative to its working directory.
                root.file("test_sgx/test_encl.elf", 0o644, process::read(&built.enclave)?);
                "tests"
            }
        };
        let initrd = repository::cache().join(format!("initramfs-{name}.cpio"));
        fs::write(&initrd, root.finish())
            .with_context(|| format!("cannot write {}", initrd.display()))?;
        Ok(Self {
            kernel: kernel.image,
            release: kernel.release,
            initrd,
            mrenclave: hex(&signed.mrenclave),
            bench: programs.bench,
        })
    }
}

fn add_modules(root: &mut cpio::Archive, kernel: &Kernel) -> Result<()> {
    let virtio = ["virtio_mmio", "virtio_blk", "virtio_rng", "virtio_console"];
    let power_button = ["button", "evdev"];
    let modules = kernel.modules(&[&virtio[..], &power_button].concat())?;
    for (index, path) in modules.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        root.file(&format!("modules/{index:02}-{name}"), 0o644, process::read(path)?);
    }
    Ok(())
}

/// `cargo xtask fetch`.
///
/// # Errors
/// As [`Image::get`].
pub(crate) fn fetch_all() -> Result<()> {
    let start = Instant::now();
    let image = Image::get(Contents::Tests)?;
    Debian::get()?;
    process::step(&format!("Kernel {} and {}", image.release, image.initrd.display()));
    process::done(start);
    Ok(())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
