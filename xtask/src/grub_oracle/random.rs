//! Random programs of the language: what families of one subject do not put together.

use std::fmt::Write;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::table::Case;

/// How many there are.
const PROGRAMS: u64 = 80;
/// Commands within commands.
const MAX_DEPTH: u32 = 3;

const VALUES: [&str; 10] =
    ["1", "2", "x", "'p q'", "\"<$b>\"", "$b", "\"$?\"", "''", "/boot/i1", "\"$a x\""];
const CONDITIONS: [&str; 16] = [
    "true",
    "false",
    "[ \"$a\" = \"$b\" ]",
    "[ -n \"$a\" ]",
    "[ -z \"$b\" ]",
    "! [ \"$a\" = x ]",
    "test \"$a\" != 1",
    "[ $? = 0 ]",
    "[ -f \"$a\" ]",
    "! false",
    "f \"$a\"",
    "! f $b",
    "g",
    "[ \"$a\" = 1 -o \"$b\" = 2 ]",
    "regexp --set=1:b '(.)$' \"$a\"",
    "[ \"$1\" = x ]",
];

/// The programs, the same ones always.
pub(super) fn cases() -> Vec<Case> {
    let program = |number: u64| {
        let mut program =
            Program { random: ChaCha8Rng::seed_from_u64(number), script: String::new(), lines: 0 };
        program.write();
        Case { name: format!("random-{number}"), script: program.script, outcome: Vec::new() }
    };
    (0..PROGRAMS).map(program).collect()
}

struct Program {
    random: ChaCha8Rng,
    script: String,
    /// What has been written so far bounds what is still to come.
    lines: u32,
}

impl Program {
    fn below(&mut self, limit: u32) -> u32 {
        self.random.next_u32() % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u32) as usize]
    }

    fn line(&mut self, depth: u32, text: &str) {
        self.lines += 1;
        let indent = " ".repeat(depth as usize);
        // Writing to a string does not fail.
        let _ = writeln!(self.script, "{indent}{text}");
    }

    fn write(&mut self) {
        for name in ["f", "g"] {
            self.line(0, &format!("function {name} {{"));
            self.line(1, &format!("echo \"@ {name} $# $1\""));
            self.block(1, false, true);
            if self.below(2) == 0 {
                let value = self.below(4);
                self.line(1, &format!("return {value}"));
            }
            self.line(0, "}");
        }
        self.lines = 0;
        while self.lines < 28 {
            self.statement(0, false, false);
        }
        self.line(0, "echo \"@ end $? $a|$b|$i|$j\"");
    }

    fn block(&mut self, depth: u32, in_loop: bool, in_function: bool) {
        for _ in 0..=self.below(3) {
            self.statement(depth, in_loop, in_function);
        }
    }

    fn statement(&mut self, depth: u32, in_loop: bool, in_function: bool) {
        let kind = self.below(if depth >= MAX_DEPTH { 6 } else { 11 });
        match kind {
            0 => self.line(depth, "echo \"@ $? $a|$b\""),
            1 | 2 => {
                let (name, value) = (self.pick(&["a", "b", "set a", "set b"]), self.pick(&VALUES));
                self.line(depth, &format!("{name}={value}"));
            }
            3 if in_loop => {
                let command = self.pick(&["break", "continue", "break 2", "continue 2"]);
                let condition = self.condition(in_function);
                self.line(depth, &format!("if {condition}; then {command}; fi"));
            }
            4 if in_function => {
                let (condition, value) = (self.condition(true), self.pick(&["", " 0", " 1", " 2"]));
                self.line(depth, &format!("if {condition}; then return{value}; fi"));
            }
            3..=5 => {
                let command = self.condition(in_function);
                self.line(depth, command);
                self.line(depth, "echo \"@ $?\"");
            }
            6 | 7 => self.conditional(depth, in_loop, in_function),
            8 => {
                let variable = self.pick(&["i", "j"]);
                let words = self.pick(&["1 2 3", "x $a", "$@", "'' $b \"$a\"", "/boot/i*"]);
                self.line(depth, &format!("for {variable} in {words}; do"));
                self.line(depth + 1, &format!("echo \"@ {variable}=${variable} $?\""));
                self.block(depth + 1, true, in_function);
                self.line(depth, "done");
            }
            _ => {
                // Each loop counts with a variable of its own, so that it ends.
                let counter = format!("n{}", self.random.next_u32() % 1000);
                self.line(depth, &format!("{counter}="));
                let until = self.below(2) == 0;
                let (word, operator) = if until { ("until", "=") } else { ("while", "!=") };
                self.line(depth, &format!("{word} [ \"${counter}\" {operator} xxx ]; do"));
                self.line(depth + 1, &format!("{counter}=x${counter}"));
                self.block(depth + 1, true, in_function);
                self.line(depth, "done");
            }
        }
    }

    fn conditional(&mut self, depth: u32, in_loop: bool, in_function: bool) {
        let condition = self.condition(in_function);
        self.line(depth, &format!("if {condition}; then"));
        self.block(depth + 1, in_loop, in_function);
        if self.below(3) == 0 {
            let condition = self.condition(in_function);
            self.line(depth, &format!("elif {condition}; then"));
            self.block(depth + 1, in_loop, in_function);
        }
        if self.below(2) == 0 {
            self.line(depth, "else");
            self.block(depth + 1, in_loop, in_function);
        }
        self.line(depth, "fi");
    }

    /// A function does not call functions, so that every program ends.
    fn condition(&mut self, in_function: bool) -> &'static str {
        loop {
            let condition = self.pick(&CONDITIONS);
            let calls = condition.contains("f \"") || condition.contains("f $") || condition == "g";
            if !(in_function && calls) {
                return condition;
            }
        }
    }
}
