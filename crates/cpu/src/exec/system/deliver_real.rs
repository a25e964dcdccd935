//! Event delivery in real-address mode (SDM Vol. 3B, 20.1.4).

use cloister_x86::regs::Rflags;

use super::event::{Event, enter_handler, pushed_flags};
use super::stack::Stack;
use crate::segment::seg;
use crate::state::{Cpu, Exec};

/// Delivers an event through the interrupt vector table.
///
/// # Errors
///
/// #GP where the table ends before the vector, #SS where the stack does.
pub fn deliver(cpu: &mut Cpu, event: &Event) -> Exec {
    let entry = u32::from(event.vector) * 4;
    if entry + 3 > u32::from(cpu.idtr.limit) {
        return Err(cpu.gp(event.idt_code()));
    }
    let vector = cpu.read_system::<4>(cpu.idtr.base.wrapping_add(u64::from(entry)))?;
    let mut stack = Stack::current(cpu);
    let frame = [pushed_flags(cpu, event), u64::from(cpu.segs[seg::CS].selector), cpu.rip & 0xffff];
    stack.push(cpu, 2, &frame)?;

    cpu.gpr[4] = stack.pointer;
    cpu.rip = vector & 0xffff;
    cpu.set_real_segment(seg::CS, (vector >> 16) as u16);
    enter_handler(cpu, Rflags::IF | Rflags::TF | Rflags::AC | Rflags::RF);
    Ok(())
}
