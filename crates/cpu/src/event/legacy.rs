//! Event delivery in protected mode outside IA-32e mode (SDM Vol. 3A, 6.12).

use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, Vector};

use super::long::stack_mode;
use super::{Event, check_gate, enter_handler, handler_code, pushed_flags};
use crate::cpu::Cpu;
use crate::exec::system::descriptor::{Descriptor, is_null, selector_code, system_type};
use crate::exec::system::stack::Stack;
use crate::exec::system::{task, virtual_8086};
use crate::exit::Exec;

/// Delivers an event through a 16- or 32-bit gate, or a task gate. `Some`: the exception that the
/// new task meets before its first instruction.
///
/// # Errors
///
/// #GP, #NP, #TS, #SS and #PF.
pub(crate) fn deliver(cpu: &mut Cpu, event: &Event) -> Exec<Option<Exception>> {
    use system_type::{INTERRUPT_GATE, INTERRUPT_GATE16, TASK_GATE, TRAP_GATE, TRAP_GATE16};
    let ext = event.ext();
    let entry = u32::from(event.vector) * 8;
    if entry + 7 > u32::from(cpu.arch.idtr.limit) {
        return Err(cpu.gp(event.idt_code()));
    }
    let address = cpu.arch.idtr.base.wrapping_add(u64::from(entry));
    let gate = Descriptor { raw: cpu.read_system::<8>(address)?, address };
    let kind = gate.kind();
    if !matches!(kind, INTERRUPT_GATE | TRAP_GATE | INTERRUPT_GATE16 | TRAP_GATE16 | TASK_GATE) {
        return Err(cpu.gp(event.idt_code()));
    }
    check_gate(cpu, event, gate.rights())?;
    if kind == TASK_GATE {
        return task::switch::deliver(cpu, gate, event);
    }
    let wide = matches!(kind, INTERRUPT_GATE | TRAP_GATE);
    let eip = if wide { gate.gate_offset() } else { gate.gate_offset() & 0xffff };

    let selector = gate.gate_selector();
    let (mut descriptor, new_cpl) = handler_code(cpu, selector, ext)?;
    // Virtual-8086 mode is left for privilege level 0 only.
    let virtual_8086 = cpu.arch.system_flags.contains(Rflags::VM);
    if virtual_8086 && new_cpl != 0 {
        return Err(cpu.gp(selector_code(selector) | ext));
    }
    let inner = new_cpl < cpu.arch.cpl;
    let mut stack = if inner { inner_stack(cpu, new_cpl, ext)? } else { Stack::current(cpu) };
    stack.code = ext;
    stack.mode = stack_mode(cpu, new_cpl);
    if eip > u64::from(descriptor.limit()) {
        return Err(cpu.gp(ext));
    }
    cpu.mark_accessed(&mut descriptor)?;
    let selector_of = |index: usize| u64::from(cpu.arch.segs[index].selector);
    let frame = [
        selector_of(seg::GS),
        selector_of(seg::FS),
        selector_of(seg::DS),
        selector_of(seg::ES),
        selector_of(seg::SS),
        cpu.arch.gpr[Gpr::Rsp],
        pushed_flags(cpu, event),
        selector_of(seg::CS),
        cpu.arch.rip,
        u64::from(event.error_code.unwrap_or(0)),
    ];
    let first = match (virtual_8086, inner) {
        (true, _) => 0,
        (false, true) => 4,
        (false, false) => 6,
    };
    let last = if event.error_code.is_some() { 10 } else { 9 };
    stack.push(cpu, if wide { 4 } else { 2 }, &frame[first..last])?;

    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    cpu.arch.segs[seg::SS] = stack.segment;
    cpu.arch.rip = eip;
    cpu.arch.segs[seg::CS] = descriptor.segment(selector & !3 | u16::from(new_cpl));
    cpu.arch.cpl = new_cpl;
    if virtual_8086 {
        virtual_8086::leave(cpu);
    }
    let mut cleared = Rflags::TF | Rflags::NT | Rflags::RF | Rflags::VM;
    if matches!(kind, INTERRUPT_GATE | INTERRUPT_GATE16) {
        cleared |= Rflags::IF;
    }
    enter_handler(cpu, cleared);
    Ok(None)
}

/// The stack for privilege level `cpl` that the TSS names, checked (SDM Vol. 3A, 6.12.1).
///
/// # Errors
///
/// #TS, #SS or #NP.
pub(crate) fn inner_stack(cpu: &mut Cpu, cpl: u8, ext: u32) -> Exec<Stack> {
    let tr = cpu.arch.segs[seg::TR];
    // Type bit 3 tells a 32-bit TSS from a 16-bit one.
    let wide = tr.rights.kind() & 8 != 0;
    let size = if wide { 8 } else { 4 };
    let offset = u32::from(cpl) * size + size / 2;
    if offset + size - 1 - if wide { 2 } else { 0 } > tr.limit {
        return Err(cpu.ts(selector_code(tr.selector) | ext));
    }
    let at = tr.base.wrapping_add(u64::from(offset));
    let (pointer, selector) = if wide {
        (cpu.read_system::<4>(at)?, cpu.read_system::<2>(at.wrapping_add(4))?)
    } else {
        (cpu.read_system::<2>(at)?, cpu.read_system::<2>(at.wrapping_add(2))?)
    };
    let selector = (selector & 0xffff) as u16;
    if is_null(selector) {
        return Err(cpu.ts(ext));
    }
    let segment = cpu.stack_segment(selector, cpl, Vector::Ts, ext)?;
    Ok(Stack {
        segment,
        pointer,
        width: if segment.rights.big() { 4 } else { 2 },
        mode: stack_mode(cpu, cpl),
        code: ext,
    })
}
