use proptest::prelude::*;

use super::*;
use crate::config::{parse_cpus, parse_launch_key};
use crate::cpu_flags::CpuConfig;

#[test]
fn an_epc_section_has_an_id_a_size_and_perhaps_prealloc() {
    for (text, id, size, prealloc) in [
        ("id=epc0,size=64M", "epc0", 64 << 20, false),
        ("size=4K,id=a.b-c_d", "a.b-c_d", 4096, false),
        ("id=e,size=1G,prealloc=on", "e", 1 << 30, true),
        ("id=e,size=1G,prealloc", "e", 1 << 30, true),
        ("prealloc=off,id=e,size=1G", "e", 1 << 30, false),
    ] {
        let expected = EpcConfig { id: id.into(), size, prealloc, node: 0, host_node: 0 };
        assert_eq!(EpcConfig::parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn each_wrong_epc_section_is_one_line_that_names_the_option_and_the_fix() {
    for (text, line) in [
        ("", r#"--sgx-epc: "" is not key=value: write id=epc0,size=64M[,prealloc=on]"#),
        ("epc0", r#"--sgx-epc: "epc0" is not key=value: write id=epc0,size=64M[,prealloc=on]"#),
        ("id=epc0", "--sgx-epc: the key size is missing: write id=epc0,size=64M[,prealloc=on]"),
        ("size=64M", "--sgx-epc: the key id is missing: write id=epc0,size=64M[,prealloc=on]"),
        (
            "id=epc0,size=64M,node=0",
            r#"--sgx-epc: unknown key "node": the keys are id, size and prealloc"#,
        ),
        ("id=a,id=b,size=64M", "--sgx-epc: the key id is given twice: leave one out"),
        (
            "id=0epc,size=64M",
            r#"--sgx-epc: "0epc" is not an id: write a letter, then letters, digits, -, _ or ."#,
        ),
        (
            "id=epc0,size=64X",
            r#"--sgx-epc: size: "64X" is not a size: write a number and K, M, G or T, such as 64M"#,
        ),
        ("id=epc0,size=0", "--sgx-epc: size: 0 is no memory at all: write a size of at least 4K"),
        (
            "id=epc0,size=4097",
            "--sgx-epc: size: 4097 is not a multiple of 4 KiB: the next size that is one is 8192 bytes",
        ),
        ("id=epc0,size=64M,prealloc=yes", r#"--sgx-epc: prealloc is on or off, not "yes""#),
    ] {
        assert_eq!(EpcConfig::parse(text).unwrap_err().to_string(), line, "{text}");
    }
}

#[test]
fn a_disk_is_a_file_and_perhaps_readonly() {
    for (text, path, readonly) in [
        ("disk.img", "disk.img", false),
        ("disk.img,readonly", "disk.img", true),
        ("a,b", "a,b", false),
    ] {
        let expected = DiskConfig { readonly, ..DiskConfig::new(path) };
        assert_eq!(DiskConfig::parse(text), Ok(expected));
    }
    assert_eq!(DiskConfig::parse(""), Err(ValueError::DiskPath));
    assert_eq!(DiskConfig::parse(",readonly"), Err(ValueError::DiskPath));
}

#[test]
fn a_disk_has_a_format_a_snapshot_and_backing_files() {
    let backing = |path: &str, format| BackingConfig { path: path.into(), format };
    let plain = DiskConfig::new("a");
    for (text, expected) in [
        ("a,format=raw", DiskConfig { format: Some(ImageFormat::Raw), ..plain.clone() }),
        ("a,format=vmdk", DiskConfig { format: Some(ImageFormat::Vmdk), ..plain.clone() }),
        ("a,snapshot", DiskConfig { snapshot: true, ..plain.clone() }),
        ("a,snapshot=off,readonly=on", DiskConfig { readonly: true, ..plain.clone() }),
        (
            "a,b,backing=c,backing=d,backing-format=raw,format=qcow2",
            DiskConfig {
                format: Some(ImageFormat::Qcow2),
                backing: vec![backing("c", None), backing("d", Some(ImageFormat::Raw))],
                ..DiskConfig::new("a,b")
            },
        ),
        // Names of files, since these are no keys.
        ("a,readonlyx", DiskConfig::new("a,readonlyx")),
        ("a,format", DiskConfig::new("a,format")),
        ("format=raw", DiskConfig::new("format=raw")),
    ] {
        assert_eq!(DiskConfig::parse(text), Ok(expected), "{text}");
    }
    for (text, line) in [
        ("a,format=jpeg", r#"--disk: format: "jpeg" is not a format: write raw, qcow2 or vmdk"#),
        (
            "a,format=vdi",
            "--disk: format: vdi images are not read: convert it with qemu-img convert -f vdi -O qcow2",
        ),
        ("a,snapshot=yes", r#"--disk: snapshot is on or off, not "yes""#),
        ("a,readonly,readonly=off", "--disk: the key readonly is given twice: leave one out"),
        ("a,format=raw,format=raw", "--disk: the key format is given twice: leave one out"),
        (
            "a,backing=b,backing-format=raw,backing-format=raw",
            "--disk: the key backing-format is given twice: leave one out",
        ),
        ("a,backing=", "--disk: backing: the name of the file is missing: write backing=FILE"),
        (
            "a,backing-format=raw,backing=b",
            "--disk: backing-format goes after the backing= that it is of: \
             write backing=FILE first",
        ),
    ] {
        assert_eq!(DiskConfig::parse(text).unwrap_err().to_string(), line, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_of_an_option_panics_and_every_error_is_one_line(text in "[ -~]{0,40}") {
        for error in [
            EpcConfig::parse(&text).err(),
            DiskConfig::parse(&text).err(),
            parse_cpus(&text).map_err(ValueError::Cpus).err(),
            parse_memory(&text).err(),
            CpuConfig::parse(&text).map_err(ValueError::Cpu).err(),
            parse_launch_key(&text).map_err(ValueError::LaunchKey).err(),
        ].into_iter().flatten() {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(error.to_string().starts_with("--"));
        }
    }
}
