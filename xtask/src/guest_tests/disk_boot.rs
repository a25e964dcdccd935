//! Booting what is installed on a disk.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::attest::{certified, verdict};
use super::sgx::BOUND;
use super::{Setup, exec};
use crate::console::Session;
use crate::debian::Debian;
use crate::selftests::{self, Verdict};
use crate::{dist, process};

/// From the machine's start to the login prompt, on a host that has other things to do.
const BOOT: Duration = Duration::from_secs(300);
/// For a command, and for the end of the services.
const COMMAND: Duration = Duration::from_secs(120);
/// As `cargo xtask disk --size 3G` makes it.
const DISK_SIZE: u64 = 3 << 30;
/// For Linux's selftests.
const SELFTESTS: Duration = Duration::from_secs(400);

/// Waits for the login prompt and logs in as root, who has no password.
fn log_in(session: &mut Session) -> Result<()> {
    session.expect("cloister login: ", BOOT)?;
    session.send("root")?;
    session.expect("root@cloister:~# ", COMMAND)?;
    Ok(())
}

/// The line of the 2021 series, as it is but for a monitor and a console.
pub(super) fn series(setup: &Setup) -> Result<()> {
    let disk = setup.path("debian-12.img");
    Debian::get()?.copy(&disk, DISK_SIZE)?;
    let socket = Setup::socket("series");
    let line = format!(
        "qemu -smp 4 -m 2G -drive file={},if=virtio -cpu host,+sgx_provisionkey \
         -sgx-epc id=epc1,memdev=mem1 -object memory-backend-epc,id=mem1,size=64M,prealloc \
         -nographic -qmp unix:{},server=on,wait=off",
        disk.display(),
        socket
    );

    let mut session = setup.session(&line.split(' ').collect::<Vec<_>>())?;
    log_in(&mut session)?;
    first_boot(setup, &mut session, &socket)?;
    log_in(&mut session)?;
    second_boot(setup, &mut session, &socket)?;
    press_power_button(&socket)?;
    let exit = session.end(COMMAND)?;

    ensure!(exit == Some(0), "exit code {exit:?}");
    Ok(())
}

/// An installed Debian, in which the package of the AESM socket is installed, has an enclave's REPORT quoted.
pub(super) fn quotes(setup: &Setup) -> Result<()> {
    let disk = setup.path("debian-12.img");
    Debian::get()?.copy(&disk, DISK_SIZE)?;
    let platform = certified(setup, "platform")?;
    let shared = setup.path("shared");
    fs::create_dir(&shared)?;
    fs::copy(dist::aesmd()?, shared.join("aesmd.deb"))?;
    let socket = Setup::socket("aesm");
    let reportdata = "5e".repeat(64);
    let words = ["aesm", "--vsock", &socket, "--platform", &platform];
    let service = Command::new(setup.program()?).args(words).stdout(Stdio::null()).spawn()?;
    let line = format!(
        "run --disk {} --memory 1G --sgx-epc id=epc1,size=64M --platform {platform} \
         --vsock cid=3,path={socket} --share shared={}",
        disk.display(),
        shared.display()
    );
    let quoted = quote(setup, &line, &reportdata);
    process::capture(Command::new("kill").arg(service.id().to_string()))?;
    let ended = service.wait_with_output()?;
    quoted?;
    // As a shell has it for SIGTERM.
    ensure!(ended.status.code() == Some(128 + 15), "cloister aesm: {ended:?}");
    ensure!(!fs::exists(format!("{socket}_1028"))?, "the socket is left there");
    let quote = shared.join("quote.bin");
    let accepted = verdict(setup, &quote, &platform, &["--report-data", &reportdata])?;
    ensure!(accepted.is_ok(), "{accepted:?}");
    Ok(())
}

