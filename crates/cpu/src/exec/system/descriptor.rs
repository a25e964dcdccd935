//! Segment descriptors and gates in the GDT and LDT (SDM Vol. 3A, 3.4.5, 3.5 and 5.8).

use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Exception, Vector};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// Types of system descriptors (SDM Vol. 3A, table 3-2): the low five bits of the access byte,
/// S included.
pub(crate) mod system_type {
    /// 16-bit TSS, available.
    pub(crate) const TSS16_AVAILABLE: u32 = 0x1;
    /// Local descriptor table.
    pub(crate) const LDT: u32 = 0x2;
    /// 16-bit TSS, busy.
    pub(crate) const TSS16_BUSY: u32 = 0x3;
    /// 16-bit call gate.
    pub(crate) const CALL_GATE16: u32 = 0x4;
    /// Task gate.
    pub(crate) const TASK_GATE: u32 = 0x5;
    /// 16-bit interrupt gate.
    pub(crate) const INTERRUPT_GATE16: u32 = 0x6;
    /// 16-bit trap gate.
    pub(crate) const TRAP_GATE16: u32 = 0x7;
    /// 32-bit TSS, available; 64-bit TSS in IA-32e mode.
    pub(crate) const TSS_AVAILABLE: u32 = 0x9;
    /// 32-bit TSS, busy; 64-bit TSS in IA-32e mode.
    pub(crate) const TSS_BUSY: u32 = 0xb;
    /// 32-bit call gate; 64-bit call gate in IA-32e mode.
    pub(crate) const CALL_GATE: u32 = 0xc;
    /// 32-bit interrupt gate; 64-bit in IA-32e mode.
    pub(crate) const INTERRUPT_GATE: u32 = 0xe;
    /// 32-bit trap gate; 64-bit in IA-32e mode.
    pub(crate) const TRAP_GATE: u32 = 0xf;
}

/// Eight bytes from a descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor {
    /// The bytes.
    pub(crate) raw: u64,
    /// Linear address where they are.
    pub(crate) address: u64,
}

impl Descriptor {
    /// Access rights.
    #[must_use]
    pub(crate) const fn rights(self) -> Rights {
        Rights((self.raw >> 40) as u32 & 0xf0ff)
    }

    /// S and type: a [`system_type`] if S is clear.
    #[must_use]
    pub(crate) const fn kind(self) -> u32 {
        self.rights().0 & 0x1f
    }

    /// Base address, as far as the eight bytes hold it.
    #[must_use]
    pub(crate) const fn base(self) -> u64 {
        (self.raw >> 16 & 0xff_ffff) | (self.raw >> 32 & 0xff00_0000)
    }

    /// Limit in bytes.
    #[must_use]
    pub(crate) const fn limit(self) -> u32 {
        let limit = (self.raw & 0xffff) as u32 | (self.raw >> 32) as u32 & 0xf_0000;
        if self.rights().granular() { limit << 12 | 0xfff } else { limit }
    }

    /// What a segment register that holds it contains.
    #[must_use]
    pub(crate) const fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base(), limit: self.limit(), rights: self.rights() }
    }

    /// Selector in a gate.
    #[must_use]
    pub(crate) const fn gate_selector(self) -> u16 {
        (self.raw >> 16) as u16
    }

    /// Offset in a gate, as far as the eight bytes hold it.
    #[must_use]
    pub(crate) const fn gate_offset(self) -> u64 {
        (self.raw & 0xffff) | (self.raw >> 32 & 0xffff_0000)
    }
}

/// A selector as error codes carry it: index and TI.
#[must_use]
pub(crate) const fn selector_code(selector: u16) -> u32 {
    (selector & 0xfffc) as u32
}

/// Whether a selector is null.
#[must_use]
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

impl Cpu {
    /// #TS(`code`).
    #[cold]
    pub(crate) fn ts(&mut self, code: u32) -> crate::Stop {
        self.raise(Exception::with_code(Vector::Ts, code))
    }

    /// #NP(`code`).
    #[cold]
    pub(crate) fn np(&mut self, code: u32) -> crate::Stop {
        self.raise(Exception::with_code(Vector::Np, code))
    }

