//! CPUID leaves (SDM Vol. 2A, CPUID).

/// What CPUID returns for one leaf and subleaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Structured extended features.
pub const LEAF_EXTENDED_FEATURES: u32 = 7;
/// SGX capabilities and EPC sections.
pub const LEAF_SGX: u32 = 0x12;

/// CPUID.7.0:EBX: SGX.
pub const FEATURE_7_EBX_SGX: u32 = 1 << 2;
/// CPUID.7.0:ECX: SGX launch configuration (writable LE hash MSRs).
pub const FEATURE_7_ECX_SGX_LC: u32 = 1 << 30;

/// CPUID.12H.0:EAX: SGX1 leaves.
pub const SGX_EAX_SGX1: u32 = 1 << 0;
/// CPUID.12H.0:EAX: SGX2 leaves.
pub const SGX_EAX_SGX2: u32 = 1 << 1;
/// CPUID.12H.0:EAX: ENCLV leaves (EINCVIRTCHILD, EDECVIRTCHILD, ESETCONTEXT).
pub const SGX_EAX_OVERSUB_ENCLV: u32 = 1 << 5;
/// CPUID.12H.0:EAX: ETRACKC, ERDINFO, ELDBC, ELDUC.
pub const SGX_EAX_OVERSUB_ENCLS: u32 = 1 << 6;
/// CPUID.12H.0:EAX: EVERIFYREPORT2.
pub const SGX_EAX_EVERIFYREPORT2: u32 = 1 << 7;
/// CPUID.12H.0:EAX: EUPDATESVN.
pub const SGX_EAX_EUPDATESVN: u32 = 1 << 10;
/// CPUID.12H.0:EAX: EDECCSSA.
pub const SGX_EAX_EDECCSSA: u32 = 1 << 11;
/// CPUID.12H.0:EBX and MISCSELECT bit 0, EXINFO: report #PF and #GP in the MISC region of the SSA.
pub const MISCSELECT_EXINFO: u32 = 1 << 0;
