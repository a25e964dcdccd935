//! `--cpu`: what the guest's CPUID says of SGX and VMX, by the names that QEMU gives the bits.
//!
//! `host` is all that this machine's processors do by default; `sgx-provisionkey` has to be asked for,
//! as in QEMU, and takes a right (see docs/platform.md). Flags after it add (`+`) or take
//! away (`-`) one bit each. What is taken away takes along what needs it and was not asked for;
//! what was asked for and needs it makes a contradiction.

use cloister_sgx::{AttributeFlags, Capabilities, MISCSELECT_EXINFO, SgxFeatures};
use thiserror::Error;

/// The model that every value of `--cpu` begins with.
const MODEL: &str = "host";

/// SGX and VMX as the guest's CPUID tells them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuConfig {
    /// CPUID.7.0:EBX.SGX.
    pub sgx: bool,
    /// CPUID.7.0:ECX.SGX_LC: IA32_SGXLEPUBKEYHASH0-3 can be written.
    pub launch_control: bool,
    /// CPUID.12H.
    pub capabilities: Capabilities,
    /// CPUID.1:ECX.VMX.
    pub vmx: bool,
    /// The first flag of SGX that was asked for with `+`: the guest must have SGX at all.
    pub wanted: Option<&'static str>,
}

impl Default for CpuConfig {
    /// All that a platform has by default, but for the provisioning key, which takes a right, and
    /// without VMX.
    fn default() -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.attributes.remove(AttributeFlags::PROVISIONKEY);
        Self { sgx: true, launch_control: true, capabilities, vmx: false, wanted: None }
    }
}

/// Why a value of `--cpu` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CpuFlagError {
    /// The first word is not the model.
    #[error("{0:?} is not a CPU model: write {MODEL}, then flags such as +sgx-kss or -sgx2")]
    Model(String),
    /// A flag is neither added nor taken away.
    #[error("{0:?} is not a flag: write + or - and a name, such as -sgx2")]
    Syntax(String),
    /// No flag has this name.
    #[error("there is no flag {name}: {fix}")]
    Unknown {
        /// What was written.
        name: String,
        /// The names that it may be meant for.
        fix: String,
    },
    /// A flag is given twice.
    #[error("the flag {0} is given twice: leave one out")]
    Twice(&'static str),
    /// A flag was asked for without what it needs.
    #[error("{needs}, which -{missing} takes away: leave out one of +{flag} and -{missing}")]
    Needs {
        /// The flag.
        flag: &'static str,
        /// What it needs, in words.
        needs: String,
        /// What was taken away.
        missing: &'static str,
    },
}

/// Where a flag's bit is.
#[derive(Clone, Copy)]
enum Bit {
    /// CPUID.7.0:EBX.SGX.
    Sgx,
    /// CPUID.7.0:ECX.SGX_LC.
    LaunchControl,
    /// CPUID.12H.0:EAX.
    Feature(SgxFeatures),
    /// CPUID.12H.0:EBX.
    Misc(u32),
    /// CPUID.12H.1:EAX.
    Attribute(AttributeFlags),
    /// CPUID.1:ECX.VMX.
    Vmx,
}

struct Flag {
    name: &'static str,
    /// The flag without which this one means nothing; it comes earlier in [`FLAGS`].
    needs: Option<&'static str>,
    bit: Bit,
}

const fn flag(name: &'static str, needs: Option<&'static str>, bit: Bit) -> Flag {
    Flag { name, needs, bit }
}

const SGX1: Option<&str> = Some("sgx1");

/// A processor has the leaves of EPC oversubscription in both of its instructions or in neither.
const OVERSUBSCRIPTION: SgxFeatures = SgxFeatures::OVERSUB_ENCLV.union(SgxFeatures::OVERSUB_ENCLS);

