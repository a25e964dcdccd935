//! The options of `cloister exec` and `cloister shell`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::Args;
use thiserror::Error;

use super::values::{ValueError, on_or_off, parse_accelerator};
use super::wording::ExecWording;
use crate::attestation::Certified;
use crate::complaint::{Setting, Wording as _};
use crate::config::{
    BootConfig, ConfigError, CpusError, DiskConfig, EpcConfig, MachineConfig, Translate, parse_cpus,
};
use crate::cpu_flags::{CpuConfig, CpuFlagError};
use crate::exec::{ExecConfig, Kernel, KernelConsole, VisibleFolder};
use crate::files::is_same;
use crate::platform_dir::own_files;
use crate::qemu::{self, QemuError};
use crate::size::{SizeError, parse_ram_size, parse_size};

/// Variables that the command gets without being asked for.
const PASSED: [&str; 9] =
    ["PATH", "TERM", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "COLORTERM"];
/// The beginning of others.
const PASSED_START: &str = "LC_";

/// Folders that the machine has of its own, so that the host's are not seen.
const HIDDEN: [&str; 5] = ["/tmp", "/run", "/dev", "/proc", "/sys"];
/// Those that its kernel makes.
const OF_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// What is a folder as others are, among them.
const SHARED_MEMORY: &str = "/dev/shm";

/// Options of the machine and of what the command sees of the host.
#[derive(Args, Debug)]
pub(crate) struct MachineArgs {
    /// Kernel, with its modules beside it as in a package [default: the latest of the user's cache or /boot]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Folder that is the root, or image of a disk that has it, raw, qcow2 or vmdk; read-only under an overlay in RAM
    #[arg(long, value_name = "DIR|IMAGE", default_value = "/")]
    root: PathBuf,
    /// Show the command nothing of the host but what --root, --rw and --ro name
    #[arg(long)]
    no_host: bool,
    /// Folder of the host that the command can change; can be given several times
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
    /// Folder of the host that the command can read; can be given several times
    #[arg(long, value_name = "DIR")]
    ro: Vec<PathBuf>,
    /// Variable of the command: of this value, or of that which it has here; can be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Give the command all variables
    #[arg(long)]
    env_all: bool,
    /// Run the command as root, or as this user and group [default: as who runs cloister]
    #[arg(long, value_name = "root|UID[:GID]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Network device; with user the command finds it set up; can be given several times
    #[arg(
        long,
        value_name = "user|tap=NAME|stream=SOCK[,KEY=VALUE]...",
        allow_hyphen_values = true
    )]
    net: Vec<String>,
    /// Virtual EPC
    #[arg(long, value_name = "SIZE", default_value = "64M", allow_hyphen_values = true)]
    epc: String,
    /// RAM, as a number and K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1G", allow_hyphen_values = true)]
    memory: String,
    /// Number of processors
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    cpus: String,
    /// SGX as CPUID reports it: host, then flags such as -sgx2 or +sgx-edeccssa
    #[arg(
        long,
        value_name = "host[,+FLAG|,-FLAG]...",
        default_value = "host",
        allow_hyphen_values = true
    )]
    cpu: String,
    /// What executes the processors: this program (soft), the host's KVM (kvm), or KVM where it does well
    /// (auto; see cloister info)
    #[arg(long, value_name = "auto|kvm|soft", default_value = "soft")]
    accel: String,
    /// Directory of the SGX platform whose keys enclaves get, created on first use
    /// [default: a platform that ends with the machine]
    #[arg(long, value_name = "DIR")]
    platform: Option<PathBuf>,
    /// Serve Intel's AESM socket to the command, with quotes under the platform's development root
    #[arg(long, requires = "platform")]
    attest: bool,
    /// Directory of the platform whose keys certify quotes, as for cloister pki [default: that of --platform]
    #[arg(long, value_name = "DIR", requires = "attest")]
    authority: Option<PathBuf>,
    /// Give the certificates of quotes the names that Intel's have, as cloister pki did
    #[arg(long, requires = "attest")]
    intel_names: bool,
    /// Where the kernel's console goes: a file, or - for standard error
    /// [default: its last lines are shown if the machine fails]
    #[arg(long, value_name = "FILE|-", allow_hyphen_values = true)]
    console: Option<PathBuf>,
    /// End the command, and the machine, after so many seconds, with exit code 124; the boot does not count
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<String>,
    /// Give the command a terminal [default: where standard input and output are one]
    #[arg(short = 't', long, overrides_with = "no_tty")]
    tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Confine the processes to the system calls they need: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
}

