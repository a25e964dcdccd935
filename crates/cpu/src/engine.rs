//! The loop that finds blocks, runs them, and looks at events between them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::Rflags;
use cloister_x86::{Exception, Vector};

use crate::block::{Block, BlockId, Blocks, phys_key};
use crate::exec::system::{apic, debug, event as delivery};
use crate::exit::{Exit, Stop};
use crate::lower;
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::mem::translate::Target;
use crate::op::{BLOCK_SLOT, Op};
use crate::segment::seg;
use crate::state::{Cpu, Exec, Features, Shared, attention, event};

/// Blocks between two looks at the clock.
const BLOCKS_PER_LOOK: u32 = 256;
/// Bytes of the longest instruction.
const MAX_INSTRUCTION: usize = 15;

/// A logical processor: its state and its decoded code.
pub struct Vcpu {
    /// Architectural state. The owner may read and change it between calls of [`Vcpu::run`], and
    /// calls [`Cpu::update_mode`] after changing what it names.
    pub cpu: Cpu,
    blocks: Blocks,
    look_in: u32,
    #[cfg(any(test, feature = "testing"))]
    catch: bool,
    #[cfg(any(test, feature = "testing"))]
    caught: Option<Exception>,
}

impl Vcpu {
    /// The processor with APIC ID `id` of a machine, after power-up reset (SDM Vol. 3A,
    /// table 9-1): processor 0 is the bootstrap processor, others wait for a start-up IPI.
    #[must_use]
    pub fn new(shared: Arc<Shared>, id: u32, features: Features) -> Self {
        Self {
            cpu: Cpu::reset(shared, id, features),
            blocks: Blocks::default(),
            look_in: BLOCKS_PER_LOOK,
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
        self.cpu.kicker.set_running(false);
        exit
    }

    fn run_loop(&mut self) -> Exit {
        loop {
            self.look_in -= 1;
            if self.cpu.attention != 0
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
                Ok(id) => self.run_block(id),
                Err(stop) => Err(stop),
            };
            if let Err(stop) = outcome
                && let Some(exit) = self.handle(stop)
            {
                return exit;
            }
        }
    }

    /// Looks at everything that can come between two instructions, in the order of SDM Vol. 3A,
    /// table 6-2. `Ok(true)`: the next instruction has to run on its own.
    fn attend(&mut self) -> Result<bool, Exit> {
        let cpu = &mut self.cpu;
        self.look_in = BLOCKS_PER_LOOK;
        if cpu.kicker.events.load(Ordering::Relaxed) != 0 {
            let events = cpu.kicker.events.swap(0, Ordering::SeqCst);
            if events & event::FLUSH_TLB != 0 {
                cpu.tlb.flush_all();
            }
            if events & event::APIC != 0 {
                apic::take_inbox(cpu)?;
            }
            if events & event::EXIT != 0 {
                return Err(Exit::Requested);
            }
        }
        apic::poll_timer(cpu);
        if cpu.attention & attention::DEVICE != 0 {
            // The instruction is half done: nothing comes between.
            return Ok(true);
        }
        if cpu.attention & attention::DEBUG_TRAP != 0 && cpu.attention & attention::MOV_SS == 0 {
            debug::deliver_trap(cpu)?;
        }
        let shadow = cpu.attention & attention::SHADOW != 0;
        if cpu.attention & attention::INTERRUPTS != 0 && !shadow {
            apic::deliver_interrupt(cpu)?;
        }
        if cpu.attention & attention::HALTED != 0 {
            return Err(Exit::Hlt);
        }
        Ok(cpu.attention
            & (attention::TRACE | attention::SHADOW | attention::BREAKPOINTS | attention::ALONE)
            != 0)
    }

