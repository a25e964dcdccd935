//! What CPUID says: an Ice Lake server without AVX-512 (SDM Vol. 2A, CPUID), claiming exactly what
//! the software processor executes. The SGX leaves, 12H and the SGX bits of leaf 7, are the
//! virtualization layer's.

use std::sync::Arc;

use cloister_virt::SgxVm;
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::{Cr4, Xfeatures};

use crate::layout::PHYS_BITS;

/// Frequency of the time stamp counter in Hz. CPUID 15H tells it, so that no guest measures it.
pub const TSC_HZ: u64 = CRYSTAL_HZ as u64 * TSC_RATIO.0 as u64 / TSC_RATIO.1 as u64;
/// Frequency of the core crystal clock in Hz: that of the Ice Lake server.
const CRYSTAL_HZ: u32 = 25_000_000;
/// TSC to crystal: numerator and denominator.
const TSC_RATIO: (u32, u32) = (160, 2);
const TSC_MHZ: u32 = (TSC_HZ / 1_000_000) as u32;

/// Highest basic leaf.
const MAX_LEAF: u32 = 0x16;
/// The highest basic leaf under IA32_MISC_ENABLE's "limit CPUID maxval" (SDM Vol. 4, MSR 1A0H).
const LIMITED_LEAF: u32 = 2;
/// Highest extended leaf.
const MAX_EXTENDED_LEAF: u32 = 0x8000_0008;
/// Highest hypervisor leaf.
const MAX_HYPERVISOR_LEAF: u32 = 0x4000_0001;
/// Family 6, model 6AH (Ice Lake server), stepping 6.
const SIGNATURE: u32 = 0x0006_06a6;
/// CLFLUSH line in bytes, also the line of every cache.
const LINE: u32 = 64;
/// Width of linear addresses in bits.
const LINEAR_BITS: u32 = 48;

/// An array of feature bits, `bits!(0, 4)` with bits 0 and 4 set.
macro_rules! bits {
    ($($bit:literal),+ $(,)?) => { 0_u32 $(| 1 << $bit)+ };
}

/// Leaf 1, ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, PCID, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT,
/// TSC-deadline, AES, XSAVE, RDRAND, hypervisor.
const LEAF_1_ECX: u32 = bits!(0, 1, 9, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 30, 31);
/// Leaf 1, EDX: FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE-36,
/// CLFSH, MMX, FXSR, SSE, SSE2, SS.
const LEAF_1_EDX: u32 =
    bits!(0, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27);
const LEAF_1_EDX_APIC: u32 = bits!(9);
const LEAF_1_EDX_HTT: u32 = bits!(28);
/// Leaf 1, ECX, where XCR0 may have AVX: FMA, AVX, F16C.
const LEAF_1_ECX_AVX: u32 = bits!(12, 28, 29);
const LEAF_1_ECX_OSXSAVE: u32 = bits!(27);
/// Leaf 7, EBX: FSGSBASE, TSC_ADJUST, BMI1, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP,
/// CLFLUSHOPT, CLWB, SHA.
const LEAF_7_EBX: u32 = bits!(0, 1, 3, 7, 8, 9, 10, 18, 19, 20, 23, 24, 29);
/// Leaf 7, EBX, where XCR0 may have AVX: AVX2.
const LEAF_7_EBX_AVX: u32 = bits!(5);
/// Leaf 7, ECX: UMIP, RDPID.
const LEAF_7_ECX: u32 = bits!(2, 22);
/// Leaf 7, EDX: FSRM, IBRS and IBPB, ARCH_CAPABILITIES. Enhanced IBRS spares the guest retpolines.
const LEAF_7_EDX: u32 = bits!(4, 26, 29);
/// Leaf 7 subleaf 2, EDX: BHI_CTRL, which spares the guest a software loop on each system call.
const LEAF_7_2_EDX: u32 = bits!(4);
/// Leaf 80000001H, ECX: LAHF in 64-bit mode, LZCNT, PREFETCHW.
const EXTENDED_1_ECX: u32 = bits!(0, 5, 8);
/// Leaf 80000001H, EDX: SYSCALL, 1 GiB pages, RDTSCP, Intel 64.
const EXTENDED_1_EDX: u32 = bits!(11, 26, 27, 29);
/// Leaf 80000001H, EDX: execute disable.
const EXTENDED_1_EDX_XD: u32 = bits!(20);
/// Leaf 0DH subleaf 1, EAX: XSAVEOPT, XSAVEC, XGETBV with ECX 1, XSAVES.
const XSAVE_INSTRUCTIONS: u32 = bits!(0, 1, 2, 3);

