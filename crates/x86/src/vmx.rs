//! Numbers of virtual-machine extensions: controls, exit reasons, instruction errors and what
//! capability MSRs are made of (SDM Vol. 3C, chapters 24 to 27 and appendices A and C).

use bitflags::bitflags;

bitflags! {
    /// Pin-based VM-execution controls (SDM Vol. 3C, table 24-5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PinControls: u32 {
        /// External interrupts cause exits.
        const EXTERNAL_INTERRUPT = 1 << 0;
        /// NMIs cause exits.
        const NMI = 1 << 3;
        /// NMI blocking is the guest's own.
        const VIRTUAL_NMIS = 1 << 5;
        /// The VMX-preemption timer counts down.
        const PREEMPTION_TIMER = 1 << 6;
        /// An external interrupt with the notification vector tells of posted interrupts.
        const POSTED_INTERRUPTS = 1 << 7;
    }

    /// Primary processor-based VM-execution controls (SDM Vol. 3C, table 24-6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ProcControls: u32 {
        /// The guest can take an interrupt.
        const INTERRUPT_WINDOW = 1 << 2;
        /// The TSC offset is added to what the guest reads.
        const TSC_OFFSETTING = 1 << 3;
        /// HLT.
        const HLT = 1 << 7;
        /// INVLPG and INVPCID.
        const INVLPG = 1 << 9;
        /// MWAIT.
        const MWAIT = 1 << 10;
        /// RDPMC.
        const RDPMC = 1 << 11;
        /// RDTSC and RDTSCP.
        const RDTSC = 1 << 12;
        /// MOV to CR3.
        const CR3_LOAD = 1 << 15;
        /// MOV from CR3.
        const CR3_STORE = 1 << 16;
        /// MOV to CR8.
        const CR8_LOAD = 1 << 19;
        /// MOV from CR8.
        const CR8_STORE = 1 << 20;
        /// The task priority is that of the virtual-APIC page.
        const TPR_SHADOW = 1 << 21;
        /// No virtual NMI is blocked.
        const NMI_WINDOW = 1 << 22;
        /// MOV to and from debug registers.
        const MOV_DR = 1 << 23;
        /// I/O instructions.
        const UNCONDITIONAL_IO = 1 << 24;
        /// I/O instructions as the bitmaps say.
        const IO_BITMAPS = 1 << 25;
        /// Monitor trap flag.
        const MONITOR_TRAP = 1 << 27;
        /// RDMSR and WRMSR as the bitmap says, else all of them.
        const MSR_BITMAP = 1 << 28;
        /// MONITOR.
        const MONITOR = 1 << 29;
        /// PAUSE.
        const PAUSE = 1 << 30;
        /// The secondary controls are in force.
        const SECONDARY = 1 << 31;
    }

    /// Secondary processor-based VM-execution controls (SDM Vol. 3C, table 24-7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SecondaryControls: u32 {
        /// Accesses to the APIC-access page are virtualized, or exit.
        const APIC_ACCESSES = 1 << 0;
        /// Extended page tables.
        const EPT = 1 << 1;
        /// LGDT, LIDT, LLDT, LTR, SGDT, SIDT, SLDT and STR.
        const DESCRIPTOR_TABLE = 1 << 2;
        /// RDTSCP and RDPID; without it #UD.
        const RDTSCP = 1 << 3;
        /// RDMSR and WRMSR of registers of the x2APIC are virtualized.
        const X2APIC = 1 << 4;
        /// Translations are tagged with a VPID.
        const VPID = 1 << 5;
        /// WBINVD.
        const WBINVD = 1 << 6;
        /// The guest may run without paging, or in real-address mode.
        const UNRESTRICTED_GUEST = 1 << 7;
        /// Most registers of the APIC are those of the virtual-APIC page.
        const APIC_REGISTERS = 1 << 8;
        /// Virtual interrupts are evaluated and delivered.
        const VIRTUAL_INTERRUPTS = 1 << 9;
        /// Loops of PAUSE at CPL 0.
        const PAUSE_LOOP = 1 << 10;
        /// RDRAND.
        const RDRAND = 1 << 11;
        /// INVPCID; without it #UD.
        const INVPCID = 1 << 12;
        /// VM functions; without it VMFUNC is #UD.
        const VM_FUNCTIONS = 1 << 13;
        /// VMREAD and VMWRITE of the guest access the VMCS of the link pointer as the bitmaps say.
        const VMCS_SHADOWING = 1 << 14;
        /// ENCLS as the bitmap says.
        const ENCLS = 1 << 15;
        /// RDSEED.
        const RDSEED = 1 << 16;
        /// Guest-physical pages whose dirty flag is set are logged.
        const PAGE_MODIFICATION_LOG = 1 << 17;
        /// XSAVES and XRSTORS; without it #UD.
        const XSAVES = 1 << 20;
        /// The guest's time stamp counter is multiplied before the offset is added.
        const TSC_SCALING = 1 << 25;
        /// ENCLV as the bitmap says; without it #UD.
        const ENCLV = 1 << 28;
        /// EPC virtualization extensions: an SECS with virtual children counts as one with children, and
        /// conflicts of leaves exit.
        const EPC_VIRTUALIZATION = 1 << 29;
    }

    /// VM-exit controls (SDM Vol. 3C, table 24-10).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ExitControls: u32 {
        /// Save DR7 and IA32_DEBUGCTL.
        const SAVE_DEBUG = 1 << 2;
        /// The host is in 64-bit mode.
        const HOST_64 = 1 << 9;
        /// Acknowledge the interrupt that causes the exit.
        const ACKNOWLEDGE_INTERRUPT = 1 << 15;
        /// Save IA32_PAT.
        const SAVE_PAT = 1 << 18;
        /// Load IA32_PAT.
        const LOAD_PAT = 1 << 19;
        /// Save IA32_EFER.
        const SAVE_EFER = 1 << 20;
        /// Load IA32_EFER.
        const LOAD_EFER = 1 << 21;
        /// Save the value of the VMX-preemption timer.
        const SAVE_PREEMPTION_TIMER = 1 << 22;
    }

    /// VM-entry controls (SDM Vol. 3C, table 24-12).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct EntryControls: u32 {
        /// Load DR7 and IA32_DEBUGCTL.
        const LOAD_DEBUG = 1 << 2;
        /// The guest is in IA-32e mode.
        const IA32E = 1 << 9;
        /// Entry to SMM.
        const SMM = 1 << 10;
        /// Deactivate dual-monitor treatment of SMIs and SMM.
        const DUAL_MONITOR = 1 << 11;
        /// Load IA32_PAT.
        const LOAD_PAT = 1 << 14;
        /// Load IA32_EFER.
        const LOAD_EFER = 1 << 15;
    }

    /// Guest interruptibility state (SDM Vol. 3C, table 24-3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Interruptibility: u32 {
        /// Blocking by STI.
        const STI = 1 << 0;
        /// Blocking by MOV SS.
        const MOV_SS = 1 << 1;
        /// Blocking by SMI.
        const SMI = 1 << 2;
        /// Blocking by NMI.
        const NMI = 1 << 3;
        /// The exit came from an enclave.
        const ENCLAVE = 1 << 4;
    }
}

