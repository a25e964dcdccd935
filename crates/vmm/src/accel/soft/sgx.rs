//! A software processor as SGX virtualization sees it.

use std::sync::atomic::Ordering;

use cloister_cpu::mem::tlb::{AccessKind, MmuMode};
use cloister_cpu::segment::seg;
use cloister_cpu::state::event;
use cloister_cpu::{Cpu, Stop};
use cloister_sgx::EnclsRegs;
use cloister_virt::{GuestCpu, GuestFault};
use cloister_x86::addr::is_canonical;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::{Exception, Gpa, Gva};

/// Encodings of the registers of SGX leaves.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;

/// A processor that stopped at an ENCLS.
pub(super) struct StoppedAtEncls<'a>(pub(super) &'a mut Cpu);

impl StoppedAtEncls<'_> {
    /// The exception behind a failed access. What is no fault, an access to device registers,
    /// reads as all ones: SGX structures are memory.
    fn fault(&mut self, stop: Stop) -> Option<GuestFault> {
        match stop {
            Stop::Fault => self.0.fault.take().map(GuestFault::Exception),
            Stop::Exit => {
                self.0.exit = None;
                None
            }
            Stop::Alone | Stop::Jump => Some(GuestFault::Retry),
        }
    }

    /// The rights of the access: ENCLS executes in supervisor mode.
    fn rights(&self) -> MmuMode {
        self.0.mmu_mode
    }
}

impl GuestCpu for StoppedAtEncls<'_> {
    fn operands(&self) -> EnclsRegs {
        let gpr = &self.0.gpr;
        EnclsRegs {
            eax: gpr[RAX] as u32,
            rbx: gpr[RBX],
            rcx: gpr[RCX],
            rdx: gpr[RDX],
            mode64: self.0.mode.is_64(),
        }
    }

    fn linear(&mut self, ea: u64, len: u64) -> Result<Gva, GuestFault> {
        let refused = GuestFault::Exception(Exception::gp(0));
        // SDM Vol. 2, ENCLS: this comes after the exit.
        if !self.0.cr0.contains(Cr0::PG) {
            return Err(refused);
        }
        let last = ea.wrapping_add(len.wrapping_sub(1));
        if self.0.mode.is_64() {
            // SDM Vol. 1, 3.3.7.1; the base of DS is zero in 64-bit mode.
            return if is_canonical(ea) && is_canonical(last) { Ok(Gva(ea)) } else { Err(refused) };
        }
        // SDM Vol. 3A, 5.3. Expand-down segments hold no SGX structures: their limit is below.
        let ds = &self.0.segs[seg::DS];
        let ea = ea & 0xffff_ffff;
        let inside = ea.checked_add(len.wrapping_sub(1)).is_some_and(|end| end <= ds.limit.into());
        if ds.rights.unusable() || ds.rights.bit_ec() || !inside {
            return Err(refused);
        }
        Ok(Gva(ds.base.wrapping_add(ea) & 0xffff_ffff))
    }

    fn translate(&mut self, gva: Gva, write: bool) -> Result<Gpa, GuestFault> {
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let rights = self.rights();
        match self.0.walk(gva.0, kind, rights) {
            Ok(mapping) => Ok(Gpa(mapping.gpa.0 | gva.page_offset())),
            Err(code) => Err(GuestFault::Exception(Exception::pf(gva.0, code))),
        }
    }

    fn read(&mut self, gva: Gva, out: &mut [u8]) -> Result<(), GuestFault> {
        let rights = self.rights();
        match self.0.read_bytes(gva.0, out, rights) {
            Ok(()) => Ok(()),
            Err(stop) => match self.fault(stop) {
                Some(fault) => Err(fault),
                None => {
                    out.fill(0xff);
                    Ok(())
                }
            },
        }
    }

    fn event_pending(&mut self) -> bool {
        self.0.system_flags.contains(Rflags::IF)
            && self.0.kicker.events.load(Ordering::SeqCst) & event::APIC != 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloister_cpu::segment::{Rights, Segment};
    use cloister_cpu::state::{Features, Shared};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::super::memory::SoftMemory;
    use super::*;

    const FLAT: u32 = 0xc093;
    const EXPAND_DOWN: u32 = 0xc097;

    /// The linear address of a page at `ea` of a processor that is not in 64-bit mode.
    fn page_in(ds: Segment, paging: bool, ea: u64) -> Result<Gva, GuestFault> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let memory = SoftMemory::new(&ram, None).unwrap();
        let shared = Shared::new(Arc::new(memory), None, 1, 1_000_000_000);
        let mut vcpu = cloister_cpu::Vcpu::new(shared, 0, Features::default());
        vcpu.cpu.cr0.set(Cr0::PG, paging);
        vcpu.cpu.segs[seg::DS] = ds;
        StoppedAtEncls(&mut vcpu.cpu).linear(ea, 4096)
    }

    #[test]
    fn outside_64_bit_mode_operands_are_in_ds() {
        let gp = Err(GuestFault::Exception(Exception::gp(0)));
        let ds =
            |base, limit, rights| Segment { selector: 0x10, base, limit, rights: Rights(rights) };
        let flat = ds(0, u32::MAX, FLAT);
        let table = [
            ("flat", flat, 0x2000, Ok(Gva(0x2000))),
            ("the high half of the register", flat, 0xf_0000_2000, Ok(Gva(0x2000))),
            ("the last page", flat, 0xffff_f000, Ok(Gva(0xffff_f000))),
            ("beyond 4 GiB", flat, 0xffff_f001, gp),
            ("a base", ds(0x1000_0000, 0x2fff, FLAT), 0x2000, Ok(Gva(0x1000_2000))),
            ("a byte beyond the limit", ds(0x1000_0000, 0x2ffe, FLAT), 0x2000, gp),
            ("a base that wraps", ds(0xffff_f000, u32::MAX, FLAT), 0x2000, Ok(Gva(0x1000))),
            ("expand-down", ds(0, u32::MAX, EXPAND_DOWN), 0x2000, gp),
            ("unusable", ds(0, u32::MAX, FLAT | Rights::UNUSABLE), 0x2000, gp),
        ];
        for (name, ds, ea, expected) in table {
            assert_eq!(page_in(ds, true, ea), expected, "{name}");
        }
        assert_eq!(page_in(flat, false, 0x2000), gp, "without paging");
    }
}
