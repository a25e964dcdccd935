//! Tables of a leaf's conditions in the SDM's order: each is broken alone, then each two of them
//! at once, and the first one must win.

use cloister_sgx::Stop;

/// How a leaf ends: RAX or the status that it reports, or what stopped it.
pub(crate) type Outcome = Result<u64, Stop>;

/// One condition of a leaf.
pub(crate) struct Condition<C> {
    /// What is wrong.
    name: String,
    /// The parts of the operands that are broken. Two conditions on the same part exclude each
    /// other.
    parts: Vec<&'static str>,
    /// Breaks the condition in a scenario in which all hold.
    pub(crate) spoil: Box<dyn Fn(&mut C)>,
    /// How the leaf ends if it is the first that does not hold.
    outcome: Outcome,
}

impl<C> Condition<C> {
    pub(crate) fn new(
        name: impl Into<String>,
        part: &'static str,
        outcome: Outcome,
        spoil: impl Fn(&mut C) + 'static,
    ) -> Self {
        Self { name: name.into(), parts: vec![part], spoil: Box::new(spoil), outcome }
    }

    /// The condition breaks another part as well.
    pub(crate) fn and(mut self, part: &'static str) -> Self {
        self.parts.push(part);
        self
    }

    /// The condition breaks `part` in place of what it was said to break.
    pub(crate) fn renamed(mut self, part: &'static str) -> Self {
        self.parts = vec![part];
        self
    }

    /// Whether both can be broken at once, and which of them won can be seen.
    fn tells_apart(&self, other: &Self) -> bool {
        self.outcome != other.outcome && !self.parts.iter().any(|part| other.parts.contains(part))
    }
}

/// Runs a leaf in the scenario that `good` makes, in one for each broken condition, and in one for
/// each two that can be told apart. Returns what did not end as it should.
pub(crate) fn violations<C>(
    good: impl Fn() -> C,
    run: impl Fn(&mut C) -> Outcome,
    success: u64,
    conditions: &[Condition<C>],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: String, expected: Outcome, outcome: Outcome| {
        if outcome != expected {
            found.push(format!("{what}: {outcome:x?} in place of {expected:x?}"));
        }
    };
    note("all hold".to_owned(), Ok(success), run(&mut good()));
    for (number, first) in conditions.iter().enumerate() {
        let mut scenario = good();
        (first.spoil)(&mut scenario);
        note(first.name.clone(), first.outcome, run(&mut scenario));
        for second in conditions[number + 1..].iter().filter(|second| first.tells_apart(second)) {
            let mut scenario = good();
            (first.spoil)(&mut scenario);
            (second.spoil)(&mut scenario);
            let what = format!("{} before {}", first.name, second.name);
            note(what, first.outcome, run(&mut scenario));
        }
    }
    found
}
