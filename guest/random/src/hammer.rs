//! The hammer: all processors at once at the same enclaves, with random leaves, operands, registers, descriptors and
//! accesses to EPC, from rings 0 and 3. Nothing is expected of any of it but that the machine goes on, and that all
//! of the EPC is there afterwards.

use core::arch::asm;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::{hint, ptr};

use guest_bare::Console;

use crate::clock::{frequency, now, wait};
use crate::enclave::{self, Enclave, LAYOUT, Operands, PAGE, PAGES, TCS};
use crate::leaves::{Attempts, encls, enclu};
use crate::numbers::Numbers;
use crate::traps::{self, END, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, TIMER};
use crate::{AEP, SITE, USER_DATA, map, trust};

/// Processors, and enclaves that they share.
const PROCESSORS: usize = 8;
const ENCLAVES: u64 = 3;
/// How often an entry is resumed.
const EXCEPTIONS: u32 = 8;
/// Where code that starts processors is.
const TRAMPOLINE: u64 = 0x8000;
/// INIT and start-up IPIs to all processors but the own (SDM Vol. 3A, 11.6.1).
const INIT_OTHERS: u32 = 0xc_4500;
const START_OTHERS: u32 = 0xc_4600 | (TRAMPOLINE >> 12) as u32;

static GO: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicU32 = AtomicU32::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
static SECTION: AtomicU64 = AtomicU64::new(0);
static ACTIONS: AtomicU64 = AtomicU64::new(0);
static BUILT: AtomicU64 = AtomicU64::new(0);
static ENTRIES: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Each processor's, but what leaves are told lies in is all processors' to change.
static mut ATTEMPTS: [Attempts; PROCESSORS] = [const { Attempts::new(0) }; PROCESSORS];
static mut OPERANDS: [Operands; PROCESSORS] = [const { Operands::new() }; PROCESSORS];
/// Two more tables of gates, of which the second has other handlers of #UD.
static mut IDTS: [Gates; 2] = [const { Gates([[0; 2]; 256]) }; 2];

