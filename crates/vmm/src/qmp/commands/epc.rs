//! What is in the EPC. QEMU has no such command, as the `x-` says.

use serde_json::Value;

use super::{Outcome, give};
use crate::accel::GuestSgx;
use crate::epc_report::EpcView;
use crate::qmp::context::Context;
use crate::qmp::request::{Arguments, QmpError};

/// Whether the page maps are wanted; they are not without it.
pub(super) const PAGE_MAP: &str = "page-map";

/// Under KVM.
const NOT_TOLD: &str =
    "the EPC is the host's, whose processor tells nobody what is in it; query-sgx has the sections";

/// `x-query-sgx-epc`: an [`EpcReport`](cloister_epc_view::EpcReport).
pub(super) fn query_sgx_epc(context: &Context, arguments: &Arguments) -> Outcome {
    let page_map = match arguments.get(PAGE_MAP) {
        None => false,
        Some(&Value::Bool(wanted)) => wanted,
        Some(_) => {
            return Err(QmpError::generic(format!("the argument '{PAGE_MAP}' is not a boolean")));
        }
    };
    give(view(context)?.report(page_map))
}

fn view(context: &Context) -> Result<EpcView, QmpError> {
    Ok(match &context.sgx {
        Some(GuestSgx::Soft(sgx)) => {
            let ids = context.config.epc.iter().map(|section| section.id.clone()).collect();
            EpcView::new(sgx.account().name(), sgx.clone(), ids)
        }
        Some(GuestSgx::Host(_)) => return Err(QmpError::generic(NOT_TOLD)),
        None => EpcView::without_sgx(context.config.display_name()),
    })
}
