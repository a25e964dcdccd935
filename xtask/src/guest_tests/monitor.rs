//! A guest under QEMU's own client for QMP.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Setup;
use super::setup::expect;
use crate::console::Transcript;
use crate::python::Python;
use crate::repository;

/// Boots a guest that waits for its power button, with Python's client at its monitor, to the guest's
/// end. Returns the console and what the client saw, in order. The socket is called after `name`.
fn drive(setup: &Setup, name: &str, cpu: &str) -> Result<(Transcript, Vec<Value>)> {
    let python = Python::get()?;
    let socket = Setup::socket(name);
    let mut client = python
        .command()
        .arg(repository::root().join("xtask/src/guest_tests/monitor.py"))
        .arg(&socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run Python")?;
    let mut client_input = client.stdin.take().context("no standard input")?;
    let mut boot = setup
        .tasks("modules,cpuid,button")
        .option("--qmp", &format!("unix:{socket},wait=on"))
        .option("--sgx-epc", "id=epc0,size=64M")
        .option("--sgx-epc", "id=epc1,size=32M")
        .option("--cpu", cpu);
    boot.cpus = 2;
    boot.no_reboot = false;

    let transcript = setup.boot_until(&boot, |line| {
        if line.contains("button: waiting") {
            // A client that is gone tells why itself.
            let _ = client_input.write_all(b"waiting\n");
        }
        ControlFlow::Continue(())
    });
    drop(client_input);
    let output = client.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let transcript = transcript.with_context(|| format!("the client said: {errors}"))?;
    ensure!(output.status.success(), "the client failed: {errors}\n{}", transcript.tail());
    let seen = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((transcript, seen))
}

/// What the client saw under this name, in order.
fn all<'a>(seen: &'a [Value], name: &str) -> Vec<&'a Value> {
    seen.iter().filter_map(|line| line.get(name)).collect()
}

pub(super) fn python_client(setup: &Setup) -> Result<()> {
    let (transcript, seen) = drive(setup, "client", "host,-sgx2,-sgx-kss")?;

    let events: Vec<Value> =
        seen.iter().filter(|line| line.get("event").is_some()).cloned().collect();
    let reset = json!({ "guest": false, "reason": "host-qmp-system-reset" });
    let shutdown = json!({ "guest": true, "reason": "guest-shutdown" });
    ensure!(
        events
            == [
                json!({ "event": "STOP", "data": null }),
                json!({ "event": "RESUME", "data": null }),
                json!({ "event": "RESET", "data": reset }),
                json!({ "event": "POWERDOWN", "data": null }),
                json!({ "event": "SHUTDOWN", "data": shutdown }),
            ],
        "events {events:?}"
    );
    let states: Vec<_> = all(&seen, "status").iter().map(|status| &status["status"]).collect();
    ensure!(states == ["running", "paused", "running"], "states {states:?}");
    let cpus = all(&seen, "cpus");
    ensure!(cpus[0].as_array().is_some_and(|cpus| cpus.len() == 2), "processors {cpus:?}");
    let boots = transcript.lines.iter().filter(|line| line.contains("init: up after")).count();
    ensure!(boots == 2, "the kernel came up {boots} time(s)");
    expect(&transcript, "button: pressed")?;
    ensure!(transcript.exit == Some(0), "exit code {:?}", transcript.exit);
    check_sgx(&transcript, &seen, false)
}

pub(super) fn sgx_is_what_cpuid_says(setup: &Setup) -> Result<()> {
    let (transcript, seen) = drive(setup, "query-sgx", "host,+sgx-provisionkey")?;

    check_sgx(&transcript, &seen, true)
}

/// Whether the monitor told what CPUID told the guest, in both of its boots.
fn check_sgx(transcript: &Transcript, seen: &[Value], sgx2: bool) -> Result<()> {
    let sgx = all(seen, "sgx")[0];
    let told: Vec<String> = sgx["cpuid"]
        .as_array()
        .context("no CPUID leaves")?
        .iter()
        .map(|leaf| {
            let words = ["leaf", "subleaf", "eax", "ebx", "ecx", "edx"];
            format!("cpuid: {}", words.map(|word| leaf[word].to_string()).join(" "))
        })
        .collect();
    let executed: Vec<&String> =
        transcript.lines.iter().filter(|line| line.starts_with("cpuid: ")).collect();
    let expected: Vec<&String> = told.iter().chain(&told).collect();
    ensure!(executed == expected, "the guest saw {executed:#?}, the monitor {told:#?}");
    ensure!(sgx["sgx2"] == sgx2, "{sgx}");
    let sections = sgx["sections"].as_array().context("no sections")?;
    let sizes: Vec<_> = sections.iter().map(|section| section["size"].as_u64()).collect();
    ensure!(sizes == [Some(64 << 20), Some(32 << 20)], "sections {sizes:?}");
    Ok(())
}
