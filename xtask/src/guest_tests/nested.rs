//! Guests with VMX: Linux's KVM in them (L1), and guests of their own (L2) that have SGX.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Setup;
use super::setup::expect;
use super::sgx::BOUND;
use crate::console::Transcript;
use crate::demo;
use crate::kernel::{self, Line};
use crate::machine::Boot;
use crate::nested::{self, CPU, EPC, L2, MEMORY, Vmm};
use crate::selftests::{self, check_passed};

/// For L1 and few L2s in it.
const LIMIT: Duration = Duration::from_secs(600);
/// How often L2 is reset, and then with `--all`.
const REBOOTS: u32 = 5;
const MANY_REBOOTS: u32 = 100;
/// Machines one after the other with `--all`.
const MACHINES: u32 = 200;
/// What L1 may have less of after the resets than before, in KiB: a page for each would be 20 or 400,
/// and L2's RAM, its EPC's metadata or a page table of it are far more.
const LEAK: u64 = 4096;

/// Words of the kernel's complaints about VMX, SGX and KVM.
pub(super) const SUBJECTS: [&str; 5] = ["x86/cpu", "vmx", "VMX", "sgx", "kvm"];

/// What runs L2 by KVM.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// Debian's QEMU.
    Qemu,
    /// The program under test, with L1's SGX.
    Cloister,
    /// The same, told in QEMU's options as `guest/nested/l2.sh` has them by this name.
    CloisterToldAs(&'static str),
    /// The program under test, in an L1 without SGX.
    CloisterAlone,
}

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
    for line in transcript.marked("dmesg: ") {
        let (level, text) = line.split_once(' ').context("a line without a level")?;
        booted |= text.contains("Run /init as init process");
        // Linux's levels: 4 is a warning, lower is worse.
        let bad = level <= "4" && (booted || SUBJECTS.iter().any(|subject| text.contains(subject)));
        ensure!(!bad && !text.contains("WARNING:"), "the kernel complains: {text}");
    }
    ensure!(booted, "the log has no start of init");
    Ok(())
}

/// A machine for L1 whose init runs `tasks`. `l2` is what L1's command line has for its scripts.
fn l1(setup: &Setup, by: By, cpus: u32, tasks: &str, l2: &str) -> Result<Boot> {
    let (name, word, memory, vmm) = match by {
        By::Qemu => ("nested-tests", "qemu", MEMORY, Vmm::Qemu),
        By::Cloister | By::CloisterAlone | By::CloisterToldAs(_) => {
            let word = if let By::CloisterToldAs(name) = by { name } else { "cloister" };
            let vmm = Vmm::Cloister(setup.program()?);
            ("nested-cloister-tests", word, nested::MORE_MEMORY, vmm)
        }
    };
    let initrd = nested::initrd(&setup.image.initrd, name, vmm)?;
    let append = format!("quiet cloister.run=modules,{tasks} l2.vmm={word} {l2}");
    let boot = Boot::new(&setup.image.kernel, &initrd, &append);
    let boot = Boot { cpus, memory: memory.to_owned(), limit: LIMIT, ..boot };
    let has_sgx = !matches!(by, By::CloisterAlone);
    Ok(if has_sgx { boot.option(EPC.0, EPC.1) } else { boot })
}

/// Boots L1 to its power-off. Returns its console and, of it, what L2 printed.
fn run(setup: &Setup, boot: Boot) -> Result<(Transcript, Vec<String>)> {
    let has_sgx = boot.options.iter().any(|option| option == EPC.0);
    let cpu = if has_sgx { CPU.1 } else { "host,+vmx" };
    let transcript = setup.boot_to_power_off(&boot.option(CPU.0, cpu))?;
    let l2 = transcript.marked(L2);
    Ok((transcript, l2))
}

/// Fails with the console's end unless L2 printed the text.
fn expect_in(l2: &[String], text: &str, transcript: &Transcript) -> Result<()> {
    ensure!(
        l2.iter().any(|line| line.contains(text)),
        "no line of L2 says {text:?}; last lines:\n{}",
        transcript.tail()
    );
    Ok(())
}

pub(super) fn demo_enclave(setup: &Setup, vmm: By) -> Result<()> {
    let (transcript, l2) =
        run(setup, l1(setup, vmm, 1, "l2", &format!("l2.run={}", nested::DEMO))?)?;

    for (_, text) in demo::expectations(&setup.image) {
        expect_in(&l2, &text, &transcript)?;
    }
    expect(&transcript, "init: end l2 0")
}

/// The line of the 2021 series, in the spelling of today's QEMU and in its own.
pub(super) fn series(setup: &Setup) -> Result<()> {
    demo_enclave(setup, By::CloisterToldAs("cloister-qemu"))?;
    demo_enclave(setup, By::CloisterToldAs("cloister-qemu-2021"))
}

