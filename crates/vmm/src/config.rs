//! What a machine is made of, as the command line gives it and checked as a whole.

use std::path::PathBuf;

use thiserror::Error;

use crate::cpu_flags::{CpuConfig, CpuFlagError};
use crate::layout::{Layout, LayoutError};
use crate::nodes::{self, NodeConfig, NodeError};
use crate::platform_dir::unhex;
use crate::qmp::ListenError;
use crate::size::{SizeError, parse_ram_size, parse_size};

/// Most processors of one machine: what eight-bit APIC IDs and the MADT here describe.
pub const MAX_CPUS: u32 = 64;
/// RAM without `--memory`, in bytes.
pub const DEFAULT_RAM: u64 = 512 << 20;
/// Kernel command line without `--append`: the serial port is the console.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0";
/// Longest kernel command line that Linux takes on x86 (COMMAND_LINE_SIZE, less its NUL).
pub const MAX_CMDLINE: usize = 2047;
/// Most disks of one machine: each takes a virtio-mmio slot and an IOAPIC pin.
pub const MAX_DISKS: usize = 8;

/// A disk image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// The image file.
    pub path: PathBuf,
    /// The guest cannot write to it, and the file is opened for reading only.
    pub readonly: bool,
}

/// A section of virtual EPC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpcConfig {
    /// Its name, for messages and monitoring.
    pub id: String,
    /// Its size in bytes, a multiple of the page size.
    pub size: u64,
    /// Back every page before the guest starts, instead of on first touch.
    pub prealloc: bool,
    /// NUMA node of the guest that it is on.
    pub node: u32,
    /// Node of the platform that its pages are on.
    pub host_node: u32,
}

/// Where a machine's kernel comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootConfig {
    /// Files of the host.
    Kernel {
        /// Kernel: bzImage, or ELF with a PVH entry.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// The first disk: what its boot loader's configuration names, read again at each boot.
    Disk,
}

impl BootConfig {
    /// What the options for it say together, with `default` as the command line of a kernel that is
    /// given none. That a disk is there is judged with the rest of the machine.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WithoutKernel`].
    pub fn from_options(
        kernel: Option<PathBuf>,
        initrd: Option<PathBuf>,
        append: Option<String>,
        default: &str,
    ) -> Result<Self, ConfigError> {
        match (kernel, initrd, append) {
            (Some(kernel), initrd, append) => {
                let cmdline = append.unwrap_or_else(|| default.to_owned());
                Ok(Self::Kernel { kernel, initrd, cmdline })
            }
            (None, Some(_), _) => Err(ConfigError::WithoutKernel("--initrd")),
            (None, None, Some(_)) => Err(ConfigError::WithoutKernel("--append")),
            (None, None, None) => Ok(Self::Disk),
        }
    }
}

/// A machine to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Its name, for monitoring.
    pub name: Option<String>,
    /// What it boots.
    pub boot: BootConfig,
    /// RAM in bytes.
    pub ram: u64,
    /// Number of processors.
    pub cpus: u32,
    /// NUMA nodes; none stand for one that has everything.
    pub nodes: Vec<NodeConfig>,
    /// Disks, in the order of their virtio-mmio slots.
    pub disks: Vec<DiskConfig>,
    /// EPC sections, in address order.
    pub epc: Vec<EpcConfig>,
    /// What CPUID says of SGX, if there are EPC sections.
    pub cpu: CpuConfig,
    /// What IA32_SGXLEPUBKEYHASH0-3 hold after reset, instead of the hash of Intel's key.
    pub launch_key: Option<[u8; 32]>,
    /// Directory of the SGX platform; without one the machine has its own, which ends with it.
    pub platform: Option<PathBuf>,
    /// A reset ends the machine instead of starting the kernel again.
    pub no_reboot: bool,
}

