//! From the instruction pointer to decoded code: instruction fetches and the decoding of blocks.

use std::ptr::NonNull;
use std::time::Instant;

use cloister_x86::segment::seg;

use crate::block::{Block, Run, Source, may_translate, phys_key};
use crate::cpu::Cpu;
use crate::debugger;
use crate::engine::Vcpu;
use crate::exit::{Exec, Stop};
use crate::lower::{MAX_LEN, lower};
use crate::mem::PageBytes;
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::mem::translate::Target;
use crate::native::BlockView;
use crate::op::BLOCK_SLOT;
use crate::phys::code_changes;
use crate::run_state::attention;

/// Bytes looked at for one block: more than one instruction can have.
const WINDOW: usize = 256;

/// Code bytes to decode, up to the end of their page.
#[derive(Clone, Copy)]
struct Code {
    bytes: PageBytes,
    phys: u64,
}

impl Code {
    fn read(self, out: &mut [u8]) {
        self.bytes.read_code(out);
    }

    fn still_reads(self, bytes: &[u8]) -> bool {
        let mut again = [0; WINDOW];
        let again = &mut again[..bytes.len()];
        self.read(again);
        again == bytes
    }

    /// Marks bytes as decoded: the generation that they belong to.
    fn mark(self, len: usize, several: bool) -> u32 {
        self.bytes.track().mark(self.bytes.offset(), len, several)
    }

    /// What a block is decoded from, of the generation that [`Code::mark`] said.
    fn source(self, generation: u32) -> Source {
        Source { phys: self.phys, track: self.bytes.track(), generation }
    }
}

impl Vcpu {
    /// Reads code that stays in a page.
    pub(crate) fn fetch(&mut self, la: u64, out: &mut [u8]) -> Exec {
        let mode = self.cpu.fetch_mode();
        match self.cpu.translate(la, AccessKind::Execute, mode)? {
            Target::Memory { bytes, .. } => bytes.read_code(out),
            Target::Void | Target::Device(_) | Target::ApicAccess(_) => out.fill(0xff),
        }
        Ok(())
    }

    /// Linear address of the next instruction, after the checks of an instruction fetch.
    pub(crate) fn fetch_address(&mut self) -> Exec<u64> {
        let cpu = &mut self.cpu;
        if !cpu.run.mode.is_64() && cpu.arch.rip > u64::from(cpu.arch.segs[seg::CS].limit) {
            cpu.arch.gpr[usize::from(BLOCK_SLOT)] = cpu.arch.rip;
            return Err(cpu.gp(0));
        }
        Ok(cpu.linear_ip(cpu.arch.rip))
    }

    /// [`Vcpu::find_block`] where the jump cache does not know the block.
    #[inline(never)]
    pub(crate) fn find_block_slow(&mut self) -> Exec<Run> {
        let changes = code_changes();
        let start = self.fetch_address()?;
        let mode = self.cpu.fetch_mode();
        let Target::Memory { bytes, phys } =
            self.cpu.translate(start, AccessKind::Execute, mode)?
        else {
            self.cpu.run.attention |= attention::ALONE;
            return Err(Stop::JUMP);
        };
        let key = phys_key(phys, start & 0xfff, self.cpu.run.mode);
        let page = Code { bytes, phys };
        let mut block = match self.blocks.find_to_run(key) {
            Some(block) => block,
            None => match self.decode(key, page) {
                Some(block) => block,
                None => self.decode_crossing(key, page)?,
            },
        };
        if block.len() > self.bytes_to_limit(WINDOW) {
            // It was decoded where CS reached further.
            self.cpu.run.attention |= attention::ALONE;
            return Err(Stop::JUMP);
        }
        let mut global = self.cpu.run.tlb.is_global_code(start, mode);
        if let Some(second) = block.second {
            // The instruction crosses into a page that may be another one by now.
            let found = self.second_page(start)?;
            if found.is_none_or(|found| found.phys != second.phys) {
                block = self.decode_crossing(key, page)?;
            }
            global &= self.cpu.run.tlb.is_global_code(next_page(start), mode);
        }
        if self.cpu.run.mode.is_64() {
            let key = self.cpu.jump_keys()[usize::from(global)];
            self.cpu.run.tlb.note_code(start, phys);
            if let Some(second) = block.second {
                self.cpu.run.tlb.note_code(next_page(start), second.phys);
            }
            self.blocks.remember(start, key, &block, changes);
        }
        Ok(self.blocks.run(&block))
    }

