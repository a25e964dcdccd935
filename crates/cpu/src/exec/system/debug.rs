//! Debug registers, debug exceptions (SDM Vol. 3B, chapter 17) and alignment checks.

use cloister_x86::regs::{Cr0, Cr4, Rflags};
use cloister_x86::{Exception, Vector};
use iced_x86::{Instruction, Mnemonic, OpKind};

use super::event::{self, Event, Kind};
use crate::exit::Exit;
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::op::{Handler, Op};
use crate::state::{Cpu, Exec, attention};

/// DR6.BD: an access to a debug register while DR7.GD was set.
const DR6_BD: u64 = 1 << 13;
/// DR6.BS: single step.
const DR6_BS: u64 = 1 << 14;
/// DR6.BT: a switch to a task whose TSS has T set.
const DR6_BT: u64 = 1 << 15;
/// DR6 bits B0 to B3.
const DR6_B: u64 = 0xf;
/// DR6 bits that read as one (RTM, bit 16, among them: no RTM).
const DR6_ONES: u64 = 0xffff_0ff0;
/// DR6 bits that can be written: B0 to B3, BD, BS, BT.
const DR6_WRITABLE: u64 = 0xe00f;
/// DR7.GD: general detect.
const DR7_GD: u64 = 1 << 13;
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

/// The handler of MOV to and from debug registers.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    let is_debug =
        |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).is_dr();
    match instruction.mnemonic() {
        Mnemonic::Mov if is_debug(0) => Some(mov_to),
        Mnemonic::Mov if is_debug(1) => Some(mov_from),
        _ => None,
    }
}

/// Checks an access to debug register `number` and returns the register it names.
fn access(cpu: &mut Cpu, number: u8) -> Exec<u8> {
    let number = match number {
        4 | 5 if !cpu.cr4.contains(Cr4::DE) => number + 2,
        0..4 | 6 | 7 => number,
        _ => return Err(cpu.ud()),
    };
    cpu.require_cpl0()?;
    if cpu.dr7 & DR7_GD != 0 {
        let fault = Exception { vector: Vector::Db, error_code: 0, address: DR6_BD };
        return Err(cpu.raise(fault));
    }
    Ok(number)
}

fn mov_to(cpu: &mut Cpu, op: &Op) -> Exec {
    let number = access(cpu, op.dst)?;
    let value = cpu.reg::<u64>(op.src, false);
    let value = if cpu.mode.is_64() { value } else { value & 0xffff_ffff };
    match number {
        0..4 => cpu.dr[usize::from(number)] = value,
        _ if value >> 32 != 0 => return Err(cpu.gp(0)),
        6 => cpu.dr6 = value & DR6_WRITABLE | DR6_ONES,
        _ => cpu.write_dr7(value),
    }
    Ok(())
}

fn mov_from(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = match access(cpu, op.src)? {
        number @ 0..4 => cpu.dr[usize::from(number)],
        6 => cpu.dr6,
        _ => cpu.dr7,
    };
    let value = if cpu.mode.is_64() { value } else { value & 0xffff_ffff };
    cpu.set_dst(op, value);
    Ok(())
}

impl Cpu {
    /// Sets DR7 and arms what it enables.
    pub fn write_dr7(&mut self, value: u64) {
        self.dr7 = value & DR7_WRITABLE | DR7_ONES;
        if self.dr7 & 0xff != 0 {
            self.attention |= attention::BREAKPOINTS;
        } else {
            self.attention &= !attention::BREAKPOINTS;
        }
        self.update_mode();
    }