/// 48 bytes with the NUL at the end.
const BRAND: &[u8; 48] = b"Intel Xeon Processor (Icelake), by Cloister\0\0\0\0\0";

/// IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO,
/// TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO (SDM Vol. 4,
/// MSR 10AH). An interpreter does not speculate: the guest need not defend itself.
pub const ARCH_CAPABILITIES: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

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
    /// The highest basic leaf.
    const fn last_leaf(&self) -> u32 {
        if self.leaves_limited { LIMITED_LEAF } else { MAX_LEAF }
    }

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
#[derive(Clone, Copy, Debug)]
pub struct CpuidTable {
    cpus: u32,
    xfeatures: Xfeatures,
}

/// What CPUID says in a guest: the leaves of its machine, and its SGX.
#[derive(Clone, Debug)]
pub struct GuestCpuid {
    table: CpuidTable,
    sgx: Option<Arc<SgxVm>>,
}

impl GuestCpuid {
    /// The leaves of `table`, and `sgx` if the guest has any.
    #[must_use]
    pub const fn new(table: CpuidTable, sgx: Option<Arc<SgxVm>>) -> Self {
        Self { table, sgx }
    }

    /// What CPUID returns.
    #[must_use]
    pub fn query(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        let result = self.table.query(leaf, subleaf, state);
        match &self.sgx {
            // All that tells of SGX is behind leaf 2.
            Some(sgx) if !state.leaves_limited => sgx.amend_cpuid(leaf, subleaf, result),
            _ => result,
        }
    }

    /// What CPUID returns on the bootstrap processor after reset. Leaves that tell of SGX are the
    /// same on every processor at any time.
    #[must_use]
    pub fn query_at_reset(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.query(leaf, subleaf, &CpuidState::at_reset(0))
    }
}

impl CpuidTable {
    /// Leaves for a machine of one package with `cpus` single-threaded cores, whose XCR0 may have
    /// the bits of `xfeatures`.
    #[must_use]
    pub const fn new(cpus: u32, xfeatures: Xfeatures) -> Self {
        Self { cpus, xfeatures }
    }

    /// What CPUID returns. A leaf beyond the highest gives what the highest basic leaf gives
    /// (SDM Vol. 2A, CPUID, "INPUT EAX").
    #[must_use]
    pub fn query(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        match leaf {
            0..=MAX_LEAF if leaf <= state.last_leaf() => self.basic(leaf, subleaf, state),
            0x4000_0000..=MAX_HYPERVISOR_LEAF => hypervisor(leaf),
            0x8000_0000..=MAX_EXTENDED_LEAF => extended(leaf, state),
            _ => self.basic(state.last_leaf(), subleaf, state),
        }
    }

