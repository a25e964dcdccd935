//! Python with QEMU's own client for QMP, the package `qemu.qmp`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::apt::Archive;
use crate::{process, repository};

/// The package and its version.
const CLIENT: &str = "qemu.qmp==0.0.6";
/// Marks a directory that pip has filled.
const COMPLETE: &str = ".complete";

/// A Python that has the client.
pub(crate) struct Python {
    interpreter: Interpreter,
    client: PathBuf,
}

/// A program with the variables that it needs.
#[derive(Clone)]
struct Interpreter {
    program: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Python {
    /// The system's Python, or Debian's, unpacked under `target/`; the client is fetched by pip as the
    /// system has it set up, or by Debian's pip.
    ///
    /// # Errors
    /// What is missing is not cached and cannot be fetched.
    pub(crate) fn get() -> Result<Self> {
        let archive = Archive::open()?;
        let interpreter = Interpreter::get(&archive)?;
        let client = repository::cache().join("python").join(CLIENT);
        if !client.join(COMPLETE).exists() {
            process::step(&format!("Fetching Python package {CLIENT}"));
            let start = Instant::now();
            let _ = fs::remove_dir_all(&client);
            let mut pip = interpreter.pip(&archive)?;
            pip.args(["install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]);
            pip.arg("--target").arg(&client).arg(CLIENT);
            let output = process::finish(pip.stdin(Stdio::null()))?;
            if !output.status.success() {
                // Its messages name the system's package index, which is nobody else's business.
                bail!(
                    "pip cannot fetch {CLIENT}: `pip download {CLIENT}` tells why; it needs a \
                     connection to the system's package index"
                );
            }
            fs::write(client.join(COMPLETE), CLIENT)?;
            process::done(start);
        }
        Ok(Self { interpreter, client })
    }

    /// A run of Python that finds the client.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.interpreter.command();
        command.env("PYTHONPATH", &self.client).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

impl Interpreter {
    fn get(archive: &Archive) -> Result<Self> {
        let system = Self { program: "python3".into(), variables: Vec::new() };
        // A minimal installation has no asyncio.
        if system.succeeds(&["-c", "import asyncio, json"]) {
            return Ok(system);
        }
        let root = archive.unpacked_with_dependencies("python3")?.join("usr");
        let program = root.join("bin/python3");
        let libraries = root.join("lib/x86_64-linux-gnu");
        Ok(Self { program, variables: vec![("PYTHONHOME", root), ("LD_LIBRARY_PATH", libraries)] })
    }

    /// `pip`, the system's if it has one.
    fn pip(&self, archive: &Archive) -> Result<Command> {
        let mut command = self.command();
        command.args(["-m", "pip"]);
        if !self.succeeds(&["-m", "pip", "--version"]) {
            let library = archive.unpacked_with_dependencies("python3-pip")?.join("usr/lib");
            // Where Debian has packages, and parts of the standard library that it has taken out.
            let mut path = library.join("python3/dist-packages").into_os_string();
            path.push(":");
            path.push(library.join("python3.11"));
            command.env("PYTHONPATH", path);
        }
        Ok(command)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn succeeds(&self, arguments: &[&str]) -> bool {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}
