//! Fields of a virtual-machine control structure by their encodings (SDM Vol. 3C, 24.11.2 and
//! appendix B).

/// A field, by its encoding. The high half of a 64-bit field, which has an encoding of its own, is
/// not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Field(u32);

/// Bits of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 16.
    Bits16,
    /// 64, whose high half can be accessed alone.
    Bits64,
    /// 32.
    Bits32,
    /// 64 in 64-bit mode, else the low 32.
    Natural,
}

/// What a field is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What the hypervisor decides.
    Control,
    /// What an exit reports.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

impl Field {
    /// The field with this encoding.
    #[must_use]
    #[inline]
    pub const fn of(encoding: u32) -> Option<Self> {
        let field = Self(encoding);
        // Bits 31:15, 12 and 0 are those of no field.
        let known = encoding & 0xffff_9001 == 0
            && field.index() < u32::BITS
            && KNOWN[field.group()] >> field.index() & 1 != 0;
        if known { Some(field) } else { None }
    }

    /// Its width and kind as one number, below [`Field::GROUPS`].
    #[must_use]
    #[inline]
    pub const fn group(self) -> usize {
        (self.0 >> 11 & 0xc | self.0 >> 10 & 3) as usize
    }

    /// How many widths and kinds there are together.
    pub const GROUPS: usize = 16;

    /// Its encoding.
    #[must_use]
    #[inline]
    pub const fn encoding(self) -> u32 {
        self.0
    }

    /// Its number among the fields of its width and kind.
    #[must_use]
    #[inline]
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1ff
    }

    /// Its bits.
    #[must_use]
    #[inline]
    pub const fn width(self) -> Width {
        match self.0 >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    /// What it is for.
    #[must_use]
    #[inline]
    pub const fn kind(self) -> Kind {
        match self.0 >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::ExitInformation,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }

    /// The field `n` places after this one: those of segments are in the order ES, CS, SS, DS, FS, GS,
    /// LDTR, TR, others by number.
    #[must_use]
    #[inline]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0 + 2 * n)
    }
}