/// Options of `cloister exec`.
#[derive(Args, Debug)]
pub struct ExecArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options of `cloister shell`.
#[derive(Args, Debug)]
pub struct ShellArgs {
    #[command(flatten)]
    machine: MachineArgs,
}

/// Why options cannot be used. Each message is one line that names the option and the fix.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ExecArgsError {
    /// `--memory` is not a size.
    #[error("--memory: {0}")]
    Memory(SizeError),
    /// `--epc` is not a size.
    #[error("--epc: {0}")]
    Epc(SizeError),
    /// `--cpus` is not a number of processors.
    #[error("--cpus: {0}")]
    Cpus(CpusError),
    /// `--cpu` is not the model and flags.
    #[error("--cpu: {0}")]
    Cpu(CpuFlagError),
    /// `--user` is neither root nor numbers.
    #[error("--user: {0:?} is not a user: write root, UID or UID:GID")]
    User(String),
    /// `--timeout` is not a time.
    #[error("--timeout: {0:?} is not a time: write a number of seconds, such as 60")]
    Timeout(String),
    /// `--env` without a name.
    #[error("--env: {0:?} names no variable: write NAME or NAME=VALUE")]
    Variable(OsString),
    /// `--env` of a variable that is not set.
    #[error("--env: {0:?} is not set here: write NAME=VALUE")]
    NotSet(OsString),
    /// `--console` would write over what the machine is made of.
    #[error("--console: {} is the kernel, the root or a file of the platform's: name another", .0.display())]
    Console(PathBuf),
    /// `--no-host` leaves no root.
    #[error("--no-host: it leaves no root: add --root DIR or --root IMAGE")]
    NoRoot,
    /// `--rw` or `--ro` without a folder.
    #[error("{option}: there is no folder {path}: name one that is there", path = .path.display())]
    Folder {
        /// Which of them.
        option: &'static str,
        /// What is not there.
        path: PathBuf,
    },
    /// `--rw` or `--ro` of what the machine has of its own.
    #[error("{option}: {path} is the machine's own: name another folder", path = .path.display())]
    Own {
        /// Which of them.
        option: &'static str,
        /// Which folder.
        path: PathBuf,
    },
    /// A folder that is to be changed and not to be.
    #[error("--rw: {} is given to --ro too: leave one of them out", .0.display())]
    Contradiction(PathBuf),
    /// `--sandbox` is neither on nor off.
    #[error("--sandbox: it is on or off, not {0:?}: leave it out, and it is on")]
    Sandbox(String),
    /// There is no working directory.
    #[error("the current folder is gone: change to one that is there")]
    NoDirectory,
    /// A value that is as for `cloister run`.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A value that is as in QEMU.
    #[error(transparent)]
    Shared(#[from] QemuError),
    /// What the options say together.
    #[error("{}", ExecWording.line(&.0.complaint()))]
    Config(ConfigError),
}

impl ExecArgs {
    /// What these options ask for.
    ///
    /// # Errors
    ///
    /// [`ExecArgsError`] for the first value that cannot be used.
    pub fn into_config(self) -> Result<ExecConfig, ExecArgsError> {
        self.machine.into_config(self.command)
    }
}

impl ShellArgs {
    /// What these options ask for: the shell of the user.
    ///
    /// # Errors
    ///
    /// [`ExecArgsError`] for the first value that cannot be used.
    pub fn into_config(self) -> Result<ExecConfig, ExecArgsError> {
        let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
        self.machine.into_config(vec![shell.unwrap_or_else(|| "/bin/sh".into())])
    }
}

