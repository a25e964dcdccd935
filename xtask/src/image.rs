//! What a guest boots: the stock kernel and an initramfs of our own.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::debian::Debian;
use crate::guest::Programs;
use crate::kernel::{self, Kernel, Line};
use crate::sysroot::{Bits, Sysroot};
use crate::x86_selftests::Programs as X86Programs;
use crate::{cpio, enclave, nested, process, repository, selftests};

/// What the initramfs holds besides init, the demo and the bench program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing more.
    Demo,
    /// Linux's SGX selftests and the modules of virtio devices.
    Tests,
}

/// Drivers of what the tests' machines have: virtio devices, folders of the host among them, and the
/// power button.
const TEST_MODULES: [&str; 9] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio_rng",
    "virtio_console",
    "virtio_net",
    "button",
    "evdev",
    "vmw_vsock_virtio_transport",
    "virtiofs",
];

/// A bootable pair and what it will print.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) release: String,
    pub(crate) initrd: PathBuf,
    /// MRENCLAVE of the demo's enclave, in hexadecimal.
    pub(crate) mrenclave: String,
    /// The demo's program.
    pub(crate) demo: PathBuf,
    /// The files of its enclave.
    pub(crate) enclave: [(&'static str, Vec<u8>); 3],
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
        let kernel = Kernel::get(&archive, &kernel::STOCK)?;
        let programs = Programs::build()?;
        let signed = enclave::sign(&programs.enclave)?;

        let mut root = cpio::Archive::with_console();
        root.file("init", 0o755, process::read(&programs.init)?);
        root.file("bin/enclave-demo", 0o755, process::read(&programs.enclave_demo)?);
        root.file("bin/bench", 0o755, process::read(&programs.bench)?);
        let enclave = [
            ("demo.sgxs", signed.stream),
            ("demo.sig", signed.sigstruct),
            ("demo.mrenclave", signed.mrenclave.to_vec()),
        ];
        for (name, contents) in &enclave {
            root.file(&format!("enclave/{name}"), 0o644, contents.clone());
        }
        add_mount_points(&mut root);
        let name = match contents {
            Contents::Demo => "demo",
            Contents::Tests => {
                add_modules(&mut root, &archive, &kernel, &TEST_MODULES)?;
                add_shell(&mut root, &archive)?;
                let built = selftests::build(&archive)?;
                root.file("bin/test_sgx", 0o755, process::read(&built.program)?);
                // The program opens it relative to its working directory.
                root.file("test_sgx/test_encl.elf", 0o644, process::read(&built.enclave)?);
                "tests"
            }
        };
        let initrd = write(&root.finish(), name)?;
        Ok(Self {
            kernel: kernel.image,
            release: kernel.release,
            initrd,
            mrenclave: hex(&signed.mrenclave),
            demo: programs.enclave_demo,
            enclave,
            bench: programs.bench,
        })
    }
}

/// A kernel with an initramfs of few programs.
pub(crate) struct Small {
    pub(crate) kernel: PathBuf,
    pub(crate) release: String,
    pub(crate) initrd: PathBuf,
    /// The names of its programs, without the SGX selftests.
    pub(crate) programs: Vec<String>,
}

impl Small {
    /// Linux's x86 selftests, for the stock kernel or for Debian's kernel of 32 bits.
    ///
    /// # Errors
    /// As [`Image::get`].
    pub(crate) fn x86_selftests(kernel: Bits) -> Result<Self> {
        let archive = Archive::open()?;
        let sysroot = Sysroot::get(&archive)?;
        let programs = X86Programs::build(&archive, &sysroot)?;
        let (line, name, init) = match kernel {
            Bits::B64 => (&kernel::STOCK, "x86", Programs::build()?.init),
            Bits::B32 => (&kernel::I686, "x86-32", init_of_32_bits(&sysroot)?),
        };
        let mut root = cpio::Archive::with_console();
        root.file("init", 0o755, process::read(&init)?);
        add_mount_points(&mut root);
        sysroot.add_libraries(&mut root)?;
        programs.add(&mut root, kernel)?;
        let names = programs.names(kernel).map(str::to_owned).collect();
        Self::new(&archive, line, &root, name, names)
    }

