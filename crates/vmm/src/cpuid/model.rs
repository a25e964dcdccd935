//! The processor that the software accelerator is: an Ice Lake server without AVX-512, claiming
//! exactly what `cloister-cpu` executes (SDM Vol. 2A, CPUID).

use std::collections::BTreeMap;

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::Xfeatures;

use crate::layout::PHYS_BITS;

/// Frequency of the time stamp counter in Hz. CPUID 15H tells it, so that no guest measures it.
pub const TSC_HZ: u64 = CRYSTAL_HZ as u64 * TSC_RATIO.0 as u64 / TSC_RATIO.1 as u64;
/// Frequency of the core crystal clock in Hz: that of the Ice Lake server.
const CRYSTAL_HZ: u32 = 25_000_000;
/// TSC to crystal: numerator and denominator.
const TSC_RATIO: (u32, u32) = (160, 2);
const TSC_MHZ: u32 = CRYSTAL_HZ / 1_000_000 * TSC_RATIO.0 / TSC_RATIO.1;
const _: () = assert!(TSC_MHZ as u64 * 1_000_000 == TSC_HZ);

/// Highest basic leaf.
const MAX_LEAF: u32 = 0x16;
/// Highest extended leaf.
const MAX_EXTENDED_LEAF: u32 = 0x8000_0008;
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
/// Leaf 1, ECX, where the processor has VMX.
const LEAF_1_ECX_VMX: u32 = bits!(5);
/// Leaf 1, EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE-36,
/// CLFSH, MMX, FXSR, SSE, SSE2, SS.
const LEAF_1_EDX: u32 =
    bits!(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27);
/// Leaf 1, ECX, where XCR0 may have AVX: FMA, AVX, F16C.
const LEAF_1_ECX_AVX: u32 = bits!(12, 28, 29);
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
/// Leaf 80000001H, EDX: SYSCALL, execute disable, 1 GiB pages, RDTSCP, Intel 64.
const EXTENDED_1_EDX: u32 = bits!(11, 20, 26, 27, 29);
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

/// Bytes of the legacy region and the XSAVE header (SDM Vol. 1, 13.4).
const XSAVE_BASE: u32 = 576;
/// Offset of the AVX state in the standard format: right after the header, as in the compacted.
const AVX_OFFSET: u32 = XSAVE_BASE;

/// The CPUID leaves that a model of processor has, in a machine of one processor after reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    /// By leaf and subleaf. A leaf that does not look at ECX has a subleaf 0 alone.
    leaves: BTreeMap<(u32, u32), CpuidResult>,
}

