//! A kernel for a host that has none: the newest of the host's package sources that is for virtual machines, fetched and
//! unpacked into the user's cache by the host's own programs. It takes no root.
//!
//! What is not whole yet is in a folder that one process at a time has, and that the next one removes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::iter;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

use super::kernel::{BOOT, CACHED, Kernel, cache, images, latest, release};
use super::packages::Package;
use super::run::signalled;
use super::waiting::Waiting;
use crate::complaint::{Complaint, Setting};
use crate::standard::complain;
use crate::terminal::Noted;

/// Packages that need the newest kernel for virtual machines: Debian's and Ubuntu's.
const NEWEST: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];
/// How the packages of kernels are named, and those of their modules where these are apart.
const IMAGE: &str = "linux-image-";
const MODULES: &str = "linux-modules-";
/// Where modules are in a package: its `/lib` may be `/usr/lib`.
const LIBRARIES: [&str; 2] = ["lib", "usr/lib"];
/// Where they are kept, in the folder of the cache.
const KEPT: &str = "lib/modules";
/// What is not whole yet, in the folder of the cache.
const UNFINISHED: &str = "fetch";
/// Options of apt: the newest version counts, and not what is installed, nor translations; root fetches as itself, and a
/// server that does not answer is not waited for.
const OPTIONS: [&str; 6] = [
    "-oAPT::Cache::AllVersions=false",
    "-oDir::State::status=/dev/null",
    "-oAPT::Sandbox::User=root",
    "-oAcquire::Languages=none",
    "-oAcquire::Retries=2",
    "-oAcquire::http::Timeout=20",
];
/// How often is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// The kernel, which stays for the next time.
    Kernel(Kernel),
    /// A signal came first; this is the exit code that says so.
    Ended(u8),
}

/// Why there is no kernel. [`FetchError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum FetchError {
    /// There is no home.
    #[error("neither HOME nor XDG_CACHE_HOME says where to keep one")]
    NoCache,
    /// A program is missing.
    #[error("this host has no {0}, with which Cloister fetches one")]
    NoProgram(&'static str),
    /// No package source that is known has one.
    #[error("apt knows none of the packages {}", NEWEST.join(" and "))]
    Unknown,
    /// A program failed.
    #[error("{program} cannot {what}: {said}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it was to do.
        what: String,
        /// The last of what it said.
        said: String,
    },
    /// The disk is too full.
    #[error("{package} takes {wanted} in {}, where {free} are free", folder.display())]
    NoRoom {
        /// What was to be fetched.
        package: String,
        /// How much it takes.
        wanted: Size,
        /// Where.
        folder: PathBuf,
        /// How much there is.
        free: Size,
    },
    /// A folder of the cache.
    #[error("cannot write to {}: {reason}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// The host does not tell of signals, or of processes.
    #[error("the host refuses what it takes to fetch one: {0}")]
    Host(io::Error),
    /// The package is another than was thought.
    #[error("{0} has no kernel with its modules")]
    NoKernel(String),
}

impl FetchError {
    /// What is wrong, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let by_hand = "name one, such as that of Debian's package linux-image-cloud-amd64, unpacked: its modules are \
                       found beside it, in ../lib/modules";
        let fix = match self {
            Self::NoCache => "set HOME, or name a kernel",
            Self::NoProgram(_) | Self::NoKernel(_) | Self::Host(_) => by_hand,
            Self::Unknown => {
                "run `apt-get update` as root, and look whether the package sources are Debian's or Ubuntu's; or name a \
                 kernel with its modules beside it, in ../lib/modules"
            }
            Self::Failed { .. } => {
                "look whether the package sources are in reach, run `apt-get update` as root, and run this again; or \
                 name a kernel with its modules beside it, in ../lib/modules"
            }
            Self::NoRoom { .. } => "make room, or let XDG_CACHE_HOME name a folder that has it",
            Self::Folder { .. } => {
                "let XDG_CACHE_HOME name a folder that can be written, or name a kernel"
            }
        };
        let cache = cache().unwrap_or_else(|| Path::new("~/.cache").join(CACHED));
        let why = format!("there is none, neither in {} nor in /boot, and {self}", cache.display());
        Complaint::new(Setting::Kernel, why, fix)
    }
}

/// Bytes, told in the unit that package managers use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MB: u64 = 1_000_000;
        write!(f, "{}.{} MB", self.0 / MB, self.0 % MB / (MB / 10))
    }
}

