//! Menus, what is chosen of them, and what is loaded.

use super::super::table::Case;
use super::case;

/// Four entries, one of them a menu of three, and one without a kernel.
const MENU: &str = "timeout=0\n\
    menuentry 'A' --id first { linux /boot/k-6.7 a $chosen; }\n\
    menuentry 'B > b' --id second { linux /boot/k-6.7 b $chosen; }\n\
    submenu 'More' --id more {\n\
     menuentry 'C' --id third { linux /boot/k-6.7 c $chosen $default; }\n\
     menuentry 'D d' { linux /boot/k-6.7 d $chosen $default; }\n\
     submenu 'Deep' { menuentry 'E' { linux /boot/k-6.7 e $chosen $default; }\n\
      menuentry 'F' { linux /boot/k-6.7 f $chosen $default; } }\n\
    }\n\
    menuentry '7' --id seven { linux /boot/k-6.7 g $chosen; }\n";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, default) in [
        "",
        "0",
        "1",
        "2",
        "3",
        "4",
        "9",
        "-1",
        "x",
        "first",
        "second",
        "A",
        "B > b",
        "B >> b",
        "7",
        "seven",
        "more",
        "More",
        "2>0",
        "2>1",
        "2>2",
        "2>2>1",
        "more>third",
        "more>C",
        "More>D d",
        "more>Deep>F",
        "more>9",
        "more>x",
        "more>2>F",
        "0x1",
        "1 ",
        " 1",
        "1x",
        "first>x",
        ">1",
        "2>",
        "A>B",
        "third",
        "more>third>x",
    ]
    .iter()
    .enumerate()
    {
        cases.push(case(format!("default-{number}"), format!("default='{default}'\n{MENU}")));
    }
    for (number, (default, fallback)) in [
        ("0", "1"),
        ("0", "2 1"),
        ("0", "9 1"),
        ("0", "B"),
        ("0", "second"),
        ("0", "0 2 1"),
        ("2", "1"),
        ("0", "3"),
        ("0", ""),
        ("x", "1"),
        ("0", "3>0"),
        ("second", "0"),
    ]
    .iter()
    .enumerate()
    {
        cases.push(case(
            format!("fallback-{number}"),
            format!(
                "default={default}\nfallback='{fallback}'\ntimeout=0\n\
                 menuentry A {{ linux /boot/gone a; }}\nmenuentry B --id second {{ linux /boot/k-6.7 b; }}\n\
                 menuentry C {{ echo \"@ c\"; false; }}\n\
                 submenu S {{ menuentry T {{ linux /boot/k-6.8 t; }}; }}\n"
            ),
        ));
    }
    for (name, script) in [
        ("no-default", "timeout=0\nmenuentry A { linux /boot/k-6.7 a; }"),
        (
            "arguments",
            "timeout=0\nmenuentry 'A b' c --id i \"d e\" { echo \"@ $# $1 $2 $3\"; linux /boot/k-6.7 $2; }",
        ),
        (
            "id-variable",
            "timeout=0\nmenuentry_id_option=--id\nmenuentry A $menuentry_id_option 'x y' { linux /boot/k-6.7 \"$chosen\"; }",
        ),
        (
            "classes",
            "timeout=0\nmenuentry 'A' --class a --class=b --users x --hotkey=q --unrestricted { linux /boot/k-6.7 a; }",
        ),
        ("source-option", "timeout=0\nmenuentry A --source 'linux /boot/k-6.7 src' "),
        ("in-if", "timeout=0\nif true; then menuentry A { linux /boot/k-6.7 a; }; fi"),
        (
            "in-function",
            "timeout=0\nfunction f { menuentry $1 $2 { linux /boot/k-6.7 $1 $2 $x; }; }\nf one two",
        ),
        (
            "in-loop",
            "timeout=0\ndefault=k-6.8\nfor i in k-6.7 k-6.8; do menuentry $i { linux /boot/$1 $i; }; done",
        ),
        (
            "in-loop-glob",
            "timeout=0\ndefault=/boot/k-6.8\nfor i in /boot/k-*; do menuentry $i { linux $1 glob; }; done",
        ),
        (
            "nested-entry",
            "timeout=0\nmenuentry A { menuentry B { linux /boot/k-6.8 b; }; linux /boot/k-6.7 a; }",
        ),
        ("return", "timeout=0\nmenuentry A { linux /boot/k-6.7 a; return; }"),
        (
            "return-error",
            "timeout=0\nfallback=1\nmenuentry A { linux /boot/k-6.7 a\n return 1\n}\nmenuentry B { linux /boot/k-6.8 b; }",
        ),
        (
            "false-last",
            "timeout=0\nfallback=1\nmenuentry A {\n linux /boot/k-6.7 a\n false\n}\nmenuentry B { linux /boot/k-6.8 b; }",
        ),
        (
            "error-last",
            "timeout=0\nfallback=1\nmenuentry A {\n linux /boot/k-6.7 a\n initrd /boot/none\n}\nmenuentry B { linux /boot/k-6.8 b; }",
        ),
        (
            "error-first",
            "timeout=0\nmenuentry A {\n search --set=root --label none\n linux /boot/k-6.7 a\n}",
        ),
        ("boot-inside", "timeout=0\nmenuentry A { linux /boot/k-6.7 a; boot; echo \"@ never\"; }"),
        (
            "kernel-then-none",
            "timeout=0\nmenuentry A { linux /boot/k-6.7 a\n linux /boot/none b\n true\n}",
        ),
        ("kernel-before-menu", "linux /boot/k-6.8 early\ntimeout=0\nmenuentry A { true; }"),
        ("variables", "timeout=0\na=1; b=2; export b\nmenuentry A { linux /boot/k-6.7 $a $b; }"),
        (
            "submenu-variables",
            "timeout=0\na=1; b=2; export b\nsubmenu S { menuentry A { linux /boot/k-6.7 $a $b $timeout; }; }",
        ),
        (
            "submenu-sets",
            "timeout=0\nsubmenu S { default=1\n menuentry A { linux /boot/k-6.7 a; }\n menuentry B { linux /boot/k-6.7 b; }; }",
        ),
        (
            "submenu-empty",
            "timeout=0\nfallback=1\nsubmenu S { true; }\nmenuentry B { linux /boot/k-6.8 b; }",
        ),
        (
            "submenu-arguments",
            "timeout=0\nsubmenu S x { menuentry A { linux /boot/k-6.7 $1 $#; }; }",
        ),
        (
            "submenu-loads",
            "timeout=0\nsubmenu S { linux /boot/k-6.8 s\n menuentry A { linux /boot/k-6.7 a; }; }",
        ),
        (
            "functions",
            "timeout=0\nfunction f { linux /boot/k-6.7 f $1; }\nsubmenu S { menuentry A { f x; }; }",
        ),
        (
            "load-env",
            "load_env\ndefault=$saved_entry\ntimeout=0\nmenuentry a --id first { linux /boot/k-6.7 a; }\nmenuentry b --id second { linux /boot/k-6.7 b; }",
        ),
        ("timeout-style", "timeout_style=hidden\ntimeout=0\nmenuentry A { linux /boot/k-6.7 a; }"),
        (
            "timeout-countdown",
            "timeout_style=countdown\ntimeout=1\nmenuentry A { linux /boot/k-6.7 a; }",
        ),
        (
            "configfile-entry",
            "timeout=0\nb=9; export b\nmenuentry A { configfile /boot/grub/menu.cfg; }",
        ),
        ("source-entry", "timeout=0\nb=9\nmenuentry A { source /boot/grub/menu.cfg; }"),
        ("linux16", "timeout=0\nmenuentry A { linux /boot/k-6.7 a; initrd /boot/i1; }"),
        (
            "chosen-export",
            "timeout=0\ndefault='S>A'\nsubmenu S { menuentry A { linux /boot/k-6.7 \"$chosen\"; }; }",
        ),
        (
            "same-titles",
            "timeout=0\ndefault=A\nmenuentry A --id x { linux /boot/k-6.7 1; }\nmenuentry A --id y { linux /boot/k-6.7 2; }",
        ),
        (
            "id-before-title",
            "timeout=0\ndefault=A\nmenuentry A --id x { linux /boot/k-6.7 1; }\nmenuentry B --id A { linux /boot/k-6.7 2; }",
        ),
        (
            "savedefault",
            "timeout=0\nfunction savedefault { saved_entry=\"${chosen}\"; save_env saved_entry; }\nmenuentry A { savedefault; linux /boot/k-6.7 \"$saved_entry\"; }",
        ),
    ] {
        cases.push(case(format!("menu-{name}"), script));
    }
    for (number, line) in [
        "a b",
        "'a b' c",
        "a\\'b",
        "'a\"b'",
        "'a\\b'",
        "x='p q' y",
        "\"\" z",
        "a  b",
        "$none a",
        "'  '",
        "a\\\\x41b",
        "é",
        "root=UUID=$root (hd0)",
        "/boot/k-6.*",
        "'/boot/*'",
        "a=\"b c\" d='e'",
        "--x -y",
        "a\tb",
        "'tab\there'",
    ]
    .iter()
    .enumerate()
    {
        cases
            .push(case(format!("linux-words-{number}"), format!("linux /boot/k-6.7 {line}\nboot")));
    }
    for (name, line) in [
        ("device", "linux (hd0,gpt3)/k a\nboot"),
        ("device-root", "linux ($root)/boot/k-6.7 a\nboot"),
        ("link", "linux /boot/link a\nboot"),
        ("dotted", "linux /boot/../boot/./k-6.7 a\nboot"),
        ("slashes", "linux //boot//k-6.7 a\nboot"),
        ("relative", "linux boot/k-6.7 a\necho \"@ $?\"\nboot"),
        ("partition-number", "linux (hd0,3)/k a\nboot"),
        ("partition-two", "linux (hd0,gpt3,x)/k a\necho \"@ $?\"\nboot"),
        ("root-number", "root=hd0,2\nlinux /boot/k-6.7 a\nboot"),
        ("root-wrong", "root=hd5,gpt1\nlinux /boot/k-6.7 a\necho \"@ $?\"\nboot"),
        ("empty", "linux /boot/empty\necho \"@ $?\"\nboot"),
        ("directory", "linux /boot/dir\necho \"@ $?\"\nboot"),
        ("no-arguments", "linux\necho \"@ $?\"\nboot"),
        ("bare", "linux /boot/k-6.7\nboot"),
        ("then-missing", "linux /boot/k-6.7 a\nlinux /boot/none\necho \"@ $?\"\nboot"),
        ("initrd", "linux /boot/k-6.7 a\ninitrd /boot/i1\nboot"),
        ("initrd-two", "linux /boot/k-6.7 a\ninitrd /boot/i1 /boot/i2\nboot"),
        ("initrd-again", "linux /boot/k-6.7 a\ninitrd /boot/i1\ninitrd /boot/i2\nboot"),
        ("initrd-missing", "linux /boot/k-6.7 a\ninitrd /boot/i1 /boot/none\necho \"@ $?\"\nboot"),
        ("initrd-first", "initrd /boot/i1\necho \"@ $?\"\nlinux /boot/k-6.7 a\nboot"),
        ("initrd-empty", "linux /boot/k-6.7 a\ninitrd /boot/empty\nboot"),
        ("initrd-glob", "linux /boot/k-6.7 a\ninitrd /boot/i*\nboot"),
        ("initrd-none", "linux /boot/k-6.7 a\ninitrd\necho \"@ $?\"\nboot"),
        ("newc", "linux /boot/k-6.7 a\ninitrd /boot/i1 newc:etc/x:/boot/i2\nboot"),
        ("newc-first", "linux /boot/k-6.7 a\ninitrd newc:etc/x:/boot/i2 /boot/i1\nboot"),
        (
            "newc-two",
            "linux /boot/k-6.7 a\ninitrd newc:etc/x:/boot/i2 newc:/etc/deep/y:/boot/i1 /boot/i2\nboot",
        ),
        ("newc-slashes", "linux /boot/k-6.7 a\ninitrd newc://a//b/c:/boot/i2\nboot"),
        (
            "newc-plain",
            "linux /boot/k-6.7 a\ninitrd newc:x:/boot/i1 newc:y:/boot/empty newc:x:/boot/i2\nboot",
        ),
        (
            "newc-between",
            "linux /boot/k-6.7 a\ninitrd newc:d/x:/boot/i1 /boot/i2 newc:d/y:/boot/i1\nboot",
        ),
        ("newc-device", "linux /boot/k-6.7 a\ninitrd newc:x:(hd0,gpt3)/data-file\nboot"),
        ("newc-no-colon", "linux /boot/k-6.7 a\ninitrd newc:/boot/i1\necho \"@ $?\"\nboot"),
        ("newc-missing", "linux /boot/k-6.7 a\ninitrd newc:x:/none\necho \"@ $?\"\nboot"),
        ("no-boot", "linux /boot/k-6.7 a"),
        ("boot-nothing", "boot\necho \"@ $?\""),
        ("variable-file", "k=/boot/k-6.7; o='a b'; linux $k $o \"$o\"\nboot"),
    ] {
        cases.push(case(format!("load-{name}"), line));
    }
    cases
}
