//! `test` and `[`.

use super::super::table::Case;
use super::{case, packed};

const STRINGS: [&str; 6] = ["a", "b", "''", "A", "ab", "-n"];
const STRING_OPERATORS: [&str; 7] = ["=", "==", "!=", "'<'", "'>'", "'<='", "'>='"];
const NUMBERS: [&str; 7] = ["1", "2", "10", "-3", "0x10", "x", "010"];
const NUMBER_OPERATORS: [&str; 6] = ["-eq", "-ne", "-lt", "-le", "-gt", "-ge"];
const VERSIONS: [&str; 7] = ["v9", "v10", "vmlinuz-2", "vmlinuz-11", "5.9", "5.10", ""];
const FILES: [&str; 14] = [
    "/boot/k-6.8",
    "/boot/empty",
    "/boot",
    "/boot/",
    "/",
    "/boot/none",
    "/boot/link",
    "/boot/dirlink",
    "/boot/dangling",
    "(hd0,gpt1)/mixed.CASE",
    "(hd0,gpt1)",
    "(hd0,gpt9)",
    "(hd0,gpt3)/k",
    "boot",
];
const FILE_OPERATORS: [&str; 4] = ["-e", "-f", "-d", "-s"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let pairs = |words: &[&str], operators: &[&str]| {
        let mut tests = Vec::new();
        for left in words {
            for operator in operators {
                tests.extend(words.iter().map(|right| format!("[ {left} {operator} {right} ]")));
            }
        }
        tests
    };
    // One line of results for each operator keeps the scripts short.
    cases.extend(dense("strings", &pairs(&STRINGS, &STRING_OPERATORS)));
    cases.extend(dense("numbers", &pairs(&NUMBERS, &NUMBER_OPERATORS)));
    cases.extend(dense(
        "versions",
        &pairs(&VERSIONS.map(quote).each_ref().map(|v| &**v), &["-pgt", "-plt"]),
    ));
    let mut files = Vec::new();
    for file in FILES {
        files.extend(FILE_OPERATORS.map(|operator| format!("[ {operator} {file} ]")));
    }
    cases.extend(dense("files", &files));
    let mut ages = Vec::new();
    for operator in ["-nt", "-ot", "-nt100", "-ot200", "-nt-100", "-ot-101"] {
        for (left, right) in [
            ("/boot/older", "/boot/newer"),
            ("/boot/newer", "/boot/older"),
            ("/boot/newer", "/boot/newer"),
            ("/boot/none", "/boot/newer"),
            ("/boot/newer", "/boot/none"),
            ("/boot/none", "/boot/none"),
        ] {
            ages.push(format!("[ {left} {operator} {right} ]"));
        }
    }
    cases.extend(dense("ages", &ages));
    let compound = [
        "[ a = a -a b = b ]",
        "[ a = a -a b = c ]",
        "[ a = b -o b = b ]",
        "[ a = b -o b = c ]",
        "[ a = b -a b = b -o c = c ]",
        "[ c = c -o a = b -a b = b ]",
        "[ ! a = b ]",
        "[ ! a ]",
        "[ ! ! a ]",
        "[ ! '' ]",
        "[ ! -f /boot/none ]",
        "[ ! -d /boot -o -f /boot/k-6.7 ]",
        "[ ( a = b ) -o ( c = c ) ]",
        "[ ! ( a = a ) ]",
        "[ ( a = a -a ( b = c -o d = d ) ) ]",
        "[ a b ]",
        "[ a '' ]",
        "[ '' a ]",
        "[ ]",
        "[ -z ]",
        "[ -n ]",
        "[ -z '' ]",
        "[ -n '' ]",
        "[ -z a ]",
        "[ -n a ]",
        "[ -f ]",
        "[ = ]",
        "[ = = = ]",
        "[ ! = ! ]",
        "[ a = ]",
        "[ = a ]",
        "[ a",
        "[ a = b",
        "[ ) ]",
        "[ ( ]",
        "[ ( a ]",
        "[ a ) b ]",
        "[ '' ) a ]",
        "[ -a ]",
        "[ -o ]",
        "[ a -a ]",
        "[ a -o ]",
        "[ '' -o ]",
        "[ -a a ]",
        "[ a = a b = c ]",
        "[ a = b b = b ]",
        "[ 1 -eq 1 2 -eq 2 ]",
        "[ ] ]",
        "[ a ] ]",
        "test a",
        "test ''",
        "test",
        "test a = a",
        "test a = b",
        "test a ]",
        "[ -x /boot/k-6.8 ]",
        "[ -e /boot/k-6.8 -a -s /boot/empty ]",
        "[ a -lt b ]",
        "[ 1 -eq 1x ]",
        "[ 1x -eq 1 ]",
        "[ '' -eq 0 ]",
        "[ 99999999999999999999 -gt 1 ]",
        "[ x = x -a ! -z x ]",
        "[ '!' = '!' ]",
        "[ -n = -n ]",
        "[ -f = -f ]",
    ];
    cases.extend(dense("compound", &compound.map(str::to_owned)));
    let numbers = ["[ x -eq 0 ]", "[ 1 -eq 99999999999999999999 ]", "[ '' -lt 1 ]"];
    cases.extend(packed("test-status", &numbers.map(str::to_owned), "", "echo \"@ $?\""));
    cases.push(case(
        "test-in-if",
        "if [ a = a ]; then echo \"@ yes\"; fi\nif test a = b; then echo \"@ no\"; \
         elif ! [ -f /boot/none ]; then echo \"@ elif\"; else echo \"@ else\"; fi",
    ));
    cases
}

fn quote(word: &str) -> String {
    if word.is_empty() { "''".into() } else { word.into() }
}

/// Many conditions a script, whose outcomes are a line for eight.
fn dense(name: &str, tests: &[String]) -> Vec<Case> {
    let script = |(number, tests): (usize, &[String])| {
        let mut script = String::new();
        for tests in tests.chunks(8) {
            script.push_str("r=\n");
            for test in tests {
                script
                    .push_str(&format!("if {test}; then r=\"${{r}}1\"; else r=\"${{r}}0\"; fi\n"));
            }
            script.push_str("echo \"@ $r\"\n");
        }
        case(format!("test-{name}-{}", number + 1), script)
    };
    tests.chunks(96).enumerate().map(script).collect()
}
