//! Random blocks: two to twelve instructions, with faults in the middle, branches, loops and stores
//! into the code itself. They run one instruction at a time, interpreted as blocks, translated, and
//! on the host where it must end alike; everything architectural is compared.

mod block;
mod trace;
mod undefined;

use super::case::{Case, Mode};
use super::compare::{Difference, outcomes_differ};
use super::encodings;
use super::host::Host;
use super::native::{BATCH, Native};
use super::random::Random;
use super::soft::{Soft, Way};
use super::variance::Part;
use block::Block;
use trace::Trace;

/// How often a block runs translated: code is found in another way each time.
const TIMES: u32 = 3;

/// What a run saw.
#[derive(Default)]
struct Counts {
    blocks: u64,
    instructions: u64,
    loops: u64,
    faults: u64,
    writing_code: u64,
    on_host: u64,
    /// Drawn, but without an end or with what is not the same twice.
    discarded: u64,
}

/// The three ways that the software processor has.
struct Engines {
    single: Soft,
    interpreted: Soft,
    translated: Soft,
}

impl Engines {
    /// Runs a block in all ways; `None` if it cannot be compared.
    fn compare(&mut self, block: &Block) -> Option<Compared> {
        let before = block.case()?;
        let (single, trace) = Trace::of(&mut self.single, &before)?;
        let mut interpreted = before;
        self.interpreted.run_blocks(&mut interpreted);
        let mut difference = first("one at a time, interpreted", &single, &interpreted, 0);
        for time in 1..=TIMES {
            let mut translated = before;
            self.translated.run_blocks(&mut translated);
            let way = format!("interpreted, translated in run {time}");
            let differs = || first(&way, &interpreted, &translated, trace.undefined.flags);
            difference = difference.or_else(differs);
        }
        Some(Compared { before, single, trace, difference })
    }
}

/// A block that ran in all ways of the software processor.
struct Compared {
    before: Case,
    single: Case,
    trace: Trace,
    difference: Option<String>,
}

/// What differs first between two ways, but for flags that nobody defines.
fn first(ways: &str, one: &Case, other: &Case, undefined: u64) -> Option<String> {
    let mut found = outcomes_differ(one, other);
    found.retain(|found| !matches!(found.part, Part::Flag(bit) if undefined & bit != 0));
    said(ways, &found)
}

/// The first differences in words, if there are any.
fn said(ways: &str, found: &[Difference]) -> Option<String> {
    let texts: Vec<&str> = found.iter().take(8).map(|found| &*found.text).collect();
    (!texts.is_empty()).then(|| format!("{ways}:\n      {}", texts.join("\n      ")))
}

/// What differs first from the host's outcome.
fn first_natively(native: &Case, compared: &Compared) -> Option<String> {
    let hidden = native.fault.vector == 14 && native.fault.address >= 0x7fff_ffff_f000;
    let mut native = *native;
    if hidden {
        // Linux tells a process that kernel addresses are present whatever is there.
        native.fault.code = compared.single.fault.code;
    }
    let wraps = !native.mode.is_64()
        && compared.single.fault.vector == 14
        && u32::try_from(compared.single.fault.address).is_ok_and(|at| at >= 0xffff_fe00);
    if wraps && matches!(native.fault.vector, 12..=14) {
        // Which fault an access has that goes on beyond 4 GiB, docs/cpu.md leaves open.
        return None;
    }
    let undefined = compared.trace.undefined.flags;
    let mut found = outcomes_differ(&native, &compared.single);
    found.retain(|found| match found.part {
        Part::Flag(bit) => undefined & bit == 0,
        // No instruction here changes them, and AMD processors lose them on the way (docs/cpu.md).
        Part::Fop | Part::Fip | Part::Fdp => false,
        _ => true,
    });
    said("host, one at a time", &found)
}

