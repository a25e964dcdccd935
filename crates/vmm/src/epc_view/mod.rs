//! Seeing the EPC of a machine: the report that QMP's `x-query-sgx-epc` returns, and
//! `cloister epc`, which asks for it and shows it.

mod command;
mod exporter;
mod live;
mod metrics;
mod page_map;
mod picture;
mod qmp_client;
mod report;
#[cfg(test)]
mod sample;
mod table;
mod view;

pub use command::{EpcArgs, EpcError, run};
pub use exporter::{Exporter, ExporterAddress, ExporterError};
pub use metrics::{Scraped, metrics};
pub use page_map::{CellKind, MAX_CELLS};
pub use picture::picture;
pub use qmp_client::{QmpClient, QmpError};
pub use report::{
    AccountReport, EnclavePages, EnclaveReport, EpcReport, PageMap, PagesReport, PoolReport,
    SectionReport, VERSION,
};
pub use table::table;
pub use view::EpcView;
