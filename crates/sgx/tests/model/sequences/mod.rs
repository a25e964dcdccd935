//! Random sequences of leaves by several processors, and what must hold after each of them.

mod build;
mod dynamic;
mod invariants;
mod paging;
#[cfg(test)]
mod runs;
pub(crate) mod tally;
mod threads;
mod turn;
pub(crate) mod world;

use tally::Outcome;
use turn::Turn;

/// What a leaf may do to the EPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// A page comes into use, and may be measured.
    Adds,
    /// A page comes into use, not measured.
    Loads,
    /// A page leaves the EPC when the leaf completes.
    Evicts,
    /// A page leaves the EPC, if it was in use.
    Removes,
    /// It changes a measurement, or ends it.
    Measures,
    /// None of these.
    Nothing,
}

/// A leaf, or an event that belongs to a sequence of them.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// How often it is chosen outside of enclaves, and how often inside.
    pub(crate) outside: usize,
    pub(crate) inside: usize,
    pub(crate) effect: Effect,
    pub(crate) leaf: fn(&mut Turn<'_, '_>) -> Outcome,
}

macro_rules! rows {
    ($($name:literal, $outside:literal, $inside:literal, $effect:ident, $leaf:path;)*) => {
        &[$(Row {
            name: $name,
            outside: $outside,
            inside: $inside,
            effect: Effect::$effect,
            leaf: $leaf,
        }),*]
    };
}

/// Everything that a processor may do next. One more leaf is one more row here, and its CPUID bit
/// in [`world::World::new`].
pub(crate) const LEAVES: &[Row] = rows![
    // Name, weight outside and inside enclaves, effect.
    "ECREATE", 6, 1, Adds, build::ecreate;
    "EADD", 30, 4, Adds, build::eadd;
    "EEXTEND", 12, 2, Measures, build::eextend;
    "EINIT", 8, 1, Measures, build::einit;
    "EREMOVE", 24, 6, Removes, build::eremove;
    "EDBGRD", 3, 1, Nothing, build::edbgrd;
    "EDBGWR", 2, 1, Nothing, build::edbgwr;
    "EPA", 3, 1, Loads, paging::epa;
    "EBLOCK", 6, 3, Nothing, paging::eblock;
    "ETRACK", 10, 4, Nothing, paging::etrack;
    "EWB", 20, 6, Evicts, paging::ewb;
    "ELDB", 4, 1, Loads, paging::eldb;
    "ELDU", 30, 8, Loads, paging::eldu;
    "ERDINFO", 3, 1, Nothing, paging::erdinfo;
    "ETRACKC", 3, 1, Nothing, paging::etrackc;
    "ELDBC", 2, 1, Loads, paging::eldbc;
    "ELDUC", 4, 1, Loads, paging::elduc;
    "EAUG", 8, 4, Loads, dynamic::eaug;
    "EMODPR", 3, 3, Nothing, dynamic::emodpr;
    "EMODT", 4, 3, Nothing, dynamic::emodt;
    "EENTER", 40, 1, Nothing, threads::eenter;
    "ERESUME", 30, 1, Nothing, threads::eresume;
    "EEXIT", 1, 12, Nothing, threads::eexit;
    "EREPORT", 1, 6, Nothing, threads::ereport;
    "EGETKEY", 1, 6, Nothing, threads::egetkey;
    "EACCEPT", 1, 24, Nothing, dynamic::eaccept;
    "EMODPE", 1, 6, Nothing, dynamic::emodpe;
    "EACCEPTCOPY", 1, 6, Nothing, dynamic::eacceptcopy;
    "EDECCSSA", 1, 8, Nothing, threads::edeccssa;
    "EDECVIRTCHILD", 2, 1, Nothing, paging::edecvirtchild;
    "EINCVIRTCHILD", 2, 1, Nothing, paging::eincvirtchild;
    "ESETCONTEXT", 1, 1, Nothing, paging::esetcontext;
    "AEX", 0, 20, Nothing, threads::aex;
    "(software)", 0, 6, Nothing, dynamic::write_tcs;
];
