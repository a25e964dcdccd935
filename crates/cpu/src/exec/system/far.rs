//! Far JMP, CALL and RET (SDM Vol. 2; Vol. 3A, 5.8).

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::segment::{Segment, seg};
use iced_x86::{Code, Instruction, OpKind};

use super::descriptor::{Descriptor, is_null, selector_code, system_type};
use super::iret::{
    check_target, invalidate_data_segments, load_stack_pointer, return_code_segment,
    return_stack_segment,
};
use super::stack::Stack;
use super::task;
use crate::cpu::Cpu;
use crate::event::legacy::inner_stack;
use crate::event::long::{null_stack, stack_mode, tss_rsp};
use crate::exec::table::{rewrite, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Retf => rewrite(transfer).leaves().illegal_in_enclave(),
}

/// Whether a JMP or CALL is a far one.
pub(in crate::exec) fn is_far(instruction: &Instruction) -> bool {
    matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
}

/// A far JMP, CALL or RET.
pub(in crate::exec) fn transfer(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let (size, run): (u8, Handler) = match instruction.code() {
        Code::Jmp_ptr1616 | Code::Jmp_m1616 => (2, jump),
        Code::Jmp_ptr1632 | Code::Jmp_m1632 => (4, jump),
        Code::Jmp_m1664 => (8, jump),
        Code::Call_ptr1616 | Code::Call_m1616 => (2, call),
        Code::Call_ptr1632 | Code::Call_m1632 => (4, call),
        Code::Call_m1664 => (8, call),
        Code::Retfw | Code::Retfw_imm16 => (2, ret),
        Code::Retfd | Code::Retfd_imm16 => (4, ret),
        Code::Retfq | Code::Retfq_imm16 => (8, ret),
        _ => return None,
    };
    Some(Op { run, size, ..op })
}

/// Where a far branch goes: offset and selector.
fn operand(cpu: &mut Cpu, op: &Op) -> Exec<(u64, u16)> {
    if op.mem_operand == NO_MEMORY {
        return Ok((op.imm, op.far_selector()));
    }
    let size = usize::from(op.size);
    let la = cpu.linear(op, size + 2, AccessKind::Read)?;
    let offset = match size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    };
    let selector = cpu.load::<u16>(cpu.system_linear(la.wrapping_add(size as u64)))?;
    Ok((offset, selector))
}

/// A checked far transfer.
enum Target {
    /// To a code segment, at the same privilege.
    Code { descriptor: Descriptor, selector: u16, rip: u64 },
    /// Through a call gate.
    Gate(Gate),
    /// To another task.
    Task(task::target::Target),
}

struct Gate {
    descriptor: Descriptor,
    selector: u16,
    rip: u64,
    /// Operand size of the pushes.
    size: u8,
    /// Doublewords (words) to copy from stack to stack.
    parameters: u8,
    /// Whether the code runs at a more privileged level, for CALL.
    inner: bool,
}

