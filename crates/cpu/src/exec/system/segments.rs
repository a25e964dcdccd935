//! Loading and reading segment registers: MOV and POP to them, LDS and its siblings, and
//! the FS and GS bases (SDM Vol. 2; Vol. 3A, 3.4.3 and 5.5 to 5.7).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Cr4;
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Gpr, Vector};
use iced_x86::{Instruction, Register};

use super::descriptor::{is_null, selector_code};
use super::stack::Stack;
use crate::cpu::Cpu;
use crate::exec::table::{always, rewrite, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::Shadow;

rows! {
    Lds => rewrite(far_pointer_form::<{ seg::DS }>).ends_block().illegal_in_enclave(),
    Les => rewrite(far_pointer_form::<{ seg::ES }>).ends_block().illegal_in_enclave(),
    Lfs => rewrite(far_pointer_form::<{ seg::FS }>).ends_block().illegal_in_enclave(),
    Lgs => rewrite(far_pointer_form::<{ seg::GS }>).ends_block().illegal_in_enclave(),
    Lss => rewrite(far_pointer_form::<{ seg::SS }>).ends_block().illegal_in_enclave(),
    Swapgs => always(swapgs),
    Rdfsbase => always(read_base::<{ seg::FS }>),
    Rdgsbase => always(read_base::<{ seg::GS }>),
    Wrfsbase => always(write_base::<{ seg::FS }>),
    Wrgsbase => always(write_base::<{ seg::GS }>),
}

/// The handler of MOV to or from a segment register. There is no MOV to CS.
pub(super) fn mov(to: Register) -> Option<Handler> {
    match to {
        Register::CS => None,
        _ if to.is_segment_register() => Some(mov_to),
        _ => Some(mov_from),
    }
}

/// POP of a segment register.
pub(in crate::exec) fn pop(instruction: &Instruction, op: Op) -> Op {
    let size = instruction.stack_pointer_increment().unsigned_abs() as u8;
    Op { run: pop_segment, size, ..op }
}

/// LDS and its siblings: the segment register is kept in [`Op::extra`].
fn far_pointer_form<const SEGMENT: usize>(
    _instruction: &Instruction,
    _mode: Mode,
    op: Op,
) -> Option<Op> {
    Some(Op { run: load_far_pointer, extra: SEGMENT as u32, ..op })
}

/// The segment register that LDS and its siblings load.
const fn far_pointer_segment(op: &Op) -> usize {
    op.extra as usize
}

impl Cpu {
    /// Loads a segment register as real-address and virtual-8086 mode do: the base follows from the
    /// selector, limit and rights stay.
    pub(crate) fn set_real_segment(&mut self, index: usize, selector: u16) {
        let segment = &mut self.arch.segs[index & 7];
        segment.selector = selector;
        segment.base = u64::from(selector) << 4;
        if segment.rights.unusable() {
            // A null selector from protected mode has nothing that could stay.
            segment.rights = Rights(0x93);
            segment.limit = 0xffff;
        }
    }

    /// Loads ES, SS, DS, FS or GS as MOV does.
    ///
    /// # Errors
    ///
    /// #GP, #NP and #SS, and as [`Cpu::read_bytes`] for the descriptor table.
    pub(crate) fn load_segment(&mut self, index: usize, selector: u16) -> Exec {
        if self.run.mode.is_real() {
            self.set_real_segment(index, selector);
        } else {
            self.arch.segs[index & 7] = if index == seg::SS {
                self.checked_stack_segment(selector)?
            } else {
                self.checked_data_segment(selector)?
            };
        }
        if index == seg::SS {
            // SS.B is part of the mode.
            self.update_mode();
        }
        Ok(())
    }

    fn checked_stack_segment(&mut self, selector: u16) -> Exec<Segment> {
        let rpl = (selector & 3) as u8;
        if is_null(selector) {
            if self.run.mode.is_64() && self.arch.cpl != 3 && rpl == self.arch.cpl {
                return Ok(crate::event::long::null_stack(self.arch.cpl));
            }
            return Err(self.gp(0));
        }
        self.stack_segment(selector, self.arch.cpl, Vector::Gp, 0)
    }

    fn checked_data_segment(&mut self, selector: u16) -> Exec<Segment> {
        if is_null(selector) {
            return Ok(Segment { selector, base: 0, limit: 0, rights: Rights(Rights::UNUSABLE) });
        }
        let code = selector_code(selector);
        let Some(mut descriptor) = self.descriptor(selector)? else {
            return Err(self.gp(code));
        };
        let rights = descriptor.rights();
        let conforming = rights.is_code() && rights.bit_ec();
        let level = self.arch.cpl.max((selector & 3) as u8);
        if !rights.readable() || (!conforming && level > rights.dpl()) {
            return Err(self.gp(code));
        }
        if !rights.present() {
            return Err(self.np(code));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment(selector))
    }
}

/// MOV SS and POP SS hold off interrupts and debug traps until after the next instruction
/// (SDM Vol. 3A, 6.8.3).
fn shadow_stack_load(cpu: &mut Cpu, index: usize) {
    if index == seg::SS {
        cpu.set_shadow(Shadow::MovSs);
    }
}

extern "C" fn mov_to(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector: u16 =
        if op.mem_operand == NO_MEMORY { cpu.src(op) } else { cpu.load_operand(op)? };
    let index = usize::from(op.dst);
    cpu.load_segment(index, selector)?;
    shadow_stack_load(cpu, index);
    Ok(())
}

extern "C" fn mov_from(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = cpu.arch.segs[usize::from(op.src & 7)].selector;
    if op.mem_operand != NO_MEMORY {
        return cpu.store_operand(op, selector);
    }
    match op.size {
        2 => cpu.set_dst(op, selector),
        _ => cpu.set_dst(op, u64::from(selector)),
    }
    Ok(())
}

extern "C" fn pop_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut stack = Stack::current(cpu);
    // Of a slot of four bytes only two are read, but the pointer moves by the operand size.
    let size = if op.size == 4 { 2 } else { op.size };
    let [selector] = stack.pop(cpu, size)?;
    stack.skip(u64::from(op.size - size));
    let index = usize::from(op.dst);
    cpu.load_segment(index, selector as u16)?;
    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    shadow_stack_load(cpu, index);
    Ok(())
}