/// A value of the command line that cannot be used. The message names the option and the mend.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// `--memory` is not a size, or not one that can be laid out.
    #[error("--memory: {0}")]
    Memory(SizeError),
    /// `--memory` cannot be laid out.
    #[error("--memory: {0}")]
    MemoryLayout(LayoutError),
    /// `--cpus` is not a number from 1 to [`MAX_CPUS`].
    #[error("--cpus: {0:?} is not a number of processors: write 1 to {MAX_CPUS}")]
    Cpus(String),
    /// Neither a kernel nor a disk that may have one.
    #[error("there is nothing to boot: add --kernel FILE, or --disk IMG with an installed system")]
    NothingToBoot,
    /// `--initrd` or `--append` without `--kernel`.
    #[error(
        "{0}: it goes with --kernel: add --kernel FILE, or leave {0} out to boot what the disk says"
    )]
    WithoutKernel(&'static str),
    /// More disks than slots.
    #[error("--disk: {0} disks are more than the {MAX_DISKS} that fit: leave some out")]
    TooManyDisks(usize),
    /// `--disk` without a file name.
    #[error("--disk: the name of the image file is missing: write FILE or FILE,readonly")]
    DiskPath,
    /// Part of a `--sgx-epc` is not `key=value`.
    #[error("--sgx-epc: {0:?} is not key=value: write id=epc0,size=64M[,prealloc=on]")]
    EpcSyntax(String),
    /// A key that `--sgx-epc` does not have.
    #[error("--sgx-epc: unknown key {0:?}: the keys are id, size and prealloc")]
    EpcKey(String),
    /// A key given twice in one `--sgx-epc`.
    #[error("--sgx-epc: the key {0} is given twice: leave one out")]
    EpcKeyTwice(String),
    /// A key that `--sgx-epc` cannot do without.
    #[error("--sgx-epc: the key {0} is missing: write id=epc0,size=64M[,prealloc=on]")]
    EpcKeyMissing(&'static str),
    /// `id=` is not an identifier.
    #[error("--sgx-epc: {0:?} is not an id: write a letter, then letters, digits, -, _ or .")]
    EpcId(String),
    /// Two sections of the same id.
    #[error("--sgx-epc: the id {0} is given to two sections: give each its own")]
    EpcIdTwice(String),
    /// `size=` is not a size.
    #[error("--sgx-epc: size: {0}")]
    EpcSize(SizeError),
    /// `prealloc=` is neither on nor off.
    #[error("--sgx-epc: prealloc is on or off, not {0:?}")]
    EpcPrealloc(String),
    /// The sections cannot be laid out.
    #[error("--sgx-epc: {0}")]
    EpcLayout(LayoutError),
    /// The NUMA nodes are not what the machine consists of.
    #[error("-numa: {0}")]
    Nodes(NodeError),
    /// `--cpu` is not the model and flags.
    #[error("--cpu: {0}")]
    Cpu(CpuFlagError),
    /// `--cpu` takes SGX away from a guest with EPC.
    #[error("--cpu: -sgx takes SGX away and --sgx-epc gives it EPC: leave one of them out")]
    EpcWithoutSgx,
    /// `--cpu` asks for SGX without EPC.
    #[error("--cpu: +{0} is for guests with SGX, which EPC makes: add --sgx-epc, or leave it out")]
    CpuWithoutEpc(&'static str),
    /// `--launch-key` is no hash.
    #[error("--launch-key: {0:?} is no SHA-256 of a key: write its 64 hexadecimal digits")]
    LaunchKey(String),
    /// `--sandbox` is neither on nor off.
    #[error("--sandbox: it is on or off, not {0:?}: leave it out, and it is on")]
    Sandbox(String),
    /// `--launch-key` without EPC.
    #[error(
        "--launch-key: it is for guests with SGX, which EPC makes: add --sgx-epc, or leave it out"
    )]
    LaunchKeyWithoutEpc,
    /// `--qmp` is no socket.
    #[error("--qmp: {0}")]
    Qmp(ListenError),
}

// Not by `#[from]`, which makes a source: the messages have it already.
impl From<NodeError> for ConfigError {
    fn from(error: NodeError) -> Self {
        Self::Nodes(error)
    }
}

impl From<CpuFlagError> for ConfigError {
    fn from(error: CpuFlagError) -> Self {
        Self::Cpu(error)
    }
}

impl From<ListenError> for ConfigError {
    fn from(error: ListenError) -> Self {
        Self::Qmp(error)
    }
}

/// Reads the value of `--memory`.
///
/// # Errors
///
/// [`ConfigError::Memory`].
pub fn parse_memory(text: &str) -> Result<u64, ConfigError> {
    parse_ram_size(text).map_err(ConfigError::Memory)
}

