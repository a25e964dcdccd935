//! A machine's processors under KVM.

#![expect(unsafe_code, reason = "gives KVM guest RAM")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloister_boot::EntryState;
use cloister_devices::{DmaObserver, IOAPIC_PINS, MsiSink};
use cloister_x86::{PAGE_SIZE, msr};
use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_USER_SPACE_MSR, KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    KVM_MEM_READONLY, KVM_MSR_EXIT_REASON_FILTER, kvm_cpuid_entry2, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion as _,
    MemoryRegionAddress,
};

use super::abort_page::StandIn;
use super::host::Host;
use super::interrupts::LocalApics;
use super::kick::{Kick, Kicks};
use super::pages::RunPages;
use super::sgx::HostSgx;
use super::trap::{self, Handler, Trap};
use super::vcpu::KvmVcpu;
use super::{clock, msrs, state};
use crate::accel::entry::at_entry;
use crate::accel::soft::SoftVm;
use crate::accel::{GuestSgx, Vcpu, VcpuError, Vm, VmConfig};
use crate::cpuid::{CpuidState, CpuidTable, GuestCpuid};

/// Three pages of the 32-bit hole that KVM takes on Intel for real mode without "unrestricted guest", and
/// the page of page tables before them.
const TSS: u64 = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// The page of the reset vector.
const RESET_PAGE: u64 = 0xffff_f000;
/// What is at the reset vector, in its 16 bytes: what a PC's firmware does after an INIT of the bootstrap
/// processor, which starts the machine over by its keyboard controller. MOV AL, 0FEH; OUT 64H, AL; HLT; JMP
/// to the HLT.
const RESET_CODE: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
const RESET_VECTOR: u64 = 0xffff_fff0;

/// What the threads of one boot share of a machine. The descriptor comes first: it is closed before the
/// memory is unmapped that KVM maps into the guest.
pub(super) struct Shared {
    pub(super) fd: VmFd,
    pub(super) ram: GuestMemoryMmap,
    /// The guest's EPC, if it has any.
    sgx: Option<Arc<HostSgx>>,
    /// Where SGX that the host does not have begins.
    pub(super) handler: Handler,
    /// The page of the reset vector.
    _reset: GuestMemoryMmap,
    /// Nanoseconds that the guest's clock is to have stood still since the boot.
    pub(super) stood_still: AtomicU64,
    /// Whether the guest has KVM's clock, which stands still too.
    has_clock: bool,
    pub(super) tsc_khz: u32,
}

/// The processors of a machine, executed by KVM.
pub(in crate::accel) struct KvmVm {
    host: Arc<Host>,
    shared: Arc<Shared>,
    apics: Arc<LocalApics>,
    cpuid: GuestCpuid,
    vmx: bool,
    kicks: Arc<Kicks>,
    /// The processors that stand in for enclaves, where the host has no SGX.
    stand_in: Option<SoftVm>,
}

/// What CPUID says on processors of this host.
pub(in crate::accel) fn cpuid(host: &Host, config: &VmConfig) -> GuestCpuid {
    GuestCpuid::new(CpuidTable::new(host.cpu.model(config.vmx), config.cpus), config.sgx.clone())
}

impl KvmVm {
    /// Processors in the state after reset; their threads are the caller's.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    pub(in crate::accel) fn new(
        host: &Arc<Host>,
        config: &VmConfig,
        made: Option<&StandIn>,
    ) -> Result<Self, VcpuError> {
        let failed = |what| move |error| VcpuError::kvm(what, error);
        let handled = Kick::prepare();
        handled.map_err(|source| VcpuError::Kvm { what: "sigaction(2)", source })?;
        let fd = host.kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        fd.set_identity_map_address(IDENTITY_MAP).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        let tss = usize::try_from(TSS).unwrap_or(usize::MAX);
        fd.set_tss_address(tss).map_err(failed("KVM_SET_TSS_ADDR"))?;
        let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        split.args[0] = IOAPIC_PINS.into();
        fd.enable_cap(&split).map_err(failed("KVM_CAP_SPLIT_IRQCHIP"))?;
        let reset = reset_page().ok_or(VcpuError::Memory)?;
        let sgx = config.sgx.as_ref().and_then(GuestSgx::host).cloned();
        let mut regions: Vec<(u64, u64, u64)> = Vec::new();
        for region in config.ram.iter().chain(reset.iter()) {
            let host = region.get_host_address(MemoryRegionAddress(0));
            let host = host.map_err(|_| VcpuError::Memory)?;
            regions.push((region.start_addr().0, host as u64, region.len()));
        }
        let writable = regions.len();
        if let Some(sgx) = &sgx {
            sgx.provision(&fd)?;
            regions.extend(sgx.regions());
        }
        let mut stand_in = None;
        if let Some(made) = made {
            trap_msrs(&fd)?;
            regions.extend(made.regions());
            let tsc_hz = u64::from(host.cpu.tsc_khz()) * 1000;
            stand_in = Some(SoftVm::new(config, made.translators(), tsc_hz)?);
        }
        let read_only = |slot: u32| stand_in.is_some() && slot as usize >= writable;
        for (slot, (guest_phys_addr, userspace_addr, memory_size)) in (0..).zip(regions) {
            let flags = if read_only(slot) { KVM_MEM_READONLY } else { 0 };
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr,
                memory_size,
                userspace_addr,
            };
            // SAFETY: the bytes are mapped as long as `Shared` has the regions, and it closes the
            // descriptor before. What the guest does to them is what shared memory is for.
            let set = unsafe { fd.set_user_memory_region(region) };
            set.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let shared = Arc::new(Shared {
            fd,
            ram: config.ram.clone(),
            sgx,
            handler: Handler::default(),
            _reset: reset,
            stood_still: AtomicU64::new(0),
            has_clock: host.cpu.needs_kvm_clock(),
            tsc_khz: host.cpu.tsc_khz(),
        });
        Ok(Self {
            host: host.clone(),
            apics: Arc::new(LocalApics::new(shared.clone())),
            shared,
            cpuid: cpuid(host, config),
            vmx: config.vmx,
            kicks: Arc::default(),
            stand_in,
        })
    }

    /// The leaves of CPUID on the processor with APIC ID `id`, after reset. What changes as it runs, KVM
    /// keeps up to date: OSXSAVE, APIC, the size of the XSAVE area.
    fn leaves(&self, id: u32) -> Result<CpuId, VcpuError> {
        let state = CpuidState::at_reset(id);
        let entries = self.cpuid.leaves().into_iter().map(|(function, index, has_index)| {
            let result = self.cpuid.query(function, index, &state);
            kvm_cpuid_entry2 {
                function,
                index,
                flags: if has_index { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
                eax: result.eax,
                ebx: result.ebx,
                ecx: result.ecx,
                edx: result.edx,
                ..Default::default()
            }
        });
        let entries: Vec<_> = entries.collect();
        CpuId::from_entries(&entries).map_err(|_| VcpuError::Memory)
    }

    /// IA32_FEATURE_CONTROL as firmware locks it, where there is something to enable.
    fn feature_control(&self) -> Option<u64> {
        let vmx = if self.vmx { msr::FEATURE_CONTROL_VMX } else { 0 };
        let sgx = self.shared.sgx.as_ref().map_or(0, |sgx| sgx.feature_control());
        let enabled = vmx | sgx;
        (enabled != 0).then_some(msr::FEATURE_CONTROL_LOCK | enabled)
    }
}