/// Sections on two nodes, by QEMU's options.
pub(super) fn nodes(setup: &Setup) -> Result<()> {
    let by = By::CloisterToldAs("cloister-nodes");
    let (transcript, l2) = run(setup, l1(setup, by, 2, "l2", "l2.cpus=2 l2.run=nodes")?)?;

    expect_in(&l2, "nodes: online 0-1", &transcript)?;
    for (node, mib) in [(0, 32_u64), (1, 16)] {
        let start = format!("nodes: node{node} cpus {node} ram ");
        let end = format!(" {} bytes", mib << 20);
        let there = l2.iter().any(|line| line.starts_with(&start) && line.ends_with(&end));
        ensure!(there, "no line {start:?} with {mib} MiB; last lines:\n{}", transcript.tail());
    }
    Ok(())
}

/// One machine after the other, each of which gets all of L1's EPC in advance.
pub(super) fn many_machines(setup: &Setup) -> Result<()> {
    let tasks = format!("memory,repeat:{MACHINES}:l2,memory");
    let boot = l1(setup, By::Cloister, 1, &tasks, "l2.run=sgx,cpuid")?;
    let boot = Boot { limit: LIMIT + Duration::from_secs(30) * MACHINES, ..boot };

    let (transcript, _) = run(setup, boot)?;

    expect(&transcript, &format!("repeat: l2 ended well {MACHINES} times of {MACHINES}"))
}

/// A debugger in L2 with a breakpoint in a debug register, while enclaves run: three are the guest's.
pub(super) fn breakpoints(setup: &Setup) -> Result<()> {
    let boot = l1(setup, By::CloisterAlone, 1, "l2", "l2.run=enclave-demo:breakpoints")?;

    let (transcript, l2) = run(setup, boot)?;

    expect_in(&l2, "enclave-demo: the program stopped 20 times at the breakpoint", &transcript)?;
    expect_in(&l2, "init: end enclave-demo 0", &transcript)
}

/// On one processor each.
pub(super) fn selftests(setup: &Setup, vmm: By) -> Result<()> {
    selftests_pass(setup, vmm, 1, "test_sgx")
}

/// On four processors each. The test that races with the reclaimer is bound to its processor.
pub(super) fn selftests_on_four_processors(setup: &Setup, vmm: By) -> Result<()> {
    selftests_pass(setup, vmm, 4, &format!("test_sgx:{}", selftests::binding(&BOUND)?))
}

fn selftests_pass(setup: &Setup, vmm: By, cpus: u32, task: &str) -> Result<()> {
    let l2 = format!("l2.run=reclaimer,{task} l2.cpus={cpus}");
    let (transcript, l2) = run(setup, l1(setup, vmm, cpus, "l2", &l2)?)?;

    check_passed(&selftests::parse(&l2)?, &transcript)
}

/// QEMU gets the key for L2 by opening `/dev/sgx_provision`.
pub(super) fn provisioning(setup: &Setup) -> Result<()> {
    let tasks = "l2,busybox:rm:/dev/sgx_provision,l2";
    let (transcript, l2) =
        run(setup, l1(setup, By::Qemu, 1, tasks, "l2.run=enclave-demo:provision")?)?;

    let key = "enclave-demo: provisioning key with SHA-256 ";
    let refused = "no enclave with the attribute: SGX_IOC_ENCLAVE_CREATE: Input/output error";
    let answers: Vec<bool> = l2
        .iter()
        .filter(|line| line.contains(key) || line.contains(refused))
        .map(|line| line.contains(key))
        .collect();
    ensure!(
        answers == [true, false],
        "with and without the device, the key was given: {answers:?}; last lines:\n{}",
        transcript.tail()
    );
    Ok(())
}

/// Cloister opens the same device. Without it a machine that is to have the key is refused, in a line.
pub(super) fn provisioning_by_cloister(setup: &Setup) -> Result<()> {
    let tasks = "l2,busybox:rm:/dev/sgx_provision,l2";
    let boot = l1(setup, By::Cloister, 1, tasks, "l2.run=enclave-demo:provision")?;

    let (transcript, l2) = run(setup, boot)?;

    let key = "enclave-demo: provisioning key with SHA-256 ";
    ensure!(l2.iter().filter(|line| line.contains(key)).count() == 1, "{}", transcript.tail());
    let line = "--cpu: +sgx-provisionkey: there is no /dev/sgx_provision, which a kernel with \
                CONFIG_X86_SGX_KVM makes where the firmware has enabled SGX: leave the flag out";
    expect(&transcript, line)?;
    expect(&transcript, "init: end l2 1")
}

