//! With programs that behave as apt's and dpkg's do.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Each kernel of the fake archive takes this much.
const KERNEL: &str =
    "Package: linux-image-6-cloud\nSize: 9\nInstalled-Size: 1\nDepends: kmod, linux-base (>= 4)\n";
const NEWEST_OF_DEBIAN: &str =
    "Package: linux-image-cloud-amd64\nDepends: linux-image-6-cloud (= 6.1)\nSize: 1\n";
/// What apt-cache does: the stanzas of the packages that it knows are files beside it.
const APT_CACHE: &str = r#"
found=
while [ $# -gt 0 ]; do
    [ -f "$BESIDE/$1.stanza" ] && cat "$BESIDE/$1.stanza" && echo && found=yes
    shift
done
[ "$found" ] || { echo "E: No packages found" >&2; exit 100; }
"#;
const APT_GET: &str = r#"
echo download >> "$BESIDE/downloads"
while [ "$1" != download ]; do shift; done
shift
for name; do echo "$name" > "${name}_6.1_amd64.deb"; done
"#;
/// Unpacks to a kernel, or to the modules alone.
const DPKG_DEB: &str = r#"
[ "$1" = '-?' ] && exit
mkdir -p "$3/boot" "$3/$LIBRARY/modules/6-cloud" "$3/usr/share/doc"
case $2 in
*linux-image-*) echo kernel > "$3/boot/vmlinuz-6-cloud" ;;
esac
echo module > "$3/$LIBRARY/modules/6-cloud/a.ko"
"#;

/// A host with such programs, and a cache.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let host =
            Self(std::env::temp_dir().join(format!("cloister-{name}-{}", std::process::id())));
        fs::create_dir_all(&host.0).unwrap();
        host.write("linux-image-cloud-amd64.stanza", NEWEST_OF_DEBIAN);
        host.write("linux-image-6-cloud.stanza", KERNEL);
        for (name, script) in
            [("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)]
        {
            host.program(name, script);
        }
        host
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        let beside = self.0.display();
        let begin = format!("#!/bin/sh -e\nPATH=/usr/bin:/bin\nBESIDE={beside}\nLIBRARY=usr/lib\n");
        self.write(name, &(begin + script));
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    fn fetch(&self) -> Result<Kernel, Stop> {
        self.fetch_until(&|| None)
    }

    fn fetch_until(&self, stopped: &dyn Fn() -> Option<i32>) -> Result<Kernel, Stop> {
        let (cache, path) = (self.cache(), Some(self.0.clone().into()));
        Fetch {
            cache,
            path,
            quiet: true,
            start: Instant::now(),
            waiting: Waiting::new(false),
            stopped,
        }
        .run()
    }

    /// The line of a fetch that fails, after which nothing is left.
    fn refusal(&self) -> String {
        let Err(Stop::Error(error)) = self.fetch() else { panic!("it does not fail") };
        assert!(self.is_empty());
        crate::complaint::Wording::line(&crate::cli::ExecWording, &error.complaint())
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.cache()).unwrap().next().is_none()
    }

    /// The cache has the kernel and its modules, and nothing else.
    fn has(&self, kernel: &Kernel) {
        assert_eq!(kernel.image, self.cache().join("boot/vmlinuz-6-cloud"));
        assert_eq!(fs::read_to_string(&kernel.image).unwrap(), "kernel\n");
        assert_eq!(fs::read_to_string(kernel.modules.join("a.ko")).unwrap(), "module\n");
        let mut names: Vec<_> =
            fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["boot", "lib"]);
    }

    fn downloads(&self) -> usize {
        fs::read_to_string(self.0.join("downloads")).unwrap_or_default().lines().count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn kernel(fetched: Result<Kernel, Stop>) -> Kernel {
    match fetched {
        Ok(kernel) => kernel,
        Err(Stop::Error(error)) => panic!("{error}"),
        Err(Stop::Signal(signal)) => panic!("signal {signal}"),
    }
}

#[test]
fn a_kernel_is_fetched_once_and_found_from_then_on() {
    let host = Host::new("fetch");

    let first = kernel(host.fetch());
    let second = kernel(host.fetch());

    host.has(&first);
    assert_eq!((first, host.downloads()), (second, 1));
}

#[test]
fn modules_of_a_package_of_their_own_come_with_the_kernel() {
    let host = Host::new("fetch-modules");
    fs::remove_file(host.0.join("linux-image-cloud-amd64.stanza")).unwrap();
    let newest = NEWEST_OF_DEBIAN.replace("cloud-amd64", "virtual");
    host.write("linux-image-virtual.stanza", &newest);
    let image = KERNEL.replace("kmod", "kmod, linux-modules-6-cloud");
    host.write("linux-image-6-cloud.stanza", &image);
    host.write("linux-modules-6-cloud.stanza", "Package: linux-modules-6-cloud\nSize: 1\n");
    // The kernel's own package has none.
    host.program(
        "dpkg-deb",
        &DPKG_DEB
            .replace("\"$3/$LIBRARY", "\"$3/$([ \"${2%image-*}\" = \"$2\" ] || echo not-)$LIBRARY"),
    );

    host.has(&kernel(host.fetch()));
}

#[test]
fn what_cannot_be_had_is_told_in_one_line_and_leaves_nothing() {
    let host = Host::new("fetch-failures");
    let offline =
        "echo 'W: old' >&2\necho 'E: Failed to fetch it  Could not resolve it' >&2\nexit 100\n";
    for (program, script, parts) in [
        (
            "apt-get",
            offline,
            ["apt-get cannot download linux-image-6-cloud: Failed to fetch it", "apt-get update"],
        ),
        (
            "apt-cache",
            "echo 'E: No packages found' >&2; exit 100",
            ["apt knows none", "apt-get update"],
        ),
        (
            "dpkg-deb",
            "[ $1 = '-?' ] || { echo 'tar: No space left' >&2; exit 2; }",
            ["unpack", ": tar: No space left: "],
        ),
        ("dpkg-deb", "[ $1 = '-?' ] || mkdir $3", ["has no kernel with its modules", "name one"]),
        ("apt-get", "exit 1", ["it does not say why", "run this again"]),
    ] {
        let whole = fs::read(host.0.join(program)).unwrap();
        host.program(program, script);

        let line = host.refusal();

        assert!(line.starts_with("--kernel: there is none") && !line.contains('\n'), "{line}");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        fs::write(host.0.join(program), whole).unwrap();
    }
    host.has(&kernel(host.fetch()));
}

#[test]
fn a_host_without_the_programs_is_told_so_before_anything_is_fetched() {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        let host = Host::new("fetch-programs");
        fs::remove_file(host.0.join(program)).unwrap();

        let line = host.refusal();

        assert!(line.contains(&format!("this host has no {program}")), "{line}");
        assert!(line.ends_with("../lib/modules") && host.downloads() == 0, "{line}");
    }
}