impl Vm for KvmVm {
    fn vcpu(&self, id: u32, entry: Option<&EntryState>) -> Result<Box<dyn Vcpu>, VcpuError> {
        let failed = |what| move |error| VcpuError::kvm(what, error);
        let fd = self.shared.fd.create_vcpu(id.into()).map_err(failed("KVM_CREATE_VCPU"))?;
        let pages = RunPages::map(&fd, self.shared.fd.run_size());
        let pages = pages.map_err(|error| VcpuError::Kvm {
            what: "mmap(2) of a processor",
            source: io::Error::from_raw_os_error(error.raw_os_error()),
        })?;
        fd.set_cpuid2(&self.leaves(id)?).map_err(failed("KVM_SET_CPUID2"))?;
        msrs::set(&fd, &msrs::after_firmware(&self.host.msrs, self.feature_control()))?;
        if let Some(sgx) = &self.shared.sgx {
            msrs::set(&fd, &sgx.launch_hash())?;
        }
        if let Some(entry) = entry {
            state::set(&fd, &at_entry(entry))?;
        }
        let pages = Arc::new(pages);
        let kick = Arc::new(Kick::new(pages.clone()));
        self.kicks.add(kick.clone());
        let trap = self
            .stand_in
            .as_ref()
            .map(|soft| Trap::new(soft.processor(id, None), self.kicks.clone()));
        let (shared, apics) = (self.shared.clone(), self.apics.clone());
        Ok(Box::new(KvmVcpu::new(fd, pages, kick, shared, apics, trap)))
    }

    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        self.apics.clone()
    }

    fn dma_observer(&self) -> Option<Arc<dyn DmaObserver>> {
        None
    }

    fn interrupt_all(&self) {
        self.kicks.request();
        if let Some(soft) = &self.stand_in {
            soft.interrupt_all();
        }
    }

    fn skip_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.shared.stood_still.fetch_add(nanoseconds, Ordering::SeqCst);
        if self.shared.has_clock
            && let Err(error) = clock::set_back(&self.shared.fd, nanoseconds)
        {
            tracing::warn!(%error, "the time of the stop has passed for the guest");
        }
    }
}

/// Has RDMSR and WRMSR of the registers of SGX come here.
fn trap_msrs(fd: &VmFd) -> Result<(), VcpuError> {
    let failed = |what| move |error| VcpuError::kvm(what, error);
    let mut exits = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    exits.args[0] = KVM_MSR_EXIT_REASON_FILTER.into();
    fd.enable_cap(&exits).map_err(failed("KVM_CAP_X86_USER_SPACE_MSR"))?;
    // A bit that is clear stops.
    let ranges = trap::MSRS.map(|(base, msr_count)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &[0],
    });
    let filtered = fd.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges);
    filtered.map_err(failed("KVM_X86_SET_MSR_FILTER"))
}

/// A page with the code of the reset vector.
fn reset_page() -> Option<GuestMemoryMmap> {
    let page = usize::try_from(PAGE_SIZE).ok()?;
    let page = GuestMemoryMmap::from_ranges(&[(GuestAddress(RESET_PAGE), page)]).ok()?;
    page.write_slice(&RESET_CODE, GuestAddress(RESET_VECTOR)).ok()?;
    Some(page)
}
