//! The conditions of a leaf as a table, in the SDM's order: each spoils a good set of operands, and
//! of two that hold at once the first one decides.

use cloister_sgx::{LeafOutcome, SgxStatus, Stop};

/// What a leaf did: its status, if it reports one, or why it did not complete.
pub(crate) type Outcome = Result<Option<SgxStatus>, Stop>;

/// The status of a leaf that completed.
pub(crate) fn reported(outcome: Result<LeafOutcome, Stop>) -> Outcome {
    outcome.map(|outcome| outcome.status)
}

/// A condition of a leaf on operands `C`.
pub(crate) struct Condition<C> {
    /// Its number in the leaf's table of docs/sdm-map.md.
    row: u32,
    name: &'static str,
    /// Conditions on the same subject cannot hold at once. Empty: compatible with every other.
    subject: &'static str,
    /// Makes the condition true. Where several are made true, the last one in the SDM's order
    /// comes first, so that "not aligned" adds to the address that "not in the EPC" set.
    spoil: fn(&mut C),
    /// What the leaf then does, given the spoilt operands.
    outcome: fn(&C) -> Outcome,
}

impl<C> Condition<C> {
    /// Condition number `row` of the map.
    pub(crate) const fn new(
        row: u32,
        name: &'static str,
        spoil: fn(&mut C),
        outcome: fn(&C) -> Outcome,
    ) -> Self {
        Self { row, name, subject: "", spoil, outcome }
    }

    /// The same, which excludes others on `subject`.
    pub(crate) const fn on(mut self, subject: &'static str) -> Self {
        self.subject = subject;
        self
    }

    fn excludes(&self, other: &Self) -> bool {
        self.row == other.row || !self.subject.is_empty() && self.subject == other.subject
    }
}

/// Makes each condition true alone; the result names those that led to something else.
pub(crate) fn each_alone<C>(
    conditions: &[Condition<C>],
    good: impl Fn() -> C,
    run: impl Fn(C) -> Outcome,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for condition in conditions {
        let mut case = good();
        (condition.spoil)(&mut case);
        let expected = (condition.outcome)(&case);
        let outcome = run(case);
        if outcome != expected {
            let Condition { row, name, .. } = condition;
            wrong.push(format!("{row} {name}: {outcome:?} in place of {expected:?}"));
        }
    }
    wrong
}

/// How conditions that hold in pairs were decided.
#[derive(Debug)]
pub(crate) struct Pairs {
    /// Pairs whose two outcomes differ, so that the leaf shows which check came first.
    pub(crate) compared: usize,
    /// Those in which not the first condition decided.
    pub(crate) wrong: Vec<String>,
}

/// Makes every two conditions true at once.
pub(crate) fn in_pairs<C>(
    conditions: &[Condition<C>],
    good: impl Fn() -> C,
    run: impl Fn(C) -> Outcome,
) -> Pairs {
    let mut pairs = Pairs { compared: 0, wrong: Vec::new() };
    for (at, first) in conditions.iter().enumerate() {
        for second in conditions[at + 1..].iter().filter(|second| !first.excludes(second)) {
            let mut case = good();
            (second.spoil)(&mut case);
            (first.spoil)(&mut case);
            let expected = (first.outcome)(&case);
            if expected == (second.outcome)(&case) {
                continue;
            }
            pairs.compared += 1;
            let outcome = run(case);
            if outcome != expected {
                pairs.wrong.push(format!(
                    "{} {} before {} {}: {outcome:?} in place of {expected:?}",
                    first.row, first.name, second.row, second.name
                ));
            }
        }
    }
    pairs
}