/// More EPC than L1 has cannot be had in advance, and what was taken until then the next machine gets.
pub(super) fn exhausted(setup: &Setup) -> Result<()> {
    let boot = l1(setup, By::Cloister, 1, "busybox:env:EPC=96M:l2,l2", "l2.run=sgx")?;

    let (transcript, l2) = run(setup, boot)?;

    expect_in(&l2, "sgx: /dev/sgx_enclave is ", &transcript)?;
    expect(&transcript, "--sgx-epc: section epc1: the host has EPC for ")?;
    expect(
        &transcript,
        "pages: Bad address (os error 14): write a smaller size, or leave prealloc out",
    )
}

/// On a processor that is locked to a launch key Linux leaves enclaves of its own alone, and has
/// virtual EPC all the same.
pub(super) fn launch_control_locked(setup: &Setup, vmm: By) -> Result<()> {
    let boot = l1(setup, vmm, 1, "sgx,l2", "l2.run=cpuid")?
        .option(CPU.0, "host,-sgxlc,+sgx-provisionkey,+vmx")
        .option("--launch-key", &"5a".repeat(32));

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "sgx: /dev/sgx_enclave is missing")?;
    expect(&transcript, "sgx: /dev/sgx_vepc is ")?;
    let cpuid = Cpuid::read(&transcript.marked(L2))?;
    ensure!(cpuid.sgx, "L2 has no SGX");
    ensure!(!cpuid.launch_control, "L2 has launch control");
    ensure!(cpuid.sections == [64 << 20], "L2 has sections of {:?} bytes", cpuid.sections);
    Ok(())
}

/// Half of the EPC for L2, and enclaves in both for as long as L2 runs.
pub(super) fn at_once(setup: &Setup, vmm: By) -> Result<()> {
    let work = "enclave-demo:oversubscribed:8:4:8";
    let l2 = format!("l2.epc=32M l2.run={work}");
    let (transcript, l2) = run(setup, l1(setup, vmm, 2, &format!("l2-beside:{work}"), &l2)?)?;

    let done = "enclave-demo: 2048 pages of enclaves in 4 threads, 8 sweeps: ";
    expect(&transcript, done)?;
    expect_in(&l2, done, &transcript)?;
    expect(&transcript, "l2-beside: enclave-demo ended well ")
}

/// Enclaves of 12 MiB by turns in the 8 MiB that L2 has.
pub(super) fn oversubscribed(setup: &Setup, vmm: By) -> Result<()> {
    let l2 = "l2.cpus=2 l2.epc=8M l2.run=enclave-demo:oversubscribed:12:4";
    let (transcript, l2) = run(setup, l1(setup, vmm, 2, "l2", l2)?)?;

    expect_in(&l2, "enclave-demo: 3072 pages of enclaves in 4 threads, 2 sweeps: ", &transcript)?;
    expect_in(&l2, "init: end enclave-demo 0", &transcript)
}

/// QEMU is killed while four processors of L2, on one of L1, are at work in enclaves. Then there is another
/// L2, which gets all of L1's EPC.
pub(super) fn killed(setup: &Setup, vmm: By) -> Result<()> {
    let l2 = "l2.cpus=4 l2.run=enclave-demo:oversubscribed:32:4:400";
    let (transcript, l2) = run(setup, l1(setup, vmm, 1, "l2-kill:begin?enclave-demo:1:1,l2", l2)?)?;

    expect(&transcript, "l2-kill: the VMM ended with exit code 137")?;
    let ended = l2.iter().filter(|line| line.contains("init: end enclave-demo 0")).count();
    ensure!(ended == 1, "{ended} of two L2s came to their ends:\n{}", transcript.tail());
    expect(&transcript, "init: end l2 0")
}

/// Nested nested: L2 has a QEMU of its own, and L3 half of its EPC.
pub(super) fn demo_enclave_in_l3(setup: &Setup) -> Result<()> {
    let within = nested::initrd(&setup.image.initrd, "nested-tests", Vmm::Qemu)?;
    let initrd = nested::initrd(&within, "nested-nested-tests", Vmm::Qemu)?;
    let append = format!(
        "quiet cloister.run=modules,l2 l2.run=modules,l2 l2.memory=1G l3.run={} l3.memory=256M \
         l3.epc=32M",
        nested::DEMO
    );
    let boot = Boot::new(&setup.image.kernel, &initrd, &append).option(EPC.0, EPC.1);
    let boot = Boot { memory: "2G".to_owned(), limit: Duration::from_secs(1200), ..boot };

    let (transcript, l2) = run(setup, boot)?;

    let l3: Vec<String> =
        l2.iter().filter_map(|line| line.strip_prefix(L2)).map(str::to_owned).collect();
    for (_, text) in demo::expectations(&setup.image) {
        expect_in(&l3, &text, &transcript)?;
    }
    expect_in(&l2, "init: end l2 0", &transcript)
}

