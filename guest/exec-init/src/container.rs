//! The root of a container: what its configuration mounts, and the devices that every container has (OCI runtime
//! specification, config-linux.md, "Default Filesystems" and "Default Devices").

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::places::inside;
use crate::root::{NEW, mount};
use crate::settings::{Container, ContainerMount};
use crate::{doing, system};

/// Devices of every container, by major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Links beside them.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes of the root at [`NEW`] a container's.
pub(crate) fn furnish(container: &Container, provisioning: bool) -> Result<(), String> {
    // Where the kernel makes the machine's own devices.
    mount("devtmpfs", "devtmpfs", "/dev", "mode=755", libc::MS_NOSUID)?;
    for of_container in &container.mounts {
        doing(&format!("mount {}", of_container.place), put(of_container))?;
    }
    doing("make /dev", make_devices(provisioning))?;
    for (name, value) in &container.sysctls {
        let name = name.to_string_lossy();
        let path = Path::new(NEW).join("proc/sys").join(name.replace('.', "/"));
        doing(&format!("set {name}"), fs::write(path, value.as_encoded_bytes()))?;
    }
    for path in &container.fixed {
        doing(&format!("protect {path}"), if_there(path, fix))?;
    }
    for path in &container.masked {
        doing(&format!("hide {path}"), if_there(path, hide))?;
    }
    if container.fixed_root {
        doing("protect the root", system::remount(Path::new(NEW), libc::MS_RDONLY))?;
    }
    Ok(())
}

fn put(of_container: &ContainerMount) -> io::Result<()> {
    let ContainerMount { flags, kind, source, place, options } = of_container;
    let flags = u64::from(*flags);
    if kind != "bind" {
        let place = inside(Path::new(place), false)?;
        let place = place.to_str().ok_or(ErrorKind::InvalidData)?;
        return system::mount(source, place, kind, flags, options);
    }
    let source = Path::new("/shares").join(source);
    let place = inside(Path::new(place), !source.is_dir())?;
    system::bind(&source, &place, 0)?;
    if flags == 0 { Ok(()) } else { system::remount(&place, flags) }
}

fn make_devices(provisioning: bool) -> io::Result<()> {
    let folder = inside(Path::new("/dev"), false)?;
    let make = |name: &str, device| match system::make_device(&folder.join(name), device) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    for (name, major, minor) in DEVICES {
        make(name, libc::makedev(major, minor))?;
    }
    for (name, given) in [("sgx_enclave", true), ("sgx_provision", provisioning)] {
        // A machine without SGX has none.
        if let Ok(found) = fs::metadata(Path::new("/dev").join(name))
            && given
        {
            make(name, found.rdev())?;
        }
    }
    for (name, target) in LINKS {
        match symlink(target, folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Does something to a path of the container that is there: not every kernel has what is named.
fn if_there(path: &str, what: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let place = Path::new(NEW).join(path.trim_start_matches('/'));
    // The paths are the kernel's, without links.
    match fs::symlink_metadata(&place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_symlink() => Ok(()),
        found => found.and_then(|_| what(&place)),
    }
}

fn fix(place: &Path) -> io::Result<()> {
    system::bind(place, place, libc::MS_REC)?;
    system::remount(place, libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)
}

fn hide(place: &Path) -> io::Result<()> {
    if !place.is_dir() {
        return system::bind(Path::new("/dev/null"), place, 0);
    }
    let place = place.to_str().ok_or(ErrorKind::InvalidData)?;
    system::mount("tmpfs", place, "tmpfs", libc::MS_RDONLY, "size=0k")
}