/// Every flag.
const FLAGS: [Flag; 14] = [
    flag("sgx", None, Bit::Sgx),
    flag("sgx1", Some("sgx"), Bit::Feature(SgxFeatures::SGX1)),
    flag("sgx2", SGX1, Bit::Feature(SgxFeatures::SGX2)),
    flag("sgxlc", Some("sgx"), Bit::LaunchControl),
    flag("sgx-debug", SGX1, Bit::Attribute(AttributeFlags::DEBUG)),
    flag("sgx-mode64", SGX1, Bit::Attribute(AttributeFlags::MODE64BIT)),
    flag("sgx-provisionkey", SGX1, Bit::Attribute(AttributeFlags::PROVISIONKEY)),
    flag("sgx-tokenkey", SGX1, Bit::Attribute(AttributeFlags::EINITTOKEN_KEY)),
    flag("sgx-kss", SGX1, Bit::Attribute(AttributeFlags::KSS)),
    flag("sgx-oversub", SGX1, Bit::Feature(OVERSUBSCRIPTION)),
    flag("sgx-edeccssa", SGX1, Bit::Feature(SgxFeatures::EDECCSSA)),
    flag("sgx-aex-notify", SGX1, Bit::Attribute(AttributeFlags::AEXNOTIFY)),
    flag("sgx-exinfo", SGX1, Bit::Misc(MISCSELECT_EXINFO)),
    flag("vmx", None, Bit::Vmx),
];

/// Names of all flags.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|flag| flag.name)
}

impl CpuConfig {
    /// Reads the value of `--cpu`: `host`, then flags, all with commas between them. QEMU writes
    /// some names with `_`, which is the same as `-`.
    ///
    /// # Errors
    ///
    /// [`CpuFlagError`].
    pub fn parse(text: &str) -> Result<Self, CpuFlagError> {
        let mut words = text.split(',');
        match words.next() {
            Some(MODEL) => {}
            other => return Err(CpuFlagError::Model(other.unwrap_or_default().to_owned())),
        }
        let mut asked = [None; FLAGS.len()];
        let mut wanted = None;
        for word in words {
            let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (None, Some(name)) => (false, name),
                (None, None) => return Err(CpuFlagError::Syntax(word.to_owned())),
            };
            let index = find(name)?;
            let name = FLAGS[index].name;
            if asked[index].replace(on).is_some() {
                return Err(CpuFlagError::Twice(name));
            }
            if on && wanted.is_none() && !matches!(FLAGS[index].bit, Bit::Vmx) {
                wanted = Some(name);
            }
        }
        let mut config = Self { wanted, ..Self::default() };
        for (flag, asked) in FLAGS.iter().zip(asked) {
            let possible = flag.needs.is_none_or(|needs| config.has(needs));
            if asked == Some(true) && !possible {
                return Err(contradiction(flag, |name| config.has(name)));
            }
            let on = possible && asked.unwrap_or_else(|| config.get(flag.bit));
            config.set(flag.bit, on);
        }
        Ok(config)
    }

    /// Whether the guest has the bit that is called `name`.
    fn has(&self, name: &str) -> bool {
        FLAGS.iter().any(|flag| flag.name == name && self.get(flag.bit))
    }

    fn get(&self, bit: Bit) -> bool {
        match bit {
            Bit::Sgx => self.sgx,
            Bit::LaunchControl => self.launch_control,
            Bit::Vmx => self.vmx,
            Bit::Feature(bit) => self.capabilities.features.contains(bit),
            Bit::Misc(bit) => self.capabilities.miscselect & bit != 0,
            Bit::Attribute(bit) => self.capabilities.attributes.contains(bit),
        }
    }

    fn set(&mut self, bit: Bit, on: bool) {
        match bit {
            Bit::Sgx => self.sgx = on,
            Bit::LaunchControl => self.launch_control = on,
            Bit::Vmx => self.vmx = on,
            Bit::Feature(bit) => self.capabilities.features.set(bit, on),
            Bit::Misc(bit) if on => self.capabilities.miscselect |= bit,
            Bit::Misc(bit) => self.capabilities.miscselect &= !bit,
            Bit::Attribute(bit) => self.capabilities.attributes.set(bit, on),
        }
    }
}

