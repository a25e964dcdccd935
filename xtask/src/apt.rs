//! Debian packages without root: fetched with the system's own `apt-get`, sources
//! and keys, but with its state and cache under `target/`, and unpacked there.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::{process, repository};

/// A list of installed packages, which is empty.
const STATUS: &str = "state/status";
/// Marks a package directory whose unpacking came to its end.
const COMPLETE: &str = ".complete";

/// The package archive.
pub(crate) struct Archive {
    directory: PathBuf,
    /// That of the packages, where it is not this system's.
    architecture: Option<&'static str>,
    updated: Cell<bool>,
    /// Two xtasks do not fetch at once. Released when dropped.
    _lock: Rc<File>,
}

impl Archive {
    /// Opens the cache; waits while another xtask fetches.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open() -> Result<Self> {
        let directory = repository::cache();
        let made = fs::create_dir_all(&directory);
        let lock = made.and_then(|()| File::create(directory.join("lock")));
        let lock = lock.map_err(|error| unusable(&directory, error))?;
        lock.lock().context("cannot lock the cache")?;
        let updated = Cell::new(false);
        Ok(Self { directory, architecture: None, updated, _lock: Rc::new(lock) })
    }

    /// The archive of another architecture, which the system's dpkg need not know.
    pub(crate) fn of(&self, architecture: &'static str) -> Self {
        Self {
            directory: self.directory.clone(),
            architecture: Some(architecture),
            updated: Cell::new(false),
            _lock: Rc::clone(&self._lock),
        }
    }

    /// The directory into which a package is unpacked, fetched first if need be.
    ///
    /// # Errors
    /// The package is not cached and cannot be fetched.
    pub(crate) fn unpacked(&self, package: &str) -> Result<PathBuf> {
        match self.cached(package) {
            Some(root) => Ok(root),
            None => self.fetch(package, &[package.to_owned()]),
        }
    }

    /// The program `xz`, which a small system has not.
    ///
    /// # Errors
    /// As [`Archive::unpacked`].
    pub(crate) fn xz(&self) -> Result<PathBuf> {
        Ok(self.unpacked("xz-utils")?.join("usr/bin/xz"))
    }

    /// The directory of a package that was unpacked before.
    pub(crate) fn cached(&self, name: &str) -> Option<PathBuf> {
        let directory = self.folder("packages").join(name);
        directory.join(COMPLETE).exists().then(|| directory.join("root"))
    }

    /// Where something of this architecture is kept.
    fn folder(&self, name: &str) -> PathBuf {
        match self.architecture {
            Some(architecture) => self.directory.join(format!("{name}-{architecture}")),
            None => self.directory.join(name),
        }
    }

    /// Several packages unpacked into one root directory, without what they depend on.
    ///
    /// # Errors
    /// As [`Archive::unpacked`].
    pub(crate) fn unpacked_together(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        match self.cached(name) {
            Some(root) => Ok(root),
            None => self.fetch(name, &packages.iter().map(ToString::to_string).collect::<Vec<_>>()),
        }
    }

    /// Unpacks a package with all that it needs and the system does not have.
    ///
    /// # Errors
    /// As [`Archive::unpacked`].
    pub(crate) fn unpacked_with_dependencies(&self, package: &str) -> Result<PathBuf> {
        let name = format!("{package}-with-dependencies");
        if let Some(root) = self.cached(&name) {
            return Ok(root);
        }
        let query = process::capture(
            Command::new("dpkg-query").args(["--show", "--showformat=${Package}\n"]),
        )?;
        let installed: Vec<&str> = query.lines().collect();
        let mut wanted = self.closure(package)?;
        // The package itself is looked for where it is unpacked, whatever the system has.
        wanted.retain(|name| name == package || !installed.contains(&name.as_str()));
        self.fetch(&name, &wanted)
    }

    /// Unpacks a package with all that it needs, which a guest has not.
    ///
    /// # Errors
    /// As [`Archive::unpacked`].
    pub(crate) fn unpacked_for_a_guest(&self, package: &str) -> Result<PathBuf> {
        let name = format!("{package}-for-a-guest");
        match self.cached(&name) {
            Some(root) => Ok(root),
            None => self.fetch(&name, &self.closure(package)?),
        }
    }

    fn fetch(&self, name: &str, packages: &[String]) -> Result<PathBuf> {
        let start = Instant::now();
        match packages {
            [one] => process::step(&format!("Fetching Debian package {one}")),
            many => process::step(&format!("Fetching {} Debian packages: {name}", many.len())),
        }
        let directory = self.folder("packages").join(name);
        let root = directory.join("root");
        for package in packages {
            self.update(package)?;
        }
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&root)?;
        self.run(Command::new("apt-get").arg("download").args(packages).current_dir(&directory))
            .with_context(|| self.unavailable(name))?;
        for entry in fs::read_dir(&directory)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                process::capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
                fs::remove_file(&file)?;
            }
        }
        keep_links_inside(&root, &root)?;
        fs::write(directory.join(COMPLETE), packages.join("\n"))?;
        process::done(start);
        Ok(root)
    }

    /// The first dependency of a package whose name starts and ends as given.
    ///
    /// # Errors
    /// The archive is out of reach, or there is no such dependency.
    pub(crate) fn dependency(&self, package: &str, start: &str, end: &str) -> Result<String> {
        self.update(package)?;
        let text = self
            .run(Command::new("apt-cache").arg("depends").arg(package))
            .with_context(|| self.unavailable(package))?;
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(start) && name.ends_with(end))
            .map(str::to_owned)
            .with_context(|| format!("package {package} depends on no {start}*{end}"))
    }

    /// A package and, recursively, what it depends on.
    fn closure(&self, package: &str) -> Result<Vec<String>> {
        self.update(package)?;
        let text = self
            .run(
                Command::new("apt-cache")
                    .args(["depends", "--recurse", "--no-recommends", "--no-suggests"])
                    .args(["--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"])
                    .arg(package),
            )
            .with_context(|| self.unavailable(package))?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
            .map(str::to_owned)
            .collect())
    }

    /// Reads the package lists once a run.
    fn update(&self, package: &str) -> Result<()> {
        if self.updated.get() {
            return Ok(());
        }
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder("apt").join(part))?;
        }
        fs::write(self.folder("apt").join(STATUS), "")?;
        // A source that does not answer must not stop the others: whether the
        // package is known decides.
        let outcome = self.run(Command::new("apt-get").args(["update", "-q"]));
        if self.run(Command::new("apt-cache").arg("show").arg(package)).is_err() {
            outcome.with_context(|| self.unavailable(package))?;
            bail!(self.unavailable(package));
        }
        self.updated.set(true);
        Ok(())
    }

    fn unavailable(&self, package: &str) -> String {
        let colon = if self.architecture.is_some() { ":" } else { "" };
        let architecture = self.architecture.unwrap_or_default();
        format!(
            "Debian package {package}{colon}{architecture} cannot be fetched and is not cached under {}: \
             run again with a connection to the system's package sources",
            self.directory.display()
        )
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let apt = self.folder("apt");
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        command
            .args(["-o", &option("Dir::State", &apt.join("state"))])
            // Else an installed version is preferred that no source may have.
            .args(["-o", &option("Dir::State::status", &apt.join(STATUS))])
            .args(["-o", &option("Dir::Cache", &apt.join("cache"))])
            // Root would otherwise fetch as a user who may not write here.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(["-o", "Acquire::Languages=none"])
            .args(["-o", "Acquire::Retries=2"])
            .args(["-o", "Acquire::http::Timeout=20"])
            .args(["-o", "Debug::NoLocking=true"]);
        if let Some(architecture) = self.architecture {
            command.args(["-o", &format!("APT::Architecture={architecture}")]);
            command.args(["-o", &format!("APT::Architectures::={architecture}")]);
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let output = process::finish(command.stdin(Stdio::null()))?;
        if !output.status.success() {
            // Its messages name the system's package sources, which are nobody else's
            // business, so they are left out.
            bail!("{name} failed ({}); `apt-get update` tells why", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What to do about a cache that cannot be written.
fn unusable(directory: &Path, error: std::io::Error) -> anyhow::Error {
    let shown = directory.display();
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!(
            "{shown} belongs to another user: make it yours with chown, or let CARGO_TARGET_DIR name \
             a folder of your own"
        ),
        _ => anyhow::Error::new(error).context(format!("cannot write to {shown}")),
    }
}

/// Makes links to absolute paths lead to where they lead on a system that is booted from the root.
fn keep_links_inside(root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            keep_links_inside(root, &path)?;
        } else if kind.is_symlink()
            && let Ok(inside) = fs::read_link(&path)?.strip_prefix("/")
        {
            let depth = folder.strip_prefix(root)?.components().count();
            fs::remove_file(&path)?;
            symlink(Path::new(&"../".repeat(depth)).join(inside), &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{keep_links_inside, unusable};

    #[test]
    fn links_to_absolute_paths_stay_inside_the_root_and_others_are_kept() {
        let root = std::env::temp_dir().join(format!("xtask-links-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("/lib32/libm.so.6", root.join("usr/lib/libm.so")).unwrap();
        symlink("libc.so.6", root.join("usr/lib/libc.so")).unwrap();

        keep_links_inside(&root, &root).unwrap();

        let target = |name: &str| fs::read_link(root.join(name)).unwrap();
        assert_eq!(target("usr/lib/libm.so"), Path::new("../../lib32/libm.so.6"));
        assert_eq!(target("usr/lib/libc.so"), Path::new("libc.so.6"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_cache_of_another_user_says_how_to_have_one_of_ones_own() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);

        let line = unusable(Path::new("target/xtask"), denied).to_string();

        assert_eq!(
            line,
            "target/xtask belongs to another user: make it yours with chown, or let \
             CARGO_TARGET_DIR name a folder of your own"
        );
    }
}
