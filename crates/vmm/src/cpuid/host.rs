//! The processors of a host with KVM, as guests may have them: what KVM supports (KVM_GET_SUPPORTED_CPUID),
//! without what this machine does not have or keep.

use std::collections::BTreeMap;

use cloister_sgx::{Capabilities, SgxFeatures};
use cloister_x86::cpuid::{CpuidResult, FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, LEAF_SGX};
use cloister_x86::regs::Xfeatures;

use super::filter::LEAF_KVM_FEATURES;
use super::model::{CpuModel, regs};

/// What the host's processors are under KVM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCpu {
    supported: BTreeMap<(u32, u32), CpuidResult>,
    tsc_khz: u32,
}

/// A mask of the bits given.
macro_rules! bits {
    ($($bit:literal),+ $(,)?) => { 0_u32 $(| 1 << $bit)+ };
}

/// Highest basic leaf: the frequencies.
const MAX_LEAF: u32 = 0x16;
/// Highest extended leaf: address sizes.
const MAX_EXTENDED_LEAF: u32 = 0x8000_0008;
/// Width of linear addresses in bits.
const LINEAR_BITS: u32 = 48;
/// Frequency of the local APIC's timer in KVM, in Hz, and so of the core crystal clock.
const CRYSTAL_HZ: u32 = 1_000_000_000;

/// Leaf 1, ECX, never there: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, xTPR, PDCM, DCA.
const LEAF_1_ECX_WITHOUT: u32 = bits!(2, 3, 4, 5, 6, 7, 8, 14, 15, 18);
/// Leaf 1, ECX, always there, by KVM's local APIC and because it is a guest: x2APIC, TSC-deadline,
/// hypervisor.
const LEAF_1_ECX_WITH: u32 = bits!(21, 24, 31);
const LEAF_1_ECX_VMX: u32 = bits!(5);
/// Leaf 1, EDX, never there: DS, ACPI, TM, PBE.
const LEAF_1_EDX_WITHOUT: u32 = bits!(21, 22, 29, 31);
/// Leaf 1, EBX: the line of CLFLUSH.
const LEAF_1_EBX: u32 = 0xff00;
/// Leaf 4, EAX: what a cache is, without who shares it.
const LEAF_4_EAX: u32 = 0x3ff;
/// Leaf 6, EAX: ARAT.
const LEAF_6_EAX: u32 = bits!(2);
/// Leaf 7, EBX, never there: SGX (which is policy), PQM, PQE, Intel PT.
const LEAF_7_EBX_WITHOUT: u32 = bits!(2, 12, 15, 25);
/// Leaf 7, ECX, never there: PKU, OSPKE, WAITPKG, CET_SS, TME, LA57, bus lock detection, SGX_LC, PKS.
const LEAF_7_ECX_WITHOUT: u32 = bits!(3, 4, 5, 7, 13, 16, 24, 30, 31);
/// Leaf 7, EDX, never there: SGX-KEYS, UINTR, PCONFIG, architectural LBRs, CET_IBT, AMX.
const LEAF_7_EDX_WITHOUT: u32 = bits!(1, 5, 18, 19, 20, 22, 24, 25);
/// Leaf 7 subleaf 1, EAX: AVX-VNNI, AVX512_BF16, fast short REP MOVSB, STOSB and CMPSB, AVX-IFMA.
const LEAF_7_1_EAX: u32 = bits!(4, 5, 10, 11, 12, 23);
/// State components: x87, SSE, AVX, and the three of AVX-512.
const COMPONENTS: u32 = bits!(0, 1, 2, 5, 6, 7);
/// Leaf 0DH subleaf 1, EAX: XSAVEOPT, XSAVEC, XGETBV with ECX 1, XSAVES.
const XSAVE_INSTRUCTIONS: u32 = bits!(0, 1, 2, 3);
/// Leaf 80000001H, ECX, never there: SVM, extended APIC space, IBS, SKINIT, WDT, LWP, NodeId, topology
/// extensions, performance counters, MONITORX.
const EXTENDED_1_ECX_WITHOUT: u32 = bits!(2, 3, 10, 12, 13, 15, 19, 22, 23, 24, 28, 29);
/// Leaf 40000001H, EAX: KVM's clock, by the later of its registers, and that it is the same on all processors
/// (Linux, Documentation/virt/kvm/x86/cpuid.rst).
const KVM_CLOCK: u32 = bits!(3);
const KVM_CLOCK_STABLE: u32 = bits!(24);
/// Leaf 0, EBX, of Intel's processors: "Genu".
const INTEL: u32 = 0x756e_6547;
/// Leaf 80000007H, EDX: invariant TSC.
const EXTENDED_7_EDX: u32 = bits!(8);

impl HostCpu {
    /// What KVM supports, by leaf and subleaf, and the frequency of the time stamp counter in kHz.
    #[must_use]
    pub const fn new(supported: BTreeMap<(u32, u32), CpuidResult>, tsc_khz: u32) -> Self {
        Self { supported, tsc_khz }
    }

