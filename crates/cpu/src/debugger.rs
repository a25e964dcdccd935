//! A debugger of the owner's: what a processor stops for without the guest noticing.
//!
//! Nothing of it is in the guest's registers or memory. A breakpoint is an op that the decoder puts before
//! each instruction whose offset in its page is that of a breakpoint, whatever page that is: a block is
//! known by its physical place and reached at any linear address. The op asks whether the linear address is
//! that of a breakpoint. A block that holds such an op is not translated. A step and watchpoints have
//! instructions run on their own.
//!
//! Inside an enclave without DEBUG there are no breakpoints, steps go on to the exit, and of its accesses
//! those outside ELRANGE alone are watched, as after an entry opted out of debugging (SDM Vol. 3D, 40.2.3
//! and 40.3.1).

use std::collections::BTreeSet;

use crate::block::Blocks;
use crate::cpu::Cpu;
use crate::engine::Vcpu;
use crate::event::{Event, Kind, before_event};
use crate::excursion;
use crate::exit::{Exec, Exit, Stop};
use crate::lower::bare;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op, handler};
use crate::run_state::attention;

/// Offsets that a guest's breakpoints may add: of a page's 4096, so that code is translated all the same.
const MAX_ASKED: usize = 64;

/// Bytes of linear addresses whose accesses stop a processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Watchpoint {
    /// The first.
    pub la: u64,
    /// How many.
    pub len: u64,
    /// Reads do not count.
    pub writes_only: bool,
}

impl Watchpoint {
    fn matches(&self, la: u64, len: u64, kind: AccessKind) -> bool {
        let counts = kind == AccessKind::Write || !self.writes_only;
        // Modulo 2^64.
        counts && (la.wrapping_sub(self.la) < self.len || self.la.wrapping_sub(la) < len)
    }
}

/// Where a debugger has processors stop.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DebugPoints {
    /// Linear addresses of instructions, which do not run before the processor stops.
    pub breakpoints: BTreeSet<u64>,
    /// What is watched: the processor stops after the instruction.
    pub watchpoints: BTreeSet<Watchpoint>,
}

/// Why a processor stopped for its debugger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugStop {
    /// The next instruction is at a breakpoint.
    Breakpoint {
        /// Its linear address.
        la: u64,
    },
    /// The step is done.
    Step,
    /// The last instruction, or the event delivered since, accessed what is watched.
    Watchpoint {
        /// The first linear address that the watchpoint watches.
        la: u64,
    },
}

/// What a processor knows of its debugger.
#[derive(Debug, Default)]
pub(crate) struct Debugger {
    points: DebugPoints,
    /// Offsets in pages before which decoded code asks for breakpoints.
    asked: BTreeSet<u16>,
    /// What the processor is to stop for before the next instruction: see
    /// [`attention::DEBUGGER_STOP`].
    due: Option<DebugStop>,
}

impl Debugger {
    /// Whether decoded code asks for breakpoints before an instruction at linear address `la`.
    pub(crate) fn asks_at(&self, la: u64) -> bool {
        self.asked.contains(&offset(la))
    }

    /// Whether any data access is watched.
    pub(crate) fn watches(&self) -> bool {
        !self.points.watchpoints.is_empty()
    }

    /// Puts what asks for breakpoints into the ops of a block that begins at linear address `start`.
    pub(crate) fn add_checks(&self, start: u64, ops: &mut Vec<Op>) {
        if self.asked.is_empty() {
            return;
        }
        let asked = |op: &Op| self.asked.contains(&offset(start.wrapping_add(op.offset.into())));
        let mut at = 0;
        while at < ops.len() {
            if ops[at].len != 0 && asked(&ops[at]) {
                ops.insert(at, bare(CHECK, ops[at].offset.into(), 0));
                at += 1;
            }
            at += 1;
        }
    }
}

/// Whether ops of a block ask for breakpoints: these, and what ends a block, have no bytes.
pub(crate) fn has_checks(ops: &[Op]) -> bool {
    ops.split_last().is_some_and(|(_, ops)| ops.iter().any(|op| op.len == 0))
}

const CHECK: Handler = handler!(|cpu, op| check(cpu, op));

fn check(cpu: &mut Cpu, op: &Op) -> Exec {
    let rip = cpu.op_rip(op);
    if let Some(exit) = breakpoint_at(cpu, rip) {
        return Err(cpu.exit_with(exit));
    }
    let la = cpu.linear_ip(rip);
    // By itself it is compared with the guest's own, too.
    if cpu.instruction_breakpoints().any(|at| at == la) { Err(Stop::ALONE) } else { Ok(()) }
}

fn breakpoint_at(cpu: &Cpu, rip: u64) -> Option<Exit> {
    let la = cpu.linear_ip(rip);
    let stops = cpu.debugger.points.breakpoints.contains(&la) && !cpu.enclave.is_production();
    stops.then_some(Exit::Debug(DebugStop::Breakpoint { la }))
}

const fn offset(la: u64) -> u16 {
    (la & 0xfff) as u16
}

/// The stop that is due before the next instruction, once.
pub(crate) fn take_due(cpu: &mut Cpu) -> Option<Exit> {
    cpu.run.attention &= !attention::DEBUGGER_STOP;
    cpu.debugger.due.take().map(Exit::Debug)
}

