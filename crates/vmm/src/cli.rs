//! The command line: the commands of `cloister`, and the options of those that run machines.
//!
//! Option values are read as text and judged by [`values`] and [`config`](crate::config), so that
//! every wrong value is one line that names the option and the fix.

mod exec;
mod values;
mod wording;

pub use exec::{ExecArgs, ExecArgsError, ShellArgs};
pub use values::ValueError;
pub(crate) use values::{on_or_off, parse_accelerator};
pub use wording::{ExecWording, OciWording, RunWording};

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use thiserror::Error;

use crate::attestation::{AesmArgs, PccsArgs, PkiArgs, QuoteArgs, VerifyArgs};
use crate::complaint::{Setting, Wording as _};
use crate::config::{
    BootConfig, ConfigError, DEFAULT_CMDLINE, DiskConfig, EpcConfig, MachineConfig, parse_cpus,
    parse_launch_key,
};
use crate::cpu_flags::CpuConfig;
use crate::epc_command::EpcArgs;
use crate::gdb;
use crate::invocation::Invocation;
use crate::oci::OciArgs;
use crate::ps::PsArgs;
use crate::qemu::{self, QemuError};
use crate::qmp::Listen;
use crate::seed::SeedArgs;
use crate::shares::ShareConfig;
use crate::vsock::VsockConfig;
use values::{parse_epc_quota, parse_epc_reserve, parse_memory, parse_sandbox, parse_translate};

/// What `--version` says: which commit was built, and what the build has (+) and has not (-).
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("CLOISTER_COMMIT"),
    "\nfeatures: ",
    env!("CLOISTER_FEATURES")
);

/// A virtual machine monitor that gives its guests Intel SGX.
#[derive(Parser, Debug)]
#[command(name = "cloister", version, long_version = VERSION, arg_required_else_help = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `cloister` can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a virtual machine with its serial console on this terminal (Ctrl-A x quits)
    Run(Box<RunArgs>),
    /// Run a program of this host in a machine with SGX
    Exec(Box<ExecArgs>),
    /// Run a shell in a machine with SGX
    Shell(Box<ShellArgs>),
    /// Run a virtual machine described by QEMU's options (cloister qemu -help lists them)
    #[command(disable_help_flag = true)]
    Qemu {
        /// QEMU's options
        #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Run containers in machines with SGX, for podman and containerd (an OCI runtime)
    #[command(version)]
    Oci(OciArgs),
    /// List this user's running machines
    Ps(PsArgs),
    /// Show the EPC of running machines, refreshed every second (q quits)
    Epc(EpcArgs),
    /// Issue certificates and collateral for the quotes of a platform, under a development root
    Pki(PkiArgs),
    /// Make a quote of a REPORT
    Quote(QuoteArgs),
    /// Say whether a quote is to be relied on, and what it shows
    Verify(Box<VerifyArgs>),
    /// Serve certificates and collateral as Intel's caching service does (PCCS)
    Pccs(PccsArgs),
    /// Quote for the programs of a machine, as Intel's AESM service does
    Aesm(AesmArgs),
    /// Make a disk that tells cloud-init in a machine what to configure
    Seed(SeedArgs),
    /// Show what this host offers and which accelerator a machine would use
    Info,
}