#[test]
fn a_disk_that_is_too_full_is_told_of_before_anything_is_fetched() {
    let host = Host::new("fetch-room");
    host.write("linux-image-6-cloud.stanza", &KERNEL.replace("Size: 9", "Size: 9000000000000000"));

    let line = host.refusal();

    assert!(line.contains("takes 9000000000.0 MB in "), "{line}");
    assert!(line.contains("make room") && host.downloads() == 0, "{line}");
}

#[test]
fn a_signal_ends_the_programs_and_leaves_nothing() {
    let host = Host::new("fetch-signal");
    let endless = "echo $$ > \"$BESIDE/pid\"\necho half > a.deb\nsleep 1000 & sleep 1000\n";
    host.program("apt-get", endless);
    let archive = host.cache().join(UNFINISHED).join("a.deb");

    let ended = host.fetch_until(&|| archive.exists().then_some(15));

    assert!(matches!(ended, Err(Stop::Signal(15))));
    assert!(host.is_empty());
    let group = fs::read_to_string(host.0.join("pid")).unwrap().trim().parse().unwrap();
    let start = Instant::now();
    // Until the last of the group has been reaped.
    while rustix::process::test_kill_process_group(Pid::from_raw(group).unwrap()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(POLL);
    }
}

#[test]
fn what_one_that_was_killed_has_left_is_removed() {
    let host = Host::new("fetch-killed");
    let root = host.cache().join(UNFINISHED).join("root/boot");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("vmlinuz-6-half"), "ker").unwrap();
    // As far as that one came: modules have their place before the kernel.
    let modules = host.cache().join("lib/modules/6-cloud");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("half.ko"), "mod").unwrap();

    host.has(&kernel(host.fetch()));
    assert!(!modules.join("half.ko").exists());
}

#[test]
fn of_two_at_once_the_second_waits_for_what_the_first_fetches() {
    let host = Host::new("fetch-two");
    host.program("apt-get", &format!("sleep 1\n{APT_GET}"));

    let kernels = thread::scope(|scope| {
        [(), ()].map(|()| scope.spawn(|| kernel(host.fetch()))).map(|one| one.join().unwrap())
    });

    host.has(&kernels[0]);
    assert_eq!((&kernels[0], host.downloads()), (&kernels[1], 1));
}

#[test]
fn a_signal_ends_the_wait_for_another() {
    let host = Host::new("fetch-wait");
    fs::create_dir_all(host.cache()).unwrap();
    let other = File::open(host.cache()).unwrap();
    other.lock().unwrap();
    let asked = Cell::new(0);

    let ended = host.fetch_until(&|| {
        asked.set(asked.get() + 1);
        (asked.get() == 3).then_some(2)
    });

    assert!(matches!(ended, Err(Stop::Signal(2))));
}

#[test]
fn sizes_are_told_in_megabytes() {
    assert_eq!(Size(26_705_532).to_string(), "26.7 MB");
    assert_eq!(Size(999).to_string(), "0.0 MB");
}
