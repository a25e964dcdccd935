//! Platform directories as they are made, found and damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use super::*;

/// A directory for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("cloister-platform-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn platform(&self) -> PathBuf {
        self.0.join("platform")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_platform_that_must_be_there_is_not_made() {
    let scratch = Scratch::new("existing");
    let path = scratch.platform();

    let missing = open_existing(&path).unwrap_err();
    fs::create_dir(&path).unwrap();
    let empty = open_existing(&path).unwrap_err();

    for error in [missing, empty] {
        let line = error.to_string();
        assert!(line.starts_with("there is no platform in /"), "{line}");
    }
    assert_eq!(names(&path), [""; 0]);
    fs::remove_dir(&path).unwrap();
    let made = open(&path).unwrap();
    assert_eq!(open_existing(&path).unwrap(), made);
}

#[test]
fn a_platform_is_made_for_its_owner_alone_and_found_again() {
    let scratch = Scratch::new("made");
    let path = scratch.platform();

    let made = open(&path).unwrap();
    let found = open(&path).unwrap();

    assert_eq!(made, found);
    assert_eq!((mode(&path), mode(&path.join("identity"))), (0o700, 0o600));
    assert_eq!(names(&path), ["identity", "provision"]);
}

#[test]
fn the_provision_file_is_made_with_the_platform_and_never_again() {
    let scratch = Scratch::new("provision");
    let path = scratch.platform();
    open(&path).unwrap();
    let made = fs::read(provision_file(&path)).unwrap();
    let made_mode = mode(&provision_file(&path));
    fs::remove_file(provision_file(&path)).unwrap();

    open(&path).unwrap();

    assert_eq!((made, made_mode), (Vec::new(), 0o600));
    assert_eq!(names(&path), ["identity"]);
}

#[test]
fn an_empty_directory_becomes_a_platform() {
    let scratch = Scratch::new("empty");
    let path = scratch.platform();
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);

    let made = open(&path).unwrap();

    assert_eq!(open(&path).unwrap(), made);
}

#[test]
fn two_directories_are_two_platforms() {
    let scratch = Scratch::new("two");

    let one = open(&scratch.0.join("one")).unwrap();
    let two = open(&scratch.0.join("two")).unwrap();

    assert_ne!(one.root_key, two.root_key);
    assert_ne!(one.seal_fuses, two.seal_fuses);
    assert_ne!(one.owner_epoch, two.owner_epoch);
    assert_eq!(one.cpusvn, two.cpusvn);
}

#[test]
fn each_boot_of_a_platform_has_its_own_report_key_id_and_paging_key() {
    let scratch = Scratch::new("boots");
    let fuses = open(&scratch.platform()).unwrap();

    let (one, two) = (fuses.boot().unwrap(), fuses.boot().unwrap());

    assert_eq!((&one.fuses, &two.fuses), (&fuses, &fuses));
    assert_ne!(one.report_keyid, two.report_keyid);
    assert_ne!(one.paging_key, two.paging_key);
}

#[test]
fn machines_that_start_at_once_get_one_identity() {
    for round in 0..20 {
        let scratch = Scratch::new(&format!("race-{round}"));
        let path = scratch.platform();
        let start = Barrier::new(8);

        let found: Vec<PlatformFuses> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        open(&path).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });

        assert!(found.iter().all(|fuses| *fuses == found[0]));
        assert_eq!(names(&path), ["identity", "provision"]);
    }
}

#[test]
fn drafts_of_machines_that_died_are_no_obstacle_and_removed() {
    let scratch = Scratch::new("draft");
    let path = scratch.platform();
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    fs::write(path.join("identity.0123456789abcdef"), "clois").unwrap();

    let made = open(&path).unwrap();
    fs::write(path.join("identity.fedcba9876543210"), "clois").unwrap();
    fs::write(path.join("identity.old"), "a file of the user's").unwrap();

    assert_eq!(open(&path).unwrap(), made);
    assert_eq!(names(&path), ["identity", "identity.old", "provision"]);
}