/// Which fields there are: bits by [`Field::index`], for each [`Field::group`].
const KNOWN: [u32; Field::GROUPS] = {
    let mut known = [0; Field::GROUPS];
    let mut n = 0;
    while n < Field::ALL.len() {
        let field = Field::ALL[n];
        assert!(field.index() < u32::BITS, "KNOWN has a bit for each");
        known[field.group()] |= 1 << field.index();
        n += 1;
    }
    known
};

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $encoding:literal;)*) => {
        impl Field {
            $($(#[$doc])* pub const $name: Self = Self($encoding);)*

            /// All that have a name here.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

fields! {
    /// Virtual-processor identifier.
    VPID = 0x0000;
    /// Posted-interrupt notification vector.
    POSTED_VECTOR = 0x0002;
    /// Guest ES selector.
    GUEST_ES_SELECTOR = 0x0800;
    /// Guest CS selector.
    GUEST_CS_SELECTOR = 0x0802;
    /// Guest SS selector.
    GUEST_SS_SELECTOR = 0x0804;
    /// Guest DS selector.
    GUEST_DS_SELECTOR = 0x0806;
    /// Guest FS selector.
    GUEST_FS_SELECTOR = 0x0808;
    /// Guest GS selector.
    GUEST_GS_SELECTOR = 0x080a;
    /// Guest LDTR selector.
    GUEST_LDTR_SELECTOR = 0x080c;
    /// Guest TR selector.
    GUEST_TR_SELECTOR = 0x080e;
    /// Guest interrupt status: RVI, and in the high half SVI.
    GUEST_INTERRUPT_STATUS = 0x0810;
    /// PML index: of the entry that is written next.
    GUEST_PML_INDEX = 0x0812;
    /// Host ES selector.
    HOST_ES_SELECTOR = 0x0c00;
    /// Host CS selector.
    HOST_CS_SELECTOR = 0x0c02;
    /// Host SS selector.
    HOST_SS_SELECTOR = 0x0c04;
    /// Host DS selector.
    HOST_DS_SELECTOR = 0x0c06;
    /// Host FS selector.
    HOST_FS_SELECTOR = 0x0c08;
    /// Host GS selector.
    HOST_GS_SELECTOR = 0x0c0a;
    /// Host TR selector.
    HOST_TR_SELECTOR = 0x0c0c;
    /// Physical address of the bitmap of ports 0 to 7FFFH.
    IO_BITMAP_A = 0x2000;
    /// Physical address of the bitmap of ports 8000H to FFFFH.
    IO_BITMAP_B = 0x2002;
    /// Physical address of the MSR bitmap.
    MSR_BITMAP = 0x2004;
    /// Physical address of the VM-exit MSR-store area.
    EXIT_MSR_STORE_ADDRESS = 0x2006;
    /// Physical address of the VM-exit MSR-load area.
    EXIT_MSR_LOAD_ADDRESS = 0x2008;
    /// Physical address of the VM-entry MSR-load area.
    ENTRY_MSR_LOAD_ADDRESS = 0x200a;
    /// Executive-VMCS pointer, which only SMM uses.
    EXECUTIVE_VMCS = 0x200c;
    /// Physical address of the page-modification log.
    PML_ADDRESS = 0x200e;
    /// TSC offset.
    TSC_OFFSET = 0x2010;
    /// Physical address of the virtual-APIC page.
    VIRTUAL_APIC = 0x2012;
    /// Physical address of the APIC-access page.
    APIC_ACCESS = 0x2014;
    /// Physical address of the posted-interrupt descriptor.
    POSTED_DESCRIPTOR = 0x2016;
    /// VM-function controls.
    VM_FUNCTION_CONTROLS = 0x2018;
    /// EPT pointer.
    EPTP = 0x201a;
    /// EOI-exit bitmap of vectors 0 to 63.
    EOI_EXIT_BITMAP0 = 0x201c;
    /// EOI-exit bitmap of vectors 64 to 127.
    EOI_EXIT_BITMAP1 = 0x201e;
    /// EOI-exit bitmap of vectors 128 to 191.
    EOI_EXIT_BITMAP2 = 0x2020;
    /// EOI-exit bitmap of vectors 192 to 255.
    EOI_EXIT_BITMAP3 = 0x2022;
    /// Physical address of the list of EPT pointers.
    EPTP_LIST = 0x2024;
    /// Physical address of the VMREAD bitmap.
    VMREAD_BITMAP = 0x2026;
    /// Physical address of the VMWRITE bitmap.
    VMWRITE_BITMAP = 0x2028;
    /// XSS-exiting bitmap.
    XSS_EXITING = 0x202c;
    /// ENCLS-exiting bitmap.
    ENCLS_EXITING = 0x202e;
    /// TSC multiplier: 16 bits before the point, 48 after it.
    TSC_MULTIPLIER = 0x2032;
    /// ENCLV-exiting bitmap.
    ENCLV_EXITING = 0x2036;
    /// Guest-physical address of an EPT violation or misconfiguration.
    GUEST_PHYSICAL_ADDRESS = 0x2400;
    /// VMCS link pointer.
    LINK_POINTER = 0x2800;
    /// Guest IA32_DEBUGCTL.
    GUEST_DEBUGCTL = 0x2802;
    /// Guest IA32_PAT.
    GUEST_PAT = 0x2804;
    /// Guest IA32_EFER.
    GUEST_EFER = 0x2806;
    /// Guest PDPTE0.
    GUEST_PDPTE0 = 0x280a;
    /// Guest PDPTE1.
    GUEST_PDPTE1 = 0x280c;
    /// Guest PDPTE2.
    GUEST_PDPTE2 = 0x280e;
    /// Guest PDPTE3.
    GUEST_PDPTE3 = 0x2810;
    /// Host IA32_PAT.
    HOST_PAT = 0x2c00;
    /// Host IA32_EFER.
    HOST_EFER = 0x2c02;
    /// Pin-based VM-execution controls.
    PIN_CONTROLS = 0x4000;
    /// Primary processor-based VM-execution controls.
    PROC_CONTROLS = 0x4002;
    /// Exception bitmap.
    EXCEPTION_BITMAP = 0x4004;
    /// Page-fault error-code mask.
    PAGE_FAULT_MASK = 0x4006;
    /// Page-fault error-code match.
    PAGE_FAULT_MATCH = 0x4008;
    /// CR3-target count.
    CR3_TARGET_COUNT = 0x400a;
    /// VM-exit controls.
    EXIT_CONTROLS = 0x400c;
    /// VM-exit MSR-store count.
    EXIT_MSR_STORE_COUNT = 0x400e;
    /// VM-exit MSR-load count.
    EXIT_MSR_LOAD_COUNT = 0x4010;
    /// VM-entry controls.
    ENTRY_CONTROLS = 0x4012;
    /// VM-entry MSR-load count.
    ENTRY_MSR_LOAD_COUNT = 0x4014;
    /// VM-entry interruption information.
    ENTRY_INTERRUPTION = 0x4016;
    /// VM-entry exception error code.
    ENTRY_ERROR_CODE = 0x4018;
    /// VM-entry instruction length.
    ENTRY_INSTRUCTION_LENGTH = 0x401a;
    /// TPR threshold.
    TPR_THRESHOLD = 0x401c;
    /// Secondary processor-based VM-execution controls.
    SECONDARY_CONTROLS = 0x401e;
    /// PLE gap: the time between two PAUSEs of one loop at most.
    PLE_GAP = 0x4020;
    /// PLE window: the time that a loop may take.
    PLE_WINDOW = 0x4022;
    /// VM-instruction error.
    INSTRUCTION_ERROR = 0x4400;
    /// Exit reason.
    EXIT_REASON = 0x4402;
    /// VM-exit interruption information.
    EXIT_INTERRUPTION = 0x4404;
    /// VM-exit interruption error code.
    EXIT_ERROR_CODE = 0x4406;
    /// IDT-vectoring information.
    IDT_VECTORING = 0x4408;
    /// IDT-vectoring error code.
    IDT_VECTORING_ERROR_CODE = 0x440a;
    /// VM-exit instruction length.
    EXIT_INSTRUCTION_LENGTH = 0x440c;
    /// VM-exit instruction information.
    EXIT_INSTRUCTION_INFO = 0x440e;
    /// Guest ES limit.
    GUEST_ES_LIMIT = 0x4800;
    /// Guest CS limit.
    GUEST_CS_LIMIT = 0x4802;
    /// Guest SS limit.
    GUEST_SS_LIMIT = 0x4804;
    /// Guest DS limit.
    GUEST_DS_LIMIT = 0x4806;
    /// Guest FS limit.
    GUEST_FS_LIMIT = 0x4808;
    /// Guest GS limit.
    GUEST_GS_LIMIT = 0x480a;
    /// Guest LDTR limit.
    GUEST_LDTR_LIMIT = 0x480c;
    /// Guest TR limit.
    GUEST_TR_LIMIT = 0x480e;
    /// Guest GDTR limit.
    GUEST_GDTR_LIMIT = 0x4810;
    /// Guest IDTR limit.
    GUEST_IDTR_LIMIT = 0x4812;
    /// Guest ES access rights.
    GUEST_ES_RIGHTS = 0x4814;
    /// Guest CS access rights.
    GUEST_CS_RIGHTS = 0x4816;
    /// Guest SS access rights.
    GUEST_SS_RIGHTS = 0x4818;
    /// Guest DS access rights.
    GUEST_DS_RIGHTS = 0x481a;
    /// Guest FS access rights.
    GUEST_FS_RIGHTS = 0x481c;
    /// Guest GS access rights.
    GUEST_GS_RIGHTS = 0x481e;
    /// Guest LDTR access rights.
    GUEST_LDTR_RIGHTS = 0x4820;
    /// Guest TR access rights.
    GUEST_TR_RIGHTS = 0x4822;
    /// Guest interruptibility state.
    GUEST_INTERRUPTIBILITY = 0x4824;
    /// Guest activity state.
    GUEST_ACTIVITY = 0x4826;
    /// Guest SMBASE.
    GUEST_SMBASE = 0x4828;
    /// Guest IA32_SYSENTER_CS.
    GUEST_SYSENTER_CS = 0x482a;
    /// VMX-preemption timer value.
    PREEMPTION_TIMER = 0x482e;
    /// Host IA32_SYSENTER_CS.
    HOST_SYSENTER_CS = 0x4c00;
    /// CR0 guest/host mask.
    CR0_MASK = 0x6000;
    /// CR4 guest/host mask.
    CR4_MASK = 0x6002;
    /// CR0 read shadow.
    CR0_SHADOW = 0x6004;
    /// CR4 read shadow.
    CR4_SHADOW = 0x6006;
    /// CR3-target value 0.
    CR3_TARGET0 = 0x6008;
    /// CR3-target value 1.
    CR3_TARGET1 = 0x600a;
    /// CR3-target value 2.
    CR3_TARGET2 = 0x600c;
    /// CR3-target value 3.
    CR3_TARGET3 = 0x600e;
    /// Exit qualification.
    EXIT_QUALIFICATION = 0x6400;
    /// RCX of I/O instructions, which only SMM uses.
    IO_RCX = 0x6402;
    /// RSI of I/O instructions, which only SMM uses.
    IO_RSI = 0x6404;
    /// RDI of I/O instructions, which only SMM uses.
    IO_RDI = 0x6406;
    /// RIP of I/O instructions, which only SMM uses.
    IO_RIP = 0x6408;
    /// Guest linear address.
    GUEST_LINEAR_ADDRESS = 0x640a;
    /// Guest CR0.
    GUEST_CR0 = 0x6800;
    /// Guest CR3.
    GUEST_CR3 = 0x6802;
    /// Guest CR4.
    GUEST_CR4 = 0x6804;
    /// Guest ES base.
    GUEST_ES_BASE = 0x6806;
    /// Guest CS base.
    GUEST_CS_BASE = 0x6808;
    /// Guest SS base.
    GUEST_SS_BASE = 0x680a;
    /// Guest DS base.
    GUEST_DS_BASE = 0x680c;
    /// Guest FS base.
    GUEST_FS_BASE = 0x680e;
    /// Guest GS base.
    GUEST_GS_BASE = 0x6810;
    /// Guest LDTR base.
    GUEST_LDTR_BASE = 0x6812;
    /// Guest TR base.
    GUEST_TR_BASE = 0x6814;
    /// Guest GDTR base.
    GUEST_GDTR_BASE = 0x6816;
    /// Guest IDTR base.
    GUEST_IDTR_BASE = 0x6818;
    /// Guest DR7.
    GUEST_DR7 = 0x681a;
    /// Guest RSP.
    GUEST_RSP = 0x681c;
    /// Guest RIP.
    GUEST_RIP = 0x681e;
    /// Guest RFLAGS.
    GUEST_RFLAGS = 0x6820;
    /// Guest pending debug exceptions.
    GUEST_PENDING_DEBUG = 0x6822;
    /// Guest IA32_SYSENTER_ESP.
    GUEST_SYSENTER_ESP = 0x6824;
    /// Guest IA32_SYSENTER_EIP.
    GUEST_SYSENTER_EIP = 0x6826;
    /// Host CR0.
    HOST_CR0 = 0x6c00;
    /// Host CR3.
    HOST_CR3 = 0x6c02;
    /// Host CR4.
    HOST_CR4 = 0x6c04;
    /// Host FS base.
    HOST_FS_BASE = 0x6c06;
    /// Host GS base.
    HOST_GS_BASE = 0x6c08;
    /// Host TR base.
    HOST_TR_BASE = 0x6c0a;
    /// Host GDTR base.
    HOST_GDTR_BASE = 0x6c0c;
    /// Host IDTR base.
    HOST_IDTR_BASE = 0x6c0e;
    /// Host IA32_SYSENTER_ESP.
    HOST_SYSENTER_ESP = 0x6c10;
    /// Host IA32_SYSENTER_EIP.
    HOST_SYSENTER_EIP = 0x6c12;
    /// Host RSP.
    HOST_RSP = 0x6c14;
    /// Host RIP.
    HOST_RIP = 0x6c16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_say_what_fields_are() {
        assert_eq!((Field::VPID.width(), Field::VPID.kind()), (Width::Bits16, Kind::Control));
        let reason = Field::EXIT_REASON;
        assert_eq!((reason.width(), reason.kind()), (Width::Bits32, Kind::ExitInformation));
        assert_eq!((Field::HOST_RIP.width(), Field::HOST_RIP.kind()), (Width::Natural, Kind::Host));
        assert_eq!(Field::GUEST_PDPTE3.width(), Width::Bits64);
        assert_eq!(Field::GUEST_ES_BASE.plus(7), Field::GUEST_TR_BASE);
        assert_eq!(Field::CR3_TARGET0.plus(3), Field::CR3_TARGET3);
    }

    #[test]
    fn names_are_in_the_order_of_their_encodings() {
        let mut sorted = Field::ALL.to_vec();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, Field::ALL);
        // Bit 0 asks for the high half, bits 12 and 31:15 are reserved.
        assert!(Field::ALL.iter().all(|field| field.encoding() & 0xffff_9001 == 0));
    }
}
