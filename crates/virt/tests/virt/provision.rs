//! Files as the authority over the provisioning key.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cloister_sgx::AttributeFlags;
use cloister_virt::{ProvisionError, ProvisioningRight, SgxCpuid, SgxVm};

use crate::host;

/// A directory for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("cloister-provision-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("provision")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What messages call the owner of a path.
fn owner(path: &Path) -> String {
    let uid = fs::metadata(path).expect("a path").uid();
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let marked = format!(":x:{uid}:");
    let line = users.lines().find(|line| line.contains(&marked));
    let name = line.and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("user {uid}"), str::to_owned)
}

#[test]
fn who_can_open_the_file_has_the_right() {
    let scratch = Scratch::new("open");
    fs::write(scratch.file(), "").expect("a file");

    let right = ProvisioningRight::open(&scratch.file());

    assert_eq!(right.expect("readable"), ProvisioningRight::of_own_platform());
    assert!(ProvisioningRight::open(Path::new("/dev/zero")).is_ok(), "a device as on hardware");
}

#[test]
fn where_there_is_no_file_the_owner_of_the_directory_is_named() {
    let scratch = Scratch::new("missing");

    let error = ProvisioningRight::open(&scratch.file()).expect_err("no file");

    let (path, owner) = (scratch.file().display().to_string(), owner(&scratch.0));
    assert_eq!(
        error.to_string(),
        format!("there is no {path}: {owner} can make it with install -m 600 /dev/null {path}")
    );
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_its_owner() {
    let scratch = Scratch::new("refused");
    // Refused to the superuser too, whom no mode keeps out.
    symlink("provision", scratch.file()).expect("a link to itself");

    let error = ProvisioningRight::open(&scratch.file()).expect_err("a loop");

    assert!(matches!(error, ProvisionError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    let start =
        format!("cannot open {}, which {} owns: ", scratch.file().display(), owner(&scratch.0));
    assert!(text.starts_with(&start) && text.ends_with(": ask for the right to read it"), "{text}");
}

#[test]
fn a_directory_or_pipe_in_its_place_is_no_authority_and_nobody_waits_for_it() {
    let scratch = Scratch::new("pipe");
    fs::create_dir(scratch.file()).expect("a directory");
    let directory = ProvisioningRight::open(&scratch.file());
    fs::remove_dir(scratch.file()).expect("removed");
    let made = Command::new("mkfifo").arg(scratch.file()).status().expect("mkfifo");
    assert!(made.success());

    let pipe = ProvisioningRight::open(&scratch.file());

    for outcome in [directory, pipe] {
        assert!(matches!(outcome, Err(ProvisionError::NotAFile { .. })), "{outcome:?}");
    }
}

#[test]
fn cpuid_says_provisionkey_only_by_right() {
    let platform = host::capabilities();
    let right = Some(ProvisioningRight::of_own_platform());
    let has =
        |cpuid: &SgxCpuid| cpuid.capabilities.attributes.contains(AttributeFlags::PROVISIONKEY);
    let (with, without) = (SgxCpuid::all_of(&platform, right), SgxCpuid::all_of(&platform, None));
    let forged = SgxCpuid { provisioning: None, ..with };

    let outcome = SgxVm::new(host::pool(1).unlimited("vm"), &[], forged);

    assert_eq!((has(&with), has(&without)), (true, false));
    let error = outcome.expect_err("a bit without a right").to_string();
    assert!(error.contains("PROVISIONKEY needs the right"), "{error}");
}