#[test]
fn every_cut_and_every_changed_character_is_found_and_nothing_is_touched() {
    let scratch = Scratch::new("damage");
    let path = scratch.platform();
    open(&path).unwrap();
    let file = path.join("identity");
    let whole = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    }));
    damaged.push([&whole[..], b"x"].concat());
    damaged.push([&whole[..], b"\n"].concat());
    damaged.push(vec![0xff; 100]);
    damaged.push(vec![b'a'; 10_000]);
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();

        let error = open(&path).unwrap_err();

        let line = error.to_string();
        let version = matches!(error, PlatformDirError::Version { .. });
        assert!(version || matches!(error, PlatformDirError::Damaged(_)), "{line}");
        assert!(!line.contains('\n') && line.contains("name another directory"), "{line}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn a_file_of_another_version_is_not_read() {
    let scratch = Scratch::new("version");
    let path = scratch.platform();
    open(&path).unwrap();
    fs::write(path.join("identity"), "cloister platform identity 2\nkeys elsewhere\n").unwrap();

    let line = open(&path).unwrap_err().to_string();

    assert!(line.contains("has version \"2\""), "{line}");
}

#[test]
fn what_others_may_look_at_is_refused_with_the_mend() {
    let scratch = Scratch::new("modes");
    let path = scratch.platform();
    open(&path).unwrap();
    let file = path.join("identity");
    for bit in [0o001, 0o002, 0o004, 0o010, 0o020, 0o040] {
        set_mode(&path, 0o700 | bit);
        let directory = open(&path).unwrap_err().to_string();
        set_mode(&path, 0o700);
        set_mode(&file, 0o600 | bit);
        let identity = open(&path).unwrap_err().to_string();
        set_mode(&file, 0o600);

        assert!(directory.ends_with(&format!("run chmod 700 {}", path.display())), "{directory}");
        assert!(identity.ends_with(&format!("run chmod 600 {}", file.display())), "{identity}");
    }
    open(&path).unwrap();
}

#[test]
fn a_directory_that_is_no_platform_keeps_its_mode() {
    let scratch = Scratch::new("foreign");
    let path = scratch.platform();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("identity"), "a file of the user's").unwrap();
    set_mode(&path, 0o755);

    for path in [path.as_path(), scratch.0.as_path(), Path::new("/")] {
        let line = open(path).unwrap_err().to_string();

        assert!(line.contains("is not a platform, and open to others"), "{line}");
        assert!(!line.contains("chmod"), "{line}");
    }
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    if !geteuid().is_root() {
        // Nobody else can give a file away; root's directories are there for everyone.
        let line = open(Path::new("/")).unwrap_err().to_string();
        assert!(line.contains("is not a platform"), "{line}");
        return;
    }
    let scratch = Scratch::new("owner");
    let path = scratch.platform();
    open(&path).unwrap();
    let file = path.join("identity");

    for owned in [&path, &file] {
        std::os::unix::fs::chown(owned, Some(12345), None).unwrap();
        let line = open(&path).unwrap_err().to_string();
        std::os::unix::fs::chown(owned, Some(0), None).unwrap();

        let name = owned.display();
        let start = format!("{name} belongs to another user (number 12345): name a directory");
        assert!(line.starts_with(&start), "{line}");
    }
    open(&path).unwrap();
}

#[test]
fn what_is_no_directory_is_refused() {
    let scratch = Scratch::new("file");
    let file = scratch.0.join("file");
    fs::write(&file, "something").unwrap();

    let not_one = open(&file).unwrap_err().to_string();
    let below = open(&file.join("below")).unwrap_err().to_string();
    let no_parent = open(&scratch.0.join("missing/platform")).unwrap_err().to_string();

    assert!(not_one.contains("is not a directory"), "{not_one}");
    assert!(below.starts_with("cannot make"), "{below}");
    assert!(no_parent.contains("No such file or directory"), "{no_parent}");
    assert_eq!(fs::read(&file).unwrap(), b"something");
    assert_eq!(names(&scratch.0), ["file"]);
}

#[test]
fn a_directory_or_a_pipe_in_place_of_the_file_is_refused() {
    let scratch = Scratch::new("pipe");
    let path = scratch.platform();
    fs::create_dir_all(path.join("identity")).unwrap();
    set_mode(&path, 0o700);
    let directory = open(&path).unwrap_err();
    fs::remove_dir(path.join("identity")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("identity"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .unwrap();

    let pipe = open(&path).unwrap_err();

    assert!(matches!(directory, PlatformDirError::Damaged(_)), "{directory}");
    assert!(matches!(pipe, PlatformDirError::Damaged(_)), "{pipe}");
}