/// QEMU's `query-sgx` against the CPUID of its guest.
pub(super) fn query_sgx(setup: &Setup) -> Result<()> {
    let (transcript, l2) =
        run(setup, l1(setup, By::Qemu, 1, "l2-monitor:query-sgx", "l2.run=cpuid")?)?;

    let answer = transcript.find("monitor: ").context("the monitor did not answer")?;
    let answer: Value = serde_json::from_str(answer.trim_start_matches("monitor: "))?;
    let told = &answer["return"];
    let cpuid = Cpuid::read(&l2)?;
    let flags = [("sgx", cpuid.sgx), ("sgx1", cpuid.sgx1), ("sgx2", cpuid.sgx2)];
    for (name, bit) in flags.into_iter().chain([("flc", cpuid.launch_control)]) {
        ensure!(told[name] == bit, "{name} is {bit} in CPUID: {told}");
    }
    let sections = told["sections"].as_array().context("no sections")?;
    let sizes: Option<Vec<u64>> = sections.iter().map(|section| section["size"].as_u64()).collect();
    ensure!(sizes.as_ref() == Some(&cpuid.sections), "{:?} in CPUID: {told}", cpuid.sections);
    Ok(())
}

/// What CPUID says of SGX in a guest, by init's task `cpuid` (SDM vol. 3D, 33.7).
struct Cpuid {
    sgx: bool,
    launch_control: bool,
    sgx1: bool,
    sgx2: bool,
    /// In bytes.
    sections: Vec<u64>,
}

impl Cpuid {
    fn read(lines: &[String]) -> Result<Self> {
        let leaves: Vec<[u64; 6]> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("cpuid: "))
            .map(|line| {
                let words: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
                words.ok().and_then(|words| words.try_into().ok()).context("a leaf in other words")
            })
            .collect::<Result<_>>()?;
        let leaf = |leaf, subleaf| {
            let is_it = |words: &&[u64; 6]| words[0] == leaf && words[1] == subleaf;
            leaves.iter().find(is_it).with_context(|| format!("no CPUID leaf {leaf}.{subleaf}"))
        };
        let &[_, _, _, features_b, features_c, _] = leaf(7, 0)?;
        let &[_, _, sgx_a, ..] = leaf(0x12, 0)?;
        let sections = leaves
            .iter()
            .filter(|&&[leaf, subleaf, a, ..]| leaf == 0x12 && subleaf >= 2 && a & 0xf == 1)
            .map(|&[_, _, _, _, c, d]| (c & 0xffff_f000) | (d & 0xf_ffff) << 32)
            .collect();
        Ok(Self {
            sgx: features_b >> 2 & 1 != 0,
            launch_control: features_c >> 30 & 1 != 0,
            sgx1: sgx_a & 1 != 0,
            sgx2: sgx_a >> 1 & 1 != 0,
            sections,
        })
    }
}

pub(super) fn reboots(setup: &Setup, vmm: By) -> Result<()> {
    reboot(setup, vmm, REBOOTS)
}

pub(super) fn many_reboots(setup: &Setup, vmm: By) -> Result<()> {
    reboot(setup, vmm, MANY_REBOOTS)
}

/// L2 is reset, each time after an enclave has run, and L1 has as much memory and EPC as before. The
/// first L2 is there since what the kernel keeps for the next one is not a leak.
fn reboot(setup: &Setup, vmm: By, times: u32) -> Result<()> {
    let boots = times + 1;
    let tasks = format!(
        "l2-kill:up?after:2:0,memory,l2-kill:up?after:{boots}:0,memory,l2-kill:up?after:1:0"
    );
    let boot = l1(setup, vmm, 1, &tasks, "l2.run=enclave-demo l2.end=reboot")?;
    let boot = Boot { limit: LIMIT + Duration::from_secs(60) * times, ..boot };

    let (transcript, l2) = run(setup, boot)?;

    let count = |text: &str| l2.iter().filter(|line| line.contains(text)).count() as u32;
    let (started, ended) = (count("init: up after"), count("init: end enclave-demo 0"));
    ensure!(started == boots + 3, "L2 came up {started} times; last lines:\n{}", transcript.tail());
    ensure!(ended > times, "L2's enclave ran {ended} times");
    let memory: Vec<u64> = transcript
        .marked("memory: ")
        .iter()
        .filter_map(|line| line.strip_suffix(" KiB")?.parse().ok())
        .collect();
    let [before, after] = memory[..] else { bail!("L1 told its memory {} times", memory.len()) };
    let lost = before.saturating_sub(after);
    ensure!(lost < LEAK, "L1 has {lost} KiB less of {before} after {times} resets of L2");
    Ok(())
}