#[repr(C, align(4096))]
struct Gates([[u64; 2]; 256]);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// Another processor: waits until it may, and hammers.
pub(crate) fn join(processor: u32) -> ! {
    if (processor as usize) < PROCESSORS {
        while !GO.load(Ordering::SeqCst) {
            hint::spin_loop();
        }
        work(processor);
    }
    loop {
        // SAFETY: interrupts are off: it rests for ever.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Starts the others, hammers for so many seconds, and looks whether all of the EPC can be used.
pub(crate) fn run(section: u64, size: u64, sigstruct: &[u8], seed: u64, seconds: u64) {
    // SAFETY: the other processors do not run yet.
    unsafe {
        let operands = &raw mut OPERANDS;
        for one in &mut *operands {
            one.set_sigstruct(sigstruct);
        }
        trust(attempts(0), (*operands)[0].modulus());
        let gates = (&raw mut IDTS).cast::<[u64; 2]>();
        for at in 0..512 {
            gates.add(at).write(*traps::idt().add(at % 256));
        }
        // The same entry, through a trap gate.
        (*gates.add(256 + 6)).as_mut()[0] |= 1 << 40;
        let length = &raw const trampoline_end as usize - &raw const trampoline as usize;
        ptr::copy_nonoverlapping(&raw const trampoline, TRAMPOLINE as *mut u8, length);
    }
    map::only_memory(section, size);
    SEED.store(seed, Ordering::SeqCst);
    SECTION.store(section, Ordering::SeqCst);
    traps::apic_write(traps::ICR_LOW, INIT_OTHERS);
    wait(1 << 24);
    for _ in 0..2 {
        traps::apic_write(traps::ICR_LOW, START_OTHERS);
        wait(1 << 24);
    }
    let end = now().wrapping_add(seconds.wrapping_mul(frequency()));
    GO.store(true, Ordering::SeqCst);
    let mut told = 0;
    while now() < end {
        some(0, &mut Numbers::of(seed, told << 8));
        told += 1;
        if told % 64 == 0 {
            let actions = ACTIONS.load(Ordering::Relaxed);
            let _ = writeln!(Console, "random: hammer: {actions} actions so far");
        }
    }
    STOP.store(true, Ordering::SeqCst);
    while RUNNING.load(Ordering::SeqCst) != 0 {
        hint::spin_loop();
    }
    traps::load_idt(traps::idt() as u64);
    let (actions, built) = (ACTIONS.load(Ordering::Relaxed), BUILT.load(Ordering::Relaxed));
    let (entries, faults) = (ENTRIES.load(Ordering::Relaxed), FAULTS.load(Ordering::Relaxed));
    let _ = writeln!(
        Console,
        "random: hammer: {actions} actions, {built} enclaves, {entries} entries, {faults} exceptions"
    );
    let _ = match lost(section, size) {
        0 => writeln!(Console, "random: hammer: all {} pages of EPC are there", size / PAGE),
        lost => writeln!(Console, "random: hammer: {lost} pages of EPC are lost"),
    };
}

/// How many pages cannot be used after all were made unused.
fn lost(section: u64, size: u64) -> u64 {
    let attempts = attempts(0);
    let pages = (section..section + size).step_by(PAGE as usize);
    // An SECS goes after its pages.
    for _ in 0..2 {
        for page in pages.clone() {
            attempts.encls(encls::EREMOVE, 0, page, 0);
        }
    }
    let mut lost = 0;
    for page in pages {
        let used = attempts.encls(encls::EPA, 3, page, 0).vector == END;
        let unused = attempts.encls(encls::EREMOVE, 0, page, 0).is_done();
        lost += u64::from(!used || !unused);
    }
    lost
}

fn attempts(processor: u32) -> &'static mut Attempts {
    // SAFETY: each processor has its own, and takes it once at a time.
    let attempts = unsafe { &mut *(&raw mut ATTEMPTS).cast::<Attempts>().add(processor as usize) };
    attempts.processor = processor;
    attempts
}

fn work(processor: u32) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let mut numbers = Numbers::of(SEED.load(Ordering::SeqCst), u64::from(processor) << 48);
    while !STOP.load(Ordering::SeqCst) {
        some(processor, &mut numbers);
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

fn some(processor: u32, numbers: &mut Numbers) {
    let section = SECTION.load(Ordering::SeqCst);
    // SAFETY: the processor's own; what others read of it as leaves' operands may be anything.
    let operands = unsafe { &mut *(&raw mut OPERANDS).cast::<Operands>().add(processor as usize) };
    let mut hammer = Hammer { attempts: attempts(processor), operands, section, numbers };
    for _ in 0..32 {
        hammer.act();
        ACTIONS.fetch_add(1, Ordering::Relaxed);
    }
}

struct Hammer<'a> {
    attempts: &'a mut Attempts,
    operands: &'a mut Operands,
    section: u64,
    numbers: &'a mut Numbers,
}

impl Hammer<'_> {
    fn act(&mut self) {
        match self.numbers.below(24) {
            0..=5 => self.leaf(),
            6 => self.build(),
            7..=11 => self.enter(),
            12 | 13 => self.enclu(),
            14..=16 => self.epc(),
            17 | 18 => self.msr(),
            19 => self.descriptors(),
            20 => self.write_back(),
            21 => self.debug_registers(),
            _ => self.grow(),
        }
    }

    fn enclave(&mut self) -> Enclave {
        Enclave::place(self.section, self.numbers.below(ENCLAVES))
    }

    fn page(&mut self) -> u64 {
        let enclave = self.enclave();
        match self.numbers.below(8) {
            0 => enclave.secs,
            1 => enclave.versions,
            2 => enclave.page(self.numbers.below(PAGES)),
            _ => enclave.page(self.numbers.of_these(&LAYOUT).0),
        }
    }

    fn address(&mut self) -> u64 {
        let page = self.page();
        // Another processor's operands, which it is just about to use.
        let other = self.numbers.below(PROCESSORS as u64) as usize;
        let operands = (&raw const OPERANDS).cast::<Operands>().wrapping_add(other) as u64;
        let far = self.numbers.of_these(&[513 << 30, 1 << 62, 0, u64::MAX, USER_DATA]);
        let base = self.numbers.of_these(&[page, page, page, operands, operands + 0x2080, far]);
        base.wrapping_add(self.numbers.of_these(&[0, 0, 0, 0, 8, 64, 128, 4095]))
    }

    /// Any leaf with any operands, or with those of the processor.
    fn leaf(&mut self) {
        let leaf = match self.numbers.below(16) {
            0 => self.numbers.next(),
            _ => self.numbers.below(0x14),
        };
        let (page, secs) = (self.page(), self.enclave().secs);
        let flags = self.numbers.of_these(&[0x203, 0x207, 0x100, 0x400, 0, 1, 3, 0x300, 0x201]);
        let rbx = match self.numbers.below(4) {
            0 => self.address(),
            1 => self.operands.secinfo(flags),
            _ => self.operands.page_info(page, flags, secs),
        };
        let (rcx, rdx) =
            (if self.numbers.once_in(4) { self.address() } else { page }, self.address());
        let outcome = self.attempts.encls(leaf, rbx, rcx, rdx);
        FAULTS.fetch_add(u64::from(outcome.vector != END), Ordering::Relaxed);
    }

    fn build(&mut self) {
        let enclave = self.enclave();
        enclave.remove(self.attempts);
        let attributes = self.numbers.of_these(&[4, 6]);
        if !enclave.create(self.attempts, self.operands, attributes, 7).is_done() {
            return;
        }
        for (page, flags) in LAYOUT {
            enclave::contents(page, self.numbers, self.operands.contents());
            enclave.add(self.attempts, self.operands, page, flags);
        }
        let done = enclave.init(self.attempts, self.operands).is_done();
        BUILT.fetch_add(u64::from(done), Ordering::Relaxed);
        self.attempts.encls(encls::EPA, 3, enclave.versions, 0);
    }

    fn enclu_of(&mut self, leaf: u64, rbx: u64) {
        let context = &mut self.attempts.context;
        context.gpr[RAX] = leaf;
        context.gpr[RBX] = rbx;
        context.gpr[RCX] = AEP;
        self.user(SITE);
    }

    /// Runs code of ring 3, which is anything and may go on for ever: the timer ends it.
    fn user(&mut self, rip: u64) {
        let (times, moments) = (self.numbers.below(8), self.numbers.next());
        traps::start_timer(self.attempts.processor, times + 1, true, moments, AEP);
        self.attempts.user(rip);
        traps::stop_timer(self.attempts.processor);
    }

    fn enter(&mut self) {
        let (enclave, odd) = (self.enclave(), self.numbers.once_in(16));
        let context = &mut self.attempts.context;
        for value in &mut context.gpr {
            *value = self.numbers.next() >> self.numbers.below(64);
        }
        let data = enclave.page(enclave::DATA) + PAGE / 2;
        for register in [RSI, RDI, RBP, RSP, 13, 14, 15] {
            context.gpr[register] = data;
        }
        // Where the auditor ends.
        context.gpr[8] = data + PAGE;
        let tcs = enclave.page(self.numbers.of_these(&[TCS, TCS, TCS, enclave::AUDITOR]));
        ENTRIES.fetch_add(1, Ordering::Relaxed);
        let first = if odd { self.page() } else { tcs };
        self.enclu_of(enclu::EENTER, first);
        for _ in 0..EXCEPTIONS {
            let context = &self.attempts.context;
            if [END, u64::from(TIMER)].contains(&context.vector) || context.rip != AEP {
                break;
            }
            FAULTS.fetch_add(1, Ordering::Relaxed);
            if self.numbers.once_in(3) {
                self.enclu_of(enclu::EENTER, tcs);
            }
            self.enclu_of(enclu::ERESUME, tcs);
        }
    }

    /// Any leaf of ring 3.
    fn enclu(&mut self) {
        let leaf = self.numbers.of_these(&[0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 99, u64::MAX]);
        let (rbx, rdx) = (self.address(), self.address());
        self.attempts.context.gpr[RDX] = rdx;
        self.enclu_of(leaf, rbx);
    }

    /// Accesses from ring 0, and from ring 3 a call of what is there.
    fn epc(&mut self) {
        let (address, value) = (self.page() + 8 * self.numbers.below(512), self.numbers.next());
        match self.numbers.below(3) {
            0 => drop(self.attempts.load(address)),
            1 => drop(self.attempts.store(address, value)),
            _ => {
                self.attempts.context.gpr[RSP] = USER_DATA + PAGE;
                self.user(address);
            }
        }
    }

    fn msr(&mut self) {
        let ours = [0x3a, 0x8c, 0x8d, 0x8e, 0x8f, 0x300, 0x301, 0x500];
        let index = match self.numbers.below(4) {
            0 => self.numbers.below(0x1000),
            1 => 0xc000_0080 + self.numbers.below(0x200),
            _ => self.numbers.of_these(&ours),
        };
        self.attempts.rdmsr(index);
        if self.numbers.once_in(2) {
            let index = self.numbers.of_these(&ours);
            let value = self.numbers.next();
            let hash = (0x8c..0x90).contains(&index);
            // The enclaves' signer stays trusted most of the time.
            if !hash || self.numbers.once_in(64) {
                self.attempts.wrmsr(index, value);
            }
            if hash {
                trust(self.attempts, self.operands.modulus());
            }
        }
    }

    /// Another IDT, whose handler of #UD may be behind another kind of gate; segments of this GDT.
    fn descriptors(&mut self) {
        let which = self.numbers.below(3);
        // The gates of all three lead to the entries.
        let at = match which {
            0 => traps::idt() as u64,
            index => (&raw const IDTS).cast::<Gates>().wrapping_add(index as usize - 1) as u64,
        };
        traps::load_idt(at);
        let selector = self.numbers.of_these(&[0_u16, 16, 24 | 3]);
        // SAFETY: segments of data, which 64-bit code does not use.
        unsafe {
            asm!("mov ds, {0:x}", "mov es, {0:x}", "mov fs, {0:x}", in(reg) selector, options(nostack));
        }
    }

    fn write_back(&mut self) {
        let (enclave, page) = (self.enclave(), self.numbers.of_these(&LAYOUT).0);
        let outcomes = enclave.write_back(self.attempts, self.operands, page);
        if outcomes[2].is_done() && !self.numbers.once_in(8) {
            enclave.load_back(self.attempts, self.operands, page);
        }
    }

    /// Breakpoints where the program never is.
    fn debug_registers(&mut self) {
        let (address, control) = (513_u64 << 30, self.numbers.of_these(&[0_u64, 0x401, 0x4ff]));
        // SAFETY: no code or data is there.
        unsafe {
            asm!("mov dr0, {0}", "mov dr3, {0}", "mov dr7, {1}", in(reg) address, in(reg) control);
        }
    }

    /// SGX2.
    fn grow(&mut self) {
        let enclave = self.enclave();
        let page = enclave.page(enclave::DYNAMIC + self.numbers.below(3));
        let info = self.operands.page_info(page, 0, enclave.secs);
        let info = self.operands.without_source(info);
        self.attempts.encls(encls::EAUG, info, page, 0);
        let flags = self.numbers.of_these(&[0x400, 0x100]);
        let secinfo = self.operands.secinfo(flags);
        self.attempts.encls(encls::EMODT, secinfo, page, 0);
    }
}
