//! A random program: an enclave with random code, and what a kernel and its processes do with it. Its digest is of
//! all that they can tell: registers, memory, exceptions, what leaves answer, and what the pages were at last.
//!
//! Interrupts come at any moment, and nothing that is digested depends on when: an AEX for one is undone by ERESUME.

use core::fmt::Write;

use guest_bare::Console;

use crate::code::{self, SLOT};
use crate::enclave::{
    self, AUDITOR, CODE, Enclave, GPRSGX, GPRSGX_RIP, LAYOUT, Operands, PAGE, PAGES, SECRETS, SSA,
    TCS,
};
use crate::leaves::{Attempts, Outcome, encls, enclu};
use crate::numbers::{Digest, Numbers};
use crate::traps::{self, END, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use crate::{AEP, OUT, SITE, USER_DATA};

/// How often an entry is resumed after exceptions.
const EXCEPTIONS: u32 = 40;
/// Bytes of user memory that count.
const USER_BYTES: usize = 2 * PAGE as usize;
/// Bytes of the XSAVE area that hold registers: x87, SSE and AVX. In between is the header.
const LEGACY: core::ops::Range<usize> = 0..416;
const AVX: core::ops::Range<usize> = 576..832;

/// What runs programs, one after the other.
pub(crate) struct Programs {
    pub(crate) attempts: Attempts,
    pub(crate) operands: Operands,
    enclave: Enclave,
    numbers: Numbers,
    digest: Digest,
    /// Prints each thing that is digested.
    trace: bool,
}

impl Programs {
    /// In the section at `section`.
    pub(crate) const fn new(section: u64) -> Self {
        Self {
            attempts: Attempts::new(0),
            operands: Operands::new(),
            enclave: Enclave::place(section, 0),
            numbers: Numbers::new(0),
            digest: Digest::new(),
            trace: false,
        }
    }

    fn see(&mut self, what: &str, words: &[u64]) {
        if self.trace {
            let _ = write!(Console, "random: {what}");
            for word in words {
                let _ = write!(Console, " {word:x}");
            }
            let _ = writeln!(Console);
        }
        for &word in words {
            self.digest.add(word);
        }
    }

    fn outcome(&mut self, what: &str, outcome: Outcome) {
        let Outcome { vector, error, rax, rbx, flags } = outcome;
        // What it gives; for other leaves it is an address of this program's.
        let rbx = if what == "EDBGRD" { rbx } else { 0 };
        self.see(what, &[vector, error, rax, rbx, flags]);
    }

    /// Runs a program, and returns its digest.
    pub(crate) fn run(&mut self, seed: u64, index: u64, trace: bool) -> u64 {
        (self.numbers, self.digest, self.trace) = (Numbers::of(seed, index), Digest::new(), trace);
        let user = user_memory();
        self.numbers.fill(user);
        self.build();
        for _ in 0..3 + self.numbers.below(10) {
            self.act();
        }
        self.end();
        let mut memory = Digest::new();
        memory.bytes(user_memory());
        self.see("user memory", &[memory.value()]);
        self.digest.value()
    }

    fn build(&mut self) {
        // 64-bit, mostly with DEBUG.
        let attributes = if self.numbers.once_in(4) { 4 } else { 6 };
        let xfrm = self.numbers.of_these(&[3, 7]);
        let created = self.enclave.create(&mut self.attempts, &mut self.operands, attributes, xfrm);
        self.outcome("ECREATE", created);
        for (page, flags) in LAYOUT {
            enclave::contents(page, &mut self.numbers, self.operands.contents());
            let added = self.enclave.add(&mut self.attempts, &mut self.operands, page, flags);
            self.outcome("EADD", added);
        }
        if self.numbers.once_in(32) {
            let page = self.enclave.page(self.numbers.below(PAGES));
            let extended = self.attempts.encls(6, self.enclave.secs, page, 0);
            self.outcome("EEXTEND", extended);
        }
        let initialized = self.enclave.init(&mut self.attempts, &mut self.operands);
        self.outcome("EINIT", initialized);
        let versions = self.attempts.encls(encls::EPA, 3, self.enclave.versions, 0);
        self.outcome("EPA", versions);
    }

    /// One thing that kernel or process do.
    fn act(&mut self) {
        let (page, at) = (self.any_page(), self.numbers.below(512) * 8);
        let address = self.enclave.page(page) + at;
        match self.numbers.below(16) {
            0..=5 => self.enter(),
            6 => self.peek(page, at),
            7 => {
                // Also TCS.FLAGS, which makes debugging of a thread possible.
                let (address, value) = match self.numbers.once_in(3) {
                    true => (self.enclave.page(TCS) + 8, self.numbers.below(2)),
                    false => (address, self.numbers.next()),
                };
                let written = self.attempts.encls(encls::EDBGWR, value, address, 0);
                self.outcome("EDBGWR", written);
            }
            8 | 9 => {
                let page = enclave::DYNAMIC + self.numbers.below(3);
                let info = self.operands.page_info(self.enclave.page(page), 0, self.enclave.secs);
                // For EAUG the source is 0.
                let info = self.operands.without_source(info);
                let added = self.attempts.encls(encls::EAUG, info, self.enclave.page(page), 0);
                self.outcome("EAUG", added);
            }
            10 => {
                let flags = self.numbers.of_these(&[0x400, 0x100, 0x200, 0x300, 0x401]);
                let secinfo = self.operands.secinfo(flags);
                let modified = self.attempts.encls(encls::EMODT, secinfo, address & !0xfff, 0);
                self.outcome("EMODT", modified);
            }
            11 => {
                let flags = self.numbers.of_these(&[0, 1, 3, 2, 7, 5]);
                let secinfo = self.operands.secinfo(flags);
                let modified = self.attempts.encls(encls::EMODPR, secinfo, address & !0xfff, 0);
                self.outcome("EMODPR", modified);
            }
            12 => {
                let outcomes =
                    self.enclave.write_back(&mut self.attempts, &mut self.operands, page);
                self.written_back(outcomes);
                if self.numbers.once_in(8) {
                    self.operands.contents()[0] ^= 1;
                }
                let loaded = self.enclave.load_back(&mut self.attempts, &mut self.operands, page);
                self.outcome("ELDU", loaded);
            }
            13 => {
                let removed = self.attempts.encls(encls::EREMOVE, 0, address & !0xfff, 0);
                if self.numbers.once_in(3) {
                    self.outcome("EREMOVE", removed);
                }
            }
            14 => {
                let loaded = self.attempts.load(address);
                self.outcome("load", loaded);
                let stored = self.attempts.store(address, self.numbers.next());
                self.outcome("store", stored);
            }
            _ => {
                let leaf =
                    self.numbers.of_these(&[0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 0x1f, 99]);
                let operand = self.any_address();
                let other = self.any_address();
                let outcome = self.attempts.encls(leaf, operand, other, 0);
                self.outcome("ENCLS", outcome);
                let msr = self.numbers.of_these(&[0x3a, 0x8c, 0x8f, 0x500, 0x300]);
                let read = self.attempts.rdmsr(msr);
                self.outcome("RDMSR", read);
            }
        }
    }

    fn any_page(&mut self) -> u64 {
        let (page, _) = self.numbers.of_these(&LAYOUT);
        match self.numbers.below(3) {
            0 => enclave::DYNAMIC + self.numbers.below(3),
            _ => page,
        }
    }

    fn any_address(&mut self) -> u64 {
        let page = self.any_page();
        let places = [self.enclave.page(page), self.enclave.secs, USER_DATA, 513 << 30, 1 << 62, 0];
        self.numbers.of_these(&places) + self.numbers.of_these(&[0, 0, 0, 8, 32, 64])
    }

    fn peek(&mut self, page: u64, at: u64) {
        if !is_private(page) {
            let read = self.enclave.peek(&mut self.attempts, page, at);
            self.outcome("EDBGRD", read);
        }
    }

    fn written_back(&mut self, outcomes: [Outcome; 3]) {
        for (what, outcome) in ["EBLOCK", "ETRACK", "EWB"].into_iter().zip(outcomes) {
            self.outcome(what, outcome);
        }
        let flags = self.operands.flags_of_pcmd();
        self.see("PCMD", &[flags]);
    }

    /// Enters the enclave, and handles what comes out until that is its end.
    fn enter(&mut self) {
        let numbers = &mut self.numbers;
        let context = &mut self.attempts.context;
        for value in &mut context.gpr {
            *value = numbers.next() >> numbers.below(64);
        }
        numbers.fill(&mut context.xsave[160..416]);
        numbers.fill(&mut context.xsave[AVX]);
        context.xsave[512] = 7;
        let (enclave, odd) = (self.enclave, numbers.once_in(24));
        let data = enclave.page(enclave::DATA) + PAGE / 2;
        context.gpr[RAX] = enclu::EENTER;
        context.gpr[RBX] = enclave.page(TCS) + if odd { PAGE } else { 0 };
        context.gpr[RCX] = AEP;
        context.gpr[RSP] = data + PAGE;
        context.gpr[RSI] = data;
        context.gpr[RDI] = data;
        context.gpr[RBP] = enclave.page(enclave::CONSTANTS) + PAGE / 2;
        context.gpr[14] = USER_DATA + PAGE;
        context.gpr[13] = enclave.page(enclave::SPARE) + PAGE / 2;
        context.gpr[15] = numbers.of_these(&[
            enclave.secs,
            enclave.page(enclave::DYNAMIC) + PAGE / 2,
            USER_DATA,
            513 << 30,
            1 << 63,
            0,
        ]);
        let (times, moments) = (if numbers.once_in(2) { 16 } else { 0 }, numbers.next());
        if times != 0 {
            traps::start_timer(0, times, false, moments, AEP);
        }
        self.attempts.context.rflags = self.numbers.next();
        self.attempts.user(SITE);
        for _ in 0..EXCEPTIONS {
            if !self.came_out() {
                break;
            }
        }
        traps::stop_timer(0);
    }

    /// Sees what a process sees, and resumes the enclave if there is an exception to handle. Returns whether it
    /// has.
    fn came_out(&mut self) -> bool {
        let context = &self.attempts.context;
        let (vector, error, rip) = (context.vector, context.error, context.rip);
        let cr2 = if vector == 14 { context.cr2 } else { 0 };
        let (gpr, flags) = (context.gpr, context.rflags & 0x244dd5);
        let mut extended = Digest::new();
        extended.bytes(&context.xsave[LEGACY]);
        extended.bytes(&context.xsave[AVX]);
        self.see("out", &[vector, error, cr2, rip, flags, extended.value()]);
        self.see("registers", &gpr);
        if vector == END || rip != AEP {
            return false;
        }
        self.stopped();
        match self.numbers.below(16) {
            0 => return false,
            1 => self.resume(TCS),
            2..=8 => {
                // The enclave's own handler, in the next SSA frame.
                self.attempts.context.gpr[RAX] = enclu::EENTER;
                self.attempts.context.gpr[RBX] = self.enclave.page(TCS);
                self.attempts.context.gpr[RCX] = AEP;
                self.attempts.user(SITE);
                let context = &self.attempts.context;
                let (vector, rip, rax) = (context.vector, context.rip, context.gpr[RAX]);
                self.see("handler", &[vector, rip, rax]);
                if vector != END || rip != OUT + 2 {
                    return false;
                }
                self.resume(TCS);
            }
            _ => {
                let at = self.enclave.page(SSA) + GPRSGX_RIP;
                let rip = self.attempts.encls(encls::EDBGRD, 0, at, 0).rbx;
                let code = self.enclave.page(CODE);
                let next = (rip & !(SLOT as u64 - 1)).wrapping_add(SLOT as u64);
                let next = if next.wrapping_sub(code) < PAGE { next } else { code + code::END };
                let set = self.attempts.encls(encls::EDBGWR, next, at, 0);
                self.outcome("skip", set);
                self.resume(TCS);
            }
        }
        true
    }

    /// The SSA frame of what an exception has just stopped.
    fn stopped(&mut self) {
        let mut frame = Digest::new();
        let registers: [u64; 4] = core::array::from_fn(|_| match self.numbers.below(3) {
            0 => 8 * self.numbers.below(52),
            1 => AVX.start as u64 + 8 * self.numbers.below(32),
            _ => GPRSGX + 8 * self.numbers.below(23),
        });
        // EXINFO, RFLAGS, RIP and EXITINFO.
        let causes = [-16, -8, 128, 136, 160].map(|at: i64| GPRSGX.wrapping_add_signed(at));
        for at in causes.into_iter().chain(registers) {
            let read = self.enclave.peek(&mut self.attempts, SSA, at);
            frame.add(read.vector);
            frame.add(if read.is_done() { read.rbx } else { 0 });
            if self.trace {
                let _ = writeln!(Console, "random: SSA {at:x} {:x}", read.rbx);
            }
        }
        self.see("SSA", &[frame.value()]);
    }

    fn resume(&mut self, tcs: u64) {
        let context = &mut self.attempts.context;
        context.gpr[RAX] = enclu::ERESUME;
        context.gpr[RBX] = self.enclave.page(tcs);
        context.gpr[RCX] = AEP;
        self.attempts.user(SITE);
    }

    /// What the pages are at last, and the end of all.
    fn end(&mut self) {
        for page in 0..PAGES {
            if is_private(page) {
                continue;
            }
            self.audit(page);
            for _ in 0..2 {
                let at = 8 * self.numbers.below(512);
                self.peek(page, at);
            }
        }
        for page in 0..PAGES {
            let outcomes = self.enclave.write_back(&mut self.attempts, &mut self.operands, page);
            self.written_back(outcomes);
        }
        let removed = self.enclave.remove(&mut self.attempts);
        self.outcome("EREMOVE", removed);
    }

    /// What a page holds for the enclave itself.
    fn audit(&mut self, page: u64) {
        let context = &mut self.attempts.context;
        context.gpr[RAX] = enclu::EENTER;
        context.gpr[RBX] = self.enclave.page(AUDITOR);
        context.gpr[RCX] = AEP;
        context.gpr[RDX] = 0;
        context.gpr[RSI] = self.enclave.page(page);
        context.gpr[8] = self.enclave.page(page + 1);
        context.gpr[9] = 0x9e37_79b9_7f4a_7c15;
        context.gpr[10] = OUT;
        self.attempts.user(SITE);
        let context = &self.attempts.context;
        let (vector, error, rip) = (context.vector, context.error, context.rip);
        let contents = if vector == END { context.gpr[RDX] } else { 0 };
        self.see("page", &[page, vector, error, rip, contents]);
        if vector != END && rip == AEP {
            // Its next entry would have no SSA frame: it goes on at its end.
            let at = self.enclave.page(AUDITOR + 1) + GPRSGX_RIP;
            let end = self.enclave.page(enclave::AUDIT) + enclave::AUDIT_END;
            let set = self.attempts.encls(encls::EDBGWR, end, at, 0);
            self.outcome("skip", set);
            self.resume(AUDITOR);
            let context = &self.attempts.context;
            let (vector, rip) = (context.vector, context.rip);
            self.see("auditor", &[vector, rip]);
        }
    }
}

/// Whether what a page holds is nobody's to compare: it is made by the machine's own keys, or it is an SSA frame,
/// which says when interrupts came.
const fn is_private(page: u64) -> bool {
    matches!(page, SECRETS) || SSA <= page && page < CODE || page == AUDITOR + 1
}

/// The user memory that enclaves know of.
fn user_memory() -> &'static mut [u8] {
    // SAFETY: RAM that nothing else of this program has, and no other code runs.
    unsafe { core::slice::from_raw_parts_mut(USER_DATA as *mut u8, USER_BYTES) }
}
