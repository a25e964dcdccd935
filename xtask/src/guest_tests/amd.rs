//! L1 on AMD's processors, with SVM, as QEMU's translator has them: Linux's kvm_amd.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::console::Transcript;
use crate::machine::{Boot, Machine, Qemu};
use crate::nested::{self, L2, MORE_MEMORY, Vmm};

/// Translated twice.
const LIMIT: Duration = Duration::from_secs(900);
/// What a line says where software processors are chosen.
const SOFT: &str = "software processors, since ";

/// Where KVM runs a guest without SGX, it is chosen, and Linux has a clock.
pub(super) fn chosen(setup: &Setup) -> Result<()> {
    let transcript = l1(setup, "l2.epc=none l2.run=dmesg:clock")?;

    let l2 = transcript.marked(L2);
    ensure!(transcript.find(SOFT).is_none(), "not by KVM:\n{}", transcript.tail());
    for said in ["init: up after", "kvm-clock: Using msrs", "clocksource: Switched to clocksource"]
    {
        ensure!(l2.iter().any(|line| line.contains(said)), "no {said}:\n{}", transcript.tail());
    }
    Ok(())
}

/// The translator has no breakpoints for guests, so that SGX needs software processors, and the line says why.
pub(super) fn passed_over(setup: &Setup) -> Result<()> {
    let transcript = l1(setup, "l2.run=sgx l2.prealloc=off")?;

    expect(&transcript, SOFT)?;
    expect(&transcript, "does not stop a guest at its handler of #UD")?;
    expect(&transcript, &format!("{L2}sgx: /dev/sgx_enclave is "))
}

fn l1(setup: &Setup, l2: &str) -> Result<Transcript> {
    let program = setup.program()?;
    let initrd = nested::initrd_for_amd(&setup.image.initrd, "nested-amd", Vmm::Cloister(program))?;
    let append = format!(
        "quiet panic=-1 cloister.run=modules,l2 l2.vmm=cloister l2.accel=auto l2.memory=256M {l2}"
    );
    let boot = Boot::new(&setup.image.kernel, &initrd, &append);
    let boot = Boot { memory: MORE_MEMORY.to_owned(), limit: LIMIT, ..boot };
    setup.on(Machine::Qemu(Qemu::get()?)).boot_to_power_off(&boot)
}
