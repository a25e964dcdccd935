//! The mounts of config.json (config.md, "Mounts"), as the machine's kernel makes them.

use std::fs;
use std::path::Path;

use libc::{
    MS_DIRSYNC, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME,
    MS_STRICTATIME, MS_SYNCHRONOUS, c_ulong,
};

use super::bundle::MountSpec;
use crate::exec::{Mount, Source};

/// Options that set a flag, or clear it.
const FLAGS: [(&str, bool, c_ulong); 17] = [
    ("ro", true, MS_RDONLY),
    ("rw", false, MS_RDONLY),
    ("nosuid", true, MS_NOSUID),
    ("suid", false, MS_NOSUID),
    ("nodev", true, MS_NODEV),
    ("dev", false, MS_NODEV),
    ("noexec", true, MS_NOEXEC),
    ("exec", false, MS_NOEXEC),
    ("sync", true, MS_SYNCHRONOUS),
    ("async", false, MS_SYNCHRONOUS),
    ("dirsync", true, MS_DIRSYNC),
    ("noatime", true, MS_NOATIME),
    ("atime", false, MS_NOATIME),
    ("nodiratime", true, MS_NODIRATIME),
    ("diratime", false, MS_NODIRATIME),
    ("relatime", true, MS_RELATIME),
    ("strictatime", true, MS_STRICTATIME),
];
/// Options that mean nothing in a machine: nothing is passed on from or to the host's mounts, and an empty folder has
/// nothing to copy.
const IDLE: [&str; 14] = [
    "bind",
    "rbind",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "tmpcopyup",
    "norelatime",
    "nostrictatime",
    "defaults",
];
/// Kinds of file systems that the machine's kernel makes.
const KINDS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2"];
/// File systems of the kernel, which are the machine's own where the host's are asked for.
const OF_KERNEL: [(&str, &str); 3] =
    [("/proc", "proc"), ("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup2")];
const SHARED_MEMORY: &str = "/dev/shm";

/// All options that are known.
pub(super) fn options() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, ..)| *name).chain(IDLE).collect()
}

/// What is mounted for a mount of config.json in the folder `bundle`; nothing for one that the machine has by itself.
pub(super) fn mount(spec: &MountSpec, bundle: &Path) -> Result<Option<Mount>, String> {
    let place = spec.destination.clone();
    let wrong = |why: String| format!("config.json: mounts: {place}: {why}");
    if !place.starts_with('/') {
        return Err(wrong("the destination is no absolute path: write one".into()));
    }
    let (mut flags, mut options, mut binds) = (0, Vec::new(), false);
    for option in &spec.options {
        binds |= option == "bind" || option == "rbind";
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, true, flag)) => flags |= flag,
            Some((_, false, flag)) => flags &= !flag,
            None if IDLE.contains(&option.as_str()) => {}
            None => options.push(option.as_str()),
        }
    }
    if place == "/dev" {
        // Enclaves are mapped from a device, with execution.
        flags &= !MS_NOEXEC;
    }
    let kind = spec.kind.as_deref().unwrap_or("bind");
    let (source, options) = if binds || kind == "bind" {
        let path = bundle.join(spec.source.as_deref().unwrap_or_default());
        let of_kernel = OF_KERNEL.iter().find(|(own, _)| path == Path::new(own));
        match of_kernel {
            Some((_, kind)) => (Source::Kind((*kind).to_owned()), String::new()),
            None if path == Path::new("/dev") => return Ok(None),
            // Memory that only this container can share.
            None if place == SHARED_MEMORY => (Source::Kind("tmpfs".into()), "mode=1777".into()),
            None => {
                let found = fs::metadata(&path).map_err(|error| {
                    wrong(format!("{}: {error}: name a folder or a file", path.display()))
                })?;
                if !found.is_dir() && !found.is_file() {
                    return Err(wrong(format!(
                        "{} is neither a folder nor a regular file, and no other can be handed to a machine: leave it out",
                        path.display()
                    )));
                }
                (Source::Host { path, writable: flags & MS_RDONLY == 0 }, String::new())
            }
        }
    } else {
        let kind = if kind == "cgroup" { "cgroup2" } else { kind };
        if !KINDS.contains(&kind) {
            return Err(wrong(format!(
                "a machine has no {kind}: use bind, or {}",
                KINDS.join(", ")
            )));
        }
        // The hierarchy of version 2 takes none of version 1's options.
        let options = if kind == "cgroup2" { String::new() } else { options.join(",") };
        (Source::Kind(kind.to_owned()), options)
    };
    let flags = u32::try_from(flags).map_err(|_| wrong("its flags make no sense".into()))?;
    Ok(Some(Mount { place, source, flags, options }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(destination: &str, kind: &str, source: &str, options: &[&str]) -> MountSpec {
        MountSpec {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.into()),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    fn kind_of(spec: &MountSpec) -> (Source, u64, String) {
        let mount = mount(spec, Path::new("/bundle")).unwrap().unwrap();
        (mount.source, mount.flags.into(), mount.options)
    }

    #[test]
    fn the_kernels_file_systems_are_the_machines_own() {
        let of = |kind: &str| Source::Kind(kind.into());
        for (spec, expected) in [
            (spec("/proc", "proc", "proc", &[]), (of("proc"), 0, "")),
            (
                spec("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
                (of("tmpfs"), MS_NOSUID, "mode=755,size=65536k"),
            ),
            (
                spec("/dev/pts", "devpts", "devpts", &["noexec", "newinstance", "gid=5"]),
                (of("devpts"), MS_NOEXEC, "newinstance,gid=5"),
            ),
            (spec("/dev/shm", "bind", "/anything", &["rw"]), (of("tmpfs"), 0, "mode=1777")),
            (spec("/sys", "bind", "/sys", &["rbind", "ro"]), (of("sysfs"), MS_RDONLY, "")),
            (
                spec("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "rprivate"]),
                (of("cgroup2"), MS_RDONLY, ""),
            ),
        ] {
            let (source, flags, options) = kind_of(&spec);
            assert_eq!((source, flags, options.as_str()), expected, "{}", spec.destination);
        }
        assert_eq!(mount(&spec("/dev", "bind", "/dev", &[]), Path::new("/")), Ok(None));
    }

    #[test]
    fn folders_and_files_of_the_host_are_shown_and_may_be_read_only() {
        let (folder, _, _) = kind_of(&spec("/data", "bind", "/usr", &["rbind", "ro"]));
        let (file, flags, _) = kind_of(&spec("/etc/x", "none", "/etc/passwd", &["bind", "nodev"]));

        assert_eq!(folder, Source::Host { path: "/usr".into(), writable: false });
        assert_eq!(file, Source::Host { path: "/etc/passwd".into(), writable: true });
        assert_eq!(flags, MS_NODEV);
    }

    #[test]
    fn what_cannot_be_mounted_is_one_line_with_the_fix() {
        for (spec, expected) in [
            (spec("data", "tmpfs", "", &[]), "config.json: mounts: data: the destination is no"),
            (
                spec("/x", "nfs", "host:/", &[]),
                "config.json: mounts: /x: a machine has no nfs: use",
            ),
            (spec("/x", "bind", "/nonexistent", &[]), "config.json: mounts: /x: /nonexistent: No"),
            (spec("/x", "bind", "/dev/null", &[]), "config.json: mounts: /x: /dev/null is neither"),
        ] {
            let line = mount(&spec, Path::new("/")).unwrap_err();
            assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
        }
    }
}
