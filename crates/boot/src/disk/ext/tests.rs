use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::filesystem::{FileError, FileSystem, Kind};
use super::super::region::Region;
use super::Ext;

pub(in super::super) const UUID: &str = "0123abcd-8139-11d1-9106-a43f08d823a6";

/// A file system made by `mke2fs`; contents of `-> x` make a symbolic link. `change` may change the
/// image's file.
fn made(
    arguments: &[&str],
    size: &str,
    files: &[(&str, &[u8])],
    change: impl FnOnce(&Path),
) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("cloister-ext-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let (root, image) = (folder.join("root"), folder.join("image"));
    fs::create_dir_all(&root).unwrap();
    for (path, contents) in files {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match contents.strip_prefix(b"-> ") {
            Some(target) => {
                let target = std::str::from_utf8(target).unwrap();
                std::os::unix::fs::symlink(target, path).unwrap();
            }
            None => fs::write(path, contents).unwrap(),
        }
    }
    let mut command = Command::new("mke2fs");
    if !arguments.contains(&"-t") {
        command.args(["-t", "ext4"]);
    }
    command.args(["-q", "-F", "-L", "root", "-U", UUID]).args(arguments);
    run(command.arg("-d").args([&root, &image]).arg(size));
    change(&image);
    let bytes = fs::read(&image).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    bytes
}

