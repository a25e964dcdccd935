//! The rules of SGX virtualization, measured: what `guest/rules` sees as a guest of Cloister, and as one of
//! Linux's KVM in L1.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use crate::console::Transcript;
use crate::kernel::{self, Line};
use crate::machine::Boot;
use crate::nested::{CPU, EPC, L2, MEMORY, Rules};

/// The processors that the guest is given, in the words of Cloister and of QEMU alike.
const MODELS: [&str; 8] = [
    "host,-sgx-provisionkey",
    "host,+sgx-provisionkey",
    "host,-sgx-provisionkey,-sgx2",
    "host,+sgx-provisionkey,-sgx2",
    "host,+sgx-provisionkey,-sgxlc",
    "host,+sgx-provisionkey,-sgx-exinfo",
    "host,+sgx-provisionkey,-sgx-debug",
    "host,-sgx1,-sgx2",
];
/// What the lines of `guest/rules` begin with.
const MARK: &str = "rule: ";

/// A rule, its outcome here and under KVM, and why they are not the same.
type Difference = (&'static str, &'static str, &'static str, &'static str);

/// With every kernel. docs/virt-rules.md has them.
const DIFFERENCES: [Difference; 7] = [
    ("ECREATE: target outside the EPC", "#GP(0x0)", "#PF(0x8003)", HOSTS_SGX2),
    ("ECREATE: a page in use", "#GP(0x0)", "#PF(0x8003)", HOSTS_SGX2),
    ("CPUID 12H.0:EBX", "0x0", "0x1", QEMUS_CPUID),
    ("CPUID 12H.1:EAX", "0x0", "0xb6", QEMUS_CPUID),
    ("the hash after reset, first part", "#GP(0x0)", "0xa6053e051270b7ac", HASH),
    ("the hash is written", "#GP(0x0)", "0x0", HASH),
    ("the hash as it was written", "#GP(0x0)", "0x123456789abcdef", HASH),
];
const HOSTS_SGX2: &str =
    "a leaf that does not exit faults by the host's SGX2 there, by the guest's here";
const QEMUS_CPUID: &str = "QEMU leaves bits that mean nothing without SGX1";
const HASH: &str = "KVM has the registers without SGX1";

/// With Linux 6.1 alone, which 6.5 has changed.
const DIFFERENCES_OF_6_1: [Difference; 4] = [
    ("ERDINFO, which is not announced", "#GP(0x0)", "#UD", UNANNOUNCED),
    ("leaf 1FH, which there is not", "#GP(0x0)", "#UD", UNANNOUNCED),
    ("leaf 40H, beyond the bitmap", "#GP(0x0)", "#UD", UNANNOUNCED),
    ("EAUG, not aligned", "#GP(0x0)", "#UD", UNANNOUNCED),
];
const UNANNOUNCED: &str = "a leaf that CPUID does not announce was #UD";

pub(super) fn of_linux_6_1(setup: &Setup) -> Result<()> {
    agree(setup, &kernel::STOCK, "rules-6.1", &[&DIFFERENCES[..], &DIFFERENCES_OF_6_1].concat())
}

pub(super) fn of_linux_6_12(setup: &Setup) -> Result<()> {
    agree(setup, &kernel::NEWER, "rules-6.12", &DIFFERENCES)
}

/// Each rule has the same outcome here and under the KVM of a kernel, but for the differences, all of
/// which are seen.
fn agree(setup: &Setup, line: &Line, name: &str, differences: &[Difference]) -> Result<()> {
    let rules = Rules::get(line, name)?;
    let append = format!("quiet cloister.run=modules,l2-each l2.each={}", MODELS.join("/"));
    let boot = Boot::new(&rules.l1.kernel, &rules.l1.initrd, &append).option(EPC.0, EPC.1);
    let boot = Boot { memory: MEMORY.to_owned(), limit: Duration::from_secs(600), ..boot };
    let kvm = setup.boot_to_power_off(&boot.option(CPU.0, CPU.1))?;

    let (mut wrong, mut seen) = (Vec::new(), HashSet::new());
    for model in MODELS {
        // A triple fault ends it.
        let boot = Boot::new(&rules.program, &rules.sigstruct, "").option(EPC.0, EPC.1);
        let here = setup.boot(&boot.option("--cpu", model))?;
        let (here, kvm) = (outcomes(&here.lines, MARK), of_model(&kvm, model)?);
        let names = |outcomes: &[Rule]| outcomes.iter().map(|(rule, _)| rule.clone()).collect();
        let (rules, also): (Vec<String>, Vec<String>) = (names(&here), names(&kvm));
        ensure!(
            rules == also && !rules.is_empty(),
            "{model}: rules {rules:?} here, {also:?} there"
        );
        for ((rule, here), (_, kvm)) in here.iter().zip(&kvm) {
            let difference = (rule.as_str(), here.as_str(), kvm.as_str());
            if differences.iter().any(|&(rule, here, kvm, _)| difference == (rule, here, kvm)) {
                seen.insert(rule.clone());
            } else if here != kvm {
                wrong.push(format!("{rule} with {model}: {here} here, {kvm} under KVM"));
            }
        }
    }
    for (rule, .., why) in differences {
        if !seen.contains(*rule) {
            wrong.push(format!("{rule} is the same now, and was not since {why}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A rule and its outcome.
type Rule = (String, String);

/// Of lines `MARK RULE: OUTCOME`.
fn outcomes(lines: &[String], mark: &str) -> Vec<Rule> {
    let split = |line: &String| {
        let (rule, outcome) = line.strip_prefix(mark)?.rsplit_once(": ")?;
        Some((rule.to_owned(), outcome.to_owned()))
    };
    lines.iter().filter_map(split).collect()
}

/// Those of an L2 with this processor.
fn of_model(l1: &Transcript, model: &str) -> Result<Vec<Rule>> {
    let begin = format!("l2-each: {model}");
    let begin = l1.lines.iter().position(|line| *line == begin);
    let begin = begin.with_context(|| format!("no L2 with {model}; last lines:\n{}", l1.tail()))?;
    let lines = &l1.lines[begin + 1..];
    let end = lines.iter().position(|line| line.starts_with("l2-each: ")).unwrap_or(lines.len());
    Ok(outcomes(&lines[..end], &format!("{L2}{MARK}")))
}
