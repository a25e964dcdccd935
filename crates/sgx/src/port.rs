//! The seam to the logical processor: how a leaf reaches the memory that its operands name.

use cloister_x86::{Exception, Gpa, La};

use crate::capabilities::Capabilities;
use crate::epc::EpcIndex;

/// Why a leaf did not complete.
///
/// In every case nothing was committed: the processor's registers and the EPC are as they were,
/// and the instruction may be executed again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The leaf faults: deliver this exception.
    Fault(Exception),
    /// An operand names a page of a virtual EPC that no host EPC page backs yet. Back it and
    /// execute the instruction again with RIP unmoved.
    EpcMiss {
        /// Guest physical address of the unbacked page.
        gpa: Gpa,
    },
    /// Another logical processor holds what the access needs for a moment (a page that is being
    /// taken from the guest). Execute the instruction again with RIP unmoved.
    Retry,
    /// The leaf causes the VM exit SGX_CONFLICT ([`LeafPort::epc_virtualization`]). Whoever takes no
    /// such exits executes the instruction again with RIP unmoved.
    Conflict(Conflict),
}

/// What another leaf is at work on, as the exit qualification of SGX_CONFLICT tells it (SDM Vol. 3D,
/// 39.5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// TRACKING_RESOURCE_CONFLICT: the tracking facility of the enclave whose SECS has this
    /// ENCLAVECONTEXT.
    TrackingResource {
        /// ENCLAVECONTEXT.
        context: u64,
    },
    /// TRACKING_REFERENCE_CONFLICT: the previous tracking cycle of such an enclave is not complete.
    TrackingReference {
        /// ENCLAVECONTEXT.
        context: u64,
    },
    /// EPC_PAGE_CONFLICT_EXCEPTION: the EPC page at this address. Else #GP(0).
    PageException {
        /// The leaf's operand.
        la: La,
    },
    /// EPC_PAGE_CONFLICT_ERROR: the EPC page at this address. Else SGX_EPC_PAGE_CONFLICT.
    PageError {
        /// The leaf's operand.
        la: La,
    },
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Fault(exception)
    }
}

/// With what intent a leaf translates the address of an EPC operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpcAccess {
    /// Read access through the page tables.
    Read,
    /// Write access through the page tables.
    Write,
}

/// A logical processor as ENCLS, ENCLU and ENCLV leaves use it: its memory, its event lines, and
/// what its CPUID and MSRs say.
///
/// Implemented by the software CPU, and by the hypervisor layer over another port, for leaves that
/// it carries out for a guest. Accesses use the current privilege level, page tables, PKRU, SMAP
/// and so on: an ENCLS leaf makes supervisor accesses, an ENCLU leaf user accesses.
pub trait LeafPort {
    /// The linear address of `len` bytes at effective address `ea` in the DS segment.
    ///
    /// In 64-bit mode that is `ea` itself, and #GP(0) unless it is canonical; otherwise the low
    /// 32 bits of `ea` plus the base of DS, and #GP(0) outside the segment's limit.
    ///
    /// # Errors
    /// [`Stop::Fault`] as above.
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop>;

    /// Reads ordinary memory at `la`. What lies in the EPC reads as an abort page (all ones).
    ///
    /// # Errors
    /// [`Stop::Fault`] with the page fault that the access causes.
    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop>;

    /// Writes ordinary memory at `la`. What lies in the EPC is dropped. Either all bytes are
    /// written or none.
    ///
    /// # Errors
    /// [`Stop::Fault`] with the page fault that the access causes.
    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop>;

    /// Translates `la` through the page tables with intent `access` and says which EPC page it
    /// is; `None` if it translates to something else. The EPCM is not consulted.
    ///
    /// # Errors
    /// [`Stop::Fault`] if the page tables forbid the access; [`Stop::EpcMiss`] if the page is in
    /// a virtual EPC and not backed.
    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop>;

    /// Whether an event is pending that EINIT must give way to: an unmasked external interrupt,
    /// NMI, SMI, machine check or INIT (SDM Vol. 3D, EINIT). An event that the processor would not
    /// take before its next instruction is masked: software that runs EINIT again until it
    /// succeeds would not get on.
    fn event_pending(&mut self) -> bool;

    /// Whether the processor is in VMX non-root operation with the VM-execution control "enable
    /// EPC virtualization extensions" set. Then an SECS with virtual children counts as one with
    /// children, and a conflict that can exit is [`Stop::Conflict`].
    fn epc_virtualization(&self) -> bool {
        false
    }

    /// What the CPUID that the software on this processor sees announces: the leaves that there
    /// are, and what an SECS may have. It may be less than the platform's own.
    fn capabilities(&self) -> Capabilities;

    /// IA32_SGXLEPUBKEYHASH0-3 of this logical processor, as 32 little-endian bytes.
    fn le_pubkey_hash(&self) -> [u8; 32];
}
