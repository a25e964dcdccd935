use std::io::Cursor;

use fatfs::FatType;
use gpt::partition_types::{EFI, LINUX_FS, Type};
use proptest::prelude::*;

use super::ext::tests::{UUID, ext4};
use super::fat::tests::fat;
use super::find::read;
use super::region::Region;
use super::search::search;
use super::volumes::Volumes;
use crate::Remedy;
use crate::testing::bzimage;

const LOW_RAM: u64 = 64 << 20;
/// Features whose checksums would hide changes from the reader.
const WITH_CHECKSUMS: &str = "metadata_csum";
const WITHOUT_CHECKSUMS: &str = "^metadata_csum,^has_journal";

/// A disk with a GPT and these partitions.
pub(super) fn disk(partitions: &[(Type, Vec<u8>)]) -> Vec<u8> {
    let contents: usize = partitions.iter().map(|(_, bytes)| bytes.len() + (2 << 20)).sum();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(Cursor::new(vec![0; contents + (1 << 20)]), None)
        .unwrap();
    let mut starts = Vec::new();
    for (kind, bytes) in partitions {
        let len = bytes.len() as u64;
        let id = table.add_partition("", len, kind.clone(), 0, None).unwrap();
        starts.push(table.partitions()[&id].first_lba as usize * 512);
    }
    let mut image = table.write().unwrap().into_inner();
    for (start, (_, bytes)) in starts.into_iter().zip(partitions) {
        image[start..start + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// The smallest bzImage.
pub(super) fn kernel() -> Vec<u8> {
    bzimage(&[])
}

/// The command line and the configuration that says so.
pub(super) fn found(image: Vec<u8>) -> (String, String) {
    let found = search(&Volumes::open(&Region::of(image))).unwrap();
    (found.choice.cmdline, found.by)
}

pub(super) fn error(image: Vec<u8>) -> String {
    read(&Region::of(image), LOW_RAM).unwrap_err().to_string()
}

const GRUB: &[u8] = b"menuentry a { linux /boot/vmlinuz root=a; initrd /boot/one /boot/two; }";

fn root(extra: &[(&str, &[u8])]) -> Vec<u8> {
    let files: &[(&str, &[u8])] = &[
        ("/boot/grub/grub.cfg", GRUB),
        ("/boot/vmlinuz-6.1", &kernel()),
        ("/boot/vmlinuz", b"-> vmlinuz-6.1"),
        ("/boot/one", b"12345"),
        ("/boot/two", b"-> /boot/../boot/three"),
        ("/boot/three", b"678"),
    ];
    ext4(WITH_CHECKSUMS, &[files, extra].concat())
}

#[test]
fn a_root_partition_of_ext4_boots_with_its_initrds_one_after_the_other() {
    for image in [disk(&[(LINUX_FS, root(&[]))]), root(&[])] {
        let source = read(&Region::of(image), LOW_RAM).unwrap();

        assert_eq!(source.cmdline, "BOOT_IMAGE=/boot/vmlinuz root=a console=ttyS0");
        assert_eq!(source.initrd.unwrap().bytes(), b"12345\0\0\x00678");
    }
}

#[test]
fn a_boot_partition_of_its_own_is_found() {
    let boot: &[(&str, &[u8])] =
        &[("/grub2/grub.cfg", b"linux /vmlinuz b"), ("/vmlinuz", &kernel())];
    let image = disk(&[
        (LINUX_FS, ext4(WITH_CHECKSUMS, boot)),
        (LINUX_FS, ext4("extent", &[("/etc/x", b"")])),
    ]);

    assert_eq!(
        found(image),
        ("BOOT_IMAGE=/vmlinuz b".into(), "/grub2/grub.cfg of hd0,gpt1".into())
    );
}

#[test]
fn an_efi_system_partition_leads_to_the_root_by_uuid() {
    let stub = format!(
        "search.fs_uuid {UUID} root hd3,gpt7\nset prefix=($root)'/boot/grub'\nconfigfile \
         $prefix/grub.cfg\n"
    );
    let esp = fat(FatType::Fat16, &[("/EFI/debian/grub.cfg", stub.as_bytes())]);
    let other: &[(&str, &[u8])] =
        &[("/boot/grub/grub.cfg", b"linux /vmlinuz wrong"), ("/vmlinuz", &kernel())];
    let other = fat(FatType::Fat16, other);

    let found = found(disk(&[(LINUX_FS, other), (LINUX_FS, root(&[])), (EFI, esp)]));

    assert_eq!(
        found,
        ("BOOT_IMAGE=/boot/vmlinuz root=a".into(), "/EFI/debian/grub.cfg of hd0,gpt3".into())
    );
}

#[test]
fn entries_of_the_boot_loader_specification_are_found() {
    let entry = b"title x\nlinux /v\noptions root=/dev/vda2 console=hvc0\n";
    let kernel = kernel();
    let entries: &[(&str, &[u8])] = &[
        ("/loader/loader.conf", b"default x-1*"),
        ("/loader/entries/x-1.conf", entry),
        ("/loader/entries/x-2.conf", b"linux /none"),
        ("/v", &kernel),
    ];
    let with_systemd_boot = [entries, &[("/EFI/systemd/systemd-bootx64.efi", b"MZ")]].concat();
    let cmdline = "root=/dev/vda2 console=hvc0".to_owned();
    let by = "/loader/entries of hd0,gpt1".to_owned();

    let alone = found(disk(&[(EFI, fat(FatType::Fat16, entries))]));
    let chosen =
        found(disk(&[(EFI, fat(FatType::Fat16, &with_systemd_boot)), (LINUX_FS, root(&[]))]));
    let not_chosen = found(disk(&[(EFI, fat(FatType::Fat16, entries)), (LINUX_FS, root(&[]))]));

    assert_eq!(alone, (cmdline.clone(), by.clone()));
    assert_eq!(chosen, (cmdline, by));
    assert_eq!(not_chosen.1, "/boot/grub/grub.cfg of hd0,gpt2");
}

#[test]
fn a_configuration_of_no_use_gives_way_to_the_next() {
    let esp = fat(FatType::Fat16, &[("/EFI/old/grub.cfg", b"true\nchainloader +1\nboot")]);

    let image = disk(&[(EFI, esp), (LINUX_FS, root(&[]))]);
    let found = search(&Volumes::open(&Region::of(image))).unwrap();

    assert_eq!(found.by, "/boot/grub/grub.cfg of hd0,gpt2");
    let reason = "/EFI/old/grub.cfg of hd0,gpt1 uses chainloader, and only Linux is booted here \
                  (line 2)";
    assert_eq!(found.given_up, [reason]);
}

#[test]
fn what_cannot_be_booted_is_one_line_that_names_what_is_there_and_has_a_remedy() {
    let empty = ext4(WITH_CHECKSUMS, &[("/etc/hostname", b"x")]);
    let grub =
        |script: &[u8]| ext4(WITH_CHECKSUMS, &[("/boot/grub/grub.cfg", script), ("/v", b"x")]);
    let mut btrfs = vec![0; 1 << 20];
    btrfs[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
    for (image, line, remedy) in [
        (
            vec![0; 1 << 20],
            "no partition has a kernel to boot: looked for grub.cfg and Boot Loader Specification \
             entries in hd0 (no file system that is read here)",
            Some(Remedy::NameOne),
        ),
        (
            disk(&[(LINUX_FS, btrfs), (LINUX_FS, empty)]),
            "no partition has a kernel to boot: looked for grub.cfg and Boot Loader Specification \
             entries in hd0,gpt1 (btrfs, which is not read here), hd0,gpt2 (ext4)",
            Some(Remedy::NameOne),
        ),
        (
            grub(b"menuentry x { chainloader +1; }"),
            "no kernel can be booted from it: the default entry \"x\" of /boot/grub/grub.cfg of \
             hd0 uses chainloader, and only Linux is booted here (line 1)",
            Some(Remedy::NameOne),
        ),
        (
            grub(b"linux /v"),
            "/v of hd0, which /boot/grub/grub.cfg of hd0 names, does not boot: the file is \
             neither a bzImage nor an ELF kernel: name the vmlinuz of a Linux package",
            None,
        ),
    ] {
        let error = read(&Region::of(image), LOW_RAM).unwrap_err();
        assert_eq!((&*error.to_string(), error.remedy()), (line, remedy));
    }
}

#[test]
fn links_without_an_end_are_no_files() {
    let files: &[(&str, &[u8])] =
        &[("/boot/grub/grub.cfg", b"linux /a"), ("/a", b"-> b"), ("/b", b"-> a")];

    let line = error(ext4(WITH_CHECKSUMS, files));

    assert!(
        line.contains("names a kernel that is not there, /a") || line.contains("no menu"),
        "{line}"
    );
}

#[test]
fn initrds_that_no_ram_holds_are_refused_before_they_are_read() {
    let image = root(&[("/boot/three", &[7; 0x700])]);

    let initrd = read(&Region::of(image.clone()), 0x700).unwrap_err();
    let kernel = read(&Region::of(image), 0x500).unwrap_err().to_string();

    assert_eq!(
        initrd.to_string(),
        "/boot/two of hd0, which /boot/grub/grub.cfg of hd0 names, cannot be read: 1792 bytes are \
         more than the 1784 that it may have"
    );
    assert_eq!(initrd.remedy(), Some(Remedy::NameKernel));
    assert!(kernel.contains("1536 bytes are more than the 1280"), "{kernel}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn changed_disks_boot_or_say_why_not(
        seed in any::<u64>(),
        superblock in prop::collection::vec((1024_usize..2048, any::<u8>()), 0..4),
        metadata in prop::collection::vec((2048_usize..1 << 19, any::<u8>()), 0..400),
    ) {
        use std::sync::OnceLock;
        static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
        let image = IMAGE.get_or_init(|| {
            let kernel = kernel();
            let names: Vec<String> = (0..60).map(|n| format!("/boot/grub/file number {n}")).collect();
            let mut files: Vec<(&str, &[u8])> =
                names.iter().map(|name| (&**name, &b"x"[..])).collect();
            files.extend([("/boot/grub/grub.cfg", GRUB), ("/boot/vmlinuz", &kernel)]);
            files.extend([("/boot/one", &b"1"[..]), ("/boot/two", &b"-> one"[..])]);
            ext4(WITHOUT_CHECKSUMS, &files)
        });
        let mut image = image.clone();
        for (at, value) in superblock.into_iter().chain(metadata) {
            image[at] = value;
        }
        // Where the tables are dense, single bits.
        let mut state = seed | 1;
        for _ in 0..seed % 64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = 2048 + (state >> 33) as usize % (256 << 10);
            image[at] ^= 1 << (state >> 60 & 7);
        }

        let _ = read(&Region::of(image), LOW_RAM);
    }
}
