//! A logical processor: its state, what its owner decides, and what it needs while it runs.

use std::fmt;
use std::sync::Arc;

use cloister_sgx::EnclaveState;
use cloister_x86::Exception;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::seg;

use crate::apic::LocalApic;
use crate::controls::{Controls, Features};
use crate::debugger::Debugger;
use crate::excursion::{self, Excursion};
use crate::exit::{Exit, Stop};
use crate::kicker::Kicker;
use crate::mem::Int;
use crate::mem::tlb::MmuMode;
use crate::mode::Mode;
use crate::package::Package;
use crate::run_state::{RunState, attention};
use crate::state::{Activity, ArchState, Shadow};
use crate::vmx::window;

/// A logical processor.
pub struct Cpu {
    /// What software can observe of it.
    pub(crate) arch: ArchState,
    /// What it keeps while it runs.
    pub(crate) run: RunState,
    /// Local APIC.
    pub(crate) apic: LocalApic,
    /// Enclave mode. Not part of [`ArchState`]: the EPC counts the processors that are inside, so
    /// that it cannot be copied.
    pub(crate) enclave: EnclaveState,
    pub(crate) excursion: Excursion,
    /// What the owner decides.
    pub ctl: Controls,
    /// What it shares with the machine's other processors.
    pub(crate) package: Arc<Package>,
    /// Its own kicker.
    pub(crate) kicker: Arc<Kicker>,
    /// The owner's debugger.
    pub(crate) debugger: Debugger,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("state", &self.arch).finish_non_exhaustive()
    }
}

impl Cpu {
    /// The processor with APIC ID `id` after power-up. Processor 0 runs from the reset vector;
    /// others wait for a start-up IPI.
    ///
    /// # Panics
    ///
    /// If `id` is not a processor of the machine.
    #[must_use]
    pub(crate) fn new(package: Arc<Package>, id: u32, features: Features) -> Self {
        let platform = package.platform.as_ref();
        let le_pubkey_hash = platform.map_or([0; 32], |platform| *platform.default_le_hash());
        let mut cpu = Self {
            arch: ArchState::at_reset(id == 0),
            run: RunState::default(),
            apic: LocalApic::new(id),
            enclave: EnclaveState::default(),
            excursion: Excursion::default(),
            ctl: Controls::new(features, le_pubkey_hash),
            kicker: package.kickers[id as usize].clone(),
            package,
            debugger: Debugger::default(),
        };
        cpu.publish_apic();
        cpu.update_mode();
        cpu.update_attention();
        cpu
    }

    /// Its architectural state. RIP is that of the next instruction: not to be asked during a
    /// block.
    #[must_use]
    pub const fn state(&self) -> &ArchState {
        &self.arch
    }

    /// Replaces its architectural state, without any check, and drops all translations.
    pub fn set_state(&mut self, state: ArchState) {
        self.arch = state;
        self.run.device_log.clear();
        self.run.device_next = 0;
        self.derive();
    }

    /// Makes anew what follows from the architectural state, and drops all translations.
    pub(crate) fn derive(&mut self) {
        self.run.tlb.flush_worlds();
        self.run.guest_pages.drop_all();
        self.run.tlb.switch_to_flushed(self.paging().pcid());
        self.update_derived();
    }

    /// Makes anew what follows from the architectural state, but for translations.
    pub(crate) fn update_derived(&mut self) {
        self.update_mode();
        self.update_attention();
    }

    /// Whether its local APIC is enabled in IA32_APIC_BASE, which CPUID.1:EDX.APIC follows.
    #[must_use]
    pub fn apic_enabled(&self) -> bool {
        self.apic.enabled()
    }

    /// The exception that [`Stop::FAULT`] stands for, once.
    pub const fn take_fault(&mut self) -> Option<Exception> {
        self.run.fault.take()
    }

    /// The exit that [`Stop::EXIT`] stands for, once.
    pub const fn take_exit(&mut self) -> Option<Exit> {
        self.run.exit.take()
    }

    /// What it shares with the machine's other processors.
    #[must_use]
    pub const fn package(&self) -> &Arc<Package> {
        &self.package
    }

    /// Records an exception; the caller returns the result as its error.
    #[cold]
    pub(crate) fn raise(&mut self, exception: Exception) -> Stop {
        self.run.fault = Some(exception);
        Stop::FAULT
    }

    /// Records an exit; the caller returns the result as its error.
    #[cold]
    pub(crate) fn exit_with(&mut self, exit: Exit) -> Stop {
        self.run.exit = Some(exit);
        Stop::EXIT
    }

    /// #GP(`code`).
    #[cold]
    pub(crate) fn gp(&mut self, code: u32) -> Stop {
        self.raise(Exception::gp(code))
    }

    /// #UD.
    #[cold]
    pub(crate) fn ud(&mut self) -> Stop {
        self.raise(Exception::ud())
    }

    /// An instruction pointer as CS allows it: EIP outside 64-bit mode.
    #[inline(always)]
    #[must_use]
    pub(crate) fn truncate_rip(&self, rip: u64) -> u64 {
        if self.run.mode.is_64() { rip } else { rip & 0xffff_ffff }
    }