/// Checks a far target in protected mode (SDM Vol. 2A, CALL; JMP).
fn resolve(cpu: &mut Cpu, rip: u64, selector: u16) -> Exec<Target> {
    if is_null(selector) {
        return Err(cpu.gp(0));
    }
    let code = selector_code(selector);
    let Some(descriptor) = cpu.descriptor(selector)? else {
        return Err(cpu.gp(code));
    };
    let rights = descriptor.rights();
    if let Some(task) = task::target::of_branch(cpu, descriptor, selector)? {
        return Ok(Target::Task(task));
    }
    if !rights.is_code() {
        return resolve_gate(cpu, descriptor, selector).map(Target::Gate);
    }
    let rpl = (selector & 3) as u8;
    let allowed = if rights.bit_ec() {
        rights.dpl() <= cpu.arch.cpl
    } else {
        rpl <= cpu.arch.cpl && rights.dpl() == cpu.arch.cpl
    };
    if !allowed || (cpu.long_mode() && rights.long() && rights.big()) {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    Ok(Target::Code { descriptor, selector: selector & !3 | u16::from(cpu.arch.cpl), rip })
}

/// Checks a call gate and the code that it leads to. TSS descriptors and task gates come here in
/// IA-32e mode, which has no task switches, and are refused.
fn resolve_gate(cpu: &mut Cpu, gate: Descriptor, selector: u16) -> Exec<Gate> {
    let code = selector_code(selector);
    let long = cpu.long_mode();
    let kind = gate.kind();
    let wide = kind == system_type::CALL_GATE;
    if !wide && (long || kind != system_type::CALL_GATE16) {
        return Err(cpu.gp(code));
    }
    let rights = gate.rights();
    if rights.dpl() < cpu.arch.cpl || rights.dpl() < (selector & 3) as u8 {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    let mut rip = gate.gate_offset();
    if long {
        if cpu.descriptor_of_size(selector, 16)?.is_none() {
            return Err(cpu.gp(code));
        }
        let high = cpu.read_system::<8>(gate.address.wrapping_add(8))?;
        // The upper type field must be zero (SDM Vol. 3A, 5.8.3.1).
        if high >> 40 & 0x1f != 0 {
            return Err(cpu.gp(code));
        }
        rip |= high << 32;
    } else if !wide {
        rip &= 0xffff;
    }
    let parameters = (gate.raw >> 32) as u8 & 0x1f;

    let selector = gate.gate_selector();
    if is_null(selector) {
        return Err(cpu.gp(0));
    }
    let code = selector_code(selector);
    let Some(descriptor) = cpu.descriptor(selector)? else {
        return Err(cpu.gp(code));
    };
    let rights = descriptor.rights();
    if !rights.is_code()
        || rights.dpl() > cpu.arch.cpl
        || (long && (!rights.long() || rights.big()))
    {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    Ok(Gate {
        descriptor,
        selector,
        rip,
        size: if long {
            8
        } else if wide {
            4
        } else {
            2
        },
        parameters,
        inner: !rights.bit_ec() && rights.dpl() < cpu.arch.cpl,
    })
}

fn enter(cpu: &mut Cpu, mut descriptor: Descriptor, selector: u16, rip: u64) -> Exec {
    cpu.mark_accessed(&mut descriptor)?;
    cpu.arch.segs[seg::CS] = descriptor.segment(selector);
    let to_64 = cpu.long_mode() && descriptor.rights().long();
    cpu.arch.rip = if to_64 { rip } else { rip & 0xffff_ffff };
    cpu.update_mode();
    Ok(())
}

extern "C" fn jump(cpu: &mut Cpu, op: &Op) -> Exec {
    let (rip, selector) = operand(cpu, op)?;
    if cpu.run.mode.is_real() {
        return real_branch(cpu, rip, selector);
    }
    match resolve(cpu, rip, selector)? {
        Target::Code { descriptor, selector, rip } => {
            check_target(cpu, descriptor, rip)?;
            enter(cpu, descriptor, selector, rip)
        }
        Target::Gate(gate) => {
            // JMP does not change the privilege level.
            if gate.inner {
                return Err(cpu.gp(selector_code(gate.selector)));
            }
            check_target(cpu, gate.descriptor, gate.rip)?;
            let selector = gate.selector & !3 | u16::from(cpu.arch.cpl);
            enter(cpu, gate.descriptor, selector, gate.rip)
        }
        Target::Task(target) => task::switch::jump(cpu, op, target),
    }
}

fn real_branch(cpu: &mut Cpu, rip: u64, selector: u16) -> Exec {
    if rip > u64::from(cpu.arch.segs[seg::CS].limit) {
        return Err(cpu.gp(0));
    }
    cpu.set_real_segment(seg::CS, selector);
    cpu.arch.rip = rip;
    Ok(())
}

extern "C" fn call(cpu: &mut Cpu, op: &Op) -> Exec {
    let (rip, selector) = operand(cpu, op)?;
    let back = [u64::from(cpu.arch.segs[seg::CS].selector), cpu.next_rip(op)];
    let mut stack = Stack::current(cpu);
    if cpu.run.mode.is_real() {
        if rip > u64::from(cpu.arch.segs[seg::CS].limit) {
            return Err(cpu.gp(0));
        }
        stack.push(cpu, op.size, &back)?;
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
        return real_branch(cpu, rip, selector);
    }
    match resolve(cpu, rip, selector)? {
        Target::Code { descriptor, selector, rip } => {
            check_target(cpu, descriptor, rip)?;
            stack.push(cpu, op.size, &back)?;
            enter(cpu, descriptor, selector, rip)?;
            cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
            Ok(())
        }
        Target::Gate(gate) if gate.inner => call_inner(cpu, gate, back),
        Target::Gate(gate) => {
            check_target(cpu, gate.descriptor, gate.rip)?;
            stack.push(cpu, gate.size, &back)?;
            let selector = gate.selector & !3 | u16::from(cpu.arch.cpl);
            enter(cpu, gate.descriptor, selector, gate.rip)?;
            cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
            Ok(())
        }
        Target::Task(target) => task::switch::call(cpu, op, target),
    }
}

/// A call through a gate to a more privileged level, with its stack switch
/// (SDM Vol. 3A, 5.8.5).
fn call_inner(cpu: &mut Cpu, gate: Gate, back: [u64; 2]) -> Exec {
    let mut gate = gate;
    let new_cpl = gate.descriptor.rights().dpl();
    let long = cpu.long_mode();
    let mut stack = if long {
        let pointer = tss_rsp(cpu, new_cpl)?;
        if !is_canonical(pointer) {
            return Err(cpu.ss(0));
        }
        Stack {
            segment: null_stack(new_cpl),
            pointer,
            width: 8,
            mode: stack_mode(cpu, new_cpl),
            code: 0,
        }
    } else {
        let stack = inner_stack(cpu, new_cpl, 0)?;
        Stack { code: selector_code(stack.segment.selector), ..stack }
    };
    check_target(cpu, gate.descriptor, gate.rip)?;
    let mut frame = vec![u64::from(cpu.arch.segs[seg::SS].selector), cpu.arch.gpr[Gpr::Rsp]];
    if !long {
        let mut old = Stack::current(cpu);
        let mut parameters = Vec::new();
        for _ in 0..gate.parameters {
            let [value] = old.pop(cpu, gate.size)?;
            parameters.push(value);
        }
        frame.extend(parameters.iter().rev());
    }
    frame.extend(back);
    stack.push(cpu, gate.size, &frame)?;
    cpu.mark_accessed(&mut gate.descriptor)?;
    cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    cpu.arch.segs[seg::SS] = stack.segment;
    cpu.arch.segs[seg::CS] = gate.descriptor.segment(gate.selector & !3 | u16::from(new_cpl));
    cpu.arch.rip = gate.rip;
    cpu.arch.cpl = new_cpl;
    cpu.update_mode();
    Ok(())
}

extern "C" fn ret(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut stack = Stack::current(cpu);
    let [rip, selector] = stack.pop(cpu, op.size)?;
    let selector = selector as u16;
    if cpu.run.mode.is_real() {
        if rip > u64::from(cpu.arch.segs[seg::CS].limit) {
            return Err(cpu.gp(0));
        }
        stack.skip(op.imm);
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
        return real_branch(cpu, rip, selector);
    }
    let mut code = return_code_segment(cpu, selector)?;
    check_target(cpu, code, rip)?;
    stack.skip(op.imm);
    let new_cpl = (selector & 3) as u8;
    if new_cpl == cpu.arch.cpl {
        enter(cpu, code, selector, rip)?;
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
        return Ok(());
    }
    let [rsp, ss] = stack.pop(cpu, op.size)?;
    let to_64 = cpu.long_mode() && code.rights().long();
    let segment: Segment = return_stack_segment(cpu, ss as u16, new_cpl, to_64)?;
    cpu.mark_accessed(&mut code)?;
    load_stack_pointer(cpu, op.size, rsp, segment, to_64);
    cpu.arch.segs[seg::SS] = segment;
    cpu.arch.segs[seg::CS] = code.segment(selector);
    cpu.arch.rip = if to_64 { rip } else { rip & 0xffff_ffff };
    cpu.arch.cpl = new_cpl;
    invalidate_data_segments(cpu);
    cpu.update_mode();
    // The parameters are on the outer stack as well.
    let mut outer = Stack::current(cpu);
    outer.skip(op.imm);
    cpu.arch.gpr[Gpr::Rsp] = outer.pointer;
    Ok(())
}
