//! `cloister epc` beside a machine that runs an enclave.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use super::exec::{exec, put_demo};
use crate::process;

/// Enough interruptions for the threads to be inside for seconds.
const TASKS: &str = "enclave-demo,enclave-demo:threads:1000";
/// Threads of the demo's enclave.
const THREADS: u64 = 4;

/// What was seen of the machine from outside.
struct Seen {
    /// The report with all threads inside.
    report: Value,
    /// The reports from then on, to the machine's end.
    rest: Output,
}

pub(super) fn running(setup: &Setup) -> Result<()> {
    let socket = Setup::socket("epc-view");
    let mut boot = setup.tasks(TASKS).option("--sgx-epc", "id=epc0,size=64M");
    boot.cpus = THREADS as u32;
    let missing = format!("{THREADS} threads were never inside");
    let (transcript, seen) = setup.boot_watched(boot, &socket, &missing, |report| {
        if report["enclaves"][0]["threads-inside"] != THREADS {
            return Ok(None);
        }
        // And looks on until the end.
        let rest = setup.cloister(&["epc", &socket, "--json"])?;
        Ok(Some(Seen { report: report.clone(), rest }))
    })?;
    let after = setup.cloister(&["epc", &socket, "--once"])?;

    let said = transcript.find("MRENCLAVE in the REPORT: ").context("no MRENCLAVE")?;
    let said = said.rsplit(' ').next().unwrap_or_default();
    let enclave = &seen.report["enclaves"][0];
    ensure!(enclave["mrenclave"] == said, "another MRENCLAVE than {said}: {enclave}");
    ensure!(enclave["size"] == 256 << 20 && enclave["initialized"] == true, "{enclave}");
    let section = &seen.report["sections"][0];
    let pages = |name: &str| section["pages"][name].as_u64().unwrap_or_default();
    ensure!(section["id"] == "epc0" && pages("total") == 64 << 8, "{section}");
    ensure!(pages("secs") == 1 && pages("tcs") >= THREADS, "{section}");
    ensure!(enclave["children"].as_u64() < Some(pages("valid")), "{section}");
    ensure!(pages("valid") <= pages("backed"), "{section}");
    ensure!(section["faults"].as_u64() >= Some(pages("backed")), "{section}");

    let stderr = String::from_utf8_lossy(&seen.rest.stderr);
    ensure!(seen.rest.status.success(), "{}: {stderr}", seen.rest.status);
    ensure!(stderr.contains("the machine ended") && stderr.lines().count() == 1, "{stderr}");
    let stdout = String::from_utf8_lossy(&seen.rest.stdout);
    for line in stdout.lines() {
        serde_json::from_str::<Value>(line).with_context(|| format!("no JSON: {line}"))?;
    }
    let stderr = String::from_utf8_lossy(&after.stderr);
    ensure!(after.status.code() == Some(1), "after the end: {}: {stderr}", after.status);
    ensure!(stderr.contains("the machine has ended"), "after the end: {stderr}");
    Ok(())
}

/// A machine of `exec` is seen by the name of its command and by its PID, and what it leaves the next look removes.
pub(super) fn of_exec(setup: &Setup) -> Result<()> {
    const TEST: &str = "exec-epc";
    put_demo(setup, TEST)?;
    let runtime = Setup::socket("runtime");
    fs::create_dir(&runtime)?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    let script = "ln -s $PWD /enclave; ./enclave-demo; echo ready; exec sleep 100";
    let mut machine =
        exec(setup, TEST, &["--user", "root", "--epc", "32M"], &["sh", "-c", script])?;
    let mut machine = machine.env("XDG_RUNTIME_DIR", &runtime).spawn()?;
    let seen = look(setup, &runtime, &mut machine);
    machine.kill()?;
    machine.wait()?;
    seen?;
    let cloister = |words: &[&str]| {
        let mut command = Command::new(setup.program()?);
        process::finish(command.args(words).env("XDG_RUNTIME_DIR", &runtime))
    };
    let after = cloister(&["ps"])?;
    let left = fs::read_dir(format!("{runtime}/cloister"))?.count();
    fs::remove_dir_all(&runtime)?;
    let after = String::from_utf8_lossy(&after.stdout);
    ensure!(after.lines().count() == 1 && left == 0, "{left} files: {after}");
    Ok(())
}

fn look(setup: &Setup, runtime: &str, machine: &mut Child) -> Result<()> {
    let output = BufReader::new(machine.stdout.take().context("no output")?);
    let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
    ensure!(ready, "the enclave did not run");
    let cloister = |words: &[&str]| {
        let mut command = Command::new(setup.program()?);
        process::capture(command.args(words).env("XDG_RUNTIME_DIR", runtime))
    };
    let listed: Value = serde_json::from_str(&cloister(&["ps", "--json"])?)?;
    ensure!(listed["name"] == "sh" && listed["pid"] == machine.id(), "{listed}");
    let report = cloister(&["epc", "sh", "--once"])?;
    ensure!(report.starts_with("sh: ") && report.contains(" 1 EINIT"), "{report}");
    ensure!(report.contains(" 8192 "), "{report}");
    let picture = cloister(&["epc", &machine.id().to_string(), "--svg", "-"])?;
    ensure!(picture.starts_with("<svg") && picture.contains("32 MiB"), "{picture}");
    Ok(())
}