    /// Reads a general-purpose register; `high` selects AH, CH, DH, BH for numbers 4 to 7.
    #[inline(always)]
    #[must_use]
    pub(crate) fn reg<T: Int>(&self, number: u8, high: bool) -> T {
        if T::BITS == 8 && high {
            T::trunc(self.arch.gpr[usize::from(number & 3)] >> 8)
        } else {
            T::trunc(self.arch.gpr[usize::from(number & 31)])
        }
    }

    /// Writes a general-purpose register: 32-bit writes clear the upper half, narrower ones leave
    /// the rest (SDM Vol. 1, 3.4.1.1).
    #[inline(always)]
    pub(crate) fn set_reg<T: Int>(&mut self, number: u8, high: bool, value: T) {
        let value = value.zext();
        match T::BITS {
            8 if high => {
                let slot = &mut self.arch.gpr[usize::from(number & 3)];
                *slot = (*slot & !0xff00) | value << 8;
            }
            8 => {
                let slot = &mut self.arch.gpr[usize::from(number & 31)];
                *slot = (*slot & !0xff) | value;
            }
            16 => {
                let slot = &mut self.arch.gpr[usize::from(number & 31)];
                *slot = (*slot & !0xffff) | value;
            }
            _ => self.arch.gpr[usize::from(number & 31)] = value,
        }
    }

    /// All of RFLAGS.
    #[must_use]
    pub(crate) fn rflags(&self) -> u64 {
        self.arch.rflags()
    }

    /// Sets all of RFLAGS, without any privilege check, and what follows from it.
    pub(crate) fn set_rflags(&mut self, value: u64) {
        let was_enabled = self.arch.system_flags.contains(Rflags::IF);
        self.arch.set_rflags(value);
        self.run.set_attention(attention::TRACE, self.arch.system_flags.contains(Rflags::TF));
        if self.arch.system_flags.contains(Rflags::IF) && !was_enabled {
            self.run.attention |= attention::INTERRUPTS;
        }
        self.update_mode();
    }

    /// Whether IA-32e mode is active.
    #[inline(always)]
    #[must_use]
    pub(crate) fn long_mode(&self) -> bool {
        self.arch.long_mode()
    }

    /// Sets what is held off for the next instruction.
    pub(crate) fn set_shadow(&mut self, shadow: Shadow) {
        self.arch.shadow = shadow;
        self.run.set_attention(attention::SHADOW, shadow != Shadow::None);
        self.run.set_attention(attention::MOV_SS, shadow == Shadow::MovSs);
    }

    /// Starts or stops execution.
    pub(crate) fn set_activity(&mut self, activity: Activity) {
        self.arch.activity = activity;
        self.run.set_attention(attention::HALTED, activity != Activity::Active);
    }

    /// Recomputes what is derived from CR0, EFER, CS, SS, CPL, DR7, EFLAGS.AC and VM, enclave mode, and
    /// watchpoints: the decoding mode and the rights of data accesses. To be called after each change of
    /// these.
    pub(crate) fn update_mode(&mut self) {
        let arch = &self.arch;
        let cs = arch.segs[seg::CS].rights;
        let mode = if arch.long_mode() && cs.long() {
            Mode::code64()
        } else {
            Mode::legacy(cs.big(), arch.segs[seg::SS].rights.big())
        };
        excursion::note_mode(self);
        let arch = &self.arch;
        let inside = self.enclave.in_enclave();
        let real = !arch.cr0.contains(Cr0::PE) || arch.system_flags.contains(Rflags::VM);
        self.run.mode = mode.with_enclave(inside).with_real(real);
        self.run.mmu_mode = match arch.cpl {
            3 if inside => MmuMode::Enclave,
            3 => MmuMode::User,
            _ if arch.system_flags.contains(Rflags::AC) => MmuMode::SupervisorAc,
            _ => MmuMode::Supervisor,
        };
        self.run.fetch_key = u64::from(self.run.mode.bits()) | u64::from(arch.cpl == 3) << 7;
        // Data breakpoints: any enabled DR7 condition with R/W other than 00 (execute).
        let dr7 = arch.dr7;
        let watching = dr7 & 0xff != 0
            && (0..4).any(|n| dr7 >> (2 * n) & 3 != 0 && dr7 >> (16 + 4 * n) & 3 != 0);
        let watching = watching || self.debugger.watches();
        self.run.tlb.set_slow_only(self.alignment_checked() || watching);
        self.run.native.point_at(&self.run.tlb, self.run.mmu_mode);
    }

    /// Recomputes [`RunState::attention`] from the architectural state.
    fn update_attention(&mut self) {
        let (arch, run) = (&self.arch, &mut self.run);
        run.attention = attention::INTERRUPTS | run.attention & attention::DEBUGGER;
        run.set_attention(attention::TRACE, arch.system_flags.contains(Rflags::TF));
        run.set_attention(attention::DEBUG_TRAP, arch.debug_pending != 0);
        self.arm_breakpoints();
        self.set_shadow(self.arch.shadow);
        self.set_activity(self.arch.activity);
        window::update_attention(self);
    }
}
