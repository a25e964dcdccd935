//! The architectural model of Intel SGX: EPC, EPCM, keys, leaf functions, asynchronous exits and
//! the access check. It knows no CPU implementation, no hypervisor and no virtual machine.
//!
//! Section numbers are those of the Intel SDM of December 2023, where chapters 34 to 40 of
//! volume 3D describe SGX.
//!
//! # What the processor does, and in which order
//!
//! **Decoding.** ENCLS is `NP 0F 01 CF`, ENCLU is `NP 0F 01 D7`, ENCLV is `NP 0F 01 C0`; with a LOCK, 66H, F2H, F3H or
//! VEX prefix they are #UD. Segment and address-size overrides and REX are ignored.
//!
//! **ENCLS** (SDM Vol. 2, ENCLS). The processor checks, in this order: #UD if CR0.PE = 0,
//! RFLAGS.VM = 1, in SMM or no SGX1 in CPUID; #UD if CPL > 0; VM exit by the ENCLS-exiting bitmap
//! (bit 63 for leaves above 62); #GP(0) if IA32_FEATURE_CONTROL is not locked or SGX is not
//! enabled in it; #GP(0) if the leaf number is not one that its guest's CPUID announces; #GP(0)
//! if CR0.PG = 0; #GP(0) outside 64-bit mode if DS is an expand-down data segment. Then it calls
//! [`encls::execute`], applies the [`LeafOutcome`] with [`LeafOutcome::apply`] and moves RIP on.
//!
//! **ENCLU** (SDM Vol. 2, ENCLU). #UD if CR0.PE = 0, RFLAGS.VM = 1, in SMM or no SGX1; #NM if
//! CR0.TS = 1; #UD if CPL < 3; #GP(0) by IA32_FEATURE_CONTROL; #GP(0) for an invalid leaf; #GP(0)
//! if CR0.PG = 0 or CR0.NE = 0; #GP(0) outside 64-bit mode if CS.D = 0. Then it fills a
//! [`ProcessorState`] with `rip` already past the instruction and calls [`enclu::execute`], which
//! itself rejects entry from inside an enclave and everything else from outside. On success it
//! takes the registers back (RIP, RFLAGS, FS, GS and XCR0 among them), and obeys the
//! [`EncluOutcome`]: flush, XRSTOR, single step.
//!
//! **ENCLV** (SDM Vol. 2, ENCLV). #UD if CR0.PE = 0, RFLAGS.VM = 1, in SMM or no OSS (bit 5) in
//! CPUID.12H.0:EAX; #UD outside VMX operation or in compatibility mode; #UD if CPL > 0; in VMX
//! non-root operation #UD unless "enable ENCLV exiting" is set, and VM exit by the ENCLV-exiting
//! bitmap; then as ENCLS from IA32_FEATURE_CONTROL on, with [`enclv::execute`].
//!
//! **A leaf that did not complete** ([`Stop`]) changed nothing. [`Stop::Fault`] is delivered as any
//! exception of the instruction, with RIP at it; in enclave mode that is an AEX.
//! [`Stop::EpcMiss`] and [`Stop::Conflict`] mean: execute it again, after backing the page.
//!
//! **Memory** (SDM Vol. 3D, 35.3 to 35.5). On each TLB fill whose page tables allow the access,
//! the processor calls [`check_access`], in enclave mode for every page and outside it for pages
//! of the EPC, separately for reads, writes and fetches, and caches the outcome. It calls it
//! nowhere else. An access that crosses a page is two accesses. Whenever enclave mode begins or
//! ends ([`EncluOutcome::flush`] and every AEX) all cached translations of this logical processor
//! go, those of global pages and all PCIDs included: eviction relies on it (SDM Vol. 3D, 36.5.3).
//! A TLB may keep the address of an [`EpcPage`] for [`AccessOutcome::Allowed`] only.
//!
//! **Events** (SDM Vol. 3D, chapter 37). Before it delivers any exception, interrupt, NMI, SMI,
//! INIT or VM exit while [`EnclaveState::in_enclave`], the processor XSAVEs the components
//! [`EnclaveState::xfrm`] (standard format, REX.W in 64-bit mode) into an [`XsaveArea`], fills a
//! [`ProcessorState`] with what the event would push as RIP and RFLAGS (RF included), and calls
//! [`aex()`]. It then loads the registers back, flushes its TLB, puts the components
//! [`SyntheticState::init`] into their INIT state, loads FCW, FSW and MXCSR, and delivers
//! [`SyntheticState::event`] as if it had happened at the new RIP, which is the AEP. CR2 of a
//! page fault comes from that event; its error code keeps the SGX bit.
//!
//! **Instructions in enclave mode** (SDM Vol. 3D, 36.6.1 and 40.4.1). #UD: CPUID, GETSEC, RDPMC,
//! SGDT, SIDT, SLDT, STR, SMSW, VMCALL, VMFUNC, IN, INS, OUT, OUTS, far CALL, JMP and RET, INT n,
//! INTO, IRET, LDS, LES, LFS, LGS, LSS, MOV to and POP of a segment register, SYSCALL, SYSENTER,
//! and INT1 and INT3 while [`EnclaveState::debug_opt_out`]. RDTSC and RDTSCP are #UD unless SGX2
//! is announced. INT3 and INT1 are faults (RIP at the instruction) and ignore the gate's DPL.
//! While opted out, POPF leaves TF clear and instruction breakpoints, and data breakpoints on
//! ELRANGE, do not trigger (SDM Vol. 3D, 40.2.5 and 40.3.1).
//!
//! # What a hypervisor does
//!
//! One that intercepts a leaf calls [`encls::execute`] in the processor's place, with a
//! [`LeafPort`] of its own that answers for the guest: with its capabilities and its launch-control
//! hash, and over its memory. A leaf copies each operand once and judges that copy.
//! [`Platform::eremove`] takes pages back. [`Platform::epcm`] and [`Platform::enclave`] look at
//! pages and enclaves without any leaf noticing.
//!
//! # Example
//!
//! ```
//! use cloister_sgx::{EpcIndex, Platform, PlatformConfig, PlatformIdentity, SgxStatus};
//!
//! let identity = PlatformIdentity::from_seed(&[1; 32]);
//! let platform = Platform::new(PlatformConfig::single(256, identity)).unwrap();
//!
//! // An unused page can be removed, and no EPC memory was needed so far.
//! assert_eq!(platform.eremove(EpcIndex(3)), Ok(SgxStatus::Success));
//! assert_eq!(platform.backed_pages(), 0);
//! ```

