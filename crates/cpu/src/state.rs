//! The state of a logical processor, and what the processors of a machine share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cloister_sgx::{Capabilities, Platform, SgxFeatures};
use cloister_x86::Exception;
use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags, Xfeatures};

use crate::crowd::{Crowd, Patience};
use crate::exec::system::apic::{Inbox, LocalApic};
use crate::exec::vector::VectorState;
use crate::exec::x87::Fpu;
use crate::exit::{Exit, Stop};
use crate::flags::Flags;
use crate::mem::Int;
use crate::mem::tlb::{MmuMode, Tlb};
use crate::mode::Mode;
use crate::op::{BLOCK_SLOT, Op};
use crate::phys::{CodeTrack, PhysMap};
use crate::segment::{Segment, TableRegister, seg};

/// What executing an instruction yields.
pub type Exec<T = ()> = Result<T, Stop>;

/// Bits of [`Cpu::attention`]: reasons to leave the fast path between blocks.
pub mod attention {
    /// Halted or waiting for a start-up IPI: nothing executes.
    pub const HALTED: u32 = 1 << 0;
    /// EFLAGS.TF: a single-step trap follows each instruction.
    pub const TRACE: u32 = 1 << 1;
    /// The shadow of STI, MOV SS or POP SS covers the next instruction.
    pub const SHADOW: u32 = 1 << 2;
    /// Breakpoints are armed in DR7.
    pub const BREAKPOINTS: u32 = 1 << 3;
    /// An instruction that accessed a device is under way: run it alone.
    pub const DEVICE: u32 = 1 << 4;
    /// A debug trap (data breakpoint, TF) is due before the next instruction.
    pub const DEBUG_TRAP: u32 = 1 << 5;
    /// IF, TPR or the set of pending interrupts changed.
    pub const INTERRUPTS: u32 = 1 << 6;
    /// The next instruction runs on its own.
    pub const ALONE: u32 = 1 << 7;
    /// The shadow is that of MOV SS or POP SS, which holds off debug exceptions too.
    pub const MOV_SS: u32 = 1 << 8;
}

/// Bits of [`Kicker::events`]: what other threads ask of a processor.
pub mod event {
    /// Return [`Exit::Requested`](crate::Exit::Requested).
    pub const EXIT: u32 = 1 << 0;
    /// Drop all translations.
    pub const FLUSH_TLB: u32 = 1 << 1;
    /// The local APIC's inbox holds interrupts, an NMI, INIT or a start-up IPI.
    pub const APIC: u32 = 1 << 2;
}

