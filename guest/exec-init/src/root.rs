//! The root that the command sees: the host's, under an overlay in RAM, with folders of its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::places::inside;
use crate::settings::{Network, Settings};
use crate::{container, doing, system};

/// The tag of the file system with all shares.
const TAG: &str = "cloister";
/// The highest partition that is looked at, as many as GPTs have room for.
const PARTITIONS: u32 = 128;
/// Folders of which a root has one.
const PROGRAMS: [&str; 3] = ["usr/bin", "bin", "sbin"];
/// Where the root is made.
pub(crate) const NEW: &str = "/new";
/// The machine's name, unless it is a container's.
const NAME: &str = "cloister";
/// The share that is the root.
const ROOT: &str = "root";

/// Loads the modules of the initramfs in the order of their names.
pub(crate) fn load_modules() -> Result<(), String> {
    let Ok(folder) = fs::read_dir("/modules") else { return Ok(()) };
    let mut files: Vec<PathBuf> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files {
        doing(&format!("load {}", file.display()), system::load_module(&file))?;
    }
    Ok(())
}

/// Makes the root and goes there.
pub(crate) fn make(settings: &Settings) -> Result<(), String> {
    // Not all of RAM, so that a command that fills it can still be ended.
    mount("tmpfs", "tmpfs", "/ram", "mode=755,size=75%", 0)?;
    mount(TAG, "virtiofs", "/shares", "", 0)?;
    for folder in ["/ram/upper", "/ram/work", "/new"] {
        doing(&format!("make {folder}"), fs::create_dir_all(folder))?;
    }
    let lower = if settings.disk { disk()? } else { format!("/shares/{ROOT}") };
    let layers = format!(
        "lowerdir={lower},upperdir=/ram/upper,workdir=/ram/work,xino=off,index=off,metacopy=off"
    );
    mount("overlay", "overlay", NEW, &layers, 0)?;
    // Before any folder of the host is there to be written to. A root that has something else in a file's place keeps it.
    let _ = write_own_files(settings);
    match &settings.container {
        Some(container) => container::furnish(container, settings.provisioning)?,
        None => furnish(settings)?,
    }
    system::bring_loopback_up();
    system::set_host_name(settings.host_name.as_deref().unwrap_or(NAME));
    doing("go to the new root", system::move_root(NEW))
}

/// Gives the root of a command what a system has.
fn furnish(settings: &Settings) -> Result<(), String> {
    for (kind, place, options, flags) in [
        ("proc", "proc", "", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC),
        ("sysfs", "sys", "", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC),
        // With execution: enclaves are mapped from a device.
        ("devtmpfs", "dev", "mode=755", libc::MS_NOSUID),
        ("devpts", "dev/pts", "gid=5,mode=620,ptmxmode=666", libc::MS_NOSUID | libc::MS_NOEXEC),
        ("tmpfs", "dev/shm", "mode=1777", libc::MS_NOSUID | libc::MS_NODEV),
        ("tmpfs", "tmp", "mode=1777", libc::MS_NOSUID | libc::MS_NODEV),
        ("tmpfs", "run", "mode=755", libc::MS_NOSUID | libc::MS_NODEV),
        ("cgroup2", "sys/fs/cgroup", "", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC),
    ] {
        mount(kind, kind, &format!("/new/{place}"), options, flags)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        // A kernel that makes them by itself has them as well.
        let _ = std::os::unix::fs::symlink(target, format!("/new/dev/{name}"));
    }
    open_devices(settings);
    // As a system's own init does: programs that ping have the right by an attribute of their file on the host, which
    // is not seen here. A kernel that lacks it pings less.
    let _ = fs::write("/new/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    for share in &settings.mounts {
        let source = format!("/shares/{}", share.share);
        let name = share.place.display();
        let place = doing(&format!("make {name}"), inside(&share.place, false))?;
        doing(
            &format!("bind {name}"),
            system::bind(source.as_ref(), &place, libc::MS_NOSUID | libc::MS_NODEV),
        )?;
    }
    Ok(())
}

/// Has programs find the machine's name and name servers, in the overlay. The host's files may be links to what is not
/// here. What is mounted there later is whoever's that has mounted it.
fn write_own_files(settings: &Settings) -> io::Result<()> {
    let folder = inside(Path::new("/etc"), false)?;
    let put = |name: &str, contents: &str| {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::write(path, contents),
        }
    };
    if !settings.networks.is_empty() {
        let line = |network: &Network| format!("nameserver {}\n", network.name_server);
        put("resolv.conf", &settings.networks.iter().map(line).collect::<String>())?;
    }
    if settings.container.is_some() {
        return Ok(());
    }
    let hosts = fs::read_to_string(folder.join("hosts"));
    let mut hosts = hosts.unwrap_or_else(|_| "127.0.0.1 localhost\n::1 localhost\n".to_owned());
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    put("hosts", &format!("{hosts}127.0.1.1 {NAME}\n"))?;
    put("hostname", &format!("{NAME}\n"))
}

/// Mounts the disk's file system that has programs, or that of its first partition that does, and returns
/// where.
fn disk() -> Result<String, String> {
    const PLACE: &str = "/disk";
    // Where the kernel makes the files of disks.
    mount("devtmpfs", "devtmpfs", "/dev", "mode=755", libc::MS_NOSUID)?;
    mount("proc", "proc", "/proc", "", 0)?;
    let known = doing("read /proc/filesystems", fs::read_to_string("/proc/filesystems"))?;
    let kinds = || known.lines().filter_map(|line| line.strip_prefix('\t'));
    for part in iter::once(String::new()).chain((1..=PARTITIONS).map(|part| part.to_string())) {
        let device = format!("/dev/vda{part}");
        if !Path::new(&device).exists() {
            continue;
        }
        for kind in kinds() {
            if mount(&device, kind, PLACE, "", libc::MS_RDONLY).is_err() {
                continue;
            }
            if PROGRAMS.iter().any(|folder| Path::new(PLACE).join(folder).is_dir()) {
                return Ok(PLACE.to_owned());
            }
            doing("leave a file system without programs", system::unmount(PLACE))?;
            break;
        }
    }
    Err("the disk has no root: no file system that this kernel knows has programs".to_owned())
}

/// Lets every user have enclaves, the provisioning key where the machine has it, and what udev gives to all.
fn open_devices(settings: &Settings) {
    for (name, open) in
        [("sgx_enclave", true), ("sgx_provision", settings.provisioning), ("fuse", true)]
    {
        if open {
            // A machine without SGX has none.
            let _ =
                fs::set_permissions(format!("/new/dev/{name}"), fs::Permissions::from_mode(0o666));
        }
    }
}

pub(crate) fn mount(
    source: &str,
    kind: &str,
    place: &str,
    options: &str,
    flags: u64,
) -> Result<(), String> {
    doing(&format!("make {place}"), fs::create_dir_all(place))?;
    let what = format!("mount {kind} at {place}");
    doing(&what, system::mount(source, place, kind, flags, options))
}
