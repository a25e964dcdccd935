//! Machines that QEMU's options describe.

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::demo;
use crate::machine::Boot;

const MIB: u64 = 1 << 20;

fn told_as_qemu(boot: Boot) -> Boot {
    Boot { qemu_options: true, ..boot }
}

/// The line of the patch series that brought SGX to KVM and QEMU in 2021, with a kernel.
pub(super) fn series(setup: &Setup) -> Result<()> {
    let image = setup.file("series.img", &[0; 1 << 20])?;
    let mut boot = told_as_qemu(setup.tasks("modules,sgx,cpus,disk,enclave-demo"))
        .option("-drive", &format!("file={image},if=virtio"))
        .option("-cpu", "host,+sgx_provisionkey")
        .option("-sgx-epc", "id=epc1,memdev=mem1")
        .option("-object", "memory-backend-epc,id=mem1,size=64M,prealloc");
    boot.cpus = 4;
    boot.memory = "2G".to_owned();

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "cpus: online 0-3 usable 4")?;
    expect(&transcript, "disk: /dev/vda 1048576 bytes")?;
    for (_, text) in demo::expectations(&setup.image) {
        expect(&transcript, &text)?;
    }
    Ok(())
}

/// Two nodes with EPC sections of different sizes on each, told as upstream QEMU has it.
pub(super) fn nodes(setup: &Setup) -> Result<()> {
    let mut boot = told_as_qemu(setup.tasks("nodes"))
        .option("-object", "memory-backend-ram,id=ram0,size=384M")
        .option("-object", "memory-backend-ram,id=ram1,size=640M")
        .option("-numa", "node,nodeid=0,cpus=0-1,memdev=ram0")
        .option("-numa", "node,nodeid=1,cpus=2-3,memdev=ram1")
        .option("-object", "memory-backend-epc,id=mem0,size=64M,host-nodes=0,policy=bind")
        .option("-object", "memory-backend-epc,id=mem1,size=32M,prealloc=on")
        .option("-object", "memory-backend-epc,id=mem2,size=8M")
        .option("-M", "q35,sgx-epc.0.memdev=mem0,sgx-epc.0.node=1")
        .option("-M", "sgx-epc.1.memdev=mem1,sgx-epc.1.node=0")
        .option("-M", "sgx-epc.2.memdev=mem2,sgx-epc.2.node=1");
    boot.cpus = 4;
    boot.memory = "1G".to_owned();

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "nodes: online 0-1")?;
    for (node, cpus, ram, epc) in [(0, "0-1", 384 * MIB, 32 * MIB), (1, "2-3", 640 * MIB, 72 * MIB)]
    {
        let start = format!("nodes: node{node} cpus {cpus} ram ");
        let line = transcript.find(&start).with_context(|| format!("no line {start:?}"))?;
        let numbers: Vec<u64> = line
            .trim_start_matches(&start)
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let [kib, bytes] = numbers[..] else { anyhow::bail!("unexpected line: {line}") };
        ensure!(bytes == epc, "node {node} has {bytes} bytes of EPC instead of {epc}");
        // The kernel counts less than there is: not what it took at boot.
        let seen = kib * 1024;
        ensure!(
            seen <= ram && seen > ram / 2,
            "node {node} has {seen} bytes of RAM, and {ram} were given"
        );
    }
    Ok(())
}
