//! Complaints in the options of `cloister run`.

use crate::complaint::{Fix, Setting, Wording};

/// The options of `cloister run`.
#[derive(Clone, Copy, Debug)]
pub struct RunWording;

impl Wording for RunWording {
    fn option(&self, setting: Setting) -> Option<&'static str> {
        Some(match setting {
            // Either of two options, and none for nodes.
            Setting::Boot | Setting::Nodes => return None,
            Setting::Kernel => "--kernel",
            Setting::Initrd => "--initrd",
            Setting::CommandLine => "--append",
            Setting::Memory => "--memory",
            Setting::Cpus => "--cpus",
            Setting::Cpu => "--cpu",
            Setting::Accelerator => "--accel",
            Setting::Disk => "--disk",
            Setting::Share => "--share",
            Setting::Vsock => "--vsock",
            Setting::Network | Setting::Nic => "--net",
            Setting::Epc => "--sgx-epc",
            Setting::EpcQuota => "--epc-quota",
            Setting::EpcReserve => "--epc-reserve",
            Setting::LaunchKey => "--launch-key",
            Setting::Platform => "--platform",
            Setting::NoReboot => "--no-reboot",
            Setting::Monitor => "--qmp",
            Setting::Gdb => "--gdb",
            Setting::Console => "--serial",
            Setting::Name => "--name",
            Setting::PidFile => "--pidfile",
            Setting::Daemon => "--daemonize",
            Setting::Sandbox => "--sandbox",
        })
    }

    fn fix(&self, fix: &Fix) -> String {
        match fix {
            Fix::Do(phrase) => phrase.in_words_of(self),
            Fix::NameBoot => "add --kernel FILE, or --disk IMG with an installed system".to_owned(),
            Fix::NameImage => "name an image, after which only ,readonly, ,format=, ,snapshot=, \
                               ,backing= and ,backing-format= may follow"
                .to_owned(),
            Fix::NameBacking { .. } => "add ,backing=FILE".to_owned(),
            Fix::NameBackingFormat { .. } => {
                "add ,backing-format=raw, ,backing-format=qcow2 or ,backing-format=vmdk after it"
                    .to_owned()
            }
            Fix::NotWritten => "add ,readonly or ,snapshot=on after it".to_owned(),
            Fix::OrReadOnly { first, images } => {
                format!("{first}, or add ,readonly after {images}")
            }
        }
    }
}

/// The options of `cloister exec`.
#[derive(Clone, Copy, Debug)]
pub struct ExecWording;

impl Wording for ExecWording {
    fn option(&self, setting: Setting) -> Option<&'static str> {
        Some(match setting {
            Setting::Kernel => "--kernel",
            Setting::Memory => "--memory",
            Setting::Cpus => "--cpus",
            Setting::Cpu => "--cpu",
            Setting::Accelerator => "--accel",
            Setting::Share | Setting::Disk => "--root",
            Setting::Network => "--net",
            Setting::Epc => "--epc",
            Setting::Platform => "--platform",
            Setting::Console => "--console",
            Setting::Sandbox => "--sandbox",
            // There is none here, and what is not set is not complained of.
            _ => return None,
        })
    }

    fn fix(&self, fix: &Fix) -> String {
        match fix {
            Fix::Do(phrase) => phrase.in_words_of(self),
            Fix::NameBoot => "add --kernel FILE".to_owned(),
            Fix::NameImage => "name a folder, or the image of a disk".to_owned(),
            Fix::NameBacking { .. } | Fix::NameBackingFormat { .. } => {
                "make it one image, with qemu-img convert".to_owned()
            }
            Fix::NotWritten => "convert it with qemu-img convert -O qcow2".to_owned(),
            Fix::OrReadOnly { first, .. } => (*first).to_owned(),
        }
    }
}

/// The annotations and options of `cloister oci`.
#[derive(Clone, Copy, Debug)]
pub struct OciWording;

impl Wording for OciWording {
    fn option(&self, setting: Setting) -> Option<&'static str> {
        Some(match setting {
            Setting::Kernel => "--kernel",
            Setting::Platform => "--platform",
            Setting::Accelerator => "--accel",
            Setting::Share => "config.json",
            Setting::Memory => "cloister.memory",
            Setting::Cpus => "cloister.cpus",
            Setting::Cpu => "cloister.cpu",
            Setting::Network => "cloister.net",
            Setting::Epc => "cloister.epc",
            // There is none here, and what is not set is not complained of.
            _ => return None,
        })
    }

    fn fix(&self, fix: &Fix) -> String {
        ExecWording.fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint::{Complaint, Phrase};

    #[test]
    fn a_complaint_is_one_line_of_the_option_the_reason_and_the_fix() {
        for (complaint, line) in [
            (
                Complaint::new(Setting::Memory, "4K is too little", "write at least 2M"),
                "--memory: 4K is too little: write at least 2M",
            ),
            (
                Complaint::new(
                    Setting::Cpu,
                    Phrase::from("it clashes with ").setting(Setting::Epc),
                    Phrase::from("leave ").setting(Setting::Epc).text(" out"),
                ),
                "--cpu: it clashes with --sgx-epc: leave --sgx-epc out",
            ),
            (
                Complaint::new(Setting::Boot, "there is nothing to boot", Fix::NameBoot),
                "there is nothing to boot: \
                 add --kernel FILE, or --disk IMG with an installed system",
            ),
            (
                Complaint::new(Setting::Disk, "cannot open x", Fix::NameImage),
                "--disk: cannot open x: name an image, after which only ,readonly, ,format=, \
                 ,snapshot=, ,backing= and ,backing-format= may follow",
            ),
            (
                Complaint::new(
                    Setting::Disk,
                    "x--disk is given twice",
                    Fix::OrReadOnly { first: "leave one out", images: "both" },
                ),
                "--disk: x--disk is given twice: leave one out, or add ,readonly after both",
            ),
            (Complaint::new(Setting::Nodes, "there are 9", "write 8"), "there are 9: write 8"),
        ] {
            assert_eq!(RunWording.line(&complaint), line);
        }
    }
}
