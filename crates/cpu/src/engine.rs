//! The loop that finds blocks, runs them, and looks at events between them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use cloister_x86::{Exception, Vector};

use crate::apic;
use crate::block::{Blocks, Run};
use crate::controls::Features;
use crate::cpu::Cpu;
use crate::debugger;
use crate::event::{self as delivery, debug};
use crate::exit::{Exec, Exit, Stop};
use crate::kicker::event;
use crate::lower::{MAX_LEN, lower, terminator};
use crate::native::{LOOKS, Translator};
use crate::op::{BLOCK_SLOT, Op};
use crate::package::Package;
use crate::run_state::attention;
use crate::state::Shadow;
use crate::statistics::{Counts, Statistics};
use crate::vmx::{self, window};

/// Blocks between two looks at the clock, at most.
const BLOCKS_PER_LOOK: u32 = 256;

/// A logical processor: its state and its decoded code.
pub struct Vcpu {
    /// Its state, which the owner may exchange between calls of [`Vcpu::run`].
    pub cpu: Cpu,
    pub(crate) blocks: Blocks,
    /// Keeps the memory that the blocks were decoded from, whatever the owner puts in `cpu`.
    _package: Arc<Package>,
    /// Ops just decoded.
    pub(crate) decoded: Vec<Op>,
    look_in: u32,
    pub(crate) translator: Option<Box<dyn Translator>>,
    /// Runs after which a block is translated, if there is a translator.
    hot_from: u32,
    pub(crate) counts: Counts,
    statistics: Arc<Statistics>,
    #[cfg(any(test, feature = "testing"))]
    catch: bool,
    #[cfg(any(test, feature = "testing"))]
    caught: Option<Exception>,
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

impl Drop for Vcpu {
    /// A processor that goes away, with its machine or to be reset, is in no enclave any more:
    /// the enclave's pages can be removed.
    fn drop(&mut self) {
        if let Some(platform) = self.cpu.package.platform.clone() {
            self.cpu.enclave.reset(&platform);
        }
    }
}

impl Vcpu {
    /// The processor with APIC ID `id` of a machine, after power-up reset (SDM Vol. 3A,
    /// table 9-1): processor 0 is the bootstrap processor, others wait for a start-up IPI.
    #[must_use]
    pub fn new(shared: Arc<Package>, id: u32, features: Features) -> Self {
        Self {
            _package: shared.clone(),
            cpu: Cpu::new(shared, id, features),
            blocks: Blocks::default(),
            decoded: Vec::new(),
            look_in: BLOCKS_PER_LOOK,
            translator: None,
            hot_from: u32::MAX,
            counts: Counts::default(),
            statistics: Arc::default(),
            #[cfg(any(test, feature = "testing"))]
            catch: false,
            #[cfg(any(test, feature = "testing"))]
            caught: None,
        }
    }

    /// Makes [`Vcpu::run`] return [`Exit::Requested`] at an exception instead of delivering it.
    #[cfg(any(test, feature = "testing"))]
    pub fn catch_exceptions(&mut self, on: bool) {
        self.catch = on;
    }

    /// The exception that made [`Vcpu::run`] return, once.
    #[cfg(any(test, feature = "testing"))]
    pub fn caught_exception(&mut self) -> Option<Exception> {
        self.caught.take()
    }

    /// Runs until the owner has to act.
    pub fn run(&mut self) -> Exit {
        self.cpu.kicker.set_running(true);
        let exit = self.run_loop();
        self.statistics.publish(&self.counts);
        self.cpu.kicker.set_running(false);
        exit
    }

    fn run_loop(&mut self) -> Exit {
        loop {
            self.look_in -= 1;
            if self.cpu.run.attention != 0
                || self.cpu.kicker.events.load(Ordering::Relaxed) != 0
                || self.look_in == 0
            {
                match self.attend() {
                    Ok(true) => {
                        if let Some(exit) = self.step() {
                            return exit;
                        }
                        continue;
                    }
                    Ok(false) => {}
                    Err(exit) => return exit,
                }
            }
            let outcome = match self.find_block() {
                Ok(run) => self.run_block(run),
                Err(stop) => Err(stop),
            };
            match outcome {
                Ok(()) | Err(Stop::JUMP) => {}
                Err(stop) => {
                    if let Some(exit) = self.handle(stop) {
                        return exit;
                    }
                }
            }
        }
    }