/// Options of `cloister run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Kernel: a bzImage, or an ELF file with a PVH entry
    /// [default: what the first disk's boot loader configuration names]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line [default: console=ttyS0]
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    append: Option<String>,
    /// RAM, as a number and K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "512M", allow_hyphen_values = true)]
    memory: String,
    /// Number of processors
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    cpus: String,
    /// Disk image, raw, qcow2 or vmdk; can be given up to eight times
    #[arg(
        long,
        value_name = "FILE[,readonly][,format=raw|qcow2|vmdk][,snapshot=on][,backing=FILE[,backing-format=raw|qcow2|vmdk]]..."
    )]
    disk: Vec<String>,
    /// Folder of the host, which the guest mounts by its tag (mount -t virtiofs TAG PLACE)
    #[arg(long, value_name = "TAG=DIR[,readonly]", allow_hyphen_values = true)]
    share: Vec<String>,
    /// CID of the guest's sockets, and the host's Unix socket for them: SOCK reaches the guest's ports,
    /// SOCK_PORT is the host's
    #[arg(long, value_name = "cid=CID,path=SOCK", allow_hyphen_values = true)]
    vsock: Option<String>,
    /// Network device, on the host's network (user), an interface of the host (tap) or a Unix socket (stream);
    /// can be given several times
    #[arg(
        long,
        value_name = "user|tap=NAME|stream=SOCK[,KEY=VALUE]...",
        allow_hyphen_values = true
    )]
    net: Vec<String>,
    /// Section of virtual EPC; can be given up to eight times
    #[arg(long, value_name = "id=ID,size=SIZE[,prealloc]")]
    sgx_epc: Vec<String>,
    /// EPC of the platform that the guest can have at most [default: no limit]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    epc_quota: Option<String>,
    /// EPC of the platform that is kept for the guest [default: none]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    epc_reserve: Option<String>,
    /// SGX as CPUID reports it: host, then flags such as -sgx2 or +sgx-edeccssa
    #[arg(
        long,
        value_name = "host[,+FLAG|,-FLAG]...",
        default_value = "host",
        allow_hyphen_values = true
    )]
    cpu: String,
    /// Hash of the key that signs launch enclaves: the value after reset, which is fixed with
    /// --cpu host,-sgxlc [default: Intel's]
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    launch_key: Option<String>,
    /// Directory of the SGX platform whose keys enclaves get, created on first use
    /// [default: a platform that ends with the machine]
    #[arg(long, value_name = "DIR")]
    platform: Option<PathBuf>,
    /// Exit with code 2 when the guest resets, instead of booting it again
    #[arg(long)]
    no_reboot: bool,
    /// What executes the processors: this program (soft), the host's KVM (kvm), or KVM where it does well
    /// (auto; see cloister info)
    #[arg(long, value_name = "auto|kvm|soft", default_value = "soft")]
    accel: String,
    /// Translate guest code to code of the host: what runs often (on), all that runs twice (always),
    /// or nothing (off)
    #[arg(long, value_name = "on|off|always", default_value = "on")]
    translate: String,
    /// Confine the process to the system calls it needs: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
    /// Socket of a QMP monitor, through which programs control the machine
    #[arg(long, value_name = "unix:PATH[,wait=on|off]", allow_hyphen_values = true)]
    qmp: Vec<String>,
    /// Socket of a debugger, GDB's remote protocol; with wait=on the machine waits for it at its first
    /// instruction
    #[arg(
        long,
        value_name = "tcp:127.0.0.1:PORT|unix:PATH[,wait=on|off]",
        allow_hyphen_values = true
    )]
    gdb: Option<String>,
    /// Name of the machine, and of its process
    #[arg(long, value_name = "NAME[,process=NAME]", allow_hyphen_values = true)]
    name: Option<String>,
    /// Where the console is: stdio, null, file:PATH or unix:PATH,server=on[,wait=off]
    /// [default: stdio, or null with --daemonize]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    serial: Option<String>,
    /// File to write the process ID to
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Run in the background once the machine is ready
    #[arg(long)]
    daemonize: bool,
}

/// Why options of `cloister run` cannot be used. Each message is one line that names the option.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RunArgsError {
    /// A value of an option.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// What the options say together.
    #[error("{}", RunWording.line(&.0.complaint()))]
    Config(ConfigError),
    /// A value that is as in QEMU.
    #[error(transparent)]
    Shared(#[from] QemuError),
}