/// Guest activity states (SDM Vol. 3C, 24.4.2).
pub mod activity {
    /// Active.
    pub const ACTIVE: u32 = 0;
    /// HLT.
    pub const HLT: u32 = 1;
    /// Shutdown.
    pub const SHUTDOWN: u32 = 2;
    /// Wait-for-SIPI.
    pub const WAIT_FOR_SIPI: u32 = 3;
}

/// Event types of interruption information (SDM Vol. 3C, tables 24-13 and 24-15).
pub mod interruption {
    /// External interrupt.
    pub const EXTERNAL: u32 = 0;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 2;
    /// Hardware exception.
    pub const HARDWARE_EXCEPTION: u32 = 3;
    /// Software interrupt: INT n.
    pub const SOFTWARE_INTERRUPT: u32 = 4;
    /// Privileged software exception: INT1.
    pub const PRIVILEGED_SOFTWARE: u32 = 5;
    /// Software exception: INT3 or INTO.
    pub const SOFTWARE_EXCEPTION: u32 = 6;
    /// Other event: an exit of the monitor trap flag, on VM entry only.
    pub const OTHER: u32 = 7;
    /// The error code is valid.
    pub const ERROR_CODE: u32 = 1 << 11;
    /// NMI unblocking due to IRET, in what exits report.
    pub const NMI_UNBLOCKING: u32 = 1 << 12;
    /// The field is valid.
    pub const VALID: u32 = 1 << 31;
}

/// Basic exit reasons (SDM Vol. 3C, appendix C).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names of the SDM's table")]
pub enum ExitReason {
    ExceptionOrNmi = 0,
    ExternalInterrupt = 1,
    TripleFault = 2,
    Init = 3,
    Sipi = 4,
    InterruptWindow = 7,
    NmiWindow = 8,
    TaskSwitch = 9,
    Cpuid = 10,
    Hlt = 12,
    Invd = 13,
    Invlpg = 14,
    Rdpmc = 15,
    Rdtsc = 16,
    Vmcall = 18,
    Vmclear = 19,
    Vmlaunch = 20,
    Vmptrld = 21,
    Vmptrst = 22,
    Vmread = 23,
    Vmresume = 24,
    Vmwrite = 25,
    Vmxoff = 26,
    Vmxon = 27,
    ControlRegister = 28,
    DebugRegister = 29,
    Io = 30,
    Rdmsr = 31,
    Wrmsr = 32,
    InvalidGuestState = 33,
    MsrLoading = 34,
    MonitorTrap = 37,
    Pause = 40,
    TprBelowThreshold = 43,
    ApicAccess = 44,
    VirtualizedEoi = 45,
    GdtrOrIdtr = 46,
    LdtrOrTr = 47,
    EptViolation = 48,
    EptMisconfiguration = 49,
    Invept = 50,
    Rdtscp = 51,
    PreemptionTimer = 52,
    Invvpid = 53,
    Wbinvd = 54,
    Xsetbv = 55,
    ApicWrite = 56,
    Rdrand = 57,
    Invpcid = 58,
    Vmfunc = 59,
    Encls = 60,
    Rdseed = 61,
    PageModificationLogFull = 62,
    Enclv = 70,
    SgxConflict = 71,
}

