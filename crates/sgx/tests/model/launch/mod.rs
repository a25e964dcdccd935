//! EINIT: measurement, signature, attributes and launch control.

mod control;
mod einit;
mod launcher;
mod measurement;
mod published;
mod signature;
