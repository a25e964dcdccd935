//! What a processor keeps while it runs: derived from its state, or of one instruction only.

use cloister_x86::Exception;

use crate::crowd::Patience;
use crate::exit::Exit;
use crate::mem::ept::GuestPages;
use crate::mem::tlb::{MmuMode, Tlb};
use crate::mode::Mode;
use crate::native::NativeState;
use crate::state::Shadow;
use crate::vmx::VmExit;
use crate::vmx::apic_access::VirtualWrite;
use crate::vmx::event::Vectoring;

/// Bits of [`RunState::attention`]: reasons to leave the fast path between blocks.
pub(crate) mod attention {
    /// Halted or waiting for a start-up IPI: nothing executes.
    pub(crate) const HALTED: u32 = 1 << 0;
    /// EFLAGS.TF: a single-step trap follows each instruction.
    pub(crate) const TRACE: u32 = 1 << 1;
    /// The shadow of STI, MOV SS or POP SS covers the next instruction.
    pub(crate) const SHADOW: u32 = 1 << 2;
    /// Breakpoints are armed in DR7 that code does not ask for: instructions run alone.
    pub(crate) const BREAKPOINTS: u32 = 1 << 3;
    /// An instruction that accessed a device is under way: run it alone.
    pub(crate) const DEVICE: u32 = 1 << 4;
    /// A debug trap (data breakpoint, TF) is due before the next instruction.
    pub(crate) const DEBUG_TRAP: u32 = 1 << 5;
    /// IF, TPR or the set of pending interrupts changed.
    pub(crate) const INTERRUPTS: u32 = 1 << 6;
    /// The next instruction runs on its own.
    pub(crate) const ALONE: u32 = 1 << 7;
    /// The shadow is that of MOV SS or POP SS, which holds off debug exceptions too.
    pub(crate) const MOV_SS: u32 = 1 << 8;
    /// In VMX non-root operation: an exit is due, or may be before any instruction.
    pub(crate) const GUEST: u32 = 1 << 9;
    /// In VMX non-root operation with the monitor trap flag: an exit follows each instruction.
    pub(crate) const MONITOR_TRAP: u32 = 1 << 10;
    /// A stop for the owner's debugger follows the next instruction.
    pub(crate) const DEBUGGER_STEP: u32 = 1 << 11;
    /// A stop for the owner's debugger is due before the next instruction.
    pub(crate) const DEBUGGER_STOP: u32 = 1 << 12;
    /// The owner's debugger watches data accesses.
    pub(crate) const WATCHPOINTS: u32 = 1 << 13;
    /// What does not follow from the architectural state.
    pub(crate) const DEBUGGER: u32 = DEBUGGER_STEP | DEBUGGER_STOP | WATCHPOINTS;
}

/// What a processor keeps while it runs. Nothing of it has to be saved: it follows from the
/// architectural state ([`Cpu::set_state`](crate::Cpu::set_state) makes it anew), belongs to one
/// instruction or only makes things faster.
#[derive(Debug)]
pub(crate) struct RunState {
    /// [`attention`] bits.
    pub(crate) attention: u32,
    /// What the guest's decoder assumes.
    pub(crate) mode: Mode,
    /// Rights of data accesses now.
    pub(crate) mmu_mode: MmuMode,
    /// What the meaning of code bytes depends on, and the privilege of fetches.
    pub(crate) fetch_key: u64,
    /// Translations.
    pub(crate) tlb: Tlb,
    /// Translations of guest-physical addresses.
    pub(crate) guest_pages: GuestPages,
    /// Physical page of the running block: see [`crate::mem::tlb::Entry::phys`].
    pub(crate) block_phys: u64,
    /// When [`Vcpu::run`](crate::Vcpu::run) is to return at the latest, in nanoseconds of the machine's clock.
    pub(crate) deadline: u64,
    /// What translated code uses.
    pub(crate) native: NativeState,
    /// Whether the running op is the only one of its block.
    pub(crate) alone: bool,
    /// Whether a single-step trap follows the running instruction.
    pub(crate) single_step: bool,
    /// Whether an exit of the monitor trap flag follows the running instruction, if it runs on its own.
    pub(crate) monitor_trap: bool,
    /// What was held off for the running instruction, if it runs on its own.
    pub(crate) shadowed: Shadow,
    /// Whether a string instruction stopped between two iterations.
    pub(crate) between_iterations: bool,
    /// How it has waited for other processors.
    pub(crate) patience: Patience,
    /// The exception that [`Stop::FAULT`] stands for(crate::Stop::FAULT).
    pub(crate) fault: Option<Exception>,
    /// Whether [`RunState::fault`] comes from a non-canonical address.
    pub(crate) non_canonical_fault: bool,
    /// The exit that [`Stop::VM_EXIT`](crate::Stop::VM_EXIT) stands for.
    pub(crate) vm_exit: Option<VmExit>,
    /// In VMX non-root operation: the software event whose delivery by the running instruction stopped.
    pub(crate) vectoring: Vectoring,
    /// The running instruction's write to the virtual-APIC page in place of the APIC-access page.
    pub(crate) virtual_write: Option<VirtualWrite>,
    /// The exit that [`Stop::EXIT`](crate::Stop::EXIT) stands for.
    pub(crate) exit: Option<Exit>,
    /// Values of the device accesses that the instruction under way has made, in order.
    pub(crate) device_log: Vec<u64>,
    /// How many of them its current attempt has consumed.
    pub(crate) device_next: usize,
}

impl RunState {
    /// Sets [`attention`] bits, or clears them.
    pub(crate) fn set_attention(&mut self, bits: u32, on: bool) {
        if on {
            self.attention |= bits;
        } else {
            self.attention &= !bits;
        }
    }
}

impl Default for RunState {
    fn default() -> Self {
        Self {
            attention: 0,
            mode: Mode::legacy(false, false).with_real(true),
            mmu_mode: MmuMode::Supervisor,
            fetch_key: 0,
            tlb: Tlb::default(),
            guest_pages: GuestPages::default(),
            block_phys: u64::MAX,
            deadline: u64::MAX,
            native: NativeState::default(),
            alone: false,
            single_step: false,
            monitor_trap: false,
            shadowed: Shadow::None,
            between_iterations: false,
            patience: Patience::default(),
            fault: None,
            non_canonical_fault: false,
            vm_exit: None,
            vectoring: Vectoring::default(),
            virtual_write: None,
            exit: None,
            device_log: Vec::new(),
            device_next: 0,
        }
    }
}
