//! `-m` and `-object memory-backend-ram` and `memory-backend-epc`.

use super::QemuError;
use super::list::OptionList;
use super::names;
use super::size::{Unit, bytes, ram_bytes};
use crate::config::is_identifier;

const M: &str = "-m";
pub(super) const OBJECT: &str = "-object";
/// Nodes of the platform: a software platform has as many as its sections name, up to QEMU's limit.
const MAX_HOST_NODES: u32 = 128;

pub(super) const RAM: &str = "memory-backend-ram";
pub(super) const EPC: &str = "memory-backend-epc";
const RAM_EXAMPLE: &str = "-object memory-backend-ram,id=ram0,size=512M";
const EPC_EXAMPLE: &str = "-object memory-backend-epc,id=mem1,size=64M";

/// Keys of all of QEMU's memory backends that Cloister does not have.
const IN_QEMU: &[&str] = &[
    "host-nodes",
    "policy",
    "prealloc-context",
    "prealloc-threads",
    "reserve",
    "x-use-canonical-path-for-ramblock-id",
];

/// What a memory backend is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// RAM of a node, or of the machine.
    Ram,
    /// An EPC section.
    Epc,
}

/// A memory backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Backend {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) prealloc: bool,
    /// Node of the platform.
    pub(super) host_node: u32,
    used: bool,
}

/// All memory backends.
#[derive(Default, Debug)]
pub(super) struct Backends(Vec<Backend>);

/// Reads `-m` and returns the RAM in bytes.
pub(super) fn ram(text: &str) -> Result<u64, QemuError> {
    let mut list = OptionList::parse(M, Some("size"), text);
    let size = list.require("size", "-m 512M")?;
    list.finish(&["maxmem", "slots"], &["size"])?;
    ram_bytes(M, "size", &size)
}

impl Backends {
    /// Reads an `-object`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(OBJECT, Some("qom-type"), text);
        let backend = match list.require("qom-type", EPC_EXAMPLE)?.as_str() {
            RAM => Backend::ram(list)?,
            EPC => Backend::epc(list)?,
            name if names::is_object(name) => {
                return Err(QemuError::value(
                    OBJECT,
                    format!("QEMU has {name} and Cloister does not"),
                    format!("write {RAM} or {EPC}, or leave it out"),
                ));
            }
            name => {
                let why = format!("there is no object type {name:?}");
                return Err(QemuError::value(OBJECT, why, format!("write {RAM} or {EPC}")));
            }
        };
        if self.0.iter().any(|known| known.id == backend.id) {
            let why = format!("the id {} is given to two objects", backend.id);
            return Err(QemuError::value(OBJECT, why, "give each its own"));
        }
        self.0.push(backend);
        Ok(())
    }

    /// The backend that `key` of `option` names, for its one use.
    pub(super) fn take(
        &mut self,
        option: &'static str,
        key: &str,
        id: &str,
        kind: Kind,
    ) -> Result<Backend, QemuError> {
        let (wanted, other) = match kind {
            Kind::Ram => (RAM, EPC),
            Kind::Epc => (EPC, RAM),
        };
        let Some(backend) = self.0.iter_mut().find(|backend| backend.id == id) else {
            return Err(QemuError::value(
                option,
                format!("{key} names {id:?}, and there is no such object"),
                format!("add -object {wanted},id={},size=SIZE", id.escape_debug()),
            ));
        };
        if backend.kind != kind {
            let why = format!("{key} names {id}, which is a {other}");
            return Err(QemuError::value(option, why, format!("name a {wanted}")));
        }
        if std::mem::replace(&mut backend.used, true) {
            let why = format!("{key} names {id}, which is in use already");
            return Err(QemuError::value(option, why, "give each use an object of its own"));
        }
        Ok(backend.clone())
    }

    /// Refuses a backend that nothing uses.
    pub(super) fn finish(&self) -> Result<(), QemuError> {
        let Some(unused) = self.0.iter().find(|backend| !backend.used) else { return Ok(()) };
        let id = &unused.id;
        let fix = match unused.kind {
            Kind::Ram => format!("add -numa node,memdev={id} or -machine memory-backend={id}"),
            Kind::Epc => format!("add -M sgx-epc.0.memdev={id},sgx-epc.0.node=0"),
        };
        Err(QemuError::value(OBJECT, format!("nothing uses {id}"), fix + ", or leave it out"))
    }
}

impl Backend {
    fn ram(mut list: OptionList) -> Result<Self, QemuError> {
        let (id, size) = id_and_size(&mut list, RAM_EXAMPLE)?;
        list.allow(&[("prealloc", "off"), ("share", "off"), ("merge", "off"), ("dump", "on")])?;
        list.finish(IN_QEMU, &["qom-type", "id", "size"])?;
        Ok(Self { id, kind: Kind::Ram, size, prealloc: false, host_node: 0, used: false })
    }

    fn epc(mut list: OptionList) -> Result<Self, QemuError> {
        let (id, size) = id_and_size(&mut list, EPC_EXAMPLE)?;
        let prealloc = list.take_bool("prealloc")?.unwrap_or(false);
        let host_node = host_node(&mut list)?;
        list.allow(&[("share", "on"), ("merge", "off"), ("dump", "off")])?;
        list.finish(IN_QEMU, &["qom-type", "id", "size", "prealloc", "host-nodes", "policy"])?;
        Ok(Self { id, kind: Kind::Epc, size, prealloc, host_node, used: false })
    }
}

fn id_and_size(list: &mut OptionList, example: &'static str) -> Result<(String, u64), QemuError> {
    let id = list.require("id", example)?;
    if !is_identifier(&id) {
        return Err(QemuError::value(
            OBJECT,
            format!("{id:?} is not an id"),
            "write a letter, then letters, digits, -, _ or .",
        ));
    }
    let size = list.require("size", example)?;
    Ok((id, bytes(OBJECT, "size", &size, Unit::Byte)?))
}

/// Takes out which node of the platform the pages come from. On one node all policies are the same.
fn host_node(list: &mut OptionList) -> Result<u32, QemuError> {
    let wrong = |why: String, fix: &str| Err(QemuError::value(OBJECT, why, fix));
    let mut node = None;
    for text in list.take_all("host-nodes")? {
        let Some((first, last)) = range(&text).filter(|(_, last)| *last < MAX_HOST_NODES) else {
            return wrong(format!("host-nodes: {text:?} is not a node"), "write 0 to 127");
        };
        if first != last || node.replace(first).is_some() {
            return wrong(
                "host-nodes: a section is on one node of the platform".into(),
                "name one",
            );
        }
    }
    let policy = list.take("policy")?;
    match (policy.as_deref().unwrap_or("default"), node) {
        ("default", None) => Ok(0),
        ("bind" | "preferred" | "interleave", Some(node)) => Ok(node),
        ("default", Some(_)) => {
            wrong("host-nodes is given and policy is default".into(), "add policy=bind")
        }
        (policy @ ("bind" | "preferred" | "interleave"), None) => {
            wrong(format!("policy is {policy} and host-nodes is missing"), "add host-nodes=0")
        }
        (policy, _) => wrong(
            format!("policy: {policy:?} is not a policy"),
            "write default, bind, preferred or interleave",
        ),
    }
}

/// Reads `N` or `N-M`.
pub(super) fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}
