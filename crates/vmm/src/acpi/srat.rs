//! System Resource Affinity Table (ACPI 6.4, 5.2.16): processors, RAM and EPC by node. Linux
//! looks up the node of an EPC section here.

use std::iter;

use acpi_tables::Aml;
use acpi_tables::sdt::Sdt;
use acpi_tables::srat::MemoryAffinity;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes_of};
use crate::nodes;

/// Bytes of the table's header and its twelve reserved bytes.
const FIXED_LEN: u32 = 48;

pub(super) fn table(platform: &Platform<'_>) -> Sdt {
    let mut table = Sdt::new(*b"SRAT", FIXED_LEN, 3, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // The first reserved field is one, for backward compatibility (table 5.50).
    table.write_u32(36, 1);
    for (id, node) in (0..).zip(nodes::homes(platform.nodes, platform.cpus)) {
        table.append_slice(&processor_affinity(id, node));
    }
    let epc_nodes = platform.epc_nodes.iter().copied().chain(iter::repeat(0));
    let epc = epc_nodes.zip(platform.layout.epc().iter().cloned());
    for (node, range) in nodes::ram(platform.nodes, platform.layout).into_iter().chain(epc) {
        let affinity = MemoryAffinity::new(node, range.start, range.end - range.start).enabled();
        table.append_slice(&bytes_of(&affinity as &dyn Aml));
    }
    table
}

/// Processor Local APIC/SAPIC Affinity structure (table 5.51).
fn processor_affinity(apic_id: u8, node: u32) -> [u8; 16] {
    const ENABLED: u8 = 1;
    let [low, high @ ..] = node.to_le_bytes();
    let mut entry = [0; 16];
    entry[1] = 16;
    entry[2] = low;
    entry[3] = apic_id;
    entry[4] = ENABLED;
    entry[9..12].copy_from_slice(&high);
    entry
}
