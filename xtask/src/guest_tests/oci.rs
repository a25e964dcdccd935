//! Containers of podman and of containerd in machines with SGX: `cloister oci`.
//!
//! Both are Debian's, unpacked, with folders of the test's own and without systemd. What they take of the host,
//! to be root and to mount, not every host allows: there the tests are left out, with the reason.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::Setup;
use crate::apt::Archive;
use crate::{debian, guest, process};

/// EPC of the containers: less than the enclaves have that are made in them.
const EPC: &str = "cloister.epc=8M";
/// What a container is asked to do: to show its EPC in bytes, to run an enclave, and to have 12 MiB of enclaves.
const SCRIPT: &str =
    "cat /sys/devices/system/node/node0/x86/sgx_total_bytes; ls /dev/sgx*; enclave-demo
                      enclave-demo oversubscribed 12 2 1; exit 5";
const IMAGE: &str = "localhost/enclaves";

/// Programs and files of a test.
struct Engine {
    programs: PathBuf,
    folder: PathBuf,
    runtime: PathBuf,
}

impl Engine {
    /// `None`, with the reason, where the host does not allow it.
    fn new(setup: &Setup, package: &str) -> Result<Option<Self>> {
        let id = process::finish(Command::new("id").arg("-u"))?;
        if id.stdout != b"0\n" {
            println!("left out: container engines without root take subordinate ids of the host");
            return Ok(None);
        }
        let mut unshare = Command::new("unshare");
        let mounts =
            process::finish(unshare.args(["--mount", "mount", "-t", "tmpfs", "x", "/mnt"]))?;
        if !mounts.status.success() {
            println!("left out: the host lets nobody mount");
            return Ok(None);
        }
        let programs = Archive::open()?.unpacked_with_dependencies(package)?;
        let folder = setup.path(package);
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        // By this name it is a runtime. Engines name a program and no options.
        let runtime = folder.join("cloister-oci");
        let program = setup.program()?.canonicalize()?;
        let line = format!(
            "#!/bin/sh\nexec {} oci --kernel {} \"$@\"\n",
            program.display(),
            fs::canonicalize(setup.kernel())?.display()
        );
        fs::write(&runtime, line)?;
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755))?;
        Ok(Some(Self { programs, folder, runtime }))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn program(&self, name: &str) -> Command {
        let folders = ["usr/bin", "usr/sbin"].map(|folder| self.programs.join(folder));
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = Command::new(folders[0].join(name));
        command
            .env("PATH", format!("{}:{}:{system}", folders[0].display(), folders[1].display()))
            .env("LD_LIBRARY_PATH", self.programs.join("usr/lib/x86_64-linux-gnu"))
            .stdin(Stdio::null());
        command
    }
}

/// A Debian that has the demo's enclave and its program.
fn root(setup: &Setup) -> Result<PathBuf> {
    let pristine = debian::smallest(&Archive::open()?)?;
    let root = setup.path("root");
    process::capture(Command::new("cp").args(["-a", "--"]).arg(&pristine).arg(&root))?;
    fs::create_dir_all(root.join("enclave"))?;
    for (name, contents) in &setup.image.enclave {
        fs::write(root.join("enclave").join(name), contents)?;
    }
    fs::copy(&setup.image.demo, root.join("usr/bin/enclave-demo"))?;
    Ok(root)
}

/// What the container said to [`SCRIPT`] under [`EPC`].
fn check(setup: &Setup, output: &Output) -> Result<()> {
    let written = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(5), "{}: {written}{errors}", output.status);
    for expected in [
        "8388608\n/dev/sgx_enclave\n",
        &setup.image.mrenclave,
        "enclave-demo: 3072 pages of enclaves in 2 threads, 1 sweeps: ",
    ] {
        ensure!(written.contains(expected), "{expected:?} is not in {written}{errors}");
    }
    Ok(())
}

