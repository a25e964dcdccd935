//! `human-monitor-command`: lines of the monitor that QEMU has for people (HMP), with its words.

mod registers;

use serde_json::Value;

use self::registers::Registers;
use super::{Outcome, give};
use crate::qmp::context::Context;
use crate::qmp::request::{Arguments, QmpError};

/// The line.
pub(super) const COMMAND_LINE: &str = "command-line";
/// The processor that the line is about, if it names none.
pub(super) const CPU_INDEX: &str = "cpu-index";

/// What `info` can tell.
const INFO: &str = "info registers [-a|vcpu] -- show the cpu registers (-a: show register info for \
                    all cpus; vcpu: specific vCPU to query)\n";

/// `human-monitor-command`. What is wrong with the line is text for people too; what keeps the machine
/// from answering is an error.
pub(super) fn human_monitor_command(context: &Context, arguments: &Arguments) -> Outcome {
    let Some(Value::String(line)) = arguments.get(COMMAND_LINE) else {
        return Err(QmpError::generic(format!("the argument '{COMMAND_LINE}' is not a string")));
    };
    let cpu = match arguments.get(CPU_INDEX) {
        None => 0,
        Some(index) => processor(index, context.config.cpus).ok_or_else(|| {
            QmpError::generic(format!("the argument '{CPU_INDEX}' is not a processor's number"))
        })?,
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let text = match words[..] {
        [] => String::new(),
        ["info"] => INFO.to_owned(),
        ["info", "registers", ref options @ ..] => info_registers(context, options, cpu)?,
        ["info", item, ..] => format!("unknown command: 'info {item}'\n"),
        [command, ..] => format!("unknown command: '{command}'\n"),
    };
    // As on a terminal.
    give(text.replace('\n', "\r\n"))
}

/// The number of one of `cpus` processors.
fn processor(index: &Value, cpus: u32) -> Option<u32> {
    index.as_u64().and_then(|index| u32::try_from(index).ok()).filter(|&index| index < cpus)
}

/// `info registers`: those of processor `current`, of the one that is named, or of all (`-a`).
fn info_registers(context: &Context, options: &[&str], current: u32) -> Result<String, QmpError> {
    let cpus = context.config.cpus;
    let mut asked = current..current + 1;
    let mut all = false;
    for &option in options {
        if option == "-a" {
            all = true;
        } else if option.starts_with('-') {
            return Ok(format!("registers: unsupported option {option}\n"));
        } else {
            match option.parse() {
                Ok(cpu) if cpu < cpus => asked = cpu..cpu + 1,
                Ok(cpu) => return Ok(format!("CPU#{cpu} not available\n")),
                Err(_) => {
                    return Ok(format!("registers: '{option}' is not a processor's number\n"));
                }
            }
        }
    }
    if all {
        asked = 0..cpus;
    }
    let states = context.control.ask(asked.clone(), |vcpu| vcpu.state());
    let states = states.map_err(|error| QmpError::generic(error.to_string()))?;
    let states: Result<Vec<_>, _> = states.into_iter().collect();
    let states = states.map_err(|error| QmpError::generic(error.to_string()))?;
    let shown = asked.zip(&states).map(|(cpu, state)| format!("\nCPU#{cpu}\n{}", Registers(state)));
    Ok(shown.collect())
}