// Not by `#[from]`, which makes a source: the message has it already.
impl From<ConfigError> for RunArgsError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl RunArgs {
    /// What these options ask for.
    ///
    /// # Errors
    ///
    /// [`RunArgsError`] for the first value that cannot be used.
    pub fn into_invocation(self) -> Result<Invocation, RunArgsError> {
        let sandbox = parse_sandbox(&self.sandbox)?;
        let monitors: Result<_, _> = self.qmp.iter().map(|text| Listen::parse(text)).collect();
        let serial = qemu::serial(self.serial.as_deref(), self.daemonize, &RunWording);
        let name = RunWording.name(Setting::Name);
        let names = self.name.as_deref().map(|text| qemu::names(name, text)).transpose();
        let (name, process_name) = names?.unwrap_or_default();
        let gdb = self.gdb.as_deref().map(gdb::Address::parse).transpose();
        let (gdb, stopped) = gdb.map_err(ValueError::Gdb)?.unzip();
        let shares = ShareConfig::parse_all(&self.share).map_err(ValueError::Share)?;
        let networks = qemu::networks(RunWording.name(Setting::Network), &self.net);
        let vsock = self.vsock.as_deref().map(VsockConfig::parse).transpose();
        Ok(Invocation {
            serial: serial?,
            monitors: monitors.map_err(ValueError::Qmp)?,
            gdb,
            stopped: stopped.unwrap_or(false),
            shares,
            vsock: vsock.map_err(ValueError::Vsock)?,
            networks: networks?,
            sandbox,
            process_name,
            pidfile: self.pidfile.clone(),
            daemonize: self.daemonize,
            machine: MachineConfig { name, ..self.into_config()? },
        })
    }

    /// The machine that these options describe.
    ///
    /// # Errors
    ///
    /// [`RunArgsError`] for the first value that cannot be used.
    pub fn into_config(self) -> Result<MachineConfig, RunArgsError> {
        let disks: Result<_, _> = self.disk.iter().map(|text| DiskConfig::parse(text)).collect();
        let epc: Result<_, _> = self.sgx_epc.iter().map(|text| EpcConfig::parse(text)).collect();
        let launch_key = self.launch_key.as_deref().map(parse_launch_key).transpose();
        Ok(MachineConfig {
            name: None,
            boot: BootConfig::from_options(self.kernel, self.initrd, self.append, DEFAULT_CMDLINE)?,
            ram: parse_memory(&self.memory)?,
            cpus: parse_cpus(&self.cpus).map_err(ValueError::Cpus)?,
            nodes: Vec::new(),
            disks: disks?,
            epc: epc?,
            epc_quota: self.epc_quota.as_deref().map(parse_epc_quota).transpose()?,
            epc_reserve: self.epc_reserve.as_deref().map(parse_epc_reserve).transpose()?,
            cpu: CpuConfig::parse(&self.cpu).map_err(ValueError::Cpu)?,
            launch_key: launch_key.map_err(ValueError::LaunchKey)?,
            platform: self.platform,
            no_reboot: self.no_reboot,
            accelerator: parse_accelerator(&self.accel)?,
            translate: parse_translate(&self.translate)?,
        })
    }
}

/// Why there is no command to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Help or the version was asked for: print it and succeed.
    Asked(String),
    /// The command line is wrong: one line that says how.
    Wrong(String),
}

/// Reads the command line. `args` begins with the program's name.
///
/// # Errors
///
/// [`Refusal`] when there is nothing to run.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let args: Vec<OsString> = args.into_iter().collect();
    Cli::try_parse_from(&args).map(|cli| cli.command).map_err(|error| {
        let text = error.render().to_string();
        let bundle = bundle(&args, &error);
        if !error.use_stderr() && bundle.is_none() {
            return Refusal::Asked(text);
        }
        let line = command_without_dashes(&args, &error)
            .or_else(|| in_words_of_qemu(&args, &error))
            .or_else(|| not_utf8(&args, &error))
            .unwrap_or_else(|| {
                let help = see_help(&args);
                match bundle {
                    Some(word) => format!("unexpected argument '{word}' found: {help}"),
                    None => one_line(&text, &help),
                }
            });
        Refusal::Wrong(line)
    })
}