impl MachineArgs {
    fn into_config(self, command: Vec<OsString>) -> Result<ExecConfig, ExecArgsError> {
        if self.no_host && self.root == Path::new("/") {
            return Err(ExecArgsError::NoRoot);
        }
        let directory = match self.no_host {
            true => PathBuf::from("/"),
            false => env::current_dir().map_err(|_| ExecArgsError::NoDirectory)?,
        };
        // A folder that is not there is found to be missing later.
        let image = self.root.is_file().then(|| DiskConfig::new(&self.root));
        // What the machine writes to it, such as a journal that it replays, goes elsewhere.
        let image = image.map(|image| DiskConfig { snapshot: true, ..image });
        let epc = EpcConfig {
            id: "epc0".into(),
            size: parse_size(&self.epc).map_err(ExecArgsError::Epc)?,
            prealloc: false,
            node: 0,
            host_node: 0,
        };
        let machine = MachineConfig {
            name: None,
            // Replaced by the kernel that is found, with an initramfs that is made for it.
            boot: BootConfig::Kernel {
                kernel: PathBuf::new(),
                initrd: None,
                cmdline: String::new(),
            },
            ram: parse_ram_size(&self.memory).map_err(ExecArgsError::Memory)?,
            cpus: parse_cpus(&self.cpus).map_err(ExecArgsError::Cpus)?,
            nodes: Vec::new(),
            disks: image.iter().cloned().collect(),
            epc: vec![epc],
            epc_quota: None,
            epc_reserve: None,
            cpu: CpuConfig::parse(&self.cpu).map_err(ExecArgsError::Cpu)?,
            launch_key: None,
            platform: self.platform.clone(),
            no_reboot: true,
            accelerator: parse_accelerator(&self.accel)?,
            translate: Translate::On,
        };
        machine.layout().map_err(ExecArgsError::Config)?;
        let console = match &self.console {
            None => KernelConsole::Kept,
            Some(path) if path.as_os_str() == "-" => KernelConsole::Errors,
            Some(path) => {
                let platforms = [&self.platform, &self.authority].into_iter().flatten();
                let files = platforms.flat_map(|directory| own_files(directory));
                let mut files = files.chain(self.kernel.clone()).chain([self.root.clone()]);
                if files.any(|file| is_same(path, &file)) {
                    return Err(ExecArgsError::Console(path.clone()));
                }
                KernelConsole::File(path.clone())
            }
        };
        Ok(ExecConfig {
            attest: self.attested(),
            command,
            machine,
            folders: self.folders(&directory)?,
            networks: qemu::networks(ExecWording.name(Setting::Network), &self.net)?,
            environment: self.environment()?,
            user: self.user.as_deref().map(parse_user).transpose()?,
            terminal: match (self.tty, self.no_tty) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            console,
            timeout: self.timeout.as_deref().map(parse_timeout).transpose()?,
            quiet: self.quiet,
            sandbox: on_or_off(&self.sandbox)
                .ok_or_else(|| ExecArgsError::Sandbox(self.sandbox.clone()))?,
            kernel: self.kernel.as_deref().map(Kernel::at).or_else(Kernel::find),
            root: image.is_none().then_some(self.root),
            directory,
            container: None,
        })
    }

    /// Whose REPORTs are quoted.
    fn attested(&self) -> Option<Certified> {
        let platform = self.platform.clone().filter(|_| self.attest)?;
        let (authority, intel_names) = (self.authority.clone(), self.intel_names);
        Some(Certified { platform, authority, intel_names })
    }

    /// The current folder and those that are named. The current one can be changed, unless it is the root,
    /// or the home, of which that would be too much: there changes stay in the machine.
    fn folders(&self, directory: &Path) -> Result<Vec<VisibleFolder>, ExecArgsError> {
        let mut folders = Vec::new();
        let home = env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
        let is_home = !self.no_host && home.is_some_and(|home| home == directory);
        // What the machine has of its own is in the place of the host's there.
        let is_hidden = HIDDEN.iter().any(|folder| directory.starts_with(folder));
        if is_home && !self.quiet && !self.rw.iter().any(|path| path == directory) {
            let what =
                if is_hidden { "it can only be read" } else { "changes to it are lost with it" };
            tracing::warn!(
                "the current folder is the home: in the machine {what}: change to a folder below it, or \
                 write --rw ."
            );
        }
        if !is_own(directory) && (!is_home || is_hidden) {
            let (path, place) = (directory.to_owned(), directory.to_owned());
            folders.push(VisibleFolder { path, place, writable: !is_home });
        }
        for (option, paths, writable) in [("--ro", &self.ro, false), ("--rw", &self.rw, true)] {
            for named in paths {
                let absolute = fs::canonicalize(named).ok().filter(|path| path.is_dir());
                let missing = || ExecArgsError::Folder { option, path: named.clone() };
                let path = absolute.ok_or_else(missing)?;
                if is_own(&path) {
                    return Err(ExecArgsError::Own { option, path });
                }
                let is_same = |other: &PathBuf| fs::canonicalize(other).is_ok_and(|at| at == path);
                if writable && self.ro.iter().any(is_same) {
                    return Err(ExecArgsError::Contradiction(named.clone()));
                }
                // The machine need not have the link that it was named by.
                for place in [named_place(named), Some(path.clone())].into_iter().flatten() {
                    folders.retain(|folder| folder.place != place);
                    folders.push(VisibleFolder { path: path.clone(), place, writable });
                }
            }
        }
        // Those of others' insides are bound after them.
        folders.sort_by_key(|folder| folder.place.components().count());
        Ok(folders)
    }