impl Kernel {
    /// Fetches a kernel into the user's cache, if nobody else has done so meanwhile. It is told of on standard error,
    /// unless `quiet`.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. Nothing is left then, and the next try begins anew.
    pub fn fetch(quiet: bool) -> Result<Fetched, FetchError> {
        let cache = cache().ok_or(FetchError::NoCache)?;
        let noted = Noted::begin().map_err(FetchError::Host)?;
        let fetch = Fetch {
            cache,
            path: None,
            quiet,
            start: Instant::now(),
            waiting: Waiting::new(!quiet),
            stopped: &Noted::signal,
        };
        let fetched = fetch.run();
        fetch.waiting.finish();
        drop(noted);
        match (Noted::signal(), fetched) {
            (Some(signal), _) | (None, Err(Stop::Signal(signal))) => {
                Ok(Fetched::Ended(signalled(signal)))
            }
            (None, Ok(kernel)) => Ok(Fetched::Kernel(kernel)),
            (None, Err(Stop::Error(error))) => Err(error),
        }
    }
}

/// Why it does not go on.
enum Stop {
    Error(FetchError),
    Signal(i32),
}

impl<T: Into<FetchError>> From<T> for Stop {
    fn from(error: T) -> Self {
        Self::Error(error.into())
    }
}

struct Fetch<'a> {
    /// Where `boot` and `lib` shall be.
    cache: PathBuf,
    /// Where programs are looked for instead of in PATH.
    path: Option<OsString>,
    quiet: bool,
    start: Instant,
    waiting: Waiting,
    /// The signal that ends it, if one came.
    stopped: &'a dyn Fn() -> Option<i32>,
}

impl Fetch<'_> {
    fn run(&self) -> Result<Kernel, Stop> {
        fs::create_dir_all(&self.cache).map_err(|reason| self.unwritable(reason))?;
        let lock = File::open(&self.cache).map_err(|reason| self.unwritable(reason))?;
        self.lock(&lock)?;
        if let Some(kernel) = latest(&self.cache.join(BOOT)) {
            return Ok(kernel);
        }
        for part in [BOOT, LIBRARIES[0], KEPT] {
            let folder = self.cache.join(part);
            if folder.symlink_metadata().is_ok() && !folder.is_dir() {
                return Err(
                    FetchError::Folder { folder, reason: ErrorKind::NotADirectory.into() }.into()
                );
            }
        }
        let folder = self.cache.join(UNFINISHED);
        remove(&folder)
            .and_then(|()| fs::create_dir(&folder))
            .map_err(|reason| self.unwritable(reason))?;
        let kernel = self.fetch(&folder);
        // What cannot be removed now is removed the next time.
        let _ = remove(&folder);
        kernel
    }

    /// Waits for another that fetches.
    fn lock(&self, folder: &File) -> Result<(), Stop> {
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(reason)) => return Err(self.unwritable(reason).into()),
            }
            self.go_on()?;
            self.tell("another cloister fetches a kernel");
            thread::sleep(POLL);
        }
    }

    /// Fetches packages into a folder, unpacks them there, and gives the kernel its place.
    fn fetch(&self, folder: &Path) -> Result<Kernel, Stop> {
        let programs = Programs { fetch: self, folder };
        // It prints its help, rather than to be found missing after a download.
        programs.run("dpkg-deb", "run", &["-?".as_ref()], &looking)?;
        let packages = programs.packages()?;
        let name = packages[0].name.as_str();
        let sum =
            |bytes: fn(&Package) -> u64| packages.iter().map(bytes).fold(0, u64::saturating_add);
        let size = sum(|package| package.size);
        self.check_room(name, size.saturating_add(sum(|package| package.unpacked)))?;
        if !self.quiet && !self.waiting.shows() {
            complain(&format!("fetching {name} ({})", Size(size)));
        }
        let names = packages.iter().map(|package| package.name.as_str());
        let arguments: Vec<&str> = iter::once("download").chain(names).collect();
        programs.apt("apt-get", &format!("download {name}"), &arguments, &|| {
            let lengths = archives(folder).filter_map(|path| Some(path.metadata().ok()?.len()));
            format!("fetching {name}: {} of {}", Size(lengths.sum()), Size(size))
        })?;
        let root = folder.join("root");
        for archive in archives(folder) {
            let arguments = ["-x".as_ref(), archive.as_os_str(), root.as_os_str()];
            let doing = || format!("unpacking {name}");
            programs.run("dpkg-deb", &format!("unpack {name}"), &arguments, &doing)?;
        }
        let placed = place(&root, &self.cache).map_err(|reason| self.unwritable(reason))?;
        placed.ok_or_else(|| FetchError::NoKernel(name.to_owned()).into())
    }

    fn check_room(&self, package: &str, bytes: u64) -> Result<(), FetchError> {
        // A host that does not tell has its programs find out.
        let Ok(found) = statvfs(&self.cache) else { return Ok(()) };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free >= bytes {
            return Ok(());
        }
        let (package, folder) = (package.to_owned(), self.cache.clone());
        Err(FetchError::NoRoom { package, wanted: Size(bytes), folder, free: Size(free) })
    }

    fn tell(&self, doing: &str) {
        self.waiting.tick(doing, self.start.elapsed());
    }

    fn go_on(&self) -> Result<(), Stop> {
        (self.stopped)().map_or(Ok(()), |signal| Err(Stop::Signal(signal)))
    }

    fn unwritable(&self, reason: io::Error) -> FetchError {
        FetchError::Folder { folder: self.cache.clone(), reason }
    }
}

