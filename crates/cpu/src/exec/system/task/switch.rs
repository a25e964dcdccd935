//! The task switch itself (SDM Vol. 3A, 7.3, steps 5 to 14), and what causes one.

use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::vmx::ExitReason;
use cloister_x86::{Exception, Gpr};

use super::busy::{self, as_supervisor};
use super::load;
use super::state::{Layout, TaskState};
use super::target::{self, Target};
use crate::cpu::Cpu;
use crate::event::{self, Event, debug, pushed_flags};
use crate::exec::system::descriptor::{Descriptor, selector_code};
use crate::exec::system::iret;
use crate::exec::system::stack::Stack;
use crate::exit::{Exec, Exit, Stop};
use crate::mem::tlb::MmuMode;
use crate::op::Op;
use crate::run_state::attention;
use crate::vmx::VmExit;

/// L0 to L3 and LE of DR7, which a task switch clears (SDM Vol. 3B, 17.2.4).
const DR7_LOCAL: u64 = 0x155;

/// What starts a task switch. It decides on links, busy flags and NT (SDM Vol. 3A, table 7-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Jump,
    /// CALL, an interrupt or an exception: the new task is nested in the old one.
    Call,
    /// IRET with NT set.
    Return,
}

/// A task switch that is asked for.
struct Switch {
    cause: Cause,
    /// EIP that is saved for the old task.
    rip: u64,
    /// EFLAGS that are saved for it.
    flags: u64,
    /// EXT of error codes.
    ext: u32,
    /// What the new task finds on its stack.
    error_code: Option<u32>,
    /// It delivers an event.
    event: bool,
    /// Bytes of the instruction, if it is one's.
    length: u32,
}

/// JMP to a task.
///
/// # Errors
///
/// As [`call`].
pub(crate) fn jump(cpu: &mut Cpu, op: &Op, target: Target) -> Exec {
    let flags = cpu.rflags();
    instruction(cpu, op, Cause::Jump, flags, target)
}

/// CALL of a task.
///
/// # Errors
///
/// #TS, #GP and #PF before the switch. Faults in the new task are delivered there.
pub(crate) fn call(cpu: &mut Cpu, op: &Op, target: Target) -> Exec {
    let flags = cpu.rflags();
    instruction(cpu, op, Cause::Call, flags, target)
}

/// IRET with NT set: back to the task that the link names.
///
/// # Errors
///
/// As [`call`], and #NP.
pub(crate) extern "C" fn iret(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = target::of_return(cpu)?;
    let flags = cpu.rflags() & !Rflags::NT.bits();
    instruction(cpu, op, Cause::Return, flags, target)
}

fn instruction(cpu: &mut Cpu, op: &Op, cause: Cause, flags: u64, target: Target) -> Exec {
    let switch = Switch {
        cause,
        rip: cpu.next_rip(op),
        flags,
        ext: 0,
        error_code: None,
        event: false,
        length: op.len.into(),
    };
    let fault = perform(cpu, target, &switch)?;
    if cause == Cause::Return {
        iret::unblock_nmi(cpu);
    }
    match fault {
        None => Ok(()),
        Some(fault) => event::deliver_exception(cpu, fault).map_err(|exit| cpu.exit_with(exit)),
    }
}

/// Delivers an event through a task gate, whose rights are checked already. `Some`: the exception
/// that the new task meets before its first instruction.
///
/// # Errors
///
/// #GP, #NP, #TS and #PF before the switch.
pub(crate) fn deliver(cpu: &mut Cpu, gate: Descriptor, event: &Event) -> Exec<Option<Exception>> {
    let ext = event.ext();
    let target = target::of_gate(cpu, gate, ext)?;
    let switch = Switch {
        cause: Cause::Call,
        rip: cpu.arch.rip,
        flags: pushed_flags(cpu, event),
        ext,
        error_code: event.error_code,
        event: true,
        length: 0,
    };
    perform(cpu, target, &switch)
}

/// Switches to another task. `Ok(Some(exception))`: the switch is done, and the new task meets an
/// exception before its first instruction.
fn perform(cpu: &mut Cpu, target: Target, switch: &Switch) -> Exec<Option<Exception>> {
    if cpu.guest_controls().is_some() {
        let source = match switch.cause {
            Cause::Call if switch.event => 3,
            Cause::Call => 0,
            Cause::Return => 1,
            Cause::Jump => 2,
        };
        let qualification = u64::from(target.selector) | source << 30;
        let exit = VmExit { length: switch.length, ..VmExit::new(ExitReason::TaskSwitch) };
        return Err(cpu.vm_exit(exit.qualified(qualification)));
    }
    // It is the last thing that a block does: any of its stores may be to code.
    let alone = std::mem::replace(&mut cpu.run.alone, true);
    let outcome = match prepare(cpu, target, switch) {
        Ok(state) => {
            commit(cpu, target, switch, &state);
            enter(cpu, switch, &state)
        }
        Err(stop) => Err(stop),
    };
    cpu.run.alone = alone;
    match outcome {
        Ok(fault) => Ok(fault),
        Err(Stop::FAULT) => Err(Stop::FAULT),
        // A TSS or descriptor in device registers: a real processor would get a machine check at
        // best.
        Err(_) => Err(cpu.exit_with(Exit::TripleFault)),
    }
}

