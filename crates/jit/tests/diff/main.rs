//! Differential test of instruction semantics: generated instructions and blocks of them, with
//! generated states, run on the host CPU, in the interpreter and translated, and everything
//! architectural is compared.
//!
//! `CLOISTER_DIFF_CASES` and `CLOISTER_DIFF_SEED` choose the size and the seed of a run,
//! `CLOISTER_DIFF_BITS` restricts it to 64-, 32- or 16-bit code, and `CLOISTER_DIFF_ONLY` to
//! mnemonics that begin with a text. `CLOISTER_DIFF_BLOCKS` chooses the number of blocks. `cargo
//! xtask diff` makes a run of a million cases and more.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(clippy::print_stderr, reason = "the report of a differential run")]

mod address;
mod blocks;
mod case;
mod compare;
mod encodings;
mod generate;
mod host;
mod native;
mod place;
mod prepare;
mod random;
mod report;
mod segments;
mod soft;
mod values;
mod variance;
mod variance_tests;

use std::ops::Range;

use case::{CODE, Case, Mode};
use compare::outcomes_differ;
use host::Host;
use iced_x86::{Code, Instruction, Mnemonic};
use native::{BATCH, Native};
use random::Random;
use report::Report;
use soft::{Soft, Way};
use variance::{Part, Trial, excuse};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// How many of `cases` a mode has: of 13, 6 are 64-bit, 4 are 32-bit and 3 are 16-bit code.
fn share(mode: Mode, cases: u64, only: u64) -> u64 {
    let (middle, narrow) = (cases * 4 / 13, cases * 3 / 13);
    match (only, mode) {
        (0, Mode::Bits64) => cases - middle - narrow,
        (0, Mode::Bits32) => middle,
        (0, Mode::Bits16) => narrow,
        _ if only == u64::from(mode.bits()) => cases,
        _ => 0,
    }
}

/// The encodings to run: those that the host lacks are counted.
fn codes(mode: Mode, host: &Host, report: &mut Report) -> Vec<Code> {
    let only = std::env::var("CLOISTER_DIFF_ONLY").unwrap_or_default().to_lowercase();
    let mut codes = encodings::codes(mode);
    codes.retain(|code| format!("{:?}", code.mnemonic()).to_lowercase().starts_with(&only));
    let known = codes.len();
    codes.retain(|&code| host.has(code));
    report.encodings(mode, codes.len(), known - codes.len());
    codes
}

#[test]
fn generated_instructions_behave_as_on_the_host() {
    let cases = setting("CLOISTER_DIFF_CASES", 65_000);
    let seed = setting("CLOISTER_DIFF_SEED", 1);
    let only = setting("CLOISTER_DIFF_BITS", 0);
    let host = Host::detect();
    let mut native = Native::start();
    let mut soft = Engines::new(&host, native.has_ldt());
    let mut report = Report::new(seed, Host::brand());

    for mode in Mode::ALL {
        let wanted = share(mode, cases, only);
        if !mode.is_64() && !native.has_ldt() {
            report.not_run(mode, wanted);
            continue;
        }
        let codes = codes(mode, &host, &mut report);
        let mut random = Random::new(seed ^ u64::from(mode.bits()) << 32);
        let mut next = codes.iter().cycle();
        let mut run = 0;
        while run < wanted && !codes.is_empty() {
            let mut batch = Vec::with_capacity(BATCH);
            while batch.len() < BATCH.min((wanted - run) as usize) {
                let Some(&code) = next.next() else { break };
                let case = generate::case(code, mode, &host, &mut random);
                batch.extend(case.filter(|(_, instruction)| host.has(instruction.code())));
            }
            run += compare_batch(&batch, &host, &mut native, &mut soft, &mut report);
        }
    }

    eprintln!("{report}");
    assert!(report.run() != 0, "no case ran");
    assert_eq!(report.differing(), 0, "cases differ and no row of docs/cpu.md excuses them");
    assert_eq!(report.differing_translated(), 0, "cases end otherwise when they are translated");
}

/// Runs cases on both sides: how many.
fn compare_batch(
    batch: &[(Case, Instruction)],
    host: &Host,
    native: &mut Native,
    soft: &mut Engines,
    report: &mut Report,
) -> u64 {
    let mut befores = Vec::with_capacity(batch.len());
    let mut natives = Vec::with_capacity(batch.len());
    let mut softs = Vec::with_capacity(batch.len());
    for (before, instruction) in batch {
        let mut ours = *before;
        soft.single.run(&mut ours);
        if !returns_into(before, &ours) {
            if let Some(difference) = soft.differ(before, instruction, host) {
                report.translated_differs(instruction, before, &difference);
            }
            befores.push((before, instruction));
            natives.push(*before);
            softs.push(ours);
        }
    }
    if let Err(culprit) = native.run(&mut natives) {
        let (before, instruction) = befores[culprit];
        panic!("the host never came back from {}", report::describe(instruction, before));
    }
    for (((before, instruction), native), soft) in befores.iter().zip(&natives).zip(&softs) {
        report.case(host.processor(), &Trial { instruction, before, native, soft });
    }
    befores.len() as u64
}

/// The software processor in each way of executing.
struct Engines {
    /// One instruction at a time.
    single: Soft,
    interpreted: Soft,
    translated: Soft,
}

impl Engines {
    fn new(host: &Host, has_ldt: bool) -> Self {
        let new = |way| Soft::new(host, has_ldt, way);
        let single = new(Way::Interpreted);
        Self { single, interpreted: new(Way::Interpreted), translated: new(Way::Translated) }
    }

    /// The first way in which code that is translated ends otherwise than interpreted. It runs three
    /// times: by then it has been found in all ways that there are.
    fn differ(&mut self, before: &Case, instruction: &Instruction, host: &Host) -> Option<String> {
        if matches!(instruction.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed) {
            return None;
        }
        let mut interpreted = *before;
        self.interpreted.run_blocks(&mut interpreted);
        (0..3).find_map(|_| {
            let mut translated = *before;
            self.translated.run_blocks(&mut translated);
            let trial = Trial { instruction, before, native: &interpreted, soft: &translated };
            // Of what may differ, flags that are undefined stay as the host's processor leaves them.
            let undefined = |part| {
                matches!(part, Part::Flag(_)) && excuse(host.processor(), &trial, part).is_some()
            };
            let mut found = outcomes_differ(&interpreted, &translated).into_iter();
            found.find(|found| !undefined(found.part)).map(|found| found.text)
        })
    }
}

/// Whether a branch led into the instruction's own bytes: more would run on the host.
fn returns_into(before: &Case, after: &Case) -> bool {
    let to = after.state.rip.wrapping_add(after.state.base(after.mode, segments::CS));
    let own: Range<u64> = CODE..CODE + before.code_len as u64;
    after.fault.vector == case::RETIRED && own.contains(&to)
}
