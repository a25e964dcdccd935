//! Commands about processors.

use cloister_cpu::Counts;
use serde::Serialize;

use super::{Outcome, give};
use crate::qmp::context::Context;
use crate::qmp::request::{Arguments, QmpError};

/// `CpuInfoFast`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CpuInfo {
    cpu_index: u32,
    qom_path: String,
    /// The thread of the host that executes it.
    thread_id: i32,
    props: CpuProperties,
    target: &'static str,
}

/// `CpuInstanceProperties`: where the processor is in the topology that CPUID tells.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CpuProperties {
    /// Its NUMA node, if the machine has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<usize>,
    socket_id: u32,
    core_id: u32,
    thread_id: u32,
}

/// `query-cpus-fast`.
pub(super) fn query_cpus_fast(context: &Context, _: &Arguments) -> Outcome {
    let threads = context.control.cpu_threads(context.config.cpus).ok_or_else(|| {
        QmpError::generic("the machine is between two boots and has no threads: ask again")
    })?;
    let node_of = |cpu| context.config.nodes.iter().position(|node| node.cpus.contains(&cpu));
    let infos = (0..).zip(threads).map(|(cpu, thread)| CpuInfo {
        cpu_index: cpu,
        // What QEMU calls processors of the command line, for clients that look for it.
        qom_path: format!("/machine/unattached/device[{cpu}]"),
        thread_id: thread.as_raw_nonzero().get(),
        props: CpuProperties { node_id: node_of(cpu), socket_id: 0, core_id: cpu, thread_id: 0 },
        target: "x86_64",
    });
    give(infos.collect::<Vec<_>>())
}

/// What a processor and its translator have done.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CpuStats {
    cpu_index: u32,
    blocks: u64,
    instructions: u64,
    guest_bytes: u64,
    code_bytes: u64,
    nanoseconds: u64,
    evictions: u64,
    entries: u64,
    interpreted_runs: u64,
}

impl CpuStats {
    fn new((cpu_index, counts): (u32, Counts)) -> Self {
        Self {
            cpu_index,
            blocks: counts.blocks,
            instructions: counts.instructions,
            guest_bytes: counts.guest_bytes,
            code_bytes: counts.code_bytes,
            nanoseconds: counts.nanoseconds,
            evictions: counts.evictions,
            entries: counts.entries,
            interpreted_runs: counts.interpreted_runs,
        }
    }
}

/// `x-query-cpu-stats`. QEMU has no such command, as the `x-` says.
pub(super) fn query_cpu_stats(context: &Context, _: &Arguments) -> Outcome {
    let counts = context.translators.counts().into_iter();
    give(counts.map(CpuStats::new).collect::<Vec<_>>())
}
