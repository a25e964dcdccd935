//! Debian's kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::apt::Archive;
use crate::{process, repository};

/// How the names of modules end in packages that have them compressed.
const COMPRESSED: &str = ".xz";

/// A line of kernels that Debian maintains.
pub(crate) struct Line {
    /// The package that depends on the newest kernel.
    meta_package: &'static str,
    /// How the names of its packages end.
    ending: &'static str,
    /// Where it is not this system's.
    architecture: Option<&'static str>,
    /// The file that keeps the choice.
    choice: &'static str,
}

/// The cloud kernel of Debian 12.
pub(crate) const STOCK: Line = Line {
    meta_package: "linux-image-cloud-amd64",
    ending: "-cloud-amd64",
    architecture: None,
    choice: "kernel-package",
};

/// The newer cloud kernel that Debian 12 has too.
pub(crate) const NEWER: Line = Line {
    meta_package: "linux-image-6.12-cloud-amd64",
    ending: "-cloud-amd64",
    architecture: None,
    choice: "kernel-package-6.12",
};

/// Debian 12's kernel for 32-bit processors.
pub(crate) const I686: Line = Line {
    meta_package: "linux-image-686-pae",
    ending: "-686-pae",
    architecture: Some("i386"),
    choice: "kernel-package-686",
};

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

/// A module as the kernel loads it.
pub(crate) struct Module {
    /// Its file's name, which ends in `.ko`.
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

impl Kernel {
    /// The kernel that was fetched before, else the newest one.
    ///
    /// # Errors
    /// Nothing is cached and the package archive is out of reach.
    pub(crate) fn get(archive: &Archive, line: &Line) -> Result<Self> {
        let foreign = line.architecture.map(|architecture| archive.of(architecture));
        let archive = foreign.as_ref().unwrap_or(archive);
        let choice = repository::cache().join(line.choice);
        let package = match fs::read_to_string(&choice) {
            Ok(name) => name.trim().to_owned(),
            Err(_) => archive.dependency(line.meta_package, "linux-image-", line.ending)?,
        };
        let root = archive.unpacked(&package)?;
        fs::write(&choice, &package)?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        let modules = root.join("lib/modules").join(&release);
        Ok(Self { release, image, modules })
    }

    /// Modules and all that they need, in the order in which they can be loaded.
    ///
    /// # Errors
    /// A module that the package does not have, or that cannot be decompressed.
    pub(crate) fn modules(&self, archive: &Archive, names: &[&str]) -> Result<Vec<Module>> {
        let mut files = Vec::new();
        collect(&self.modules, &mut files)?;
        let mut ordered = Vec::new();
        for name in names {
            require(name, archive, &files, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// Puts a module after those that its `depends=` names. The package is unpacked
/// without its post-installation script, so there is no `modules.dep`.
fn require(
    name: &str,
    archive: &Archive,
    files: &[PathBuf],
    ordered: &mut Vec<Module>,
) -> Result<()> {
    let wanted = format!("{}.ko", name.replace('-', "_"));
    let is_wanted = |file: &str| file.replace('-', "_") == wanted;
    if ordered.iter().any(|module| is_wanted(&module.name)) {
        return Ok(());
    }
    let named = files.iter().find_map(|file| {
        let name = file.file_name()?.to_str()?.trim_end_matches(COMPRESSED);
        is_wanted(name).then_some((file, name))
    });
    let (file, name) = named.with_context(|| format!("the kernel package has no module {name}"))?;
    let contents = if file.to_string_lossy().ends_with(COMPRESSED) {
        decompressed(archive, file)?
    } else {
        process::read(file)?
    };
    for needed in depends(&contents) {
        require(&needed, archive, files, ordered)?;
    }
    ordered.push(Module { name: name.to_owned(), contents });
    Ok(())
}

fn decompressed(archive: &Archive, file: &Path) -> Result<Vec<u8>> {
    let output = process::finish(
        Command::new(archive.xz()?)
            .args(["--decompress", "--stdout"])
            .arg(file)
            .stdin(Stdio::null()),
    )?;
    ensure!(output.status.success(), "xz cannot decompress {}", file.display());
    Ok(output.stdout)
}

/// The `depends=` entry of a module's .modinfo section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.to_string_lossy().trim_end_matches(COMPRESSED).ends_with(".ko") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"\x7fELF\0license=GPL\0depends=virtio,virtio_ring\0name=x\0";

        assert_eq!(depends(module), ["virtio", "virtio_ring"]);
    }

    #[test]
    fn a_module_without_dependencies_has_none() {
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
    }
}