extern "C" fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Exec {
    let size = usize::from(op.size);
    let la = cpu.linear(op, size + 2, AccessKind::Read)?;
    let offset = match size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    };
    let selector = cpu.load::<u16>(cpu.system_linear(la.wrapping_add(size as u64)))?;
    cpu.load_segment(far_pointer_segment(op), selector)?;
    match size {
        2 => cpu.set_dst(op, offset as u16),
        _ => cpu.set_dst(op, offset),
    }
    Ok(())
}

extern "C" fn swapgs(cpu: &mut Cpu, _op: &Op) -> Exec {
    if !cpu.run.mode.is_64() {
        return Err(cpu.ud());
    }
    if cpu.arch.cpl != 0 {
        return Err(cpu.gp(0));
    }
    std::mem::swap(&mut cpu.arch.segs[seg::GS].base, &mut cpu.arch.msrs.kernel_gs_base);
    Ok(())
}

fn check_base_instruction(cpu: &mut Cpu) -> Exec {
    if cpu.run.mode.is_64() && cpu.arch.cr4.contains(Cr4::FSGSBASE) {
        Ok(())
    } else {
        Err(cpu.ud())
    }
}

extern "C" fn read_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_base_instruction(cpu)?;
    let base = cpu.arch.segs[SEGMENT].base;
    match op.size {
        4 => cpu.set_dst(op, base as u32),
        _ => cpu.set_dst(op, base),
    }
    Ok(())
}

extern "C" fn write_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_base_instruction(cpu)?;
    let base = if op.size == 4 { u64::from(cpu.dst::<u32>(op)) } else { cpu.dst::<u64>(op) };
    if !is_canonical(base) {
        return Err(cpu.gp(0));
    }
    cpu.arch.segs[SEGMENT].base = base;
    Ok(())
}