    /// Runs one instruction on its own, with what surrounds it: instruction breakpoints before,
    /// single-step trap after.
    fn step(&mut self) -> Option<Exit> {
        let resumed = self.cpu.attention & attention::DEVICE != 0;
        if !resumed && let Err(exit) = debug::check_instruction_breakpoint(&mut self.cpu) {
            return match exit {
                Stop::Fault => self.handle(Stop::Fault),
                _ => None,
            };
        }
        // Instructions that enter a handler clear it: no trap follows them.
        self.cpu.single_step = self.cpu.system_flags.contains(Rflags::TF);
        let debug_pending = self.cpu.debug_pending;
        let shadow = self.cpu.attention & (attention::SHADOW | attention::MOV_SS);
        self.cpu.attention &= !(attention::SHADOW | attention::MOV_SS | attention::ALONE);
        self.cpu.device_next = 0;
        // RF holds for one instruction, unless that is one that loads it.
        let resume = self.cpu.system_flags & Rflags::RF;
        self.cpu.system_flags.remove(Rflags::RF);
        let start = self.cpu.rip;
        let outcome = self.run_single();
        match outcome {
            Ok(()) | Err(Stop::Jump) => {
                if outcome.is_err() && self.cpu.rip == start {
                    // Between two iterations of a string instruction (SDM Vol. 3B, 17.3.1.1).
                    self.cpu.system_flags.insert(Rflags::RF);
                }
                self.cpu.device_commit();
                if self.cpu.single_step {
                    debug::pend_single_step(&mut self.cpu);
                }
                None
            }
            Err(stop) => {
                self.cpu.system_flags |= resume;
                debug::cancel(&mut self.cpu, debug_pending);
                if stop == Stop::Exit {
                    // The same instruction runs again under the same shadow.
                    self.cpu.attention |= shadow;
                }
                if stop == Stop::Fault {
                    self.cpu.device_commit();
                }
                self.handle(stop)
            }
        }
    }

    /// Executes one instruction and nothing around it: no event is looked at, none delivered. A
    /// string instruction may stop between iterations. For debuggers and tests.
    ///
    /// # Errors
    ///
    /// As a handler: [`Cpu::fault`] or [`Cpu::exit`] has the details, and RIP is unmoved, but for
    /// [`Stop::Jump`], which means that the instruction retired or is between two iterations.
    pub fn execute_one(&mut self) -> Exec {
        self.cpu.device_next = 0;
        self.run_single()
    }

    fn run_single(&mut self) -> Exec {
        let start = self.fetch_address()?;
        let mut bytes = [0u8; MAX_INSTRUCTION];
        let mut have = 4096 - (start & 0xfff) as usize;
        have = have.min(MAX_INSTRUCTION);
        self.fetch(start, &mut bytes[..have])?;
        let mut lowered = lower::lower(&bytes[..have], self.cpu.mode, true);
        if lowered.ops.is_empty() {
            let next = self.cpu.linear_ip(self.cpu.rip.wrapping_add(have as u64));
            self.fetch(next, &mut bytes[have..])?;
            lowered = lower::lower(&bytes, self.cpu.mode, true);
        }
        self.cpu.alone = true;
        let outcome = run_ops(&mut self.cpu, &lowered.ops, u64::MAX);
        self.cpu.alone = false;
        outcome
    }

    /// Reads code that stays in a page.
    fn fetch(&mut self, la: u64, out: &mut [u8]) -> Exec {
        let mode = self.cpu.fetch_mode();
        match self.cpu.translate(la, AccessKind::Execute, mode)? {
            Target::Memory { host, .. } => {
                #[expect(unsafe_code, reason = "reads guest memory")]
                // SAFETY: the target's bytes stay in its page.
                unsafe {
                    crate::mem::host::load_bytes(host.as_ptr(), out);
                }
            }
            Target::Void | Target::Device(_) => out.fill(0xff),
        }
        Ok(())
    }

    /// Linear address of the next instruction, after the checks of an instruction fetch.
    fn fetch_address(&mut self) -> Exec<u64> {
        let cpu = &mut self.cpu;
        if !cpu.mode.is_64() && cpu.rip > u64::from(cpu.segs[seg::CS].limit) {
            cpu.gpr[usize::from(BLOCK_SLOT)] = cpu.rip;
            return Err(cpu.gp(0));
        }
        Ok(cpu.linear_ip(cpu.rip))
    }

    fn find_block(&mut self) -> Exec<BlockId> {
        let rip = self.cpu.rip;
        if let Some(id) = self.blocks.jump(rip, self.jump_key(false), self.jump_key(true)) {
            return Ok(id);
        }
        self.find_block_slow(rip)
    }

