//! What a run found.

use std::collections::BTreeMap;
use std::fmt;

use iced_x86::Instruction;

use super::case::{Case, Mode, State};
use super::compare::{Difference, differences};
use super::variance::{Processor, ROWS, Trial, excuse};

/// Differing cases shown for each encoding.
const SHOWN: usize = 2;
/// Differences shown for each case.
const DIFFERENCES: usize = 24;

/// Counts and examples.
pub(crate) struct Report {
    seed: u64,
    processor: String,
    run: BTreeMap<u32, u64>,
    not_run: BTreeMap<u32, u64>,
    encodings: BTreeMap<u32, (usize, usize)>,
    /// Cases that each row had a part in excusing.
    excused: [u64; ROWS.len()],
    excused_cases: u64,
    differing: BTreeMap<String, (u64, Vec<String>)>,
    /// Cases that end otherwise when they are translated, and the first of them.
    translated: (u64, Vec<String>),
}

impl Report {
    /// An empty one, of a run on a processor.
    pub(crate) fn new(seed: u64, processor: String) -> Self {
        Self {
            seed,
            processor,
            run: BTreeMap::new(),
            not_run: BTreeMap::new(),
            encodings: BTreeMap::new(),
            excused: [0; ROWS.len()],
            excused_cases: 0,
            differing: BTreeMap::new(),
            translated: (0, Vec::new()),
        }
    }

    /// Encodings of a mode that run, and those that the host lacks.
    pub(crate) fn encodings(&mut self, mode: Mode, run: usize, lacking: usize) {
        self.encodings.insert(mode.bits(), (run, lacking));
    }

    /// Cases of a mode that the host's kernel does not let run.
    pub(crate) fn not_run(&mut self, mode: Mode, cases: u64) {
        self.not_run.insert(mode.bits(), cases);
    }

    /// Compares the outcomes of a case.
    pub(crate) fn case(&mut self, processor: &Processor, trial: &Trial<'_>) {
        *self.run.entry(trial.before.mode.bits()).or_default() += 1;
        let found = differences(trial);
        if found.is_empty() {
            return;
        }
        let mut rows = Vec::new();
        let mut left: Vec<&Difference> = Vec::new();
        for difference in &found {
            match excuse(processor, trial, difference.part) {
                Some(row) => rows.push(row),
                None => left.push(difference),
            }
        }
        rows.sort_unstable();
        rows.dedup();
        if left.is_empty() {
            self.excused_cases += 1;
            for row in rows {
                self.excused[row] += 1;
            }
            return;
        }
        let key = format!("{:?}", trial.instruction.code());
        let entry = self.differing.entry(key).or_default();
        entry.0 += 1;
        if entry.1.len() < SHOWN {
            let texts: Vec<_> =
                left.iter().take(DIFFERENCES).map(|found| found.text.as_str()).collect();
            let case = describe(trial.instruction, trial.before);
            entry.1.push(format!("    {case}\n      {}", texts.join("\n      ")));
        }
    }

    /// Takes a case that ends otherwise when it is translated.
    pub(crate) fn translated_differs(&mut self, what: &Instruction, before: &Case, how: &str) {
        self.translated.0 += 1;
        if self.translated.1.len() < SHOWN {
            self.translated.1.push(format!("{}\n      {how}", describe(what, before)));
        }
    }

    /// Cases that end otherwise when they are translated.
    pub(crate) fn differing_translated(&self) -> u64 {
        self.translated.0
    }

    /// Cases that ran.
    pub(crate) fn run(&self) -> u64 {
        self.run.values().sum()
    }

    /// Cases that differ and are not excused.
    pub(crate) fn differing(&self) -> u64 {
        self.differing.values().map(|(count, _)| count).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bits, run) in self.run.iter().rev() {
            let (encodings, lacking) = self.encodings.get(bits).copied().unwrap_or_default();
            writeln!(
                f,
                "{run} cases of {bits}-bit code over {encodings} encodings ({lacking} more that the host lacks)"
            )?;
        }
        for (bits, cases) in &self.not_run {
            writeln!(
                f,
                "NOT RUN: {cases} cases of {bits}-bit code, since this kernel refuses the segments (modify_ldt)"
            )?;
        }
        writeln!(f, "{} cases excused by rows of docs/cpu.md:", self.excused_cases)?;
        for (row, count) in ROWS.iter().zip(self.excused).filter(|(_, count)| *count != 0) {
            writeln!(f, "{count:>9}  {} ({})", row.name, row.hosts.text())?;
        }
        for (code, (count, examples)) in &self.differing {
            writeln!(f, "{code}: {count}")?;
            for example in examples {
                writeln!(f, "{example}")?;
            }
        }
        let (count, examples) = &self.translated;
        writeln!(f, "{count} of them end otherwise when they are translated")?;
        for example in examples {
            writeln!(f, "    {example}")?;
        }
        write!(
            f,
            "{} cases in all on {}, seed {}: {} differ",
            self.run(),
            self.processor,
            self.seed,
            self.differing()
        )
    }
}

/// A case in words.
pub(crate) fn describe(instruction: &Instruction, before: &Case) -> String {
    let state = &before.state;
    let fx = &state.fx;
    format!(
        "{instruction}   {}-bit [{:02x?}]\n      selectors {:x?} gpr {:x?} rflags {:x} mxcsr {:x} fcw {:x} fsw {:x} tags {:x} st {:02x?} vectors {:02x?}",
        before.mode.bits(),
        before.bytes(),
        state.selectors,
        state.gpr,
        state.rflags,
        fx.mxcsr,
        fx.control,
        fx.status,
        fx.tags,
        [&fx.st[0][..10], &fx.st[1][..10]],
        vectors(instruction, state),
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
