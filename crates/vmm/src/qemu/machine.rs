//! `-machine` (`-M`), `-accel` and `-enable-kvm`.

use super::QemuError;
use super::list::OptionList;
use crate::accel::Choice;

const MACHINE: &str = "-machine";
const ACCEL: &str = "-accel";
const ENABLE_KVM: &str = "-enable-kvm";

/// Machine types that are taken. All are Cloister's one machine.
pub(super) const TYPES: [&str; 3] = ["q35", "pc", "microvm"];
/// Keys of `-machine` that Cloister has.
const KEYS: &[&str] = &["type", "accel", "memory-backend", "sgx-epc.N.memdev", "sgx-epc.N.node"];
/// What is always so of Cloister's machine.
const FACTS: &[(&str, &str)] = &[
    ("acpi", "on"),
    ("graphics", "off"),
    ("hpet", "off"),
    ("isa-serial", "on"),
    ("mem-merge", "off"),
    ("pic", "off"),
    ("pit", "off"),
    ("rtc", "on"),
    ("sata", "off"),
    ("smbus", "off"),
    ("smm", "off"),
    ("usb", "off"),
    ("vmport", "off"),
];
/// Further keys of QEMU's x86 machines.
const IN_QEMU: &[&str] = &[
    "append",
    "aux-ram-share",
    "auto-kernel-cmdline",
    "boot",
    "boot.*",
    "bus-lock-ratelimit",
    "confidential-guest-support",
    "cxl",
    "cxl-fmw.*",
    "default-bus-bypass-iommu",
    "dt-compatible",
    "dtb",
    "dump-guest-core",
    "dumpdtb",
    "fd-bootchk",
    "firmware",
    "hmat",
    "i8042",
    "igvm-cfg",
    "initrd",
    "ioapic2",
    "kernel",
    "kernel-irqchip",
    "kvm-shadow-mem",
    "max-fw-size",
    "max-ram-below-4g",
    "memory",
    "memory.*",
    "memory-encryption",
    "nvdimm",
    "nvdimm-persistence",
    "option-roms",
    "pcie",
    "phandle-start",
    "shim",
    "smbios-entry-point-type",
    "smp",
    "smp.*",
    "smp-cache.*",
    "spcr",
    "suppress-vmdesc",
    "x-oem-id",
    "x-oem-table-id",
    "x-option-roms",
];
/// Accelerators of QEMU.
const ACCELERATORS: [&str; 9] =
    ["hax", "hvf", "kvm", "mshv", "nvmm", "qtest", "tcg", "whpx", "xen"];
/// The one that is Cloister's software processor.
const SOFTWARE: &str = "tcg";
/// The host's.
const KVM: &str = "kvm";
/// Keys of `-accel` that only QEMU has.
const ACCEL_IN_QEMU: &[&str] = &[
    "device",
    "dirty-ring-size",
    "eager-split-size",
    "igd-passthru",
    "kernel-irqchip",
    "kvm-shadow-mem",
    "notify-vmexit",
    "notify-window",
    "one-insn-per-tb",
    "split-wx",
    "tb-size",
];

/// What the options say, as they are read.
#[derive(Default, Debug)]
pub(super) struct MachineOptions {
    list: Option<OptionList>,
    /// Accelerators in their order, each with the option that names it.
    accelerators: Vec<(&'static str, String)>,
}

/// An EPC section of `-machine sgx-epc.N`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Section {
    pub(super) memdev: Option<String>,
    pub(super) node: Option<String>,
}

/// What `-machine` says of other parts of the machine.
#[derive(Default, Debug)]
pub(super) struct MachineFacts {
    /// The memory backend that is all of the RAM.
    pub(super) memory_backend: Option<String>,
    /// EPC sections by their number.
    pub(super) sections: Vec<(usize, Section)>,
    /// What executes the processors.
    pub(super) accelerator: Choice,
}

impl MachineOptions {
    /// `-machine`: a later one adds to an earlier one.
    pub(super) fn machine(&mut self, text: &str) -> Result<(), QemuError> {
        let list = OptionList::parse(MACHINE, Some("type"), text);
        match &mut self.list {
            Some(earlier) => earlier.append(list),
            None => self.list = Some(list),
        }
        Ok(())
    }

