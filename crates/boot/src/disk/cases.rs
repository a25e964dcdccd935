//! Disks of public reports that boot elsewhere.

use fatfs::FatType;
use gpt::partition_types::{EFI, LINUX_FS, Type};

use super::ext::tests::{ext4, ext4_with};
use super::fat::tests::fat;
use super::find::read;
use super::region::Region;
use super::tests::{disk, error, found, kernel};

const LOW_RAM: u64 = 64 << 20;
const ROOT: &str = "11111111-2222-3333-4444-555555555555";
const DATA: &str = "22222222-2222-3333-4444-555555555555";

/// The command line that a `grub.cfg` leads to, on a disk of a root file system with these files and
/// a data file system.
fn grub(script: &str, files: &[(&str, &[u8])]) -> String {
    let kernel = kernel();
    let own: &[(&str, &[u8])] = &[("/boot/grub/grub.cfg", script.as_bytes()), ("/boot/k", &kernel)];
    let root = ext4_with(&["-U", ROOT, "-L", "root"], &[own, files].concat());
    let data = ext4_with(&["-U", DATA, "-L", "data"], &[("/data-file", b"x")]);
    found(disk(&[(LINUX_FS, root), (LINUX_FS, data)])).0
}

#[test]
fn grub_search_forms_find_the_partition() {
    for search in [
        format!("search --no-floppy --fs-uuid --set r {DATA}"),
        "search --label data --set r --no-floppy".to_owned(),
        format!("search --no-floppy --fs-uuid --set=r {DATA} hd0,gpt1"),
        format!("search -nu {DATA} -s r"),
        format!("search --set=r --fs-uuid {DATA} --hint-bios hd0,gpt2"),
    ] {
        let cmdline = grub(&format!("{search}\nmenuentry a {{ linux /boot/k $r; }}"), &[]);

        assert_eq!(cmdline, "BOOT_IMAGE=/boot/k hd0,gpt2", "{search}");
    }
}

#[test]
fn grub_not_makes_the_root_the_boot_device() {
    let script = "if ! search --no-floppy --set=bd --file /nothere ; then\n set bd=$root\nfi\n\
                  set root=$bd\nmenuentry a {\n linux /boot/k q\n}\n";

    assert_eq!(grub(script, &[]), "BOOT_IMAGE=/boot/k q");
}

#[test]
fn grub_break_continue_take_the_first_kernel_that_is_there() {
    let kernel = kernel();
    let kernels: &[(&str, &[u8])] = &[("/boot/k-6.8", &kernel), ("/boot/k-6.7", &kernel)];
    let with = |leave: &str| {
        format!(
            "for v in 6.9 6.8 6.7; do\n if [ -f /boot/k-$v ]; then\n  set kv=$v\n  {leave}\n fi\n\
             done\nmenuentry a {{\n linux /boot/k-$kv q\n}}\n"
        )
    };

    assert_eq!(grub(&with("break"), kernels), "BOOT_IMAGE=/boot/k-6.8 q");
    assert_eq!(grub(&with("continue"), kernels), "BOOT_IMAGE=/boot/k-6.7 q");
    assert_eq!(grub(&with("break 2"), kernels), "BOOT_IMAGE=/boot/k-6.8 q");
}

#[test]
fn grub_function_status_chooses_the_kernel_that_is_there() {
    let kernel = kernel();
    let script = "function have {\n if [ -f $1 ]; then return 0; fi\n return 1\n}\n\
                  if have /boot/new; then set k=new; else set k=old; fi\n\
                  menuentry a {\n linux /boot/$k q\n}\n";

    assert_eq!(grub(script, &[("/boot/old", &kernel)]), "BOOT_IMAGE=/boot/old q");
}

#[test]
fn grub_commands_with_values_set_their_variables() {
    let script = r#"probe --set=u -u $root
regexp --set=1:v "vmlinuz-([0-9]+)" /boot/vmlinuz-17
eval "set e=b"
if cpuid -l; then set b=64; else set b=32; fi
if [ v10 -pgt v9 ]; then set p=T; else set p=F; fi
if [ -e (hd0,gpt1) ]; then set d=T; else set d=F; fi
probe --set=f --fs $root; probe --set=l --label $root; probe --set=m --partmap $root
menuentry a {
 linux /boot/k root=UUID=$u $v $e $b $p $d $f $l $m
}
"#;

    let expected = format!("BOOT_IMAGE=/boot/k root=UUID={ROOT} 17 b 64 T T ext2 root gpt");
    assert_eq!(grub(script, &[]), expected);
}

#[test]
fn grub_fallback_boots_the_entry_that_it_names() {
    let script = "set default=0\nset fallback=1\nset timeout=0\nmenuentry A {\n linux /boot/gone a\n}\n\
                  menuentry B {\n linux /boot/k b\n}\n";

    assert_eq!(grub(script, &[]), "BOOT_IMAGE=/boot/k b");
}

#[test]
fn grub_initrd_newc_puts_a_file_into_an_archive_of_its_own() {
    let kernel = kernel();
    let script = b"menuentry a {\n linux /boot/k q\n initrd /boot/i newc:etc/x:/boot/x\n}\n";
    let files: &[(&str, &[u8])] = &[
        ("/boot/grub/grub.cfg", script),
        ("/boot/k", &kernel),
        ("/boot/i", b"12345"),
        ("/boot/x", b"contents"),
    ];

    let source = read(&Region::of(ext4("extent", files)), LOW_RAM).unwrap();

    let initrd = source.initrd.unwrap();
    let text = String::from_utf8_lossy(initrd.bytes());
    let members: Vec<&str> = text.split("070701").collect();
    assert_eq!((members.len(), members[0]), (4, "12345\0\0\0"));
    assert!(members[2].contains("etc/x\0") && members[2].contains("contents"));
    assert!(members[3].contains("TRAILER!!!"));
}