    fn breakpoints(&self) -> impl Iterator<Item = Breakpoint> + use<> {
        let (dr7, dr) = (self.dr7, self.dr);
        let debug_extensions = self.cr4.contains(Cr4::DE);
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
    pub fn check_access(&mut self, la: u64, len: usize, kind: AccessKind, mode: MmuMode) -> Exec {
        if !self.tlb.is_slow_only() {
            return Ok(());
        }
        // Implicit supervisor accesses are not checked (SDM Vol. 3A, 6.15, #AC).
        let user = matches!(mode, MmuMode::User | MmuMode::Enclave);
        if user && matches!(len, 2 | 4 | 8) {
            self.check_alignment(la, len as u64)?;
        }
        let (la, len) = self.outside_suppression(la, len as u64);
        if self.dr7 & 0xff != 0 && len != 0 {
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
        let Some((base, size)) = self.enclave.elrange() else { return (la, len) };
        if !self.enclave.debug_opt_out() || len == 0 {
            return (la, len);
        }
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
    pub fn alignment_checked(&self) -> bool {
        self.cpl == 3 && self.cr0.contains(Cr0::AM) && self.system_flags.contains(Rflags::AC)
    }

    /// #AC(0) where data accesses must be aligned and this one is not at a multiple of `to`, a power
    /// of two. #GP(0) of a non-canonical address comes before it, #PF after it.
    ///
    /// # Errors
    ///
    /// #AC(0) and #GP(0).
    #[inline]
    pub fn check_alignment(&mut self, la: u64, to: u64) -> Exec {
        if la & (to - 1) != 0 && self.alignment_checked() {
            self.check_canonical(la)?;
            return Err(self.raise(Exception::with_code(Vector::Ac, 0)));
        }
        Ok(())
    }

    /// Matches an access to `size` bytes of I/O ports with the I/O breakpoints.
    pub(super) fn check_io_breakpoint(&mut self, port: u16, size: u8) {
        if self.dr7 & 0xff != 0 {
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
            self.debug_pending |= dr6;
            self.attention |= attention::DEBUG_TRAP;
        }
    }
}

/// #DB for an instruction breakpoint at the next instruction, unless RF is set.
///
/// # Errors
///
/// #DB.
pub fn check_instruction_breakpoint(cpu: &mut Cpu) -> Exec {
    if cpu.attention & attention::BREAKPOINTS == 0 || cpu.system_flags.contains(Rflags::RF) {
        return Ok(());
    }
    // SDM Vol. 3D, 40.3.1.
    if cpu.enclave.debug_opt_out() {
        return Ok(());
    }
    let hits = instruction_matches(cpu);
    // MOV SS and POP SS hold off this fault as well (SDM Vol. 3A, 6.8.3).
    if hits == 0 || cpu.attention & attention::MOV_SS != 0 {
        return Ok(());
    }
    Err(cpu.raise(Exception { vector: Vector::Db, error_code: 0, address: hits }))
}

/// DR6 bits of the instruction breakpoints at the next instruction.
pub fn instruction_matches(cpu: &Cpu) -> u64 {
    let la = cpu.linear_ip(cpu.rip);
    cpu.breakpoints()
        .filter(|point| point.condition == Condition::Execute && point.address == la)
        .fold(0, |bits, point| bits | point.bit)
}

/// A single-step trap is due before the next instruction.
pub fn pend_single_step(cpu: &mut Cpu) {
    cpu.pend_debug_trap(DR6_BS);
}

/// A trap is due before the first instruction of a task (SDM Vol. 3B, 17.3.1.5).
pub fn pend_task_trap(cpu: &mut Cpu) {
    cpu.pend_debug_trap(DR6_BT);
}

/// Forgets matches of an instruction that did not retire: what was due `before` it is due again.
pub fn cancel(cpu: &mut Cpu, before: u64) {
    cpu.debug_pending = before;
    if before == 0 {
        cpu.attention &= !attention::DEBUG_TRAP;
    } else {
        cpu.attention |= attention::DEBUG_TRAP;
    }
}

/// What MOV SS or POP SS held back when an event of the next instruction comes first. Nothing of it
/// survives into the handler, as nothing pending does when an exception or INT1 is injected
/// (SDM Vol. 3C, 26.6.3). Returned are the data and I/O breakpoints, which another debug exception
/// takes along; the single step is lost.
pub fn overtake(cpu: &mut Cpu) -> u64 {
    let held = cpu.debug_pending;
    cancel(cpu, 0);
    held & DR6_B
}

/// Delivers the debug trap that is due.
///
/// # Errors
///
/// An exit that delivery caused.
pub fn deliver_trap(cpu: &mut Cpu) -> Result<(), Exit> {
    cpu.attention &= !attention::DEBUG_TRAP;
    let bits = std::mem::take(&mut cpu.debug_pending);
    let trap = Event { address: bits, ..Event::plain(Vector::Db as u8, Kind::Trap) };
    event::deliver(cpu, trap)
}

/// What a debug exception leaves in the debug registers (SDM Vol. 3B, 17.2.3 and 17.2.4).
pub fn record(cpu: &mut Cpu, dr6: u64) {
    cpu.dr6 = (cpu.dr6 & !DR6_B) | dr6;
    cpu.dr7 &= !DR7_GD;
}
