//! What the host asks for.
//!
//! A file of records: a letter, the length of what follows in 4 bytes, little endian, and that many bytes.
//! Lists are several records of one letter.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A folder of the host and where it is to be.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Its name among the shares.
    pub(crate) share: String,
    pub(crate) place: PathBuf,
}

/// What a container has besides.
#[derive(Debug, Default)]
pub(crate) struct Container {
    /// The root cannot be changed (`O`, a number: 1).
    pub(crate) fixed_root: bool,
    /// Mounts, in their order (`F`).
    pub(crate) mounts: Vec<ContainerMount>,
    /// What is hidden (`V`), and what cannot be changed (`Y`).
    pub(crate) masked: Vec<String>,
    pub(crate) fixed: Vec<String>,
    /// Settings of the kernel, as in `/proc/sys` (`S`, `NAME=VALUE`).
    pub(crate) sysctls: Vec<(OsString, OsString)>,
    /// What the process may have of resources, and what it can raise that to (`L`, numbers of 4 bytes: which,
    /// then both in two halves, the lower first).
    pub(crate) limits: Vec<(u32, u64, u64)>,
    /// Sets of capabilities: bounding, effective, permitted, inheritable, ambient (`G`, numbers of 4 bytes, two
    /// for each, the lower half first).
    pub(crate) capabilities: [u64; 5],
    /// No program gives the process more rights (`W`, nothing).
    pub(crate) no_new_privileges: bool,
}

/// A mount of a container (`F`: flags of mount(2) in 4 bytes, then kind, source, place and options, each but the
/// last with a zero after it). A source of the kind `bind` is a share.
#[derive(Debug)]
pub(crate) struct ContainerMount {
    pub(crate) flags: u32,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) place: String,
    pub(crate) options: String,
}

impl ContainerMount {
    fn parse(value: &[u8]) -> Option<Self> {
        let (flags, texts) = value.split_first_chunk()?;
        let mut texts = std::str::from_utf8(texts).ok()?.splitn(4, '\0').map(str::to_owned);
        Some(Self {
            flags: u32::from_le_bytes(*flags),
            kind: texts.next()?,
            source: texts.next()?,
            place: texts.next()?,
            options: texts.next()?,
        })
    }
}

/// A network device and what it is told.
#[derive(Debug)]
pub(crate) struct Network {
    /// Which of the machine's network devices.
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) name_server: Ipv4Addr,
}

/// All settings.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The command and its arguments (`A`).
    pub(crate) command: Vec<OsString>,
    /// Name and value of each variable (`E`, `NAME=VALUE`).
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The working directory (`D`).
    pub(crate) directory: PathBuf,
    /// Beside the root (`M`, `SHARE=PLACE`).
    pub(crate) mounts: Vec<Mount>,
    /// User, group and further groups (`I`, numbers of 4 bytes).
    pub(crate) ids: Vec<u32>,
    /// The mask of new files' modes (`K`, 4 bytes).
    pub(crate) umask: u32,
    /// Rows and columns of the terminal, if there is one (`T`, 4 bytes each).
    pub(crate) terminal: Option<(u32, u32)>,
    /// Network devices that have addresses (`N`, numbers of 4 bytes: which, bits of the network, then address,
    /// gateway and name server).
    pub(crate) networks: Vec<Network>,
    /// A disk has the root (`B`, nothing).
    pub(crate) disk: bool,
    /// The machine has the right to the provisioning key (`P`, nothing).
    pub(crate) provisioning: bool,
    /// The host quotes (`Q`, nothing).
    pub(crate) quoting: bool,
    /// The machine's name (`H`).
    pub(crate) host_name: Option<String>,
    /// The root is a container's, and has nothing but what is said of it (`O`, which comes before the rest).
    pub(crate) container: Option<Container>,
}

impl Settings {
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut settings = Self::default();
        while let Some((&letter, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            bytes = rest;
            let text = OsString::from_vec(value.to_vec());
            let numbers: Vec<u32> = value
                .chunks_exact(4)
                .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
                .collect();
            match letter {
                b'A' => settings.command.push(text),
                b'E' => {
                    let (name, value) = split(value)?;
                    settings.environment.push((name, value));
                }
                b'D' => settings.directory = text.into(),
                b'M' => {
                    let (share, place) = split(value)?;
                    let share = share.into_string().ok()?;
                    settings.mounts.push(Mount { share, place: place.into() });
                }
                b'I' => settings.ids = numbers,
                b'K' => settings.umask = *numbers.first()?,
                b'T' => settings.terminal = Some((*numbers.first()?, *numbers.get(1)?)),
                b'N' => {
                    let [index, prefix, addresses @ ..] = &numbers[..] else { return None };
                    let [address, gateway, name_server] =
                        <[u32; 3]>::try_from(addresses).ok()?.map(Ipv4Addr::from);
                    let prefix = u8::try_from(*prefix).ok()?;
                    let index = *index;
                    let network = Network { index, address, prefix, gateway, name_server };
                    settings.networks.push(network);
                }
                b'B' => settings.disk = true,
                b'P' => settings.provisioning = true,
                b'Q' => settings.quoting = true,
                b'H' => settings.host_name = Some(text.into_string().ok()?),
                b'O' => {
                    let fixed_root = numbers.first() == Some(&1);
                    settings.container = Some(Container { fixed_root, ..Container::default() });
                }
                _ => settings.container.as_mut()?.put(letter, value, &numbers)?,
            }
        }
        let complete = !settings.command.is_empty() && settings.ids.len() >= 2;
        complete.then_some(settings)
    }
}

impl Container {
    fn put(&mut self, letter: u8, value: &[u8], numbers: &[u32]) -> Option<()> {
        let text = || String::from_utf8(value.to_vec()).ok();
        let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        match letter {
            b'F' => self.mounts.push(ContainerMount::parse(value)?),
            b'V' => self.masked.push(text()?),
            b'Y' => self.fixed.push(text()?),
            b'S' => self.sysctls.push(split(value)?),
            b'L' => {
                let &[which, soft, soft_high, hard, hard_high] = numbers else { return None };
                self.limits.push((which, whole(soft, soft_high), whole(hard, hard_high)));
            }
            b'G' => {
                let halves = <[u32; 10]>::try_from(numbers).ok()?;
                self.capabilities =
                    std::array::from_fn(|set| whole(halves[2 * set], halves[2 * set + 1]));
            }
            b'W' => self.no_new_privileges = true,
            _ => return None,
        }
        Some(())
    }
}

/// Both sides of the first `=`.
fn split(value: &[u8]) -> Option<(OsString, OsString)> {
    let at = value.iter().position(|&byte| byte == b'=')?;
    let side = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some((side(&value[..at]), side(&value[at + 1..])))
}
