//! What became of the leaves that were executed.

use std::collections::BTreeMap;
use std::fmt;

use cloister_sgx::{LeafOutcome, SgxStatus, Stop};

/// How one leaf ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// It did what it is for.
    Completed,
    /// It returned this code in RAX.
    Reported(u64),
    /// It faulted with this vector.
    Faulted(u8),
    /// It must be executed again, after a page was backed or a conflict passed.
    Again,
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fault(exception) => Self::Faulted(exception.vector as u8),
            Stop::EpcMiss { .. } | Stop::Retry | Stop::Conflict(_) => Self::Again,
        }
    }
}

impl From<Result<LeafOutcome, Stop>> for Outcome {
    fn from(result: Result<LeafOutcome, Stop>) -> Self {
        match result {
            Ok(LeafOutcome { status: None | Some(SgxStatus::Success), .. }) => Self::Completed,
            Ok(LeafOutcome { status: Some(status), .. }) => Self::Reported(status.rax()),
            Err(stop) => stop.into(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => write!(f, "completed"),
            Self::Reported(code) => write!(f, "code {code}"),
            Self::Faulted(13) => write!(f, "#GP"),
            Self::Faulted(14) => write!(f, "#PF"),
            Self::Faulted(vector) => write!(f, "vector {vector}"),
            Self::Again => write!(f, "again"),
        }
    }
}

/// How often each leaf ended in which way.
#[derive(Default, Debug)]
pub(crate) struct Tally(BTreeMap<(&'static str, Outcome), u64>);

impl Tally {
    /// One more.
    pub(crate) fn count(&mut self, name: &'static str, outcome: Outcome) {
        *self.0.entry((name, outcome)).or_default() += 1;
    }

    /// All of `other` as well.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// How often `name` ended with `outcome`.
    pub(crate) fn of(&self, name: &'static str, outcome: Outcome) -> u64 {
        self.0.get(&(name, outcome)).copied().unwrap_or_default()
    }

    /// How often `name` was executed.
    pub(crate) fn total(&self, name: &'static str) -> u64 {
        self.0.iter().filter(|((other, _), _)| *other == name).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((name, outcome), count) in &self.0 {
            if *name != last {
                write!(f, "{}{name:<12}", if last.is_empty() { "" } else { "\n" })?;
                last = name;
            }
            write!(f, " {outcome}: {count};")?;
        }
        Ok(())
    }
}
