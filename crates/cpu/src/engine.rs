//! The loop that finds blocks, runs them, and looks at events between them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::Rflags;
use cloister_x86::{Exception, Vector};

use crate::block::{Block, Blocks, Run, Source, phys_key};
use crate::exec::system::{apic, debug, event as delivery};
use crate::exit::{Exit, Stop};
use crate::lower::{MAX_LEN, lower};
use crate::mem::host::copy_up;
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::mem::translate::Target;
use crate::op::{BLOCK_SLOT, Op};
use crate::phys::{CodeTrack, code_changes};
use crate::segment::seg;
use crate::state::{Cpu, Exec, Features, Shared, attention, event};

/// Blocks between two looks at the clock.
const BLOCKS_PER_LOOK: u32 = 256;
/// Bytes looked at for one block: more than one instruction can have.
const WINDOW: usize = 256;

/// A logical processor: its state and its decoded code.
pub struct Vcpu {
    /// Architectural state. The owner may read and change it between calls of [`Vcpu::run`], and
    /// calls [`Cpu::update_mode`] after changing what it names.
    pub cpu: Cpu,
    blocks: Blocks,
    /// Ops just decoded.
    decoded: Vec<Op>,
    look_in: u32,
    #[cfg(any(test, feature = "testing"))]
    catch: bool,
    #[cfg(any(test, feature = "testing"))]
    caught: Option<Exception>,
}

impl Drop for Vcpu {
    /// A processor that goes away, with its machine or to be reset, is in no enclave any more:
    /// the enclave's pages can be removed.
    fn drop(&mut self) {
        if let Some(platform) = self.cpu.shared.platform.clone() {
            self.cpu.enclave.reset(&platform);
        }
    }
}

