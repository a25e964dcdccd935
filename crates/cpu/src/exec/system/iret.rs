//! IRET, IRETD and IRETQ (SDM Vol. 2A, IRET).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::vmx::PinControls;
use cloister_x86::{Gpr, Vector};

use super::descriptor::{Descriptor, is_null, selector_code};
use super::stack::Stack;
use super::virtual_8086::InterruptFlag;
use super::{task, virtual_8086};
use crate::cpu::Cpu;
use crate::event::long::null_stack;
use crate::exec::table::{rewrite, rows};
use crate::exit::Exec;
use crate::lower::bare;
use crate::op::Op;
use crate::run_state::attention;

rows! {
    Iret => rewrite(|_, _, op| form(op, 2)).leaves().illegal_in_enclave(),
    Iretd => rewrite(|_, _, op| form(op, 4)).leaves().illegal_in_enclave(),
    Iretq => rewrite(|_, _, op| form(op, 8)).leaves().illegal_in_enclave(),
}

fn form(op: Op, size: u8) -> Option<Op> {
    Some(Op { run: iret, size, ..op })
}

/// Flags that IRET loads whatever the privilege.
const ALWAYS: u64 = Rflags::CF.bits()
    | Rflags::PF.bits()
    | Rflags::AF.bits()
    | Rflags::ZF.bits()
    | Rflags::SF.bits()
    | Rflags::TF.bits()
    | Rflags::DF.bits()
    | Rflags::OF.bits()
    | Rflags::NT.bits();
/// Flags that a 16-bit IRET leaves.
const WIDE: u64 = Rflags::RF.bits() | Rflags::AC.bits() | Rflags::ID.bits();

/// IRETQ as an instruction of no length, on a processor that does not run.
pub(crate) fn iretq(cpu: &mut Cpu) -> Exec {
    iret(cpu, &Op { size: 8, ..bare(iret, 0, 0) })
}

extern "C" fn iret(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.run.mode.is_real() {
        return real(cpu, op);
    }
    if cpu.arch.system_flags.contains(Rflags::NT) {
        // IA-32e mode has no task switches.
        return if cpu.long_mode() { Err(cpu.gp(0)) } else { task::switch::iret(cpu, op) };
    }
    let mut stack = Stack::current(cpu);
    let [rip, cs, flags] = stack.pop(cpu, op.size)?;
    let cs = cs as u16;
    if !cpu.long_mode() && op.size == 4 && cpu.arch.cpl == 0 && flags & Rflags::VM.bits() != 0 {
        virtual_8086::enter(cpu, stack, rip, cs)?;
        finish(cpu, flags, u64::MAX);
        return Ok(());
    }
    let mut code = return_code_segment(cpu, cs)?;
    check_target(cpu, code, rip)?;
    let new_cpl = (cs & 3) as u8;
    let to_64 = cpu.long_mode() && code.rights().long();
    if cpu.run.mode.is_64() || new_cpl > cpu.arch.cpl {
        let [rsp, ss] = stack.pop(cpu, op.size)?;
        let segment = return_stack_segment(cpu, ss as u16, new_cpl, to_64)?;
        cpu.mark_accessed(&mut code)?;
        load_stack_pointer(cpu, op.size, rsp, segment, to_64);
        cpu.arch.segs[seg::SS] = segment;
    } else {
        cpu.mark_accessed(&mut code)?;
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    }
    let mut mask = ALWAYS;
    if op.size > 2 {
        mask |= WIDE;
    }
    if cpu.arch.cpl == 0 {
        mask |= Rflags::IOPL0.bits() | Rflags::IOPL1.bits();
        if op.size > 2 {
            mask |= Rflags::VIF.bits() | Rflags::VIP.bits();
        }
    }
    if cpu.arch.cpl <= cpu.arch.iopl() {
        mask |= Rflags::IF.bits();
    }
    let outer = new_cpl > cpu.arch.cpl;
    cpu.arch.segs[seg::CS] = code.segment(cs);
    cpu.arch.rip = if to_64 { rip } else { rip & 0xffff_ffff };
    cpu.arch.cpl = new_cpl;
    if outer {
        invalidate_data_segments(cpu);
    }
    finish(cpu, flags, mask);
    Ok(())
}

/// In real-address mode, and in virtual-8086 mode, which keeps IOPL.
fn real(cpu: &mut Cpu, op: &Op) -> Exec {
    let flag = virtual_8086::interrupt_flag(cpu, op.size)?;
    let mut stack = Stack::current(cpu);
    let [rip, cs, mut flags] = stack.pop(cpu, op.size)?;
    if rip > u64::from(cpu.arch.segs[seg::CS].limit) {
        return Err(cpu.gp(0));
    }
    let mut mask = ALWAYS;
    match flag {
        InterruptFlag::Own => mask |= Rflags::IF.bits(),
        InterruptFlag::Virtual => {
            flags = virtual_8086::popped_for_vif(cpu, flags)?;
            mask |= Rflags::VIF.bits();
        }
    }
    if op.size > 2 {
        mask |= WIDE;
    }
    if !cpu.arch.system_flags.contains(Rflags::VM) {
        mask |= Rflags::IOPL0.bits() | Rflags::IOPL1.bits();
    }
    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    cpu.arch.rip = rip;
    cpu.set_real_segment(seg::CS, cs as u16);
    finish(cpu, flags, mask);
    Ok(())
}