    /// Has blocks translated when they are found for the `hot_from`-th time after the first; with 0
    /// when they run for the first time.
    pub fn set_translator(&mut self, mut translator: Box<dyn Translator>, hot_from: u32) {
        // What it has translated was another processor's, of other memory.
        translator.forget();
        self.blocks.forget_translations();
        self.translator = Some(translator);
        self.hot_from = hot_from;
    }

    /// What is known of its translator's work, for other threads too.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        self.statistics.clone()
    }

    /// Takes the translator back: blocks are interpreted from now on.
    pub fn take_translator(&mut self) -> Option<Box<dyn Translator>> {
        self.blocks.forget_translations();
        self.translator.take()
    }

    #[inline(always)]
    fn run_block(&mut self, run: Run) -> Exec {
        let hot = run.heat == self.hot_from && run.code.is_none();
        let code = if hot { self.translate_block(run) } else { run.code };
        if let (Some(code), Some(translator)) = (code, &mut self.translator) {
            let jumps = self.blocks.jumps();
            #[expect(unsafe_code, reason = "runs translated code")]
            // SAFETY: blocks and jumps have code of this translator alone, since it last forgot it
            // (see `Blocks::translated`), and the jump cache is theirs.
            let outcome = unsafe { self.cpu.enter_native(&mut **translator, code, jumps) };
            if self.cpu.run.native.looks < 0 {
                self.look_in = 1;
            }
            self.counts.entries += 1;
            return outcome;
        }
        self.counts.interpreted_runs += 1;
        #[expect(unsafe_code, reason = "a run points to ops")]
        // SAFETY: `run_loop` just got the run from `find_block`, which asks `self.blocks`.
        let ops = unsafe { self.blocks.ops(run) };
        run_ops(&mut self.cpu, ops, run.phys)
    }

    /// Looks at everything that can come between two instructions, in the order of SDM Vol. 3A,
    /// table 6-2. `Ok(true)`: the next instruction has to run on its own.
    fn attend(&mut self) -> Result<bool, Exit> {
        let cpu = &mut self.cpu;
        let posted = cpu.kicker.events.load(Ordering::Relaxed) != 0;
        // Most looks are for an interrupt after IF was set, and find none: the clock can wait.
        let at_clock = posted || self.look_in == 0 || cpu.run.attention & attention::HALTED != 0;
        if at_clock {
            self.statistics.publish(&self.counts);
            self.look_in = BLOCKS_PER_LOOK;
            cpu.run.native.looks = LOOKS;
        }
        if posted {
            let events = cpu.kicker.events.swap(0, Ordering::SeqCst);
            if events & event::FLUSH_TLB != 0 {
                cpu.run.tlb.flush_worlds();
                cpu.run.guest_pages.drop_all();
            }
            if events & event::APIC != 0
                && let Err(exit) = apic::take_inbox(cpu)
            {
                // One exit at a time.
                cpu.kicker.events.fetch_or(events & event::EXIT, Ordering::SeqCst);
                return Err(exit);
            }
            if events & event::EXIT != 0 {
                return Err(Exit::Requested);
            }
        }
        if cpu.run.attention & attention::DEBUGGER_STOP != 0
            && let Some(exit) = debugger::take_due(cpu)
        {
            return Err(exit);
        }
        if at_clock {
            apic::poll_timer(cpu);
            if cpu.run.deadline != u64::MAX && cpu.package.nanos() >= cpu.run.deadline {
                return Err(Exit::Requested);
            }
        }
        if cpu.run.attention & attention::DEVICE != 0 {
            // The instruction is half done: nothing comes between.
            return Ok(true);
        }
        window::attend_first(cpu)?;
        if cpu.run.attention & attention::DEBUG_TRAP != 0
            && cpu.run.attention & attention::MOV_SS == 0
        {
            debug::deliver_trap(cpu)?;
            window::attend_first(cpu)?;
        }
        window::attend_last(cpu)?;
        if cpu.run.attention & attention::BREAKPOINTS != 0 {
            self.ask_for_breakpoints();
        }
        let cpu = &mut self.cpu;
        let shadow = cpu.run.attention & attention::SHADOW != 0;
        let held = shadow || debugger::holds_interrupts(cpu);
        if cpu.run.attention & attention::INTERRUPTS != 0 && !held {
            apic::deliver_interrupt(cpu)?;
            window::attend_first(cpu)?;
        }
        if cpu.run.attention & attention::HALTED != 0 {
            return Err(Exit::Hlt);
        }
        Ok(cpu.run.attention
            & (attention::TRACE
                | attention::SHADOW
                | attention::BREAKPOINTS
                | attention::ALONE
                | attention::MONITOR_TRAP
                | attention::DEBUGGER)
            != 0)
    }

