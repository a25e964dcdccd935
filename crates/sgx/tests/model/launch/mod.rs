//! EINIT: measurement, signature, attributes and launch control.

mod control;
mod einit;
mod launcher;
mod measurement;
mod outcome;
mod published;
mod signature;