/// Installs the package in a machine, has a REPORT quoted into the shared folder, and removes the package.
fn quote(setup: &Setup, line: &str, reportdata: &str) -> Result<()> {
    let mut session = setup.session(&line.split(' ').collect::<Vec<_>>())?;
    log_in(&mut session)?;
    session.run("mount -t virtiofs shared /mnt && dpkg -i /mnt/aesmd.deb", COMMAND)?;
    let quote = format!("enclave-demo quote /mnt/quote.bin {reportdata}");
    let quoted = session.run(&quote, COMMAND)?;
    ensure!(quoted.contains("enclave-demo: done"), "the demo printed {quoted}");
    let removed = session.run("dpkg --purge cloister-aesmd && ! ls /run/aesmd", COMMAND)?;
    ensure!(removed.contains("cannot access '/run/aesmd'"), "the package leaves {removed}");
    session.send("poweroff")?;
    let exit = session.end(COMMAND)?;
    ensure!(exit == Some(0), "exit code {exit:?}");
    Ok(())
}

/// Runs enclaves, and resets the machine with one of them alive.
fn first_boot(setup: &Setup, session: &mut Session, socket: &str) -> Result<()> {
    let cmdline = session.run("cat /proc/cmdline", COMMAND)?;
    ensure!(cmdline.contains("root=/dev/vda1 ro console=ttyS0"), "the command line is {cmdline}");
    ensure!(!cmdline.contains("second-boot"), "the command line is {cmdline}");
    let processors = session.run("nproc", COMMAND)?;
    ensure!(processors.contains('4'), "{processors} processors");
    let size = session.run("df --output=size -BM / | tail -n 1", COMMAND)?;
    // The terminal shows the command too.
    let last = size.lines().last().unwrap_or_default().trim();
    let mib: u64 = last.trim_end_matches('M').parse().context("df says no size")?;
    ensure!(mib > (DISK_SIZE >> 20) * 9 / 10, "the root file system has {mib} MiB");
    let enclave = session.run("enclave-demo", COMMAND)?;
    ensure!(enclave.contains("enclave-demo: done"), "the demo printed {enclave}");
    let key = session.run("enclave-demo provision", COMMAND)?;
    ensure!(key.contains("provisioning key with SHA-256"), "the demo printed {key}");

    // What the guest writes for its boot loader, the next boot reads.
    session.run("grub-set-default '1>1'", COMMAND)?;
    session.run("sed -i 's/ single / second-boot /' /boot/grub/grub.cfg && sync", COMMAND)?;
    session.run("enclave-demo threads 1000000 >/dev/null & sleep 5", COMMAND)?;
    let report = epc(setup, socket)?;
    ensure!(report["enclaves"][0]["children"].as_u64() > Some(0), "no enclave lives: {report}");
    ensure!(pages(&report, "valid") > Some(0), "no page is valid: {report}");
    // At once, without the end of any process.
    session.send("systemctl reboot --force --force")
}

/// Finds the EPC as after power-on, and runs Linux's selftests.
fn second_boot(setup: &Setup, session: &mut Session, socket: &str) -> Result<()> {
    let report = epc(setup, socket)?;
    ensure!(pages(&report, "valid") == Some(0), "pages are valid after the reset: {report}");
    ensure!(report["enclaves"] == json!([]), "an enclave is left after the reset: {report}");
    ensure!(pages(&report, "backed") == Some(64 << 8), "the section is not backed: {report}");
    let cmdline = session.run("cat /proc/cmdline", COMMAND)?;
    ensure!(cmdline.contains("second-boot"), "after the reset the command line is {cmdline}");

    // As the task `reclaimer` of guest/init.
    session.run("ksgxd=$(grep -lx ksgxd /proc/[0-9]*/comm | cut -d/ -f3)", COMMAND)?;
    session.run("taskset -pc 0 $ksgxd && chrt -f -p 50 $ksgxd", COMMAND)?;
    let output = session.run(&format!("test_sgx {}", selftests::binding(&BOUND)?), SELFTESTS)?;
    let lines: Vec<String> = output.lines().map(str::to_owned).collect();
    for (test, verdict) in selftests::parse(&lines)? {
        ensure!(verdict == Verdict::Passed, "{test}: {verdict:?}; the selftests printed {output}");
    }
    Ok(())
}