    /// `-accel`: a later one is tried after an earlier one.
    pub(super) fn accel(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(ACCEL, Some("accel"), text);
        let name = list.require("accel", "-accel kvm")?;
        list.allow(&[("thread", "multi")])?;
        list.finish(ACCEL_IN_QEMU, &["accel", "thread"])?;
        self.accelerators.push((ACCEL, name));
        Ok(())
    }

    /// `-enable-kvm`.
    pub(super) fn enable_kvm(&mut self) {
        self.accelerators.push((ENABLE_KVM, KVM.to_owned()));
    }

    /// Judges everything.
    pub(super) fn finish(mut self) -> Result<MachineFacts, QemuError> {
        let mut facts = MachineFacts::default();
        if let Some(mut list) = self.list.take() {
            if let Some(name) = list.take("type")?
                && !TYPES.contains(&name.as_str())
            {
                return Err(QemuError::value(
                    MACHINE,
                    format!("{name:?} is not a machine type"),
                    "write q35, pc or microvm, which all mean the machine of Cloister",
                ));
            }
            if let Some(names) = list.take("accel")? {
                let names = names.split(':').map(|name| (MACHINE, name.to_owned()));
                self.accelerators.extend(names);
            }
            facts.memory_backend = list.take("memory-backend")?;
            for (key, value) in list.take_group("sgx-epc.")? {
                add_section(&mut facts.sections, &key, value)?;
            }
            list.allow(FACTS)?;
            list.finish(IN_QEMU, KEYS)?;
        }
        facts.sections.sort_by_key(|(number, _)| *number);
        for (expected, (number, _)) in facts.sections.iter().enumerate() {
            if expected != *number {
                return Err(QemuError::value(
                    MACHINE,
                    format!("sgx-epc.{expected} is missing and sgx-epc.{number} is there"),
                    "number the sections from 0 without gaps",
                ));
            }
        }
        facts.accelerator = self.accelerator()?;
        Ok(facts)
    }

    /// QEMU takes the first accelerator that works. The software processor always does; KVM with it as second
    /// choice is taken where it serves the machine well.
    fn accelerator(&self) -> Result<Choice, QemuError> {
        for (option, name) in &self.accelerators {
            if !ACCELERATORS.contains(&name.as_str()) {
                let why = format!("{name:?} is not an accelerator");
                return Err(QemuError::value(option, why, "write kvm or tcg, or leave it out"));
            }
        }
        let mut here = self
            .accelerators
            .iter()
            .map(|(_, name)| name.as_str())
            .filter(|&name| matches!(name, KVM | SOFTWARE));
        match (here.next(), self.accelerators.first()) {
            (Some(KVM), _) if here.any(|name| name == SOFTWARE) => Ok(Choice::Auto),
            (Some(KVM), _) => Ok(Choice::Kvm),
            (None, Some((option, name))) => {
                let why = format!("Cloister has no {name}");
                Err(QemuError::value(option, why, "write kvm or tcg, or leave it out"))
            }
            _ => Ok(Choice::Soft),
        }
    }
}

/// Notes a key that begins with `sgx-epc.`.
fn add_section(
    sections: &mut Vec<(usize, Section)>,
    key: &str,
    value: String,
) -> Result<(), QemuError> {
    let parsed = key.split_once('.').and_then(|(number, key)| Some((number.parse().ok()?, key)));
    let Some((number, field @ ("memdev" | "node"))) = parsed else {
        return Err(QemuError::NoSuchKey {
            option: MACHINE,
            key: format!("sgx-epc.{}", key.escape_debug()),
            keys: KEYS.join(", "),
        });
    };
    let index = match sections.iter().position(|(known, _)| *known == number) {
        Some(index) => index,
        None => {
            sections.push((number, Section::default()));
            sections.len() - 1
        }
    };
    let section = &mut sections[index].1;
    let slot = if field == "memdev" { &mut section.memdev } else { &mut section.node };
    if slot.replace(value).is_some() {
        return Err(QemuError::KeyTwice { option: MACHINE, key: format!("sgx-epc.{key}") });
    }
    Ok(())
}