/// Reads the value of `--cpus`.
///
/// # Errors
///
/// [`ConfigError::Cpus`].
pub fn parse_cpus(text: &str) -> Result<u32, ConfigError> {
    text.parse()
        .ok()
        .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
        .ok_or_else(|| ConfigError::Cpus(text.to_owned()))
}

/// Reads the value of `--cpu`.
///
/// # Errors
///
/// [`ConfigError::Cpu`].
pub fn parse_cpu(text: &str) -> Result<CpuConfig, ConfigError> {
    Ok(CpuConfig::parse(text)?)
}

/// Reads the value of `--launch-key`: MRSIGNER of launch enclaves, in the order of its bytes.
///
/// # Errors
///
/// [`ConfigError::LaunchKey`].
pub fn parse_launch_key(text: &str) -> Result<[u8; 32], ConfigError> {
    unhex(text).ok_or_else(|| ConfigError::LaunchKey(text.to_owned()))
}

/// Reads the value of `--sandbox`.
///
/// # Errors
///
/// [`ConfigError::Sandbox`].
pub fn parse_sandbox(text: &str) -> Result<bool, ConfigError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ConfigError::Sandbox(text.to_owned())),
    }
}

impl DiskConfig {
    /// Reads the value of `--disk`: a file name, then perhaps `,readonly`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::DiskPath`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (path, readonly) = match text.strip_suffix(",readonly") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err(ConfigError::DiskPath);
        }
        Ok(Self { path: path.into(), readonly })
    }
}

impl EpcConfig {
    /// Reads the value of one `--sgx-epc`.
    ///
    /// # Errors
    ///
    /// The `Epc` variants of [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (mut id, mut size, mut prealloc) = (None, None, None);
        for pair in text.split(',') {
            // As in QEMU, what is on or off may be named alone.
            let (key, value) = match pair.split_once('=') {
                Some(pair) => pair,
                None if pair == "prealloc" => (pair, "on"),
                None => return Err(ConfigError::EpcSyntax(pair.to_owned())),
            };
            let slot = match key {
                "id" => &mut id,
                "size" => &mut size,
                "prealloc" => &mut prealloc,
                _ => return Err(ConfigError::EpcKey(key.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(ConfigError::EpcKeyTwice(key.to_owned()));
            }
        }
        let id = id.ok_or(ConfigError::EpcKeyMissing("id"))?;
        let size = size.ok_or(ConfigError::EpcKeyMissing("size"))?;
        if !is_identifier(id) {
            return Err(ConfigError::EpcId(id.to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            size: parse_size(size).map_err(ConfigError::EpcSize)?,
            prealloc: match prealloc {
                None | Some("off") => false,
                Some("on") => true,
                Some(other) => return Err(ConfigError::EpcPrealloc(other.to_owned())),
            },
            node: 0,
            host_node: 0,
        })
    }
}

/// QEMU's rule for ids, so that one command line can name the same sections to both.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl MachineConfig {
    /// What monitoring calls the machine.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or("guest")
    }