    /// #SS(`code`).
    #[cold]
    pub(crate) fn ss(&mut self, code: u32) -> crate::Stop {
        self.raise(Exception::with_code(Vector::Ss, code))
    }

    /// A linear address of a system structure: 32 bits outside IA-32e mode.
    #[must_use]
    pub(crate) fn system_linear(&self, la: u64) -> u64 {
        if self.long_mode() { la } else { la & 0xffff_ffff }
    }

    /// Reads a little-endian integer of `N` bytes as an implicit supervisor access.
    ///
    /// # Errors
    ///
    /// As [`Cpu::read_bytes`].
    pub(crate) fn read_system<const N: usize>(&mut self, la: u64) -> Exec<u64> {
        let mut bytes = [0; 8];
        self.read_bytes(self.system_linear(la), &mut bytes[..N], MmuMode::Supervisor)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The descriptor that `selector`, which is not null, names; `None` beyond the table's limit.
    ///
    /// # Errors
    ///
    /// As [`Cpu::read_bytes`].
    pub(crate) fn descriptor(&mut self, selector: u16) -> Exec<Option<Descriptor>> {
        self.descriptor_of_size(selector, 8)
    }

    /// As [`Cpu::descriptor`], for a descriptor of `size` bytes, of which it reads the first 8.
    ///
    /// # Errors
    ///
    /// As [`Cpu::read_bytes`].
    pub(crate) fn descriptor_of_size(
        &mut self,
        selector: u16,
        size: u32,
    ) -> Exec<Option<Descriptor>> {
        let (base, limit) = if selector & 4 != 0 {
            let ldt = self.arch.segs[seg::LDTR];
            if ldt.rights.unusable() {
                return Ok(None);
            }
            (ldt.base, ldt.limit)
        } else {
            (self.arch.gdtr.base, u32::from(self.arch.gdtr.limit))
        };
        let offset = u32::from(selector & 0xfff8);
        if offset + (size - 1) > limit {
            return Ok(None);
        }
        let address = base.wrapping_add(u64::from(offset));
        let raw = self.read_system::<8>(address)?;
        Ok(Some(Descriptor { raw, address }))
    }

    /// What SS holds with `selector`, which is not null, at privilege level `cpl`; the descriptor
    /// is marked as accessed. `ext` is EXT of error codes.
    ///
    /// # Errors
    ///
    /// An exception of the vector `wrong`, which is #GP or #TS, for what is not a stack segment of
    /// that level; #SS for one that is not present; and as [`Cpu::read_bytes`] and
    /// [`Cpu::write_bytes`].
    pub(crate) fn stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        wrong: Vector,
        ext: u32,
    ) -> Exec<Segment> {
        let code = selector_code(selector) | ext;
        let fits = |descriptor: &Descriptor| {
            let rights = descriptor.rights();
            (selector & 3) as u8 == cpl && rights.dpl() == cpl && rights.writable()
        };
        let Some(mut descriptor) = self.descriptor(selector)?.filter(fits) else {
            return Err(self.raise(Exception::with_code(wrong, code)));
        };
        if !descriptor.rights().present() {
            return Err(self.ss(code));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// Sets the accessed bit of a code or data descriptor in memory (SDM Vol. 3A, 3.4.5.1).
    ///
    /// # Errors
    ///
    /// As [`Cpu::write_bytes`].
    pub(crate) fn mark_accessed(&mut self, descriptor: &mut Descriptor) -> Exec {
        if descriptor.rights().0 & 1 != 0 {
            return Ok(());
        }
        descriptor.raw |= 1 << 40;
        self.write_access_byte(*descriptor)
    }

    /// Writes a descriptor's access byte back to its table.
    ///
    /// # Errors
    ///
    /// As [`Cpu::write_bytes`].
    pub(crate) fn write_access_byte(&mut self, descriptor: Descriptor) -> Exec {
        let la = self.system_linear(descriptor.address.wrapping_add(5));
        self.write_bytes(la, &[(descriptor.raw >> 40) as u8], MmuMode::Supervisor)
    }
}
