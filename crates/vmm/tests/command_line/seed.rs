//! `cloister seed`.

use crate::contents;
use crate::fixture::{Scratch, cloister, text};

#[test]
fn a_seed_is_made_once_of_what_cloud_init_reads() {
    let scratch = Scratch::new("seed");
    scratch.file("user-data", b"#cloud-config\nssh_pwauth: true\n");
    scratch.file("text", b"hello\n");
    scratch.file("empty", b"");
    let user_data = ["--user-data", "user-data"];

    let made = cloister(&["seed", "seed.img", user_data[0], user_data[1]], &scratch.0);

    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let said = "seed.img: add --disk seed.img,readonly after the machine's own disk\n";
    assert_eq!(text(&made.stdout), said);
    let before = contents(&scratch.0);
    let cases: &[(&[&str], &str)] = &[
        (&["seed.img", "--user-data", "user-data"], "seed.img is there already: name another"),
        (&["no/seed.img", "--user-data", "user-data"], "cannot write no/seed.img: No such file"),
        (&["new", "--user-data", "missing"], "--user-data: cannot read missing: No such file"),
        (&["new", "--user-data", "."], "--user-data: cannot read .: Is a directory"),
        (&["new", "--user-data", "empty"], "--user-data: cannot read empty: it is empty: name"),
        (&["new", "--user-data", "text"], "--user-data: cloud-init does not know what text is"),
        (&["new", "--user-data", "/dev/zero"], "--user-data: cannot read /dev/zero: it is larger"),
        (
            &["new", "--user-data", "user-data", "--meta-data", "empty"],
            "--meta-data: cannot read empty: it is empty: name cloud-init's meta data",
        ),
        (
            &["new", "--user-data", "user-data", "--network-config", "missing"],
            "--network-config: cannot read missing: No such file",
        ),
        (
            &["new", "--user-data", "user-data", "--hostname", "a b"],
            "--hostname: \"a b\" is not a name: write letters, digits and dashes",
        ),
        (
            &["new", "--user-data", "user-data", "--hostname", "a", "--meta-data", "text"],
            "the argument '--hostname <NAME>' cannot be used with '--meta-data <FILE>'",
        ),
        (&["new"], "the following required arguments were not provided: --user-data <FILE>"),
    ];
    for (args, start) in cases {
        let output = cloister(&[&["seed"], *args].concat(), &scratch.0);

        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!((text(&output.stdout), error.lines().count()), ("", 1), "{args:?}: {error}");
        assert!(error.starts_with(&format!("cloister: {start}")), "{args:?}: {error}");
    }
    assert!(contents(&scratch.0) == before, "files are left behind, or changed");
}
