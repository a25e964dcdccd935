//! Wrong options: one line on standard error that names the option and the fix,
//! exit code 1, and nothing on standard output.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};

use super::Setup;

/// Runs `cloister run` with arguments that must be refused with a line that starts
/// with `cloister: ` and has what is wrong and the fix, parted by a colon.
fn refused(setup: &Setup, option: &str, arguments: &[&str]) -> Result<()> {
    command_refused(setup, option, &[&["run"], arguments].concat())
}

/// As [`refused`], for any command.
fn command_refused(setup: &Setup, option: &str, line: &[&str]) -> Result<()> {
    let output = setup.cloister(line)?;
    let shown = line.join(" ");
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "{shown}: exit {} instead of code 1: {stderr}",
        output.status
    );
    ensure!(output.stdout.is_empty(), "{shown}: something was printed to standard output");
    ensure!(stderr.lines().count() == 1, "{shown}: not one line: {stderr}");
    ensure!(stderr.contains(option), "{shown}: the line does not name {option}: {stderr}");
    ensure!(stderr.starts_with("cloister: "), "{shown}: who says so? {stderr}");
    let clauses = stderr.trim_start_matches("cloister: ").split(": ").count();
    ensure!(clauses >= 2, "{shown}: the line has no fix: {stderr}");
    Ok(())
}

/// As [`refused`], after a kernel that is good.
fn refused_after_kernel(setup: &Setup, option: &str, arguments: &[&str]) -> Result<()> {
    let kernel = setup.kernel();
    let mut line = vec!["--kernel", &kernel];
    line.extend(arguments);
    refused(setup, option, &line)
}

pub(super) fn missing_kernel(setup: &Setup) -> Result<()> {
    refused(setup, "--kernel", &[])?;
    refused(setup, "--kernel", &["--kernel", "/nonexistent/vmlinuz"])
}

pub(super) fn empty_kernel(setup: &Setup) -> Result<()> {
    let path = setup.file("empty", b"")?;
    refused(setup, "--kernel", &["--kernel", &path])
}

pub(super) fn truncated_kernel(setup: &Setup) -> Result<()> {
    let kernel = fs::read(&setup.image.kernel)?;
    for length in [64, 0x202, 4096, kernel.len() / 2] {
        let path = setup.file("truncated", &kernel[..length])?;
        refused(setup, "--kernel", &["--kernel", &path])?;
    }
    Ok(())
}

pub(super) fn not_a_kernel(setup: &Setup) -> Result<()> {
    let path = setup.file("text", "not a kernel\n".repeat(10_000).as_bytes())?;
    refused(setup, "--kernel", &["--kernel", &path])
}

pub(super) fn folder_as_kernel(setup: &Setup) -> Result<()> {
    refused(setup, "--kernel", &["--kernel", "/"])
}

pub(super) fn missing_initrd(setup: &Setup) -> Result<()> {
    refused_after_kernel(setup, "--initrd", &["--initrd", "/nonexistent/initrd"])
}

pub(super) fn initrd_does_not_fit(setup: &Setup) -> Result<()> {
    let path = setup.file("large", &vec![0; 80 << 20])?;
    refused_after_kernel(setup, "--initrd", &["--memory", "64M", "--initrd", &path])
}

pub(super) fn memory_sizes(setup: &Setup) -> Result<()> {
    for size in ["0", "64X", "4097", "-1", "", "99999999T", "16E", "1.5G"] {
        refused_after_kernel(setup, "--memory", &["--memory", size])?;
    }
    Ok(())
}

pub(super) fn processor_counts(setup: &Setup) -> Result<()> {
    for count in ["0", "-1", "many", "100000", ""] {
        refused_after_kernel(setup, "--cpus", &["--cpus", count])?;
    }
    Ok(())
}

pub(super) fn epc_sizes(setup: &Setup) -> Result<()> {
    for size in ["0", "64X", "4097", "-1", "", "99999999T"] {
        let value = format!("id=epc0,size={size}");
        refused_after_kernel(setup, "--sgx-epc", &["--sgx-epc", &value])?;
    }
    Ok(())
}

pub(super) fn epc_keys(setup: &Setup) -> Result<()> {
    for value in [
        "",
        "epc0",
        "id=epc0",
        "size=64M",
        "id=epc0,size=64M,colour=red",
        "id=epc0,size=64M,prealloc=maybe",
        "id=,size=64M",
        "id=epc0,size=64M,size=32M",
    ] {
        refused_after_kernel(setup, "--sgx-epc", &["--sgx-epc", value])?;
    }
    Ok(())
}

