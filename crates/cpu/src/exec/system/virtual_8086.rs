//! Virtual-8086 mode (SDM Vol. 3B, 20.2), without the virtual-mode extensions: how it is entered
//! and left. A task switch enters it too. What instructions do otherwise in it is with them.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::{Rights, Segment, seg};

use super::stack::Stack;
use crate::cpu::Cpu;
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

/// INT n in the mode is for the monitor, unless IOPL is 3 (SDM Vol. 3B, 20.3.3).
///
/// # Errors
///
/// #GP(0).
pub(crate) fn check_iopl(cpu: &mut Cpu) -> Exec {
    if cpu.arch.system_flags.contains(Rflags::VM) && cpu.arch.iopl() < 3 {
        Err(cpu.gp(0))
    } else {
        Ok(())
    }
}
