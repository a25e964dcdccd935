//! The kernel of the machine, and its modules.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// How kernels are named.
const NAME: &str = "vmlinuz-";
/// Where the user's caches are, below the home.
const CACHE: &str = ".cache";

/// Cloister's own, below that.
pub(super) const CACHED: &str = "cloister";
/// Where kernels are, there as in a package.
pub(super) const BOOT: &str = "boot";

/// A kernel with its modules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    pub(super) image: PathBuf,
    /// `lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The kernel at `image`, whose name says its release, with the modules that are beside it as a package
    /// has them, or the host's.
    #[must_use]
    pub fn at(image: &Path) -> Self {
        let name = image.file_name().unwrap_or_default();
        let release = release(name).unwrap_or_else(|| name.to_string_lossy().into_owned());
        let beside = image.parent().unwrap_or(Path::new("/")).join("../lib/modules").join(&release);
        let of_host = Path::new("/lib/modules").join(release);
        let modules = if beside.is_dir() { beside } else { of_host };
        Self { image: image.to_owned(), modules }
    }

    /// The latest kernel of the user's cache, or else of the host, that has modules and may be read.
    #[must_use]
    pub fn find() -> Option<Self> {
        let of_user = cache().map(|cache| cache.join(BOOT));
        let folders = [of_user, Some(PathBuf::from("/boot"))];
        folders.into_iter().flatten().find_map(|folder| latest(&folder))
    }
}

/// The release that the name of a kernel says.
pub(super) fn release(name: &OsStr) -> Option<String> {
    name.to_string_lossy().strip_prefix(NAME).map(str::to_owned)
}

/// Where Cloister keeps what it can fetch again for the user.
pub(super) fn cache() -> Option<PathBuf> {
    let of_user =
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    let of_home = || home.map(|home| Path::new(&home).join(CACHE));
    Some(of_user.or_else(of_home)?.join(CACHED))
}

/// The latest kernel of a folder that has modules and may be read.
pub(super) fn latest(folder: &Path) -> Option<Kernel> {
    let kernels = images(folder).map(|path| Kernel::at(&path));
    kernels.filter(|kernel| kernel.modules.is_dir()).max_by_key(|kernel| order(&kernel.image))
}

/// The kernels of a folder that may be read.
pub(super) fn images(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| {
        path.file_name().is_some_and(|name| release(name).is_some()) && fs::File::open(path).is_ok()
    })
}

/// The numbers of a name, by which 6.10 is later than 6.9.
fn order(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_kernel_with_modules_is_taken() {
        let root = env::temp_dir().join(format!("cloister-kernels-{}", std::process::id()));
        let boot = root.join("boot");
        fs::create_dir_all(&boot).unwrap();
        for release in ["6.1.0-9", "6.1.0-10", "6.12.0"] {
            fs::write(boot.join(format!("vmlinuz-{release}")), "").unwrap();
        }
        for release in ["6.1.0-9", "6.1.0-10"] {
            fs::create_dir_all(root.join("lib/modules").join(release)).unwrap();
        }

        let found = latest(&boot).unwrap();

        assert_eq!(found.image, boot.join("vmlinuz-6.1.0-10"));
        assert!(found.modules.ends_with("lib/modules/6.1.0-10"));
        fs::remove_dir_all(root).unwrap();
    }
}
