//! What a TSS holds of its task (SDM Vol. 3A, figures 7-2 and 7-10).

use cloister_x86::segment::Segment;

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// The dynamic fields of a TSS, and the static ones that a switch to the task loads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskState {
    /// CR3; a 16-bit TSS has none.
    pub(crate) cr3: Option<u32>,
    /// Where the task goes on.
    pub(crate) eip: u32,
    /// Its flags.
    pub(crate) eflags: u32,
    /// EAX to EDI in encoding order.
    pub(crate) gpr: [u32; 8],
    /// Selectors of ES, CS, SS, DS, FS and GS. A 16-bit TSS has none for FS and GS: null.
    pub(crate) segments: [u16; 6],
    /// Selector of the LDT.
    pub(crate) ldt: u16,
    /// T: a debug trap follows the switch.
    pub(crate) trap: bool,
}

/// Where a format of TSS has its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// Whether fields are of 32 bits.
    wide: bool,
}

impl Layout {
    /// The format of a TSS: type bit 3 tells a 32-bit one from a 16-bit one.
    #[must_use]
    pub(crate) const fn of(tss: Segment) -> Self {
        Self { wide: tss.rights.kind() & 8 != 0 }
    }

    /// Bytes of a general-purpose register.
    #[must_use]
    pub(crate) const fn register_size(self) -> u8 {
        if self.wide { 4 } else { 2 }
    }

    /// Bytes up to the last field that a task switch reads.
    #[must_use]
    pub(crate) const fn size(self) -> usize {
        if self.wide { 104 } else { 44 }
    }

    /// Offset and size of what a task switch saves: EIP, EFLAGS, registers and selectors.
    #[must_use]
    pub(crate) const fn saved(self) -> (u32, usize) {
        if self.wide { (32, 64) } else { (14, 28) }
    }

    /// Offset of CR3, which is in the 32-bit format only.
    const CR3: usize = 28;
    /// Offset of the byte with T, which is in the 32-bit format only.
    const TRAP: usize = 100;

    const fn ldt(self) -> usize {
        if self.wide { 96 } else { 42 }
    }

    /// Selectors that it has room for, in encoding order.
    const fn segments(self) -> usize {
        if self.wide { 6 } else { 4 }
    }
}

impl TaskState {
    /// Reads the TSS at linear address `base`.
    ///
    /// # Errors
    ///
    /// As [`Cpu::read_bytes`].
    pub(crate) fn read(cpu: &mut Cpu, layout: Layout, base: u64) -> Exec<Self> {
        let mut bytes = [0; 104];
        let bytes = &mut bytes[..layout.size()];
        cpu.read_bytes(cpu.system_linear(base), bytes, MmuMode::Supervisor)?;
        Ok(Self::parse(layout, bytes))
    }

    fn parse(layout: Layout, bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let double = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        let step = usize::from(layout.register_size());
        let (start, _) = layout.saved();
        // EIP, EFLAGS, eight registers, then selectors.
        let at = |n: usize| start as usize + n * step;
        let field = |n: usize| if layout.wide { double(at(n)) } else { u32::from(word(at(n))) };
        // The upper halves of registers, which a 16-bit TSS has no room for, are not kept
        // (SDM Vol. 3A, 7.6): they become ones, as on other implementations.
        let high = if layout.wide { 0 } else { 0xffff_0000 };
        Self {
            cr3: layout.wide.then(|| double(Layout::CR3)),
            eip: field(0),
            eflags: field(1),
            gpr: std::array::from_fn(|n| field(2 + n) | high),
            segments: std::array::from_fn(
                |n| {
                    if n < layout.segments() { word(at(10 + n)) } else { 0 }
                },
            ),
            ldt: word(layout.ldt()),
            trap: layout.wide && bytes[Layout::TRAP] & 1 != 0,
        }
    }

    /// Writes the dynamic fields to the TSS at linear address `base`; all of them or none.
    ///
    /// # Errors
    ///
    /// As [`Cpu::write_bytes`].
    pub(crate) fn save(&self, cpu: &mut Cpu, layout: Layout, base: u64) -> Exec {
        let (start, length) = layout.saved();
        let step = usize::from(layout.register_size());
        let segments = self.segments.iter().map(|selector| u32::from(*selector));
        let fields = [self.eip, self.eflags].into_iter().chain(self.gpr).chain(segments);
        let mut bytes = [0; 64];
        let bytes = &mut bytes[..length];
        for (slot, field) in bytes.chunks_exact_mut(step).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes()[..step]);
        }
        let la = cpu.system_linear(base.wrapping_add(u64::from(start)));
        cpu.write_bytes(la, bytes, MmuMode::Supervisor)
    }
}