/// podman creates, runs, stops and removes containers, whose enclaves have the EPC that the annotation says.
pub(super) fn podman(setup: &Setup) -> Result<()> {
    let Some(engine) = Engine::new(setup, "podman")? else { return Ok(()) };
    let podman = Podman::new(engine)?;
    let archive = podman.engine.path("image.tar");
    let root = root(setup)?;
    process::capture(Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]))?;
    let policy = podman.engine.path("policy.json");
    // Nobody has signed what was just made.
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
    podman.say(&["import", "--signature-policy", &policy, &archive, IMAGE])?;
    fs::remove_file(&archive)?;

    let run = ["run", "--rm", "--network", "none"];
    let enclaves = ["--annotation", EPC, IMAGE, "sh", "-c", SCRIPT];
    check(setup, &process::finish(podman.command(&run).args(enclaves))?)?;

    // Streams, volumes, user, environment and directory.
    let volume = podman.engine.path("volume");
    fs::create_dir_all(&volume)?;
    fs::write(Path::new(&volume).join("file"), "of the host\n")?;
    let (bind, fixed) = (format!("{volume}:/data"), format!("{volume}/file:/etc/own:ro"));
    let script = "cat; cat /etc/own; echo x > /etc/own; cp /etc/own /data/copy; id -u; pwd; echo $A >&2; exit 3";
    let mut command = podman.command(&run);
    command.args(["-i", "-v", &bind, "-v", &fixed, "-e", "A=a b", "-w", "/srv"]);
    command.args([IMAGE, "sh", "-c", script]);
    let output = with_input(command, "in\n")?;
    let written = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(written == "in\nof the host\n0\n/srv\n", "{written}{errors}");
    ensure!(errors.contains("Read-only file system") && errors.ends_with("a b\n"), "{errors}");
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(fs::read_to_string(Path::new(&volume).join("copy"))? == "of the host\n");

    // A terminal, which has the errors too and ends lines as terminals do.
    let script = "test -t 0 && test -t 1 && tty; ls /none; stty size; exit 4";
    let output = process::finish(podman.command(&run).args(["-t", IMAGE, "sh", "-c", script]))?;
    let written = String::from_utf8_lossy(&output.stdout);
    ensure!(written.starts_with("/dev/pts/") && written.contains("/none"), "{output:?}");
    ensure!(written.ends_with("\r\n") && output.status.code() == Some(4), "{output:?}");

    // A signal by its name, and the code that the program answers with.
    let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done";
    let start = ["run", "-d", "--name", "loop", "--network", "none", IMAGE, "sh", "-c", script];
    process::capture(&mut podman.command(&start))?;
    while !podman.say(&["logs", "loop"])?.contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    ensure!(podman.say(&["inspect", "-f", "{{.State.Status}}", "loop"])? == "running\n");
    podman.say(&["kill", "--signal", "USR1", "loop"])?;
    ensure!(podman.say(&["wait", "loop"])? == "9\n");
    podman.say(&["rm", "loop"])?;

    network(&podman)?;

    // What is wrong is said in the annotation's name.
    let wrong = ["--annotation", "cloister.epc=much", IMAGE, "true"];
    let output = process::finish(podman.command(&run).args(wrong))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("cloister.epc: \"much\" is not a size"), "{errors}");
    Ok(())
}

/// A container has the network and the name server of the namespace that it is in.
fn network(podman: &Podman) -> Result<()> {
    let passt = Archive::open()?.unpacked("passt")?.join("usr/bin");
    let volume = podman.engine.path("volume");
    fs::copy(guest::Programs::build()?.peer, Path::new(&volume).join("peer"))?;
    let outside = format!(
        "ip link set lo up; ip link add out0 type veth peer name far0
         ip addr add 192.0.2.1/24 dev out0; ip link set out0 up; ip link set far0 up
         ip route add default via 192.0.2.254
         echo nameserver 192.0.2.1 > {volume}/resolv.conf
         mount --bind {volume}/resolv.conf /etc/resolv.conf
         {volume}/peer serve > {volume}/served & server=$!
         while ! grep -q ready {volume}/served; do sleep 0.1; done
         code=0; \"$@\" || code=$?; kill $server; exit $code"
    );
    let script =
        "getent ahostsv4 any.example | head -n 1 | cut -d ' ' -f 1; /data/peer tcp 192.0.2.1 10";
    let bind = format!("{volume}:/data");
    let inner = podman.command(&[
        "run",
        "--rm",
        "--network",
        "host",
        "--annotation",
        "cloister.net=user",
        "-v",
        &bind,
        IMAGE,
        "sh",
        "-c",
        script,
    ]);
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-ec", &outside, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        let value = value.context("no value")?.to_owned();
        let path: OsString = [passt.as_os_str(), OsStr::new(":"), &value].into_iter().collect();
        command.env(name, if name == "PATH" { path } else { value });
    }
    let output = process::finish(&mut command)?;
    ensure!(output.stdout == b"192.0.2.77\ntcp: 10 connections at once\n", "{output:?}");
    Ok(())
}