/// Steps 5 to 10: everything that may fail in the old task, and what is written to memory.
fn prepare(cpu: &mut Cpu, target: Target, switch: &Switch) -> Exec<TaskState> {
    let (code, base) = (selector_code(target.selector) | switch.ext, target.descriptor.base());
    let new = target.descriptor.segment(target.selector);
    let old = cpu.arch.segs[seg::TR];
    let (new_layout, old_layout) = (Layout::of(new), Layout::of(old));
    if (new.limit as usize) < new_layout.size() - 1 {
        return Err(cpu.ts(code));
    }
    let (start, length) = old_layout.saved();
    let left = match switch.cause {
        Cause::Call => None,
        Cause::Jump | Cause::Return => cpu.descriptor(old.selector)?,
    };
    if (switch.cause != Cause::Call && left.is_none())
        || u64::from(old.limit) + 1 < u64::from(start) + length as u64
    {
        return Err(cpu.ts(selector_code(old.selector) | switch.ext));
    }

    let mut state = TaskState::read(cpu, new_layout, base)?;
    let saved = cpu.system_linear(old.base.wrapping_add(u64::from(start)));
    as_supervisor(cpu, |cpu| {
        cpu.probe_write(saved, length)?;
        if switch.cause == Cause::Call {
            cpu.probe_write(base, 2)?;
        }
        match left {
            Some(left) => cpu.probe_write(cpu.system_linear(left.address.wrapping_add(5)), 1),
            None => Ok(()),
        }
    })?;
    if let Some(cr3) = state.cr3
        && cpu.pae_paging()
    {
        cpu.read_pdptes(cr3.into())?;
    }

    if switch.cause != Cause::Return && !busy::take(cpu, target.descriptor)? {
        return Err(cpu.gp(code));
    }
    if let Some(left) = left {
        busy::release(cpu, left)?;
    }
    current_state(cpu, switch).save(cpu, old_layout, old.base)?;
    if switch.cause == Cause::Call {
        cpu.write_bytes(base, &old.selector.to_le_bytes(), MmuMode::Supervisor)?;
    }
    if base == old.base {
        // IRET to the task that runs: it finds what was just saved.
        state = TaskState::read(cpu, new_layout, base)?;
    }
    Ok(state)
}

fn current_state(cpu: &Cpu, switch: &Switch) -> TaskState {
    TaskState {
        cr3: None,
        eip: switch.rip as u32,
        eflags: switch.flags as u32,
        gpr: std::array::from_fn(|n| cpu.arch.gpr[n] as u32),
        segments: std::array::from_fn(|n| cpu.arch.segs[n].selector),
        ldt: 0,
        trap: false,
    }
}

/// Steps 11 and 12: from here on the new task runs.
fn commit(cpu: &mut Cpu, target: Target, switch: &Switch, state: &TaskState) {
    let mut tss = target.descriptor.segment(target.selector);
    tss.rights = Rights(tss.rights.0 | 2);
    cpu.arch.segs[seg::TR] = tss;
    cpu.arch.cr0 |= Cr0::TS;
    if let Some(cr3) = state.cr3
        && cpu.arch.cr0.contains(Cr0::PG)
    {
        load_page_tables(cpu, cr3);
    }
    cpu.arch.rip = state.eip.into();
    for (register, value) in cpu.arch.gpr.iter_mut().zip(state.gpr) {
        *register = value.into();
    }
    for (register, selector) in cpu.arch.segs.iter_mut().zip(state.segments) {
        *register = load::selector_only(selector);
    }
    cpu.arch.segs[seg::LDTR] = load::selector_only(state.ldt);
    let mut flags = u64::from(state.eflags);
    if switch.cause == Cause::Call {
        flags |= Rflags::NT.bits();
    }
    let virtual_8086 = flags & Rflags::VM.bits() != 0;
    cpu.arch.cpl = if virtual_8086 { 3 } else { (state.segments[seg::CS] & 3) as u8 };
    cpu.write_dr7(cpu.arch.dr7 & !DR7_LOCAL);
    cpu.set_rflags(flags);
    if flags & Rflags::RF.bits() != 0 {
        // RF lasts for one instruction, which the engine has to see retire.
        cpu.run.attention |= attention::ALONE;
    }
}

/// Loads CR3, and the PDPTEs where there are any: those that were good a moment ago.
fn load_page_tables(cpu: &mut Cpu, cr3: u32) {
    if cpu.write_cr3(cr3.into()).is_err() {
        // Another processor has just spoilt the PDPTEs.
        cpu.run.fault = None;
        cpu.arch.cr3 = cr3.into();
        cpu.arch.pdptes = [0; 4];
        cpu.run.tlb.switch_to_flushed(0);
    }
}

/// Steps 13 and 14, in the new task; `Some`: what it faults with.
fn enter(cpu: &mut Cpu, switch: &Switch, state: &TaskState) -> Exec<Option<Exception>> {
    match start(cpu, switch) {
        Ok(()) => {
            if state.trap {
                debug::pend_task_trap(cpu);
            }
            Ok(None)
        }
        Err(Stop::FAULT) => Ok(cpu.run.fault.take()),
        Err(stop) => Err(stop),
    }
}

fn start(cpu: &mut Cpu, switch: &Switch) -> Exec {
    load::segments(cpu, switch.ext)?;
    if let Some(code) = switch.error_code {
        let mut stack = Stack { code: switch.ext, ..Stack::current(cpu) };
        let size = Layout::of(cpu.arch.segs[seg::TR]).register_size();
        stack.push(cpu, size, &[code.into()])?;
        cpu.arch.gpr[Gpr::Rsp] = stack.pointer;
    }
    if cpu.arch.rip > u64::from(cpu.arch.segs[seg::CS].limit) {
        return Err(cpu.gp(switch.ext));
    }
    Ok(())
}
