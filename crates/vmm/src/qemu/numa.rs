//! `-numa`: the guest's nodes.

use std::collections::BTreeMap;

use super::QemuError;
use super::list::OptionList;
use super::object::{Backends, Kind, range};
use super::size::{Unit, bytes};
use crate::nodes::{MAX_NODES, NodeConfig};

const NUMA: &str = "-numa";
const NODE_KEYS: &[&str] = &["type", "nodeid", "cpus", "memdev", "mem"];
const CPU_KEYS: &[&str] = &["type", "node-id", "socket-id", "core-id", "thread-id"];

/// What the `-numa` options say, as they are read.
#[derive(Default, Debug)]
pub(super) struct Numa {
    nodes: BTreeMap<usize, Node>,
    /// `-numa cpu`: the node, and the one processor or all of them.
    cpus: Vec<(usize, Option<u32>)>,
}

#[derive(Default, Debug)]
struct Node {
    /// Ranges of processors, both ends in them.
    cpus: Vec<(u32, u32)>,
    memory: Memory,
}

#[derive(Default, Debug)]
enum Memory {
    #[default]
    None,
    Bytes(u64),
    Object(String),
}

impl Numa {
    /// Reads a `-numa`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(NUMA, Some("type"), text);
        match list.require("type", "-numa node,nodeid=0,cpus=0-1,memdev=ram0")?.as_str() {
            "node" => self.add_node(list),
            "cpu" => self.add_cpu(list),
            name @ ("dist" | "hmat-lb" | "hmat-cache") => Err(QemuError::value(
                NUMA,
                format!("QEMU has {name} and Cloister does not"),
                "leave it out",
            )),
            name => {
                let why = format!("there is no {name:?}");
                Err(QemuError::value(NUMA, why, "write node or cpu"))
            }
        }
    }

    fn add_node(&mut self, mut list: OptionList) -> Result<(), QemuError> {
        // As QEMU numbers a node that has no number.
        let next = self.nodes.len();
        let number = match list.take("nodeid")? {
            Some(text) => number(&text)?,
            None => next,
        };
        let mut cpus = Vec::new();
        for text in list.take_all("cpus")? {
            cpus.push(range(&text).ok_or_else(|| {
                let why = format!("cpus: {text:?} is not a processor or a range of processors");
                QemuError::value(NUMA, why, "write one such as 2 or 0-3")
            })?);
        }
        let memory = match (list.take("memdev")?, list.take("mem")?) {
            (None, None) => Memory::None,
            (Some(id), None) => Memory::Object(id),
            (None, Some(size)) => Memory::Bytes(node_size(&size)?),
            (Some(_), Some(_)) => {
                let why = format!("node {number} has mem and memdev");
                return Err(QemuError::value(NUMA, why, "leave one out"));
            }
        };
        list.finish(&["initiator"], NODE_KEYS)?;
        if self.nodes.insert(number, Node { cpus, memory }).is_some() {
            let why = format!("node {number} is given twice");
            return Err(QemuError::value(NUMA, why, "give each a nodeid of its own"));
        }
        Ok(())
    }

    fn add_cpu(&mut self, mut list: OptionList) -> Result<(), QemuError> {
        let node = number(&list.require("node-id", "-numa cpu,node-id=0,core-id=0")?)?;
        let core = match list.take("core-id")? {
            Some(text) => Some(text.parse().map_err(|_| {
                let why = format!("core-id: {text:?} is not a processor");
                QemuError::value(NUMA, why, "write its number")
            })?),
            None => None,
        };
        // All processors are cores of one socket.
        list.allow(&[
            ("socket-id", "0"),
            ("die-id", "0"),
            ("cluster-id", "0"),
            ("thread-id", "0"),
        ])?;
        list.finish(&["book-id", "drawer-id", "module-id"], CPU_KEYS)?;
        self.cpus.push((node, core));
        Ok(())
    }

    /// The nodes of a machine of `cpus` processors. Whether they are all of the machine is judged
    /// with it.
    pub(super) fn finish(
        self,
        cpus: u32,
        backends: &mut Backends,
    ) -> Result<Vec<NodeConfig>, QemuError> {
        let mut nodes = Vec::new();
        for (expected, (number, node)) in self.nodes.into_iter().enumerate() {
            if number != expected {
                return Err(QemuError::value(
                    NUMA,
                    format!("node {expected} is missing and node {number} is there"),
                    "number the nodes from 0 without gaps",
                ));
            }
            let ram = match node.memory {
                Memory::None => 0,
                Memory::Bytes(size) => size,
                Memory::Object(id) => backends.take(NUMA, "memdev", &id, Kind::Ram)?.size,
            };
            let mut config = NodeConfig { cpus: Vec::new(), ram };
            for (first, last) in node.cpus {
                // Past the last processor, one is enough to be refused.
                config.cpus.extend(first..=last.min(first.max(cpus)));
            }
            nodes.push(config);
        }
        for (node, core) in self.cpus {
            let count = nodes.len();
            let Some(config) = nodes.get_mut(node) else {
                let why = format!("cpu: there is no node {node}");
                let fix = match count {
                    0 => "add -numa node,nodeid=0".to_owned(),
                    _ => format!("write node-id=0 to {}", count - 1),
                };
                return Err(QemuError::value(NUMA, why, fix));
            };
            match core {
                Some(cpu) => config.cpus.push(cpu),
                None => config.cpus.extend(0..cpus),
            }
        }
        // QEMU puts the processors of one socket on its node where nobody says where they are.
        if nodes.iter().all(|node| node.cpus.is_empty())
            && let Some(first) = nodes.first_mut()
        {
            first.cpus.extend(0..cpus);
        }
        Ok(nodes)
    }
}

fn number(text: &str) -> Result<usize, QemuError> {
    text.parse().ok().filter(|&number| number < MAX_NODES).ok_or_else(|| {
        let why = format!("{text:?} is not a node number");
        QemuError::value(NUMA, why, format!("write 0 to {}", MAX_NODES - 1))
    })
}

/// The size of a node's memory, which may be zero.
fn node_size(text: &str) -> Result<u64, QemuError> {
    if text == "0" { Ok(0) } else { bytes(NUMA, "mem", text, Unit::Mebibyte) }
}
