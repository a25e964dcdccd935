//! `cargo xtask dist`: what a user installs, a Debian package and an archive of the same files, and a package for guests.

mod deb;
mod notices;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::guest::Programs;
use crate::{process, repository};

/// The version of all of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROFILE: &str = "release";
/// Where the completions of a shell belong, by the folder and file that `cloister-manual` writes.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash/cloister.bash", "share/bash-completion/completions/cloister"),
    ("zsh/_cloister", "share/zsh/vendor-completions/_cloister"),
    ("fish/cloister.fish", "share/fish/vendor_completions.d/cloister.fish"),
];
const DOCUMENTATION: &str = "share/doc/cloister";
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// The workspace of programs for guests.
const GUEST: &str = "guest/Cargo.toml";

/// What was made.
pub(crate) struct Dist {
    /// The Debian package.
    pub(crate) package: PathBuf,
    /// The same files below one folder, for other systems.
    pub(crate) archive: PathBuf,
}

/// Makes all and names them.
///
/// # Errors
/// As [`Dist::make`].
pub(crate) fn run() -> Result<()> {
    let dist = Dist::make()?;
    let aesmd = aesmd()?;
    for path in [&dist.package, &dist.archive, &aesmd] {
        let size = fs::metadata(path)?.len() as f64 / f64::from(1 << 20);
        println!("==> {} ({size:.1} MiB)", path.display());
    }
    println!(
        "    install the first with: sudo apt install {}\n    or the second with: tar -xzf {} -C ~/.local \
         --strip-components=1\n    and the third in a machine, for quotes (docs/attestation.md)",
        dist.package.display(),
        dist.archive.display()
    );
    Ok(())
}

impl Dist {
    /// Compiles the command and packs it with its manual.
    ///
    /// # Errors
    /// Cargo's own, and those of the programs that pack.
    pub(crate) fn make() -> Result<Self> {
        process::step("Building cloister and its manual (profile release)");
        let start = Instant::now();
        process::show(process::cargo().args([
            "build",
            "--locked",
            "--profile",
            PROFILE,
            "--package=cloister-vmm",
            "--package=cloister-manual",
        ]))?;
        process::done(start);
        process::step("Packing");
        let start = Instant::now();
        let folder = repository::target().join("dist");
        let stage = repository::cache().join("dist/stage");
        let _ = fs::remove_dir_all(&stage);
        let usr = stage.join("usr");
        fill(&usr)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let time = time_of_commit();
        let archive = pack(&stage, &folder, time.as_deref())?;
        let program = process::read(&usr.join("bin/cloister"))?;
        let package = deb::make(&deb::command(&program)?, &stage, &folder, time.as_deref())?;
        process::done(start);
        Ok(Self { package, archive })
    }
}

/// Makes the Debian package for guests whose enclaves are to have quotes.
///
/// # Errors
/// Cargo's own, and dpkg's.
pub(crate) fn aesmd() -> Result<PathBuf> {
    let program = Programs::build()?.aesmd;
    let folder = repository::target().join("dist");
    let stage = repository::cache().join("dist/stage-aesmd");
    let _ = fs::remove_dir_all(&stage);
    let installed = stage.join("usr/sbin/cloister-aesmd");
    put(&installed, &process::read(&program)?)?;
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;
    let unit = repository::root().join("guest/aesmd/cloister-aesmd.service");
    put(&stage.join("usr/lib/systemd/system/cloister-aesmd.service"), &process::read(&unit)?)?;
    let documentation = stage.join("usr/share/doc/cloister-aesmd");
    for name in LICENCES {
        put(&documentation.join(name), &process::read(&repository::root().join(name))?)?;
    }
    let notices = notices::text(notices::AESMD, &[(GUEST, "guest-aesmd")])?;
    put(&documentation.join("third-party.txt"), notices.as_bytes())?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    deb::make(&deb::aesmd(), &stage, &folder, time_of_commit().as_deref())
}

/// Puts all files where they belong below a prefix.
fn fill(usr: &Path) -> Result<()> {
    let built = repository::target().join(PROFILE);
    let manual = repository::cache().join("dist/manual");
    let _ = fs::remove_dir_all(&manual);
    process::capture(Command::new(built.join("cloister-manual")).arg(&manual))?;

    let program = usr.join("bin/cloister");
    put(&program, &process::read(&built.join("cloister"))?)?;
    // The names of functions stay, for the traces of a failure.
    process::capture(Command::new("strip").arg("--strip-debug").arg(&program))?;
    // By this name it is the runtime of containers: engines name a program and no options.
    symlink("cloister", usr.join("bin/cloister-oci"))?;
    for entry in fs::read_dir(manual.join("man"))? {
        let page = entry?.path();
        let name = page.file_name().context("a page has no name")?;
        let place = usr.join("share/man/man1").join(name);
        put(&place, &process::read(&page)?)?;
        // Without the time, so that the same commit makes the same package.
        process::capture(Command::new("gzip").args(["-9", "--no-name"]).arg(&place))?;
    }
    for (file, place) in COMPLETIONS {
        put(&usr.join(place), &process::read(&manual.join(file))?)?;
    }
    let documentation = usr.join(DOCUMENTATION);
    let root = repository::root();
    for name in ["README.md", "CHANGELOG.md"].into_iter().chain(LICENCES) {
        put(&documentation.join(name), &process::read(&root.join(name))?)?;
    }
    copy_folder(&root.join("docs"), &documentation.join("docs"))?;
    let programs = [("Cargo.toml", "cloister-vmm"), (GUEST, "exec-init")];
    let notices = notices::text(notices::COMMAND, &programs)?;
    put(&documentation.join("third-party.txt"), notices.as_bytes())?;
    // Whatever the umask is.
    process::capture(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(usr))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Writes a file whose folder may be missing.
fn put(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, contents))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let place = to.join(path.file_name().context("a file has no name")?);
        if path.is_dir() {
            copy_folder(&path, &place)?;
        } else {
            put(&place, &process::read(&path)?)?;
        }
    }
    Ok(())
}

/// Seconds since 1970 of the commit, outside a repository none.
fn time_of_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(repository::root());
    process::capture(&mut git).ok().map(|text| text.trim().to_owned())
}

/// Packs what is below `usr` into an archive whose files are in one folder.
fn pack(stage: &Path, folder: &Path, time: Option<&str>) -> Result<PathBuf> {
    let name = format!("cloister-{VERSION}-{}-linux-gnu", std::env::consts::ARCH);
    let archive = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--transform=s,^usr,{name},"));
    if let Some(time) = time {
        tar.arg(format!("--mtime=@{time}"));
    }
    process::capture(tar.arg("-C").arg(stage).arg("-czf").arg(&archive).arg("usr"))?;
    Ok(archive)
}