    /// What a jump-cache entry depends on besides RIP: the translations in force (all of them,
    /// or the global ones), the decoding mode, and the privilege that the fetch had.
    #[inline(always)]
    fn jump_key(&self, global: bool) -> u64 {
        let tlb = &self.cpu.tlb;
        let epoch = if global { tlb.code_epoch | 1 << 31 } else { tlb.epoch & !(1 << 31) };
        u64::from(epoch) << 16
            | 0x8000
            | u64::from(self.cpu.cpl == 3) << 8
            | u64::from(self.cpu.mode.bits())
    }

    #[inline(never)]
    fn find_block_slow(&mut self, rip: u64) -> Exec<BlockId> {
        let start = self.fetch_address()?;
        let mode = self.cpu.fetch_mode();
        let Target::Memory { host, track, phys } =
            self.cpu.translate(start, AccessKind::Execute, mode)?
        else {
            self.cpu.attention |= attention::ALONE;
            return Err(Stop::Jump);
        };
        let offset = (start & 0xfff) as usize;
        let phys_key = phys_key(phys, start & 0xfff, self.cpu.mode);
        let id = match self.blocks.find(phys_key) {
            Some(id) => id,
            None => {
                let several = self.cpu.shared.kickers.len() > 1;
                let mut bytes = [0u8; 4096];
                let limit = self.bytes_to_limit(4096 - offset);
                let bytes = &mut bytes[..limit];
                let (generation, lowered) = loop {
                    // Mark first, then read: see `CodeTrack`. The extent is known only after
                    // decoding, so mark what was decoded and read again.
                    #[expect(unsafe_code, reason = "reads guest memory and its tracker")]
                    // SAFETY: the target's page is valid to its end; its tracker lives as long.
                    let (track, copy) = unsafe {
                        crate::mem::host::load_bytes(host.as_ptr(), bytes);
                        (track.as_ref(), &mut *bytes)
                    };
                    let lowered = lower::lower(copy, self.cpu.mode, false);
                    let generation = track.mark(offset, lowered.len.max(1), several);
                    let mut again = vec![0u8; lowered.len];
                    #[expect(unsafe_code, reason = "reads guest memory")]
                    // SAFETY: as above.
                    unsafe {
                        crate::mem::host::load_bytes(host.as_ptr(), &mut again);
                    }
                    if again == bytes[..lowered.len] {
                        break (generation, lowered);
                    }
                };
                if lowered.ops.is_empty() {
                    // The instruction crosses the page.
                    self.cpu.attention |= attention::ALONE;
                    return Err(Stop::Jump);
                }
                self.blocks.insert(phys_key, Block::new(lowered.ops, phys, track, generation))
            }
        };
        let global = self.cpu.tlb.is_global_code(start, mode);
        let key = self.jump_key(global);
        self.blocks.remember(rip, key, id);
        Ok(id)
    }

    /// How many of the page's remaining bytes CS lets the processor fetch.
    fn bytes_to_limit(&self, rest: usize) -> usize {
        if self.cpu.mode.is_64() {
            return rest;
        }
        let room = u64::from(self.cpu.segs[seg::CS].limit) - self.cpu.rip + 1;
        rest.min(usize::try_from(room).unwrap_or(rest))
    }

    #[inline(always)]
    fn run_block(&mut self, id: BlockId) -> Exec {
        let block = self.blocks.get(id);
        run_ops(&mut self.cpu, &block.ops, block.phys)
    }

    /// Acts on a stop; `Some` where the owner has to.
    fn handle(&mut self, stop: Stop) -> Option<Exit> {
        match stop {
            Stop::Jump => None,
            Stop::Alone => {
                self.cpu.attention |= attention::ALONE;
                None
            }
            Stop::Fault => {
                // Also where the fault came from an instruction fetch.
                self.cpu.non_canonical_fault = false;
                let fault = self.cpu.fault.take().unwrap_or(Exception::new(Vector::Df));
                #[cfg(any(test, feature = "testing"))]
                if self.catch {
                    self.caught = Some(fault);
                    return Some(Exit::Requested);
                }
                delivery::deliver_exception(&mut self.cpu, fault).err()
            }
            Stop::Exit => self.cpu.exit.take(),
        }
    }

