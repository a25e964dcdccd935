//! Words, control flow, functions and scopes.

use super::super::table::Case;
use super::{case, packed};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = words();
    cases.extend(flow());
    cases.extend(scopes());
    cases.extend(syntax());
    cases
}

fn words() -> Vec<Case> {
    let show = "function show { echo \"@ $#:$1:$2:$3:$4:$5\"; }\n";
    let fresh = "e=; s='x  y'; n=7; b='a\\b'; g='/boot/k-6.*'; h='*'; q='q\"q'\n";
    let arguments = [
        "a b c",
        "'a b' c",
        "\"a b\" c",
        "a\\ b c",
        "a'b'\"c\"d",
        "''",
        "\"\"",
        "'' a",
        "$e",
        "\"$e\"",
        "$e a",
        "\"$e\" a",
        "$e$e a",
        "x$e",
        "$s",
        "\"$s\"",
        "a$s",
        "${s}b",
        "a${s}b",
        "$s$s",
        "\"a$s\"b",
        "'$s'",
        "\\$s",
        "\"\\$s\"",
        "$n",
        "${n}1",
        "$n1",
        "$n.$n",
        "\"$n$n\"",
        "$none",
        "${none}",
        "\"${none}x\"",
        "$b",
        "\"$b\"",
        "'a\\b'",
        "\"a\\b\"",
        "a\\b",
        "a\\\\b",
        "\"a\\\\b\"",
        "\"a\\\"b\"",
        "'a\"b'",
        "$q",
        "\"$q\"",
        "#x",
        "a#b",
        "a #b",
        "a=b",
        "a=$n",
        "$?",
        "\"$?\"",
        "in do done",
        "if then",
        "a;show b",
        "a ; show b",
        "$g",
        "\"$g\"",
        "/boot/k-6.*",
        "'/boot/k-6.*'",
        "\"/boot/k-6.*\"",
        "/boot/k-6.?",
        "/boot/k-6.\\*",
        "/boot/none*",
        "/*/k-6.7",
        "/boot/dir/*.conf",
        "(hd0,gpt3)/d*",
        "(*)/both",
        "(hd0,*)/both",
        "*",
        "$h",
        "boot/k*",
        "/boot/dir/*/file",
        "/boot/d*/o*",
        "/boot/\"k\"-6.*",
        "$s/boot/k-6.*",
        "/boot/k-6.7* x",
        "/boot/two*",
        "/boot/link*",
        "/boot/dangl*",
        "/boot/dirlink/*.conf",
        "/b*",
        "/boot/k-6.1*",
        "/boot/k-6.[78]",
        "/BOOT/k*",
        "(hd0,gpt1)/m*",
        "(hd0,gpt1)/M*",
        "/boot/k*/",
        "/boot/*/one.conf",
        "/boot/dir/*/",
        "(hd0,gpt2)/boot/i?",
        "a{",
        "a}",
        "a,b:c",
        "~ % ^ @ ! + -",
        "--",
        "a\\nb",
        "'a\nb'",
        "\"a\nb\"",
        "a\\\nb",
        "\"a\\\nb\"",
        "a \\\n b",
        "$@",
        "$*",
        "$#",
        "$1",
        "\"$@\"",
        "$10",
        "${10}",
        "$\"text\"",
        "a$\"text\"b",
        "$'x'",
        "\"\\n\"",
        "'it'\\''s'",
        "x\"\"y",
        "x''",
        "\"$s\"\"$s\"",
        "$n\\$n",
        "[ a ]",
        "\"a\" \"\" \"b\"",
        "${n",
        "$ a",
        "a$",
        "\"a$\"",
    ];
    let arguments = arguments.map(|words| format!("show {words}"));
    let mut cases = packed("words", &arguments, &format!("{show}{fresh}"), "");
    cases.push(case(
        "words-arguments",
        "function f { show $@; show \"$@\"; show $*; show \"$*\"; show $#; show x\"$@\"y; show $1$2; \
         show \"$1$2\"; shift; show $1 $#; shift 2; show $# $1; shift 9; show $# $?; shift x; show $# $?; }\n\
         function show { echo \"@ $#:$1:$2:$3:$4:$5\"; }\nf 'a b' '' c 'd  e'\nf\nf a\nf a b c d e f",
    ));
    cases.push(case(
        "words-ten",
        "function f { echo \"@ $10 ${10} $1 ${11}x\"; }\nf a b c d e f g h i j k",
    ));
    for (name, words) in [
        ("plain", "1 2 3"),
        ("variable", "$s"),
        ("quoted", "\"$s\" '$s'"),
        ("glob", "/boot/k-*"),
        ("none", ""),
        ("empty", "$none"),
        ("empties", "'' \"\""),
        ("devices", "(hd0,gpt*)/both /boot/i*"),
    ] {
        let script =
            format!("s='x  y z'\nfor i in {words}; do echo \"@ [$i] $?\"; done\necho \"@ $? $i\"");
        cases.push(case(format!("for-{name}"), script));
    }
    cases
}

