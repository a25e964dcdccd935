//! Quotes of a software platform before a public verifier, `dcap-qvl`.

mod issue;
mod platform;
mod policy;
mod verdicts;
