//! Debug exceptions (SDM Vol. 3B, chapter 17) and alignment checks.

use cloister_x86::regs::{Cr0, Cr4, Rflags};
use cloister_x86::{Exception, Vector, msr};

use super::{Event, Kind, deliver};
use crate::cpu::Cpu;
use crate::exit::{Exec, Exit};
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::run_state::attention;

/// DR6.BS: single step.
const DR6_BS: u64 = 1 << 14;
/// DR6.BT: a switch to a task whose TSS has T set.
const DR6_BT: u64 = 1 << 15;
/// DR6 bits B0 to B3.
const DR6_B: u64 = 0xf;
/// DR7.GD: general detect.
pub(crate) const DR7_GD: u64 = 1 << 13;
/// DR7 bits that can be written: enables, LE, GE, GD and the conditions.
const DR7_WRITABLE: u64 = 0xffff_23ff;
/// DR7 bit 10 reads as one.
const DR7_ONES: u64 = 1 << 10;

/// What a breakpoint watches: the R/W field of DR7 (SDM Vol. 3B, 17.2.4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Execute,
    Write,
    Io,
    ReadWrite,
}

/// An enabled breakpoint.
struct Breakpoint {
    bit: u64,
    condition: Condition,
    address: u64,
    length: u64,
}

impl Breakpoint {
    fn overlaps(&self, address: u64, length: u64) -> bool {
        let start = self.address & !(self.length - 1);
        // Modulo 2^64: neither range may wrap past the other.
        address.wrapping_sub(start) < self.length || start.wrapping_sub(address) < length
    }
}

impl Cpu {
    /// Sets DR7 and arms what it enables.
    pub(crate) fn write_dr7(&mut self, value: u64) {
        self.arch.dr7 = value & DR7_WRITABLE | DR7_ONES;
        self.arm_breakpoints();
        self.update_mode();
    }

    /// Has instructions run on their own where breakpoints take it: not for those of instructions that decoded
    /// code asks for.
    pub(crate) fn arm_breakpoints(&mut self) {
        let takes_it = |point: Breakpoint| {
            point.condition != Condition::Execute || !self.debugger.asks_at(point.address)
        };
        let alone = self.breakpoints().any(takes_it);
        self.run.set_attention(attention::BREAKPOINTS, alone);
    }

    /// Linear addresses of instructions with breakpoints.
    pub(crate) fn instruction_breakpoints(&self) -> impl Iterator<Item = u64> + use<> {
        let points = self.breakpoints();
        points.filter(|point| point.condition == Condition::Execute).map(|point| point.address)
    }

    fn breakpoints(&self) -> impl Iterator<Item = Breakpoint> + use<> {
        let (dr7, dr) = (self.arch.dr7, self.arch.dr);
        let debug_extensions = self.arch.cr4.contains(Cr4::DE);
        (0..4).filter(move |n| dr7 >> (2 * n) & 3 != 0).map(move |n| Breakpoint {
            bit: 1 << n,
            condition: match dr7 >> (16 + 4 * n) & 3 {
                0 => Condition::Execute,
                1 => Condition::Write,
                2 if debug_extensions => Condition::Io,
                _ => Condition::ReadWrite,
            },
            address: dr[n as usize],
            length: [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize],
        })
    }

