use fatfs::FatType;
use proptest::prelude::*;

use super::super::fat::tests::fat;
use super::super::region::Region;
use super::super::volumes::{Choice, InitrdPart, Place, Volumes};
use super::menu::outcome;
use super::{GrubError, boot};

/// What `grub-mkconfig` writes, in short: a simple entry, and a menu of all others.
const MKCONFIG: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="${saved_entry}"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function load_video {
  if [ x$feature_all_video_module = xy ]; then insmod all_video; else insmod vbe; fi
}
if loadfont unicode ; then set gfxmode=auto; fi
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	set root='hd5,gpt9'
	search --no-floppy --fs-uuid --set=root --hint-bios=hd5,gpt9 1234-ABCD
	echo	'Loading Linux ...'
	linux	/vmlinuz-2 root=UUID=x ro  quiet
	initrd	/ucode /initrd-2
}
submenu "Advanced options > for Debian" $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian, with Linux 2' $menuentry_id_option 'gnulinux-2' {
		linux	/vmlinuz-2 root=UUID=x ro advanced
	}
	menuentry 'Debian, with Linux 1' --id='gnulinux-1' {
		linux	/vmlinuz-1 root=UUID=x ro "a b=c" it\'s
	}
}
menuentry 'Memory test' { linux16 /memtest86+.bin }
menuentry 'Other system' { chainloader (hd0,1)+1 }
"#;

/// Runs a configuration that lies, with kernels, in the root directory of a disk.
fn run(files: &[(&str, &[u8])]) -> Result<Choice, GrubError> {
    let kernels = ["/vmlinuz-1", "/vmlinuz-2", "/initrd-2", "/ucode"].map(|path| (path, &b"x"[..]));
    let volumes = Volumes::open(&Region::of(fat(FatType::Fat12, &[&kernels, files].concat())));
    boot(&volumes, &Place { volume: 0, path: "/grub.cfg".into() })
}

fn run_script(script: &str) -> Result<Choice, GrubError> {
    run(&[("/grub.cfg", script.as_bytes())])
}

fn environment(text: &str) -> Vec<u8> {
    let mut block = format!("# GRUB Environment Block\n{text}").into_bytes();
    block.resize(1024, b'#');
    block
}

#[test]
fn the_first_entry_of_grub_mkconfig_has_its_kernel_initrds_and_command_line() {
    let choice = run_script(MKCONFIG).unwrap();

    let place = |path: &str| Place { volume: 0, path: path.into() };
    let part = |path: &str| InitrdPart { name: None, place: place(path) };
    assert_eq!(
        choice,
        Choice {
            title: "Debian GNU/Linux".into(),
            kernel: place("/vmlinuz-2"),
            initrds: vec![part("/ucode"), part("/initrd-2")],
            cmdline: "BOOT_IMAGE=/vmlinuz-2 root=UUID=x ro quiet".into(),
        }
    );
}

#[test]
fn the_environment_block_chooses_by_number_title_or_id() {
    for (variables, title) in [
        ("saved_entry=0\n", "Debian GNU/Linux"),
        ("saved_entry=1>1\n", "Debian, with Linux 1"),
        ("saved_entry=gnulinux-advanced-1>gnulinux-1\n", "Debian, with Linux 1"),
        ("saved_entry=Advanced options >> for Debian>0\n", "Debian, with Linux 2"),
        ("saved_entry=1\n", "Debian, with Linux 2"),
        ("saved_entry=1>7\n", "Debian, with Linux 2"),
        ("saved_entry=none\n", "Debian GNU/Linux"),
        ("saved_entry=0\nnext_entry=1>gnulinux-1\n", "Debian, with Linux 1"),
    ] {
        let block = environment(variables);

        let choice = run(&[("/grub.cfg", MKCONFIG.as_bytes()), ("/grubenv", &block)]).unwrap();

        assert_eq!(choice.title, title, "{variables}");
    }
}

