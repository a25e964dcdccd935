//! Quotes of a software platform before a public verifier, `dcap-qvl`.

mod aesm;
mod issue;
mod pccs;
mod platform;
mod policy;
mod verdicts;
