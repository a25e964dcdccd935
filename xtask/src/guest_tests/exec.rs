//! Commands of the host in a machine: `cloister exec`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::Setup;
use crate::apt::Archive;
use crate::process;

const PATIENCE: Duration = Duration::from_secs(120);

/// `cloister exec` with options and a command, in a folder of its own.
pub(super) fn exec(
    setup: &Setup,
    name: &str,
    options: &[&str],
    command: &[&str],
) -> Result<Command> {
    let folder = setup.path(name);
    fs::create_dir_all(&folder)?;
    let mut exec = Command::new(setup.program()?);
    exec.args(["exec", "--kernel", &setup.kernel()]).args(options).arg("--").args(command);
    exec.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(exec)
}

/// Waits for the end, with what was written until then.
pub(super) fn finish(child: Child) -> Result<Output> {
    child.wait_with_output().context("cannot wait for cloister")
}

pub(super) fn run(setup: &Setup, name: &str, options: &[&str], command: &[&str]) -> Result<Output> {
    finish(exec(setup, name, options, command)?.spawn()?)
}

pub(super) fn check(output: &Output, code: i32, written: &str, errors: &str) -> Result<()> {
    let found = (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    let expected = (Some(code), written.to_owned(), errors.to_owned());
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}

/// Exit codes are the command's, or a shell's; ours are above them.
pub(super) fn exit_codes(setup: &Setup) -> Result<()> {
    for code in [0, 1, 7, 127, 255] {
        let output = run(setup, "exec-codes", &[], &["sh", "-c", &format!("exit {code}")])?;
        check(&output, code, "", "")?;
    }
    let killed = run(setup, "exec-codes", &[], &["sh", "-c", "kill -TERM $$"])?;
    check(&killed, 128 + 15, "", "")?;
    let missing = run(setup, "exec-codes", &[], &["no-such-program"])?;
    check(
        &missing,
        127,
        "",
        "cloister: no-such-program: No such file or directory (os error 2)\n",
    )?;
    let folder = run(setup, "exec-codes", &[], &["/etc/passwd"])?;
    check(&folder, 126, "", "cloister: /etc/passwd: Permission denied (os error 13)\n")?;
    // Less than the boot takes, which does not count.
    let late =
        run(setup, "exec-codes", &["--timeout", "1"], &["sh", "-c", "echo begun; sleep 100"])?;
    check(&late, 124, "begun\n", "")
}

/// Without the process that serves the host's folders there is no more command.
pub(super) fn folders_gone(setup: &Setup) -> Result<()> {
    let script = "echo begun; while :; do ls /usr/share >/dev/null; done";
    let mut child = exec(setup, "exec-gone", &[], &["sh", "-c", script])?.spawn()?;
    let mut line = [0; 6];
    child.stdout.as_mut().context("no output")?.read_exact(&mut line)?;
    let server = file_server(child.id())?;
    process::capture(Command::new("kill").args(["-KILL", &server.to_string()]))?;
    let start = Instant::now();
    let output = finish(child)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(125), "{output:?}");
    ensure!(errors.lines().any(|line| line.contains("serves the host's folders")), "{errors}");
    ensure!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    Ok(())
}

/// The process that serves the folders of the machine of this process.
fn file_server(machine: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{machine}/task/{machine}/children"))?;
    for child in children.split_whitespace() {
        if fs::read_to_string(format!("/proc/{child}/comm"))?.trim() == "cloister-files" {
            return Ok(child.parse()?);
        }
    }
    bail!("no process serves folders: {children:?}")
}

/// A machine that dies says so with its last lines and a code of its own.
pub(super) fn failures(setup: &Setup) -> Result<()> {
    let panic = ["sh", "-c", "echo c > /proc/sysrq-trigger"];
    let dead = run(setup, "exec-failures", &["--user", "root"], &panic)?;
    let errors = String::from_utf8_lossy(&dead.stderr);
    ensure!(dead.status.code() == Some(125), "{dead:?}");
    ensure!(errors.contains("Kernel panic") && errors.contains("--memory: "), "{errors}");
    for options in [
        ["--epc", "x"],
        ["--root", "/nonexistent"],
        ["--user", "nobody-at-all"],
        ["--frobnicate", "x"],
    ] {
        let refused = run(setup, "exec-failures", &options, &["true"])?;
        let errors = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(125), "{options:?}: {refused:?}");
        ensure!(errors.lines().count() == 1 && errors.contains(options[0]), "{errors}");
    }
    Ok(())
}

