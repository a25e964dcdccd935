//! Gramine, which the user has installed, under `cloister exec` (docs/stacks/gramine.md).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, thread};

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::attest::{certified, certified_together, verdict};
use super::exec::{exec, finish};
use crate::testing::PROFILE;
use crate::{process, repository};

/// Where Debian and Gramine have libraries.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// Options of machines for Gramine's runtime.
const MACHINE: [&str; 4] = ["--epc", "256M", "--memory", "2G"];
/// The line that each of the two enclaves has of the other.
const FROM: &str = "ra-tls: the other enclave says: hello from the";
/// SGX_QL_QV_RESULT_INVALID_SIGNATURE, which quotes have that do not lead to the root.
const REFUSED: &str = "ra-tls: the other enclave is refused: step 3, SGX_QL_QV_RESULT 0xa004";

/// Gramine's programs and files below a prefix.
struct Gramine {
    prefix: PathBuf,
    path: OsString,
    /// Its Python modules, where Python does not look by itself.
    python: OsString,
}

impl Gramine {
    fn at(prefix: &Path) -> Result<Self> {
        let prefix =
            fs::canonicalize(prefix).with_context(|| format!("--gramine {}", prefix.display()))?;
        let program = prefix.join("bin/gramine-sgx");
        ensure!(program.exists(), "--gramine: there is no {}", program.display());
        let folders = env::var_os("PATH").unwrap_or_default();
        let bin = std::iter::once(prefix.join("bin"));
        // Gramine's programs are Python of Debian's, whatever else is first.
        let path =
            env::join_paths(bin.chain(["/usr/bin".into()]).chain(env::split_paths(&folders)))?;
        let python = env::join_paths(modules(&prefix.join("lib"))?)?;
        Ok(Self { prefix, path, python })
    }

    /// One of Gramine's programs, or of those that build for it, in a folder.
    fn command(&self, program: &str, folder: &Path) -> Command {
        // The search for a program is by this process's PATH.
        let own = self.prefix.join("bin").join(program);
        let mut command =
            Command::new(if own.exists() { own.into() } else { OsString::from(program) });
        command.current_dir(folder).env("PATH", &self.path).env("PYTHONPATH", &self.python);
        command.env("PKG_CONFIG_PATH", self.prefix.join(LIBRARIES).join("pkgconfig"));
        command
    }

    /// Makes `NAME.manifest`, `NAME.manifest.sgx` and `NAME.sig` of the folder's template.
    fn sign(&self, name: &str, folder: &Path) -> Result<()> {
        let (manifest, signed) = (format!("{name}.manifest"), format!("{name}.manifest.sgx"));
        let template = format!("{name}.manifest.template");
        let libraries = format!("-Darch_libdir=/{LIBRARIES}");
        process::capture(
            self.command("gramine-manifest", folder).args([&libraries, &template, &manifest]),
        )?;
        process::capture(self.command("gramine-sgx-gen-private-key", folder).arg("key.pem"))?;
        process::capture(self.command("gramine-sgx-sign", folder).args([
            "--key",
            "key.pem",
            "--manifest",
            &manifest,
            "--output",
            &signed,
        ]))?;
        Ok(())
    }

    /// A C program of guest/stacks, linked with libraries of Gramine's.
    fn compile(&self, name: &str, packages: &[&str], folder: &Path) -> Result<()> {
        let mut gcc = self.command("gcc", folder);
        gcc.args(["-O2", "-o", name]).arg(source(&format!("{name}.c")));
        if !packages.is_empty() {
            let flags = self
                .command("pkg-config", folder)
                .args(["--cflags", "--libs"])
                .args(packages)
                .output();
            let flags = flags.context("pkg-config")?;
            ensure!(flags.status.success(), "pkg-config knows no {packages:?}: {flags:?}");
            gcc.args(String::from_utf8_lossy(&flags.stdout).split_whitespace());
        }
        process::capture(&mut gcc).map(drop)
    }

    /// Runs a command of Gramine's in a machine.
    fn run(&self, setup: &Setup, name: &str, options: &[&str], command: &[&str]) -> Result<Output> {
        finish(self.exec(setup, name, options, command)?.spawn()?)
    }

    fn exec(
        &self,
        setup: &Setup,
        name: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<Command> {
        let options = [&MACHINE[..], &["--env", "PATH", "--env", "PYTHONPATH"], options].concat();
        let mut exec = exec(setup, name, &options, command)?;
        exec.env("PATH", &self.path).env("PYTHONPATH", &self.python);
        Ok(exec)
    }
}

/// Folders of Python modules below a prefix's `lib`.
fn modules(lib: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lib)? {
        let folder = entry?.path();
        for part in ["site-packages", "dist-packages"] {
            let modules = folder.join(part);
            if modules.join("graminelibos").exists() {
                found.push(modules);
            }
        }
    }
    Ok(found)
}