/// The fix of a line that cannot be read: the help of the command that it names, or of all.
fn see_help(args: &[OsString]) -> String {
    let cli = Cli::command();
    let command = args.get(1).and_then(|word| cli.find_subcommand(word));
    match command {
        Some(command) => format!("see cloister {} --help", command.get_name()),
        None => "see cloister --help".to_owned(),
    }
}

/// What to say when the command of `cloister exec` is missing, or does not follow two dashes.
fn command_without_dashes(args: &[OsString], error: &clap::Error) -> Option<String> {
    if args.get(1)? != "exec" {
        return None;
    }
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word)))
            if !word.starts_with('-') =>
        {
            let before = "the command follows two dashes: write cloister exec [OPTIONS] --";
            Some(format!("{word}: {before} {word} ..."))
        }
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing)))
            if missing.iter().any(|argument| argument.contains("COMMAND")) =>
        {
            Some("there is no command: write cloister exec [OPTIONS] -- COMMAND".to_owned())
        }
        _ => None,
    }
}

/// The word, such as -hda, that clap reads as options of one letter each, of which it did the first.
/// There are no such bundles here.
fn bundle<'a>(args: &'a [OsString], error: &clap::Error) -> Option<&'a str> {
    let first = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::DisplayHelp, _) => "-h",
        (ErrorKind::DisplayVersion, _) => "-V",
        (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) => option,
        _ => return None,
    };
    let words = || args.iter().skip(1).filter_map(|word| word.to_str());
    if words().any(|word| word == first || matches!(word, "--help" | "--version")) {
        return None;
    }
    words().find(|word| word.starts_with(first) && !word.starts_with("--"))
}

/// What to say of an option whose value is to be text and is none. Names of files may be any bytes.
fn not_utf8(args: &[OsString], error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidUtf8 {
        return None;
    }
    let cli = Cli::command();
    let command = cli.find_subcommand(args.get(1)?)?;
    let takes_text = |option: &str| {
        let mut known = command.get_arguments();
        known.any(|known| {
            known.get_long() == option.strip_prefix("--")
                && known.get_value_parser().type_id() == TypeId::of::<String>()
        })
    };
    let option = args.windows(2).filter(|pair| pair[1].to_str().is_none()).find_map(|pair| {
        let word = pair[1].to_string_lossy();
        let own = word.split_once('=').map(|(option, _)| option.to_owned());
        let before = pair[0].to_str().map(str::to_owned);
        own.into_iter().chain(before).find(|option| takes_text(option))
    })?;
    Some(format!("{option}: the value is not UTF-8: write it in UTF-8"))
}

/// What to say when `cloister run`, or `cloister` without a command, is told something in QEMU's
/// options.
fn in_words_of_qemu(args: &[OsString], error: &clap::Error) -> Option<String> {
    let is_run = match args.get(1)?.to_str()? {
        "run" => true,
        word if word.starts_with('-') => false,
        _ => return None,
    };
    let words = args[1..].iter().filter_map(|word| word.to_str());
    let options = words.filter_map(|word| word.strip_prefix('-'));
    let mut names = options.map(|option| option.split_once('=').map_or(option, |(name, _)| name));
    // -h is an option here too.
    let name = names.find(|&name| name != "h" && qemu::is_option(name));
    // QEMU takes two dashes, too; what is an option here as well has been taken.
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) => {
            option.strip_prefix("--").filter(|&name| qemu::is_option(name))
        }
        _ => None,
    };
    let dash = if name.is_some() { "-" } else { "--" };
    let name = name.or(unknown)?;
    let here = match qemu::option_of_run(name) {
        Some(option) if is_run => format!(", or {option} here"),
        _ => String::new(),
    };
    Some(format!("{dash}{name}: it is an option of QEMU: write cloister qemu -{name} ...{here}"))
}

