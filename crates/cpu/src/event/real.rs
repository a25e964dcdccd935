//! Event delivery in real-address mode (SDM Vol. 3B, 20.1.4).

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;

use super::{Event, enter_handler, pushed_flags};
use crate::cpu::Cpu;
use crate::exec::system::stack::Stack;
use crate::exit::Exec;

/// Delivers an event through the interrupt vector table.
///
/// # Errors
///
/// #GP where the table ends before the vector, #SS where the stack does.
pub(super) fn deliver(cpu: &mut Cpu, event: &Event) -> Exec {
    let entry = u32::from(event.vector) * 4;
    if entry + 3 > u32::from(cpu.arch.idtr.limit) {
        return Err(cpu.gp(event.idt_code()));
    }
    let vector = cpu.read_system::<4>(cpu.arch.idtr.base.wrapping_add(u64::from(entry)))?;
    let mut stack = Stack::current(cpu);
    let frame = [
        pushed_flags(cpu, event),
        u64::from(cpu.arch.segs[seg::CS].selector),
        cpu.arch.rip & 0xffff,
    ];
    stack.push(cpu, 2, &frame)?;

    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    cpu.arch.rip = vector & 0xffff;
    cpu.set_real_segment(seg::CS, (vector >> 16 & 0xffff) as u16);
    enter_handler(cpu, Rflags::IF | Rflags::TF | Rflags::AC | Rflags::RF);
    Ok(())
}
