//! The platform whose EPC is behind a machine's virtual EPC.

use std::io;
use std::sync::Arc;

use cloister_sgx::{Platform, PlatformConfig, PlatformIdentity};
use cloister_virt::{EpcPool, SectionConfig, SgxCpuid, SgxVm, VmError};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::config::EpcConfig;
use crate::layout::Layout;

/// Host NUMA node of all EPC: the software platform has one.
const NODE: u32 = 0;

/// Why a machine cannot have its virtual EPC.
#[derive(Debug, Error)]
pub enum EpcError {
    /// More pages than a platform can number.
    #[error("the sections together are {0} pages, more than 2^32 - 1: give them smaller sizes")]
    TooLarge(u64),
    /// The host's random source does not answer.
    #[error("cannot draw a platform identity: {0}: make /dev/urandom readable")]
    Identity(io::Error),
    /// The platform refused its configuration.
    #[error("{0}: give the sections other sizes")]
    Platform(cloister_sgx::PlatformError),
    /// The sections cannot be made.
    #[error("{0}: give the section a smaller size or leave prealloc=on out")]
    Sections(VmError),
}

/// Makes the virtual EPC of a machine on a platform of its own, whose identity ends with the
/// process. The platform has as much EPC as the guest: pages cost the host nothing until they are
/// used. `None` without sections.
pub(super) fn virtual_epc(
    sections: &[EpcConfig],
    layout: &Layout,
) -> Result<Option<Arc<SgxVm>>, EpcError> {
    if sections.is_empty() {
        return Ok(None);
    }
    let total: u64 = sections.iter().map(|section| section.size / PAGE_SIZE).sum();
    let pages = u32::try_from(total).map_err(|_| EpcError::TooLarge(total))?;
    let identity = PlatformIdentity::throw_away().map_err(EpcError::Identity)?;
    let platform =
        Platform::new(PlatformConfig::single(pages, identity)).map_err(EpcError::Platform)?;
    let cpuid = SgxCpuid::all_of(platform.capabilities(), true);
    let sections: Vec<SectionConfig> = sections
        .iter()
        .zip(layout.epc())
        .map(|(section, range)| SectionConfig {
            base: Gpa(range.start),
            size: section.size,
            node: NODE,
            preallocate: section.prealloc,
        })
        .collect();
    let pool = EpcPool::new(Arc::new(platform));
    let vm = SgxVm::new(pool, &sections, cpuid).map_err(EpcError::Sections)?;
    Ok(Some(Arc::new(vm)))
}