#[test]
fn random_blocks_end_alike_in_every_way() {
    let wanted = super::setting("CLOISTER_DIFF_BLOCKS", 6_000);
    let seed = super::setting("CLOISTER_DIFF_SEED", 1);
    let host = Host::detect();
    let mut native = Native::start();
    let new = |way| Soft::new(&host, native.has_ldt(), way);
    let mut engines = Engines {
        single: new(Way::Interpreted),
        interpreted: new(Way::Interpreted),
        translated: new(Way::Translated),
    };
    let mut counts = Counts::default();
    for (mode, part) in Mode::ALL.into_iter().zip([8, 1, 1]) {
        if !mode.is_64() && !native.has_ldt() {
            eprintln!(
                "NOT RUN: blocks of {}-bit code, whose segments this kernel refuses",
                mode.bits()
            );
            continue;
        }
        let mut codes = encodings::codes(mode);
        codes.retain(|&code| host.has(code));
        let mut random = Random::new(seed ^ u64::from(mode.bits()) << 40);
        let until = counts.blocks + wanted * part / 10;
        while counts.blocks < until {
            run_batch(&mut random, mode, &codes, &host, &mut native, &mut engines, &mut counts);
        }
    }
    let translated = engines.translated.translated();
    eprintln!(
        "{} blocks of {} instructions, seed {seed}: {} loops, {} that fault, {} that store to code; \
         {} ran on the host too; {} others discarded; {translated} translations",
        counts.blocks,
        counts.instructions,
        counts.loops,
        counts.faults,
        counts.writing_code,
        counts.on_host,
        counts.discarded
    );
    // What is not 64-bit code may stay interpreted, and what stores to itself is several blocks.
    assert!(translated >= counts.blocks / 2, "blocks are translated");
}

/// Makes blocks and compares them; a difference is made as small as it can be, and panics.
fn run_batch(
    random: &mut Random,
    mode: Mode,
    codes: &[iced_x86::Code],
    host: &Host,
    native: &mut Native,
    engines: &mut Engines,
    counts: &mut Counts,
) {
    let mut comparable = Vec::new();
    for _ in 0..BATCH {
        let block = Block::new(mode, codes, host, random);
        let Some(compared) = engines.compare(&block) else {
            counts.discarded += 1;
            continue;
        };
        if compared.difference.is_some() {
            report(block, |block| engines.compare(block)?.difference);
        }
        counts.blocks += 1;
        counts.instructions += block.len() as u64;
        counts.loops += u64::from(compared.trace.went_back);
        counts.faults += u64::from(compared.single.fault.vector != super::case::RETIRED);
        counts.writing_code += u64::from(block.writes_code());
        if compared.trace.defined {
            comparable.push((block, compared));
        }
    }
    let mut cases: Vec<Case> = comparable.iter().map(|(_, compared)| compared.before).collect();
    if cases.is_empty() {
        return;
    }
    if let Err(culprit) = native.run(&mut cases) {
        panic!("the host never came back from {}", comparable[culprit].0.describe());
    }
    counts.on_host += cases.len() as u64;
    for ((block, compared), outcome) in comparable.into_iter().zip(&cases) {
        if first_natively(outcome, &compared).is_some() {
            report(block, |block| {
                let compared = engines.compare(block)?;
                let mut outcome = [compared.before];
                native.run(&mut outcome).ok()?;
                compared.trace.defined.then(|| first_natively(&outcome[0], &compared))?
            });
        }
    }
}

/// Leaves out of a block what is not needed for the difference that `differs` finds, and panics.
fn report(mut block: Block, mut differs: impl FnMut(&Block) -> Option<String>) -> ! {
    let mut difference = differs(&block);
    let mut at = block.len();
    while at > 0 {
        at -= 1;
        let shorter = block.without(at);
        if let Some(found) = differs(&shorter) {
            (block, difference) = (shorter, Some(found));
            at = at.min(block.len());
        }
    }
    let difference = difference.unwrap_or_else(|| "it does not differ every time".to_owned());
    panic!("{}\n    {difference}", block.describe());
}
