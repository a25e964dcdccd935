//! The stock Debian cloud kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::{process, repository};

/// Names the newest kernel of the release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel that was fetched before, else the newest one.
    ///
    /// # Errors
    /// Nothing is cached and the package archive is out of reach.
    pub(crate) fn get(archive: &Archive) -> Result<Self> {
        let chosen = repository::cache().join("kernel-package");
        let package = match fs::read_to_string(&chosen) {
            Ok(name) => name.trim().to_owned(),
            Err(_) => archive.dependency(META_PACKAGE, "linux-image-", "-cloud-amd64")?,
        };
        let root = archive.unpacked(&package)?;
        fs::write(&chosen, &package)?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        let modules = root.join("lib/modules").join(&release);
        Ok(Self { release, image, modules })
    }

    /// The files of modules and of all that they need, in the order in which they
    /// can be loaded.
    ///
    /// # Errors
    /// A module that the package does not have.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        collect(&self.modules, &mut files)?;
        let mut ordered = Vec::new();
        for name in names {
            require(name, &files, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// Puts a module behind those that its `depends=` names. The package is unpacked
/// without its post-installation script, so there is no `modules.dep`.
fn require(name: &str, files: &[PathBuf], ordered: &mut Vec<PathBuf>) -> Result<()> {
    let normal = |name: &str| name.replace('-', "_");
    let file = files
        .iter()
        .find(|file| {
            file.file_stem().is_some_and(|stem| normal(&stem.to_string_lossy()) == normal(name))
        })
        .with_context(|| format!("the kernel package has no module {name}"))?;
    if ordered.contains(file) {
        return Ok(());
    }
    for needed in depends(&process::read(file)?) {
        require(&needed, files, ordered)?;
    }
    ordered.push(file.clone());
    Ok(())
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
        } else if path.extension().is_some_and(|extension| extension == "ko") {
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