impl CpuModel {
    /// The processor that `cloister-cpu` is, with the state components `xfeatures`.
    #[must_use]
    pub fn software(xfeatures: Xfeatures) -> Self {
        let avx = xfeatures.contains(Xfeatures::AVX);
        let with_avx = |bits: u32| if avx { bits } else { 0 };
        let mut leaves = BTreeMap::from([
            ((0x00, 0), regs(MAX_LEAF, word(b"Genu"), word(b"ntel"), word(b"ineI"))),
            (
                (0x01, 0),
                regs(SIGNATURE, (LINE / 8) << 8, LEAF_1_ECX | with_avx(LEAF_1_ECX_AVX), LEAF_1_EDX),
            ),
            // Descriptor FFH: leaf 4 has the caches.
            ((0x02, 0), regs(0x0000_ff01, 0, 0, 0)),
            // The sizes of Ice Lake server, with one slice of L3.
            ((0x04, 0), cache(CacheKind::Data, 1, 12, 64)),
            ((0x04, 1), cache(CacheKind::Instruction, 1, 8, 64)),
            ((0x04, 2), cache(CacheKind::Unified, 2, 20, 1024)),
            ((0x04, 3), cache(CacheKind::Unified, 3, 16, 16384)),
            // ARAT: the local APIC timer runs in every state.
            ((0x06, 0), regs(bits!(2), 0, 0, 0)),
            ((0x07, 0), regs(2, LEAF_7_EBX | with_avx(LEAF_7_EBX_AVX), LEAF_7_ECX, LEAF_7_EDX)),
            ((0x07, 2), regs(0, 0, 0, LEAF_7_2_EDX)),
            (
                (0x0d, 0),
                regs(
                    (xfeatures.bits() & 0xffff_ffff) as u32,
                    0,
                    0,
                    (xfeatures.bits() >> 32) as u32,
                ),
            ),
            ((0x0d, 1), regs(XSAVE_INSTRUCTIONS, 0, 0, 0)),
            ((0x15, 0), regs(TSC_RATIO.1, TSC_RATIO.0, CRYSTAL_HZ, 0)),
            ((0x16, 0), regs(TSC_MHZ, TSC_MHZ, 100, 0)),
            ((0x8000_0000, 0), regs(MAX_EXTENDED_LEAF, 0, 0, 0)),
            ((0x8000_0001, 0), regs(0, 0, EXTENDED_1_ECX, EXTENDED_1_EDX)),
            // L2: 1280 KiB, ways by leaf 4, line size.
            ((0x8000_0006, 0), regs(0, 0, 1280 << 16 | 7 << 12 | LINE, 0)),
            // Invariant TSC.
            ((0x8000_0007, 0), regs(0, 0, 0, bits!(8))),
            ((0x8000_0008, 0), regs(LINEAR_BITS << 8 | PHYS_BITS, 0, 0, 0)),
        ]);
        if avx {
            leaves.insert((0x0d, 2), regs(256, AVX_OFFSET, 0, 0));
        }
        for (leaf, part) in (0x8000_0002..).zip(BRAND.chunks_exact(16)) {
            let at = |n: usize| word(&[0, 1, 2, 3].map(|byte| part[n * 4 + byte]));
            leaves.insert((leaf, 0), regs(at(0), at(1), at(2), at(3)));
        }
        Self { leaves }
    }

    /// A model with these leaves, by leaf and subleaf.
    pub(super) const fn of(leaves: BTreeMap<(u32, u32), CpuidResult>) -> Self {
        Self { leaves }
    }

    /// The leaves that it has, by leaf and subleaf.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (u32, u32)> {
        self.leaves.keys().copied()
    }

    /// The same with VMX.
    #[must_use]
    pub fn with_vmx(mut self) -> Self {
        self.leaves.entry((0x01, 0)).or_default().ecx |= LEAF_1_ECX_VMX;
        self
    }

    /// What the model says of `leaf` and `subleaf`: all zero for one that it does not have.
    #[must_use]
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    /// Whether `leaf` looks at ECX (SDM Vol. 2A, CPUID, table 3-8).
    #[must_use]
    pub const fn has_subleaves(leaf: u32) -> bool {
        matches!(leaf, 0x04 | 0x07 | 0x0b | 0x0d)
    }

    /// Bytes of an XSAVE area in the standard format for the state components `enabled`.
    #[must_use]
    pub fn xsave_size(&self, enabled: Xfeatures) -> u32 {
        let ends = (2..64).filter(|&n| enabled.bits() >> n & 1 != 0).map(|n| {
            let component = self.leaf(0x0d, n);
            component.ebx + component.eax
        });
        ends.fold(XSAVE_BASE, u32::max)
    }
}

/// Bits 4:0 of leaf 4, EAX.
#[derive(Clone, Copy)]
enum CacheKind {
    Data = 1,
    Instruction = 2,
    Unified = 3,
}

/// Deterministic parameters of a cache (leaf 4), but for who shares it.
const fn cache(kind: CacheKind, level: u32, ways: u32, sets: u32) -> CpuidResult {
    let self_initializing = 1 << 8;
    regs(self_initializing | level << 5 | kind as u32, (ways - 1) << 22 | (LINE - 1), sets - 1, 0)
}

/// Four characters as a register has them.
pub(super) const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes)
}

/// A result, register by register.
pub(super) const fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}