#[test]
fn words_with_blanks_and_quotes_are_quoted_for_the_kernel() {
    let block = environment("saved_entry=1>1\n");

    let choice = run(&[("/grub.cfg", MKCONFIG.as_bytes()), ("/grubenv", &block)]).unwrap();

    assert_eq!(choice.cmdline, r#"BOOT_IMAGE=/vmlinuz-1 root=UUID=x ro "a b=c" it\'s"#);
}

#[test]
fn what_is_not_linux_says_what_it_is() {
    for (entry, what) in [
        ("2", "names a kernel that is not there, /memtest86+.bin"),
        ("3", "uses chainloader, and only Linux is booted here"),
    ] {
        let block = environment(&format!("saved_entry={entry}\n"));

        let error = run(&[("/grub.cfg", MKCONFIG.as_bytes()), ("/grubenv", &block)]).unwrap_err();

        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn commands_do_what_the_manual_says() {
    for (script, cmdline) in [
        ("linux /vmlinuz-1 a; boot", "a"),
        ("set a='x y'; linux /vmlinuz-1 $a \"$a\" $none \"\"", "x y \"x y\" "),
        ("a=1; if [ $a -eq 1 -a ! -f /none ]; then linux /vmlinuz-1 yes; fi", "yes"),
        ("if false; then true; elif test -d /; then linux /vmlinuz-1 dir; fi", "dir"),
        ("for i in 1 2 3; do set all=\"$all$i\"; done; linux /vmlinuz-1 $all", "123"),
        ("while [ \"$n\" != xxx ]; do n=x$n; done; linux /vmlinuz-1 $n", "xxx"),
        ("until [ \"$n\" = xx ]; do n=x$n; done; linux /vmlinuz-1 $n", "xx"),
        ("function f { linux /vmlinuz-1 $# $2 \"$@\"; }; f a 'b c'", "2 b c a \"b c\""),
        ("function f { return; linux /none; }; f; linux /vmlinuz-1 $?", "0"),
        ("search.fs_label BOOTFILES dev; linux ($dev)/vmlinuz-1 $dev", "hd0"),
        ("search --file --set=dev /vmlinuz-1; linux /vmlinuz-1 $dev", "hd0"),
        ("search -s dev -l BOOTFILES; linux /vmlinuz-1 $dev", "hd0"),
        ("true\nunknown_command || false\nlinux /vmlinuz-1 $?", "0"),
        ("unknown_command\nlinux /vmlinuz-1 $?", "0"),
        ("n=9; increment n; linux /vmlinuz-1 $n", "10"),
        ("decrement n; linux /vmlinuz-1 $n", "-1"),
        ("fwsetup --is-supported; linux /vmlinuz-1 $?", "1"),
        ("set x=1; unset x; linux /vmlinuz-1 \"[$x]\"", "[]"),
        ("menuentry a b { linux /vmlinuz-1 $1 $2; }", "a b"),
    ] {
        let choice = run_script(script).unwrap();

        let start = choice.cmdline.split_once(' ').map_or("", |(_, rest)| rest);
        assert_eq!(start, cmdline, "{script}");
    }
}

#[test]
fn another_configuration_takes_over() {
    let second = b"menuentry second { linux /vmlinuz-2 $from; }";
    for first in [
        "set from=x; export from; configfile /other.cfg",
        "set from=x; export from; configfile ($root)/other.cfg; menuentry never { true; }",
        "set from=x; source /other.cfg",
        "set from=x\nset prefix=($root)/dir\nnormal",
    ] {
        let files: &[(&str, &[u8])] =
            &[("/grub.cfg", first.as_bytes()), ("/other.cfg", second), ("/dir/grub.cfg", second)];

        let choice = run(files).unwrap();

        assert_eq!((&*choice.title, &*choice.cmdline), ("second", "BOOT_IMAGE=/vmlinuz-2 x"));
    }
}

#[test]
fn blscfg_makes_entries_with_the_environment_s_options() {
    let old =
        b"title Fedora 1\nlinux /vmlinuz-1\ninitrd /initrd-2 $tuned_initrd\noptions $kernelopts";
    let new = b"title Fedora 2\nlinux /vmlinuz-2\noptions ${kernelopts} new";
    let block = environment("kernelopts=root=/dev/vda3 ro\nsaved_entry=f-6.9\n");
    let script = b"load_env\nset default=$saved_entry\ninsmod blscfg\nblscfg\n";
    let mut files: Vec<(&str, &[u8])> =
        vec![("/grub.cfg", script), ("/loader/entries/f-6.9.conf", old), ("/grubenv", &block)];

    let saved = run(&files).unwrap();
    files[0].1 = b"load_env\nblscfg\n";
    files[1] = ("/loader/entries/f-6.10.conf", new);
    let newest = run(&files).unwrap();

    assert_eq!((&*saved.title, &*saved.cmdline), ("Fedora 1", "root=/dev/vda3 ro"));
    assert_eq!(saved.initrds.len(), 1);
    assert_eq!((&*newest.title, &*newest.cmdline), ("Fedora 2", "root=/dev/vda3 ro new"));
}

#[test]
fn scripts_without_an_end_are_stopped() {
    for script in [
        "while true; do true; done",
        "function f { f; }; f",
        "source /grub.cfg",
        "configfile /grub.cfg",
        "set a=xxxxxxxx; while true; do set a=$a$a; done",
        "function f { f $* $*; }; f a b c d",
        "submenu a { submenu a { submenu a { submenu a { submenu a { submenu a { submenu a {
         submenu a { submenu a { submenu a { true; } } } } } } } } } }",
    ] {
        let error = run_script(script).unwrap_err();

        assert!(matches!(error, GrubError::Endless(_)), "{script}: {error}");
    }
}