    /// Checks what concerns several values together, and lays out the address map.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the option at fault.
    pub fn layout(&self) -> Result<Layout, ConfigError> {
        if self.boot == BootConfig::Disk && self.disks.is_empty() {
            return Err(ConfigError::NothingToBoot);
        }
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::TooManyDisks(self.disks.len()));
        }
        for (index, section) in self.epc.iter().enumerate() {
            if self.epc[..index].iter().any(|earlier| earlier.id == section.id) {
                return Err(ConfigError::EpcIdTwice(section.id.clone()));
            }
        }
        self.check_sgx()?;
        nodes::check(&self.nodes, self.cpus, self.ram, &self.epc)?;
        let sizes: Vec<u64> = self.epc.iter().map(|section| section.size).collect();
        Layout::new(self.ram, &sizes).map_err(|error| match error {
            LayoutError::TooSmall(_) | LayoutError::RamTooLarge(_) => {
                ConfigError::MemoryLayout(error)
            }
            LayoutError::EpcTooLarge { .. } | LayoutError::TooManySections(_) => {
                ConfigError::EpcLayout(error)
            }
        })
    }

    /// Whether the guest has EPC exactly where it is to have SGX.
    fn check_sgx(&self) -> Result<(), ConfigError> {
        if !self.epc.is_empty() {
            return if self.cpu.sgx { Ok(()) } else { Err(ConfigError::EpcWithoutSgx) };
        }
        match (self.cpu.wanted, self.launch_key) {
            (Some(flag), _) => Err(ConfigError::CpuWithoutEpc(flag)),
            (None, Some(_)) => Err(ConfigError::LaunchKeyWithoutEpc),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(ram: u64, epc: &[&str]) -> MachineConfig {
        MachineConfig {
            name: None,
            boot: BootConfig::Kernel {
                kernel: "vmlinuz".into(),
                initrd: None,
                cmdline: DEFAULT_CMDLINE.into(),
            },
            ram,
            cpus: 1,
            nodes: Vec::new(),
            disks: Vec::new(),
            epc: epc.iter().map(|text| EpcConfig::parse(text).unwrap()).collect(),
            cpu: CpuConfig::default(),
            launch_key: None,
            platform: None,
            no_reboot: false,
        }
    }

    #[test]
    fn an_epc_section_has_an_id_a_size_and_perhaps_prealloc() {
        for (text, id, size, prealloc) in [
            ("id=epc0,size=64M", "epc0", 64 << 20, false),
            ("size=4K,id=a.b-c_d", "a.b-c_d", 4096, false),
            ("id=e,size=1G,prealloc=on", "e", 1 << 30, true),
            ("id=e,size=1G,prealloc", "e", 1 << 30, true),
            ("prealloc=off,id=e,size=1G", "e", 1 << 30, false),
        ] {
            let expected = EpcConfig { id: id.into(), size, prealloc, node: 0, host_node: 0 };
            assert_eq!(EpcConfig::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn each_wrong_epc_section_is_one_line_that_names_the_option_and_the_mend() {
        for (text, line) in [
            ("", r#"--sgx-epc: "" is not key=value: write id=epc0,size=64M[,prealloc=on]"#),
            ("epc0", r#"--sgx-epc: "epc0" is not key=value: write id=epc0,size=64M[,prealloc=on]"#),
            ("id=epc0", "--sgx-epc: the key size is missing: write id=epc0,size=64M[,prealloc=on]"),
            ("size=64M", "--sgx-epc: the key id is missing: write id=epc0,size=64M[,prealloc=on]"),
            (
                "id=epc0,size=64M,node=0",
                r#"--sgx-epc: unknown key "node": the keys are id, size and prealloc"#,
            ),
            ("id=a,id=b,size=64M", "--sgx-epc: the key id is given twice: leave one out"),
            (
                "id=0epc,size=64M",
                r#"--sgx-epc: "0epc" is not an id: write a letter, then letters, digits, -, _ or ."#,
            ),
            (
                "id=epc0,size=64X",
                r#"--sgx-epc: size: "64X" is not a size: write a number and K, M, G or T, such as 64M"#,
            ),
            (
                "id=epc0,size=0",
                "--sgx-epc: size: 0 is no memory at all: write a size of at least 4K",
            ),
            (
                "id=epc0,size=4097",
                "--sgx-epc: size: 4097 is not a multiple of 4 KiB: the next size that is one is 8192 bytes",
            ),
            ("id=epc0,size=64M,prealloc=yes", r#"--sgx-epc: prealloc is on or off, not "yes""#),
        ] {
            assert_eq!(EpcConfig::parse(text).unwrap_err().to_string(), line, "{text}");
        }
    }

    #[test]
    fn sections_are_judged_together() {
        for (ram, epc, line) in [
            (
                512 << 20,
                vec!["id=a,size=4K", "id=b,size=4K", "id=a,size=8K"],
                "--sgx-epc: the id a is given to two sections: give each its own",
            ),
            (
                512 << 20,
                vec![
                    "id=a,size=4K",
                    "id=b,size=4K",
                    "id=c,size=4K",
                    "id=d,size=4K",
                    "id=e,size=4K",
                    "id=f,size=4K",
                    "id=g,size=4K",
                    "id=h,size=4K",
                    "id=i,size=4K",
                ],
                "--sgx-epc: 9 EPC sections are more than the 8 that Linux reads: leave some out",
            ),
            (
                512 << 20,
                vec!["id=a,size=64T"],
                "--sgx-epc: an EPC section of 64T does not fit above 0x100000000 in the 46-bit \
                 physical address space of the guest: give it or the RAM a smaller size",
            ),
            (
                64 << 40,
                vec![],
                "--memory: 64T of RAM does not fit in the 46-bit physical address space of the \
                 guest: write less than 64T",
            ),
            (4096, vec![], "--memory: 4K of RAM is too little to boot from: write at least 2M"),
        ] {
            let error = config(ram, &epc).layout().unwrap_err();
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn sgx_and_epc_come_together() {
        let epc: &[&str] = &["id=a,size=64M"];
        for (cpu, key, epc, line) in [
            ("host", None, epc, ""),
            ("host,-sgxlc", Some([1; 32]), epc, ""),
            ("host,-sgx2,+sgx-edeccssa", None, epc, ""),
            ("host,-sgx", None, &[], ""),
            ("host,-sgx2", None, &[], ""),
            (
                "host,-sgx",
                None,
                epc,
                "--cpu: -sgx takes SGX away and --sgx-epc gives it EPC: leave one of them out",
            ),
            (
                "host,-sgx2,+sgx-kss",
                None,
                &[],
                "--cpu: +sgx-kss is for guests with SGX, which EPC makes: \
                 add --sgx-epc, or leave it out",
            ),
            (
                "host",
                Some([1; 32]),
                &[],
                "--launch-key: it is for guests with SGX, which EPC makes: \
                 add --sgx-epc, or leave it out",
            ),
        ] {
            let cpu = parse_cpu(cpu).unwrap();
            let config = MachineConfig { cpu, launch_key: key, ..config(512 << 20, epc) };

            let found = config.layout().map_or_else(|error| error.to_string(), |_| String::new());

            assert_eq!(found, line);
        }
    }

    #[test]
    fn a_launch_key_is_64_digits_in_the_order_of_bytes() {
        let mut text = "00".repeat(32);
        text.replace_range(..4, "12aB");

        let key = parse_launch_key(&text).unwrap();

        assert_eq!((key[0], key[1], key[31]), (0x12, 0xab, 0));
        for text in ["", "12", &text[1..], &text.replace('B', "g"), &text.replace("12", "ä")] {
            assert_eq!(
                parse_launch_key(text).unwrap_err().to_string(),
                format!(
                    "--launch-key: {text:?} is no SHA-256 of a key: write its 64 hexadecimal digits"
                )
            );
        }
    }

    #[test]
    fn a_disk_is_a_file_and_perhaps_readonly() {
        for (text, path, readonly) in [
            ("disk.img", "disk.img", false),
            ("disk.img,readonly", "disk.img", true),
            ("a,b", "a,b", false),
        ] {
            let expected = DiskConfig { path: path.into(), readonly };
            assert_eq!(DiskConfig::parse(text), Ok(expected));
        }
        assert_eq!(DiskConfig::parse(""), Err(ConfigError::DiskPath));
        assert_eq!(DiskConfig::parse(",readonly"), Err(ConfigError::DiskPath));
    }

    #[test]
    fn processors_are_1_to_64() {
        assert_eq!(parse_cpus("1"), Ok(1));
        assert_eq!(parse_cpus("64"), Ok(64));
        for text in ["0", "65", "-1", "four", "", "99999999999"] {
            assert_eq!(
                parse_cpus(text).unwrap_err().to_string(),
                format!("--cpus: {text:?} is not a number of processors: write 1 to 64")
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_of_an_option_panics_and_every_error_is_one_line(text in "[ -~]{0,40}") {
            for error in [
                EpcConfig::parse(&text).err(),
                DiskConfig::parse(&text).err(),
                parse_cpus(&text).err(),
                parse_memory(&text).err(),
                parse_cpu(&text).err(),
                parse_launch_key(&text).err(),
            ].into_iter().flatten() {
                prop_assert!(!error.to_string().contains('\n'));
                prop_assert!(error.to_string().starts_with("--"));
            }
        }
    }
}
