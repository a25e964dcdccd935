//! Whether a KVM stops where SGX in software needs it to: tried with a few instructions, since no capability says it.

#![expect(unsafe_code, reason = "gives KVM memory")]

use cloister_boot::EntryState;
use cloister_x86::TableRegister;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    MemoryRegionAddress,
};

use super::debug::{BREAKPOINT_0, DR7_FIXED};
use super::state;
use super::trap::{GATE_KIND, INVALID_OPCODE};
use crate::accel::entry::at_entry;

/// The memory: what boot structures take, and these above.
const SIZE: usize = 1 << 20;
const CODE: u64 = 0x4_0000;
const HANDLER: u64 = 0x5_0000;
const IDT: u64 = 0x6_0000;
/// ENCLS, which is #UD where there is no SGX (SDM Vol. 3D, chapter 38); HLT, which must not run.
const ENCLS: [u8; 4] = [0x0f, 0x01, 0xcf, 0xf4];
const HLT: [u8; 1] = [0xf4];
/// Bytes of a frame without an error code, of which the first is RIP (SDM Vol. 3A, 6.14.2).
const FRAME: u64 = 40;

/// Whether a processor stops at a breakpoint of the first instruction of its #UD handler, before that runs and with the
/// frame pushed. It does not where KVM refuses something on the way.
pub(super) fn stops_at_handlers(kvm: &Kvm) -> bool {
    tried(kvm).unwrap_or(false)
}

fn tried(kvm: &Kvm) -> Option<bool> {
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), SIZE)]).ok()?;
    ram.write_slice(&ENCLS, GuestAddress(CODE)).ok()?;
    ram.write_slice(&HLT, GuestAddress(HANDLER)).ok()?;
    let entry = EntryState::long_mode(&ram, CODE, 0).ok()?;
    let gate =
        GATE_KIND | HANDLER & 0xffff | u64::from(entry.cs.selector) << 16 | (HANDLER >> 16) << 48;
    ram.write_obj([gate, 0], GuestAddress(IDT + 16 * INVALID_OPCODE)).ok()?;
    let mut state = at_entry(&entry);
    state.idtr = TableRegister { base: IDT, limit: 0xfff };

    let vm = kvm.create_vm().ok()?;
    for (slot, region) in (0..).zip(ram.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.get_host_address(MemoryRegionAddress(0)).ok()? as u64,
        };
        // SAFETY: the bytes are mapped as long as `ram` lives, which outlives `vm`.
        unsafe { vm.set_user_memory_region(region) }.ok()?;
    }
    let mut vcpu = vm.create_vcpu(0).ok()?;
    state::set(&vcpu, &state).ok()?;
    let mut debug = kvm_guest_debug {
        control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
        ..Default::default()
    };
    debug.arch.debugreg[0] = HANDLER;
    debug.arch.debugreg[7] = DR7_FIXED | BREAKPOINT_0;
    vcpu.set_guest_debug(&debug).ok()?;
    let stopped = matches!(vcpu.run().ok()?, VcpuExit::Debug(exit) if exit.pc == HANDLER);
    let rsp = vcpu.get_regs().ok()?.rsp;
    let pushed: u64 = ram.read_obj(GuestAddress(rsp)).ok()?;
    Some(stopped && rsp <= entry.rsp - FRAME && pushed == CODE)
}