/// So many bytes to send, in which what is lost or exchanged is seen.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 131 % 251) as u8).collect()
}

/// So many bytes come back as they were sent, and what the command says beside them apart.
pub(super) fn echo(setup: &Setup, name: &str, len: usize) -> Result<()> {
    let bytes = bytes(len);
    let script = "echo begun >&2; cat; echo done >&2";
    let mut exec = exec(setup, name, &[], &["sh", "-c", script])?;
    let mut child = exec.stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let sent = bytes.clone();
    // Closed when it is dropped: the command sees the end of its input.
    let sender = thread::spawn(move || input.write_all(&sent));
    let output = finish(child)?;
    sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;

    ensure!(output.status.code() == Some(0), "{:?}", output.status);
    ensure!(
        Sha256::digest(&output.stdout) == Sha256::digest(&bytes),
        "{} bytes came back, or others",
        output.stdout.len()
    );
    ensure!(output.stderr == b"begun\ndone\n", "{:?}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Streams carry every byte, apart, and each half ends by itself.
pub(super) fn streams(setup: &Setup) -> Result<()> {
    echo(setup, "exec-streams", 32 << 20)?;

    // A reader that is gone ends the writer, and a writer that has ended is not waited for.
    let mut child = exec(setup, "exec-streams", &[], &["yes"])?.spawn()?;
    let mut first = [0; 4];
    let mut reader = child.stdout.take().context("no output")?;
    reader.read_exact(&mut first)?;
    drop(reader);
    let output = finish(child)?;
    ensure!((first, output.status.code()) == (*b"y\ny\n", Some(128 + 13)), "{output:?}");
    let left = run(setup, "exec-streams", &[], &["sh", "-c", "sleep 1000 & echo first"])?;
    check(&left, 0, "first\n", "")
}

/// The current folder is changed, the root and what is read-only is not, and nothing leads out.
pub(super) fn folders(setup: &Setup) -> Result<()> {
    let place = setup.path("exec-folders");
    let fixed = setup.path("exec-fixed");
    fs::create_dir_all(&place)?;
    fs::create_dir_all(&fixed)?;
    fs::write(fixed.join("file"), "fixed\n")?;
    fs::write(place.join("file"), "before\n")?;
    let fixed_name = fixed.canonicalize()?.display().to_string();
    // A link that the machine does not have, to a folder that is in its place too.
    let link = Setup::socket("link");
    symlink(&fixed_name, &link)?;
    let script = format!(
        "cat file; echo after > file; mkdir -p a/b; mv file a/b/; ln -s ../../.. a/b/up; chmod 640 a/b/file
         ls a/b/up > /dev/null && echo up; cat {fixed_name}/file; echo x 2>/dev/null > {link}/file || cat {link}/file
         echo lost > /etc/lost && cat /etc/lost; echo lost > /tmp/lost && cat /tmp/lost; pwd; umask"
    );
    let output = run(setup, "exec-folders", &["--ro", &link], &["sh", "-c", &script])?;
    fs::remove_file(&link)?;

    let written = format!(
        "before\nup\nfixed\nfixed\nlost\nlost\n{}\n0022\n",
        place.canonicalize()?.display()
    );
    check(&output, 0, &written, "")?;
    let changed = fs::read_to_string(place.join("a/b/file"))?;
    ensure!(changed == "after\n" && !place.join("file").exists(), "{changed}");
    ensure!(!fs::exists("/etc/lost")? && fs::read_to_string(fixed.join("file"))? == "fixed\n");
    Ok(())
}

/// The words of the command and its environment are what they are, whatever is in them.
pub(super) fn words(setup: &Setup) -> Result<()> {
    let words = ["printf", "[%s]", "a b", "$HOME", "'\"", "", "--", "init=/bin/sh", "ä\n"];
    let output = run(setup, "exec-words init=/x", &[], &words)?;
    check(&output, 0, "[a b][$HOME]['\"][][--][init=/bin/sh][ä\n]", "")?;

    let options = ["--env", "OWN=a=b c", "--env", "PATH=/usr/bin:/bin", "--user", "1234:567"];
    let script =
        "echo $OWN; echo ${HIDDEN-unset}; id -u; id -g; test -w /dev/sgx_enclave && echo sgx";
    let mut exec = exec(setup, "exec-words", &options, &["sh", "-c", script])?;
    let output = finish(exec.env("HIDDEN", "x").spawn()?)?;
    check(&output, 0, "a=b c\nunset\n1234\n567\nsgx\n", "")
}

/// A signal goes to the command, which answers as it likes.
pub(super) fn signals(setup: &Setup) -> Result<()> {
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = exec(setup, "exec-signals", &[], &["sh", "-c", script])?.spawn()?;
    let mut ready = [0; 6];
    let mut output = child.stdout.take().context("no output")?;
    output.read_exact(&mut ready)?;
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status()?;
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            bail!("the command did not end");
        }
        thread::sleep(Duration::from_millis(20));
    };
    ensure!((rest.as_str(), status.code()) == ("caught\n", Some(9)), "{rest:?} {status}");
    Ok(())
}