/// The part of a processor that other threads reach.
#[derive(Debug, Default)]
pub struct Kicker {
    /// [`event`] bits.
    pub events: AtomicU32,
    /// Interrupts posted to the local APIC.
    pub inbox: Inbox,
    /// Whether the processor is between entry to and return from [`Vcpu::run`](crate::Vcpu::run).
    running: AtomicBool,
    /// Whether its thread sleeps, or is about to.
    sleeping: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Kicker {
    /// Posts an event and wakes the processor if it sleeps.
    pub fn post(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::SeqCst);
        // A sleeper says so before its last look at the events: one of the two sees the other.
        if !self.sleeping.load(Ordering::SeqCst) {
            return;
        }
        // Taking the lock orders the post before or after the sleeper's last look.
        drop(self.sleep.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Makes [`Vcpu::run`](crate::Vcpu::run) return [`Exit::Requested`] soon.
    pub fn request_exit(&self) {
        self.post(event::EXIT);
    }

    /// Makes the processor drop all translations and returns when none made before the call can be
    /// used any more. Not to be called on the processor's own thread while it runs.
    pub fn flush_tlb(&self) {
        self.post(event::FLUSH_TLB);
        while self.running.load(Ordering::SeqCst)
            && self.events.load(Ordering::SeqCst) & event::FLUSH_TLB != 0
        {
            std::thread::yield_now();
        }
    }

    /// Sleeps until an event is posted or `timeout` is over.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let guard = self.sleep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.sleeping.store(true, Ordering::SeqCst);
        if self.events.load(Ordering::SeqCst) == 0 {
            match timeout {
                Some(timeout) => drop(self.wake.wait_timeout(guard, timeout)),
                None => drop(self.wake.wait(guard)),
            }
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }
}

/// What the logical processors of one machine share.
pub struct Shared {
    /// Guest-physical memory.
    pub memory: Arc<dyn PhysMap>,
    /// The SGX platform, where the machine has one.
    pub platform: Option<Arc<Platform>>,
    /// A kicker for each processor, by APIC ID.
    pub kickers: Vec<Arc<Kicker>>,
    /// Frequency of the time stamp counter in Hz.
    pub tsc_hz: u64,
    /// When the time stamp counter was 0.
    started: Instant,
    /// Nanoseconds since then that the machine's clock did not run.
    skipped: AtomicU64,
    /// Whether they have to share the host's cores.
    pub(crate) crowd: Crowd,
    /// Serializes locked operations that the host has no atomic instruction for.
    pub(crate) split_lock: Mutex<()>,
    /// Code tracking of EPC pages, by EPC index.
    pub(crate) epc_track: Box<[CodeTrack]>,
}

impl Shared {
    /// A machine with `cpus` processors whose APIC IDs are 0 to `cpus - 1`.
    #[must_use]
    pub fn new(
        memory: Arc<dyn PhysMap>,
        platform: Option<Arc<Platform>>,
        cpus: usize,
        tsc_hz: u64,
    ) -> Arc<Self> {
        let epc_pages = platform.as_ref().map_or(0, |platform| platform.pages());
        Arc::new(Self {
            memory,
            platform,
            kickers: (0..cpus).map(|_| Arc::new(Kicker::default())).collect(),
            tsc_hz,
            started: Instant::now(),
            skipped: AtomicU64::new(0),
            crowd: Crowd::new(cpus),
            split_lock: Mutex::new(()),
            epc_track: CodeTrack::array(epc_pages),
        })
    }

    /// The machine's clock, in nanoseconds: what its time stamp counters and timers go by.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        let passed = self.started.elapsed().as_nanos() as u64;
        passed.saturating_sub(self.skipped.load(Ordering::Relaxed))
    }

    /// Takes `time` back from the machine's clock: the last so much did not pass for the guest. Called
    /// while no processor runs, and each takes notice before it runs again: its thread is started or
    /// woken by way of a lock.
    pub fn skip(&self, time: Duration) {
        self.skipped.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The time stamp counter, before a processor's own offset.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        (u128::from(self.nanos()) * u128::from(self.tsc_hz) / 1_000_000_000) as u64
    }
}

/// What a processor claims to be able to do, as far as execution depends on it. CPUID, which the
/// machine answers, must agree.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Bits that XCR0 may have; without AVX there, the processor has none of the instructions that
    /// need it.
    pub xcr0: Xfeatures,
    /// Physical-address width in bits, 36 to 52.
    pub physical_bits: u32,
    /// CPUID.80000001H:EDX bit 20: EFER.NXE can be set.
    pub execute_disable: bool,
    /// What CPUID.12H announces; without SGX1 ENCLS and ENCLU are #UD. Part of what the
    /// platform can do.
    pub sgx: Capabilities,
}

impl Default for Features {
    fn default() -> Self {
        let xcr0 = Xfeatures::X87 | Xfeatures::SSE | Xfeatures::AVX;
        Self { xcr0, physical_bits: 46, execute_disable: true, sgx: Capabilities::NONE }
    }
}

impl Features {
    /// Whether the SGX leaves `leaves` are announced.
    pub(crate) const fn has_sgx(&self, leaves: SgxFeatures) -> bool {
        self.sgx.features.contains(leaves)
    }
}

/// The architectural state of a logical processor.
pub struct Cpu {
    /// RAX to R15 in encoding order, then the slots that [`crate::op`] names.
    pub gpr: [u64; 32],
    /// Instruction pointer; stale while a block runs.
    pub rip: u64,
    /// Arithmetic flags.
    pub flags: Flags,
    /// The other flags in RFLAGS positions (never an arithmetic one; bit 1 is implied).
    pub system_flags: Rflags,
    /// [`attention`] bits.
    pub attention: u32,
    /// Rights of data accesses now. See [`Cpu::update_mode`].
    pub mmu_mode: MmuMode,
    /// Translations.
    pub tlb: Tlb,
    /// What the meaning of code bytes depends on, and the privilege of fetches: see
    /// [`Cpu::update_mode`].
    pub(crate) fetch_key: u64,
    /// Physical page of the running block: see [`crate::mem::tlb::Entry::phys`].
    pub(crate) block_phys: u64,
    /// Whether the running op is the only one of its block.
    pub(crate) alone: bool,
    /// How it has waited for other processors.
    pub(crate) patience: Patience,
    /// Whether [`Cpu::fault`] comes from a non-canonical address.
    pub(crate) non_canonical_fault: bool,
    /// The exception behind [`Stop::Fault`].
    pub fault: Option<Exception>,
    /// The exit behind [`Stop::Exit`].
    pub exit: Option<Exit>,
    /// Values of the device accesses that the instruction under way has made, in order.
    pub(crate) device_log: Vec<u64>,
    /// How many of them its current attempt has consumed.
    pub(crate) device_next: usize,