fn flow() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in [
        "break",
        "continue",
        "break 1",
        "continue 1",
        "break 2",
        "continue 2",
        "break 3",
        "continue 9",
    ] {
        let name = command.replace(' ', "-");
        let script = format!(
            "for a in 1 2 3; do\n for b in x y z; do\n  if [ $a$b = 2y ]; then {command}; echo \"@ after $?\"; fi\n  \
             echo \"@ $a$b\"\n done\n echo \"@ end $a\"\ndone\necho \"@ out $? $a$b\""
        );
        cases.push(case(format!("loops-{name}"), script));
        let script = format!(
            "n=\nwhile [ \"$n\" != xxxx ]; do\n n=x$n\n for b in p q; do\n  if [ $n = xx ]; then {command}; fi\n  echo \"@ $n$b\"\n \
             done\n echo \"@ w$n\"\ndone\necho \"@ out $? $n\""
        );
        cases.push(case(format!("while-{name}"), script));
        let script = format!(
            "function f {{\n if [ $1 = b ]; then {command}; echo \"@ still $?\"; fi\n echo \"@ f $1\"\n}}\n\
             for i in a b c; do f $i; echo \"@ $i $?\"; done\necho \"@ out $?\""
        );
        cases.push(case(format!("function-{name}"), script));
    }
    for (name, script) in [
        ("until", "n=\nuntil [ \"$n\" = xxx ]; do n=x$n; echo \"@ $n\"; done\necho \"@ $?\""),
        ("while-status", "n=\nwhile [ \"$n\" != x ]; do n=x$n; false; done\necho \"@ $?\""),
        (
            "while-never",
            "while false; do true; done\necho \"@ $?\"\nuntil true; do true; done\necho \"@ $?\"",
        ),
        (
            "until-error",
            "n=\nuntil linux /none; do n=x$n; if [ $n = xxx ]; then break; fi; done\necho \"@ $? $n\"",
        ),
        (
            "while-list",
            "n=\nwhile n=x$n; echo \"@ c $n\"; [ $n != xxx ]; do echo \"@ $n\"; done\necho \"@ $?\"",
        ),
        (
            "if-list",
            "if false; true; then echo \"@ t\"; else echo \"@ f\"; fi\nif true; false; then echo \"@ t\"; else echo \"@ f\"; fi",
        ),
        ("if-error", "if linux /none; then echo \"@ t\"; else echo \"@ f $?\"; fi\necho \"@ $?\""),
        (
            "if-unknown",
            "if none_such_command; then echo \"@ t\"; else echo \"@ f\"; fi\necho \"@ $?\"",
        ),
        (
            "if-not-unknown",
            "if ! none_such_command; then echo \"@ t\"; else echo \"@ f\"; fi\necho \"@ $?\"",
        ),
        (
            "if-none",
            "if false; then echo \"@ t\"; fi\necho \"@ $?\"\nif true; then false; fi\necho \"@ $?\"",
        ),
        (
            "if-else-status",
            "if false; then true; else false; fi\necho \"@ $?\"\nif true; then linux /none; else true; fi\necho \"@ $?\"",
        ),
        (
            "if-elif",
            "for i in 1 2 3 4; do if [ $i = 1 ]; then echo \"@ one\"; elif [ $i = 2 ]; then echo \"@ two\"; elif [ $i = 3 ]; then echo \"@ three\"; else echo \"@ more\"; fi; done",
        ),
        (
            "not",
            "for c in true false; do if ! $c; then echo \"@ $c t\"; else echo \"@ $c f\"; fi; done\nif ! search --no-floppy --set=bd --file /nothere; then set bd=$root; fi\necho \"@ $bd $?\"",
        ),
        (
            "not-status",
            "! linux /none\necho \"@ $?\"\n! true\necho \"@ $?\"\n! false\necho \"@ $?\"\n! [ a = b ]\necho \"@ $?\"",
        ),
        (
            "not-function",
            "function f { return $1; }\nfor i in 0 1 2 7; do if ! f $i; then echo \"@ $i t $?\"; else echo \"@ $i f $?\"; fi; done",
        ),
        (
            "not-variable",
            "x='!'; if $x false; then echo \"@ t\"; else echo \"@ f\"; fi\nx=; if $x; then echo \"@ t\"; else echo \"@ f\"; fi",
        ),
        (
            "return",
            "function f { return $1; echo \"@ never\"; }\nfor i in 0 1 2 3 16 255 300 x; do f $i; echo \"@ $i $?\"; done\nf\necho \"@ $?\"",
        ),
        (
            "return-last",
            "function f { false; return; }\nfunction g { true; return; }\nfunction h { linux /none; return; }\nf; echo \"@ $?\"; g; echo \"@ $?\"; h; echo \"@ $?\"",
        ),
        ("return-two", "function f { return 1 2; echo \"@ on\"; }\nf; echo \"@ $?\""),
        (
            "return-loop",
            "function f { for i in 1 2 3; do for j in a b; do if [ $i$j = 2a ]; then return 5; fi; echo \"@ $i$j\"; done; done; echo \"@ never\"; }\nf; echo \"@ $?\"\nfor k in 1 2; do f; echo \"@ $k $?\"; done",
        ),
        (
            "return-while",
            "function f { while true; do n=x$n; if [ $n = xxx ]; then return 0; fi; done; echo \"@ never\"; }\nf; echo \"@ $? $n\"",
        ),
        (
            "return-condition",
            "function f { if return 3; then echo \"@ t\"; else echo \"@ f\"; fi; echo \"@ on\"; }\nf; echo \"@ $?\"\nfunction g { while return 4; do echo \"@ x\"; done; echo \"@ on\"; }\ng; echo \"@ $?\"",
        ),
        ("return-not", "function f { ! return 1; echo \"@ on\"; }\nf; echo \"@ $?\""),
        (
            "function-status",
            "function have { if [ -f $1 ]; then return 0; fi; return 1; }\nif have /boot/none; then k=new; else k=old; fi\necho \"@ $k\"\nif have /boot/k-6.8; then k=new; else k=old; fi\necho \"@ $k $?\"",
        ),
        (
            "function-last",
            "function f { true; false; }\nf; echo \"@ $?\"\nfunction g { set a=1; }\ng; echo \"@ $? $a\"",
        ),
        ("function-redefined", "function f { echo \"@ 1\"; }\nf\nfunction f { echo \"@ 2\"; }\nf"),
        (
            "function-nested-calls",
            "function a { echo \"@ a $1 $#\"; b x y; echo \"@ a $1 $#\"; return 2; }\nfunction b { echo \"@ b $1 $#\"; shift; echo \"@ b $1\"; }\na 1 2 3; echo \"@ $? $1 $#\"",
        ),
        (
            "function-recursion",
            "function f { if [ \"$1\" = xxxx ]; then return 9; fi; echo \"@ $1\"; f x$1; }\nf; echo \"@ $?\"",
        ),
        (
            "function-setparams",
            "function f { setparams p q 'r s'; echo \"@ $# $1 $3\"; shift; echo \"@ $# $1\"; }\nf a; echo \"@ $#\"\nsetparams z; echo \"@ $# $1 $?\"",
        ),
        (
            "function-command-name",
            "function echo { set a=1; }\necho \"@ echo\"\nfunction true { return 1; }\ntrue; echo \"@ $?\"",
        ),
        ("function-later", "f; echo \"@ $?\"\nfunction f { echo \"@ f\"; }\nf"),
        ("function-one-line", "function f { echo \"@ f\"; }; f; function g { echo \"@ g\"; }; g"),
        (
            "question",
            "echo \"@ $?\"\nfalse; echo \"@ $?\"; echo \"@ $?\"\nlinux /none\nx=$?; echo \"@ $x\"\nset ?=5; echo \"@ $?\"",
        ),
        (
            "question-in-list",
            "false; if [ $? = 1 ]; then echo \"@ one\"; fi; true; if [ $? = 0 ]; then echo \"@ zero\"; fi",
        ),
        (
            "first-kernel",
            "for v in 6.9 6.8 6.7; do\n if [ -f /boot/k-$v ]; then\n  set kv=$v\n  break\n fi\ndone\nlinux /boot/k-$kv q\nboot",
        ),
    ] {
        cases.push(case(format!("flow-{name}"), script));
    }
    cases
}

