//! Differential test of instruction semantics: generated instructions with generated states run
//! on the host CPU and in the interpreter, and everything architectural is compared.
//!
//! `CLOISTER_DIFF_CASES` and `CLOISTER_DIFF_SEED` choose the size and the seed of a run, and
//! `CLOISTER_DIFF_ONLY` restricts it to mnemonics that begin with a text. `cargo xtask diff` makes
//! a run of a million cases and more.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(clippy::print_stderr, reason = "the report of a differential run")]

mod case;
mod compare;
mod encodings;
mod generate;
mod host;
mod native;
mod prepare;
mod soft;

use std::collections::BTreeMap;

use case::{Case, State};
use generate::Random;
use host::Host;
use iced_x86::Instruction;
use native::{BATCH, Native};
use soft::Soft;

/// Differing cases shown for each mnemonic.
const SHOWN: usize = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn generated_instructions_behave_as_on_the_host() {
    let cases = setting("CLOISTER_DIFF_CASES", 40_000);
    let seed = setting("CLOISTER_DIFF_SEED", 1);
    let only = std::env::var("CLOISTER_DIFF_ONLY").unwrap_or_default();
    let mut codes = encodings::codes();
    codes.retain(|code| {
        format!("{:?}", code.mnemonic()).to_lowercase().starts_with(&only.to_lowercase())
    });
    let host = Host::detect();
    let known = codes.len();
    codes.retain(|&code| host.has(code));
    let lacking = known - codes.len();
    assert!(!codes.is_empty(), "no encoding matches CLOISTER_DIFF_ONLY");

    let mut random = Random::new(seed);
    let mut native = Native::start();
    let mut soft = Soft::new(&host);
    let mut run = 0u64;
    let mut differing: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
    let mut next = codes.iter().cycle();
    let mut batch: Vec<(Case, Instruction)> = Vec::with_capacity(BATCH);
    let mut natives: Vec<Case> = Vec::with_capacity(BATCH);
    while run < cases {
        batch.clear();
        while batch.len() < BATCH.min((cases - run) as usize) {
            let Some(&code) = next.next() else { break };
            let case = generate::case(code, &host, &mut random);
            batch.extend(case.filter(|(_, instruction)| host.has(instruction.code())));
        }
        natives.clear();
        natives.extend(batch.iter().map(|(case, _)| *case));
        if let Err(culprit) = native.run(&mut natives) {
            panic!("the host never came back from {}", batch[culprit].1);
        }
        for ((before, instruction), theirs) in batch.iter().zip(&natives) {
            let mut ours = *before;
            soft.run(&mut ours);
            let differences = compare::differences(&host, instruction, before, theirs, &ours);
            if differences.is_empty() {
                continue;
            }
            let key = format!("{:?}", instruction.code());
            let entry = differing.entry(key).or_default();
            entry.0 += 1;
            if entry.1.len() < SHOWN {
                entry.1.push(describe(instruction, before, &differences));
            }
        }
        run += batch.len() as u64;
    }
    let total: u64 = differing.values().map(|(count, _)| count).sum();
    eprintln!(
        "{run} cases over {} encodings ({lacking} more that the host lacks), seed {seed}: {total} differ",
        codes.len()
    );
    for (code, (count, examples)) in &differing {
        eprintln!("{code}: {count}");
        for example in examples {
            eprintln!("{example}");
        }
    }
    assert_eq!(total, 0, "{total} of {run} cases differ");
}

fn describe(instruction: &Instruction, before: &Case, differences: &[String]) -> String {
    let state = &before.state;
    format!(
        "    {instruction}   [{:02x?}]\n      gpr {:x?} rflags {:x} mxcsr {:x} fcw {:x} fsw {:x} tags {:x} st {:02x?} vectors {:02x?}\n      {}",
        before.bytes(),
        state.gpr,
        state.rflags,
        state.fx.mxcsr,
        state.fx.control,
        state.fx.status,
        state.fx.tags,
        [&state.fx.st[0][..10], &state.fx.st[1][..10]],
        vectors(instruction, state),
        differences.join("\n      ")
    )
}

/// The XMM or YMM registers that an instruction names, the last byte first.
fn vectors(instruction: &Instruction, state: &State) -> Vec<String> {
    let operands = (0..instruction.op_count()).map(|n| instruction.op_register(n));
    operands
        .chain([instruction.memory_index()])
        .filter(|register| register.is_xmm() || register.is_ymm())
        .map(|register| {
            let n = register.number();
            let bytes = [state.fx.xmm[n], state.high[n]].concat();
            bytes
                .iter()
                .rev()
                .fold(format!("{register:?}="), |text, byte| format!("{text}{byte:02x}"))
        })
        .collect()
}
