//! Attestation for development: whoever has the secrets of a software platform can be its
//! manufacturer, under a root of their own.
//!
//! [`pce`] derives the keys that Intel's provisioning certification enclave would on that platform,
//! [`pki`] certifies them and publishes what verifiers ask for, [`quote`] makes quotes of REPORTs, [`aesm`]
//! answers who asks for them as at Intel's service, [`pccs`] answers who asks for certificates and the like, and
//! [`verify`] judges quotes under any root. Nothing here reads a file or the clock.
//!
//! Such a quote shows which enclave ran on a processor that the owner of the secrets simulates. It
//! shows nothing to anybody who does not trust that owner: see docs/attestation.md.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use cloister_attest::pki::{Authority, Covered, Names, TcbStatus, Term};
//! use cloister_sgx::PlatformFuses;
//!
//! let platform = PlatformFuses::draw()?;
//! let authority = Authority::of_platform(&platform, Names::Cloister)?;
//! let covered = Covered { platform: &platform, revoked: &[] };
//! let term = Term { issued: SystemTime::now(), length: Duration::from_secs(86_400) };
//! let collateral = authority.collateral(&[covered], &term, TcbStatus::UpToDate)?;
//! assert!(collateral.tcb_info.contains("UpToDate"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

pub mod aesm;
mod hex;
pub mod pccs;
pub mod pce;
pub mod pki;
pub mod quote;
pub mod quoting_enclave;
pub mod verify;
