//! What a machine makes of a model of processor: how many there are, what each is doing, and that
//! it is a virtual machine.

use std::sync::Arc;

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::{Cr4, Xfeatures};

use super::model::{CpuModel, regs, word};

/// The highest basic leaf under IA32_MISC_ENABLE's "limit CPUID maxval" (SDM Vol. 4, MSR 1A0H).
const LIMITED_LEAF: u32 = 2;
/// Extended topology, which is the machine's.
const LEAF_TOPOLOGY: u32 = 0x0b;
/// The signature of KVM, by which Linux uses x2APIC without interrupt remapping, and what of KVM's features the model
/// has: none on software processors (Linux, Documentation/virt/kvm/x86/cpuid.rst).
const LEAF_KVM: u32 = 0x4000_0000;
const KVM: CpuidResult = regs(LEAF_KVM_FEATURES, word(b"KVMK"), word(b"VMKV"), word(b"M\0\0\0"));
pub(super) const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
/// Leaf 1, ECX: OSXSAVE.
pub(super) const LEAF_1_ECX_OSXSAVE: u32 = 1 << 27;
/// Leaf 1, EDX: APIC.
pub(super) const LEAF_1_EDX_APIC: u32 = 1 << 9;
/// Leaf 1, EDX: HTT.
const LEAF_1_EDX_HTT: u32 = 1 << 28;
/// Leaf 80000001H, EDX: execute disable.
const EXTENDED_1_EDX_XD: u32 = 1 << 20;

/// State of a processor that CPUID reflects.
#[derive(Clone, Copy, Debug)]
pub struct CpuidState {
    /// Its APIC ID.
    pub apic_id: u32,
    /// IA32_APIC_BASE.EN.
    pub apic_enabled: bool,
    /// CR4, for OSXSAVE.
    pub cr4: Cr4,
    /// XCR0, for the size of the XSAVE area.
    pub xcr0: Xfeatures,
    /// IA32_MISC_ENABLE bit 22: basic leaves end with leaf 2.
    pub leaves_limited: bool,
    /// IA32_MISC_ENABLE bit 34 clear: there is an execute-disable bit.
    pub execute_disable: bool,
}

impl CpuidState {
    /// What the processor with APIC ID `apic_id` has after reset.
    #[must_use]
    pub const fn at_reset(apic_id: u32) -> Self {
        let (cr4, xcr0) = (Cr4::empty(), Xfeatures::X87);
        Self {
            apic_id,
            apic_enabled: true,
            cr4,
            xcr0,
            leaves_limited: false,
            execute_disable: true,
        }
    }
}

/// The CPUID leaves of a machine.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    model: Arc<CpuModel>,
    cpus: u32,
}

impl CpuidTable {
    /// Leaves for a machine of one package with `cpus` single-threaded cores of a model.
    #[must_use]
    pub fn new(model: CpuModel, cpus: u32) -> Self {
        Self { model: Arc::new(model), cpus }
    }

    /// What CPUID returns. A leaf beyond the highest gives what the highest basic leaf gives
    /// (SDM Vol. 2A, CPUID, "INPUT EAX").
    #[must_use]
    pub fn query(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        let extended = self.model.leaf(0x8000_0000, 0).eax;
        let last = self.last_leaf(state);
        match leaf {
            LEAF_KVM => KVM,
            LEAF_KVM_FEATURES => self.model.leaf(leaf, 0),
            0x8000_0000.. if leaf <= extended => self.answer(leaf, subleaf, state),
            _ if leaf <= last => self.answer(leaf, subleaf, state),
            _ => self.answer(last, subleaf, state),
        }
    }

    /// Every leaf and subleaf that is not all zero, each once, and whether the leaf looks at ECX.
    #[must_use]
    pub fn leaves(&self) -> Vec<(u32, u32, bool)> {
        let topology = (0..2).map(|level| (LEAF_TOPOLOGY, level));
        let all = self.model.leaves().chain(topology).chain([(LEAF_KVM, 0)]);
        all.map(|(leaf, subleaf)| (leaf, subleaf, CpuModel::has_subleaves(leaf))).collect()
    }

    /// The highest basic leaf.
    fn last_leaf(&self, state: &CpuidState) -> u32 {
        let last = self.model.leaf(0, 0).eax;
        if state.leaves_limited { last.min(LIMITED_LEAF) } else { last }
    }

    /// The model's leaf with what depends on the machine and on the processor.
    fn answer(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        let counted = if CpuModel::has_subleaves(leaf) { subleaf } else { 0 };
        let mut result = self.model.leaf(leaf, counted);
        let set = |register: &mut u32, bit: u32, on: bool| {
            *register = *register & !bit | if on { bit } else { 0 };
        };
        match leaf {
            0x00 => result.eax = self.last_leaf(state),
            0x01 => {
                result.ebx |= state.apic_id << 24 | self.addressable() << 16;
                set(&mut result.ecx, LEAF_1_ECX_OSXSAVE, state.cr4.contains(Cr4::OSXSAVE));
                set(&mut result.edx, LEAF_1_EDX_APIC, state.apic_enabled);
                set(&mut result.edx, LEAF_1_EDX_HTT, self.cpus > 1);
            }
            0x04 => self.share(&mut result),
            LEAF_TOPOLOGY => result = self.topology(subleaf, state),
            0x0d => match subleaf {
                0 => {
                    let all = Xfeatures::from_bits_retain(
                        u64::from(result.edx) << 32 | u64::from(result.eax),
                    );
                    result.ebx = self.model.xsave_size(state.xcr0);
                    result.ecx = self.model.xsave_size(all);
                }
                1 => result.ebx = self.model.xsave_size(state.xcr0),
                _ => {}
            },
            0x8000_0001 => set(&mut result.edx, EXTENDED_1_EDX_XD, state.execute_disable),
            _ => {}
        }
        result
    }

    /// APIC IDs that the package reserves.
    const fn addressable(&self) -> u32 {
        self.cpus.next_power_of_two()
    }

    /// Who shares a cache: all processors L3, each has the others for itself.
    const fn share(&self, cache: &mut CpuidResult) {
        if cache.eax & 0x1f == 0 {
            return;
        }
        let sharing = if cache.eax >> 5 & 7 == 3 { self.addressable() } else { 1 };
        cache.eax |= (self.addressable() - 1) << 26 | (sharing - 1) << 14;
    }

    /// Extended topology: one thread per core, all cores in one package.
    const fn topology(&self, subleaf: u32, state: &CpuidState) -> CpuidResult {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        let (shift, count, kind) = match subleaf {
            0 => (0, 1, SMT),
            1 => (self.addressable().trailing_zeros(), self.cpus, CORE),
            _ => (0, 0, 0),
        };
        regs(shift, count, kind << 8 | subleaf & 0xff, state.apic_id)
    }
}