    /// What the guest's decoder assumes.
    pub mode: Mode,
    /// Current privilege level.
    pub cpl: u8,
    /// ES, CS, SS, DS, FS, GS, TR, LDTR: see [`seg`].
    pub segs: [Segment; 8],
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: Xfeatures,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7. [`Cpu::write_dr7`] sets it.
    pub dr7: u64,
    /// DR6 bits of the debug trap that is due ([`attention::DEBUG_TRAP`]).
    pub debug_pending: u64,
    /// Whether a single-step trap follows the running instruction.
    pub(crate) single_step: bool,
    /// Whether a string instruction stopped between two iterations.
    pub(crate) between_iterations: bool,
    /// An NMI was delivered and no IRET came since.
    pub nmi_blocked: bool,
    /// PDPTE registers of PAE paging (SDM Vol. 3A, 4.4.1).
    pub pdptes: [u64; 4],
    /// Model-specific registers that are plain storage.
    pub msrs: crate::exec::system::msr::Msrs,
    /// x87 state.
    pub fpu: Fpu,
    /// XMM/YMM registers and MXCSR.
    pub vector: VectorState,
    /// Local APIC.
    pub apic: LocalApic,
    /// Enclave mode.
    pub enclave: cloister_sgx::EnclaveState,
    /// IA32_FEATURE_CONTROL is locked with SGX enabled: ENCLU runs. The MSR is the owner's.
    pub sgx_enabled: bool,
    /// IA32_SGXLEPUBKEYHASH0-3 as 32 little-endian bytes, the platform's default after reset. The
    /// MSRs are the owner's, which keeps this up to date.
    pub le_pubkey_hash: [u8; 32],
    /// ENCLS-exiting bitmap: leaf n of ENCLS exits where bit n is set (bit 63: leaves 63 and up)
    /// (SDM Vol. 3C, 24.6.16).
    pub encls_exiting: u64,
    /// The VM-execution control "enable ENCLV exiting" with its bitmap, as for ENCLS. While it is
    /// clear (`None`), ENCLV is #UD.
    pub enclv_exiting: Option<u64>,
    /// The VM-execution control "enable EPC virtualization extensions": an SECS with virtual
    /// children counts as one with children, and conflicts of leaves are the owner's affair.
    pub epc_virtualization: bool,
    /// What the processor claims to be.
    pub features: Features,
    /// What it shares with the machine's other processors.
    pub shared: Arc<Shared>,
    /// Its own kicker.
    pub kicker: Arc<Kicker>,
}

