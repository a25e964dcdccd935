//! NUMA nodes of the guest: which processors, which RAM and which EPC sections are near each other.

use std::ops::Range;

use thiserror::Error;

use crate::layout::Layout;
use crate::size::format_size;

/// The maximum number of nodes, as in QEMU.
pub const MAX_NODES: usize = 128;

/// A NUMA node of the guest. Its number is its position in the list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeConfig {
    /// Numbers of its processors.
    pub cpus: Vec<u32>,
    /// RAM in bytes, a multiple of the page size; it follows that of the nodes before.
    pub ram: u64,
}

/// Why nodes do not make up the machine.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NodeError {
    /// More nodes than [`MAX_NODES`].
    #[error("{0} nodes are more than the {MAX_NODES} that a machine may have: leave some out")]
    TooMany(usize),
    /// A node has a processor that the machine does not have.
    #[error("node {node} has processor {cpu} and the machine has 0 to {last}: leave it out")]
    NoSuchCpu {
        /// The node.
        node: usize,
        /// The processor.
        cpu: u32,
        /// The last processor.
        last: u32,
    },
    /// A processor of two nodes.
    #[error("processor {cpu} is in node {first} and in node {second}: leave it out of one")]
    CpuTwice {
        /// The processor.
        cpu: u32,
        /// A node that has it.
        first: usize,
        /// Another, or the same again.
        second: usize,
    },
    /// A processor of no node.
    #[error("processor {0} is in no node: add it to the cpus= of one")]
    CpuNowhere(u32),
    /// The nodes' RAM is not the machine's.
    #[error(
        "the nodes have {} of memory together and the machine has {}: make them equal",
        format_size(*.nodes), format_size(*.machine)
    )]
    Ram {
        /// Sum over the nodes, in bytes.
        nodes: u64,
        /// RAM of the machine, in bytes.
        machine: u64,
    },
    /// A node that a guest would not bring up.
    #[error("node {0} has neither processors nor memory: give it some, or leave it out")]
    Empty(usize),
    /// An EPC section on a node that is not there.
    #[error("EPC section {section} is on node {node}, which is not there: {fix}")]
    NoSuchNode {
        /// The section's id.
        section: String,
        /// The node.
        node: u32,
        /// How it may be meant.
        fix: String,
    },
}

