//! Error and information codes of the leaf functions (SDM Vol. 3D, table 38-4).

use cloister_x86::regs::Rflags;

/// What a leaf that reports in RAX returned. Every value but [`Success`](Self::Success) sets ZF.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum SgxStatus {
    /// No error.
    Success = 0,
    /// SGX_INVALID_SIG_STRUCT.
    InvalidSigStruct = 1,
    /// SGX_INVALID_ATTRIBUTE.
    InvalidAttribute = 2,
    /// SGX_BLKSTATE.
    BlkState = 3,
    /// SGX_INVALID_MEASUREMENT.
    InvalidMeasurement = 4,
    /// SGX_NOTBLOCKABLE.
    NotBlockable = 5,
    /// SGX_PG_INVLD.
    PgInvld = 6,
    /// SGX_EPC_PAGE_CONFLICT.
    EpcPageConflict = 7,
    /// SGX_INVALID_SIGNATURE.
    InvalidSignature = 8,
    /// SGX_MAC_COMPARE_FAIL.
    MacCompareFail = 9,
    /// SGX_PAGE_NOT_BLOCKED.
    PageNotBlocked = 10,
    /// SGX_NOT_TRACKED.
    NotTracked = 11,
    /// SGX_VA_SLOT_OCCUPIED.
    VaSlotOccupied = 12,
    /// SGX_CHILD_PRESENT.
    ChildPresent = 13,
    /// SGX_ENCLAVE_ACT.
    EnclaveAct = 14,
    /// SGX_ENTRYEPOCH_LOCKED.
    EntryEpochLocked = 15,
    /// SGX_INVALID_EINITTOKEN.
    InvalidEinitToken = 16,
    /// SGX_PREV_TRK_INCMPL.
    PrevTrkIncmpl = 17,
    /// SGX_PG_IS_SECS.
    PgIsSecs = 18,
    /// SGX_PAGE_ATTRIBUTES_MISMATCH.
    PageAttributesMismatch = 19,
    /// SGX_PAGE_NOT_MODIFIABLE.
    PageNotModifiable = 20,
    /// SGX_PAGE_NOT_DEBUGGABLE.
    PageNotDebuggable = 21,
    /// SGX_INVALID_COUNTER.
    InvalidCounter = 25,
    /// SGX_PG_NONEPC.
    PgNonEpc = 26,
    /// SGX_TRACK_NOT_REQUIRED.
    TrackNotRequired = 27,
    /// SGX_INVALID_CPUSVN.
    InvalidCpuSvn = 32,
    /// SGX_INVALID_ISVSVN.
    InvalidIsvSvn = 64,
    /// SGX_UNMASKED_EVENT.
    UnmaskedEvent = 128,
    /// SGX_INVALID_KEYNAME.
    InvalidKeyName = 256,
}

impl SgxStatus {
    /// The value that RAX receives.
    #[must_use]
    pub const fn rax(self) -> u64 {
        self as u32 as u64
    }

    /// RFLAGS after a leaf that returns this status, given those before: CF, PF, AF, ZF, SF and
    /// OF are cleared; then errors set ZF and information (EBLOCK on a page that needs or allows
    /// no blocking, EWB to a slot in use, ETRACKC on a page that needs no tracking, ERDINFO
    /// outside the EPC) sets CF.
    #[must_use]
    pub const fn flags(self, rflags: u64) -> u64 {
        let information = matches!(
            self,
            Self::BlkState
                | Self::NotBlockable
                | Self::PgIsSecs
                | Self::VaSlotOccupied
                | Self::PgNonEpc
                | Self::TrackNotRequired
        );
        self.flags_as(information, rflags)
    }

    /// As [`flags`](Self::flags), for a leaf that itself says whether this status is
    /// `information` to it. [`Success`](Self::Success) sets no flag either way.
    pub(crate) const fn flags_as(self, information: bool, rflags: u64) -> u64 {
        let reported = Rflags::CF
            .union(Rflags::PF)
            .union(Rflags::AF)
            .union(Rflags::ZF)
            .union(Rflags::SF)
            .union(Rflags::OF);
        let set = match self {
            Self::Success => Rflags::empty(),
            _ if information => Rflags::CF,
            _ => Rflags::ZF,
        };
        rflags & !reported.bits() | set.bits()
    }
}