/// What `cloister epc` reports.
fn epc(setup: &Setup, socket: &str) -> Result<Value> {
    let output = setup.cloister(&["epc", socket, "--once", "--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cloister epc: {stderr}");
    serde_json::from_slice(&output.stdout).context("the report is not JSON")
}

/// Pages of the section in a state.
fn pages(report: &Value, state: &str) -> Option<u64> {
    report["sections"][0]["pages"][state].as_u64()
}

fn press_power_button(socket: &str) -> Result<()> {
    let mut monitor = UnixStream::connect(socket).context("cannot connect to the monitor")?;
    for command in ["qmp_capabilities", "system_powerdown"] {
        writeln!(monitor, "{}", json!({ "execute": command })).context("the monitor is gone")?;
    }
    // The greeting, an event and two answers. The machine lives on without a client.
    let answers = BufReader::new(monitor).lines().take(4).collect::<Result<Vec<_>, _>>()?;
    ensure!(!answers.iter().any(|answer| answer.contains("error")), "{answers:?}");
    Ok(())
}

/// What the seed says of the user, and of the network.
const USER_DATA: &str = "#cloud-config
password: secret
locale: C.UTF-8
chpasswd: { expire: false }
write_files:
  - { path: /etc/motd, content: 'made by cloud-init' }
";
const NETWORK: &str = "version: 2
ethernets:
  eth0: { addresses: [10.9.0.2/24] }
";

/// A cloud image with a seed boots, takes a user's login, and has the network of the seed.
pub(super) fn cloud_init(setup: &Setup) -> Result<()> {
    let (disk, seed) = (setup.path("debian-12-cloud.img"), setup.path("seed.img"));
    Debian::for_clouds()?.copy(&disk, DISK_SIZE)?;
    let user_data = setup.file("user-data", USER_DATA.as_bytes())?;
    let network = setup.file("network-config", NETWORK.as_bytes())?;
    let seed = seed.display().to_string();
    let words = ["--user-data", &user_data, "--network-config", &network, "--hostname", "web"];
    let made = setup.cloister(&[&["seed", &seed][..], &words].concat())?;
    ensure!(made.status.success(), "{made:?}");
    let socket = Setup::socket("cloud");
    let line = format!(
        "run --disk {} --disk {seed},readonly --memory 1G --sgx-epc id=epc1,size=32M --net stream={socket},server=on",
        disk.display()
    );

    let mut session = setup.session(&line.split(' ').collect::<Vec<_>>())?;
    session.expect("web login: ", BOOT)?;
    session.send("debian")?;
    session.expect("Password: ", COMMAND)?;
    session.send("secret")?;
    session.expect("debian@web:~$ ", COMMAND)?;
    let state = session.run("cloud-init status --wait --long; cat /etc/motd", BOOT)?;
    ensure!(state.contains("status: done") && state.contains("made by cloud-init"), "{state}");
    // The link is down until somebody is at its other end.
    let peer = thread::spawn({
        let (setup, option) = (setup.clone(), format!("stream={socket}"));
        let script = "ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up; sleep 60";
        move || {
            exec::run(
                &setup,
                "peer",
                &["--user", "root", "--timeout", "60", "--net", &option],
                &["sh", "-c", script],
            )
        }
    });
    let ping = session.run("until ping -c 1 -W 2 10.9.0.1; do sleep 1; done", COMMAND)?;
    ensure!(ping.contains("1 received"), "{ping}");
    let address = session.run("ip -4 -brief address show dev eth0", COMMAND)?;
    ensure!(address.contains("10.9.0.2/24"), "{address}");
    session.send("sudo poweroff")?;
    let exit = session.end(COMMAND)?;
    ensure!(exit == Some(0), "exit code {exit:?}");
    let peer = peer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(peer.status.code() == Some(124), "{peer:?}");
    Ok(())
}
