//! Seeing the EPC of a machine from outside: what QMP's `x-query-sgx-epc` returns, a client that asks
//! for it, and ways to show it.
//!
//! The crate knows no machine. [`EpcReport`] is what passes between the two sides: a virtual machine
//! monitor makes it, and [`QmpClient`] reads it from whatever answers at a socket, which may be no
//! monitor at all. [`table`], [`picture`] and [`metrics`] show reports as text of 80 columns, as SVG,
//! and in Prometheus' text format, which an [`HttpServer`] serves as [`metrics_response`].
//!
//! ```no_run
//! # fn main() -> Result<(), cloister_epc_view::QmpError> {
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use cloister_epc_view::{QmpClient, table};
//!
//! let mut client = QmpClient::connect(Path::new("qmp.sock"), Duration::from_secs(5))?;
//! let report = client.epc_report(false)?;
//! let text = table(&report, None).join("\n");
//! # drop(text);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

mod exporter;
mod http;
mod metrics;
mod page_map;
mod picture;
mod qmp_client;
mod report;
#[cfg(test)]
mod sample;
mod table;

pub use exporter::metrics_response;
pub use http::{HttpAddress, HttpError, HttpResponse, HttpServer, serve_clients};
pub use metrics::{Scraped, metrics};
pub use page_map::{CellKind, MAX_CELLS};
pub use picture::picture;
pub use qmp_client::{QmpClient, QmpError};
pub use report::{
    AccountReport, EnclavePages, EnclaveReport, EnclsExitsReport, EpcReport, OwnedCells, PageMap,
    PagesReport, PoolReport, SectionReport, VERSION,
};
pub use table::table;