#![forbid(unsafe_code)]
#![warn(
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::semicolon_if_nothing_returned,
    clippy::tests_outside_test_module
)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod access;
mod aex;
mod attributes;
mod capabilities;
pub mod encls;
pub mod enclu;
pub mod enclv;
mod epc;
mod epcm;
mod identity;
mod inspect;
mod keys;
pub mod layout;
mod measurement;
mod operand;
mod paging;
mod platform;
mod port;
pub mod processor;
mod signature;
mod state;
mod status;
pub mod xsave;

pub use access::{Access, AccessOutcome, check_access};
pub use aex::{ExitingEvent, SyntheticState, aex};
pub use attributes::{AttributeFlags, Attributes, MISCSELECT_EXINFO};
pub use capabilities::{Capabilities, SgxFeatures};
pub use encls::{Ecreate, EnclsRegs, LeafOutcome};
pub use enclu::{EncluOutcome, Stepping};
pub use epc::{EPC_PAGE_SIZE, EpcIndex, EpcPage};
pub use epcm::{EpcmFlags, EpcmView, PageType};
pub use identity::{PlatformFuses, PlatformIdentity};
pub use inspect::{EnclaveIdentity, EnclaveView};
pub use platform::{
    DEFAULT_LE_HASH, EpcSection, EpcSectionConfig, Platform, PlatformConfig, PlatformError,
};
pub use port::{EpcAccess, LeafPort, Stop};
pub use processor::ProcessorState;
pub use state::EnclaveState;
pub use status::SgxStatus;
pub use xsave::XsaveArea;
