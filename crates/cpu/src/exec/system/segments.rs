//! Loading and reading segment registers: MOV and POP to them, LDS and its siblings, and
//! the FS and GS bases (SDM Vol. 2; Vol. 3A, 3.4.3 and 5.5 to 5.7).

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Cr4;
use cloister_x86::segment::{Rights, Segment, seg};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::descriptor::{is_null, selector_code};
use super::stack::Stack;
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::Shadow;

/// The handler of an instruction that moves a segment register or a segment base.
pub fn select(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    use Mnemonic::{Lds, Les, Lfs, Lgs, Lss, Mov, Pop};
    let is_segment = |n| {
        instruction.op_kind(n) == OpKind::Register
            && instruction.op_register(n).is_segment_register()
    };
    Some(match instruction.mnemonic() {
        Mov if is_segment(0) => {
            if instruction.op0_register() == Register::CS {
                return None;
            }
            mov_to
        }
        Mov if is_segment(1) => mov_from,
        Pop if is_segment(0) => {
            op.size = instruction.stack_pointer_increment().unsigned_abs() as u8;
            pop
        }
        Lds | Les | Lfs | Lgs | Lss => {
            op.extra = match instruction.mnemonic() {
                Lds => seg::DS,
                Les => seg::ES,
                Lfs => seg::FS,
                Lgs => seg::GS,
                _ => seg::SS,
            } as u32;
            load_far_pointer
        }
        Mnemonic::Swapgs => swapgs,
        Mnemonic::Rdfsbase => read_base::<{ seg::FS }>,
        Mnemonic::Rdgsbase => read_base::<{ seg::GS }>,
        Mnemonic::Wrfsbase => write_base::<{ seg::FS }>,
        Mnemonic::Wrgsbase => write_base::<{ seg::GS }>,
        _ => return None,
    })
}

impl Cpu {
    /// Loads a segment register as real-address and virtual-8086 mode do: the base follows from the selector,
    /// limit and rights stay.
    pub fn set_real_segment(&mut self, index: usize, selector: u16) {
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
    pub fn load_segment(&mut self, index: usize, selector: u16) -> Exec {
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
        let code = selector_code(selector);
        let Some(mut descriptor) = self.descriptor(selector)? else {
            return Err(self.gp(code));
        };
        let rights = descriptor.rights();
        if rpl != self.arch.cpl
            || !rights.is_code_or_data()
            || rights.is_code()
            || !rights.bit_rw()
            || rights.dpl() != self.arch.cpl
        {
            return Err(self.gp(code));
        }
        if !rights.present() {
            return Err(self.ss(code));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment(selector))
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
        let readable = rights.is_code_or_data() && (!rights.is_code() || rights.bit_rw());
        let conforming = rights.is_code() && rights.bit_ec();
        let level = self.arch.cpl.max((selector & 3) as u8);
        if !readable || (!conforming && level > rights.dpl()) {
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

fn mov_to(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector: u16 =
        if op.mem_operand == NO_MEMORY { cpu.src(op) } else { cpu.load_operand(op)? };
    let index = usize::from(op.dst);
    cpu.load_segment(index, selector)?;
    shadow_stack_load(cpu, index);
    Ok(())
}

fn mov_from(cpu: &mut Cpu, op: &Op) -> Exec {
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

fn pop(cpu: &mut Cpu, op: &Op) -> Exec {
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

fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Exec {
    let size = usize::from(op.size);
    let la = cpu.linear(op, size + 2, AccessKind::Read)?;
    let offset = match size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    };
    let selector = cpu.load::<u16>(cpu.system_linear(la.wrapping_add(size as u64)))?;
    cpu.load_segment(op.extra as usize, selector)?;
    match size {
        2 => cpu.set_dst(op, offset as u16),
        _ => cpu.set_dst(op, offset),
    }
    Ok(())
}

fn swapgs(cpu: &mut Cpu, _op: &Op) -> Exec {
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

fn read_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_base_instruction(cpu)?;
    let base = cpu.arch.segs[SEGMENT].base;
    match op.size {
        4 => cpu.set_dst(op, base as u32),
        _ => cpu.set_dst(op, base),
    }
    Ok(())
}

fn write_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_base_instruction(cpu)?;
    let base = if op.size == 4 { u64::from(cpu.dst::<u32>(op)) } else { cpu.dst::<u64>(op) };
    if !is_canonical(base) {
        return Err(cpu.gp(0));
    }
    cpu.arch.segs[SEGMENT].base = base;
    Ok(())
}