fn run(command: &mut Command) {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output = command.env("PATH", path).output().expect("the tests need e2fsprogs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An ext4 file system of 4 MiB in blocks of 1 KiB.
pub(in super::super) fn ext4(features: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    ext4_with(&["-O", features], files)
}

/// As [`ext4`], with options of `mke2fs`.
pub(in super::super) fn ext4_with(arguments: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    made(&[&["-b", "1024"], arguments].concat(), "4M", files, |_| {})
}

/// Files of all shapes: in a few blocks and in many, with holes, behind links, in a directory of
/// many.
fn samples() -> Vec<(String, Vec<u8>)> {
    let large: Vec<u8> = (0..600_000_u32).map(|value| ((value * 31) >> 3) as u8).collect();
    let mut sparse = vec![0; 400_000];
    sparse[100_000..100_010].fill(7);
    sparse[399_999] = 9;
    let long =
        format!("-> {}/../large", "deep/..".repeat(20).replace("deep/..", "deep/../deep/.."));
    let mut files = vec![
        ("/small".into(), b"12345".to_vec()),
        ("/empty".into(), Vec::new()),
        ("/large".into(), large),
        ("/sparse".into(), sparse),
        ("/link".into(), b"-> small".to_vec()),
        ("/absolute".into(), b"-> /deep/er/file".to_vec()),
        ("/long".into(), long.replace("deep/..deep", "deep/../deep").into_bytes()),
        ("/deep/er/file".into(), b"deep".to_vec()),
    ];
    files.extend((0..700).map(|number| {
        (format!("/many/a file with a long name and the number {number}"), vec![number as u8])
    }));
    files
}

fn with_samples(arguments: &[&str], size: &str) -> Vec<u8> {
    let samples = samples();
    let files: Vec<(&str, &[u8])> =
        samples.iter().map(|(path, contents)| (&**path, &**contents)).collect();
    made(arguments, size, &files, |_| {})
}

/// What is wrong with the sample files of a file system.
fn faults(image: Vec<u8>) -> Vec<String> {
    let system = Ext::open(&Region::of(image)).unwrap();
    let mut faults = Vec::new();
    for (path, contents) in samples() {
        if contents.starts_with(b"-> ") {
            continue;
        }
        match system.read(&path, 1 << 20) {
            Ok(found) if found == contents => {}
            other => faults.push(format!("{path}: {:?}", other.map(|bytes| bytes.len()))),
        }
    }
    for (link, target) in [("/link", "/small"), ("/absolute", "/deep/er/file"), ("/long", "/large")]
    {
        if system.read(link, 1 << 20).ok() != system.read(target, 1 << 20).ok() {
            faults.push(link.to_owned());
        }
    }
    if system.list("/many").unwrap().len() != 700 {
        faults.push("/many".into());
    }
    if (system.uuid(), system.label()) != (UUID.into(), "root".into()) {
        faults.push("UUID or label".into());
    }
    faults
}

#[test]
fn what_grub_reads_is_read_whatever_its_features() {
    let common = ["-b", "1024", "-N", "2048"];
    for (name, arguments, size) in [
        ("ext4", &[][..], "8M"),
        ("mmp", &["-O", "mmp"], "8M"),
        ("large_dir", &["-O", "large_dir"], "8M"),
        ("meta_bg", &["-O", "meta_bg,^resize_inode"], "300M"),
        ("meta_bg with large blocks", &["-b", "4096", "-O", "meta_bg,^resize_inode"], "64M"),
        ("meta_bg without 64bit", &["-O", "meta_bg,^resize_inode,^64bit"], "300M"),
        ("meta_bg and sparse_super2", &["-O", "meta_bg,^resize_inode,sparse_super2"], "64M"),
        ("no filetype", &["-O", "^filetype"], "8M"),
        ("small inodes", &["-I", "128", "-O", "metadata_csum"], "8M"),
        ("csum_seed", &["-O", "metadata_csum_seed"], "8M"),
        ("no checksums", &["-O", "^metadata_csum,uninit_bg"], "8M"),
        ("no extents", &["-O", "^extent,^64bit,^flex_bg"], "8M"),
        ("no flex_bg", &["-O", "^flex_bg"], "24M"),
        ("bigalloc", &["-O", "bigalloc", "-C", "16384"], "32M"),
        ("quota", &["-O", "quota,project"], "8M"),
        ("largest blocks", &["-b", "65536"], "64M"),
        ("ext3", &["-t", "ext3"], "8M"),
        ("ext2", &["-t", "ext2"], "8M"),
        ("ext2 without filetype", &["-t", "ext2", "-O", "^filetype"], "8M"),
        ("revision 0", &["-t", "ext2", "-r", "0"], "8M"),
    ] {
        let image = with_samples(&[&common, arguments].concat(), size);

        assert!(faults(image.clone()).is_empty(), "{name}: {:?}", faults(image));
    }
}

#[test]
fn a_feature_that_is_not_read_is_named() {
    for (arguments, name) in [
        (["-O", "inline_data"], "inline_data"),
        (["-O", "ea_inode"], "ea_inode"),
        (["-O", "casefold"], "casefold"),
    ] {
        let arguments = [&["-t", "ext4", "-b", "1024"], &arguments[..]].concat();
        let image = made(&arguments, "8M", &[("/a", b"x")], |_| {});

        let error = Ext::open(&Region::of(image)).err().unwrap().to_string();

        assert_eq!(error, format!("it has the feature {name}, which is not read here"));
    }
    let mut image = ext4("^metadata_csum", &[]);
    image[1024 + 0x63] = 0x40;
    let error = Ext::open(&Region::of(image)).err().unwrap().to_string();
    assert_eq!(error, "it has the feature number 30, which is not read here");
}

#[test]
fn a_journal_that_was_not_played_back_counts() {
    // The second transaction revokes one block of the first, and the third writes another again.
    for features in ["^metadata_csum,^64bit", "metadata_csum,64bit", "metadata_csum,^64bit"] {
        let contents: Vec<u8> = (0..4).flat_map(|block| [b'a' + block; 1024]).collect();
        let arguments = ["-t", "ext4", "-b", "1024", "-O", features];
        let image = made(&arguments, "8M", &[("/file", &contents)], |image| {
            let debugfs = |commands: &str| {
                let script = image.with_extension("commands");
                fs::write(&script, commands).unwrap();
                run(Command::new("debugfs").args(["-w", "-f"]).args([&script, &image.to_owned()]));
            };
            let blocks = Command::new("debugfs")
                .env("PATH", "/usr/sbin:/sbin")
                .args(["-R", "blocks /file"])
                .arg(image)
                .output()
                .unwrap();
            let blocks = String::from_utf8(blocks.stdout).unwrap();
            let blocks: Vec<&str> = blocks.split_whitespace().collect();
            let written = image.with_extension("new");
            // The first begins as a block of the journal does.
            let mut new: Vec<u8> = (0..3).flat_map(|block| [b'A' + block; 1024]).collect();
            new[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
            fs::write(&written, new).unwrap();
            let last = image.with_extension("last");
            fs::write(&last, [b'Z'; 1024]).unwrap();
            debugfs(&format!(
                "journal_open\njournal_write -b {},{},{} {}\njournal_write -r {}\n\
                 journal_write -b {} {}\njournal_close\n",
                blocks[0],
                blocks[1],
                blocks[2],
                written.display(),
                blocks[1],
                blocks[2],
                last.display(),
            ));
        });

        let system = Ext::open(&Region::of(image)).unwrap();
        let found = system.read("/file", 1 << 20).unwrap();

        let starts: Vec<&[u8]> = found.chunks(1024).map(|block| &block[..5]).collect();
        assert_eq!(starts, [b"\xc0\x3b\x39\x98A", b"bbbbb", b"ZZZZZ", b"ddddd"], "{features}");
    }
}

#[test]
fn the_ext4_view_crate_reads_the_same() {
    let image = with_samples(&["-t", "ext4", "-b", "1024", "-N", "2048"], "8M");
    let theirs = ext4_view::Ext4::load(Box::new(image.clone())).unwrap();

    let ours = Ext::open(&Region::of(image)).unwrap();

    for (path, _) in samples() {
        assert_eq!(ours.read(&path, 1 << 20).unwrap(), theirs.read(&*path).unwrap(), "{path}");
    }
}

#[test]
fn what_is_not_there_or_of_another_kind_says_so() {
    let files: &[(&str, &[u8])] =
        &[("/dir/file", b"12345"), ("/loop", b"-> loop"), ("/gone", b"-> none")];
    let system = Ext::open(&Region::of(ext4("extent", files))).unwrap();

    assert!(matches!(system.read("/none", 9), Err(FileError::NotFound)));
    assert!(matches!(system.read("/gone", 9), Err(FileError::NotFound)));
    assert!(matches!(system.read("/dir/file/x", 9), Err(FileError::NotFound)));
    assert!(matches!(system.read("/dir", 9), Err(FileError::WrongKind)));
    assert!(matches!(system.list("/dir/file"), Err(FileError::WrongKind)));
    assert!(matches!(system.read("/loop", 9), Err(FileError::Damaged(_))));
    assert!(matches!(system.read("/dir/file", 4), Err(FileError::TooLarge { size: 5, limit: 4 })));
    assert_eq!(system.kind("/dir/../../dir/.").unwrap(), Kind::Directory);
    assert!(!system.entry("/loop").unwrap().directory);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn changed_file_systems_never_panic(
        superblock in prop::collection::vec((1024_usize..2048, any::<u8>()), 0..4),
        metadata in prop::collection::vec((2048_usize..1 << 19, any::<u8>()), 0..400),
        old in any::<bool>(),
    ) {
        use std::sync::OnceLock;
        static IMAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let images = IMAGES.get_or_init(|| {
            let files: &[(&str, &[u8])] =
                &[("/a/b/file", &[7; 90_000]), ("/link", b"-> a/b/file"), ("/many/x", b"1")];
            let new = made(&["-t", "ext4", "-b", "1024", "-J", "size=1"], "4M", files, |_| {});
            let mut new = new;
            // As if the journal had not been played back.
            new[1024 + 0x60] |= 4;
            [new, made(&["-t", "ext2", "-b", "1024", "-r", "0"], "4M", files, |_| {})]
        });
        let mut image = images[usize::from(old)].clone();
        for (at, value) in superblock.into_iter().chain(metadata) {
            image[at] = value;
        }

        if let Ok(system) = Ext::open(&Region::of(image)) {
            let _ = (system.label(), system.list("/"), system.list("/many"));
            let _ = (system.read("/link", 1 << 20), system.entry("/a"));
        }
    }
}
