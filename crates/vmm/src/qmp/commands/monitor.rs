//! Commands about the monitor itself.

use serde::Serialize;
use serde_json::{Value, json};

use super::{COMMANDS, Outcome, Parameter, check, done, give};
use crate::qmp::context::Context;
use crate::qmp::request::{Arguments, QmpError};

/// The command that ends the negotiation of capabilities.
pub(in crate::qmp) const NEGOTIATE: &str = "qmp_capabilities";

/// The only parameter of [`NEGOTIATE`]: the capabilities that the client wants.
const ENABLE: &str = "enable";

/// `VersionInfo`.
#[derive(Serialize)]
pub(in crate::qmp) struct Version {
    qemu: VersionTriple,
    package: String,
}

#[derive(Serialize)]
struct VersionTriple {
    major: u32,
    minor: u32,
    micro: u32,
}

/// The version: that of the QEMU whose monitor this one is like, and in `package` what it is.
pub(in crate::qmp) fn version() -> Version {
    Version {
        qemu: VersionTriple { major: 9, minor: 0, micro: 0 },
        package: concat!("cloister ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// `qmp_capabilities`: no capability is offered, so none can be enabled.
pub(in crate::qmp) fn negotiate(arguments: &Arguments) -> Outcome {
    check(&[Parameter { name: ENABLE, required: false }], arguments)?;
    match arguments.get(ENABLE) {
        None => done(),
        Some(Value::Array(wanted)) => match wanted.first() {
            None => done(),
            Some(Value::String(name)) => Err(QmpError::generic(format!(
                "the argument '{ENABLE}' has the capability '{name}', which is not offered"
            ))),
            Some(_) => Err(QmpError::generic(format!(
                "the argument '{ENABLE}' has an element that is not a string"
            ))),
        },
        Some(_) => Err(QmpError::generic(format!("the argument '{ENABLE}' is not an array"))),
    }
}

/// `query-version`.
pub(super) fn query_version(_: &Context, _: &Arguments) -> Outcome {
    give(version())
}

/// `query-commands`.
pub(super) fn query_commands(_: &Context, _: &Arguments) -> Outcome {
    let names = std::iter::once(NEGOTIATE).chain(COMMANDS.iter().map(|command| command.name));
    give(names.map(|name| json!({ "name": name })).collect::<Vec<_>>())
}

/// `query-name`.
pub(super) fn query_name(context: &Context, _: &Arguments) -> Outcome {
    match &context.config.name {
        Some(name) => give(json!({ "name": name })),
        None => done(),
    }
}
