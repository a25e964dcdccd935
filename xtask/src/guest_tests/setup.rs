//! What the guest tests share: the machine, the image, a folder for files.

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::console::{Session, Transcript};
use crate::image::Image;
use crate::machine::{Boot, Machine};
use crate::{process, repository};

/// Which code of guests is translated.
pub(super) const TRANSLATE: &str = "--translate";

/// The machine under test and what it boots.
#[derive(Clone)]
pub(crate) struct Setup {
    machine: Machine,
    /// Kernel and initramfs with everything.
    pub(crate) image: Image,
    /// The value of `--translate`, but for the boots that have their own.
    translate: Option<String>,
    show: bool,
    folder: PathBuf,
}

impl Setup {
    /// # Errors
    /// As [`Setup::of`].
    pub(crate) fn new(
        machine: Machine,
        image: Image,
        translate: Option<String>,
        show: bool,
    ) -> Result<Self> {
        let setup = Self {
            machine,
            image,
            translate,
            show,
            folder: repository::cache().join("guest-tests"),
        };
        setup.of("")
    }

    /// The same with an empty folder of the test's own: another may run beside it.
    ///
    /// # Errors
    /// What an earlier run left cannot be removed, or the folder cannot be made.
    pub(crate) fn of(&self, test: &str) -> Result<Self> {
        let folder = self.folder.join(test);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, ..self.clone() })
    }

    /// The same with another machine.
    pub(super) fn on(&self, machine: Machine) -> Self {
        Self { machine, translate: None, ..self.clone() }
    }

    /// A boot of the image whose init runs these tasks.
    pub(crate) fn tasks(&self, tasks: &str) -> Boot {
        self.append(&format!("cloister.run={tasks}"))
    }

    /// A boot of the image with this command line.
    pub(crate) fn append(&self, append: &str) -> Boot {
        Boot::new(&self.image.kernel, &self.image.initrd, append)
    }

    /// Boots to the machine's end.
    ///
    /// # Errors
    /// The machine cannot be started, or did not end in time.
    pub(crate) fn boot(&self, boot: &Boot) -> Result<Transcript> {
        self.boot_until(boot, |_| ControlFlow::Continue(()))
    }

    /// Boots until the machine ends or `on_line` breaks.
    ///
    /// # Errors
    /// As [`Setup::boot`].
    pub(crate) fn boot_until(
        &self,
        boot: &Boot,
        mut on_line: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Transcript> {
        let mut boot = boot.clone();
        if let Some(translate) = &self.translate
            && !boot.qemu_options
            && !boot.options.iter().any(|option| option == TRANSLATE)
        {
            boot = boot.option(TRANSLATE, translate);
        }
        let transcript = self.machine.boot(&boot, |line, _| {
            if self.show {
                println!("| {line}");
            }
            on_line(line)
        })?;
        if transcript.timed_out {
            let seconds = boot.limit.as_secs();
            bail!("the guest did not end within {seconds} s; last lines:\n{}", transcript.tail());
        }
        Ok(transcript)
    }

    /// Boots and wants an orderly power-off.
    ///
    /// # Errors
    /// As [`Setup::boot`], and any other end.
    pub(crate) fn boot_to_power_off(&self, boot: &Boot) -> Result<Transcript> {
        let transcript = self.boot(boot)?;
        if transcript.exit != Some(0) {
            bail!(
                "exit code {:?} instead of 0; last lines:\n{}",
                transcript.exit,
                transcript.tail()
            );
        }
        Ok(transcript)
    }

    /// The path of a socket of this run. Not with the other files: a socket's path must be short.
    pub(crate) fn socket(name: &str) -> String {
        let name = format!("cloister-{name}-{}.sock", std::process::id());
        std::env::temp_dir().join(name).display().to_string()
    }

    /// Boots to an orderly power-off with a monitor at `socket`, and meanwhile gives `look` the reports
    /// of `cloister epc`, one after the other until it has what it looks for. `missing` says what that
    /// is where it never came.
    ///
    /// # Errors
    /// As [`Setup::boot_to_power_off`], and those of `look`.
    pub(crate) fn boot_watched<T: Send>(
        &self,
        boot: Boot,
        socket: &str,
        missing: &str,
        mut look: impl FnMut(&Value) -> Result<Option<T>> + Send,
    ) -> Result<(Transcript, T)> {
        let boot = boot.option("--qmp", &format!("unix:{socket}"));
        let ended = AtomicBool::new(false);
        let watch = || {
            let mut last = String::from("no report");
            while !ended.load(Ordering::Relaxed) {
                let once = self.cloister(&["epc", socket, "--once", "--json"])?;
                // Else the machine is not up yet.
                if once.status.success() {
                    let report = serde_json::from_slice(&once.stdout).context("the report")?;
                    if let Some(found) = look(&report)? {
                        return Ok(found);
                    }
                    last = report.to_string();
                }
                thread::sleep(Duration::from_millis(50));
            }
            bail!("{missing}; last: {last}")
        };
        let (transcript, found) = thread::scope(|scope| {
            let watching = scope.spawn(watch);
            let transcript = self.boot_to_power_off(&boot);
            ended.store(true, Ordering::Relaxed);
            (transcript, watching.join())
        });
        let transcript = transcript?;
        Ok((transcript, found.map_err(|_| anyhow!("the watching thread panicked"))??))
    }

    /// The program under test.
    ///
    /// # Errors
    /// It is not `cloister`.
    pub(crate) fn program(&self) -> Result<&Path> {
        match &self.machine {
            Machine::Cloister(program) => Ok(program),
            Machine::Qemu(_) => bail!("the machine under test is not cloister"),
        }
    }

    /// Runs `cloister` with arguments that boot nothing.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn cloister(&self, arguments: &[&str]) -> Result<Output> {
        let program = self.program()?;
        process::finish(Command::new(program).args(arguments).stdin(std::process::Stdio::null()))
    }

    /// Starts `cloister` for a dialogue with its guest.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn session(&self, arguments: &[&str]) -> Result<Session> {
        let mut command = Command::new(self.program()?);
        command.args(arguments);
        if let Some(translate) = &self.translate
            && arguments.first() == Some(&"run")
        {
            command.args([TRANSLATE, translate]);
        }
        Session::start(&mut command, self.show)
    }

    /// Where the test has a file or folder of this name. There is none until it makes it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file and returns its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// The kernel's path as an argument.
    pub(crate) fn kernel(&self) -> String {
        self.image.kernel.display().to_string()
    }
}

/// Fails with the transcript's end unless a line contains the text.
///
/// # Errors
/// No such line.
pub(crate) fn expect(transcript: &Transcript, text: &str) -> Result<()> {
    match transcript.find(text) {
        Some(_) => Ok(()),
        None => bail!("no line says {text:?}; last lines:\n{}", transcript.tail()),
    }
}