fn scopes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, script) in [
        ("source", "a=1; b=2; source /boot/grub/other.cfg; echo \"@ $a $b $c $?\""),
        ("dot", "a=1; b=2; . /boot/grub/other.cfg x; echo \"@ $a $b $c $?\""),
        ("prefix", "a=1; source $prefix/other.cfg; echo \"@ $a $c\""),
        (
            "configfile",
            "a=1; b=2; export b; configfile /boot/grub/other.cfg; echo \"@ $a $b $c $?\"",
        ),
        (
            "configfile-exported",
            "a=1; export a; b=2; export b; export c; configfile /boot/grub/other.cfg; echo \"@ $a $b $c\"",
        ),
        ("configfile-menu", "a=1; b=2; export b; configfile /boot/grub/menu.cfg; echo \"@ never\""),
        (
            "configfile-default",
            "export default; default=1; a=1; export a; configfile /boot/grub/menu.cfg",
        ),
        ("configfile-default-not-exported", "default=1; a=1; configfile /boot/grub/menu.cfg"),
        ("source-menu", "a=1; b=2; source /boot/grub/menu.cfg; echo \"@ on $timeout\""),
        (
            "source-in-function",
            "function f { source /boot/grub/other.cfg; echo \"@ $# $1 $a\"; }\nf x y",
        ),
        (
            "source-in-loop",
            "for i in 1 2 3; do source /boot/grub/other.cfg; if [ $i = 2 ]; then break; fi; done; echo \"@ $i\"",
        ),
        ("broken", "a=0; source /boot/grub/broken.cfg; echo \"@ $a $?\""),
        ("normal", "a=1; b=2; export a; normal /boot/grub/menu.cfg"),
        (
            "root",
            "set root=(hd0,gpt3)\necho \"@ $root\"\nif [ -f /k ]; then echo \"@ k\"; fi\nunset root\necho \"@ [$root]\"",
        ),
        (
            "root-again",
            "configfile (hd0,gpt2)/boot/grub/other.cfg\nset root=hd0,gpt3\nlinux /k x\nboot",
        ),
        (
            "features",
            "echo \"@ $feature_menuentry_id $feature_timeout_style $feature_200_final $grub_platform $grub_cpu\"\necho \"@ $root $prefix\"",
        ),
        (
            "config-file",
            "echo \"@ $config_file $config_directory\"; source /boot/grub/other.cfg; echo \"@ $config_file\"",
        ),
        (
            "functions-stay",
            "function f { echo \"@ f $a\"; }\na=1\nconfigfile /boot/grub/other.cfg\nf",
        ),
        ("export-value", "export x; x=3; configfile /boot/grub/other.cfg; echo \"@ $x\""),
    ] {
        cases.push(case(format!("scope-{name}"), script));
    }
    cases
}

