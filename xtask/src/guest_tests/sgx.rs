//! The guest's SGX driver, the demo's enclave and Linux's own selftests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::demo;
use crate::machine::{Boot, EPC};
use crate::selftests::{self, Verdict, check_passed};

/// The selftest that on several processors must not compete with the kernel's reclaimer (see the task
/// `reclaimer` of `guest/init`).
pub(super) const BOUND: [&str; 1] = ["unclobbered_vdso_oversubscribed_remove"];

/// For all of Linux's selftests.
const SELFTESTS: Duration = Duration::from_secs(400);

pub(super) fn driver(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("sgx,dmesg:sgx").option(EPC.0, EPC.1);

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "sgx: /dev/sgx_enclave is ")?;
    expect(&transcript, "sgx: /dev/sgx_provision is ")?;
    for node in ["sgx_enclave", "sgx_provision"] {
        let missing = transcript.find(&format!("/dev/{node} is missing"));
        ensure!(missing.is_none(), "/dev/{node} is missing");
    }
    // "dmesg: LEVEL TEXT": 4 is a warning, lower is worse.
    let complaint = transcript.lines.iter().find(|line| {
        let level = line.strip_prefix("dmesg: ").and_then(|rest| rest.chars().next());
        level.is_some_and(|level| level <= '4')
    });
    ensure!(complaint.is_none(), "the kernel complains: {complaint:?}");
    Ok(())
}

pub(super) fn demo(setup: &Setup) -> Result<()> {
    demo_on(setup, 1)
}

pub(super) fn demo_on_four_processors(setup: &Setup) -> Result<()> {
    demo_on(setup, 4)
}

fn demo_on(setup: &Setup, cpus: u32) -> Result<()> {
    let mut boot = setup.tasks("sgx,enclave-demo").option(EPC.0, EPC.1);
    boot.cpus = cpus;

    let transcript = setup.boot_to_power_off(&boot)?;

    for (_, text) in demo::expectations(&setup.image) {
        expect(&transcript, &text)?;
    }
    Ok(())
}

/// Three boots: what is sealed on one platform opens on it again, and nowhere else.
pub(super) fn sealing(setup: &Setup) -> Result<()> {
    let [one, other] = ["one", "other"].map(|name| setup.path(name).display().to_string());
    let machine = |task: &str| setup.tasks(task).option(EPC.0, EPC.1);
    let on = |folder: &str, task: &str| machine(task).option("--platform", folder);

    let made = setup.boot_to_power_off(&on(&one, "enclave-demo:seal"))?;
    let line = made.find("enclave-demo: sealed ").context("nothing was sealed")?;
    let sealed = line.rsplit(' ').next().unwrap_or_default();
    ensure!(sealed.len() == 192, "{sealed:?} is not a sealed message");
    // Another first digit of the ciphertext, which follows 32 bytes of KEYID.
    let digit = if sealed[64..].starts_with('0') { "1" } else { "0" };
    let changed = format!("{}{digit}{}", &sealed[..64], &sealed[65..]);
    let task = format!("enclave-demo:open:{sealed}");
    let again =
        setup.boot_to_power_off(&on(&one, &format!("{task},enclave-demo:open:{changed}")))?;
    let elsewhere = setup.boot_to_power_off(&on(&other, &task))?;
    let nowhere = setup.boot_to_power_off(&machine(&task))?;

    let (opened, refused) = ("enclave-demo: opened: ", "FAILED: the seal's tag does not match");
    expect(&again, &format!("{opened}a secret that survives a restart"))?;
    expect(&again, refused)?;
    for transcript in [&elsewhere, &nowhere] {
        expect(transcript, refused)?;
        ensure!(transcript.find(opened).is_none(), "it opened on another platform");
    }
    Ok(())
}

/// The key is the platform's, whichever machine asks, and comes with the flag alone.
pub(super) fn provisioning(setup: &Setup) -> Result<()> {
    const FLAG: &str = "host,+sgx-provisionkey";
    let platform = setup.path("platform").display().to_string();
    let plain = setup.tasks("enclave-demo:provision").option(EPC.0, EPC.1);
    let on_platform = plain.clone().option("--platform", &platform);

    let first = setup.boot_to_power_off(&on_platform.clone().option("--cpu", FLAG))?;
    let again = setup.boot_to_power_off(&on_platform.clone().option("--cpu", FLAG))?;
    let own = setup.boot_to_power_off(&plain.option("--cpu", FLAG))?;
    let without = setup.boot_to_power_off(&on_platform)?;

    let key = "enclave-demo: provisioning key with SHA-256 ";
    let given = first.find(key).context("no provisioning key was given")?;
    ensure!(again.find(given).is_some(), "another machine of the platform had another key");
    ensure!(own.find(key).is_some_and(|own| own != given), "two platforms share a key");
    ensure!(without.find(key).is_none(), "the key was given without the flag");
    for transcript in [&first, &again, &own, &without] {
        expect(transcript, "enclave-demo: without the attribute: SGX_INVALID_ATTRIBUTE")?;
        expect(transcript, "init: end enclave-demo 0")?;
    }
    // The driver's word for an ECREATE that faulted.
    expect(&without, "no enclave with the attribute: SGX_IOC_ENCLAVE_CREATE: Input/output error")
}