/// Exit reason: the exit came from an enclave.
pub const EXIT_REASON_ENCLAVE: u32 = 1 << 27;
/// Exit reason: VM entry failed.
pub const EXIT_REASON_ENTRY_FAILURE: u32 = 1 << 31;

/// Exit qualification of [`ExitReason::InvalidGuestState`] (SDM Vol. 3C, 26.7).
pub mod entry_failure {
    /// No other reason applies.
    pub const OTHER: u64 = 0;
    /// The PDPTEs.
    pub const PDPTE: u64 = 2;
    /// The VMCS link pointer.
    pub const LINK_POINTER: u64 = 4;
}

/// Exit qualification of [`ExitReason::SgxConflict`]: a code, and an error from
/// [`sgx_conflict::ERROR_SHIFT`] on (SDM Vol. 3D, table 39-1).
pub mod sgx_conflict {
    /// Tracking facility in use.
    pub const TRACKING_RESOURCE: u64 = 0;
    /// Tracking cycle not complete.
    pub const TRACKING_REFERENCE: u64 = 1;
    /// EPC page in use, otherwise an exception.
    pub const EPC_PAGE_EXCEPTION: u64 = 2;
    /// EPC page in use, otherwise an error.
    pub const EPC_PAGE_ERROR: u64 = 3;
    /// Position of the error that RAX would have.
    pub const ERROR_SHIFT: u32 = 16;
}

/// VM-instruction error numbers (SDM Vol. 3C, table 30-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say what the SDM's table does")]
pub enum VmInstructionError {
    VmcallInRoot = 1,
    VmclearInvalidAddress = 2,
    VmclearVmxonPointer = 3,
    VmlaunchNotClear = 4,
    VmresumeNotLaunched = 5,
    InvalidControls = 7,
    InvalidHostState = 8,
    VmptrldInvalidAddress = 9,
    VmptrldVmxonPointer = 10,
    VmptrldWrongRevision = 11,
    UnsupportedField = 12,
    ReadOnlyField = 13,
    VmxonInRoot = 15,
    EntryUnderMovSs = 26,
    InvalidInvalidation = 28,
}

/// VM-function controls, and IA32_VMX_VMFUNC (SDM Vol. 3C, table 24-10 and appendix A.11). The number of a
/// function is that of its bit.
pub mod function {
    /// The guest chooses an EPT pointer from a list.
    pub const EPTP_SWITCHING: u64 = 1 << 0;
}

/// IA32_VMX_BASIC (SDM Vol. 3C, appendix A.1).
pub mod basic {
    /// Position of the bytes of a VMCS region.
    pub const SIZE_SHIFT: u32 = 32;
    /// Position of the memory type of VMCS accesses.
    pub const MEMORY_TYPE_SHIFT: u32 = 50;
    /// INS and OUTS report instruction information.
    pub const INS_OUTS: u64 = 1 << 54;
    /// The TRUE capability MSRs exist.
    pub const TRUE_CONTROLS: u64 = 1 << 55;
}

/// IA32_VMX_MISC (SDM Vol. 3C, appendix A.6).
pub mod misc {
    /// EFER.LMA is stored into the IA-32e-mode-guest entry control.
    pub const STORES_LMA: u64 = 1 << 5;
    /// The HLT activity state.
    pub const HLT: u64 = 1 << 6;
    /// The wait-for-SIPI activity state.
    pub const WAIT_FOR_SIPI: u64 = 1 << 8;
    /// Position of the number of CR3-target values.
    pub const CR3_TARGETS_SHIFT: u32 = 16;
    /// VMWRITE can write every field.
    pub const VMWRITE_ANY: u64 = 1 << 29;
    /// Software events may be injected with an instruction length of 0.
    pub const ZERO_LENGTH: u64 = 1 << 30;
}

/// IA32_VMX_EPT_VPID_CAP (SDM Vol. 3C, appendix A.10).
pub mod ept_vpid {
    /// Translations that allow execution alone.
    pub const EXECUTE_ONLY: u64 = 1 << 0;
    /// Walks of four levels.
    pub const LEVELS_4: u64 = 1 << 6;
    /// EPT structures in write-back memory.
    pub const WRITE_BACK: u64 = 1 << 14;
    /// Pages of 2 MiB.
    pub const PAGES_2M: u64 = 1 << 16;
    /// Pages of 1 GiB.
    pub const PAGES_1G: u64 = 1 << 17;
    /// INVEPT.
    pub const INVEPT: u64 = 1 << 20;
    /// Accessed and dirty flags.
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    /// Single-context INVEPT.
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    /// All-context INVEPT.
    pub const INVEPT_ALL: u64 = 1 << 26;
    /// INVVPID.
    pub const INVVPID: u64 = 1 << 32;
    /// The four types of INVVPID.
    pub const INVVPID_TYPES: u64 = 0xf << 40;
}
