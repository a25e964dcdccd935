//! The architectural model of Intel SGX: EPC, EPCM, keys, leaf functions, asynchronous exits and
//! the access check. It knows no CPU implementation, no hypervisor and no virtual machine.
//!
//! Section numbers are those of the Intel SDM of December 2023, where chapters 34 to 40 of
//! volume 3D describe SGX.
//!
//! # What the processor does, and in which order
//!
//! **Decoding.** ENCLS is `NP 0F 01 CF`, ENCLU is `NP 0F 01 D7`, ENCLV is `NP 0F 01 C0`; with a
//! LOCK, 66H, F2H, F3H or VEX prefix they are #UD. Segment and address-size overrides and REX are
//! ignored.
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
//! [`Stop::EpcMiss`] and [`Stop::Retry`] mean: execute it again, after backing the page.
//! [`Stop::Conflict`] is the VM exit SGX_CONFLICT.
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
//! An enclave of a TCS, a page of code and an SSA frame is built, measured, initialized and entered
//! on a processor that has nothing but flat memory.
//!
//! ```
//! use cloister_sgx::encls::{self, leaf};
//! use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs, SigStruct, Tcs};
//! use cloister_sgx::*;
//! use cloister_x86::{Gpr, La, Rights, Segment};
//! use sha2::{Digest, Sha256};
//! use zerocopy::{FromZeros, IntoBytes};
//!
//! /// RAM at 0, the enclave's EPC pages at 1 MiB, its SECS at 2 MiB.
//! struct Flat {
//!     ram: Vec<u8>,
//!     trusted: [u8; 32],
//! }
//! const ENCLAVE: u64 = 0x10_0000;
//! const SECS: u64 = 0x20_0000;
//!
//! impl LeafPort for Flat {
//!     fn linear(&mut self, ea: u64, _len: u64) -> Result<La, Stop> {
//!         Ok(La(ea))
//!     }
//!     fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
//!         buf.copy_from_slice(&self.ram[la.0 as usize..][..buf.len()]);
//!         Ok(())
//!     }
//!     fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
//!         self.ram[la.0 as usize..][..bytes.len()].copy_from_slice(bytes);
//!         Ok(())
//!     }
//!     fn resolve_epc(&mut self, la: La, _: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
//!         Ok(match la.0 {
//!             SECS => Some(EpcIndex(0)),
//!             ENCLAVE..0x10_3000 => Some(EpcIndex(1 + ((la.0 - ENCLAVE) / 4096) as u32)),
//!             _ => None,
//!         })
//!     }
//!     fn event_pending(&mut self) -> bool {
//!         false
//!     }
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::default()
//!     }
//!     fn le_pubkey_hash(&self) -> [u8; 32] {
//!         self.trusted
//!     }
//! }
//!
//! # // RSA-3072 with exponent 3, as EINIT wants it: little-endian, with the quotients Q1 and Q2.
//! # fn sign(sigstruct: &mut SigStruct) -> [u8; 32] {
//! #     use crypto_bigint::{NonZero, U3072, U6144};
//! #     use rsa::pkcs8::DecodePrivateKey as _;
//! #     use rsa::traits::PublicKeyParts as _;
//! #     let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/signer_a.pem");
//! #     let pem = std::fs::read_to_string(pem).unwrap();
//! #     let key = rsa::PrivateKey::from_pkcs8_pem(&pem).unwrap();
//! #     let mut modulus = key.n_bytes().to_vec();
//! #     modulus.reverse();
//! #     let digest = sigstruct.signed_parts().iter().fold(Sha256::new(), |d, part| d.chain_update(part));
//! #     let signature = key.sign(rsa::Pkcs1v15Sign::new::<Sha256>(), &digest.finalize()).unwrap();
//! #     let s = U3072::from_be_slice(&signature);
//! #     let wide = |value: U3072| -> U6144 { value.resize() };
//! #     let n = NonZero::new(wide(U3072::from_le_slice(&modulus))).unwrap();
//! #     let squared: U6144 = s.concatenating_square();
//! #     let (q1, rest) = squared.div_rem(&n);
//! #     let rest: U3072 = rest.resize();
//! #     let cubed: U6144 = rest.concatenating_mul(&s);
//! #     let (q2, _) = cubed.div_rem(&n);
//! #     let bytes = |value: U6144| value.to_le_bytes().as_ref()[..384].to_vec();
//! #     sigstruct.modulus.copy_from_slice(&modulus);
//! #     sigstruct.signature.copy_from_slice(&bytes(wide(s)));
//! #     sigstruct.q1.copy_from_slice(&bytes(q1));
//! #     sigstruct.q2.copy_from_slice(&bytes(q2));
//! #     Sha256::digest(&modulus).into()
//! # }
//! let platform = Platform::new(PlatformConfig::single(8, PlatformIdentity::from_seed(&[1; 32])));
//! let platform = platform.unwrap();
//! let mut port = Flat { ram: vec![0; 0x10_0000], trusted: DEFAULT_LE_HASH };
//! const SECINFO: u64 = 0x1000;
//! const PAGEINFO: u64 = 0x2000;
//! const SOURCE: u64 = 0x3000;
//!
//! // ECREATE. A signer computes MRENCLAVE from the same records (SDM Vol. 3D, 38.1.2).
//! let mut measurement = Sha256::new();
//! let mut record = |name: &[u8; 8], rest: &[u8]| {
//!     let mut block = [0; 64];
//!     block[..8].copy_from_slice(name);
//!     block[8..8 + rest.len()].copy_from_slice(rest);
//!     measurement.update(block);
//! };
//! let mut secs = Secs::new_zeroed();
//! secs.baseaddr = ENCLAVE.into();
//! secs.size = 0x4000.into();
//! secs.ssaframesize = 1.into();
//! secs.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
//! record(b"ECREATE\0", &[&1_u32.to_le_bytes()[..], &0x4000_u64.to_le_bytes()].concat());
//! let pageinfo = PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
//! port.write(La(SOURCE), secs.as_bytes()).unwrap();
//! port.write(La(PAGEINFO), pageinfo.as_bytes()).unwrap();
//! let regs = EnclsRegs { mode64: true, eax: leaf::ECREATE, rbx: PAGEINFO, rcx: SECS, rdx: 0 };
//! encls::execute(&platform, &mut port, &regs).unwrap();
//!
//! // EADD of the three pages. Without EEXTEND their contents are not measured.
//! let mut tcs = Tcs::new_zeroed();
//! (tcs.oentry, tcs.ossa, tcs.nssa) = (0x1040.into(), 0x2000.into(), 1.into());
//! (tcs.fslimit, tcs.gslimit) = (0xfff.into(), 0xfff.into());
//! let zeros = [0; 4096];
//! for (offset, page_type, flags, contents) in [
//!     (0, PageType::Tcs, SecInfoFlags::empty(), tcs.as_bytes()),
//!     (0x1000, PageType::Reg, SecInfoFlags::R | SecInfoFlags::X, &zeros[..]),
//!     (0x2000, PageType::Reg, SecInfoFlags::R | SecInfoFlags::W, &zeros[..]),
//! ] {
//!     let secinfo = SecInfo::new(flags, page_type);
//!     let pageinfo = PageInfo { linaddr: (ENCLAVE + offset).into(), secs: SECS.into(), ..pageinfo };
//!     record(b"EADD\0\0\0\0", &[&offset.to_le_bytes()[..], &secinfo.as_bytes()[..48]].concat());
//!     port.write(La(SOURCE), &zeros).unwrap();
//!     port.write(La(SOURCE), contents).unwrap();
//!     port.write(La(SECINFO), secinfo.as_bytes()).unwrap();
//!     port.write(La(PAGEINFO), pageinfo.as_bytes()).unwrap();
//!     let regs = EnclsRegs { eax: leaf::EADD, rcx: ENCLAVE + offset, ..regs };
//!     encls::execute(&platform, &mut port, &regs).unwrap();
//! }
//!
//! // EINIT under a SIGSTRUCT of an author whom IA32_SGXLEPUBKEYHASH0-3 trust.
//! let mut sigstruct = SigStruct::new_zeroed();
//! sigstruct.header = SigStruct::HEADER;
//! sigstruct.header2 = SigStruct::HEADER2;
//! sigstruct.exponent = 3.into();
//! sigstruct.attributes = secs.attributes;
//! sigstruct.attributemask = Attributes::new(AttributeFlags::all(), !0);
//! sigstruct.enclavehash = measurement.finalize().into();
//! port.trusted = sign(&mut sigstruct);
//! port.write(La(SOURCE), sigstruct.as_bytes()).unwrap();
//! port.write(La(PAGEINFO), EinitToken::none().as_bytes()).unwrap();
//! let regs = EnclsRegs { eax: leaf::EINIT, rbx: SOURCE, rcx: SECS, rdx: PAGEINFO, ..regs };
//! let outcome = encls::execute(&platform, &mut port, &regs).unwrap();
//! assert_eq!(outcome.status, Some(SgxStatus::Success));
//!
//! // EENTER: RIP is at the TCS's entry, and RCX says where EEXIT may return to.
//! let flat = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: Rights(0xc0f3) };
//! let mut cpu = ProcessorState {
//!     rip: 0x4003,
//!     rflags: 0x202,
//!     cs: Segment { selector: 0x33, rights: Rights(0xa0fb), ..flat },
//!     ss: flat,
//!     ds: flat,
//!     es: flat,
//!     fs: flat,
//!     gs: flat,
//!     xcr0: 3,
//!     mode64: true,
//!     osfxsr: true,
//!     osxsave: true,
//!     ..ProcessorState::default()
//! };
//! cpu.gpr[Gpr::Rax] = enclu::leaf::EENTER.into();
//! (cpu.gpr[Gpr::Rbx], cpu.gpr[Gpr::Rcx]) = (ENCLAVE, 0x5000);
//! let (mut state, mut xsave) = (EnclaveState::new(), XsaveArea::default());
//! enclu::execute(&platform, &mut state, &mut port, &mut cpu, &mut xsave).unwrap();
//! assert!(state.in_enclave());
//! assert_eq!((cpu.rip, cpu.gpr[Gpr::Rcx]), (ENCLAVE + 0x1040, 0x4003));
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]
#![cfg_attr(
    not(test),
    expect(
        clippy::cast_possible_truncation,
        reason = "registers and fields are parts of wider ones, and offsets in a page are small"
    )
)]

mod access;
mod aex;
mod attributes;
mod capabilities;
pub mod encls;
pub mod enclu;
pub mod enclv;
mod epc;
mod epcm;
mod hold;
mod identity;
mod inspect;
mod keys;
pub mod layout;
mod manufacturer;
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
pub use encls::{EnclsRegs, LeafOutcome};
pub use enclu::{EncluOutcome, Stepping};
pub use epc::{EPC_PAGE_SIZE, EpcIndex, EpcPage};
pub use epcm::{EpcmFlags, EpcmView, PageType};
pub use hold::HeldPage;
pub use identity::{PlatformFuses, PlatformIdentity};
pub use inspect::{EnclaveIdentity, EnclaveView};
pub use platform::{
    DEFAULT_LE_HASH, EpcSection, EpcSectionConfig, Platform, PlatformConfig, PlatformError,
};
pub use port::{Conflict, EpcAccess, LeafPort, Stop};
pub use processor::ProcessorState;
pub use state::EnclaveState;
pub use status::SgxStatus;
pub use xsave::XsaveArea;