    fn basic(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        match leaf {
            0x00 => regs(state.last_leaf(), word(b"Genu"), word(b"ntel"), word(b"ineI")),
            0x01 => self.version_and_features(state),
            // Descriptor FFH: leaf 4 has the caches.
            0x02 => regs(0x0000_ff01, 0, 0, 0),
            0x04 => self.cache(subleaf),
            // ARAT: the local APIC timer runs in every state.
            0x06 => regs(bits!(2), 0, 0, 0),
            0x07 => match subleaf {
                0 => {
                    let avx = if self.has_avx() { LEAF_7_EBX_AVX } else { 0 };
                    regs(2, LEAF_7_EBX | avx, LEAF_7_ECX, LEAF_7_EDX)
                }
                2 => regs(0, 0, 0, LEAF_7_2_EDX),
                _ => CpuidResult::default(),
            },
            0x0b => self.topology(subleaf, state),
            0x0d => self.xsave(subleaf, state),
            0x15 => regs(TSC_RATIO.1, TSC_RATIO.0, CRYSTAL_HZ, 0),
            0x16 => regs(TSC_MHZ, TSC_MHZ, 100, 0),
            _ => CpuidResult::default(),
        }
    }

    const fn has_avx(&self) -> bool {
        self.xfeatures.contains(Xfeatures::AVX)
    }

    fn version_and_features(&self, state: &CpuidState) -> CpuidResult {
        let addressable = self.cpus.next_power_of_two();
        let ebx = state.apic_id << 24 | addressable << 16 | (LINE / 8) << 8;
        let mut ecx = LEAF_1_ECX;
        if self.has_avx() {
            ecx |= LEAF_1_ECX_AVX;
        }
        if state.cr4.contains(Cr4::OSXSAVE) {
            ecx |= LEAF_1_ECX_OSXSAVE;
        }
        let mut edx = LEAF_1_EDX;
        if state.apic_enabled {
            edx |= LEAF_1_EDX_APIC;
        }
        if self.cpus > 1 {
            edx |= LEAF_1_EDX_HTT;
        }
        regs(SIGNATURE, ebx, ecx, edx)
    }

    /// Deterministic cache parameters: the sizes of Ice Lake server, with one slice of L3.
    fn cache(&self, subleaf: u32) -> CpuidResult {
        const DATA: u32 = 1;
        const INSTRUCTION: u32 = 2;
        const UNIFIED: u32 = 3;
        let (kind, level, ways, sets, sharing) = match subleaf {
            0 => (DATA, 1, 12, 64, 1),
            1 => (INSTRUCTION, 1, 8, 64, 1),
            2 => (UNIFIED, 2, 20, 1024, 1),
            3 => (UNIFIED, 3, 16, 16384, self.cpus.next_power_of_two()),
            _ => return CpuidResult::default(),
        };
        let self_initializing = 1 << 8;
        let cores = self.cpus.next_power_of_two();
        regs(
            (cores - 1) << 26 | (sharing - 1) << 14 | self_initializing | level << 5 | kind,
            (ways - 1) << 22 | (LINE - 1),
            sets - 1,
            0,
        )
    }

    /// Extended topology: one thread per core, all cores in one package.
    fn topology(&self, subleaf: u32, state: &CpuidState) -> CpuidResult {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        let (shift, count, kind) = match subleaf {
            0 => (0, 1, SMT),
            1 => (self.cpus.next_power_of_two().trailing_zeros(), self.cpus, CORE),
            _ => (0, 0, 0),
        };
        regs(shift, count, kind << 8 | subleaf & 0xff, state.apic_id)
    }

    fn xsave(&self, subleaf: u32, state: &CpuidState) -> CpuidResult {
        let low = |features: Xfeatures| features.bits() as u32;
        match subleaf {
            0 => regs(
                low(self.xfeatures),
                xsave_size(state.xcr0),
                xsave_size(self.xfeatures),
                (self.xfeatures.bits() >> 32) as u32,
            ),
            1 => regs(XSAVE_INSTRUCTIONS, xsave_size(state.xcr0), 0, 0),
            2 if self.has_avx() => regs(256, AVX_OFFSET, 0, 0),
            _ => CpuidResult::default(),
        }
    }
}

/// Bytes of the legacy region and the XSAVE header (SDM Vol. 1, 13.4).
const XSAVE_BASE: u32 = 576;
/// Offset of the AVX state in the standard format: right behind the header, as in the compacted.
const AVX_OFFSET: u32 = XSAVE_BASE;

