//! What a debugger asks of the machine. Its threads are the processors: thread `n + 1` is processor `n`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use super::registers::{Packet, X86_64};
use crate::accel::{Activity, DebugPoints, DebugStop, Vcpu, Watchpoint};
use crate::machine::{AskError, Control, Ended, RunState};

/// Why processors stopped, as the debugger is told.
pub(super) type StopReason = MultiThreadStopReason<u64>;

/// How one processor goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Continue,
    Step,
}

/// A machine under a debugger.
pub(super) struct Debugged {
    control: Control,
    cpus: u32,
    /// Breakpoints by what the debugger calls them. They are alike.
    software: BTreeSet<u64>,
    hardware: BTreeSet<u64>,
    watched: BTreeMap<(u64, u64), BTreeSet<Watched>>,
    /// How those go on that the debugger has named, and whether the others stay.
    actions: BTreeMap<u32, Action>,
    locked: bool,
    /// The processor that stopped last.
    current: u32,
}

/// [`WatchKind`], in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Write,
    /// Reads alone cannot be watched, as in the debug registers: a debugger sees what changed.
    Read,
    Access,
}

impl From<WatchKind> for Watched {
    fn from(kind: WatchKind) -> Self {
        match kind {
            WatchKind::Write => Self::Write,
            WatchKind::Read => Self::Read,
            WatchKind::ReadWrite => Self::Access,
        }
    }
}

impl From<Watched> for WatchKind {
    fn from(kind: Watched) -> Self {
        match kind {
            Watched::Write => Self::Write,
            Watched::Read => Self::Read,
            Watched::Access => Self::ReadWrite,
        }
    }
}

fn tid(cpu: u32) -> Tid {
    Tid::MIN.saturating_add(cpu as usize)
}

fn cpu(tid: Tid) -> u32 {
    u32::try_from(tid.get() - 1).unwrap_or(u32::MAX)
}

impl Debugged {
    pub(super) fn new(control: Control, cpus: u32) -> Self {
        Self {
            control,
            cpus,
            software: BTreeSet::new(),
            hardware: BTreeSet::new(),
            watched: BTreeMap::new(),
            actions: BTreeMap::new(),
            locked: false,
            current: 0,
        }
    }

    /// Stops the machine for the debugger.
    pub(super) fn stop(&mut self) {
        self.control.stop();
        if let Err(error) = self.pause() {
            tracing::debug!(%error, "no processors to show");
        }
    }

    /// Makes the processors fit to be shown.
    fn pause(&self) -> Result<(), AskError> {
        for paused in self.control.ask(0..self.cpus, |vcpu| vcpu.debug_pause())? {
            if let Err(error) = paused {
                tracing::warn!(%error, "a processor is not as it would be shown");
            }
        }
        Ok(())
    }

    /// Lets the machine go on without a debugger.
    pub(super) fn release(&mut self) {
        self.control.stop();
        self.software.clear();
        self.hardware.clear();
        self.watched.clear();
        let paused = self.pause();
        if let Err(error) = paused.and_then(|()| self.control.set_debug_points(self.cpus, None)) {
            // Of those that did not answer the server hears when they stop.
            tracing::debug!(%error, "processors keep their breakpoints");
        }
        self.control.forget_debug_stops();
        let _: Result<(), Ended> = self.control.resume();
    }

    /// Lets processors go on that stopped for a debugger which has left.
    pub(super) fn release_leftover(&mut self) {
        if self.control.take_debug_stop().is_some() {
            self.release();
        }
    }

    /// Ends the machine, as GDB's command `kill` does.
    pub(super) fn kill(&self) {
        self.control.quit();
    }

    /// Stops the machine because the debugger's user wants it.
    pub(super) fn interrupt(&mut self) -> StopReason {
        self.stop();
        // Something may have come first.
        self.stopped().unwrap_or(self.signal(Signal::SIGINT))
    }

    /// Why the machine that the debugger let run does not run any more, if so. It is stopped then.
    pub(super) fn stopped(&mut self) -> Option<StopReason> {
        while let Some((cpu, stop)) = self.control.take_debug_stop() {
            self.current = cpu;
            if let Some(reason) = self.reason(stop) {
                self.stop();
                return Some(reason);
            }
        }
        match self.control.state() {
            RunState::Running => None,
            // By somebody else.
            RunState::Paused | RunState::Prelaunch => {
                self.stop();
                Some(self.signal(Signal::SIGINT))
            }
            RunState::Shutdown => Some(StopReason::Exited(0)),
        }
    }

    /// What to tell of a stop; `None` for a watchpoint that is not there any more.
    fn reason(&self, stop: DebugStop) -> Option<StopReason> {
        let tid = tid(self.current);
        Some(match stop {
            DebugStop::Step => self.signal(Signal::SIGTRAP),
            DebugStop::Breakpoint { la } if self.hardware.contains(&la) => StopReason::HwBreak(tid),
            DebugStop::Breakpoint { .. } => StopReason::SwBreak(tid),
            DebugStop::Watchpoint { la } => {
                let mut at = self.watched.range((la, 0)..=(la, u64::MAX));
                let kind = at.find_map(|(_, kinds)| kinds.last().copied())?.into();
                StopReason::Watch { tid, kind, addr: la }
            }
        })
    }

