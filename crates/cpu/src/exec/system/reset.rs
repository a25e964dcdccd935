//! State after power-up, reset and INIT (SDM Vol. 3A, table 9-1).

use std::sync::Arc;

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags, Xfeatures};

use super::event::{Event, Kind};
use crate::crowd::Patience;
use crate::flags::Flags;
use crate::mem::tlb::{MmuMode, Tlb};
use crate::mode::Mode;
use crate::segment::{Rights, Segment, TableRegister, seg};
use crate::state::{Cpu, Features, Shared, attention};

impl Cpu {
    /// State after power-up. Processor 0 runs from the reset vector; others wait for a start-up
    /// IPI.
    ///
    /// # Panics
    ///
    /// If `id` is not a processor of the machine.
    #[must_use]
    pub fn reset(shared: Arc<Shared>, id: u32, features: Features) -> Self {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, rights: Rights(0x93) };
        let mut segs = [data; 8];
        segs[seg::CS] =
            Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, rights: Rights(0x9b) };
        segs[seg::TR].rights = Rights(0x8b);
        segs[seg::LDTR].rights = Rights(0x82);
        let table = TableRegister { base: 0, limit: 0xffff };
        let kicker = shared.kickers[id as usize].clone();
        let mut gpr = [0; 32];
        // Family 6, model 6AH, stepping 6 (Ice Lake server).
        gpr[2] = 0x606a6;
        let platform = shared.platform.as_ref();
        let le_pubkey_hash = platform.map_or([0; 32], |platform| *platform.default_le_hash());
        let cpu = Self {
            gpr,
            rip: 0xfff0,
            flags: Flags::default(),
            system_flags: Rflags::empty(),
            attention: if id == 0 { 0 } else { attention::HALTED },
            mmu_mode: MmuMode::Supervisor,
            tlb: Tlb::default(),
            fetch_key: 0,
            block_phys: u64::MAX,
            alone: false,
            patience: Patience::default(),
            non_canonical_fault: false,
            fault: None,
            exit: None,
            device_log: Vec::new(),
            device_next: 0,
            mode: Mode::legacy(false, false).with_real(true),
            cpl: 0,
            segs,
            gdtr: table,
            idtr: table,
            cr0: Cr0::CD | Cr0::NW | Cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            xcr0: Xfeatures::X87,
            dr: [0; 4],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            debug_pending: 0,
            single_step: false,
            between_iterations: false,
            nmi_blocked: false,
            pdptes: [0; 4],
            msrs: super::msr::Msrs::default(),
            fpu: crate::exec::x87::Fpu::default(),
            vector: crate::exec::vector::VectorState::default(),
            apic: super::apic::LocalApic::new(id),
            enclave: cloister_sgx::EnclaveState::default(),
            sgx_enabled: false,
            le_pubkey_hash,
            encls_exiting: 0,
            enclv_exiting: None,
            epc_virtualization: false,
            features,
            shared,
            kicker,
        };
        cpu.publish_apic();
        cpu
    }

    /// INIT: as reset, but caches, TSC, MSRs, x87 and vector state stay (SDM Vol. 3A, table 9-1).
    /// The bootstrap processor runs from the reset vector, others wait for a start-up IPI.
    pub fn init(&mut self) {
        // INIT leaves an enclave as every event does.
        let mut event = Event::plain(0, Kind::Init);
        crate::exec::sgx::before_event(self, &mut event);
        let fresh = Self::reset(self.shared.clone(), self.apic.id(), self.features);
        let old = std::mem::replace(self, fresh);
        self.cr0 |= old.cr0 & (Cr0::CD | Cr0::NW);
        self.cr0.remove((Cr0::CD | Cr0::NW) - old.cr0);
        self.xcr0 = old.xcr0;
        self.msrs = old.msrs;
        self.fpu = old.fpu;
        self.vector = old.vector;
        self.enclave = old.enclave;
        self.encls_exiting = old.encls_exiting;
        self.enclv_exiting = old.enclv_exiting;
        self.epc_virtualization = old.epc_virtualization;
        self.sgx_enabled = old.sgx_enabled;
        self.le_pubkey_hash = old.le_pubkey_hash;
        self.tlb = old.tlb;
        self.tlb.flush_all();
        self.apic = old.apic;
        self.apic.init();
        self.publish_apic();
        self.attention =
            if self.apic.waits_for_sipi() { attention::HALTED } else { attention::INTERRUPTS };
        self.update_mode();
    }
}