/// The host's programs, which run in a folder.
struct Programs<'a> {
    fetch: &'a Fetch<'a>,
    folder: &'a Path,
}

impl Programs<'_> {
    /// The packages to fetch: that of the kernel, and that of its modules if it is another.
    fn packages(&self) -> Result<Vec<Package>, Stop> {
        let newest = self.known(&NEWEST)?;
        let image =
            newest.iter().find_map(|package| package.needs(IMAGE)).ok_or(FetchError::Unknown)?;
        let image = self.known(&[image])?.into_iter().next().ok_or(FetchError::Unknown)?;
        let modules = image.needs(MODULES).map(|modules| self.known(&[modules])).transpose()?;
        Ok(iter::once(image).chain(modules.into_iter().flatten()).collect())
    }

    /// What apt knows of packages with these names.
    fn known(&self, names: &[&str]) -> Result<Vec<Package>, Stop> {
        let arguments = [&["show"], names].concat();
        match self.apt("apt-cache", "show packages", &arguments, &looking) {
            Ok(text) => Ok(Package::all(&text)),
            // It fails if it knows none of them.
            Err(Stop::Error(FetchError::Failed { .. })) => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }

    fn apt(
        &self,
        program: &'static str,
        what: &str,
        arguments: &[&str],
        doing: &dyn Fn() -> String,
    ) -> Result<String, Stop> {
        let arguments: Vec<&OsStr> = OPTIONS.iter().chain(arguments).map(OsStr::new).collect();
        self.run(program, what, &arguments, doing)
    }

    /// Runs a program and returns what it writes. `what` is for the error, and `doing` says meanwhile what is being
    /// done.
    fn run(
        &self,
        program: &'static str,
        what: &str,
        arguments: &[&OsStr],
        doing: &dyn Fn() -> String,
    ) -> Result<String, Stop> {
        // Files, since a pipe is to be read by a thread, and this process may have one only.
        let [output, errors] = ["output", "errors"].map(|name| self.folder.join(name));
        let create = |path| File::create(path).map_err(|reason| self.fetch.unwritable(reason));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(create(&output)?).stderr(create(&errors)?);
        if let Some(path) = &self.fetch.path {
            command.env("PATH", path);
        }
        let failed = |said| FetchError::Failed { program, what: what.to_owned(), said };
        // The terminal's signals come to this process alone, which ends the program and all that it has started.
        let child = command.process_group(0).spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => FetchError::NoProgram(program),
            _ => failed(error.to_string()),
        })?;
        let succeeded = self.wait(child, doing)?;
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if succeeded { Ok(text(output)) } else { Err(failed(reason(&text(errors))).into()) }
    }

    /// Whether a program succeeded, once it has ended.
    fn wait(&self, mut child: Child, doing: &dyn Fn() -> String) -> Result<bool, Stop> {
        loop {
            if let Some(status) = child.try_wait().map_err(FetchError::Host)? {
                return Ok(status.success());
            }
            if let Err(stop) = self.fetch.go_on() {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    // It fails if they have ended.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                return Err(stop);
            }
            self.fetch.tell(&doing());
            thread::sleep(POLL);
        }
    }
}

fn looking() -> String {
    "looking for a kernel".into()
}

/// The line that tells most: apt's first error, or else the first that a program wrote.
fn reason(errors: &str) -> String {
    let lines = || errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find_map(|line| line.strip_prefix("E: ")).or_else(|| lines().next());
    error.unwrap_or("it does not say why").to_owned()
}

/// Packages' files in a folder, also those that are not whole yet.
fn archives(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
}

/// Moves the kernel of an unpacked package, and its modules before it, to where they are found.
fn place(root: &Path, cache: &Path) -> io::Result<Option<Kernel>> {
    let Some(image) = images(&root.join(BOOT)).next() else { return Ok(None) };
    let Some((name, release)) = image.file_name().and_then(|name| Some((name, release(name)?)))
    else {
        return Ok(None);
    };
    let modules = LIBRARIES.map(|library| root.join(library).join("modules").join(&release));
    let Some(modules) = modules.iter().find(|modules| modules.is_dir()) else { return Ok(None) };
    let (boot, kept) = (cache.join(BOOT), cache.join(KEPT));
    fs::create_dir_all(&boot)?;
    fs::create_dir_all(&kept)?;
    // What is there belongs to no kernel that can be read.
    remove(&kept.join(&release))?;
    fs::rename(modules, kept.join(&release))?;
    let placed = boot.join(name);
    fs::rename(&image, &placed)?;
    Ok(Some(Kernel::at(&placed)))
}

/// Removes a folder that may be there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
