//! The table of commands. To add one, write its function in the file of its family and name it here
//! with its parameters.

mod cpus;
mod epc;
mod human;
mod monitor;
mod power;
mod sgx;

use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::request::{Arguments, QmpError, Request};

pub(super) use monitor::{NEGOTIATE, negotiate, version};

/// What a command gives, as it is put on the wire.
type Outcome = Result<Value, QmpError>;

/// A command.
struct Command {
    name: &'static str,
    parameters: &'static [Parameter],
    run: fn(&Context, &Arguments) -> Outcome,
}

/// A parameter of a command.
struct Parameter {
    name: &'static str,
    required: bool,
}

/// A command without parameters.
const fn plain(name: &'static str, run: fn(&Context, &Arguments) -> Outcome) -> Command {
    Command { name, parameters: &[], run }
}

/// Every command but [`NEGOTIATE`], which is the session's.
const COMMANDS: &[Command] = &[
    plain("query-version", monitor::query_version),
    plain("query-commands", monitor::query_commands),
    plain("query-name", monitor::query_name),
    plain("query-status", power::query_status),
    plain("stop", power::stop),
    plain("cont", power::cont),
    plain("system_reset", power::system_reset),
    plain("system_powerdown", power::system_powerdown),
    plain("quit", power::quit),
    plain("query-cpus-fast", cpus::query_cpus_fast),
    Command {
        name: "human-monitor-command",
        parameters: &[
            Parameter { name: human::COMMAND_LINE, required: true },
            Parameter { name: human::CPU_INDEX, required: false },
        ],
        run: human::human_monitor_command,
    },
    plain("x-query-cpu-stats", cpus::query_cpu_stats),
    plain("query-sgx", sgx::query_sgx),
    plain("query-sgx-capabilities", sgx::query_sgx_capabilities),
    Command {
        name: "x-query-sgx-epc",
        parameters: &[Parameter { name: epc::PAGE_MAP, required: false }],
        run: epc::query_sgx_epc,
    },
];

/// Runs a command.
///
/// # Errors
///
/// There is no such command, its arguments are not its parameters, or what it says itself.
pub(super) fn run(context: &Context, request: &Request) -> Outcome {
    let Request { command: name, arguments } = request;
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command
        .ok_or_else(|| QmpError::not_found(format!("the command {name} has not been found")))?;
    check(command.parameters, arguments)?;
    (command.run)(context, arguments)
}

/// Whether every argument is a parameter and every parameter that is required is there.
fn check(parameters: &[Parameter], arguments: &Arguments) -> Result<(), QmpError> {
    let known = |name: &str| parameters.iter().any(|parameter| parameter.name == name);
    if let Some(unexpected) = arguments.keys().find(|name| !known(name)) {
        return Err(QmpError::generic(format!("the argument '{unexpected}' is unexpected")));
    }
    let missing = parameters
        .iter()
        .find(|parameter| parameter.required && !arguments.contains_key(parameter.name));
    match missing {
        Some(parameter) => {
            Err(QmpError::generic(format!("the argument '{}' is missing", parameter.name)))
        }
        None => Ok(()),
    }
}

/// A result in its form on the wire.
fn give(result: impl Serialize) -> Outcome {
    serde_json::to_value(result)
        .map_err(|error| QmpError::generic(format!("the result has no form in JSON: {error}")))
}

/// The result of a command that has nothing to tell.
fn done() -> Outcome {
    Ok(Value::Object(Arguments::new()))
}