/// The stop before an instruction that runs on its own. A step begins wherever the processor is.
pub(crate) fn before_instruction(cpu: &mut Cpu) -> Option<Exit> {
    take_due(cpu).or_else(|| {
        let steps = cpu.run.attention & attention::DEBUGGER_STEP != 0;
        if steps { None } else { breakpoint_at(cpu, cpu.arch.rip) }
    })
}

/// An instruction retired, or an event was delivered in its place.
pub(crate) fn after_instruction(cpu: &mut Cpu) {
    if cpu.run.attention & attention::DEBUGGER_STEP == 0 || excursion::goes_on(cpu) {
        return;
    }
    if !cpu.enclave.is_production() {
        cpu.run.attention &= !attention::DEBUGGER_STEP;
        stop_with(cpu, DebugStop::Step);
    }
}

/// Forgets what was watched of an instruction that did not retire.
pub(crate) fn cancel(cpu: &mut Cpu) {
    let _ = take_due(cpu);
}

/// Whether interrupts wait for the end of a step, which would lead into their handlers otherwise. Not
/// where nothing else ends it.
pub(crate) fn holds_interrupts(cpu: &Cpu) -> bool {
    cpu.run.attention & (attention::DEBUGGER_STEP | attention::HALTED) == attention::DEBUGGER_STEP
        && !cpu.enclave.is_production()
}

pub(crate) fn stop_with(cpu: &mut Cpu, stop: DebugStop) {
    // A watchpoint says more than that the step is done.
    cpu.debugger.due.get_or_insert(stop);
    cpu.run.attention |= attention::DEBUGGER_STOP;
}

impl Cpu {
    /// Matches a data access with what is watched.
    pub(crate) fn check_watchpoints(&mut self, la: u64, len: u64, kind: AccessKind) {
        let (la, len) =
            if self.enclave.is_production() { self.outside_elrange(la, len) } else { (la, len) };
        let watched = self.debugger.points.watchpoints.iter();
        let hit = watched.filter(|_| len != 0).find(|point| point.matches(la, len, kind));
        if let Some(&Watchpoint { la, .. }) = hit {
            stop_with(self, DebugStop::Watchpoint { la });
        }
    }
}

impl Vcpu {
    /// Sets where the processor stops with [`Exit::Debug`], for `None` nowhere any more. A processor that
    /// goes on at a breakpoint stops at it again, unless by [`Vcpu::debug_step`].
    ///
    /// Places of breakpoints that were new make it decode and translate its code anew, also where they
    /// were taken back in between, unless by `None`.
    pub fn set_debug_points(&mut self, points: Option<&DebugPoints>) {
        let debugger = &mut self.cpu.debugger;
        debugger.points = points.cloned().unwrap_or_default();
        let breakpoints = debugger.points.breakpoints.iter().copied().map(offset);
        let mut asked = debugger.asked.clone();
        match points {
            Some(_) => asked.extend(breakpoints),
            None => asked.clear(),
        }
        self.ask(asked);
        self.cpu.arm_breakpoints();
        let watches = self.cpu.debugger.watches();
        self.cpu.run.set_attention(attention::WATCHPOINTS, watches);
        self.cpu.update_mode();
    }

    /// Has decoded code ask for the guest's own breakpoints of instructions, as far as it does not: then code
    /// runs as fast as without them.
    pub(crate) fn ask_for_breakpoints(&mut self) {
        let mut asked = self.cpu.debugger.asked.clone();
        asked.extend(self.cpu.instruction_breakpoints().map(offset));
        if asked.len() <= MAX_ASKED {
            self.ask(asked);
        }
        self.cpu.arm_breakpoints();
    }

    /// Has decoded code ask for breakpoints at these offsets.
    fn ask(&mut self, asked: BTreeSet<u16>) {
        if asked != self.cpu.debugger.asked {
            self.cpu.debugger.asked = asked;
            self.blocks = Blocks::default();
            if let Some(translator) = &mut self.translator {
                translator.forget();
            }
        }
    }

    /// Has the processor stop with [`DebugStop::Step`] after one instruction. One that enters an enclave
    /// without DEBUG takes all that runs in there with it. Until then, interrupts wait.
    pub fn debug_step(&mut self) {
        self.cpu.run.attention |= attention::DEBUGGER_STEP;
    }

    /// Makes its state fit to be shown, between two calls of [`Vcpu::run`]: takes a step back that did not
    /// come to its end, and leaves an enclave without DEBUG, as a VM exit does (SDM Vol. 3D, chapter 37), so
    /// that nothing of it is seen.
    pub fn debug_pause(&mut self) {
        let cpu = &mut self.cpu;
        cpu.run.attention &= !attention::DEBUGGER_STEP;
        if cpu.debugger.due == Some(DebugStop::Step) {
            cancel(cpu);
        }
        if cpu.enclave.is_production() {
            leave_enclave(cpu);
        }
    }
}

/// Leaves an enclave between two instructions, as for an interrupt that is not delivered.
pub(crate) fn leave_enclave(cpu: &mut Cpu) {
    // A device access that was not completed is made again after ERESUME.
    cpu.run.device_log.clear();
    cpu.run.attention &= !attention::DEVICE;
    before_event(cpu, &mut Event::plain(0, Kind::External));
}

#[cfg(test)]
mod tests;
