//! Model-specific registers.

/// MSRs that are plain storage.
#[derive(Clone, Debug, Default)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What WRMSR of the TSC or TSC_ADJUST added to the machine's TSC.
    pub tsc_offset: u64,
}
