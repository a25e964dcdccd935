//! SECS, TCS and the GPRSGX region of an SSA frame (SDM Vol. 3D, 35.7 to 35.9).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::attributes::Attributes;

/// SECS. The fields from [`isvfamilyid`](Self::isvfamilyid) on lie in what is reserved for
/// software, where the SDM leaves their places to the implementation.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Secs {
    /// SIZE in bytes.
    pub size: U64,
    /// BASEADDR.
    pub baseaddr: U64,
    /// SSAFRAMESIZE in pages.
    pub ssaframesize: U32,
    /// MISCSELECT.
    pub miscselect: U32,
    /// CET_LEG_BITMAP_OFFSET.
    pub cet_leg_bitmap_offset: U64,
    /// CET_ATTRIBUTES.
    pub cet_attributes: u8,
    /// Must be zero.
    pub reserved1: [u8; 15],
    /// ATTRIBUTES.
    pub attributes: Attributes,
    /// MRENCLAVE; before EINIT the state of the hash that is being computed, as eight
    /// little-endian words.
    pub mrenclave: [u8; 32],
    /// Must be zero.
    pub reserved2: [u8; 32],
    /// MRSIGNER.
    pub mrsigner: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 32],
    /// CONFIGID.
    pub configid: [u8; 64],
    /// ISVPRODID.
    pub isvprodid: U16,
    /// ISVSVN.
    pub isvsvn: U16,
    /// CONFIGSVN.
    pub configsvn: U16,
    /// Must be zero.
    pub reserved4: [u8; 2],
    /// ISVFAMILYID.
    pub isvfamilyid: [u8; 16],
    /// ISVEXTPRODID.
    pub isvextprodid: [u8; 16],
    /// EID: the enclave identifier.
    pub eid: U64,
    /// The MRENCLAVE update counter: 64-byte blocks hashed so far.
    pub measured_blocks: U64,
    /// VIRTCHILDCNT.
    pub virtchildcnt: U64,
    /// ENCLAVECONTEXT.
    pub enclavecontext: U64,
    /// PADDING: the upper 352 bytes of the encoded message of the enclave's signature.
    pub padding: [u8; 352],
    /// Must be zero.
    pub reserved5: [u8; 3416],
}

const _: () = assert!(size_of::<Secs>() == 4096);

impl Secs {
    /// Byte offset of MRENCLAVE.
    pub(crate) const MRENCLAVE: usize = core::mem::offset_of!(Self, mrenclave);
    /// Byte offset of ATTRIBUTES.
    pub(crate) const ATTRIBUTES: usize = core::mem::offset_of!(Self, attributes);
    /// Byte offset of the MRENCLAVE update counter.
    pub(crate) const MEASURED_BLOCKS: usize = core::mem::offset_of!(Self, measured_blocks);
    /// Byte offset of EID.
    pub(crate) const EID: usize = core::mem::offset_of!(Self, eid);
    /// Byte offset of VIRTCHILDCNT.
    pub(crate) const VIRTCHILDCNT: usize = core::mem::offset_of!(Self, virtchildcnt);
    /// Byte offset of ENCLAVECONTEXT.
    pub(crate) const ENCLAVECONTEXT: usize = core::mem::offset_of!(Self, enclavecontext);
    /// Byte offset of SIZE.
    pub(crate) const SIZE: usize = core::mem::offset_of!(Self, size);
    /// Byte offset of the quadword that SSAFRAMESIZE and MISCSELECT share.
    pub(crate) const SSAFRAMESIZE: usize = core::mem::offset_of!(Self, ssaframesize);
    /// Byte offset of BASEADDR.
    pub(crate) const BASEADDR: usize = core::mem::offset_of!(Self, baseaddr);

    /// Whether every byte that a source SECS must leave clear is zero: the reserved fields and
    /// those whose places the SDM leaves to the implementation (SDM Vol. 3D, table 35-2). The
    /// CET fields are not looked at.
    #[must_use]
    pub fn reserved_is_zero(&self) -> bool {
        self.reserved1.iter().all(|&byte| byte == 0)
            && self.reserved2.iter().all(|&byte| byte == 0)
            && self.reserved3.iter().all(|&byte| byte == 0)
            && self.as_bytes()[262..].iter().all(|&byte| byte == 0)
    }
}