    /// Runs one instruction on its own, with what surrounds it: instruction breakpoints before,
    /// single-step trap after.
    fn step(&mut self) -> Option<Exit> {
        let resumed = self.cpu.run.attention & attention::DEVICE != 0;
        if !resumed && let Some(exit) = debugger::before_instruction(&mut self.cpu) {
            return Some(exit);
        }
        if !resumed && let Err(exit) = debug::check_instruction_breakpoint(&mut self.cpu) {
            let exit = if exit == Stop::FAULT { self.handle(Stop::FAULT) } else { None };
            if exit.is_none() {
                debugger::after_instruction(&mut self.cpu);
            }
            return exit;
        }
        // Instructions that enter a handler clear it: no trap follows them.
        self.cpu.run.single_step = self.cpu.arch.system_flags.contains(Rflags::TF);
        let branches_only = self.cpu.run.single_step && !debug::steps(&self.cpu, false);
        let rip = self.cpu.arch.rip;
        let debug_pending = self.cpu.arch.debug_pending;
        let shadow = self.cpu.arch.shadow;
        self.cpu.run.monitor_trap = self.cpu.run.attention & attention::MONITOR_TRAP != 0;
        self.cpu.set_shadow(Shadow::None);
        self.cpu.run.shadowed = shadow;
        let alone = self.cpu.run.attention & attention::ALONE != 0;
        self.cpu.run.attention &= !attention::ALONE;
        self.cpu.run.device_next = 0;
        self.cpu.run.virtual_write = None;
        // RF holds for one instruction, unless that is one that loads it.
        let resume = self.cpu.arch.system_flags & Rflags::RF;
        self.cpu.arch.system_flags.remove(Rflags::RF);
        self.cpu.run.between_iterations = false;
        // It alone has software run code instruction by instruction as a matter of course: after each STI.
        let shadowed = shadow != Shadow::None && !alone;
        let outcome = self.run_single(shadowed);
        self.cpu.run.shadowed = Shadow::None;
        let exit = match outcome {
            Ok(()) | Err(Stop::JUMP) => {
                if (shadow, self.cpu.arch.shadow) == (Shadow::MovSs, Shadow::MovSs) {
                    // Of loads of SS in a row the first alone holds off (SDM Vol. 3A, 6.8.3).
                    self.cpu.set_shadow(Shadow::None);
                }
                if self.cpu.run.between_iterations {
                    // SDM Vol. 3B, 17.3.1.1.
                    self.cpu.arch.system_flags.insert(Rflags::RF);
                }
                self.cpu.device_commit();
                vmx::apic_access::finish_write(&mut self.cpu);
                if self.cpu.run.single_step && (!branches_only || self.branched_from(rip)) {
                    debug::pend_single_step(&mut self.cpu);
                }
                debugger::after_instruction(&mut self.cpu);
                None
            }
            Err(stop) => {
                debugger::cancel(&mut self.cpu);
                self.cpu.arch.system_flags |= resume;
                debug::cancel(&mut self.cpu, debug_pending);
                if matches!(stop, Stop::EXIT | Stop::VM_EXIT) {
                    // The same instruction runs again under the same shadow.
                    self.cpu.set_shadow(shadow);
                }
                if stop == Stop::FAULT {
                    self.cpu.device_commit();
                }
                let exit = self.handle(stop);
                if exit.is_none() {
                    debugger::after_instruction(&mut self.cpu);
                }
                exit
            }
        };
        let again = matches!(outcome, Err(Stop::EXIT | Stop::ALONE));
        if self.cpu.run.monitor_trap && !again {
            window::after_instruction(&mut self.cpu);
        }
        exit
    }