fn xsave_size(features: Xfeatures) -> u32 {
    if features.contains(Xfeatures::AVX) { AVX_OFFSET + 256 } else { XSAVE_BASE }
}

/// The signature of KVM and none of its features: Linux then uses x2APIC without interrupt
/// remapping, and no paravirtual device.
fn hypervisor(leaf: u32) -> CpuidResult {
    match leaf {
        0x4000_0000 => regs(MAX_HYPERVISOR_LEAF, word(b"KVMK"), word(b"VMKV"), word(b"M\0\0\0")),
        _ => CpuidResult::default(),
    }
}

fn extended(leaf: u32, state: &CpuidState) -> CpuidResult {
    match leaf {
        0x8000_0000 => regs(MAX_EXTENDED_LEAF, 0, 0, 0),
        0x8000_0001 => {
            let xd = if state.execute_disable { EXTENDED_1_EDX_XD } else { 0 };
            regs(0, 0, EXTENDED_1_ECX, EXTENDED_1_EDX | xd)
        }
        0x8000_0002..=0x8000_0004 => {
            let part = &BRAND[(leaf - 0x8000_0002) as usize * 16..];
            let at = |index: usize| word(&[0, 1, 2, 3].map(|byte| part[index * 4 + byte]));
            regs(at(0), at(1), at(2), at(3))
        }
        // L2: 1280 KiB, ways by leaf 4, line size.
        0x8000_0006 => regs(0, 0, 1280 << 16 | 7 << 12 | LINE, 0),
        // Invariant TSC.
        0x8000_0007 => regs(0, 0, 0, bits!(8)),
        0x8000_0008 => regs(LINEAR_BITS << 8 | PHYS_BITS, 0, 0, 0),
        _ => CpuidResult::default(),
    }
}

const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes)
}

const fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: CpuidState = CpuidState::at_reset(2);

    fn table() -> CpuidTable {
        CpuidTable::new(3, Xfeatures::X87.union(Xfeatures::SSE))
    }

    fn text(words: &[u32]) -> String {
        words.iter().flat_map(|word| word.to_le_bytes()).map(char::from).collect()
    }

    #[test]
    fn vendor_brand_and_hypervisor_are_spelled_right() {
        let vendor = table().query(0, 0, &STATE);
        let kvm = table().query(0x4000_0000, 0, &STATE);
        let brand: Vec<u32> = (0x8000_0002..=0x8000_0004)
            .map(|leaf| table().query(leaf, 0, &STATE))
            .flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx])
            .collect();

        assert_eq!(text(&[vendor.ebx, vendor.edx, vendor.ecx]), "GenuineIntel");
        assert_eq!(text(&[kvm.ebx, kvm.ecx, kvm.edx]), "KVMKVMKVM\0\0\0");
        assert_eq!(
            text(&brand).trim_end_matches('\0'),
            "Intel Xeon Processor (Icelake), by Cloister"
        );
    }

    #[test]
    fn limited_leaves_end_with_leaf_2() {
        let limited = CpuidState { leaves_limited: true, ..STATE };
        let leaf_2 = table().query(2, 0, &STATE);

        assert_eq!(table().query(0, 0, &limited).eax, 2);
        assert_eq!(table().query(1, 0, &limited), table().query(1, 0, &STATE));
        for leaf in [3, 7, 0x16, 0x17, 0x9000_0000] {
            assert_eq!(table().query(leaf, 0, &limited), leaf_2, "{leaf:#x}");
        }
        let extended = table().query(0x8000_0001, 0, &limited);
        assert_eq!(extended, table().query(0x8000_0001, 0, &STATE));
    }

    #[test]
    fn execute_disable_is_told_unless_it_is_switched_off() {
        let off = CpuidState { execute_disable: false, ..STATE };
        let told = |state| table().query(0x8000_0001, 0, state).edx;

        assert_eq!(told(&STATE) ^ told(&off), 1 << 20);
        assert_ne!(told(&STATE) & 1 << 20, 0);
    }

    #[test]
    fn the_tsc_frequency_follows_from_leaves_15h_and_16h_alike() {
        let crystal = table().query(0x15, 0, &STATE);
        let megahertz = table().query(0x16, 0, &STATE);

        let hz = u64::from(crystal.ecx) * u64::from(crystal.ebx) / u64::from(crystal.eax);
        assert_eq!(hz, TSC_HZ);
        assert_eq!(u64::from(megahertz.eax) * 1_000_000, TSC_HZ);
    }

    #[test]
    fn family_and_model_are_those_of_an_ice_lake_server() {
        let version = table().query(1, 0, &STATE).eax;

        // The arithmetic of SDM Vol. 2A, CPUID, "displayed model".
        let (family, model) = (version >> 8 & 0xf, version >> 16 & 0xf);
        assert_eq!((family, model << 4 | version >> 4 & 0xf, version & 0xf), (6, 0x6a, 6));
    }

    #[test]
    fn dynamic_bits_follow_the_processor() {
        let off = CpuidState { apic_enabled: false, ..STATE };
        let on = CpuidState { cr4: Cr4::OSXSAVE, xcr0: Xfeatures::X87 | Xfeatures::SSE, ..STATE };

        assert_eq!(table().query(1, 0, &off).edx & LEAF_1_EDX_APIC, 0);
        assert_ne!(table().query(1, 0, &on).edx & LEAF_1_EDX_APIC, 0);
        assert_eq!(table().query(1, 0, &off).ecx & LEAF_1_ECX_OSXSAVE, 0);
        assert_ne!(table().query(1, 0, &on).ecx & LEAF_1_ECX_OSXSAVE, 0);
        assert_eq!(table().query(1, 0, &on).ebx >> 24, 2);
        assert_eq!(table().query(0xb, 1, &on).edx, 2);
    }

    #[test]
    fn topology_levels_end_and_the_shift_covers_all_processors() {
        for (cpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (64, 6)] {
            let table = CpuidTable::new(cpus, Xfeatures::X87);

            let core = table.query(0xb, 1, &STATE);

            assert_eq!((core.eax, core.ebx, core.ecx), (shift, cpus, 0x201));
            assert_eq!(table.query(0xb, 2, &STATE), regs(0, 0, 2, 2));
        }
    }

    #[test]
    fn xsave_sizes_follow_the_features() {
        let avx = CpuidTable::new(1, Xfeatures::X87 | Xfeatures::SSE | Xfeatures::AVX);

        assert_eq!(table().query(0xd, 0, &STATE), regs(3, 576, 576, 0));
        assert_eq!(avx.query(0xd, 0, &STATE), regs(7, 576, 832, 0));
        assert_eq!(avx.query(0xd, 2, &STATE), regs(256, 576, 0, 0));
        assert_eq!(table().query(0xd, 2, &STATE), CpuidResult::default());
    }

    #[test]
    fn caches_have_the_sizes_of_ice_lake() {
        let size = |subleaf| {
            let cache = table().query(4, subleaf, &STATE);
            ((cache.ebx >> 22) + 1) * ((cache.ebx & 0xfff) + 1) * (cache.ecx + 1)
        };

        assert_eq!([size(0), size(1), size(2)], [48 << 10, 32 << 10, 1280 << 10]);
        assert_eq!(table().query(4, 4, &STATE).eax & 0x1f, 0);
    }

    #[test]
    fn a_leaf_beyond_the_highest_is_the_highest_basic_one() {
        let highest = table().query(MAX_LEAF, 0, &STATE);

        for leaf in [0x17, 0x1f, 0x3fff_ffff, 0x4000_0002, 0x8000_0009, u32::MAX] {
            assert_eq!(table().query(leaf, 0, &STATE), highest, "{leaf:#x}");
        }
    }
}