impl Vcpu {
    /// The processor with APIC ID `id` of a machine, after power-up reset (SDM Vol. 3A,
    /// table 9-1): processor 0 is the bootstrap processor, others wait for a start-up IPI.
    #[must_use]
    pub fn new(shared: Arc<Shared>, id: u32, features: Features) -> Self {
        Self {
            cpu: Cpu::reset(shared, id, features),
            blocks: Blocks::default(),
            decoded: Vec::new(),
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
                Ok(run) => run_ops(&mut self.cpu, self.blocks.ops(run), run.phys),
                Err(stop) => Err(stop),
            };
            match outcome {
                Ok(()) | Err(Stop::Jump) => {}
                Err(stop) => {
                    if let Some(exit) = self.handle(stop) {
                        return exit;
                    }
                }
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
        self.cpu.between_iterations = false;
        let outcome = self.run_single();
        match outcome {
            Ok(()) | Err(Stop::Jump) => {
                if shadow & self.cpu.attention & attention::MOV_SS != 0 {
                    // Of loads of SS in a row the first alone holds off (SDM Vol. 3A, 6.8.3).
                    self.cpu.attention &= !(attention::SHADOW | attention::MOV_SS);
                }
                if self.cpu.between_iterations {
                    // SDM Vol. 3B, 17.3.1.1.
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
        let mut bytes = [0u8; MAX_LEN];
        // What CS lets the processor fetch, and what of it is in the first page.
        let most = self.bytes_to_limit(MAX_LEN);
        let have = most.min(4096 - (start & 0xfff) as usize);
        self.fetch(start, &mut bytes[..have])?;
        self.decoded.clear();
        lower(&bytes[..have], self.cpu.mode, &self.cpu.features, true, &mut self.decoded);
        if self.decoded.is_empty() && have < most {
            let next = self.cpu.linear_ip(self.cpu.rip.wrapping_add(have as u64));
            self.fetch(next, &mut bytes[have..most])?;
            lower(&bytes[..most], self.cpu.mode, &self.cpu.features, true, &mut self.decoded);
        }
        if self.decoded.is_empty() {
            // It ends beyond the limit (SDM Vol. 3A, 5.3).
            self.cpu.gpr[usize::from(BLOCK_SLOT)] = self.cpu.rip;
            return Err(self.cpu.gp(0));
        }
        self.cpu.alone = true;
        let outcome = run_ops(&mut self.cpu, &self.decoded, u64::MAX);
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
                    copy_up(host.as_ptr(), out.as_mut_ptr(), out.len());
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

    #[inline(always)]
    fn find_block(&mut self) -> Exec<Run> {
        let key = self.jump_key(false);
        // Outside 64-bit mode the linear address depends on CS: nothing is remembered.
        match self.blocks.jump(self.cpu.rip, key, self.jump_key(true)) {
            Some(run) => Ok(run),
            None => self.find_block_slow(),
        }
    }

    /// What a jump-cache entry depends on besides RIP: the translations in force (all of them,
    /// or the global ones), the decoding mode, and the privilege that the fetch had.
    #[inline(always)]
    fn jump_key(&self, global: bool) -> u64 {
        let tlb = &self.cpu.tlb;
        let epoch = if global { tlb.code_epoch | 1 << 55 } else { tlb.epoch };
        epoch << 8 | self.cpu.fetch_key
    }

    #[inline(never)]
    fn find_block_slow(&mut self) -> Exec<Run> {
        let changes = code_changes();
        let start = self.fetch_address()?;
        let mode = self.cpu.fetch_mode();
        let Target::Memory { host, track, phys } =
            self.cpu.translate(start, AccessKind::Execute, mode)?
        else {
            self.cpu.attention |= attention::ALONE;
            return Err(Stop::Jump);
        };
        let key = phys_key(phys, start & 0xfff, self.cpu.mode);
        let page = Code { host, track, phys, offset: (start & 0xfff) as usize };
        let block = match self.blocks.find(key) {
            Some(block) => block,
            None => match self.decode(key, page) {
                Some(block) => block,
                None => return self.decode_crossing(key, page),
            },
        };
        if block.len() > self.bytes_to_limit(WINDOW) {
            // It was decoded where CS reached further.
            self.cpu.attention |= attention::ALONE;
            return Err(Stop::Jump);
        }
        if let Some(second) = block.second {
            // The instruction crosses into a page that may be another one by now.
            return match self.second_page(start)? {
                Some(page) if page.phys == second.phys => Ok(self.blocks.run(&block)),
                _ => self.decode_crossing(key, page),
            };
        }
        if self.cpu.mode.is_64() {
            let global = self.cpu.tlb.is_global_code(start, mode);
            let key = self.jump_key(global);
            self.cpu.tlb.note_code(start);
            self.blocks.remember(start, key, &block, changes);
        }
        Ok(self.blocks.run(&block))
    }

    /// Decodes the block at a place; `None` if its first instruction crosses the page.
    fn decode(&mut self, key: u64, code: Code) -> Option<Block> {
        let several = self.cpu.shared.kickers.len() > 1;
        let mut bytes = [0; WINDOW];
        let limit = self.bytes_to_limit(4096 - code.offset).min(WINDOW);
        loop {
            // Mark first, then read: see `CodeTrack`. The extent is known only after decoding, so
            // mark what was decoded and read again.
            code.read(&mut bytes[..limit]);
            self.decoded.clear();
            let (mode, features) = (self.cpu.mode, &self.cpu.features);
            let len = lower(&bytes[..limit], mode, features, false, &mut self.decoded);
            if self.decoded.is_empty() {
                return None;
            }
            let generation = code.mark(len, several);
            if code.still_reads(&bytes[..len]) {
                let source = Source { phys: code.phys, track: code.track, generation };
                return Some(self.blocks.insert(key, &self.decoded, source, None));
            }
        }
    }

    /// Decodes the instruction at a place, which crosses into the next page, as a block of its own.
    fn decode_crossing(&mut self, key: u64, first: Code) -> Exec<Run> {
        let several = self.cpu.shared.kickers.len() > 1;
        let have = 4096 - first.offset;
        let start = self.fetch_address()?;
        if self.bytes_to_limit(MAX_LEN) < MAX_LEN {
            // It may end beyond the limit of CS: what runs it alone finds that out.
            self.cpu.attention |= attention::ALONE;
            return Err(Stop::Jump);
        }
        let Some(second) = self.second_page(start)? else {
            self.cpu.attention |= attention::ALONE;
            return Err(Stop::Jump);
        };
        let mut bytes = [0; MAX_LEN];
        loop {
            first.read(&mut bytes[..have]);
            second.read(&mut bytes[have..]);
            self.decoded.clear();
            lower(&bytes, self.cpu.mode, &self.cpu.features, true, &mut self.decoded);
            let generations = (first.mark(have, several), second.mark(MAX_LEN - have, several));
            if first.still_reads(&bytes[..have]) && second.still_reads(&bytes[have..]) {
                let source = |code: Code, generation| Source {
                    phys: code.phys,
                    track: code.track,
                    generation,
                };
                let (one, two) = (source(first, generations.0), source(second, generations.1));
                let block = self.blocks.insert(key, &self.decoded, one, Some(two));
                return Ok(self.blocks.run(&block));
            }
        }
    }

    /// The code in the page behind that of linear address `la`; `None` where it is no memory.
    fn second_page(&mut self, la: u64) -> Exec<Option<Code>> {
        let mut next = (la | 0xfff).wrapping_add(1);
        if !self.cpu.mode.is_64() {
            next &= 0xffff_ffff;
        }
        let mode = self.cpu.fetch_mode();
        Ok(match self.cpu.translate(next, AccessKind::Execute, mode)? {
            Target::Memory { host, track, phys } => Some(Code { host, track, phys, offset: 0 }),
            _ => None,
        })
    }

    /// How many of `rest` bytes CS lets the processor fetch from RIP on, which is within its limit. Code
    /// in a segment of 4 GiB wraps around, which the SDM leaves to the implementation (Vol. 3A, 5.3).
    fn bytes_to_limit(&self, rest: usize) -> usize {
        let limit = self.cpu.segs[seg::CS].limit;
        if self.cpu.mode.is_64() || limit == u32::MAX {
            return rest;
        }
        let room = (u64::from(limit) + 1).saturating_sub(self.cpu.rip);
        rest.min(usize::try_from(room).unwrap_or(rest))
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
                if self.waits_for_page(fault) {
                    return None;
                }
                delivery::deliver_exception(&mut self.cpu, fault).err()
            }
            Stop::Exit => self.cpu.exit.take(),
        }
    }

    /// Whether `fault` is an enclave's that was held back until an event came: see [`crate::crowd`].
    fn waits_for_page(&mut self, fault: Exception) -> bool {
        let cpu = &mut self.cpu;
        fault.vector == Vector::Pf
            && cpu.mode.is_enclave()
            // Nothing but interrupts comes before the instruction when it runs again.
            && cpu.attention & !attention::INTERRUPTS == 0
            && cpu.shared.crowd.holds_back(
                &mut cpu.patience,
                &cpu.kicker,
                cpu.rip,
                fault.address,
            )
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
        let cpu = &mut self.cpu;
        cpu.rip = cpu.truncate_rip(cpu.rip.wrapping_add(length));
        cpu.device_commit();
        // As `step` does after an instruction that retired by itself.
        cpu.attention &= !(attention::SHADOW | attention::MOV_SS);
        cpu.system_flags.remove(Rflags::RF);
        if cpu.system_flags.contains(Rflags::TF) {
            debug::pend_single_step(cpu);
        }
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
        let mut bytes = [0u8; MAX_LEN];
        let start = self.cpu.linear_ip(self.cpu.rip);
        let have = (4096 - (start & 0xfff) as usize).min(MAX_LEN);
        if self.fetch(start, &mut bytes[..have]).is_err() {
            self.cpu.fault = None;
            return 0;
        }
        if have < MAX_LEN {
            let next = start.wrapping_add(have as u64);
            if self.fetch(next, &mut bytes[have..]).is_err() {
                self.cpu.fault = None;
            }
        }
        self.decoded.clear();
        lower(&bytes, self.cpu.mode, &self.cpu.features, true, &mut self.decoded) as u64
    }
}

/// Code bytes to decode, up to the end of their page.
#[derive(Clone, Copy)]
struct Code {
    host: NonNull<u8>,
    track: NonNull<CodeTrack>,
    phys: u64,
    /// Offset of the first byte in its page.
    offset: usize,
}

impl Code {
    fn read(self, out: &mut [u8]) {
        #[expect(unsafe_code, reason = "reads guest memory")]
        // SAFETY: the page is valid to its end, which the callers do not pass.
        unsafe {
            copy_up(self.host.as_ptr(), out.as_mut_ptr(), out.len());
        }
    }

    fn still_reads(self, bytes: &[u8]) -> bool {
        let mut again = [0; WINDOW];
        let again = &mut again[..bytes.len()];
        self.read(again);
        again == bytes
    }

    /// Marks bytes as decoded: the generation that they belong to.
    fn mark(self, len: usize, several: bool) -> u32 {
        #[expect(unsafe_code, reason = "reaches the page's tracker")]
        // SAFETY: the tracker lives as long as the page.
        let track = unsafe { self.track.as_ref() };
        track.mark(self.offset, len, several)
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
fn stopped(cpu: &mut Cpu, op: &Op, stop: Stop) {
    cpu.rip = cpu.op_rip(op);
    if stop == Stop::Fault {
        stack_fault(cpu, op);
    }
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