    /// Frequency of the time stamp counter in kHz.
    #[must_use]
    pub const fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }

    /// MAXPHYADDR: width of guest-physical addresses in bits.
    #[must_use]
    pub fn physical_bits(&self) -> u32 {
        self.supported(0x8000_0008, 0).eax & 0xff
    }

    /// Whether guests can have VMX.
    #[must_use]
    pub fn has_vmx(&self) -> bool {
        self.supported(1, 0).ecx & LEAF_1_ECX_VMX != 0
    }

    /// Whether KVM has a clock for guests.
    #[must_use]
    pub fn has_kvm_clock(&self) -> bool {
        self.supported(LEAF_KVM_FEATURES, 0).eax & KVM_CLOCK != 0
    }

    /// Whether guests take their time from KVM's clock: Linux does not believe CPUID 15H of other processors than
    /// Intel's.
    #[must_use]
    pub fn needs_kvm_clock(&self) -> bool {
        self.supported(0, 0).ebx != INTEL
    }

    /// What the guest's SGX can be, and whether it can have launch control. `None` if KVM gives guests none.
    #[must_use]
    pub fn sgx(&self) -> Option<(Capabilities, bool)> {
        let features = self.supported(7, 0);
        let capabilities =
            Capabilities::from_cpuid(self.supported(LEAF_SGX, 0), self.supported(LEAF_SGX, 1));
        // What of the processor's state a guest does not have, its enclaves do not either.
        let xfrm = capabilities.xfrm & self.xfeatures().bits();
        let announced = features.ebx & FEATURE_7_EBX_SGX != 0;
        (announced && capabilities.features.contains(SgxFeatures::SGX1)).then_some((
            Capabilities { xfrm, ..capabilities },
            features.ecx & FEATURE_7_ECX_SGX_LC != 0,
        ))
    }

    fn supported(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.supported.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    /// The model of processor that a machine's table is made of.
    #[must_use]
    pub fn model(&self, vmx: bool) -> CpuModel {
        let mut leaves = BTreeMap::new();
        for (&(leaf, subleaf), &supported) in &self.supported {
            if let Some(result) = self.allowed(leaf, subleaf, supported) {
                leaves.insert((leaf, subleaf), result);
            }
        }
        if vmx {
            leaves.entry((1, 0)).or_default().ecx |= LEAF_1_ECX_VMX;
        }
        if self.needs_kvm_clock() {
            let features =
                self.supported(LEAF_KVM_FEATURES, 0).eax & (KVM_CLOCK | KVM_CLOCK_STABLE);
            leaves.insert((LEAF_KVM_FEATURES, 0), regs(features, 0, 0, 0));
        }
        leaves.insert((6, 0), regs(LEAF_6_EAX, 0, 0, 0));
        let (numerator, denominator) = ratio(self.tsc_khz);
        leaves.insert((0x15, 0), regs(denominator, numerator, CRYSTAL_HZ, 0));
        let mhz = self.tsc_khz.div_ceil(1000);
        leaves.insert((0x16, 0), regs(mhz, mhz, 100, 0));
        CpuModel::of(leaves)
    }

    /// What of a leaf guests have.
    fn allowed(&self, leaf: u32, subleaf: u32, supported: CpuidResult) -> Option<CpuidResult> {
        let CpuidResult { eax, ebx, ecx, edx } = supported;
        let component = 1_u32.checked_shl(subleaf).unwrap_or(0);
        Some(match (leaf, subleaf) {
            (0x00, _) => regs(MAX_LEAF, ebx, ecx, edx),
            (0x01, _) => regs(
                eax,
                ebx & LEAF_1_EBX,
                ecx & !LEAF_1_ECX_WITHOUT | LEAF_1_ECX_WITH,
                edx & !LEAF_1_EDX_WITHOUT,
            ),
            (0x02, _) => supported,
            (0x04, _) if eax & 0x1f != 0 => regs(eax & LEAF_4_EAX, ebx, ecx, edx),
            (0x07, 0) => regs(
                eax.min(2),
                ebx & !LEAF_7_EBX_WITHOUT,
                ecx & !LEAF_7_ECX_WITHOUT,
                edx & !LEAF_7_EDX_WITHOUT,
            ),
            (0x07, 1) => regs(eax & LEAF_7_1_EAX, 0, 0, 0),
            (0x07, 2) => regs(0, 0, 0, edx),
            (0x0d, 0) => regs(eax & COMPONENTS, 0, 0, 0),
            (0x0d, 1) => regs(eax & XSAVE_INSTRUCTIONS, 0, 0, 0),
            (0x0d, _) if component & COMPONENTS != 0 => supported,
            (0x8000_0000, _) => regs(MAX_EXTENDED_LEAF, ebx, ecx, edx),
            (0x8000_0001, _) => regs(eax, ebx, ecx & !EXTENDED_1_ECX_WITHOUT, edx),
            (0x8000_0002..=0x8000_0006, _) => supported,
            (0x8000_0007, _) => regs(0, 0, 0, edx & EXTENDED_7_EDX),
            (0x8000_0008, _) => regs(LINEAR_BITS << 8 | self.physical_bits(), ebx, 0, 0),
            _ => return None,
        })
    }

    /// The state components that guests can enable.
    #[must_use]
    pub fn xfeatures(&self) -> Xfeatures {
        Xfeatures::from_bits_retain((self.supported(0x0d, 0).eax & COMPONENTS).into())
    }
}