fn with_input(mut command: Command, input: &str) -> Result<Output> {
    use std::io::Write as _;
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn()?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

struct Podman {
    engine: Engine,
}

impl Podman {
    fn new(engine: Engine) -> Result<Self> {
        let conf = format!(
            "[engine]\nconmon_path = [\"{bin}/conmon\"]\nevents_logger = \"file\"\n\
             helper_binaries_dir = [\"{lib}\"]\nruntime_supports_json = [\"cloister-oci\"]\n\
             [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            bin = engine.programs.join("usr/bin").display(),
            lib = engine.programs.join("usr/lib/podman").display(),
        );
        fs::write(engine.path("containers.conf"), conf)?;
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            engine.path("graph"),
            engine.path("state")
        );
        fs::write(engine.path("storage.conf"), storage)?;
        Ok(Self { engine })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut podman = self.engine.program("podman");
        podman
            .env("CONTAINERS_CONF", self.engine.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.engine.path("storage.conf"))
            .args(["--runtime", &self.engine.runtime.display().to_string()])
            .args(["--cgroup-manager", "cgroupfs", "--tmpdir", &self.engine.path("tmp")])
            .args(arguments);
        podman
    }

    fn say(&self, arguments: &[&str]) -> Result<String> {
        process::capture(&mut self.command(arguments))
    }
}

/// containerd at a socket, until it is dropped.
struct Containerd<'a>(Child, &'a str);

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
        // It leaves both there.
        for socket in [self.1, &format!("{}.ttrpc", self.1)] {
            let _ = fs::remove_file(socket);
        }
    }
}

/// containerd drives the runtime by runc's shim.
pub(super) fn containerd(setup: &Setup) -> Result<()> {
    let Some(engine) = Engine::new(setup, "containerd")? else { return Ok(()) };
    let socket = Setup::socket("containerd");
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{socket}\"\n",
        engine.path("graph"),
        engine.path("state")
    );
    fs::write(engine.path("config.toml"), config)?;
    let log = fs::File::create(engine.path("log"))?;
    let mut daemon = engine.program("containerd");
    daemon.args(["--config", &engine.path("config.toml")]).stdout(log.try_clone()?).stderr(log);
    let _daemon = Containerd(daemon.spawn()?, &socket);
    process::await_socket(&socket)?;
    let root = root(setup)?.canonicalize()?.display().to_string();

    let run = |options: &[&str], name: &str, script: &str| {
        let mut ctr = engine.program("ctr");
        ctr.args(["--address", &socket, "run", "--rm", "--rootfs"]);
        ctr.args(["--runc-binary", &engine.runtime.display().to_string()]).args(options);
        process::finish(ctr.args([&root, name, "sh", "-c", script]))
    };
    check(setup, &run(&["--annotation", EPC], "enclaves", SCRIPT)?)?;
    let killed = run(&["--env", "A=b"], "killed", "echo $A; kill -TERM $$")?;
    ensure!(killed.status.code() == Some(128 + 15) && killed.stdout == b"b\n", "{killed:?}");
    let wrong = run(&["--annotation", "cloister.cpus=many"], "wrong", "true")?;
    let errors = String::from_utf8_lossy(&wrong.stderr);
    ensure!(errors.contains("cloister.cpus: \"many\" is not a number of processors"), "{errors}");
    Ok(())
}

/// The command is a runtime by its name, and says what runc would of containers that are not there.
pub(super) fn errors(setup: &Setup) -> Result<()> {
    let name = setup.path("cloister-oci");
    symlink(setup.program()?.canonicalize()?, &name)?;
    let (states, log) = (setup.path("states"), setup.path("log"));
    for (arguments, code, expected) in [
        (&["state", "none"][..], 1, "cloister: container does not exist\n"),
        (&["start", "none"], 1, "cloister: container does not exist\n"),
        (&["kill", "none", "KILL"], 1, "cloister: container does not exist\n"),
        (&["delete", "--force", "none"], 0, ""),
        (&["create", "--bundle", "/nonexistent", "none"], 1, "cloister: /nonexistent: No such"),
        (&["delete", "a/b"], 1, "cloister: invalid container ID format"),
        (&["kill", "none", "FOO"], 1, "cloister: unknown signal \"FOO\": write a number"),
        (
            &["pause", "none"],
            1,
            "cloister: unrecognized subcommand 'pause': see cloister oci --help",
        ),
    ] {
        let mut runtime = Command::new(&name);
        runtime.arg("--root").arg(&states).arg("--log").arg(&log).args(["--log-format", "json"]);
        let output = process::finish(runtime.args(arguments))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{arguments:?}: {output:?}");
        ensure!(errors.starts_with(expected), "{arguments:?}: {errors:?}");
    }
    let text = fs::read_to_string(&log)?;
    let first: serde_json::Value = serde_json::from_str(text.lines().next().context("no line")?)?;
    ensure!(first["msg"] == "container does not exist" && first["level"] == "error", "{text}");
    Ok(())
}