/// Folds clap's message, which lists values on lines of their own and ends in usage, to one line,
/// which ends in `help`.
fn one_line(message: &str, help: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let first: Vec<&str> =
        message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let meant = message.lines().find_map(|line| {
        let (_, meant) =
            line.trim().strip_prefix("tip: ")?.split_once("similar argument exists: ")?;
        Some(format!("write {}, or ", meant.trim_matches('\'')))
    });
    format!("{}: {}{help}", first.join(" "), meant.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::chardev::Chardev;
    use crate::cpu_flags::CpuConfig;

    fn parse_line(line: &str) -> Result<Command, Refusal> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_of_qemu_are_pointed_to_where_they_are_taken() {
        for (line, expected) in [
            (
                "cloister run --kernel k -m 2G",
                "-m: it is an option of QEMU: write cloister qemu -m ..., or --memory here",
            ),
            (
                "cloister run -nographic",
                "-nographic: it is an option of QEMU: write cloister qemu -nographic ...",
            ),
            (
                "cloister run -kernel k",
                "-kernel: it is an option of QEMU: write cloister qemu -kernel ..., or --kernel here",
            ),
            (
                "cloister run -hda disk.img",
                "-hda: it is an option of QEMU: write cloister qemu -hda ...",
            ),
            (
                "cloister run -m=5",
                "-m: it is an option of QEMU: write cloister qemu -m ..., or --memory here",
            ),
            ("cloister -hda x", "-hda: it is an option of QEMU: write cloister qemu -hda ..."),
            ("cloister -m 512", "-m: it is an option of QEMU: write cloister qemu -m ..."),
            ("cloister run -hd x", "unexpected argument '-hd' found: see cloister run --help"),
            ("cloister run -h5", "unexpected argument '-h5' found: see cloister run --help"),
            ("cloister info -hda", "unexpected argument '-hda' found: see cloister info --help"),
            ("cloister -Version", "unexpected argument '-Version' found: see cloister --help"),
            ("cloister run -nonsense", "unexpected argument '-nonsense' found: see cloister"),
            (
                "cloister run --m -h",
                "--m: it is an option of QEMU: write cloister qemu -m ..., or --memory here",
            ),
            (
                "cloister run --smp 2",
                "--smp: it is an option of QEMU: write cloister qemu -smp ..., or",
            ),
            (
                "cloister run --drive x",
                "--drive: it is an option of QEMU: write cloister qemu -drive",
            ),
            (
                "cloister run --memroy 1G",
                "unexpected argument '--memroy' found: write --memory, or see cloister run --help",
            ),
            ("cloister run -Q", "unexpected argument '-Q' found: see cloister run --help"),
        ] {
            let Err(Refusal::Wrong(text)) = parse_line(line) else { panic!("{line}") };
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn help_and_version_are_told_where_they_are_asked_for_in_whole_words() {
        for line in ["-h", "--help", "-V", "--version", "help run", "run -h", "run --help"] {
            let told = parse_line(&format!("cloister {line}"));
            assert!(matches!(told, Err(Refusal::Asked(_))), "{line}: {told:?}");
        }
    }

    #[test]
    fn an_option_whose_text_is_not_utf_8_is_named() {
        for (words, option) in [
            ([&b"--kernel"[..], b"\xff", b"--name", b"a\xff"], "--name"),
            ([b"--cpus", b"1", b"--pidfile=\xff", b"--append=\xff"], "--append"),
        ] {
            let words = words.map(|word| OsString::from_vec(word.to_vec()));

            let refusal = parse(["cloister".into(), "run".into()].into_iter().chain(words));

            let line = format!("{option}: the value is not UTF-8: write it in UTF-8");
            assert_eq!(refusal.unwrap_err(), Refusal::Wrong(line));
        }
    }

    #[test]
    fn console_name_and_background_are_as_in_qemu() {
        let invocation = |line: &str| {
            let Ok(Command::Run(args)) = parse_line(line) else { panic!("{line}") };
            args.into_invocation().map_err(|error| error.to_string())
        };

        let plain = invocation("cloister run --kernel k").unwrap();
        let daemon = invocation(
            "cloister run --kernel k --daemonize --pidfile p --name web,process=w \
             --qmp unix:q,wait=on",
        )
        .unwrap();
        let file = invocation("cloister run --kernel k --serial file:log").unwrap();

        assert_eq!((plain.serial, plain.daemonize, plain.sandbox), (Chardev::Stdio, false, true));
        assert_eq!((daemon.serial, daemon.daemonize), (Chardev::Null, true));
        assert_eq!(daemon.pidfile, Some("p".into()));
        assert_eq!(
            (daemon.machine.name.as_deref(), daemon.process_name.as_deref()),
            (Some("web"), Some("w"))
        );
        assert_eq!(daemon.monitors, [Listen { path: "q".into(), wait: true }]);
        assert_eq!(file.serial, Chardev::File("log".into()));
        let debugged = invocation("cloister run --kernel k --gdb tcp::1234,wait=on").unwrap();
        let address = Some(gdb::Address::Tcp(([127, 0, 0, 1], 1234).into()));
        assert_eq!((debugged.gdb, debugged.stopped, plain.stopped), (address, true, false));
        for (line, expected) in [
            (
                "cloister run --kernel k --daemonize --serial stdio",
                "--serial: stdio is the terminal, which --daemonize leaves: \
                 write file:PATH, unix:PATH,server=on,wait=off or null",
            ),
            (
                "cloister run --kernel k --serial pty",
                "--serial: QEMU has pty here and Cloister does not: write stdio, mon:stdio, null, \
                 none, file:PATH or unix:PATH,server=on,wait=off",
            ),
            (
                "cloister run --kernel k --name a,wrong=b",
                "--name: there is no key wrong: the keys are guest, process, debug-threads",
            ),
        ] {
            assert_eq!(invocation(line).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_full_line_becomes_a_machine() {
        let command = parse_line(
            "cloister run --kernel k --initrd i --append console=hvc0 --memory 1G --cpus 4 \
             --disk a --disk b,readonly --sgx-epc id=epc0,size=64M --sgx-epc \
             id=epc1,size=32M,prealloc=on --epc-quota 80M --epc-reserve 32M --cpu host,-sgx2 \
             --platform p --no-reboot --accel kvm",
        );

        let Ok(Command::Run(args)) = command else { panic!("{command:?}") };
        assert_eq!(
            args.into_config().unwrap(),
            MachineConfig {
                name: None,
                boot: BootConfig::Kernel {
                    kernel: "k".into(),
                    initrd: Some("i".into()),
                    cmdline: "console=hvc0".into(),
                },
                ram: 1 << 30,
                cpus: 4,
                nodes: vec![],
                disks: vec![
                    DiskConfig::new("a"),
                    DiskConfig { readonly: true, ..DiskConfig::new("b") },
                ],
                epc: vec![
                    EpcConfig {
                        id: "epc0".into(),
                        size: 64 << 20,
                        prealloc: false,
                        node: 0,
                        host_node: 0
                    },
                    EpcConfig {
                        id: "epc1".into(),
                        size: 32 << 20,
                        prealloc: true,
                        node: 0,
                        host_node: 0
                    },
                ],
                epc_quota: Some(80 << 20),
                epc_reserve: Some(32 << 20),
                cpu: CpuConfig::parse("host,-sgx2").unwrap(),
                launch_key: None,
                platform: Some("p".into()),
                no_reboot: true,
                accelerator: crate::accel::Choice::Kvm,
                translate: crate::config::Translate::On,
            }
        );
    }

    #[test]
    fn words_after_qemu_are_kept_as_they_are() {
        for words in ["-help", "--help -version", "-m 2G --smp 4 disk -- -h", ""] {
            let Ok(Command::Qemu { words: kept }) = parse_line(&format!("cloister qemu {words}"))
            else {
                panic!("{words}")
            };
            assert_eq!(kept, words.split_whitespace().collect::<Vec<_>>());
        }
    }

    #[test]
    fn defaults_are_one_processor_and_512_mib() {
        let Ok(Command::Run(args)) = parse_line("cloister run --kernel k") else { panic!() };

        let config = args.into_config().unwrap();

        assert_eq!((config.cpus, config.ram), (1, crate::config::DEFAULT_RAM));
        assert_eq!(
            config.boot,
            BootConfig::Kernel {
                kernel: "k".into(),
                initrd: None,
                cmdline: "console=ttyS0".into(),
            }
        );
    }

    #[test]
    fn without_a_kernel_the_disk_is_booted_and_its_own_options_are_refused() {
        let into_config = |line: &str| {
            let Ok(Command::Run(args)) = parse_line(line) else { panic!("{line}") };
            args.into_config()
        };

        assert_eq!(into_config("cloister run --disk d").unwrap().boot, BootConfig::Disk);
        for (line, setting) in [
            ("cloister run --disk d --initrd i --append a", Setting::Initrd),
            ("cloister run --disk d --append a", Setting::CommandLine),
        ] {
            let error = ConfigError::WithoutKernel(setting);
            assert_eq!(into_config(line), Err(RunArgsError::Config(error)), "{line}");
        }
        assert_eq!(into_config("cloister run").unwrap().layout(), Err(ConfigError::NothingToBoot));
    }

    #[test]
    fn usage_errors_are_one_line() {
        for (line, expected) in [
            (
                "cloister run --kernel k --frobnicate",
                "unexpected argument '--frobnicate' found: see cloister run --help",
            ),
            ("cloister walk", "unrecognized subcommand 'walk': see cloister --help"),
            (
                "cloister run --kernel",
                "a value is required for '--kernel <FILE>' but none was supplied: \
                 see cloister run --help",
            ),
        ] {
            assert_eq!(parse_line(line).unwrap_err(), Refusal::Wrong(expected.into()), "{line}");
        }
    }

    #[test]
    fn the_command_of_exec_is_to_follow_two_dashes() {
        for (line, expected) in [
            (
                "cloister exec ls -l",
                "ls: the command follows two dashes: write cloister exec [OPTIONS] -- ls ...",
            ),
            (
                "cloister exec --epc 32M ./a b",
                "./a: the command follows two dashes: write cloister exec [OPTIONS] -- ./a ...",
            ),
            ("cloister exec", "there is no command: write cloister exec [OPTIONS] -- COMMAND"),
            (
                "cloister exec --attest -- true",
                "the following required arguments were not provided: --platform <DIR>: see cloister exec --help",
            ),
            ("cloister exec -- ", "there is no command: write cloister exec [OPTIONS] -- COMMAND"),
        ] {
            assert_eq!(parse_line(line).unwrap_err(), Refusal::Wrong(expected.into()), "{line}");
        }
    }

    #[test]
    fn a_command_is_needed() {
        let Err(Refusal::Wrong(line)) = parse_line("cloister") else { panic!() };

        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[test]
    fn help_and_version_are_answers_not_errors() {
        for line in ["cloister --help", "cloister --version", "cloister run --help"] {
            assert!(matches!(parse_line(line), Err(Refusal::Asked(_))), "{line}");
        }
    }

    #[test]
    fn the_version_names_the_commit_and_what_the_build_has() {
        let Err(Refusal::Asked(text)) = parse_line("cloister --version") else { panic!() };

        let lines: Vec<&str> = text.lines().collect();
        let [version, commit, features] = lines[..] else { panic!("{text}") };
        assert_eq!(version, concat!("cloister ", env!("CARGO_PKG_VERSION")));
        assert!(commit.starts_with("commit: ") && commit.len() > "commit: ".len(), "{commit}");
        assert!(features.contains("translator") && features.contains("exec"), "{features}");
        let short = Err(Refusal::Asked(format!("{version}\n")));
        assert_eq!(parse_line("cloister -V").map(drop), short);
    }
}