fn source(name: &str) -> PathBuf {
    repository::root().join("guest/stacks").join(name)
}

fn copy(name: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::copy(source(name), folder.join(name))?;
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program in an enclave has a quote from `/dev/attestation`, which is accepted under the platform's root alone.
pub(crate) fn quote(setup: &Setup, prefix: &Path) -> Result<()> {
    const TEST: &str = "gramine-quote";
    let gramine = Gramine::at(prefix)?;
    let folder = setup.path(TEST);
    copy("quote.manifest.template", &folder)?;
    gramine.compile("quote", &[], &folder)?;
    gramine.sign("quote", &folder)?;
    let (own, other) = (certified(setup, "own")?, certified(setup, "other")?);

    let options = ["--attest", "--platform", &own];
    let output = gramine.run(setup, TEST, &options, &["gramine-sgx", "quote"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(text(&output.stdout).contains("quote: dcap"), "{output:?}");

    let quote = folder.join("quote.bin");
    let reportdata = "5e".repeat(64);
    let accepted = verdict(setup, &quote, &own, &["--report-data", &reportdata])?;
    ensure!(accepted.is_ok(), "{accepted:?}");
    let elsewhere = verdict(setup, &quote, &other, &[])?;
    ensure!(elsewhere.is_err(), "{elsewhere:?}");
    Ok(())
}

/// Two enclaves on two platforms of one authority talk by RA-TLS over a virtual network, and one on a platform of
/// another authority is refused.
pub(crate) fn ra_tls(setup: &Setup, prefix: &Path) -> Result<()> {
    const TEST: &str = "gramine-ra-tls";
    let gramine = Gramine::at(prefix)?;
    let folder = setup.path(TEST);
    copy("ra-tls.manifest.template", &folder)?;
    gramine.compile("ra-tls", &["mbedtls_gramine", "ra_tls_gramine"], &folder)?;
    fs::create_dir_all(folder.join("lib"))?;
    fs::copy(verifier()?, folder.join("lib/libsgx_dcap_quoteverify.so.1"))?;

    let [authority, first, second] = certified_together(setup)?;
    let third = certified(setup, "third")?;
    let certificates = format!("{first}/pki");
    process::capture(Command::new("cp").args(["-r", &certificates]).arg(folder.join("pki")))?;
    gramine.sign("ra-tls", &folder)?;

    let socket = Setup::socket("ra-tls");
    let of = ["--authority", authority.as_str()];
    let machine = |platform: &str, authority: &[&str], net: &str, ends: &str| {
        let options = ["--user", "root", "--attest", "--platform", platform, "--net", net];
        let (address, words) = ends.split_once(' ').unwrap_or_default();
        let script = format!(
            "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip link set lo up &&
             exec gramine-sgx ra-tls {words}"
        );
        let options = [&options[..], authority].concat();
        gramine.run(setup, TEST, &options, &["sh", "-c", &script])
    };
    let meet = |platform: &str, authority: &[&str]| {
        let (listen, join) = (format!("stream={socket},server=on"), format!("stream={socket}"));
        thread::scope(|scope| {
            let server = scope.spawn(|| machine(&first, &of, &listen, "10.9.0.1 server 4433"));
            let client = process::await_socket(&socket).and_then(|()| {
                machine(platform, authority, &join, "10.9.0.2 client 10.9.0.1 4433")
            });
            let server = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            anyhow::Ok((server?, client?))
        })
    };

    let (server, client) = meet(&second, &of)?;
    ensure!(server.status.success() && client.status.success(), "{server:?} {client:?}");
    ensure!(text(&server.stdout).contains(&format!("{FROM} client")), "{server:?}");
    ensure!(text(&client.stdout).contains(&format!("{FROM} server")), "{client:?}");

    let (server, client) = meet(&third, &[])?;
    ensure!(server.status.code() == Some(1), "{server:?}");
    ensure!(text(&server.stdout).contains(REFUSED), "{server:?}");
    ensure!(!client.status.success() && !text(&client.stdout).contains(FROM), "{client:?}");
    Ok(())
}

/// The library that takes the place of Intel's, just built.
fn verifier() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--locked", "--profile", PROFILE]);
    process::capture(cargo.args(["--package", "cloister-quoteverify"]))?;
    Ok(repository::target().join(PROFILE).join("libsgx_dcap_quoteverify.so"))
}