    fn signal(&self, signal: Signal) -> StopReason {
        StopReason::SignalWithThread { tid: tid(self.current), signal }
    }

    /// Asks one processor.
    fn ask<T: Send + 'static>(
        &self,
        tid: Tid,
        question: impl FnOnce(&mut dyn Vcpu) -> T + Clone + Send + 'static,
    ) -> TargetResult<T, Self> {
        let cpu = Some(cpu(tid)).filter(|&cpu| cpu < self.cpus).ok_or(TargetError::NonFatal)?;
        let answers = self.control.ask(cpu..cpu + 1, question);
        answers.ok().and_then(|mut answers| answers.pop()).ok_or(TargetError::NonFatal)
    }

    /// Tells the processors where they stop now.
    fn set_points(&self) -> TargetResult<bool, Self> {
        let watchpoint = |(&(la, len), kinds): (&(u64, u64), &BTreeSet<Watched>)| Watchpoint {
            la,
            len,
            writes_only: kinds.iter().all(|&kind| kind == Watched::Write),
        };
        let points = DebugPoints {
            breakpoints: &self.software | &self.hardware,
            watchpoints: self.watched.iter().map(watchpoint).collect(),
        };
        let set = self.control.set_debug_points(self.cpus, Some(points));
        set.map(|()| true).map_err(|_: AskError| TargetError::NonFatal)
    }
}

impl Target for Debugged {
    type Arch = X86_64;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debugged {
    fn read_registers(&mut self, registers: &mut Packet, tid: Tid) -> TargetResult<(), Self> {
        let state = self.ask(tid, |vcpu| vcpu.state())?;
        *registers = Packet::of(&state.map_err(|_| TargetError::NonFatal)?);
        Ok(())
    }

    fn write_registers(&mut self, registers: &Packet, tid: Tid) -> TargetResult<(), Self> {
        let registers = registers.clone();
        let written = self.ask(tid, move |vcpu| {
            let changed = registers.apply(&vcpu.state().ok()?)?;
            vcpu.set_state(changed).ok()
        })?;
        written.ok_or(TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let length = data.len();
        let read = self.ask(tid, move |vcpu| {
            let mut bytes = vec![0; length];
            let read = vcpu.debug_read(start, &mut bytes);
            bytes.truncate(read);
            bytes
        })?;
        data[..read.len()].copy_from_slice(&read);
        if read.is_empty() && length != 0 { Err(TargetError::NonFatal) } else { Ok(read.len()) }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let data = data.to_vec();
        let written = self.ask(tid, move |vcpu| vcpu.debug_write(start, &data))?;
        if written { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        // First the one that GDB takes for the current one when it connects.
        is_active(tid(self.current));
        (0..self.cpus).filter(|&cpu| cpu != self.current).for_each(|cpu| is_active(tid(cpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Debugged {
    fn resume(&mut self) -> Result<(), Infallible> {
        for (&cpu, _) in self.actions.iter().filter(|(_, action)| **action == Action::Step) {
            // One that is not there does not step: GDB hears of the next stop.
            let _ = self.ask(tid(cpu), |vcpu| vcpu.debug_step());
        }
        let stays = |cpu: &u32| self.locked && !self.actions.contains_key(cpu);
        let held = (0..self.cpus).filter(stays).collect();
        // The server looks whether the machine has ended, and for what other processors watched when it
        // stopped.
        let _: Result<(), Ended> = self.control.resume_but(held);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.actions.clear();
        self.locked = false;
        Ok(())
    }

    // There are no signals to pass on.
    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.actions.insert(cpu(tid), Action::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debugged {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.actions.insert(cpu(tid), Action::Step);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Debugged {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.locked = true;
        Ok(())
    }
}

impl ThreadExtraInfo for Debugged {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let state = self.ask(tid, |vcpu| vcpu.state()).ok().and_then(Result::ok);
        let activity = match state.map(|state| state.activity) {
            Some(Activity::Active) => "running",
            Some(Activity::Halted) => "halted",
            Some(Activity::WaitForSipi) => "waits for a start-up IPI",
            None => "gone",
        };
        let text = format!("CPU#{} [{activity}]", cpu(tid));
        let length = text.len().min(buffer.len());
        buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(length)
    }
}

impl Breakpoints for Debugged {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugged {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let new = self.software.insert(address);
        self.set_points().inspect_err(|_| {
            if new {
                self.software.remove(&address);
            }
        })
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.software.remove(&address);
        self.set_points()
    }
}

impl HwBreakpoint for Debugged {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let new = self.hardware.insert(address);
        self.set_points().inspect_err(|_| {
            if new {
                self.hardware.remove(&address);
            }
        })
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.hardware.remove(&address);
        self.set_points()
    }
}

impl HwWatchpoint for Debugged {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let before = self.watched.clone();
        self.watched.entry((address, length)).or_default().insert(kind.into());
        self.set_points().inspect_err(|_| self.watched = before)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        if let Some(kinds) = self.watched.get_mut(&(address, length)) {
            kinds.remove(&kind.into());
            if kinds.is_empty() {
                self.watched.remove(&(address, length));
            }
        }
        self.set_points()
    }
}