#[test]
fn grub_blscfg_arguments_name_the_folder() {
    let entry: &[(&str, &[u8])] = &[("/boot/bls.d/x.conf", b"title X\nlinux /boot/k\n")];
    for script in
        ["blscfg --path /boot/bls.d", "blscfg (hd0,gpt1)/boot/bls.d", "blscfg -p /boot/bls.d -e x"]
    {
        assert_eq!(grub(script, entry), "", "{script}");
    }
}

#[test]
fn grub_blscfg_gives_an_entry_without_options_the_default_ones() {
    let script = "set default_kernelopts=\"root=UUID=d ro\"\nblscfg";
    let entry: &[(&str, &[u8])] = &[("/loader/entries/x.conf", b"title X\nlinux /boot/k\n")];

    assert_eq!(grub(script, entry), "root=UUID=d ro");
}

#[test]
fn grub_search_ostree_boot_finds_the_first_boot_of_ignition() {
    let kernel = kernel();
    let stub = b"search --label boot --set prefix --no-floppy\nset prefix=($prefix)/grub2\n\
                 configfile $prefix/grub.cfg\nboot\n";
    let script = "set default=0\nset ignition_firstboot=\"\"\n\
                  search --label boot --set boot --no-floppy\nset root=$boot\n\
                  if [ -f \"/ignition.firstboot\" ]; then\n \
                  set ignition_firstboot=\"ignition.firstboot\"\nfi\nblscfg\n";
    let entry = b"title C\nlinux /k\noptions root=x $ignition_firstboot\n";
    let boot: &[(&str, &[u8])] = &[
        ("/grub2/grub.cfg", script.as_bytes()),
        ("/ignition.firstboot", b""),
        ("/k", &kernel),
        ("/loader/entries/ostree-1.conf", entry),
    ];
    let esp = fat(FatType::Fat16, &[("/EFI/os/grub.cfg", stub)]);

    let found = found(disk(&[(EFI, esp), (LINUX_FS, ext4_with(&["-L", "boot"], boot))]));

    let expected = ("root=x ignition.firstboot".into(), "/EFI/os/grub.cfg of hd0,gpt1".into());
    assert_eq!(found, expected);
}

/// A disk with systemd-boot on the ESP and two entries on the extended boot loader partition.
fn systemd_boot(esp: &[(&str, &[u8])]) -> Vec<u8> {
    let xbootldr: Type = "BC13C2FF-59E6-4262-A352-B275FD6F7172".parse().unwrap();
    let kernel = kernel();
    let loader: &[(&str, &[u8])] = &[("/EFI/systemd/systemd-bootx64.efi", b"MZ"), ("/ke", &kernel)];
    let entries: &[(&str, &[u8])] = &[
        (
            "/loader/entries/a-1.conf",
            b"title A\nsort-key a\nversion 1\nlinux /ka\noptions root=a\n",
        ),
        (
            "/loader/entries/b-2.conf",
            b"title B\nsort-key b\nversion 2\nlinux /kb\noptions root=b\n",
        ),
        ("/ka", &kernel),
        ("/kb", &kernel),
    ];
    let esp = fat(FatType::Fat16, &[loader, esp].concat());
    disk(&[(EFI, esp), (xbootldr, ext4("extent", entries))])
}

#[test]
fn sdboot_loader_conf_on_esp_chooses_of_the_other_partition_s_entries() {
    let conf: &[(&str, &[u8])] = &[("/loader/loader.conf", b"timeout 0\ndefault b-2.conf\n")];

    assert_eq!(found(systemd_boot(conf)).0, "root=b");
}

#[test]
fn sdboot_entries_of_both_partitions_are_one_menu() {
    let entry = b"title E\nsort-key zzz\nversion 0\nlinux /ke\noptions root=e\n";
    let name = "/loader/entries/esp-0.conf";

    let first = found(systemd_boot(&[(name, entry)])).0;
    let chosen =
        found(systemd_boot(&[(name, entry), ("/loader/loader.conf", b"default esp-*\n")])).0;

    assert_eq!((&*first, &*chosen), ("root=a", "root=e"));
}

#[test]
fn ext4_features_that_grub_reads_boot() {
    let kernel = kernel();
    let files: &[(&str, &[u8])] =
        &[("/boot/grub/grub.cfg", b"linux /boot/k root=a"), ("/boot/k", &kernel)];
    for arguments in [
        &["-O", "mmp"][..],
        &["-O", "large_dir"],
        &["-O", "meta_bg,^resize_inode"],
        &["-t", "ext2", "-O", "^filetype"],
        &["-t", "ext2", "-r", "0"],
        &["-I", "128", "-O", "metadata_csum"],
        &["-O", "metadata_csum_seed"],
    ] {
        let (cmdline, _) = found(ext4_with(arguments, files));

        assert_eq!(cmdline, "BOOT_IMAGE=/boot/k root=a", "{arguments:?}");
    }
}

#[test]
fn ext4_features_that_grub_does_not_read_are_refused_by_name() {
    for feature in ["ea_inode", "casefold", "inline_data"] {
        let line = error(ext4_with(&["-O", feature], &[("/boot/k", b"x")]));

        let expected = format!("ext4 that cannot be read (it has the feature {feature}, which is");
        assert!(line.contains(&expected), "{line}");
    }
}
