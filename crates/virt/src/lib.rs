//! SGX virtualization: what a hypervisor adds to [`cloister_sgx`] so that virtual machines can
//! use it.
//!
//! There are two floors, of which each can be used without the other:
//!
//! * [`policy`]: what a guest may do. [`SgxCpuid`] is what its CPUID says, [`SgxMsrs`] are the MSRs
//!   of a virtual processor, [`policy::encls_exiting`] says which ENCLS leaves exit, and
//!   [`ProvisioningRight`] who may give a guest the provisioning key. Plain data.
//! * [`epc`]: where a guest's EPC comes from. [`EpcPool`] is the host's EPC, shared by all virtual
//!   machines, and [`EpcAccount`] what each of them may take; [`GuestEpc`] are the sections of a
//!   guest, raw pages that the guest itself manages and that are backed when they are first used
//!   (the idea of Linux's `/dev/sgx_vepc`); [`EpcCensus`] is what is in them, for the operator. All
//!   of it is over an [`EpcStore`].
//!
//! [`SgxVm`] and [`SgxVcpu`] join them on the software platform of [`cloister_sgx`], where ENCLS
//! leaves that exited ([`encls`]) are carried out. A guest is reached through the
//! [`LeafPort`](cloister_sgx::LeafPort) of its processor, with [`PolicyPort`] in front of it; no
//! CPU implementation and no VMM is known here.
//!
//! # Example
//!
//! A guest with a quota of EPC, less than the platform's attributes, and a processor that stops at
//! CPUID, WRMSR and ENCLS.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cloister_sgx::encls::leaf;
//! use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
//! use cloister_sgx::*;
//! use cloister_virt::encls::Action;
//! use cloister_virt::{Backing, EpcLimits, EpcPool, SectionConfig, SgxCpuid, SgxVm, WrmsrOutcome};
//! use cloister_x86::cpuid::CpuidResult;
//! use cloister_x86::{Exception, Gpa, La};
//! use zerocopy::{FromZeros, IntoBytes};
//!
//! /// The guest's memory as its processor reaches it: RAM at 0, one to one.
//! struct Processor {
//!     vm: Arc<SgxVm>,
//!     ram: Vec<u8>,
//! }
//!
//! impl LeafPort for Processor {
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
//!         match self.vm.backing(Gpa(la.0)) {
//!             Some(Backing::Page(index)) => Ok(Some(index)),
//!             Some(Backing::None) => Err(Stop::EpcMiss { gpa: Gpa(la.0) }),
//!             None => Ok(None),
//!         }
//!     }
//!     fn event_pending(&mut self) -> bool {
//!         false
//!     }
//!     // What the processor could do by itself. For a leaf that exited, policy answers in its place.
//!     fn capabilities(&self) -> Capabilities {
//!         *self.vm.platform().capabilities()
//!     }
//!     fn le_pubkey_hash(&self) -> [u8; 32] {
//!         *self.vm.platform().default_le_hash()
//!     }
//! }
//!
//! let config = PlatformConfig::single(1024, PlatformIdentity::from_seed(&[1; 32]));
//! let platform = Arc::new(Platform::new(config).unwrap());
//! let mut cpuid = SgxCpuid::all_of(platform.capabilities(), None);
//! cpuid.capabilities.attributes.remove(AttributeFlags::KSS);
//! let limits = EpcLimits { reservation: 16, quota: 64 };
//! let account = EpcPool::new(platform).open("web-7", limits).unwrap();
//! const EPC: u64 = 1 << 32;
//! let section = SectionConfig { base: Gpa(EPC), size: 256 << 12, node: 0, preallocate: false };
//! let vm = Arc::new(SgxVm::new(account, &[section], cpuid).unwrap());
//! let mut vcpu = vm.new_vcpu();
//!
//! // An exit for CPUID: 12H.2 is the section.
//! let answer = vm.amend_cpuid(0x12, 2, CpuidResult::default());
//! assert_eq!((answer.eax, answer.ebx, answer.ecx), (1, 1, 256 << 12 | 1));
//!
//! // An exit for WRMSR: IA32_SGXLEPUBKEYHASH0. Then the processor gets its new bitmap.
//! assert_eq!(vcpu.wrmsr(0x8c, 0x1234), WrmsrOutcome::Handled);
//! let exiting = vcpu.encls_exiting();
//! assert_ne!(exiting & 1 << leaf::ECREATE, 0, "the guest's attributes are not the platform's");
//! assert_eq!(exiting & 1 << leaf::EADD, 0);
//!
//! // Exits for ECREATE, with an attribute that the guest's CPUID lacks and without.
//! let mut processor = Processor { vm: vm.clone(), ram: vec![0; 0x5000] };
//! let secinfo = SecInfo::new(SecInfoFlags::empty(), PageType::Secs);
//! let pageinfo = PageInfo { srcpge: 0x3000.into(), secinfo: 0x2000.into(), ..PageInfo::default() };
//! processor.write(La(0x1000), pageinfo.as_bytes()).unwrap();
//! processor.write(La(0x2000), secinfo.as_bytes()).unwrap();
//! let mut secs = Secs::new_zeroed();
//! (secs.baseaddr, secs.size) = (0x10_0000.into(), 0x2000.into());
//! secs.ssaframesize = 1.into();
//! let regs = EnclsRegs { eax: leaf::ECREATE, rbx: 0x1000, rcx: EPC, rdx: 0, mode64: true };
//! let mut ecreate = |attributes| {
//!     secs.attributes = Attributes::new(attributes, 3);
//!     processor.write(La(0x3000), secs.as_bytes()).unwrap();
//!     vcpu.handle_encls(&mut processor, &regs)
//! };
//! let mode64 = AttributeFlags::MODE64BIT;
//! assert_eq!(ecreate(mode64 | AttributeFlags::KSS), Action::Inject(Exception::gp(0)));
//! assert_eq!(ecreate(mode64), Action::Retire(LeafOutcome::default()));
//! assert_eq!((vm.encls_exits().ecreate, vm.account().statistics().used), (2, 1));
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

pub mod encls;
pub mod epc;
pub mod policy;
mod port;
mod vcpu;
mod vm;

pub use epc::{
    AccountStatistics, Backing, EnclaveCensus, EpcAccount, EpcCensus, EpcError, EpcExhausted,
    EpcLimits, EpcPool, EpcStore, GuestEpc, LISTED_ENCLAVES, LimitError, NodeStatistics,
    PageCounts, PoolStatistics, RemoveError, SectionCensus, VirtualEpc,
};
pub use policy::{
    CpuidError, MAX_SECTIONS, ProvisioningRight, RdmsrOutcome, SectionConfig, SectionError,
    SgxCpuid, SgxMsrs, WrmsrOutcome,
};
pub use port::PolicyPort;
pub use vcpu::SgxVcpu;
pub use vm::{SgxVm, VmError};