    /// Whether the instruction at `rip` that just ran alone went elsewhere than to the next one.
    fn branched_from(&self, rip: u64) -> bool {
        let length = self.decoded.first().map_or(0, |op| op.len);
        let next = self.cpu.truncate_rip(rip.wrapping_add(length.into()));
        !self.cpu.run.between_iterations && self.cpu.arch.rip != next
    }

    /// Executes one instruction and nothing around it: no event is looked at, none delivered. A
    /// string instruction may stop between iterations. For debuggers and tests.
    ///
    /// # Errors
    ///
    /// As a handler: [`Cpu::take_fault`] or [`Cpu::take_exit`] has the details, and RIP is unmoved,
    /// but for [`Stop::JUMP`], which means that the instruction retired or is between two
    /// iterations.
    pub fn execute_one(&mut self) -> Exec {
        self.cpu.run.device_next = 0;
        self.run_single(false)
    }

    /// Runs the next instruction: `shadowed` if a shadow is why it runs on its own, so that its block is
    /// likely to stay.
    fn run_single(&mut self, shadowed: bool) -> Exec {
        if !shadowed || !self.take_first_op()? {
            self.decode_single()?;
        }
        self.cpu.run.alone = true;
        let outcome = run_ops(&mut self.cpu, &self.decoded, u64::MAX);
        self.cpu.run.alone = false;
        outcome
    }

    /// Takes the next instruction from the block at RIP; `false` if there is none.
    fn take_first_op(&mut self) -> Exec<bool> {
        let [key, global_key] = self.cpu.jump_keys();
        let run = match self.blocks.known(self.cpu.arch.rip, key, global_key) {
            Some(run) => run,
            None => match self.find_block_slow() {
                Ok(run) => run,
                // The instruction is to run on its own.
                Err(Stop::JUMP) => {
                    self.cpu.run.attention &= !attention::ALONE;
                    return Ok(false);
                }
                Err(stop) => return Err(stop),
            },
        };
        #[expect(unsafe_code, reason = "a run points to ops")]
        // SAFETY: `self.blocks` just gave the run.
        let ops = unsafe { self.blocks.ops(run) };
        let (first, alone) = (ops[0], ops.len() == 1);
        if first.len == 0 {
            // It asks for a breakpoint.
            return Ok(false);
        }
        // `find_block_slow` decodes here.
        self.decoded.clear();
        self.decoded.push(first);
        if !alone {
            self.decoded.push(terminator(first.len.into()));
        }
        Ok(true)
    }

    /// Fetches and decodes the next instruction.
    fn decode_single(&mut self) -> Exec {
        let start = self.fetch_address()?;
        let mut bytes = [0u8; MAX_LEN];
        // What CS lets the processor fetch, and what of it is in the first page.
        let most = self.bytes_to_limit(MAX_LEN);
        let have = most.min(4096 - (start & 0xfff) as usize);
        self.fetch(start, &mut bytes[..have])?;
        self.decoded.clear();
        lower(&bytes[..have], self.cpu.run.mode, &self.cpu.ctl.features, true, &mut self.decoded);
        if self.decoded.is_empty() && have < most {
            let next = self.cpu.linear_ip(self.cpu.arch.rip.wrapping_add(have as u64));
            self.fetch(next, &mut bytes[have..most])?;
            lower(
                &bytes[..most],
                self.cpu.run.mode,
                &self.cpu.ctl.features,
                true,
                &mut self.decoded,
            );
        }
        if self.decoded.is_empty() {
            // It ends beyond the limit (SDM Vol. 3A, 5.3).
            self.cpu.arch.gpr[usize::from(BLOCK_SLOT)] = self.cpu.arch.rip;
            return Err(self.cpu.gp(0));
        }
        Ok(())
    }