    /// Answers a device access: `value` is what was read (ignored for writes).
    pub fn complete(&mut self, value: u64) {
        self.cpu.device_log.push(value);
        self.cpu.attention |= attention::DEVICE;
    }

    /// Retires the instruction that exited, without effect.
    pub fn skip(&mut self) {
        // The exiting instruction was fetched a moment ago; decode it again for its length.
        let length = self.instruction_length();
        self.cpu.rip = self.cpu.truncate_rip(self.cpu.rip.wrapping_add(length));
        self.cpu.device_commit();
    }

    /// Answers CPUID.
    pub fn finish_cpuid(&mut self, result: CpuidResult) {
        self.cpu.gpr[0] = u64::from(result.eax);
        self.cpu.gpr[3] = u64::from(result.ebx);
        self.cpu.gpr[1] = u64::from(result.ecx);
        self.cpu.gpr[2] = u64::from(result.edx);
        self.skip();
    }

    /// Answers RDMSR.
    pub fn finish_rdmsr(&mut self, value: u64) {
        self.cpu.gpr[0] = value & 0xffff_ffff;
        self.cpu.gpr[2] = value >> 32;
        self.skip();
    }

    /// Makes the instruction that exited fault instead.
    ///
    /// # Errors
    ///
    /// [`Exit::TripleFault`] if the exception cannot be delivered.
    pub fn inject(&mut self, exception: Exception) -> Result<(), Exit> {
        self.cpu.device_commit();
        delivery::deliver_exception(&mut self.cpu, exception)
    }

    /// Sleeps after [`Exit::Hlt`] until an event or the APIC timer wakes the processor.
    pub fn wait(&mut self) {
        let timeout: Option<Duration> = apic::time_to_timer(&self.cpu);
        self.cpu.kicker.sleep(timeout);
    }

    fn instruction_length(&mut self) -> u64 {
        let mut bytes = [0u8; MAX_INSTRUCTION];
        let start = self.cpu.linear_ip(self.cpu.rip);
        let have = (4096 - (start & 0xfff) as usize).min(MAX_INSTRUCTION);
        if self.fetch(start, &mut bytes[..have]).is_err() {
            self.cpu.fault = None;
            return 0;
        }
        if have < MAX_INSTRUCTION {
            let next = start.wrapping_add(have as u64);
            if self.fetch(next, &mut bytes[have..]).is_err() {
                self.cpu.fault = None;
            }
        }
        lower::lower(&bytes, self.cpu.mode, true).len as u64
    }
}

/// Runs ops in order; on a stop that did not retire its op, `rip` is that op's.
#[inline(always)]
fn run_ops(cpu: &mut Cpu, ops: &[Op], phys: u64) -> Exec {
    cpu.gpr[usize::from(BLOCK_SLOT)] = cpu.rip;
    cpu.block_phys = phys;
    for op in ops {
        if let Err(stop) = (op.run)(cpu, op) {
            if stop != Stop::Jump {
                cpu.rip = cpu.op_rip(op);
                if stop == Stop::Fault {
                    stack_fault(cpu, op);
                }
            }
            return Err(stop);
        }
    }
    Ok(())
}

/// A non-canonical address gives #SS(0) instead of #GP(0) where the reference is to the stack
/// (SDM Vol. 1, 3.3.7.1).
fn stack_fault(cpu: &mut Cpu, op: &Op) {
    if op.mem_operand != crate::op::NO_MEMORY
        && usize::from(op.seg) == seg::SS
        && cpu.non_canonical_fault
        && let Some(fault) = &mut cpu.fault
    {
        fault.vector = Vector::Ss;
    }
    cpu.non_canonical_fault = false;
}

impl Cpu {
    /// Linear address of an instruction pointer.
    #[must_use]
    pub fn linear_ip(&self, rip: u64) -> u64 {
        if self.mode.is_64() {
            rip
        } else {
            self.segs[seg::CS].base.wrapping_add(rip) & 0xffff_ffff
        }
    }

    /// Whose rights instruction fetches have.
    #[must_use]
    pub fn fetch_mode(&self) -> MmuMode {
        match self.mmu_mode {
            // EFLAGS.AC does not matter to fetches.
            MmuMode::SupervisorAc => MmuMode::Supervisor,
            mode => mode,
        }
    }
}
