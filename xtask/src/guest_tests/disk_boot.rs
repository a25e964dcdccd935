//! Booting what is installed on a disk.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setup;
use crate::console::Session;
use crate::debian::Debian;

/// From the machine's start to the login prompt, on a host that has other things to do.
const BOOT: Duration = Duration::from_secs(300);
/// For a command, and for the end of the services.
const COMMAND: Duration = Duration::from_secs(120);

/// Waits for the login prompt and logs in as root, who has no password.
fn log_in(session: &mut Session) -> Result<()> {
    session.expect("cloister login: ", BOOT)?;
    session.send("root")?;
    session.expect("root@cloister:~# ", COMMAND)?;
    Ok(())
}

pub(super) fn debian(setup: &Setup) -> Result<()> {
    let disk = setup.path("debian-12.img");
    Debian::get()?.copy(&disk)?;
    let disk = disk.display().to_string();
    let section = "id=epc0,size=64M";
    let arguments = ["run", "--disk", &disk, "--sgx-epc", section, "--memory", "2G", "--cpus", "4"];

    let mut session = setup.session(&arguments)?;
    log_in(&mut session)?;
    let cmdline = session.run("cat /proc/cmdline", COMMAND)?;
    let enclave = session.run("enclave-demo", COMMAND)?;
    let processors = session.run("nproc", COMMAND)?;
    // What the guest writes to its boot loader's environment block, the next boot reads.
    session.run("grub-set-default '1>1'", COMMAND)?;
    session.run("sed -i 's/ single / second-boot /' /boot/grub/grub.cfg", COMMAND)?;
    session.send("systemctl reboot")?;
    log_in(&mut session)?;
    let second = session.run("cat /proc/cmdline", COMMAND)?;
    session.send("systemctl poweroff")?;
    let exit = session.end(COMMAND)?;

    ensure!(cmdline.contains("root=/dev/vda1 ro console=ttyS0"), "the command line is {cmdline}");
    ensure!(!cmdline.contains("second-boot"), "the command line is {cmdline}");
    ensure!(enclave.contains("enclave-demo: done"), "the demo printed {enclave}");
    ensure!(processors.contains('4'), "{processors} processors");
    ensure!(second.contains("second-boot"), "after the reset the command line is {second}");
    ensure!(exit == Some(0), "exit code {exit:?}");
    Ok(())
}