/// Puts the demo's program and its enclave in a folder, which is made.
pub(super) fn put_demo(setup: &Setup, name: &str) -> Result<PathBuf> {
    let folder = setup.path(name);
    fs::create_dir_all(&folder)?;
    fs::copy(&setup.image.demo, folder.join("enclave-demo"))?;
    for (name, contents) in &setup.image.enclave {
        fs::write(folder.join(name), contents)?;
    }
    Ok(folder)
}

/// An enclave that was built on the host runs in the machine.
pub(super) fn enclave(setup: &Setup) -> Result<()> {
    put_demo(setup, "exec-enclave")?;
    let mrenclave = &setup.image.mrenclave;
    // Where the program looks for its enclave, in the machine alone.
    let script = "ln -s $PWD /enclave && exec ./enclave-demo";
    let output = run(setup, "exec-enclave", &["--user", "root"], &["sh", "-c", script])?;
    let written = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(0) && written.contains(mrenclave),
        "{written}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The same under KVM: that of a machine with VMX and SGX, in which `cloister exec` runs. Its KVM has SGX for guests,
/// and then it has not.
pub(super) fn enclave_under_kvm(setup: &Setup) -> Result<()> {
    const TEST: &str = "exec-kvm";
    let folder = put_demo(setup, TEST)?;
    let kernel = Path::new(&setup.kernel()).canonicalize()?;
    // With its modules. Both may be where the machine has something else.
    let package = kernel.parent().and_then(Path::parent).context("no package")?;
    fs::copy(setup.program()?, folder.join("cloister"))?;
    fs::copy(
        Archive::open()?.unpacked("busybox-static")?.join("bin/busybox"),
        folder.join("busybox"),
    )?;
    let script = format!(
        "modules={package}/lib/modules/$(uname -r)/kernel
         for module in virt/lib/irqbypass arch/x86/kvm/kvm; do
             ./busybox insmod $modules/$module.ko || exit
         done
         for sgx in 1 0; do
             ./busybox insmod $modules/arch/x86/kvm/kvm-intel.ko sgx=$sgx || exit
             ./cloister exec --accel kvm --kernel {kernel} --user root -- \
                 sh -c 'ln -s $PWD /enclave && exec ./enclave-demo' || exit
             ./busybox rmmod kvm-intel
         done",
        package = package.display(),
        kernel = kernel.display()
    );
    let package = package.display().to_string();
    let options = ["--cpu", "host,+vmx", "--memory", "3G", "--user", "root", "--ro", &package];
    let output = run(setup, TEST, &options, &["sh", "-c", &script])?;
    let written = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(0) && written.matches("enclave-demo: done").count() == 2,
        "{}: {written}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
