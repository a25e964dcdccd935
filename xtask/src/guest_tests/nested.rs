//! Guests with VMX: Linux's KVM in them.

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::console::Transcript;
use crate::kernel::{self, Line};
use crate::machine::Boot;
use crate::nested::{self, CPU, EPC};

/// Words of the kernel's complaints about VMX, SGX and KVM.
const SUBJECTS: [&str; 5] = ["x86/cpu", "vmx", "VMX", "sgx", "kvm"];

/// Debian's 6.1, on one processor and on four.
pub(super) fn kvm_of_linux_6_1(setup: &Setup) -> Result<()> {
    kvm_loads(setup, &kernel::STOCK, "kvm-6.1")
}

/// Debian's 6.12.
pub(super) fn kvm_of_linux_6_12(setup: &Setup) -> Result<()> {
    kvm_loads(setup, &kernel::NEWER, "kvm-6.12")
}

fn kvm_loads(setup: &Setup, line: &Line, name: &str) -> Result<()> {
    let image = nested::kvm(line, name)?;
    for cpus in [1, 4] {
        let boot = Boot::new(&image.kernel, &image.initrd, "cloister.run=modules,kvm,sgx,dmesg");
        let boot = Boot { cpus, ..boot }.option(EPC.0, EPC.1).option(CPU.0, CPU.1);

        let transcript = setup.boot_to_power_off(&boot)?;

        expect(&transcript, &format!("Linux version {}", image.release))?;
        expect(&transcript, "kvm: /dev/kvm is there")?;
        expect(&transcript, "sgx: /dev/sgx_vepc is ")?;
        for parameter in ["ept", "unrestricted_guest", "sgx"] {
            expect(&transcript, &format!("kvm: {parameter} Y"))?;
        }
        nothing_is_wrong(&transcript)?;
    }
    Ok(())
}

/// No warning in the log of the task `dmesg`: none since init runs, and none before it that has to do
/// with what is tested.
fn nothing_is_wrong(transcript: &Transcript) -> Result<()> {
    let mut booted = false;
    for line in transcript.lines.iter().filter_map(|line| line.strip_prefix("dmesg: ")) {
        let (level, text) = line.split_once(' ').context("a line without a level")?;
        booted |= text.contains("Run /init as init process");
        // Linux's levels: 4 is a warning, lower is worse.
        let bad = level <= "4" && (booted || SUBJECTS.iter().any(|subject| text.contains(subject)));
        ensure!(!bad && !text.contains("WARNING:"), "the kernel complains: {text}");
    }
    ensure!(booted, "the log has no start of init");
    Ok(())
}