#[test]
fn what_is_wrong_names_the_file() {
    for (script, line) in [
        ("", "/grub.cfg of hd0 has no menu entry"),
        ("set default=0\nif true", "/grub.cfg of hd0 has no menu entry"),
        ("exit", "/grub.cfg of hd0 uses exit, and only Linux is booted here (line 1)"),
        ("menuentry x { true; }", "the default entry \"x\" of /grub.cfg of hd0 loads no kernel"),
        (
            "menuentry x { linux /none; initrd /none; }",
            "the default entry \"x\" of /grub.cfg of hd0 names a kernel that is not there, /none \
             (line 1 of /grub.cfg of hd0)",
        ),
        (
            "menuentry x { linux /; }",
            "the default entry \"x\" of /grub.cfg of hd0 names a kernel that is a directory, / \
             (line 1 of /grub.cfg of hd0)",
        ),
    ] {
        assert_eq!(run_script(script).unwrap_err().to_string(), line, "{script}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn changed_configurations_never_panic(
        cuts in prop::collection::vec((0_usize..MKCONFIG.len(), 0_usize..20), 0..8),
        inserts in prop::collection::vec((0_usize..MKCONFIG.len(), "[ -~\n]{0,6}"), 0..8),
    ) {
        let mut script = MKCONFIG.to_owned();
        for (at, len) in cuts {
            let at = at.min(script.len());
            script.drain(at..(at + len).min(script.len()));
        }
        for (at, text) in inserts {
            script.insert_str(at.min(script.len()), &text);
        }

        let _ = run_script(&script);
    }

    #[test]
    fn words_in_any_order_never_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "if", "then", "else", "elif", "fi", "for", "in", "do", "done", "while", "{", "}",
                "menuentry", "submenu", "function", "f", ";", "\n", "$f", "\"$@\"", "'x'", "[",
                "]", "linux", "/vmlinuz-1", "set", "a=$a$a", "source", "/grub.cfg", "search",
                "--set=root", "load_env", "true", "false", "return", "shift", "configfile",
            ]),
            0..60,
        ),
    ) {
        let _ = run_script(&words.join(" "));
    }
}

#[test]
fn what_is_passed_over_is_one_warning_with_file_line_and_word() {
    let script = "frobnicate x\nfrobnicate y\nif true; then\n hwmatch z\nfi\nfi\n\
                  configfile /none\nregexp '(' x\nlinux /vmlinuz-1 a\n";
    let volumes = Volumes::open(&Region::of(fat(
        FatType::Fat12,
        &[("/grub.cfg", script.as_bytes()), ("/vmlinuz-1", b"x")],
    )));

    let outcome = outcome(&volumes, &Place { volume: 0, path: "/grub.cfg".into() });

    let places: Vec<&str> = outcome
        .transcript
        .warnings
        .iter()
        .map(|line| line.strip_prefix("/grub.cfg of hd0, line ").unwrap())
        .map(|rest| rest.split(" is ").next().unwrap())
        .collect();
    let expected = [
        "1: \"frobnicate\"",
        "2: \"frobnicate\"",
        "4: \"hwmatch\"",
        "6: \"fi\"",
        "7: \"/none\"",
        "8: \"(\"",
    ];
    assert_eq!(places, expected);
    assert!(outcome.result.is_ok());
}

#[test]
fn warnings_have_an_end() {
    let script: String = (0..1000).map(|number| format!("unknown{number}\n")).collect();
    let volumes =
        Volumes::open(&Region::of(fat(FatType::Fat12, &[("/grub.cfg", script.as_bytes())])));

    let outcome = outcome(&volumes, &Place { volume: 0, path: "/grub.cfg".into() });

    assert!(outcome.transcript.warnings.len() < 20);
}