    /// Translates the block at RIP, which was just found.
    #[cold]
    pub(crate) fn translate_block(&mut self, run: Run) -> Option<NonNull<u8>> {
        let la = self.cpu.arch.rip;
        let mode = self.cpu.run.mode;
        if !mode.is_64() || !may_translate(la) {
            return None;
        }
        let translator = self.translator.as_mut()?;
        if !translator.has_room() {
            translator.forget();
            self.blocks.forget_translations();
            self.counts.evictions += 1;
        }
        let key = phys_key(run.phys, la & 0xfff, mode);
        let block = self.blocks.find(key)?;
        let mut bytes = [0; WINDOW];
        let bytes = &mut bytes[..block.len()];
        if let Some(second) = block.second {
            let (first, rest) = bytes.split_at_mut(4096 - (la & 0xfff) as usize);
            let found = self.second_page(la).ok()?.filter(|found| found.phys == second.phys)?;
            self.fetch(la, first).ok()?;
            found.read(rest);
        } else {
            self.fetch(la, bytes).ok()?;
        }
        if !block.is_fresh() {
            return None;
        }
        #[expect(unsafe_code, reason = "runs and translations belong to their makers")]
        // SAFETY: the caller just got the run from `self.blocks`.
        let ops = unsafe { self.blocks.ops(run) };
        if debugger::has_checks(ops) {
            return None;
        }
        let view = BlockView {
            ops,
            bytes,
            phys: run.phys,
            key,
            track: &block.source.track,
            generation: block.source.generation,
            decoder_options: self.cpu.ctl.features.decoder_options(),
        };
        let translator = self.translator.as_mut()?;
        let (start, before) = (Instant::now(), translator.code_len());
        let code = translator.translate(&view)?;
        self.counts.blocks += 1;
        // The op that only ends a block has no bytes.
        self.counts.instructions += view.ops.iter().filter(|op| op.len != 0).count() as u64;
        self.counts.guest_bytes += view.bytes.len() as u64;
        self.counts.code_bytes += (translator.code_len() - before) as u64;
        self.counts.nanoseconds += u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        #[expect(unsafe_code, reason = "runs and translations belong to their makers")]
        // SAFETY: the processor's translator made the code of this block just now, and nothing has
        // it forget its code before `forget_translations`: see above, and `take_translator`.
        unsafe {
            self.blocks.translated(key, la, code);
        }
        Some(code)
    }

    /// Decodes the block at a place; `None` if its first instruction crosses the page.
    fn decode(&mut self, key: u64, code: Code) -> Option<Block> {
        let several = self.cpu.package.kickers.len() > 1;
        let mut bytes = [0; WINDOW];
        let limit = self.bytes_to_limit(4096 - code.bytes.offset()).min(WINDOW);
        loop {
            // Mark first, then read: see `CodeTrack`. The extent is known only after decoding, so
            // mark what was decoded and read again.
            code.read(&mut bytes[..limit]);
            self.decoded.clear();
            let (mode, features) = (self.cpu.run.mode, &self.cpu.ctl.features);
            let len = lower(&bytes[..limit], mode, features, false, &mut self.decoded);
            if self.decoded.is_empty() {
                return None;
            }
            // Offsets in the page are all that counts.
            self.cpu.debugger.add_checks(key, &mut self.decoded);
            let generation = code.mark(len, several);
            if code.still_reads(&bytes[..len]) {
                let source = code.source(generation);
                return Some(self.blocks.insert(key, &self.decoded, source, None));
            }
        }
    }

