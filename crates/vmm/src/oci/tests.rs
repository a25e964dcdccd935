use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::state::{State, begun};
use super::*;

/// A folder of containers of the test's own.
fn containers(test: &str) -> (PathBuf, Containers) {
    let folder = std::env::temp_dir().join(format!("cloister-oci-{test}-{}", std::process::id()));
    (folder.clone(), Containers::at(Some(folder)))
}

/// The state of a container whose process is this one.
fn state(id: &str) -> State {
    let pid = i32::try_from(std::process::id()).unwrap();
    State {
        id: id.into(),
        pid,
        begun: begun(pid).unwrap(),
        bundle: "/bundle".into(),
        rootfs: "/bundle/rootfs".into(),
        created: "1970-01-01T00:00:00.000000000Z".into(),
        annotations: BTreeMap::from([("a".into(), "b".into())]),
    }
}

#[test]
fn a_container_is_created_then_runs_then_has_stopped() {
    let (folder, containers) = containers("life");
    let new = containers.make("box").unwrap();
    let orders = new.orders().unwrap();
    new.write(&state("box")).unwrap();
    let known = containers.find("box").unwrap();
    assert_eq!(known.status(), Status::Created);

    known.start().unwrap();
    known.signal(libc::SIGUSR1).unwrap();

    assert_eq!(known.status(), Status::Running);
    let mut read = [9; 4];
    assert_eq!(rustix::io::read(&orders, &mut read[..]), Ok(2));
    assert_eq!(read[..2], [0, libc::SIGUSR1 as u8]);
    assert_eq!(known.start().unwrap_err(), "cannot start an already running container");
    let report: serde_json::Value = serde_json::from_str(&known.report().unwrap()).unwrap();
    assert_eq!((&report["status"], &report["annotations"]["a"]), (&"running".into(), &"b".into()));

    // Another process of the same number.
    new.write(&State { begun: 1, ..state("box") }).unwrap();
    let known = containers.find("box").unwrap();
    assert_eq!(known.status(), Status::Stopped);
    assert_eq!(known.signal(SIGTERM).unwrap_err(), "container not running");
    let report: serde_json::Value = serde_json::from_str(&known.report().unwrap()).unwrap();
    assert_eq!((&report["status"], &report["pid"]), (&"stopped".into(), &0.into()));
    known.delete().unwrap();
    assert_eq!(containers.find("box").unwrap_err(), "container does not exist");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_id_is_one_containers_and_names_no_other_folder() {
    let (folder, containers) = containers("ids");
    containers.make("a.b_c+d-1").unwrap();

    let twice = containers.make("a.b_c+d-1").unwrap_err();

    assert_eq!(twice, "container with given ID already exists");
    for id in ["", ".", "..", "../x", "a/b", "a b", "\u{e4}"] {
        let lines = [containers.make(id).unwrap_err(), containers.find(id).unwrap_err()];
        assert!(lines.iter().all(|line| line.starts_with("invalid container ID format")), "{id}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_program_is_a_runtime_by_its_name() {
    let of = |text: &str| words(text.split(' ').map(OsString::from)).join(" ".as_ref());

    assert_eq!(
        of("/usr/bin/cloister-oci --root x state y"),
        "/usr/bin/cloister-oci oci --root x state y"
    );
    assert_eq!(of("/usr/bin/cloister oci features"), "/usr/bin/cloister oci features");
}

#[test]
fn the_features_are_json_with_the_names_of_capabilities() {
    let features: serde_json::Value = serde_json::from_str(&features::text()).unwrap();

    assert_eq!(features["linux"]["capabilities"][21], "CAP_SYS_ADMIN");
    assert!(features["mountOptions"].as_array().unwrap().contains(&"nosuid".into()));
}