/// Whether each of `cpus` processors, all of `ram` and each EPC section, by its id and its node, have
/// their place on `nodes`. No nodes stand for one that has everything.
///
/// # Errors
///
/// [`NodeError`].
pub fn check<'a>(
    nodes: &[NodeConfig],
    cpus: u32,
    ram: u64,
    epc: impl IntoIterator<Item = (&'a str, u32)>,
) -> Result<(), NodeError> {
    if nodes.len() > MAX_NODES {
        return Err(NodeError::TooMany(nodes.len()));
    }
    let last = u32::try_from(nodes.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if let Some((section, node)) = epc.into_iter().find(|(_, node)| *node > last) {
        let fix = if last == 0 { "write 0".to_owned() } else { format!("write 0 to {last}") };
        return Err(NodeError::NoSuchNode { section: section.to_owned(), node, fix });
    }
    if nodes.is_empty() {
        return Ok(());
    }
    let mut homes = vec![None; cpus as usize];
    for (node, config) in nodes.iter().enumerate() {
        for &cpu in &config.cpus {
            let home = homes.get_mut(cpu as usize);
            let home = home.ok_or(NodeError::NoSuchCpu { node, cpu, last: cpus - 1 })?;
            if let Some(first) = home.replace(node) {
                return Err(NodeError::CpuTwice { cpu, first, second: node });
            }
        }
    }
    if let Some((cpu, _)) = (0..).zip(&homes).find(|(_, home)| home.is_none()) {
        return Err(NodeError::CpuNowhere(cpu));
    }
    let total = nodes.iter().fold(0_u64, |sum, node| sum.saturating_add(node.ram));
    if total != ram {
        return Err(NodeError::Ram { nodes: total, machine: ram });
    }
    let empty = |node: &NodeConfig| node.cpus.is_empty() && node.ram == 0;
    match nodes.iter().position(empty) {
        Some(node) => Err(NodeError::Empty(node)),
        None => Ok(()),
    }
}

/// The node of each of `cpus` processors. One that `nodes` do not name is on node 0.
#[must_use]
pub fn homes(nodes: &[NodeConfig], cpus: u32) -> Vec<u32> {
    let mut homes = vec![0; cpus as usize];
    for (node, config) in (0..).zip(nodes) {
        for &cpu in &config.cpus {
            if let Some(home) = homes.get_mut(cpu as usize) {
                *home = node;
            }
        }
    }
    homes
}

/// The RAM of `layout` by node, in ascending order: each node takes what the nodes before left, and
/// one that reaches the 32-bit hole has a second range after it. RAM that no node takes is on
/// node 0.
#[must_use]
pub fn ram(nodes: &[NodeConfig], layout: &Layout) -> Vec<(u32, Range<u64>)> {
    let mut left = (0..).zip(nodes).map(|(node, config)| (node, config.ram));
    let (mut node, mut room) = left.next().unwrap_or((0, u64::MAX));
    let mut placed = Vec::new();
    for mut range in layout.ram() {
        while !range.is_empty() {
            while room == 0 {
                (node, room) = left.next().unwrap_or((0, u64::MAX));
            }
            let part = room.min(range.end - range.start);
            placed.push((node, range.start..range.start + part));
            range.start += part;
            room -= part;
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{HIGH_RAM_BASE, LOW_RAM_LIMIT};

    const GIB: u64 = 1 << 30;

    fn node(cpus: &[u32], ram: u64) -> NodeConfig {
        NodeConfig { cpus: cpus.to_vec(), ram }
    }

    #[test]
    fn nodes_that_share_out_the_machine_are_good() {
        for nodes in [
            vec![],
            vec![node(&[0, 1, 2, 3], 4 * GIB)],
            vec![node(&[0, 2], GIB), node(&[3, 1], 3 * GIB)],
            vec![node(&[], 4 * GIB), node(&[0, 1, 2, 3], 0)],
        ] {
            let last = nodes.len().max(1) as u32 - 1;
            assert_eq!(check(&nodes, 4, 4 * GIB, [("a", 0), ("b", last)]), Ok(()));
        }
    }

    #[test]
    fn nodes_that_do_not_make_up_the_machine_say_why() {
        for (nodes, line) in [
            (
                vec![node(&[0, 4], 4 * GIB)],
                "node 0 has processor 4 and the machine has 0 to 3: leave it out",
            ),
            (
                vec![node(&[0, 1, 2], GIB), node(&[2, 3], 3 * GIB)],
                "processor 2 is in node 0 and in node 1: leave it out of one",
            ),
            (
                vec![node(&[0, 1, 1], GIB)],
                "processor 1 is in node 0 and in node 0: leave it out of one",
            ),
            (
                vec![node(&[0, 1], GIB), node(&[3], 3 * GIB)],
                "processor 2 is in no node: add it to the cpus= of one",
            ),
            (
                vec![node(&[0, 1], GIB), node(&[2, 3], GIB)],
                "the nodes have 2G of memory together and the machine has 4G: make them equal",
            ),
            (
                vec![node(&[0, 1, 2, 3], u64::MAX), node(&[], u64::MAX)],
                "the nodes have 18446744073709551615 of memory together and the machine has 4G: \
                 make them equal",
            ),
            (
                vec![node(&[0, 1, 2, 3], 4 * GIB), node(&[], 0)],
                "node 1 has neither processors nor memory: give it some, or leave it out",
            ),
            (
                vec![NodeConfig::default(); 129],
                "129 nodes are more than the 128 that a machine may have: leave some out",
            ),
        ] {
            let error = check(&nodes, 4, 4 * GIB, []).unwrap_err();
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn a_section_is_on_a_node_that_is_there() {
        let two = [node(&[0], GIB), node(&[], GIB)];
        for (nodes, line) in [
            (&[][..], "EPC section b is on node 2, which is not there: write 0"),
            (&two[..], "EPC section b is on node 2, which is not there: write 0 to 1"),
        ] {
            let error = check(nodes, 1, 2 * GIB, [("a", 0), ("b", 2)]).unwrap_err();
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn processors_are_where_their_node_is() {
        let nodes = [node(&[0, 3], 0), node(&[2], 0), node(&[1], 0)];

        assert_eq!(homes(&nodes, 4), [0, 2, 1, 0]);
        assert_eq!(homes(&[], 3), [0, 0, 0]);
    }

    #[test]
    fn ram_is_split_in_address_order_around_the_hole() {
        let layout = Layout::new(6 * GIB, &[]).unwrap();
        let nodes = [node(&[], GIB), node(&[], 0), node(&[], 3 * GIB), node(&[], 2 * GIB)];

        let placed = ram(&nodes, &layout);

        assert_eq!(
            placed,
            [
                (0, 0..GIB),
                (2, GIB..LOW_RAM_LIMIT),
                (2, HIGH_RAM_BASE..HIGH_RAM_BASE + GIB),
                (3, HIGH_RAM_BASE + GIB..HIGH_RAM_BASE + 3 * GIB),
            ]
        );
    }

    #[test]
    fn without_nodes_all_ram_is_on_node_0() {
        let layout = Layout::new(4 * GIB, &[]).unwrap();

        let placed = ram(&[], &layout);

        assert_eq!(placed, [(0, 0..LOW_RAM_LIMIT), (0, HIGH_RAM_BASE..HIGH_RAM_BASE + GIB)]);
    }
}
