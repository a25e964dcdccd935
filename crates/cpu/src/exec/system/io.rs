//! Who may access I/O ports (SDM Vol. 1, 19.5).

use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::seg;

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// Offset in a 32- or 64-bit TSS of the I/O map's own offset (SDM Vol. 3A, figure 7-2 and 7-11).
const IO_MAP_BASE: u64 = 102;

impl Cpu {
    /// Checks that `size` (1, 2 or 4) ports from `port` on may be accessed: by IOPL, else by the
    /// I/O permission bitmap in the TSS. Matches the access with I/O breakpoints.
    ///
    /// # Errors
    ///
    /// #GP(0), or what reading the TSS yields.
    #[inline]
    pub(crate) fn io_permission(&mut self, port: u16, size: u8) -> Exec {
        self.may_access_ports(port, size)?;
        self.check_io_breakpoint(port, size);
        Ok(())
    }

    /// As [`Cpu::io_permission`], for an instruction that makes no access.
    ///
    /// # Errors
    ///
    /// #GP(0), or what reading the TSS yields.
    #[inline]
    pub(crate) fn may_access_ports(&mut self, port: u16, size: u8) -> Exec {
        if !self.arch.cr0.contains(Cr0::PE)
            || (self.arch.cpl <= self.arch.iopl() && !self.arch.system_flags.contains(Rflags::VM))
        {
            return Ok(());
        }
        self.io_bitmap(port, size)
    }

    /// Where in the TSS its I/O map is; the map of interrupts of virtual-8086 mode ends there.
    ///
    /// # Errors
    ///
    /// #GP(0) for a TSS that names none, or what reading it yields.
    pub(super) fn io_map(&mut self) -> Exec<u64> {
        let tss = self.arch.segs[seg::TR];
        // A 16-bit TSS has no bitmap.
        let available = matches!(tss.rights.kind(), 9 | 11) && !tss.rights.unusable();
        if !available || u64::from(tss.limit) < IO_MAP_BASE + 1 {
            return Err(self.gp(0));
        }
        self.read_system::<2>(tss.base.wrapping_add(IO_MAP_BASE))
    }

    #[inline(never)]
    fn io_bitmap(&mut self, port: u16, size: u8) -> Exec {
        let map = self.io_map()?;
        let tss = self.arch.segs[seg::TR];
        // Two bytes are read always, so that a port's bits may straddle.
        let offset = map + u64::from(port >> 3);
        if offset + 1 > u64::from(tss.limit) {
            return Err(self.gp(0));
        }
        let mut bytes = [0; 2];
        self.read_bytes(tss.base.wrapping_add(offset), &mut bytes, MmuMode::Supervisor)?;
        let wanted = ((1u16 << size) - 1) << (port & 7);
        if u16::from_le_bytes(bytes) & wanted != 0 {
            return Err(self.gp(0));
        }
        Ok(())
    }
}
