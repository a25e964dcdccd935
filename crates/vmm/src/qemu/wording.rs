//! Complaints in QEMU's options.

use crate::cli::RunWording;
use crate::complaint::{Fix, Setting, Wording};

/// How QEMU names what an image is based on, once for each layer.
pub(super) const BACKING: &str = "backing.";

/// QEMU's options, as `cloister qemu` takes them.
#[derive(Clone, Copy, Debug)]
pub struct QemuWording;

impl Wording for QemuWording {
    fn option(&self, setting: Setting) -> Option<&'static str> {
        Some(match setting {
            Setting::Boot | Setting::Kernel => "-kernel",
            Setting::Initrd => "-initrd",
            Setting::CommandLine => "-append",
            Setting::Memory => "-m",
            Setting::Cpus => "-smp",
            Setting::Cpu => "-cpu",
            Setting::Nodes => "-numa",
            Setting::Disk => "-drive",
            Setting::Network => "-netdev",
            Setting::Nic => "-nic",
            Setting::Epc => "-object memory-backend-epc",
            // There is none here, and what is not set is not complained of.
            Setting::EpcQuota | Setting::EpcReserve | Setting::Share | Setting::Vsock => {
                return None;
            }
            Setting::Accelerator => "-accel",
            Setting::LaunchKey => "-sgx-launch-key",
            Setting::Platform => "-sgx-platform",
            Setting::NoReboot => "-no-reboot",
            Setting::Monitor => "-qmp",
            Setting::Gdb => "-gdb",
            Setting::Console => "-serial",
            Setting::Name => "-name",
            Setting::PidFile => "-pidfile",
            Setting::Daemon => "-daemonize",
            Setting::Sandbox => "-sandbox",
        })
    }

    fn fix(&self, fix: &Fix) -> String {
        match fix {
            Fix::Do(phrase) => phrase.in_words_of(self),
            Fix::NameBoot => {
                "add it, or -drive file=IMG,if=virtio with an installed system".to_owned()
            }
            Fix::NameImage => "name an image".to_owned(),
            Fix::NameBacking { depth } => {
                format!("add {}file.filename=FILE", BACKING.repeat(depth + 1))
            }
            Fix::NameBackingFormat { depth } => {
                let driver = format!("{}driver", BACKING.repeat(depth + 1));
                format!("add {driver}=raw, {driver}=qcow2 or {driver}=vmdk")
            }
            Fix::NotWritten => "add readonly=on or snapshot=on".to_owned(),
            Fix::OrReadOnly { first, images } => format!("{first}, or add readonly=on to {images}"),
        }
    }
}

/// The option of `cloister run` that does what an option of QEMU does, named without dashes.
pub(crate) fn option_of_run(name: &str) -> Option<&'static str> {
    let is_named = |setting| {
        QemuWording.option(setting).and_then(|option| option.strip_prefix('-')) == Some(name)
    };
    let mut settings = Setting::ALL.into_iter().filter(|&setting| is_named(setting));
    settings.find_map(|setting| RunWording.option(setting))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint::{Complaint, Phrase};

    #[test]
    fn settings_and_forms_are_qemus() {
        for (complaint, line) in [
            (
                Complaint::new(Setting::Memory, "1M is too little", "write 2M"),
                "-m: 1M is too little: write 2M",
            ),
            (
                Complaint::new(
                    Setting::Cpu,
                    Phrase::from("-sgx takes SGX away and ")
                        .setting(Setting::Epc)
                        .text(" gives it"),
                    "leave one of them out",
                ),
                "-cpu: -sgx takes SGX away and -object memory-backend-epc gives it: \
                 leave one of them out",
            ),
            (
                Complaint::new(Setting::Disk, "cannot open /tmp/x--disk", Fix::NameImage),
                "-drive: cannot open /tmp/x--disk: name an image",
            ),
            (
                Complaint::new(
                    Setting::Disk,
                    "cannot open --memory",
                    Fix::OrReadOnly {
                        first: "name an image",
                        images: "one that may not be written",
                    },
                ),
                "-drive: cannot open --memory: \
                 name an image, or add readonly=on to one that may not be written",
            ),
        ] {
            assert_eq!(QemuWording.line(&complaint), line);
        }
    }

    #[test]
    fn options_of_qemu_lead_to_those_of_run_that_do_the_same() {
        for (name, option) in [
            ("m", Some("--memory")),
            ("kernel", Some("--kernel")),
            ("drive", Some("--disk")),
            ("daemonize", Some("--daemonize")),
            ("no-reboot", Some("--no-reboot")),
            ("numa", None),
            ("object", None),
            ("vnc", None),
        ] {
            assert_eq!(option_of_run(name), option, "{name}");
        }
    }
}
