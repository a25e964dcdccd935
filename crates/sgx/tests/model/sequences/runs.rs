//! The sequences that the tests run: as many leaves as `CLOISTER_SEQUENCES` says.

use super::LEAVES;
use super::tally::{Outcome, Tally};
use super::world::World;
use crate::choices::Choices;

/// Leaves of one sequence.
const LEAVES_OF_ONE: usize = 1000;
/// Leaves of each processor between two looks at a platform on which all run at once.
const ROUND: usize = 100;

/// How many leaves to run, and the seed of the first sequence.
fn asked() -> (usize, u64) {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    };
    (number("CLOISTER_SEQUENCES", 10_000) as usize, number("CLOISTER_SEQUENCES_SEED", 1))
}

/// Names the sequence in which something went wrong.
struct Named(u64);

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "a seed is for whoever reads the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("run it again: CLOISTER_SEQUENCES=1 CLOISTER_SEQUENCES_SEED={seed}");
        }
    }
}

/// Runs sequences with consecutive seeds, each by 1 to 4 processors.
#[expect(clippy::print_stdout, reason = "a full run shows which states it reached")]
fn run(name: &str, mut one: impl FnMut(usize, &mut Choices<'_>, &mut Tally)) -> Tally {
    let (leaves, first) = asked();
    let sequences = leaves.div_ceil(LEAVES_OF_ONE);
    let mut tally = Tally::default();
    for number in 0..sequences as u64 {
        let seed = first.wrapping_add(number);
        let _named = Named(seed);
        let mut choices = Choices::Seed(seed);
        one(1 + seed as usize % 4, &mut choices, &mut tally);
    }
    let leaves: u64 =
        LEAVES.iter().filter(|row| is_leaf(row.name)).map(|row| tally.total(row.name)).sum();
    println!("{name}: {leaves} leaves in {sequences} sequences from seed {first}\n{tally}");
    tally
}

fn is_leaf(name: &str) -> bool {
    name != "AEX" && name != "(software)"
}

/// Leaves that no processor completed.
fn never(tally: &Tally) -> Vec<&'static str> {
    let names = LEAVES.iter().map(|row| row.name);
    names.filter(|name| tally.of(name, Outcome::Completed) == 0).collect()
}

#[test]
fn invariants_hold_after_each_leaf_of_random_sequences() {
    let tally = run("one at a time", |processors, choices, tally| {
        let mut world = World::new(processors, true);
        for _ in 0..LEAVES_OF_ONE {
            world.step(choices, tally);
        }
        world.end();
    });

    assert_eq!(never(&tally), [""; 0], "every leaf completed at least once");
}

#[test]
fn invariants_hold_when_processors_that_ran_at_once_come_to_rest() {
    run("at once", |processors, choices, tally| {
        let mut world = World::new(processors, false);
        for _ in 0..LEAVES_OF_ONE / (ROUND * processors) {
            tally.add(world.round(ROUND, choices));
        }
        world.end();
    });
}
