//! `-cpu` and `-smp`.

use super::QemuError;
use super::list::OptionList;
use crate::config::parse_cpus;
use crate::cpu_flags::CpuConfig;

const CPU: &str = "-cpu";
const SMP: &str = "-smp";

/// Levels of QEMU's topology that have one of each here: all processors are cores of one socket.
const ONES: [&str; 7] = ["sockets", "dies", "clusters", "modules", "threads", "books", "drawers"];
const SMP_KEYS: &[&str] = &["cpus", "maxcpus", "cores", "sockets", "dies", "clusters", "threads"];

/// Reads `-cpu`: a model, then flags as `+flag`, `-flag`, `flag=on` or `flag=off`. QEMU's `max` is
/// all that the accelerator does, and so is `host` here.
pub(super) fn cpu(text: &str) -> Result<CpuConfig, QemuError> {
    let (model, flags) = text.split_once(',').unwrap_or((text, ""));
    if !matches!(model, "host" | "max") {
        return Err(QemuError::value(
            CPU,
            format!("{model:?} is not a CPU model of Cloister"),
            "write host or max, then flags such as -sgx2",
        ));
    }
    let mut words = vec!["host".to_owned()];
    for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
        words.push(match flag.split_once('=') {
            Some((name, "on" | "yes" | "true" | "y")) => format!("+{name}"),
            Some((name, "off" | "no" | "false" | "n")) => format!("-{name}"),
            Some((name, value)) => {
                return Err(QemuError::NotBool {
                    option: CPU,
                    key: name.escape_debug().to_string(),
                    value: value.to_owned(),
                });
            }
            None => flag.to_owned(),
        });
    }
    CpuConfig::parse(&words.join(",")).map_err(|error| QemuError::refused(CPU, error))
}

/// Reads `-smp` and returns the number of processors.
pub(super) fn smp(text: &str) -> Result<u32, QemuError> {
    let mut list = OptionList::parse(SMP, Some("cpus"), text);
    let cpus = count(&mut list, "cpus")?;
    let cores = count(&mut list, "cores")?;
    let most = count(&mut list, "maxcpus")?;
    for key in ONES {
        if let Some(number) = count(&mut list, key)?
            && number != 1
        {
            return Err(QemuError::value(
                SMP,
                format!("{key}={number}: the processors of Cloister are cores of one socket"),
                format!("write {key}=1 or leave it out"),
            ));
        }
    }
    list.finish(&[], SMP_KEYS)?;
    let cpus = cpus.or(cores).unwrap_or(1);
    for (key, number) in [("cores", cores), ("maxcpus", most)] {
        if let Some(number) = number.filter(|&number| number != cpus) {
            return Err(QemuError::value(
                SMP,
                format!("{key}={number} and {cpus} processors"),
                format!("write {key}={cpus} or leave it out"),
            ));
        }
    }
    Ok(cpus)
}

/// Takes a number of processors out.
fn count(list: &mut OptionList, key: &str) -> Result<Option<u32>, QemuError> {
    let Some(text) = list.take(key)? else { return Ok(None) };
    parse_cpus(&text).map(Some).map_err(|error| match key {
        "cpus" => QemuError::refused(SMP, error),
        _ => QemuError::refused(SMP, format!("{key}: {error}")),
    })
}