impl Cpu {
    /// Records an exception; the caller returns the result as its error.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Stop {
        self.fault = Some(exception);
        Stop::Fault
    }

    /// Records an exit; the caller returns the result as its error.
    #[cold]
    pub fn exit_with(&mut self, exit: Exit) -> Stop {
        self.exit = Some(exit);
        Stop::Exit
    }

    /// #GP(`code`).
    #[cold]
    pub fn gp(&mut self, code: u32) -> Stop {
        self.raise(Exception::gp(code))
    }

    /// #UD.
    #[cold]
    pub fn ud(&mut self) -> Stop {
        self.raise(Exception::ud())
    }

    /// Address of the instruction that runs.
    #[inline(always)]
    #[must_use]
    pub fn op_rip(&self, op: &Op) -> u64 {
        self.truncate_rip(self.gpr[usize::from(BLOCK_SLOT)].wrapping_add(u64::from(op.offset)))
    }

    /// Address of the instruction after the one that runs.
    #[inline(always)]
    #[must_use]
    pub fn next_rip(&self, op: &Op) -> u64 {
        self.truncate_rip(
            self.gpr[usize::from(BLOCK_SLOT)]
                .wrapping_add(u64::from(op.offset) + u64::from(op.len)),
        )
    }

    /// An instruction pointer as CS allows it: EIP outside 64-bit mode.
    #[inline(always)]
    #[must_use]
    pub fn truncate_rip(&self, rip: u64) -> u64 {
        if self.mode.is_64() { rip } else { rip & 0xffff_ffff }
    }

    /// Reads a general-purpose register; `high` selects AH, CH, DH, BH for numbers 4 to 7.
    #[inline(always)]
    #[must_use]
    pub fn reg<T: Int>(&self, number: u8, high: bool) -> T {
        if T::BITS == 8 && high {
            T::trunc(self.gpr[usize::from(number & 3)] >> 8)
        } else {
            T::trunc(self.gpr[usize::from(number & 31)])
        }
    }

    /// Writes a general-purpose register: 32-bit writes clear the upper half, narrower ones leave
    /// the rest (SDM Vol. 1, 3.4.1.1).
    #[inline(always)]
    pub fn set_reg<T: Int>(&mut self, number: u8, high: bool, value: T) {
        let value = value.zext();
        match T::BITS {
            8 if high => {
                let slot = &mut self.gpr[usize::from(number & 3)];
                *slot = (*slot & !0xff00) | value << 8;
            }
            8 => {
                let slot = &mut self.gpr[usize::from(number & 31)];
                *slot = (*slot & !0xff) | value;
            }
            16 => {
                let slot = &mut self.gpr[usize::from(number & 31)];
                *slot = (*slot & !0xffff) | value;
            }
            _ => self.gpr[usize::from(number & 31)] = value,
        }
    }

    /// Reads operand 0, a register.
    #[inline(always)]
    #[must_use]
    pub fn dst<T: Int>(&self, op: &Op) -> T {
        self.reg(op.dst, op.high & 1 != 0)
    }

    /// Reads operand 1, a register.
    #[inline(always)]
    #[must_use]
    pub fn src<T: Int>(&self, op: &Op) -> T {
        self.reg(op.src, op.high & 2 != 0)
    }

    /// Writes operand 0, a register.
    #[inline(always)]
    pub fn set_dst<T: Int>(&mut self, op: &Op, value: T) {
        self.set_reg(op.dst, op.high & 1 != 0, value);
    }

    /// Writes operand 1, a register.
    #[inline(always)]
    pub fn set_src<T: Int>(&mut self, op: &Op, value: T) {
        self.set_reg(op.src, op.high & 2 != 0, value);
    }

    /// All of RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.flags.bits() | self.system_flags.bits() | 2
    }

    /// Sets all of RFLAGS, without any privilege check, and what follows from it.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags.set_bits(value);
        self.system_flags = Rflags::from_bits_truncate(value & !Flags::MASK);
        if self.system_flags.contains(Rflags::TF) {
            self.attention |= attention::TRACE;
        } else {
            self.attention &= !attention::TRACE;
        }
        if self.system_flags.contains(Rflags::IF) {
            self.attention |= attention::INTERRUPTS;
        }
        self.update_mode();
    }

    /// I/O privilege level.
    #[must_use]
    pub fn iopl(&self) -> u8 {
        (self.system_flags.bits() >> 12 & 3) as u8
    }

    /// Whether IA-32e mode is active.
    #[inline(always)]
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.efer.contains(Efer::LMA)
    }

    /// Recomputes what is derived from CR0, EFER, CS, SS, CPL, EFLAGS.AC and VM, and enclave mode: the
    /// decoding mode and the rights of data accesses. To be called after each change of these.
    pub fn update_mode(&mut self) {
        let cs = self.segs[seg::CS].rights;
        let mode = if self.long_mode() && cs.long() {
            Mode::code64()
        } else {
            Mode::legacy(cs.big(), self.segs[seg::SS].rights.big())
        };
        let inside = self.enclave.in_enclave();
        let real = !self.cr0.contains(Cr0::PE) || self.system_flags.contains(Rflags::VM);
        self.mode = mode.with_enclave(inside).with_real(real);
        self.mmu_mode = match self.cpl {
            3 if inside => MmuMode::Enclave,
            3 => MmuMode::User,
            _ if self.system_flags.contains(Rflags::AC) => MmuMode::SupervisorAc,
            _ => MmuMode::Supervisor,
        };
        self.fetch_key = u64::from(self.mode.bits()) | u64::from(self.cpl == 3) << 7;
        let aligned =
            self.cpl == 3 && self.cr0.contains(Cr0::AM) && self.system_flags.contains(Rflags::AC);
        // Data breakpoints: any enabled DR7 condition with R/W other than 00 (execute).
        let watching = self.dr7 & 0xff != 0
            && (0..4).any(|n| self.dr7 >> (2 * n) & 3 != 0 && self.dr7 >> (16 + 4 * n) & 3 != 0);
        self.tlb.set_slow_only(aligned || watching);
    }
}
