//! Looking at enclaves from the outside, as an operator of the host does. No leaf notices it: no
//! page is locked, and no counter changes.

use core::sync::atomic::{Ordering, fence};

use crate::attributes::{AttributeFlags, Attributes};
use crate::encls::read_secs;
use crate::epc::{EpcIndex, EpcPage};
use crate::epcm::{EpcmEntry, PageType};
use crate::layout::Secs;
use crate::platform::Platform;

/// What an SECS page and its EPCM entry said at one moment (SDM Vol. 3D, 35.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EnclaveView {
    /// The SECS page.
    pub secs: EpcIndex,
    /// EID: no two enclaves of a platform have the same, and an enclave keeps its own when its SECS
    /// is evicted and loaded again.
    pub eid: u64,
    /// SIZE of ELRANGE in bytes.
    pub size: u64,
    /// BASEADDR of ELRANGE.
    pub base: u64,
    /// ATTRIBUTES; INIT tells whether EINIT has completed.
    pub attributes: Attributes,
    /// MISCSELECT.
    pub miscselect: u32,
    /// MRENCLAVE, MRSIGNER, ISVPRODID and ISVSVN, which EINIT settles; `None` before it.
    pub identity: Option<EnclaveIdentity>,
    /// Logical processors that are executing in the enclave.
    pub threads_inside: u32,
    /// Child pages in the EPC.
    pub children: u32,
    /// VIRTCHILDCNT: children that a hypervisor has evicted (EINCVIRTCHILD).
    pub virtual_children: u64,
}

/// Who an initialized enclave is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EnclaveIdentity {
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// MRSIGNER.
    pub mrsigner: [u8; 32],
    /// ISVPRODID.
    pub isvprodid: u16,
    /// ISVSVN.
    pub isvsvn: u16,
}

impl Platform {
    /// The enclave whose SECS is page `secs`; `None` if that page is not an SECS.
    ///
    /// Processors may run meanwhile: what is returned belongs to one enclave, of which the counts
    /// may have changed since. It takes no lock that a leaf could find taken.
    ///
    /// # Panics
    /// If `secs` does not name a page of this platform.
    #[must_use]
    pub fn enclave(&self, secs: EpcIndex) -> Option<EnclaveView> {
        if !self.epcm(secs).is(PageType::Secs) {
            return None;
        }
        let (entry, page) = (self.entry(secs), self.page(secs));
        let (state, view) = entry.unchanged(|| read(secs, entry, page))?;
        state.is(PageType::Secs).then_some(view)
    }
}

fn read(secs: EpcIndex, entry: &EpcmEntry, page: EpcPage<'_>) -> EnclaveView {
    // EINIT sets INIT after everything else: what is read after INIT is final.
    let init = page.load(Secs::ATTRIBUTES) & AttributeFlags::INIT.bits();
    fence(Ordering::Acquire);
    let contents = read_secs(page);
    let flags = contents.attributes.flags.get() & !AttributeFlags::INIT.bits() | init;
    EnclaveView {
        secs,
        eid: contents.eid.get(),
        size: contents.size.get(),
        base: contents.baseaddr.get(),
        attributes: Attributes { flags: flags.into(), ..contents.attributes },
        miscselect: contents.miscselect.get(),
        identity: (init != 0).then(|| EnclaveIdentity {
            mrenclave: contents.mrenclave,
            mrsigner: contents.mrsigner,
            isvprodid: contents.isvprodid.get(),
            isvsvn: contents.isvsvn.get(),
        }),
        threads_inside: entry.tracking().inside(),
        children: entry.children(),
        virtual_children: contents.virtchildcnt.get(),
    }
}