    fn environment(&self) -> Result<Vec<(OsString, OsString)>, ExecArgsError> {
        let is_passed = |name: &OsStr| {
            self.env_all
                || PASSED.iter().any(|passed| name == *passed)
                || name.as_bytes().starts_with(PASSED_START.as_bytes())
        };
        let mut environment: Vec<_> = env::vars_os().filter(|(name, _)| is_passed(name)).collect();
        for text in &self.env {
            let bytes = text.as_bytes();
            let end = bytes.iter().position(|&byte| byte == b'=');
            let name = OsStr::from_bytes(&bytes[..end.unwrap_or(bytes.len())]);
            if name.is_empty() {
                return Err(ExecArgsError::Variable(text.clone()));
            }
            let value = match end {
                Some(end) => OsStr::from_bytes(&bytes[end + 1..]).to_owned(),
                None => env::var_os(name).ok_or_else(|| ExecArgsError::NotSet(name.to_owned()))?,
            };
            environment.retain(|(known, _)| known != name);
            environment.push((name.to_owned(), value));
        }
        Ok(environment)
    }
}

/// The absolute path of what a user has named, links and all. With a step upwards, which links make lead elsewhere, only a link
/// at the end is kept. None among the kernel's files, whose links lead elsewhere for each process.
fn named_place(named: &Path) -> Option<PathBuf> {
    let has_steps_up = named.components().any(|part| part == Component::ParentDir);
    let place = match (has_steps_up, named.parent(), named.file_name()) {
        (false, ..) => std::path::absolute(named).ok()?,
        (true, Some(parent), Some(name)) => fs::canonicalize(parent).ok()?.join(name),
        _ => return None,
    };
    (!is_own(&place)).then_some(place)
}

/// Whether a folder is one that no machine can have from the host: its root, and what its kernel makes.
fn is_own(path: &Path) -> bool {
    let is_kernels = OF_KERNEL.iter().any(|folder| path.starts_with(folder));
    path == Path::new("/") || (is_kernels && !path.starts_with(SHARED_MEMORY))
}

fn parse_user(text: &str) -> Result<(u32, u32), ExecArgsError> {
    let wrong = || ExecArgsError::User(text.to_owned());
    if text == "root" {
        return Ok((0, 0));
    }
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    // All ones mean no change to the kernel.
    let id = |text: &str| text.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(wrong);
    Ok((id(user)?, id(group)?))
}