    /// Decodes the instruction at a place, which crosses into the next page, as a block of its own.
    fn decode_crossing(&mut self, key: u64, first: Code) -> Exec<Block> {
        let several = self.cpu.package.kickers.len() > 1;
        let have = 4096 - first.bytes.offset();
        let start = self.fetch_address()?;
        if self.bytes_to_limit(MAX_LEN) < MAX_LEN {
            // It may end beyond the limit of CS: what runs it alone finds that out.
            self.cpu.run.attention |= attention::ALONE;
            return Err(Stop::JUMP);
        }
        let Some(second) = self.second_page(start)? else {
            self.cpu.run.attention |= attention::ALONE;
            return Err(Stop::JUMP);
        };
        let mut bytes = [0; MAX_LEN];
        loop {
            first.read(&mut bytes[..have]);
            second.read(&mut bytes[have..]);
            self.decoded.clear();
            lower(&bytes, self.cpu.run.mode, &self.cpu.ctl.features, true, &mut self.decoded);
            self.cpu.debugger.add_checks(start, &mut self.decoded);
            let generations = (first.mark(have, several), second.mark(MAX_LEN - have, several));
            if first.still_reads(&bytes[..have]) && second.still_reads(&bytes[have..]) {
                let (one, two) = (first.source(generations.0), second.source(generations.1));
                return Ok(self.blocks.insert(key, &self.decoded, one, Some(two)));
            }
        }
    }

    /// The code in the page after that of linear address `la`; `None` where it is not memory.
    fn second_page(&mut self, la: u64) -> Exec<Option<Code>> {
        let mut next = next_page(la);
        if !self.cpu.run.mode.is_64() {
            next &= 0xffff_ffff;
        }
        let mode = self.cpu.fetch_mode();
        Ok(match self.cpu.translate(next, AccessKind::Execute, mode)? {
            Target::Memory { bytes, phys } => Some(Code { bytes, phys }),
            _ => None,
        })
    }

    /// How many of `rest` bytes CS lets the processor fetch from RIP on, which is within its limit.
    /// Code in a segment of 4 GiB wraps around, which the SDM leaves to the implementation (Vol.
    /// 3A, 5.3).
    pub(crate) fn bytes_to_limit(&self, rest: usize) -> usize {
        let limit = self.cpu.arch.segs[seg::CS].limit;
        if self.cpu.run.mode.is_64() || limit == u32::MAX {
            return rest;
        }
        let room = (u64::from(limit) + 1).saturating_sub(self.cpu.arch.rip);
        rest.min(usize::try_from(room).unwrap_or(rest))
    }

    pub(crate) fn instruction_length(&mut self) -> u64 {
        let mut bytes = [0u8; MAX_LEN];
        let start = self.cpu.linear_ip(self.cpu.arch.rip);
        let have = (4096 - (start & 0xfff) as usize).min(MAX_LEN);
        if self.fetch(start, &mut bytes[..have]).is_err() {
            self.cpu.run.fault = None;
            return 0;
        }
        if have < MAX_LEN {
            let next = start.wrapping_add(have as u64);
            if self.fetch(next, &mut bytes[have..]).is_err() {
                self.cpu.run.fault = None;
            }
        }
        self.decoded.clear();
        lower(&bytes, self.cpu.run.mode, &self.cpu.ctl.features, true, &mut self.decoded) as u64
    }
}

/// The linear address at which the page after that of `la` begins.
const fn next_page(la: u64) -> u64 {
    (la | 0xfff).wrapping_add(1)
}

impl Cpu {
    /// Linear address of an instruction pointer.
    #[must_use]
    pub(crate) fn linear_ip(&self, rip: u64) -> u64 {
        if self.run.mode.is_64() {
            rip
        } else {
            self.arch.segs[seg::CS].base.wrapping_add(rip) & 0xffff_ffff
        }
    }

    /// What a jump-cache entry depends on besides RIP: the translations in force (all of them, then
    /// the global ones alone), the decoding mode, and the privilege that the fetch had.
    #[inline(always)]
    pub(crate) fn jump_keys(&self) -> [u64; 2] {
        let (tlb, fetch) = (&self.run.tlb, self.run.fetch_key);
        [tlb.epoch, tlb.code_epoch() | 1 << 55].map(|epoch| epoch << 8 | fetch)
    }

    /// Whose rights instruction fetches have.
    #[must_use]
    pub(crate) fn fetch_mode(&self) -> MmuMode {
        match self.run.mmu_mode {
            // EFLAGS.AC does not matter to fetches.
            MmuMode::SupervisorAc => MmuMode::Supervisor,
            mode => mode,
        }
    }
}
