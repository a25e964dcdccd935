//! Virtual-8086 mode (SDM Vol. 3B, 20.2), and its extensions (20.3): how it is entered and left, and who has its
//! interrupts. A task switch enters it too. What instructions do otherwise in it is with them.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr4, Rflags};
use cloister_x86::segment::{Rights, Segment, seg};

use super::stack::Stack;
use crate::cpu::Cpu;
use crate::event::enter_handler;
use crate::exit::Exec;

/// Rights of all segments: present, DPL 3, writable data, accessed (SDM Vol. 3C, 26.3.1.2).
const RIGHTS: Rights = Rights(0xf3);
/// Their limit.
const LIMIT: u32 = 0xffff;

/// Loads ES, CS, SS, DS, FS and GS, in this order, as the mode has them: base addresses follow
/// from the selectors.
pub(crate) fn set_segments(cpu: &mut Cpu, selectors: [u16; 6]) {
    for (segment, selector) in cpu.arch.segs.iter_mut().zip(selectors) {
        let base = u64::from(selector) << 4;
        *segment = Segment { selector, base, limit: LIMIT, rights: RIGHTS };
    }
}

/// IRETD at CPL 0 whose flags have VM set, but for the flags; `stack` is what follows EIP, CS and
/// EFLAGS (SDM Vol. 2A, IRET, RETURN-TO-VIRTUAL-8086-MODE).
///
/// # Errors
///
/// #GP(0) for an EIP beyond 64 KiB, and as [`Stack::pop`].
pub(crate) fn enter(cpu: &mut Cpu, stack: Stack, eip: u64, cs: u16) -> Exec {
    let mut stack = stack;
    let [esp, ss, es, ds, fs, gs] = stack.pop(cpu, 4)?;
    if eip > u64::from(LIMIT) {
        return Err(cpu.gp(0));
    }
    set_segments(cpu, [es as u16, cs, ss as u16, ds as u16, fs as u16, gs as u16]);
    cpu.arch.gpr[Gpr::Rsp] = esp;
    cpu.arch.rip = eip;
    cpu.arch.cpl = 3;
    Ok(())
}

/// The data segments of a handler that interrupts the mode are null: their selectors are on its
/// stack (SDM Vol. 2A, INT n, INTERRUPT-FROM-VIRTUAL-8086-MODE).
pub(crate) fn leave(cpu: &mut Cpu) {
    for index in [seg::ES, seg::DS, seg::FS, seg::GS] {
        cpu.arch.segs[index] =
            Segment { selector: 0, base: 0, limit: 0, rights: Rights(Rights::UNUSABLE) };
    }
}

/// What an instruction that is sensitive to IOPL has for the interrupt flag in the mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptFlag {
    /// IF: with IOPL 3, and outside the mode, whatever that is there.
    Own,
    /// VIF, by the extensions of the mode (SDM Vol. 3B, 20.3.2).
    Virtual,
}

/// Which it is for PUSHF, POPF and IRET with operands of `size` bytes.
///
/// # Errors
///
/// #GP(0) with IOPL below 3, unless the operands have 16 bits and CR4.VME is set.
pub(crate) fn interrupt_flag(cpu: &mut Cpu, size: u8) -> Exec<InterruptFlag> {
    if !cpu.arch.system_flags.contains(Rflags::VM) || cpu.arch.iopl() == 3 {
        return Ok(InterruptFlag::Own);
    }
    if size != 2 || !cpu.arch.cr4.contains(Cr4::VME) {
        return Err(cpu.gp(0));
    }
    Ok(InterruptFlag::Virtual)
}

/// The flags that PUSHF and INT n push where VIF stands for IF: IOPL is 3 in them.
pub(crate) fn flags_with_vif(cpu: &Cpu) -> u64 {
    let mut flags = Rflags::from_bits_retain(cpu.rflags()) | Rflags::IOPL0 | Rflags::IOPL1;
    flags.set(Rflags::IF, flags.contains(Rflags::VIF));
    flags.bits()
}

/// Popped flags with VIF as IF is in them.
///
/// # Errors
///
/// #GP(0) if an interrupt is pending that it would let in (VIP), and for TF.
pub(crate) fn popped_for_vif(cpu: &mut Cpu, flags: u64) -> Exec<u64> {
    let mut popped = Rflags::from_bits_retain(flags);
    let lets_in = popped.contains(Rflags::IF);
    let pending = cpu.arch.system_flags.contains(Rflags::VIP) && lets_in;
    if pending || popped.contains(Rflags::TF) {
        return Err(cpu.gp(0));
    }
    popped.set(Rflags::VIF, lets_in);
    Ok(popped.bits())
}

/// Bytes of the map of interrupts, a bit for each, which ends where the I/O map begins.
const INTERRUPT_MAP: u64 = 32;

/// INT n in the mode: with CR4.VME the 8086 program has those for itself whose bit is clear in the TSS, by its own
/// table at address 0; all others are the monitor's, which with IOPL below 3 gets #GP (SDM Vol. 3B, 20.3.3). Returns
/// whether the program has it.
///
/// # Errors
///
/// #GP(0), also for a TSS without such a map; what memory yields.
pub(crate) fn redirect(cpu: &mut Cpu, vector: u8, next: u64) -> Exec<bool> {
    if !cpu.arch.system_flags.contains(Rflags::VM) {
        return Ok(false);
    }
    let is_virtual = cpu.arch.iopl() < 3;
    if cpu.arch.cr4.contains(Cr4::VME) && !is_of_monitor(cpu, vector)? {
        let entry = cpu.read_system::<4>(u64::from(vector) * 4)?;
        let flags = if is_virtual { flags_with_vif(cpu) } else { cpu.rflags() };
        let mut stack = Stack::current(cpu);
        let cs = u64::from(cpu.arch.segs[seg::CS].selector);
        stack.push(cpu, 2, &[flags & 0xffff, cs, next & 0xffff])?;
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
        cpu.arch.rip = entry & 0xffff;
        cpu.set_real_segment(seg::CS, (entry >> 16) as u16);
        let flag = if is_virtual { Rflags::VIF } else { Rflags::IF };
        enter_handler(cpu, Rflags::TF | Rflags::RF | flag);
        return Ok(true);
    }
    if is_virtual { Err(cpu.gp(0)) } else { Ok(false) }
}

/// An interrupt's bit in the map of the TSS.
fn is_of_monitor(cpu: &mut Cpu, vector: u8) -> Exec<bool> {
    let (map, tss) = (cpu.io_map()?, cpu.arch.segs[seg::TR]);
    let at = map.checked_sub(INTERRUPT_MAP).map(|start| start + u64::from(vector >> 3));
    let Some(at) = at.filter(|&at| at <= u64::from(tss.limit)) else { return Err(cpu.gp(0)) };
    let byte = cpu.read_system::<1>(tss.base.wrapping_add(at))?;
    Ok(byte >> (vector & 7) & 1 != 0)
}
