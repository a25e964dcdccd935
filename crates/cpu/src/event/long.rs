//! Event delivery in IA-32e mode (SDM Vol. 3A, 6.14).

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::{Rights, Segment, seg};

use super::{Event, check_gate, enter_handler, handler_code, pushed_flags};
use crate::cpu::Cpu;
use crate::exec::system::descriptor::{selector_code, system_type};
use crate::exec::system::stack::Stack;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// Offset of RSP0 in a 64-bit TSS (SDM Vol. 3A, figure 7-11).
const TSS_RSP0: u32 = 4;
/// Offset of IST1.
const TSS_IST1: u32 = 36;

/// Delivers an event through a 64-bit gate.
///
/// # Errors
///
/// #GP, #NP, #TS, #SS and #PF.
pub(crate) fn deliver(cpu: &mut Cpu, event: &Event) -> Exec {
    let ext = event.ext();
    let entry = u32::from(event.vector) * 16;
    if entry + 15 > u32::from(cpu.arch.idtr.limit) {
        return Err(cpu.gp(event.idt_code()));
    }
    let mut gate = [0; 16];
    let la = cpu.arch.idtr.base.wrapping_add(u64::from(entry));
    cpu.read_bytes(la, &mut gate, MmuMode::Supervisor)?;
    let [low, high] = [0, 8].map(|at| {
        gate[at..at + 8].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    });
    let rights = Rights((low >> 40) as u32 & 0xff);
    let kind = rights.0 & 0x1f;
    if !matches!(kind, system_type::INTERRUPT_GATE | system_type::TRAP_GATE) {
        return Err(cpu.gp(event.idt_code()));
    }
    check_gate(cpu, event, rights)?;
    let rip = (low & 0xffff) | (low >> 32 & 0xffff_0000) | high << 32;
    let selector = (low >> 16 & 0xffff) as u16;
    let ist = (low >> 32) as u32 & 7;

    let (mut code, new_cpl) = handler_code(cpu, selector, ext)?;
    cpu.mark_accessed(&mut code)?;
    if !is_canonical(rip) {
        return Err(cpu.gp(ext));
    }
    let inner = new_cpl < cpu.arch.cpl;
    let pointer = if ist != 0 {
        tss_pointer(cpu, TSS_IST1 + 8 * (ist - 1), ext)?
    } else if inner {
        tss_pointer(cpu, TSS_RSP0 + 8 * u32::from(new_cpl), ext)?
    } else {
        cpu.arch.gpr[Gpr::Rsp]
    };
    let mut stack = Stack {
        segment: cpu.arch.segs[seg::SS],
        pointer: pointer & !0xf,
        width: 8,
        mode: stack_mode(cpu, new_cpl),
        code: ext,
    };
    if !is_canonical(pointer) {
        return Err(cpu.ss(ext));
    }
    let frame = [
        u64::from(cpu.arch.segs[seg::SS].selector),
        cpu.arch.gpr[Gpr::Rsp],
        pushed_flags(cpu, event),
        u64::from(cpu.arch.segs[seg::CS].selector),
        cpu.arch.rip,
        u64::from(event.error_code.unwrap_or(0)),
    ];
    stack.push(cpu, 8, if event.error_code.is_some() { &frame } else { &frame[..5] })?;

    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    cpu.arch.rip = rip;
    cpu.arch.segs[seg::CS] = code.segment(selector & !3 | u16::from(new_cpl));
    if inner {
        cpu.arch.segs[seg::SS] = null_stack(new_cpl);
    }
    cpu.arch.cpl = new_cpl;
    let mut cleared = Rflags::TF | Rflags::NT | Rflags::RF | Rflags::VM;
    if kind == system_type::INTERRUPT_GATE {
        cleared |= Rflags::IF;
    }
    enter_handler(cpu, cleared);
    Ok(())
}

/// A stack pointer from the 64-bit TSS.
///
/// # Errors
///
/// #TS beyond the TSS's limit.
pub(crate) fn tss_pointer(cpu: &mut Cpu, offset: u32, ext: u32) -> Exec<u64> {
    let tr = cpu.arch.segs[seg::TR];
    if offset + 7 > tr.limit {
        return Err(cpu.ts(selector_code(tr.selector) | ext));
    }
    cpu.read_system::<8>(tr.base.wrapping_add(u64::from(offset)))
}

/// A stack pointer for privilege level `cpl` from the 64-bit TSS.
///
/// # Errors
///
/// As [`tss_pointer`].
pub(crate) fn tss_rsp(cpu: &mut Cpu, cpl: u8) -> Exec<u64> {
    tss_pointer(cpu, TSS_RSP0 + 8 * u32::from(cpl), 0)
}

/// Rights of pushes onto the stack of a handler at `cpl`.
#[must_use]
pub(crate) fn stack_mode(cpu: &Cpu, cpl: u8) -> MmuMode {
    match cpl {
        3 => MmuMode::User,
        _ if cpu.arch.system_flags.contains(Rflags::AC) => MmuMode::SupervisorAc,
        _ => MmuMode::Supervisor,
    }
}

/// SS after a change of privilege in IA-32e mode: a null selector.
#[must_use]
pub(crate) const fn null_stack(cpl: u8) -> Segment {
    Segment {
        selector: cpl as u16,
        base: 0,
        limit: 0,
        rights: Rights(Rights::UNUSABLE | (cpl as u32) << 5),
    }
}