pub(super) fn epc_id_twice(setup: &Setup) -> Result<()> {
    let section = "id=epc0,size=64M";
    refused_after_kernel(setup, "epc0", &["--sgx-epc", section, "--sgx-epc", section])
}

pub(super) fn ninth_epc_section(setup: &Setup) -> Result<()> {
    let sections: Vec<String> = (0..9).map(|index| format!("id=epc{index},size=4M")).collect();
    let line: Vec<&str> =
        sections.iter().flat_map(|section| ["--sgx-epc", section.as_str()]).collect();
    refused_after_kernel(setup, "--sgx-epc", &line)
}

pub(super) fn unreadable_disk(setup: &Setup) -> Result<()> {
    refused_after_kernel(setup, "--disk", &["--disk", "/nonexistent/disk.img"])?;
    refused_after_kernel(setup, "--disk", &["--disk", "/nonexistent/disk.img,readonly"])?;
    refused_after_kernel(setup, "--disk", &["--disk", "/"])?;
    refused_after_kernel(setup, "--disk", &["--disk", ""])
}

pub(super) fn cpu_flags(setup: &Setup) -> Result<()> {
    let section = "id=epc0,size=64M";
    for value in ["", "max", "host,sgx2", "host,+sgx3", "host,-sgx1,+sgx2", "host,-sgx2,+sgx2"] {
        refused_after_kernel(setup, "--cpu", &["--sgx-epc", section, "--cpu", value])?;
    }
    refused_after_kernel(setup, "--cpu", &["--sgx-epc", section, "--cpu", "host,-sgx"])?;
    refused_after_kernel(setup, "--cpu", &["--cpu", "host,+sgx2"])
}

pub(super) fn launch_keys(setup: &Setup) -> Result<()> {
    let section = "id=epc0,size=64M";
    for value in ["", "12", &"g".repeat(64), &"0".repeat(65)] {
        refused_after_kernel(
            setup,
            "--launch-key",
            &["--sgx-epc", section, "--launch-key", value],
        )?;
    }
    refused_after_kernel(setup, "--launch-key", &["--launch-key", &"0".repeat(64)])
}

pub(super) fn platforms(setup: &Setup) -> Result<()> {
    let file = setup.file("platform-file", b"")?;
    for value in ["/nonexistent/platform", "/proc/platform", &file, "/"] {
        refused_after_kernel(setup, "--platform", &["--platform", value])?;
    }
    Ok(())
}

pub(super) fn provisioning(setup: &Setup) -> Result<()> {
    const EPC: &str = "id=epc0,size=1M";
    let folder = setup.path("platform").display().to_string();
    let options = ["--sgx-epc", EPC, "--cpu", "host,+sgx-provisionkey", "--platform", &folder];
    fs::create_dir_all(format!("{folder}/provision"))?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    refused_after_kernel(setup, "is not a file", &options)?;
    fs::remove_dir(format!("{folder}/provision"))?;
    refused_after_kernel(setup, "install -m 600", &options)
}

pub(super) fn sandbox(setup: &Setup) -> Result<()> {
    for value in ["", "yes", "ON"] {
        refused_after_kernel(setup, "--sandbox", &["--sandbox", value])?;
    }
    Ok(())
}

pub(super) fn monitors(setup: &Setup) -> Result<()> {
    let file = setup.file("monitor-file", b"")?;
    let there = format!("unix:{file}");
    let long = format!("unix:{}", "x".repeat(108));
    for value in
        ["", "tcp:127.0.0.1:1", "unix:", "unix:q,wait=maybe", "unix:/nonexistent/q", "unix:/"]
            .into_iter()
            .chain([there.as_str(), &long])
    {
        refused_after_kernel(setup, "--qmp", &["--qmp", value])?;
    }
    Ok(())
}

pub(super) fn shares(setup: &Setup) -> Result<()> {
    let long = format!("{}=/", "t".repeat(37));
    let file = format!("tag={}", setup.file("share-file", b"")?);
    for value in ["", "/", "=/", "tag=", "tag=/nonexistent", &long, &file] {
        refused_after_kernel(setup, "--share", &["--share", value])?;
    }
    refused_after_kernel(setup, "--share", &["--share", "a=/", "--share", "a=/tmp"])
}