bitflags! {
    /// TCS.FLAGS (SDM Vol. 3D, 35.8.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TcsFlags: u64 {
        /// DBGOPTIN: entries on this TCS allow debugging.
        const DBGOPTIN = 1 << 0;
        /// AEXNOTIFY: entries on this TCS may ask to be notified of AEXs.
        const AEXNOTIFY = 1 << 1;
    }
}

/// The architectural part of a TCS; the rest of its page is reserved.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcs {
    /// STATE: 1 while a logical processor executes on this TCS.
    pub state: U64,
    /// FLAGS: [`TcsFlags`].
    pub flags: U64,
    /// OSSA: offset of the SSA stack from the enclave's base.
    pub ossa: U64,
    /// CSSA: index of the next SSA frame to be used.
    pub cssa: U32,
    /// NSSA: number of SSA frames.
    pub nssa: U32,
    /// OENTRY: offset of the entry point from the enclave's base.
    pub oentry: U64,
    /// AEP: asynchronous exit pointer of the last entry.
    pub aep: U64,
    /// OFSBASE: offset of the FS base from the enclave's base.
    pub ofsbase: U64,
    /// OGSBASE: offset of the GS base from the enclave's base.
    pub ogsbase: U64,
    /// FSLIMIT, for 32-bit enclaves.
    pub fslimit: U32,
    /// GSLIMIT, for 32-bit enclaves.
    pub gslimit: U32,
}

/// Places within a TCS page.
pub mod tcs {
    /// STATE.
    pub const STATE: usize = 0;
    /// FLAGS.
    pub const FLAGS: usize = 8;
    /// CSSA, in the low half of the quadword that NSSA shares.
    pub const CSSA: usize = 24;
    /// AEP.
    pub const AEP: usize = 40;
    /// FSLIMIT.
    pub const FSLIMIT: usize = 64;
    /// GSLIMIT.
    pub const GSLIMIT: usize = 68;
    /// SGX_TCS_LIMIT: bytes of a TCS that are not reserved.
    pub const LIMIT: usize = 72;
    /// STATE of a TCS that is available for entry.
    pub const INACTIVE: u64 = 0;
    /// STATE of a TCS on which a logical processor executes.
    pub const ACTIVE: u64 = 1;
}

/// The GPRSGX region, the last 184 bytes of an SSA frame.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GprSgx {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [U64; 16],
    /// RFLAGS.
    pub rflags: U64,
    /// RIP.
    pub rip: U64,
    /// URSP: RSP outside the enclave.
    pub ursp: U64,
    /// URBP: RBP outside the enclave.
    pub urbp: U64,
    /// EXITINFO.
    pub exitinfo: U32,
    /// Reserved.
    pub reserved: [u8; 3],
    /// AEXNOTIFY: bit 0 asks for a notification in place of a resumption.
    pub aexnotify: u8,
    /// FSBASE.
    pub fsbase: U64,
    /// GSBASE.
    pub gsbase: U64,
}

/// Places of the GPRSGX and MISC regions, which end an SSA frame.
pub mod gprsgx {
    /// Bytes in the GPRSGX region.
    pub const SIZE: usize = 184;
    /// Offset of the GPRSGX region in the last page of the frame.
    pub const OFFSET: usize = 4096 - SIZE;
    /// Bytes in EXINFO.
    pub const EXINFO_SIZE: usize = 16;
    /// Offset of EXINFO in the last page of the frame.
    pub const EXINFO: usize = OFFSET - EXINFO_SIZE;
    /// EXITINFO: VALID.
    pub const EXITINFO_VALID: u32 = 1 << 31;
    /// EXITINFO: EXIT_TYPE of a hardware exception.
    pub const EXIT_TYPE_HARDWARE: u32 = 3 << 8;
    /// EXITINFO: EXIT_TYPE of a software exception.
    pub const EXIT_TYPE_SOFTWARE: u32 = 6 << 8;
}

const _: () = assert!(size_of::<GprSgx>() == gprsgx::SIZE);
const _: () = assert!(size_of::<Tcs>() == tcs::LIMIT);