/// The error of a flag that was asked for and cannot be had: which flags lie between it and the one
/// that was taken away.
fn contradiction(flag: &Flag, has: impl Fn(&str) -> bool) -> CpuFlagError {
    let parent = |name: &str| FLAGS.iter().find(|flag| flag.name == name).and_then(|f| f.needs);
    let mut missing = flag.name;
    let mut needs = String::from(missing);
    while let Some(next) = parent(missing).filter(|next| !has(next)) {
        let joint = if missing == flag.name { "" } else { ", which" };
        needs += &format!("{joint} needs {next}");
        missing = next;
    }
    CpuFlagError::Needs { flag: flag.name, needs, missing }
}

/// Index of the flag with this name, in either spelling.
fn find(written: &str) -> Result<usize, CpuFlagError> {
    let name = written.replace('_', "-");
    FLAGS.iter().position(|flag| flag.name == name).ok_or_else(|| {
        let distance = |known: &str| {
            let tail = !name.is_empty() && known.ends_with(&name);
            if tail { 0 } else { edits(&name, known) }
        };
        let nearest = FLAGS.iter().map(|flag| distance(flag.name)).min();
        let near: Vec<&str> = FLAGS
            .iter()
            .map(|flag| flag.name)
            .filter(|known| distance(known) <= 2 && Some(distance(known)) == nearest)
            .collect();
        let fix = if near.is_empty() {
            let all: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
            format!("the flags are {}", all.join(", "))
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        CpuFlagError::Unknown { name: written.escape_debug().to_string(), fix }
    })
}

/// Levenshtein's distance: how many characters must be put in, left out or replaced.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(config: &CpuConfig) -> Vec<&'static str> {
        FLAGS.iter().map(|flag| flag.name).filter(|name| config.has(name)).collect()
    }

    const DEFAULT: [&str; 9] = [
        "sgx",
        "sgx1",
        "sgx2",
        "sgxlc",
        "sgx-debug",
        "sgx-mode64",
        "sgx-tokenkey",
        "sgx-kss",
        "sgx-exinfo",
    ];

    #[test]
    fn host_alone_is_the_default() {
        let config = CpuConfig::parse("host").unwrap();

        assert_eq!(config, CpuConfig::default());
        assert_eq!(names(&config), DEFAULT);
    }

    #[test]
    fn each_flag_adds_or_takes_away_its_own_bit() {
        for flag in &FLAGS[2..] {
            for (sign, on) in [('+', true), ('-', false)] {
                let config = CpuConfig::parse(&format!("host,{sign}{}", flag.name)).unwrap();

                let mut expected = DEFAULT.to_vec();
                expected.retain(|name| *name != flag.name);
                let mut found = names(&config);
                assert_eq!(found.contains(&flag.name), on, "{sign}{}", flag.name);
                found.retain(|name| *name != flag.name);
                assert_eq!(found, expected, "{sign}{}", flag.name);
            }
        }
    }

    #[test]
    fn bits_are_where_cpuid_has_them() {
        // SDM Vol. 3D, 34.7.2; oversubscription, EDECCSSA, AEXNOTIFY and PROVISIONKEY are not on by default.
        let more = "host,-sgx2,+sgx_oversub,+sgx-edeccssa,+sgx-aex-notify,+sgx_provisionkey";
        let more = CpuConfig::parse(more).unwrap();
        let less = CpuConfig::parse("host,-sgx_kss,-sgx-exinfo,-sgx_provisionkey").unwrap();

        let leaf0 = |config: &CpuConfig| config.capabilities.cpuid_leaf0();
        let leaf1 = |config: &CpuConfig| config.capabilities.cpuid_leaf1();
        assert_eq!((leaf0(&more).eax, leaf0(&more).ebx), (1 << 11 | 3 << 5 | 1, 1));
        assert_eq!(leaf1(&more).eax, 0x4b6);
        assert_eq!((leaf0(&less).eax, leaf0(&less).ebx), (3, 0));
        assert_eq!(leaf1(&less).eax, 0x26);
    }

    #[test]
    fn what_is_taken_away_takes_along_what_needs_it() {
        for (text, left) in [("host,-sgx", vec![]), ("host,-sgx1", vec!["sgx", "sgxlc"])] {
            assert_eq!(names(&CpuConfig::parse(text).unwrap()), left, "{text}");
        }
    }

    #[test]
    fn vmx_is_off_by_default_and_asks_for_no_sgx() {
        assert!(!CpuConfig::default().vmx);
        let config = CpuConfig::parse("host,+vmx,-sgx").unwrap();
        assert_eq!((config.vmx, config.wanted), (true, None));
    }

    #[test]
    fn each_mistake_is_one_line_with_its_fix() {
        for (text, line) in [
            ("", r#""" is not a CPU model: write host, then flags such as +sgx-kss or -sgx2"#),
            (
                "max,-sgx2",
                r#""max" is not a CPU model: write host, then flags such as +sgx-kss or -sgx2"#,
            ),
            ("host,sgx2", r#""sgx2" is not a flag: write + or - and a name, such as -sgx2"#),
            ("host,", r#""" is not a flag: write + or - and a name, such as -sgx2"#),
            ("host,+sgx3", "there is no flag sgx3: did you mean sgx or sgx1 or sgx2?"),
            ("host,-kss", "there is no flag kss: did you mean sgx-kss?"),
            (
                "host,+sgx_provisonkey",
                "there is no flag sgx_provisonkey: did you mean sgx-provisionkey?",
            ),
            (
                "host,+avx512f",
                "there is no flag avx512f: the flags are sgx, sgx1, sgx2, sgxlc, sgx-debug, \
                 sgx-mode64, sgx-provisionkey, sgx-tokenkey, sgx-kss, sgx-oversub, \
                 sgx-edeccssa, sgx-aex-notify, sgx-exinfo, vmx",
            ),
            ("host,+sgx2,-sgx2", "the flag sgx2 is given twice: leave one out"),
            ("host,-sgx-kss,-sgx_kss", "the flag sgx-kss is given twice: leave one out"),
            (
                "host,-sgx1,+sgx2",
                "sgx2 needs sgx1, which -sgx1 takes away: leave out one of +sgx2 and -sgx1",
            ),
            (
                "host,-sgx1,+sgx-oversub",
                "sgx-oversub needs sgx1, which -sgx1 takes away: \
                 leave out one of +sgx-oversub and -sgx1",
            ),
            (
                "host,+sgx-kss,-sgx",
                "sgx-kss needs sgx1, which needs sgx, which -sgx takes away: \
                 leave out one of +sgx-kss and -sgx",
            ),
            (
                "host,-sgx,+sgxlc",
                "sgxlc needs sgx, which -sgx takes away: leave out one of +sgxlc and -sgx",
            ),
        ] {
            assert_eq!(CpuConfig::parse(text).unwrap_err().to_string(), line, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_error_is_one_line(text in "(host)?,?[+_sgx1-9kelc,\\PC-]{0,24}") {
            if let Err(error) = CpuConfig::parse(&text) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn nothing_is_there_without_what_it_needs(
            signs in prop::collection::vec(0..3usize, FLAGS.len()),
        ) {
            let words = FLAGS.iter().zip(&signs).filter(|(_, sign)| **sign != 0);
            let text = words.fold("host".to_owned(), |text, (flag, sign)| {
                text + ["", ",+", ",-"][*sign] + flag.name
            });
            if let Ok(config) = CpuConfig::parse(&text) {
                for (flag, sign) in FLAGS.iter().zip(signs) {
                    let has = config.has(flag.name);
                    let needed = flag.needs.is_none_or(|needs| config.has(needs));
                    prop_assert!(needed || !has, "{}: {} alone", text, flag.name);
                    prop_assert!(sign == 0 || has == (sign == 1), "{}: {}", text, flag.name);
                }
            }
        }
    }
}
