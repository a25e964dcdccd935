//! Commands that give values.

use super::super::table::Case;
use super::{case, packed};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let boot = "11111111-2222-3333-4444-555555555555";
    let data = "22222222-2222-3333-4444-555555555555";
    let state = "echo \"@ $? r=$r root=$root\"";
    let fresh = "unset r; root=hd0,gpt2\n";

    let mut searches = Vec::new();
    for (long, short, key) in [
        ("--file", "-f", "/data-file"),
        ("--label", "-l", "data"),
        ("--fs-uuid", "-u", data),
        ("--fs-uuid", "-u", "1234-abcd"),
        ("--file", "-f", "/both"),
        ("--label", "-l", "none"),
    ] {
        searches.extend([
            format!("search --no-floppy {long} --set=r {key}"),
            format!("search --no-floppy {long} --set r {key}"),
            format!("search {long} {key} --set r"),
            format!("search {long} {key} --set"),
            format!("search --set {long} {key}"),
            format!("search --set {key} {long}"),
            format!("search -s r {short} {key}"),
            format!("search -n {short} {key} -s r"),
            format!("search -n{} {key} -s r", &short[1..]),
            format!("search {short}s r {key}"),
            format!("search {short} -s {key}"),
            format!("search {long} {key}"),
            format!("search --set=r {long} {key} --hint-bios hd0,gpt3"),
            format!("search --set=r {long} {key} --hint hd0,gpt1 --hint=hd0,gpt3"),
            format!("search --set=r {long} --hint-efi=hd0,gpt3 --hint-baremetal=ahci0,gpt2 {key}"),
            format!("search --set=r {long} {key} hd0,gpt1"),
            format!("search --set=r {long} --hint hd0, {key}"),
            format!("search --set=r {long} --hint-unknown=x {key}"),
        ]);
    }
    searches.extend(
        [
            "search",
            "search -f",
            "search --set=r",
            "search /both",
            "search --set=r /both",
            "search --label --fs-uuid --set=r data",
            "search --file --label --set=r data",
            "search --bogus --file --set=r /both",
            "search -q --file --set=r /both",
            "search -fx --set=r /both",
            "search --file --set=r -- /both",
            "search --file --set=r ''",
            "search --label --set=r DATA",
            "search --file --set=r data-file",
            "search --file --set=r /BOOT",
            "search --file --set=r /boot/dir",
            "search --file --set=r (hd0,gpt3)/k",
            "search --file --set=r /ESP-FILE",
            "search --file --hint (hd0,gpt3) --set=r /both",
            "search -h hd0,gpt3 -f -s r /both",
            "search.file /data-file r",
            "search.file /data-file",
            "search.fs_label data r",
            "search.fs_uuid 1234-ABCD r",
            "search.fs_uuid 1234-ABCD",
            "search.fs_uuid none r",
            "search.file /both r hd0,gpt3",
            "search.file /both r hd0,gpt1 hd0,gpt3",
            "search.file",
            "search_fs_uuid x r",
            "search.fs_label data r hd0,",
            "search.fs_label none root",
        ]
        .map(str::to_owned),
    );
    searches.push(format!("search.fs_uuid {boot} r"));
    cases.extend(packed("search", &searches, fresh, state));

    let mut probes = Vec::new();
    for option in
        ["-d", "-p", "-f", "-u", "-l", "--driver", "--partmap", "--fs", "--fs-uuid", "--label"]
    {
        for device in ["hd0,gpt2", "(hd0,gpt1)", "hd0", "hd0,gpt9"] {
            probes.push(format!("probe --set=r {option} {device}"));
        }
    }
    probes.extend(
        [
            "probe -s r -u $root",
            "probe --set r -u $root",
            "probe -u --set=r $root",
            "probe -u",
            "probe",
            "probe --set=r $root",
            "probe --set=r -u -l $root",
            "probe -us r $root",
            "probe --set r --part-uuid nowhere",
            "probe -s r -f hd0,2",
            "probe -s r -f hd1",
            "probe -s r -f ()",
            "probe --set=r --fs $root extra",
            "probe --set=r --bogus $root",
        ]
        .map(str::to_owned),
    );
    cases.extend(packed("probe", &probes, fresh, state));

    let fresh = "unset a; unset b; unset c\n";
    let state = "echo \"@ $? a=$a b=$b c=$c\"";
    let regexps = [
        "regexp 'a' 'cat'",
        "regexp 'x' 'cat'",
        "regexp '^cat$' 'cat'",
        "regexp '^at' 'cat'",
        "regexp --set=1:a 'vmlinuz-([0-9]+)' /boot/vmlinuz-17",
        "regexp --set 1:a --set 2:b '([a-z]+)-([0-9]+)' linux-17",
        "regexp --set=a '([0-9]+)' 'x12y34'",
        "regexp -s 2:b '(.)(.)' 'pq'",
        "regexp --set=0:a --set=1:b --set=2:c '(a*)(b*)' 'xxaabb'",
        "regexp --set=3:a '(a)(b)' ab",
        "regexp --set=a 'ab' ab",
        "regexp --set=x:a '(a)' a",
        "regexp --set=1:a --set=2:b '^\\(?(hd[0-9]+),?(.*)\\)?$' '(hd0,gpt2)'",
        "regexp --set=1:a '^\\((.*)\\)/' '(hd0,gpt2)/boot'",
        "regexp --set=1:a '(a|ab)(c|bcd)(d*)' abcd",
        "regexp --set=2:a '(a|ab)(c|bcd)(d*)' abcd",
        "regexp --set=0:a 'a{2,3}' aaaa",
        "regexp --set=0:a 'a{2}' aaaa",
        "regexp --set=0:a 'a{0,1}b' aab",
        "regexp --set=0:a '[[:digit:]]+' ab12cd",
        "regexp --set=0:a '[^a-c]+' abcdef",
        "regexp --set=0:a '[]x]+' 'a]x'",
        "regexp --set=0:a '[a\\]+' 'x\\a'",
        "regexp --set=0:a 'a.c' 'abc'",
        "regexp --set=0:a '(ab)+' xababab",
        "regexp --set=1:a '(ab)+' xababab",
        "regexp --set=1:a --set=2:b '(x)|(y)' y",
        "regexp --set=1:a '(a?)' b",
        "regexp --set=0:a 'a\\.b' 'axb a.b'",
        "regexp --set=0:a '\\$x' '$x'",
        "regexp '(' 'x'",
        "regexp '[' 'x'",
        "regexp 'a{' 'a{'",
        "regexp '*a' 'a'",
        "regexp --set=0:a '()' 'a'",
        "regexp a",
        "regexp",
        "regexp a b c",
        "regexp '' ''",
        "regexp '' x",
        "regexp x ''",
        "regexp --set=0:a 'A' 'aA'",
        "regexp --set=0:a '[a-z]+[0-9]?$' 'Zabc1'",
        "regexp --set=0:a '^(.*)-([^-]*)$' 'a-b-c'",
        "regexp --set=1:a '^(.*)-([^-]*)$' 'a-b-c'",
        "regexp --set=0:a '\\w+' '-ab_1-'",
        "regexp --set=0:a 'a+?' aaa",
        "regexp --set=0:a '(a|b)*c' 'xabac'",
        "regexp --set=1:a '(a|b)*c' 'xabac'",
        "regexp --set=1:a '(a*)+' 'aaa'",
        "regexp --set=1:a '(a*)*' 'b'",
    ];
    cases.extend(packed("regexp", &regexps.map(str::to_owned), fresh, state));

    let evals = [
        "eval \"set a=b\"",
        "eval set a=b",
        "eval",
        "eval ''",
        "eval 'set a=1; set b=2'",
        "eval 'false'",
        "eval 'true; false'",
        "eval 'false; true'",
        "set n=a; eval \"set $n=x\"",
        "set n=b; eval \"set c=\\$n\"",
        "eval 'if true; then set a=y; fi'",
        "eval 'if true; then'",
        "eval 'set a=1\nset b=2'",
        "eval \"set a='x  y'\"",
        "eval set a=x y",
        "eval 'nonsense_command'",
        "eval 'for i in 1 2 3; do b=$b$i; done'",
        "eval 'return 3'",
        "eval \"eval 'set a=deep'\"",
        "eval '# nothing'",
    ];
    cases.extend(packed("eval", &evals.map(str::to_owned), fresh, state));

    let cpuids = [
        "cpuid -l",
        "cpuid -p",
        "cpuid",
        "cpuid --long-mode",
        "cpuid --pae",
        "cpuid -x",
        "cpuid -lp",
    ];
    cases.extend(packed("cpuid", &cpuids.map(str::to_owned), fresh, state));

    let sets = [
        "set a=1",
        "set a",
        "set a=1 b=2",
        "set a=",
        "set a=x=y",
        "set a='x y'",
        "set a=x y",
        "a=1",
        "a=1 b=2",
        "a=",
        "a='x y'",
        "a=x=y",
        "set 1=x",
        "set '?=7'",
        "set -x",
        "set a = b",
        "set a=$b",
        "set a=1; unset a",
        "unset a b",
        "unset",
        "set a=1; set b=2; unset a b",
        "export a",
        "export",
        "export a b c",
        "set 'a b=c'",
        "set a.b=c",
        "1=2",
        "#=x",
        "true",
        "false",
        "true x",
        "! true",
        "! false",
        "! ! false",
        "!",
        "! none_such_command",
        "none_such_command",
        "none_such_command x",
        "=x",
        "echo",
        "echo -n",
        "echo -e 'x'",
        "set a=\"$none\"",
        "return",
        "return 1",
        "break",
        "continue",
        "break 0",
        "break x",
        "shift",
        "setparams a b",
        "boot",
        "linux",
        "linux /boot/none",
        "linux /boot/empty",
        "initrd /boot/i1",
        "initrd",
        "source /none",
        "configfile /none",
        "source",
        "load_env -f /none",
        "sleep 0",
        "read_nothing",
        "menuentry",
        "menuentry a",
        "submenu a",
        "menuentry { true; }",
        "normal_exit",
        "keystatus",
        "keystatus --shift",
        "test",
        "linux /boot/k-6.7",
        "linux /boot/dir",
    ];
    cases.extend(packed("status", &sets.map(str::to_owned), fresh, state));

    for (name, script) in [
        ("all", "load_env\necho \"@ $? $saved_entry|$kernelopts|$slashed|$empty|\""),
        ("file", "load_env --file /boot/env2 kernelopts\necho \"@ $? $saved_entry|$kernelopts|\""),
        (
            "short",
            "load_env -f /boot/env2 saved_entry slashed\necho \"@ $? $saved_entry|$slashed|\"",
        ),
        ("skip", "load_env --skip-sig --file=/boot/env2\necho \"@ $? $saved_entry|\""),
        ("device", "load_env -f (hd0,gpt2)/boot/env2\necho \"@ $? $saved_entry|\""),
        ("none", "load_env -f /boot/none\necho \"@ $? $saved_entry|\""),
        ("wrong", "load_env -f /boot/i1\necho \"@ $? $saved_entry|\""),
        ("unset", "saved_entry=x\nload_env -f /boot/env2 nothing\necho \"@ $? $saved_entry|\""),
        ("prefix", "set prefix=(hd0,gpt2)/boot\nload_env\necho \"@ $? $saved_entry|\""),
    ] {
        cases.push(case(format!("load-env-{name}"), script));
    }
    cases
}