    /// What comes before a data access that takes the slow path: #AC where alignment is checked,
    /// and the match with data breakpoints.
    ///
    /// # Errors
    ///
    /// #AC(0).
    pub(crate) fn check_access(
        &mut self,
        la: u64,
        len: usize,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Exec {
        if !self.run.tlb.is_slow_only() {
            return Ok(());
        }
        // Implicit supervisor accesses are not checked (SDM Vol. 3A, 6.15, #AC).
        let user = matches!(mode, MmuMode::User | MmuMode::Enclave);
        if user && matches!(len, 2 | 4 | 8) {
            self.check_alignment(la, len as u64)?;
        }
        if self.debugger.watches() {
            self.check_watchpoints(la, len as u64, kind);
        }
        let (la, len) = self.outside_suppression(la, len as u64);
        if self.arch.dr7 & 0xff != 0 && len != 0 {
            let hits = self
                .breakpoints()
                .filter(|point| match point.condition {
                    Condition::ReadWrite => true,
                    Condition::Write => kind == AccessKind::Write,
                    Condition::Execute | Condition::Io => false,
                })
                .filter(|point| point.overlaps(la, len))
                .fold(0, |bits, point| bits | point.bit);
            self.pend_debug_trap(hits);
        }
        Ok(())
    }

    /// The part of an access that may trigger data breakpoints: after an entry that is opted out of
    /// debugging, what lies outside ELRANGE (SDM Vol. 3D, 40.3.1).
    fn outside_suppression(&self, la: u64, len: u64) -> (u64, u64) {
        if self.enclave.debug_opt_out() { self.outside_elrange(la, len) } else { (la, len) }
    }

    /// The part of an access that lies outside the ELRANGE of the enclave that runs.
    pub(crate) fn outside_elrange(&self, la: u64, len: u64) -> (u64, u64) {
        let Some((base, size)) = self.enclave.elrange().filter(|_| len != 0) else {
            return (la, len);
        };
        let inside = la.wrapping_sub(base.0);
        if inside < size {
            let hidden = len.min(size - inside);
            return (la.wrapping_add(hidden), len - hidden);
        }
        // It may reach into ELRANGE from below.
        (la, len.min(base.0.wrapping_sub(la)))
    }

    /// Whether data accesses must be aligned (SDM Vol. 3A, 6.15, #AC).
    #[must_use]
    pub(crate) fn alignment_checked(&self) -> bool {
        self.arch.cpl == 3
            && self.arch.cr0.contains(Cr0::AM)
            && self.arch.system_flags.contains(Rflags::AC)
    }

    /// #AC(0) where data accesses must be aligned and this one is not at a multiple of `to`, a
    /// power of two. #GP(0) of a non-canonical address comes before it, #PF after it.
    ///
    /// # Errors
    ///
    /// #AC(0) and #GP(0).
    #[inline]
    pub(crate) fn check_alignment(&mut self, la: u64, to: u64) -> Exec {
        if la & (to - 1) != 0 && self.alignment_checked() {
            self.check_canonical(la)?;
            return Err(self.raise(Exception::with_code(Vector::Ac, 0)));
        }
        Ok(())
    }

    /// Matches an access to `size` bytes of I/O ports with the I/O breakpoints.
    pub(crate) fn check_io_breakpoint(&mut self, port: u16, size: u8) {
        if self.arch.dr7 & 0xff != 0 {
            let hits = self
                .breakpoints()
                .filter(|point| point.condition == Condition::Io)
                .filter(|point| point.overlaps(u64::from(port), u64::from(size)))
                .fold(0, |bits, point| bits | point.bit);
            self.pend_debug_trap(hits);
        }
    }

    fn pend_debug_trap(&mut self, dr6: u64) {
        if dr6 != 0 {
            self.arch.debug_pending |= dr6;
            self.run.attention |= attention::DEBUG_TRAP;
        }
    }
}

/// #DB for an instruction breakpoint at the next instruction, unless RF is set.
///
/// # Errors
///
/// #DB.
pub(crate) fn check_instruction_breakpoint(cpu: &mut Cpu) -> Exec {
    if cpu.arch.dr7 & 0xff == 0 || cpu.arch.system_flags.contains(Rflags::RF) {
        return Ok(());
    }
    // SDM Vol. 3D, 40.3.1.
    if cpu.enclave.debug_opt_out() {
        return Ok(());
    }
    let hits = instruction_matches(cpu);
    // MOV SS and POP SS hold off this fault as well (SDM Vol. 3A, 6.8.3).
    if hits == 0 || cpu.run.attention & attention::MOV_SS != 0 {
        return Ok(());
    }
    Err(cpu.raise(Exception { vector: Vector::Db, error_code: 0, address: hits }))
}

/// DR6 bits of the instruction breakpoints at the next instruction.
pub(crate) fn instruction_matches(cpu: &Cpu) -> u64 {
    let la = cpu.linear_ip(cpu.arch.rip);
    cpu.breakpoints()
        .filter(|point| point.condition == Condition::Execute && point.address == la)
        .fold(0, |bits, point| bits | point.bit)
}

/// Whether a single-step trap follows an instruction, which branched or not (SDM Vol. 3B, 17.4.3).
pub(crate) fn steps(cpu: &Cpu, branched: bool) -> bool {
    cpu.arch.system_flags.contains(Rflags::TF)
        && (branched || cpu.arch.msrs.debugctl & msr::DEBUGCTL_BTF == 0)
}

/// A single-step trap is due before the next instruction.
pub(crate) fn pend_single_step(cpu: &mut Cpu) {
    cpu.pend_debug_trap(DR6_BS);
}

/// A trap is due before the first instruction of a task (SDM Vol. 3B, 17.3.1.5).
pub(crate) fn pend_task_trap(cpu: &mut Cpu) {
    cpu.pend_debug_trap(DR6_BT);
}

/// Forgets matches of an instruction that did not retire: what was due `before` it is due again.
pub(crate) fn cancel(cpu: &mut Cpu, before: u64) {
    cpu.arch.debug_pending = before;
    cpu.run.set_attention(attention::DEBUG_TRAP, before != 0);
}

/// What MOV SS or POP SS held back when an event of the next instruction comes first. Nothing of it
/// survives into the handler, as nothing pending does when an exception or INT1 is injected
/// (SDM Vol. 3C, 26.6.3). Returned are the data and I/O breakpoints, which another debug exception
/// takes along; the single step is lost.
pub(crate) fn overtake(cpu: &mut Cpu) -> u64 {
    let held = cpu.arch.debug_pending;
    cancel(cpu, 0);
    held & DR6_B
}

/// Delivers the debug trap that is due.
///
/// # Errors
///
/// An exit that delivery caused.
pub(crate) fn deliver_trap(cpu: &mut Cpu) -> Result<(), Exit> {
    cpu.run.attention &= !attention::DEBUG_TRAP;
    let bits = std::mem::take(&mut cpu.arch.debug_pending);
    let trap = Event { address: bits, ..Event::plain(Vector::Db as u8, Kind::Trap) };
    deliver(cpu, trap)
}

/// What a debug exception leaves in the debug registers (SDM Vol. 3B, 17.2.3, 17.2.4 and 17.4.4).
pub(crate) fn record(cpu: &mut Cpu, dr6: u64) {
    cpu.arch.dr6 = (cpu.arch.dr6 & !DR6_B) | dr6;
    cpu.arch.dr7 &= !DR7_GD;
    cpu.arch.msrs.debugctl &= !(msr::DEBUGCTL_LBR | msr::DEBUGCTL_BTF);
}
