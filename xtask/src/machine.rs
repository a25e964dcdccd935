//! Machines that boot a kernel: Cloister, and QEMU to compare with.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::apt::Archive;
use crate::console::{self, Transcript};
use crate::{process, repository};

/// The option of Cloister for the EPC of most machines.
pub(crate) const EPC: (&str, &str) = ("--sgx-epc", "id=epc0,size=64M");

/// What to boot, independent of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Appended to `console=ttyS0`.
    pub(crate) append: String,
    pub(crate) memory: String,
    pub(crate) cpus: u32,
    /// Cloister is told in QEMU's options, by `cloister qemu`.
    pub(crate) qemu_options: bool,
    /// Options of Cloister alone: `--sgx-epc`, `--disk` and so on, or QEMU's where those are used.
    pub(crate) options: Vec<String>,
    /// End when the guest resets.
    pub(crate) no_reboot: bool,
    pub(crate) limit: Duration,
}

impl Boot {
    /// A machine of one CPU and 512 MiB without EPC that ends on reset.
    pub(crate) fn new(kernel: &Path, initrd: &Path, append: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            append: append.to_owned(),
            memory: "512M".to_owned(),
            cpus: 1,
            qemu_options: false,
            options: Vec::new(),
            no_reboot: true,
            limit: Duration::from_secs(180),
        }
    }

    /// Adds an option with its value.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }
}

/// A program that runs machines.
#[derive(Clone, Debug)]
pub(crate) enum Machine {
    /// The `cloister` binary.
    Cloister(PathBuf),
    /// QEMU's translator, which Cloister's speed is compared with.
    Qemu(Qemu),
}

/// A QEMU binary and where its libraries are if they are not the system's.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    pub(crate) program: PathBuf,
    pub(crate) libraries: Option<String>,
    pub(crate) firmware: Option<PathBuf>,
}

impl Qemu {
    /// The system's, else Debian's unpacked under `target/`.
    ///
    /// # Errors
    /// As [`Archive::unpacked_with_dependencies`].
    pub(crate) fn get() -> Result<Self> {
        const PROGRAM: &str = "qemu-system-x86_64";
        let installed = Path::new("/usr/bin").join(PROGRAM);
        if installed.exists() {
            return Ok(Self { program: installed, libraries: None, firmware: None });
        }
        let root = Archive::open()?.unpacked_with_dependencies("qemu-system-x86").context(
            "the comparison needs QEMU; install it with: apt-get install qemu-system-x86",
        )?;
        let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib"];
        let libraries: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
        let libraries = libraries.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        Ok(Self {
            program: root.join("usr/bin").join(PROGRAM),
            libraries: Some(libraries.join(":")),
            firmware: Some(root.join("usr/share/qemu")),
        })
    }
}

impl Machine {
    /// Compiles `cloister` in a profile of the workspace.
    ///
    /// # Errors
    /// Cargo's own.
    pub(crate) fn build(profile: &str) -> Result<Self> {
        process::step(&format!("Building cloister (profile {profile})"));
        let start = Instant::now();
        process::show(process::cargo().args([
            "build",
            "--locked",
            "--profile",
            profile,
            "--package",
            "cloister-vmm",
            "--bin",
            "cloister",
        ]))?;
        process::done(start);
        Self::built(profile)
    }

    /// The `cloister` that was compiled in a profile of the workspace.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn built(profile: &str) -> Result<Self> {
        let program = repository::target().join(profile).join("cloister");
        ensure!(program.exists(), "cloister was not built in profile {profile}");
        Ok(Self::Cloister(program))
    }

    /// The command that boots.
    pub(crate) fn command(&self, boot: &Boot) -> Command {
        let append = format!("console=ttyS0 {}", boot.append);
        match self {
            Self::Cloister(program) if boot.qemu_options => {
                let mut command = Command::new(program);
                command.args(["qemu", "-nographic", "-m", &boot.memory]);
                command.args(["-smp", &boot.cpus.to_string()]);
                command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initrd);
                command.args(["-append", &append]);
                command.args(&boot.options);
                if boot.no_reboot {
                    command.arg("-no-reboot");
                }
                command
            }
            Self::Cloister(program) => {
                let mut command = Command::new(program);
                command.arg("run");
                command.arg("--kernel").arg(&boot.kernel).arg("--initrd").arg(&boot.initrd);
                command.args(["--append", &append, "--memory", &boot.memory]);
                command.args(["--cpus", &boot.cpus.to_string()]);
                command.args(&boot.options);
                if boot.no_reboot {
                    command.arg("--no-reboot");
                }
                command
            }
            Self::Qemu(qemu) => {
                let mut command = Command::new(&qemu.program);
                if let Some(libraries) = &qemu.libraries {
                    command.env("LD_LIBRARY_PATH", libraries);
                }
                if let Some(firmware) = &qemu.firmware {
                    command.arg("-L").arg(firmware);
                }
                command.args(["-accel", "tcg", "-cpu", "max", "-display", "none"]);
                command.args(["-serial", "stdio", "-monitor", "none", "-nic", "none"]);
                command.args(["-m", &boot.memory, "-smp", &boot.cpus.to_string()]);
                command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initrd);
                command.args(["-append", &append]);
                if boot.no_reboot {
                    command.arg("-no-reboot");
                }
                command
            }
        }
    }

    /// Boots and reads the console to the end.
    ///
    /// # Errors
    /// The machine's program cannot be started.
    pub(crate) fn boot(
        &self,
        boot: &Boot,
        on_line: impl FnMut(&str, Duration) -> ControlFlow<()>,
    ) -> Result<Transcript> {
        console::run(&mut self.command(boot), boot.limit, on_line).context("cannot boot a guest")
    }
}
