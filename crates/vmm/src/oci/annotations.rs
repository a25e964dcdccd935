//! The machine of a container: by annotations of the container, or by limits that engines set for it.

use super::bundle::{Resources, Spec};
use crate::accel::Choice;
use crate::cli::OciWording;
use crate::complaint::Wording as _;
use crate::config::{BootConfig, EpcConfig, MachineConfig, Translate, parse_cpus};
use crate::cpu_flags::CpuConfig;
use crate::net::{Link, NetConfig};
use crate::qemu;
use crate::size::{parse_ram_size, parse_size};

const EPC: &str = "cloister.epc";
const MEMORY: &str = "cloister.memory";
const CPUS: &str = "cloister.cpus";
const CPU: &str = "cloister.cpu";
const NET: &str = "cloister.net";
/// Where a container's name servers are said.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What all annotations for this program begin with.
const START: &str = "cloister.";
const KNOWN: [&str; 5] = [EPC, MEMORY, CPUS, CPU, NET];

/// What a machine has that nothing is said of, as with `cloister exec`.
const DEFAULT_EPC: u64 = 64 << 20;
const DEFAULT_MEMORY: u64 = 1 << 30;
/// The least RAM that a limit of memory gives: a kernel must come up in it.
const LEAST_MEMORY: u64 = 128 << 20;
/// RAM is of whole parts of this.
const MEMORY_UNIT: u64 = 2 << 20;

/// The machine that a container asks for.
pub(super) fn machine(spec: &Spec) -> Result<MachineConfig, String> {
    if let Some(name) = spec
        .annotations
        .keys()
        .find(|name| name.starts_with(START) && !KNOWN.contains(&name.as_str()))
    {
        return Err(format!("{name}: there is no such annotation: write {}", KNOWN.join(", ")));
    }
    let of = |name: &str| spec.annotations.get(name).map(String::as_str);
    let wrong = |name: &str, why: String| format!("{name}: {why}");
    let size = match of(EPC) {
        Some(text) => parse_size(text).map_err(|error| wrong(EPC, error.to_string()))?,
        None => DEFAULT_EPC,
    };
    let ram = match of(MEMORY) {
        Some(text) => parse_ram_size(text).map_err(|error| wrong(MEMORY, error.to_string()))?,
        None => memory(&spec.linux.resources).unwrap_or(DEFAULT_MEMORY),
    };
    let cpus = match of(CPUS) {
        Some(text) => parse_cpus(text).map_err(|error| wrong(CPUS, error.to_string()))?,
        None => cpus(&spec.linux.resources).unwrap_or(1),
    };
    let cpu = CpuConfig::parse(of(CPU).unwrap_or("host"));
    Ok(MachineConfig {
        name: None,
        // Replaced by the kernel, with an initramfs that is made for it.
        boot: BootConfig::Kernel { kernel: "".into(), initrd: None, cmdline: String::new() },
        ram,
        cpus,
        nodes: Vec::new(),
        disks: Vec::new(),
        epc: vec![EpcConfig { id: "epc0".into(), size, prealloc: false, node: 0, host_node: 0 }],
        epc_quota: None,
        epc_reserve: None,
        cpu: cpu.map_err(|error| wrong(CPU, error.to_string()))?,
        launch_key: None,
        platform: None,
        no_reboot: true,
        accelerator: Choice::Soft,
        translate: Translate::On,
    })
}

/// The network that a container asks for. Interfaces and sockets of the host are not its to name.
pub(super) fn networks(spec: &Spec) -> Result<Vec<NetConfig>, String> {
    let Some(text) = spec.annotations.get(NET) else { return Ok(Vec::new()) };
    let mut networks =
        qemu::networks(NET, std::slice::from_ref(text)).map_err(|error| error.to_string())?;
    for network in &mut networks {
        let Link::User(user) = &mut network.link else {
            return Err(format!("{NET}: {text:?} is not for containers: write user"));
        };
        // Engines say so by a file of their own.
        user.other_names = spec.mounts.iter().any(|mount| mount.destination == RESOLV_CONF);
    }
    Ok(networks)
}