/// The frequency of the time stamp counter as numerator and denominator of the crystal's (CPUID 15H): the
/// closest of those with a numerator by which Linux multiplies the crystal's kHz in 32 bits.
fn ratio(tsc_khz: u32) -> (u32, u32) {
    const CRYSTAL_KHZ: u64 = CRYSTAL_HZ as u64 / 1000;
    const MAX_NUMERATOR: u64 = u32::MAX as u64 / CRYSTAL_KHZ;
    let khz = u64::from(tsc_khz);
    let nearest = |denominator: u64| (khz * denominator + CRYSTAL_KHZ / 2) / CRYSTAL_KHZ;
    let ratios = (1..=MAX_NUMERATOR).map(|denominator| (nearest(denominator), denominator));
    // In millionths of a kHz.
    let error = |&(numerator, denominator): &(u64, u64)| {
        (numerator * CRYSTAL_KHZ).abs_diff(khz * denominator) * 1_000_000 / denominator
    };
    let possible = ratios.filter(|&(numerator, _)| (1..=MAX_NUMERATOR).contains(&numerator));
    let (numerator, denominator) = possible.min_by_key(error).unwrap_or((1, 1));
    let narrow = |value: u64| u32::try_from(value).unwrap_or(1);
    (narrow(numerator), narrow(denominator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuid::{CpuidState, CpuidTable};

    fn all_ones() -> HostCpu {
        let ones = regs(!0, !0, !0, !0);
        let subleaves = |leaf: u32| (0..64).map(move |subleaf| ((leaf, subleaf), ones));
        let mut leaves: BTreeMap<_, _> = (0..0x20).flat_map(subleaves).collect();
        leaves.extend((0x8000_0000..0x8000_0030).map(|leaf| ((leaf, 0), ones)));
        leaves.insert((0x8000_0008, 0), regs(0x3934, 0, 0, 0));
        HostCpu::new(leaves, 2_400_000)
    }

    #[test]
    fn what_a_machine_does_not_have_its_guest_does_not_see() {
        let model = all_ones().model(false);

        let leaf = |leaf, subleaf| model.leaf(leaf, subleaf);
        assert_eq!(leaf(0, 0).eax, MAX_LEAF);
        assert_eq!(leaf(1, 0).ecx & LEAF_1_ECX_VMX, 0);
        assert_eq!(leaf(7, 0).ebx & 1 << 2 | leaf(7, 0).ecx & 1 << 30, 0);
        assert_eq!(leaf(0x12, 0), CpuidResult::default());
        assert_eq!(leaf(0x0d, 0), regs(COMPONENTS, 0, 0, 0));
        // AMX.
        assert_eq!(leaf(0x0d, 17), CpuidResult::default());
        assert_eq!(leaf(0x0a, 0), CpuidResult::default());
        assert_eq!(leaf(0x8000_0008, 0).eax, 48 << 8 | 0x34);
        assert_ne!(all_ones().model(true).leaf(1, 0).ecx & LEAF_1_ECX_VMX, 0);
    }

    #[test]
    fn each_leaf_is_listed_once_with_its_subleaves() {
        let table = CpuidTable::new(all_ones().model(false), 4);

        let listed = table.leaves();

        let mut unique: Vec<_> = listed.iter().map(|&(leaf, subleaf, _)| (leaf, subleaf)).collect();
        unique.dedup();
        assert_eq!(unique.len(), listed.len());
        assert!(listed.contains(&(0x0b, 1, true)) && listed.contains(&(0x15, 0, false)));
        assert!(listed.contains(&(0x4000_0000, 0, false)));
        let core = table.query(0x0b, 1, &CpuidState::at_reset(3));
        assert_eq!((core.ebx, core.edx), (4, 3));
    }

    #[test]
    fn the_frequency_of_the_counter_is_told_as_well_as_32_bits_allow() {
        for khz in [800_000, 1_000_000, 2_000_000, 2_899_977, 2_400_000, 3_000_123, 4_200_000] {
            let (numerator, denominator) = ratio(khz);

            // As Linux does, in 32 bits.
            let told = 1_000_000_u32.checked_mul(numerator).unwrap() / denominator;
            // Next to 2 GHz, 1 part in 2147 is between one numerator and the next.
            assert!(told.abs_diff(khz) <= khz / 8_000, "{khz}: {numerator}/{denominator}");
        }
    }
}
