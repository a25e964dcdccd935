//! What is wrong with a machine that was asked for, before a front end words it.
//!
//! The machine knows settings, not options: it says which setting is at fault, why, and what to do.
//! A front end, such as `cloister run` or `cloister qemu`, has a [`Wording`] that names the settings
//! as its users write them.
//!
//! An error of this crate whose message is complete, `reason: fix`, and names no setting needs no
//! more than [`Complaint::about`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// What can be set of a machine, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// Something to boot: a kernel, or a disk that has one.
    Boot,
    /// The kernel's file.
    Kernel,
    /// The initial RAM disk's file.
    Initrd,
    /// The kernel's command line.
    CommandLine,
    /// The size of the RAM.
    Memory,
    /// The number of processors.
    Cpus,
    /// What CPUID says.
    Cpu,
    /// The NUMA nodes.
    Nodes,
    /// What executes the processors.
    Accelerator,
    /// Disks.
    Disk,
    /// Folders of the host.
    Share,
    /// The vsock device.
    Vsock,
    /// Network devices.
    Network,
    /// Network devices that are asked for together with what they are connected to.
    Nic,
    /// Sections of virtual EPC.
    Epc,
    /// How much EPC of the platform the machine can have.
    EpcQuota,
    /// How much EPC of the platform is kept for the machine.
    EpcReserve,
    /// The hash of the key that launch enclaves are signed with.
    LaunchKey,
    /// The directory of the SGX platform.
    Platform,
    /// Whether a reset ends the machine.
    NoReboot,
    /// QMP monitors.
    Monitor,
    /// Where a debugger connects to.
    Gdb,
    /// What the console is on.
    Console,
    /// Names of the machine and of its process.
    Name,
    /// The file with the process's number.
    PidFile,
    /// Going on without the terminal.
    Daemon,
    /// The confinement of the process.
    Sandbox,
}

impl Setting {
    /// Every setting.
    pub const ALL: [Self; 27] = [
        Self::Boot,
        Self::Kernel,
        Self::Initrd,
        Self::CommandLine,
        Self::Memory,
        Self::Cpus,
        Self::Cpu,
        Self::Nodes,
        Self::Accelerator,
        Self::Disk,
        Self::Share,
        Self::Vsock,
        Self::Network,
        Self::Nic,
        Self::Epc,
        Self::EpcQuota,
        Self::EpcReserve,
        Self::LaunchKey,
        Self::Platform,
        Self::NoReboot,
        Self::Monitor,
        Self::Gdb,
        Self::Console,
        Self::Name,
        Self::PidFile,
        Self::Daemon,
        Self::Sandbox,
    ];

    /// What it is called where no front end has an option for it.
    #[must_use]
    pub const fn plain(self) -> &'static str {
        match self {
            Self::Boot | Self::Kernel => "the kernel",
            Self::Initrd => "the initial RAM disk",
            Self::CommandLine => "the kernel's command line",
            Self::Memory => "the RAM",
            Self::Cpus => "the number of processors",
            Self::Cpu => "the processors",
            Self::Nodes => "the NUMA nodes",
            Self::Accelerator => "the accelerator",
            Self::Disk => "the disk",
            Self::Share => "the shared folder",
            Self::Vsock => "the vsock device",
            Self::Network | Self::Nic => "the network",
            Self::Epc => "the EPC",
            Self::EpcQuota => "the quota of EPC",
            Self::EpcReserve => "the reservation of EPC",
            Self::LaunchKey => "the launch key",
            Self::Platform => "the SGX platform",
            Self::NoReboot => "what a reset does",
            Self::Monitor => "the monitor",
            Self::Gdb => "the debugger",
            Self::Console => "the console",
            Self::Name => "the name",
            Self::PidFile => "the file of the process's number",
            Self::Daemon => "the process in the background",
            Self::Sandbox => "the sandbox",
        }
    }
}

/// Words with settings among them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Phrase(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(Cow<'static, str>),
    Setting(Setting),
}

impl Phrase {
    /// The phrase followed by text.
    #[must_use]
    pub fn text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.0.push(Part::Text(text.into()));
        self
    }

    /// The phrase followed by the name of a setting.
    #[must_use]
    pub fn setting(mut self, setting: Setting) -> Self {
        self.0.push(Part::Setting(setting));
        self
    }

    /// The phrase in the words of a front end.
    #[must_use]
    pub fn in_words_of<W: Wording + ?Sized>(&self, wording: &W) -> String {
        let words = self.0.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Setting(setting) => wording.name(*setting),
        });
        words.collect()
    }
}

impl From<&'static str> for Phrase {
    fn from(text: &'static str) -> Self {
        Self::default().text(text)
    }
}

impl From<String> for Phrase {
    fn from(text: String) -> Self {
        Self::default().text(text)
    }
}

/// What to do about a complaint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fix {
    /// What needs only the names of settings.
    Do(Phrase),
    /// Name a kernel, or a disk with an installed system.
    NameBoot,
    /// Name an image; it may be that something was written after its name that does not belong to it.
    NameImage,
    /// Name what a disk's image is based on, for the image with `depth` layers over it.
    NameBacking {
        /// How many.
        depth: usize,
    },
    /// Name the format of what a disk's image is based on.
    NameBackingFormat {
        /// How many layers lie over the image.
        depth: usize,
    },
    /// Have a disk's image left as it is: read-only, or with a snapshot.
    NotWritten,
    /// Do `first`, or make `images` read-only.
    OrReadOnly {
        /// What else to do.
        first: &'static str,
        /// Which images.
        images: &'static str,
    },
}

impl<T: Into<Phrase>> From<T> for Fix {
    fn from(phrase: T) -> Self {
        Self::Do(phrase.into())
    }
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// The setting at fault, if it is one's.
    pub setting: Option<Setting>,
    /// What is wrong.
    pub why: Phrase,
    /// What to do, where `why` does not say it.
    pub fix: Option<Fix>,
}

impl Complaint {
    /// A complaint about a setting.
    #[must_use]
    pub fn new(setting: Setting, why: impl Into<Phrase>, fix: impl Into<Fix>) -> Self {
        Self { setting: Some(setting), why: why.into(), fix: Some(fix.into()) }
    }

    /// What an error that names no setting says of one, with everything that led to it.
    #[must_use]
    pub fn about(setting: Setting, error: &dyn Error) -> Self {
        Self { setting: Some(setting), ..Self::of_nothing_set(error) }
    }

    /// An error that no setting is at fault for, with everything that led to it.
    #[must_use]
    pub fn of_nothing_set(error: &dyn Error) -> Self {
        Self { setting: None, why: with_sources(error).into(), fix: None }
    }
}

/// An error and everything that led to it.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// How a front end names settings and fixes.
pub trait Wording: fmt::Debug + Sync {
    /// The option for a setting. `None` where there is none: then a line begins with the reason.
    fn option(&self, setting: Setting) -> Option<&'static str>;

    /// What to do, with values in the form that the front end takes.
    fn fix(&self, fix: &Fix) -> String;

    /// What a setting is called within a line.
    fn name(&self, setting: Setting) -> &'static str {
        self.option(setting).unwrap_or(setting.plain())
    }

    /// The complaint in one line: the option, why it cannot be served, and what to do.
    fn line(&self, complaint: &Complaint) -> String {
        let option = complaint.setting.and_then(|setting| self.option(setting));
        let why = complaint.why.in_words_of(self);
        let fix = complaint.fix.as_ref().map(|fix| self.fix(fix));
        let parts = option.map(str::to_owned).into_iter().chain([why]).chain(fix);
        parts.collect::<Vec<_>>().join(": ")
    }
}