fn syntax() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, line) in [
        ("fi", "fi"),
        ("then", "if true then echo \"@ x\"; fi"),
        ("empty-then", "if true; then fi"),
        ("empty-if", "if ; then echo \"@ x\"; fi"),
        ("or", "false || echo \"@ x\""),
        ("and", "true && echo \"@ x\""),
        ("pipe", "echo \"@ x\" | true"),
        ("amp", "echo \"@ x\" &"),
        ("less", "if [ a < b ]; then echo \"@ x\"; fi"),
        ("semi", "true;; echo \"@ x\""),
        ("semi-first", "; echo \"@ x\""),
        ("close", "}"),
        ("open", "{ echo \"@ x\"; }"),
        ("block", "echo @ { true; }"),
        ("block-words", "echo \"@ a\" {  b  'c' ; }"),
        ("function-space", "function f { echo \"@ f\" }\nf"),
        ("function-empty", "function f { }\nf"),
        ("function-name", "function f-g { echo \"@ f\"; }\nf-g"),
        ("function-newline", "function f\n{\n echo \"@ f\"\n}\nf"),
        ("function-inside", "if true; then function f { echo \"@ f\"; }; fi\nf"),
        ("for-name", "for 1 in a; do echo \"@ x\"; done"),
        ("for-in", "for x a; do echo \"@ x\"; done"),
        ("for-newline", "for x in a b\ndo\n echo \"@ $x\"\ndone"),
        ("for-empty", "for x in a; do done"),
        ("brackets", "if [[ a = a ]]; then echo \"@ x\"; fi"),
        ("case", "case a in a) echo \"@ x\"; esac"),
        ("dollar", "echo \"@ $\""),
        ("same-line", "echo \"@ x\"; fi; echo \"@ y\""),
        ("in-if", "if true; then\n echo \"@ x\"\n done\n echo \"@ y\"\nfi\necho \"@ z\""),
        ("comment", "# echo \"@ x\"\necho \"@ y\" # echo \"@ z\"\n  # a } b\necho \"@ #no\" '#'"),
        ("comment-in-if", "if true; then # why\n # because\n echo \"@ y\" #\nfi # end"),
        ("comment-in-quotes", "echo '@ a\n# not\n@ b'"),
        ("comment-continued", "echo '@ a' \\\n# not\n'b'"),
        ("menuentry-empty", "menuentry x { }\necho \"@ x $?\""),
        ("menuentry-no-space", "menuentry 'x'{ echo \"@ x\"; }\ntimeout=0"),
        ("carriage", "echo \"@ x\"\r\necho \"@ y\"\r"),
        ("tabs", "\tif\ttrue\t;\tthen\techo\t\"@ x\"\t;\tfi"),
        ("quote-open", "echo '@ x\necho \"@ y\""),
        ("while-list", "while\nfalse\ndo\ntrue\ndone\necho \"@ x\""),
        ("if-newlines", "if\n\ntrue\n\nthen\n\necho \"@ x\"\n\nelse\n\ntrue\n\nfi"),
        ("elif-no-else", "if false; then true; elif false; then true; fi; echo \"@ $?\""),
        ("else-elif", "if false; then true; else echo \"@ a\"; elif true; then echo \"@ b\"; fi"),
        (
            "keyword-argument",
            "echo @ if then fi for in do done while until function elif else case esac select",
        ),
        ("keyword-quoted", "'if' true\necho \"@ $?\"\n\\if true"),
        ("time", "time true\necho \"@ $?\""),
        ("semi-lines", "true;\n\n\nfalse;\n; echo \"@ $?\""),
        ("name-first", "in\necho \"@ $?\""),
        ("unfinished-if", "echo \"@ a\"\nif true; then\necho \"@ b\""),
        ("unfinished-block", "menuentry a {\necho \"@ b\""),
        (
            "unfinished-last",
            "timeout=0\nmenuentry a { linux /boot/k-6.7 a; }\nmenuentry b {\n linux /boot/k-6.8 b",
        ),
    ] {
        cases.push(case(
            format!("syntax-{name}"),
            format!("echo \"@ first\"\n{line}\necho \"@ last $?\""),
        ));
    }
    cases
}
