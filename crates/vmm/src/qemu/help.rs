//! What QEMU tells when the argument of an option is `help`: the values that there are.

use super::machine::TYPES;
use super::object::{EPC, RAM};
use crate::cpu_flags;

/// The answer to `-option help`, if that is what `argument` asks for and the option has one.
pub(super) fn of(option: &str, argument: &str) -> Option<String> {
    // QEMU's older word for it is a question mark.
    if !matches!(argument, "help" | "?") {
        return None;
    }
    Some(match option {
        "machine" | "M" => machines(),
        "cpu" => processors(),
        "device" => DEVICES.to_owned(),
        "accel" => "Accelerators supported:\nkvm\ntcg\n".to_owned(),
        "object" => list("List of user creatable objects:", &[EPC, RAM]),
        "display" => list("Available display backend types:", &["none"]),
        "netdev" | "nic" => list("Available netdev backend types:", &["stream", "tap", "user"]),
        "serial" => list(
            "Available chardev backend types:",
            &["stdio", "mon:stdio", "null", "none", "file:PATH", "unix:PATH,server=on"],
        ),
        _ => return None,
    })
}

fn list(title: &str, names: &[&str]) -> String {
    let lines: String = names.iter().map(|name| format!("  {name}\n")).collect();
    format!("{title}\n{lines}")
}

fn machines() -> String {
    let mut names = TYPES;
    names.sort_unstable();
    let lines = names.map(|name| format!("{name:20} The machine of Cloister\n")).concat();
    format!("Supported machines are:\n{lines}All of them have the same devices: see -device help\n")
}

fn processors() -> String {
    let flags: Vec<&str> = cpu_flags::names().collect();
    format!(
        "Available CPUs:\n\
         x86 host                  What the accelerator does, with its default features\n\
         x86 max                   The same as host\n\n\
         Recognized CPUID flags:\n  {}\n",
        flags.join(" ")
    )
}

/// The devices of the machine (docs/machine.md). `-device` adds those of networks.
const DEVICES: &str = "\
Devices of every machine:
name \"virtio-rng-device\", bus virtio-mmio
name \"virtio-serial-device\", bus virtio-mmio, desc \"one console, hvc0\"
name \"isa-serial\", bus ISA, desc \"COM1, ttyS0: see -serial\"
name \"mc146818rtc\", bus ISA
Devices that options add:
name \"virtio-blk-device\", bus virtio-mmio, desc \"-drive file=FILE,if=virtio\"
name \"virtio-net-device\", bus virtio-mmio, desc \"-netdev, or -nic\"
";