pub(super) fn vsock(setup: &Setup) -> Result<()> {
    let long = format!("cid=3,path={}", "x".repeat(100));
    let file = format!("cid=3,path={}", setup.file("vsock-file", b"")?);
    for value in [
        "",
        "path=v",
        "cid=3",
        "cid=2,path=v",
        "cid=3,path=",
        "cid=3,path=/nonexistent/v",
        &long,
        &file,
    ] {
        refused_after_kernel(setup, "--vsock", &["--vsock", value])?;
    }
    Ok(())
}

pub(super) fn networks(setup: &Setup) -> Result<()> {
    let long = format!("stream={}", "x".repeat(108));
    let file = format!("stream={},server=on", setup.file("network-file", b"")?);
    for value in [
        "",
        "none",
        "tun=t",
        "tap",
        "tap=",
        "tap=cloister-none",
        "tap=lo",
        "tap=sixteen-letters-",
        "stream=",
        "stream=/nonexistent/s",
        "stream=/nonexistent/s,server=on",
        "stream=s,server=maybe",
        "user,mac=1",
        "user,mac=01:00:5e:00:00:01",
        "user,mtu=1",
        "user,id=1",
        "user,wrong=1",
        "user,hostfwd=22",
        "user,hostfwd=tcp::22-10.0.2.16:22",
        "user,hostfwd=tcp::22-:22,hostfwd=tcp::22-:23",
        &long,
        &file,
    ] {
        refused_after_kernel(setup, "--net", &["--net", value])?;
    }
    refused_after_kernel(setup, "--net", &["--net", "user,id=a", "--net", "tap=t,id=a"])?;
    let many = ["--net", "stream=/nonexistent/s"].repeat(20);
    refused_after_kernel(setup, "--net", &many)
}

pub(super) fn unknown_options(setup: &Setup) -> Result<()> {
    refused_after_kernel(setup, "--frobnicate", &["--frobnicate"])?;
    refused_after_kernel(setup, "extra", &["extra"])
}

pub(super) fn qemu_options(setup: &Setup) -> Result<()> {
    let kernel = setup.kernel();
    let object = "memory-backend-epc,id=mem1,size=64M";
    let cases: &[(&str, &[&str])] = &[
        ("-vnc", &["-vnc", ":0"]),
        ("-frobnicate", &["-frobnicate"]),
        ("-m", &["-m", "64X"]),
        ("-smp", &["-smp", "0"]),
        ("-accel", &["-accel", "hvf"]),
        ("-object", &["-object", object]),
        ("-object", &["-object", "memory-backend-file,id=a,size=64M,mem-path=/x"]),
        ("-sgx-epc", &["-sgx-epc", "id=epc1,memdev=mem1"]),
        ("-machine", &["-object", object, "-M", "sgx-epc.0.memdev=mem1,sgx-epc.0.node=1"]),
        ("-numa", &["-numa", "node,mem=64M"]),
        ("-drive", &["-drive", "file=/nonexistent/disk.img,if=virtio"]),
        ("-drive", &["-drive", "file=disk.img,if=virtio,format=qcow2"]),
        ("-pidfile", &["-pidfile", "/nonexistent/pid"]),
        ("-nographic", &["-nographic", "-daemonize"]),
        ("-serial", &["-serial", "pty"]),
        ("-netdev", &["-netdev", "user,id=n"]),
        ("-nic", &["-nic", "tap,ifname=cloister-none"]),
        ("-device", &["-device", "virtio-net-device,netdev=n"]),
        ("-nic", &["-nic", "user,model=e1000"]),
        ("-qmp", &["-qmp", "tcp:localhost:4444,server=on"]),
    ];
    for (option, arguments) in cases {
        command_refused(setup, option, &[&["qemu", "-kernel", &kernel], *arguments].concat())?;
    }
    Ok(())
}

pub(super) fn info(setup: &Setup) -> Result<()> {
    let output = setup.cloister(&["info"])?;

    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "exit {}", output.status);
    for word in ["KVM", "SGX", "/dev/sgx_vepc", "Accelerator", "Automatic choice"] {
        ensure!(text.contains(word), "nothing is said of {word}:\n{text}");
    }
    Ok(())
}