/// The limit of memory, in whole units. A machine has its kernel in there too.
fn memory(resources: &Resources) -> Option<u64> {
    let limit = u64::try_from(resources.memory.as_ref()?.limit?).ok().filter(|&limit| limit > 0)?;
    // No limit is the largest number of pages to some engines.
    let limit = (limit < i64::MAX.unsigned_abs() / 2).then_some(limit)?;
    Some(limit.max(LEAST_MEMORY).next_multiple_of(MEMORY_UNIT))
}

/// As many processors as the quota of time would keep busy.
fn cpus(resources: &Resources) -> Option<u32> {
    let cpu = resources.cpu.as_ref()?;
    let quota = u64::try_from(cpu.quota?).ok().filter(|&quota| quota > 0)?;
    let period = cpu.period.filter(|&period| period > 0)?;
    parse_cpus(&quota.div_ceil(period).to_string()).ok()
}

/// Checks what the settings say together.
pub(super) fn check(machine: &MachineConfig) -> Result<(), String> {
    machine.layout().map(drop).map_err(|error| OciWording.line(&error.complaint()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(annotations: &str, resources: &str) -> Spec {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","annotations":{annotations},"linux":{{"resources":{resources}}}}}"#
        );
        Spec::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn annotations_come_before_the_engines_limits() {
        let limits = r#"{"memory":{"limit":300000000},"cpu":{"quota":150000,"period":100000}}"#;
        for (annotations, resources, expected) in [
            ("{}", "{}", (64, 1024, 1)),
            ("{}", limits, (64, 288, 2)),
            ("{}", r#"{"memory":{"limit":-1},"cpu":{"quota":-1,"period":100000}}"#, (64, 1024, 1)),
            ("{}", r#"{"memory":{"limit":9223372036854771712}}"#, (64, 1024, 1)),
            ("{}", r#"{"memory":{"limit":4096}}"#, (64, 128, 1)),
            (
                r#"{"cloister.epc":"8M","cloister.memory":"2G","cloister.cpus":"4","other":"x"}"#,
                limits,
                (8, 2048, 4),
            ),
        ] {
            let machine = machine(&spec(annotations, resources)).unwrap();

            let found = (machine.epc[0].size >> 20, machine.ram >> 20, machine.cpus);
            assert_eq!(found, expected, "{annotations} {resources}");
        }
    }

    #[test]
    fn the_engines_name_servers_are_left_to_it() {
        for (place, expected) in [("/etc/resolv.conf", true), ("/etc/hosts", false)] {
            let text = format!(
                r#"{{"ociVersion":"1.0.2","annotations":{{"cloister.net":"user"}},
                     "mounts":[{{"destination":"{place}","source":"/x"}}]}}"#
            );
            let networks = networks(&Spec::parse(text.as_bytes()).unwrap()).unwrap();

            let Link::User(user) = &networks[0].link else { panic!("{networks:?}") };
            assert_eq!(user.other_names, expected, "{place}");
        }
    }

    #[test]
    fn wrong_annotations_are_one_line_that_names_them_and_the_fix() {
        for (name, value, expected) in [
            ("cloister.epc", "x", "cloister.epc: \"x\" is not a size"),
            ("cloister.memory", "1K", "cloister.memory: 1K"),
            ("cloister.cpus", "0", "cloister.cpus: \"0\" is not a number of processors"),
            ("cloister.cpu", "host,+x", "cloister.cpu: "),
            (
                "cloister.net",
                "tap=tap0",
                "cloister.net: \"tap=tap0\" is not for containers: write user",
            ),
            ("cloister.net", "x", "cloister.net: \"x\" is not a network: write user"),
            (
                "cloister.ecp",
                "1M",
                "cloister.ecp: there is no such annotation: write cloister.epc, ",
            ),
        ] {
            let spec = spec(&format!(r#"{{"{name}":"{value}"}}"#), "{}");

            let line =
                machine(&spec).map(drop).and_then(|()| networks(&spec).map(drop)).unwrap_err();

            assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
        }
    }
}
