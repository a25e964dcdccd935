//! A machine's software processors.

use std::sync::Arc;
use std::time::Duration;

use cloister_boot::EntryState;
use cloister_cpu::{Features, Package, prepare_barrier};
use cloister_devices::{DmaObserver, MsiSink};
use cloister_sgx::Capabilities;
use cloister_virt::SgxVm;

use super::memory::SoftMemory;
use super::translators::Translators;
use super::vcpu::SoftVcpu;
use crate::accel::{GuestSgx, Vcpu, VcpuError, Vm, VmConfig};
use crate::cpuid::{CpuModel, CpuidTable, GuestCpuid};
use crate::layout::PHYS_BITS;

/// What CPUID says on software processors.
pub(in crate::accel) fn cpuid(config: &VmConfig) -> GuestCpuid {
    let model = CpuModel::software(Features::default().xcr0);
    let model = if config.vmx { model.with_vmx() } else { model };
    GuestCpuid::new(CpuidTable::new(model, config.cpus), config.sgx.clone())
}

/// The processors of a machine, executed in software.
pub(in crate::accel) struct SoftVm {
    package: Arc<Package>,
    memory: Arc<SoftMemory>,
    cpuid: GuestCpuid,
    features: Features,
    sgx: Option<Arc<SgxVm>>,
    translators: Translators,
}

impl SoftVm {
    /// Processors in the state after reset, whose time stamp counters run at `tsc_hz`; their threads are the
    /// caller's.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Memory`], [`VcpuError::Barrier`].
    pub(in crate::accel) fn new(
        config: &VmConfig,
        translators: &Translators,
        tsc_hz: u64,
    ) -> Result<Self, VcpuError> {
        if config.cpus > 1 {
            prepare_barrier().map_err(VcpuError::Barrier)?;
        }
        let sgx = config.sgx.as_ref().and_then(GuestSgx::soft).cloned();
        let memory = SoftMemory::new(&config.ram, sgx.clone()).ok_or(VcpuError::Memory)?;
        let memory = Arc::new(memory);
        let platform = sgx.as_ref().map(|sgx| sgx.platform().clone());
        let announced = sgx.as_ref().map(|sgx| sgx.cpuid().capabilities);
        let features = Features {
            physical_bits: PHYS_BITS,
            vmx: config.vmx,
            sgx: announced.unwrap_or(Capabilities::NONE),
            ..Features::default()
        };
        Ok(Self {
            package: Package::new(memory.clone(), platform, config.cpus as usize, tsc_hz),
            memory,
            cpuid: cpuid(config),
            features,
            sgx,
            translators: translators.clone(),
        })
    }

    /// The processor with APIC ID `id`; see [`Vm::vcpu`].
    pub(in crate::accel) fn processor(&self, id: u32, entry: Option<&EntryState>) -> SoftVcpu {
        let vcpu = cloister_cpu::Vcpu::new(self.package.clone(), id, self.features);
        let mut vcpu = SoftVcpu::new(vcpu, id, self.cpuid.clone(), self.sgx.clone(), entry);
        vcpu.translate(self.translators.clone());
        vcpu
    }
}

impl Vm for SoftVm {
    fn vcpu(&self, id: u32, entry: Option<&EntryState>) -> Result<Box<dyn Vcpu>, VcpuError> {
        Ok(Box::new(self.processor(id, entry)))
    }

    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        Arc::new(ApicBus(self.package.clone()))
    }

    fn dma_observer(&self) -> Option<Arc<dyn DmaObserver>> {
        Some(self.memory.clone())
    }

    fn interrupt_all(&self) {
        for kicker in &self.package.kickers {
            kicker.request_exit();
        }
    }

    fn skip_time(&self, time: Duration) {
        self.package.skip(time);
    }
}

/// The way from the I/O APIC to the local APICs.
struct ApicBus(Arc<Package>);

impl MsiSink for ApicBus {
    fn deliver(&self, address: u64, data: u32) {
        self.0.deliver_msi(address, data);
    }
}