/// Loads the flags of `mask`.
pub(crate) fn finish(cpu: &mut Cpu, flags: u64, mask: u64) {
    let merged = (cpu.rflags() & !mask) | (flags & mask);
    cpu.set_rflags(merged);
    if merged & Rflags::RF.bits() != 0 {
        // RF lasts for one instruction, which the engine has to see retire.
        cpu.run.attention |= attention::ALONE;
    }
    unblock_nmi(cpu);
}

/// IRET ends the handling of an NMI (SDM Vol. 3A, 6.7.1).
pub(crate) fn unblock_nmi(cpu: &mut Cpu) {
    // In a guest whose NMIs exit and are not virtual, IRET leaves them blocked (SDM Vol. 3C, 25.3).
    let kept = cpu.guest_controls().is_some_and(|c| {
        c.pin & (PinControls::NMI | PinControls::VIRTUAL_NMIS) == PinControls::NMI
    });
    if cpu.arch.nmi_blocked && !kept {
        cpu.arch.nmi_blocked = false;
        cpu.run.attention |= attention::INTERRUPTS;
    }
}

/// The descriptor of the code segment that IRET or far RET returns to (SDM Vol. 2A, IRET,
/// PROTECTED-MODE-RETURN).
///
/// # Errors
///
/// #GP and #NP.
pub(crate) fn return_code_segment(cpu: &mut Cpu, selector: u16) -> Exec<Descriptor> {
    if is_null(selector) {
        return Err(cpu.gp(0));
    }
    let code = selector_code(selector);
    let Some(descriptor) = cpu.descriptor(selector)? else {
        return Err(cpu.gp(code));
    };
    let rights = descriptor.rights();
    let rpl = (selector & 3) as u8;
    let wrong_level = if rights.bit_ec() { rights.dpl() > rpl } else { rights.dpl() != rpl };
    if !rights.is_code()
        || rpl < cpu.arch.cpl
        || wrong_level
        || (cpu.long_mode() && rights.long() && rights.big())
    {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    Ok(descriptor)
}

/// Checks that code may continue at `rip` in a code segment.
///
/// # Errors
///
/// #GP(0).
pub(crate) fn check_target(cpu: &mut Cpu, code: Descriptor, rip: u64) -> Exec {
    let fits = if cpu.long_mode() && code.rights().long() {
        is_canonical(rip)
    } else {
        rip & 0xffff_ffff <= u64::from(code.limit())
    };
    if fits { Ok(()) } else { Err(cpu.gp(0)) }
}

/// The stack segment that IRET or far RET returns to at privilege `cpl`; `to_64`: to 64-bit code.
///
/// # Errors
///
/// #GP and #SS.
pub(crate) fn return_stack_segment(
    cpu: &mut Cpu,
    selector: u16,
    cpl: u8,
    to_64: bool,
) -> Exec<Segment> {
    if is_null(selector) {
        // SDM Vol. 3A, 6.14.3: 64-bit handlers may have run on a null stack segment.
        if to_64 && cpl != 3 && (selector & 3) as u8 == cpl {
            return Ok(null_stack(cpl));
        }
        return Err(cpu.gp(0));
    }
    cpu.stack_segment(selector, cpl, Vector::Gp, 0)
}

/// Loads the stack pointer that a return popped, as wide as the new stack is.
pub(crate) fn load_stack_pointer(cpu: &mut Cpu, size: u8, rsp: u64, segment: Segment, to_64: bool) {
    cpu.arch.gpr[Gpr::Rsp] = match size {
        8 if to_64 => rsp,
        _ if to_64 || segment.rights.big() => rsp & 0xffff_ffff,
        _ => (cpu.arch.gpr[Gpr::Rsp] & !0xffff) | rsp & 0xffff,
    };
}

/// After a return to an outer level: segments that it may not use become null, and of a null
/// selector the RPL is lost (SDM Vol. 3A, 5.8.6; Vol. 2A, IRET, RETURN-TO-OUTER-PRIVILEGE-LEVEL).
/// Bases stay: those of FS and GS are in use with null selectors.
pub(crate) fn invalidate_data_segments(cpu: &mut Cpu) {
    for index in [seg::ES, seg::FS, seg::GS, seg::DS] {
        let Segment { selector, rights, .. } = cpu.arch.segs[index];
        let conforming = rights.is_code() && rights.bit_ec();
        let forbidden = !conforming && rights.dpl() < cpu.arch.cpl;
        if is_null(selector) || rights.unusable() || forbidden {
            cpu.arch.segs[index].selector = 0;
            cpu.arch.segs[index].rights = Rights(Rights::UNUSABLE);
        }
    }
}