fn parse_timeout(text: &str) -> Result<Duration, ExecArgsError> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| ExecArgsError::Timeout(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Refusal, parse};

    fn exec(line: &str) -> Result<ExecConfig, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Exec(args)) => args.into_config().map_err(|error| error.to_string()),
            Ok(Command::Shell(args)) => args.into_config().map_err(|error| error.to_string()),
            Err(Refusal::Wrong(line)) => Err(line),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_after_the_dashes_are_the_commands() {
        let config =
            exec("cloister exec --epc 32M --user 7:8 --env A=b=c -- ls --epc -- x").unwrap();

        assert_eq!(config.command, ["ls", "--epc", "--", "x"]);
        assert_eq!(config.machine.epc[0].size, 32 << 20);
        assert_eq!(config.user, Some((7, 8)));
        assert!(config.environment.contains(&("A".into(), "b=c".into())));
        let here = env::current_dir().unwrap();
        assert_eq!((&config.directory, &config.folders[0].path), (&here, &here));
    }

    #[test]
    fn without_the_host_there_is_no_current_folder() {
        let image = env::current_exe().unwrap();

        let folder = exec("cloister exec --no-host --root /usr --ro /etc -- true").unwrap();
        let disk = exec(&format!("cloister exec --root {} -- true", image.display())).unwrap();

        assert_eq!((&folder.directory, folder.root), (&PathBuf::from("/"), Some("/usr".into())));
        let etc = VisibleFolder { path: "/etc".into(), place: "/etc".into(), writable: false };
        assert_eq!((folder.folders, folder.machine.disks), (vec![etc], vec![]));
        assert_eq!((disk.root, disk.folders.len()), (None, 1));
        assert_eq!(disk.machine.disks, [DiskConfig { snapshot: true, ..DiskConfig::new(image) }]);
    }

    #[test]
    fn a_folder_is_where_it_was_named_and_where_it_is() {
        let scratch = env::temp_dir().join(format!("cloister-exec-{}", std::process::id()));
        let (folder, link) = (scratch.join("folder"), scratch.join("link"));
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("folder", &link).unwrap();
        let folder = folder.canonicalize().unwrap();

        let line = format!("cloister exec --no-host --root /usr --rw {} -- true", link.display());
        let found = exec(&line).unwrap().folders;
        let upwards = exec(&line.replace("link", "folder/../folder")).unwrap().folders;
        let upwards_to_link = exec(&line.replace("link", "folder/../link")).unwrap().folders;
        fs::remove_dir_all(scratch).unwrap();

        let of = |place| VisibleFolder { path: folder.clone(), place, writable: true };
        assert_eq!(found, [of(link), of(folder.clone())]);
        assert_eq!(upwards, [of(folder.clone())]);
        assert_eq!(upwards_to_link, found);
        let here = env::current_dir().unwrap();
        let kernels = exec("cloister exec --rw /proc/self/cwd -- true").unwrap().folders;
        assert_eq!(kernels, [VisibleFolder { path: here.clone(), place: here, writable: true }]);
    }

    #[test]
    fn wrong_values_are_one_line_that_names_the_option_and_the_fix() {
        for (options, expected) in [
            ("--epc x", "--epc: \"x\" is not a size"),
            ("--memory 1K", "--memory: 1K"),
            ("--cpus 0", "--cpus: \"0\" is not a number of processors"),
            ("--cpu host,-sgx", "--cpu: -sgx takes SGX away and --epc gives it EPC"),
            ("--user alice", "--user: \"alice\" is not a user: write root, UID or UID:GID"),
            ("--user -1", "--user: \"-1\" is not a user"),
            ("--accel hvf", "--accel: it is auto, kvm or soft, not \"hvf\""),
            ("--timeout never", "--timeout: \"never\" is not a time: write a number"),
            ("--timeout 0", "--timeout: \"0\" is not a time"),
            ("--env =x", "--env: \"=x\" names no variable: write NAME or NAME=VALUE"),
            ("--env CLOISTER_NOT_SET", "--env: \"CLOISTER_NOT_SET\" is not set here"),
            ("--rw /nonexistent", "--rw: there is no folder /nonexistent: name one"),
            ("--ro /etc/passwd", "--ro: there is no folder /etc/passwd: name one"),
            ("--ro /dev", "--ro: /dev is the machine's own: name another folder"),
            ("--rw /", "--rw: / is the machine's own: name another folder"),
            ("--rw /etc --ro /etc/.", "--rw: /etc is given to --ro too: leave one of them out"),
            ("--net tun", "--net: \"tun\" is not a network: write user, tap=NAME or stream=SOCKET"),
            ("--sandbox maybe", "--sandbox: it is on or off, not \"maybe\""),
            ("--no-host", "--no-host: it leaves no root: add --root DIR or --root IMAGE"),
            (
                "--attest",
                "the following required arguments were not provided: --platform <DIR>: see",
            ),
            (
                "--authority a",
                "the following required arguments were not provided: --platform <DIR> --attest: see",
            ),
            (
                "--intel-names",
                "the following required arguments were not provided: --platform <DIR> --attest: see",
            ),
        ] {
            let line = exec(&format!("cloister exec {options} -- true")).unwrap_err();

            assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
        }
        assert!(exec("cloister exec").is_err());
    }
}