pub(super) fn debugger(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("enclave-demo:debug").option(EPC.0, EPC.1);

    let transcript = setup.boot_to_power_off(&boot)?;

    for text in [
        "the debugger read 0x5ec2e75ec2e75ec2, and wrote what the enclave reads as 0x89abcdefc2e75ec2",
        "the debugger set TCS.FLAGS to 0x1, and OENTRY stays 0x10000",
        "the debugger fixed #UD at 0x",
        "the enclave returned 0xdeb6dead",
        "an enclave without DEBUG gives the debugger EIO",
        "init: end enclave-demo 0",
    ] {
        expect(&transcript, text)?;
    }
    Ok(())
}

pub(super) fn threads(setup: &Setup) -> Result<()> {
    let mut boot = setup.tasks("enclave-demo:threads").option(EPC.0, EPC.1);
    boot.cpus = 4;

    let transcript = setup.boot_to_power_off(&boot)?;

    for thread in 0..4 {
        expect(&transcript, &format!("enclave-demo: thread {thread} through 20 AEXs: "))?;
    }
    expect(&transcript, "init: end enclave-demo 0")
}

pub(super) fn oversubscribed(setup: &Setup) -> Result<()> {
    let mut boot =
        setup.tasks("enclave-demo:oversubscribed:12:8").option("--sgx-epc", "id=epc0,size=8M");
    (boot.cpus, boot.limit) = (4, Duration::from_secs(400));

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "enclave-demo: 3072 pages of enclaves in 8 threads, 2 sweeps: ")?;
    expect(&transcript, "init: end enclave-demo 0")
}

pub(super) fn vectors(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("enclave-demo:vectors").option(EPC.0, EPC.1);

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "enclave-demo: XFRM 7: 16 registers kept, none seen outside")?;
    expect(&transcript, "enclave-demo: XFRM 3: AVX raises #UD at offset 0x")?;
    expect(&transcript, "init: end enclave-demo 0")
}

/// On one processor, where the reclaimer needs no more than not to be interrupted.
pub(super) fn selftests(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("reclaimer,test_sgx").option(EPC.0, EPC.1);
    all_pass(setup, &Boot { limit: SELFTESTS, ..boot })
}

pub(super) fn selftests_on_four_processors(setup: &Setup) -> Result<()> {
    all_pass(setup, &series_boot(setup)?)
}

/// The selftests that need no SGX2; the others say so and skip.
const SGX1_TESTS: [&str; 6] = [
    "unclobbered_vdso",
    "unclobbered_vdso_oversubscribed",
    "clobbered_vdso",
    "clobbered_vdso_and_user_function",
    "tcs_entry",
    "pte_permissions",
];

pub(super) fn selftests_without_sgx2(setup: &Setup) -> Result<()> {
    let boot = series_boot(setup)?.option("-cpu", "host,-sgx2");

    let verdicts = selftests::parse(&setup.boot_to_power_off(&boot)?.lines)?;

    for (test, verdict) in verdicts {
        let expected = if SGX1_TESTS.contains(&test) { Verdict::Passed } else { Verdict::Skipped };
        ensure!(verdict == expected, "{test}: {verdict:?} instead of {expected:?}");
    }
    Ok(())
}

/// All of Linux's selftests pass, none is skipped.
fn all_pass(setup: &Setup, boot: &Boot) -> Result<()> {
    let transcript = setup.boot_to_power_off(boot)?;

    check_passed(&selftests::parse(&transcript.lines)?, &transcript)
}

/// The selftests on four processors, told in the options of the 2021 series. The one that races with
/// the reclaimer is bound to its processor.
fn series_boot(setup: &Setup) -> Result<Boot> {
    let tasks = format!("reclaimer,test_sgx:{}", selftests::binding(&BOUND)?);
    let boot = setup.tasks(&tasks);
    let boot = Boot { cpus: 4, qemu_options: true, limit: SELFTESTS, ..boot };
    Ok(boot
        .option("-sgx-epc", "id=epc1,memdev=mem1")
        .option("-object", "memory-backend-epc,id=mem1,size=64M,prealloc"))
}