    /// The SGX selftests of Linux 6.12.
    ///
    /// # Errors
    /// As [`Image::get`].
    pub(crate) fn newer_sgx_selftests(line: &Line) -> Result<Self> {
        let archive = Archive::open()?;
        let built = selftests::build_newer(&archive)?;
        let mut root = cpio::Archive::with_console();
        root.file("init", 0o755, process::read(&Programs::build()?.init)?);
        add_mount_points(&mut root);
        root.file("bin/test_sgx", 0o755, process::read(&built.program)?);
        root.file("test_sgx/test_encl.elf", 0o644, process::read(&built.enclave)?);
        Self::new(&archive, line, &root, "sgx-6.12", Vec::new())
    }

    /// What an initramfs holds, with a kernel.
    ///
    /// # Errors
    /// The kernel cannot be fetched, the initramfs not be written.
    pub(crate) fn new(
        archive: &Archive,
        line: &Line,
        root: &cpio::Archive,
        name: &str,
        programs: Vec<String>,
    ) -> Result<Self> {
        let kernel = Kernel::get(archive, line)?;
        let initrd = write(&root.finish(), name)?;
        Ok(Self { kernel: kernel.image, release: kernel.release, initrd, programs })
    }
}

/// Compiles `guest/init32`.
fn init_of_32_bits(sysroot: &Sysroot) -> Result<PathBuf> {
    let program = repository::cache().join("init32");
    let source = repository::root().join("guest/init32/init.c");
    let mut compiler = sysroot.compiler(Bits::B32);
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]);
    process::capture(compiler.arg(&program).arg(source))?;
    Ok(program)
}

/// Adds busybox, and `/bin/sh`.
///
/// # Errors
/// The package cannot be fetched.
pub(crate) fn add_shell(root: &mut cpio::Archive, archive: &Archive) -> Result<()> {
    let busybox = archive.unpacked("busybox-static")?.join("bin/busybox");
    root.file("bin/busybox", 0o755, process::read(&busybox)?);
    root.link("bin/sh", "busybox");
    Ok(())
}

/// Folders on which init mounts file systems.
pub(crate) fn add_mount_points(root: &mut cpio::Archive) {
    for directory in ["proc", "sys", "tmp"] {
        root.directory(directory);
    }
}

/// Writes an initramfs under `target/`. Another xtask may be reading the one before it.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(bytes: &[u8], name: &str) -> Result<PathBuf> {
    let path = repository::cache().join(format!("initramfs-{name}.cpio"));
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(path);
    }
    let draft = repository::cache().join(format!("initramfs-{name}.{}", std::process::id()));
    fs::write(&draft, bytes)
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Adds modules with all that they need to `/modules`, from which init's task of that name loads them in
/// the order of their names.
///
/// # Errors
/// As [`Kernel::modules`].
pub(crate) fn add_modules(
    root: &mut cpio::Archive,
    archive: &Archive,
    kernel: &Kernel,
    names: &[&str],
) -> Result<()> {
    for (index, module) in kernel.modules(archive, names)?.into_iter().enumerate() {
        root.file(&format!("modules/{index:02}-{}", module.name), 0o644, module.contents);
    }
    Ok(())
}

/// `cargo xtask fetch`.
///
/// # Errors
/// As [`Image::get`].
pub(crate) fn fetch_all() -> Result<()> {
    let start = Instant::now();
    let image = everything()?;
    process::step(&format!("Kernel {} and {}", image.release, image.initrd.display()));
    process::done(start);
    Ok(())
}

/// All that guest tests boot.
///
/// # Errors
/// As [`Image::get`].
pub(crate) fn everything() -> Result<Image> {
    let image = Image::get(Contents::Tests)?;
    Small::x86_selftests(Bits::B64)?;
    Small::x86_selftests(Bits::B32)?;
    Small::newer_sgx_selftests(&kernel::NEWER)?;
    Debian::get()?;
    nested::fetch()?;
    Ok(image)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