    #[inline(always)]
    fn find_block(&mut self) -> Exec<Run> {
        // Outside 64-bit mode the linear address depends on CS: nothing is remembered.
        let [key, global_key] = self.cpu.jump_keys();
        match self.blocks.jump(self.cpu.arch.rip, key, global_key) {
            Some(run) => Ok(run),
            None => self.find_block_slow(),
        }
    }

    /// Acts on a stop; `Some` where the owner has to.
    fn handle(&mut self, stop: Stop) -> Option<Exit> {
        match stop {
            Stop::JUMP => None,
            Stop::ALONE => {
                self.cpu.run.attention |= attention::ALONE;
                None
            }
            Stop::FAULT => {
                // Also where the fault came from an instruction fetch.
                self.cpu.run.non_canonical_fault = false;
                let fault = self.cpu.run.fault.take().unwrap_or(Exception::new(Vector::Df));
                #[cfg(any(test, feature = "testing"))]
                if self.catch {
                    self.caught = Some(fault);
                    return Some(Exit::Requested);
                }
                if self.waits_for_page(fault) {
                    return None;
                }
                delivery::deliver_exception(&mut self.cpu, fault).err()
            }
            Stop::VM_EXIT => {
                let vectoring = std::mem::take(&mut self.cpu.run.vectoring);
                let exit = self.cpu.run.vm_exit.take()?;
                vmx::exit::leave(&mut self.cpu, exit, vectoring).err()
            }
            // The rest is `Stop::EXIT`.
            _ => self.cpu.run.exit.take(),
        }
    }

    /// Whether `fault` is an enclave's that was held back until an event came: see
    /// [`crate::crowd`].
    fn waits_for_page(&mut self, fault: Exception) -> bool {
        let cpu = &mut self.cpu;
        fault.vector == Vector::Pf
            && cpu.run.mode.is_enclave()
            // Nothing but interrupts comes before the instruction when it runs again.
            && cpu.run.attention & !attention::INTERRUPTS == 0
            && cpu.package.crowd.holds_back(
                &mut cpu.run.patience,
                &cpu.kicker,
                cpu.arch.rip,
                fault.address,
            )
    }
}

/// Runs ops in order; on a stop that did not retire its op, `rip` is that op's.
#[inline(always)]
fn run_ops(cpu: &mut Cpu, ops: &[Op], phys: u64) -> Exec {
    cpu.arch.gpr[usize::from(BLOCK_SLOT)] = cpu.arch.rip;
    cpu.run.block_phys = phys;
    for op in ops {
        if let Err(stop) = (op.run)(cpu, op) {
            if stop != Stop::JUMP {
                stopped(cpu, op, stop);
            }
            return Err(stop);
        }
    }
    Ok(())
}

/// The op did not retire.
#[cold]
#[inline(never)]
pub(crate) fn stopped(cpu: &mut Cpu, op: &Op, stop: Stop) {
    cpu.arch.rip = cpu.op_rip(op);
    if stop == Stop::VM_EXIT {
        vmx::apic_access::note_instruction(cpu, op);
    }
    if stop == Stop::FAULT {
        stack_fault(cpu, op);
    }
}

/// A non-canonical address gives #SS(0) instead of #GP(0) where the reference is to the stack
/// (SDM Vol. 1, 3.3.7.1).
fn stack_fault(cpu: &mut Cpu, op: &Op) {
    if op.mem_operand != crate::op::NO_MEMORY
        && usize::from(op.seg) == seg::SS
        && cpu.run.non_canonical_fault
        && let Some(fault) = &mut cpu.run.fault
    {
        fault.vector = Vector::Ss;
    }
    cpu.run.non_canonical_fault = false;
}
