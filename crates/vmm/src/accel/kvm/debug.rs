//! A debugger's breakpoints, steps and watchpoints under KVM: the processor's debug registers, which the guest
//! does not see as long as they are taken (KVM_SET_GUEST_DEBUG).

use cloister_cpu::{DebugPoints, DebugStop};
use cloister_x86::PAGE_SIZE;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_DB, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use crate::accel::VcpuError;

/// Debug registers with addresses.
pub(super) const SLOTS: usize = 4;
/// The register of the accelerator's own breakpoint.
const OWN: usize = SLOTS - 1;
/// DR6: B0 to B3, BD, BS and BT, which say what an exception is for; BS and BT.
const DR6_CAUSES: u64 = 0xe00f;
const DR6_NO_POINTS: u64 = 0xc000;
/// DR6.BD: an access to debug registers.
const DR6_BD: u64 = 1 << 13;
/// DR7.GD: such an access stops.
const DR7_GD: u64 = 1 << 13;
/// DR6.BS: a single step (SDM Vol. 3B, 17.2.3).
const DR6_BS: u64 = 1 << 14;
/// DR7: bits 10 reads as one; exact breakpoints.
pub(super) const DR7_FIXED: u64 = 1 << 10 | 1 << 9;
/// DR7.L0: the breakpoint of DR0, for execution with the other fields 0.
pub(super) const BREAKPOINT_0: u64 = 1;
/// R/W fields of DR7 (SDM Vol. 3B, 17.2.4).
const EXECUTE: u64 = 0;
const WRITES: u64 = 1;
const ACCESSES: u64 = 3;

/// What one debug register is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Breakpoint(u64),
    /// A part of a watchpoint that begins at `la`: `len` bytes at `at`, 1, 2, 4 or 8 and aligned.
    Watch {
        la: u64,
        at: u64,
        len: u64,
        writes_only: bool,
    },
}

/// What a processor knows of its debugger.
#[derive(Default)]
pub(super) struct Debug {
    slots: Vec<Slot>,
    /// There is a debugger.
    attached: bool,
    /// One instruction is to run.
    stepping: bool,
    /// A breakpoint of the accelerator's own, in the last of the debug registers.
    own: Option<u64>,
    /// The guest's, which have the others then, unless a debugger has them.
    guest: GuestPoints,
}

/// A guest's own breakpoints.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct GuestPoints {
    /// DR0 to DR3.
    pub(super) addresses: [u64; SLOTS],
    /// DR7.
    pub(super) control: u64,
}

impl GuestPoints {
    /// The guest's breakpoints that are enabled, by the register that each is in: the first three.
    fn placed(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let control = self.control;
        (0..OWN).zip((0..SLOTS).filter(move |n| control >> (2 * n) & 3 != 0))
    }
}

impl Debug {
    /// Sets where the processor stops.
    ///
    /// # Errors
    ///
    /// [`VcpuError::DebugPoints`] when they are more than the debug registers: then all stays as it was.
    pub(super) fn set_points(
        &mut self,
        vcpu: &VcpuFd,
        points: Option<&DebugPoints>,
    ) -> Result<(), VcpuError> {
        let slots = points.map(slots).unwrap_or_default();
        if slots.len() > SLOTS - usize::from(self.own.is_some()) {
            return Err(VcpuError::DebugPoints);
        }
        (self.slots, self.attached) = (slots, points.is_some());
        self.apply(vcpu)
    }

    /// Sets the accelerator's own breakpoint. A debugger that has all registers loses its last.
    pub(super) fn set_own(&mut self, vcpu: &VcpuFd, la: u64) -> Result<(), VcpuError> {
        self.own = Some(la);
        self.slots.truncate(OWN);
        self.apply(vcpu)
    }

    /// Whether a stop at `pc` is at the accelerator's own breakpoint.
    pub(super) fn is_own(&self, pc: u64, dr6: u64) -> bool {
        self.own == Some(pc) && dr6 >> OWN & 1 != 0
    }

    /// Whether an exception of debugging is the debugger's, and not the guest's.
    pub(super) const fn is_attached(&self) -> bool {
        self.attached || self.stepping
    }

    /// Whether the processor stopped before an instruction that reads or writes debug registers of the guest's,
    /// which are not what it has.
    pub(super) const fn is_access(&self, dr6: u64) -> bool {
        self.own.is_some() && !self.is_attached() && dr6 & DR6_BD != 0
    }

    /// Puts the guest's breakpoints where they take effect.
    pub(super) fn set_guest(
        &mut self,
        vcpu: &VcpuFd,
        points: GuestPoints,
    ) -> Result<(), VcpuError> {
        if self.guest == points {
            return Ok(());
        }
        self.guest = points;
        self.apply(vcpu)
    }

    /// Hands the guest a debug exception of its own, as it would have come without the accelerator's breakpoint.
    pub(super) fn give_to_guest(&self, vcpu: &VcpuFd, dr6: u64) -> Result<(), VcpuError> {
        let failed = |what| move |error| VcpuError::kvm(what, error);
        let mut registers = vcpu.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?;
        let hits = self.guest.placed().filter(|(at, _)| dr6 >> at & 1 != 0);
        let hits = hits.fold(0, |hits, (_, n)| hits | 1 << n);
        registers.dr6 = registers.dr6 & !DR6_CAUSES | dr6 & DR6_NO_POINTS | hits;
        vcpu.set_debug_regs(&registers).map_err(failed("KVM_SET_DEBUGREGS"))?;
        let mut debug = self.registers(None);
        debug.control |= KVM_GUESTDBG_INJECT_DB;
        vcpu.set_guest_debug(&debug).map_err(failed("KVM_SET_GUEST_DEBUG"))
    }

    /// Has the processor stop after one instruction, also where there is a breakpoint.
    pub(super) fn step(&mut self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        self.stepping = true;
        self.apply(vcpu)
    }

    /// Takes a step back that was not made.
    pub(super) fn pause(&mut self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        if !std::mem::take(&mut self.stepping) {
            return Ok(());
        }
        self.apply(vcpu)
    }

    /// Why the processor stopped at linear address `pc`.
    pub(super) fn stopped(
        &mut self,
        vcpu: &VcpuFd,
        pc: u64,
        dr6: u64,
    ) -> Result<DebugStop, VcpuError> {
        let hit = (0..).zip(&self.slots).find(|(n, _)| dr6 >> n & 1 != 0).map(|(_, &slot)| slot);
        let stop = match hit {
            Some(Slot::Watch { la, .. }) => DebugStop::Watchpoint { la },
            Some(Slot::Breakpoint(la)) if dr6 & DR6_BS == 0 => DebugStop::Breakpoint { la },
            _ if self.stepping => DebugStop::Step,
            _ => DebugStop::Breakpoint { la: pc },
        };
        self.pause(vcpu)?;
        Ok(stop)
    }

    fn apply(&self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        let failed = |what| move |error| VcpuError::kvm(what, error);
        let mut here = None;
        if self.stepping {
            let regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
            let sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
            here = Some(sregs.cs.base.wrapping_add(regs.rip));
        }
        vcpu.set_guest_debug(&self.registers(here)).map_err(failed("KVM_SET_GUEST_DEBUG"))
    }

    /// What KVM is told. A step begins at linear address `here`.
    fn registers(&self, here: Option<u64>) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug::default();
        if self.is_attached() || self.own.is_some() {
            debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        }
        if self.stepping {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        debug.arch.debugreg[7] = DR7_FIXED;
        if self.own.is_some() && !self.is_attached() {
            debug.arch.debugreg[7] |= DR7_GD;
            for (at, n) in self.guest.placed() {
                let condition = self.guest.control >> (16 + 4 * n) & 0xf;
                debug.arch.debugreg[at] = self.guest.addresses[n];
                debug.arch.debugreg[7] |= 1 << (2 * at) | condition << (16 + 4 * at);
            }
        }
        let own = self.own.map(|la| (OWN, Slot::Breakpoint(la)));
        for (n, slot) in self.slots.iter().copied().enumerate().chain(own) {
            // A step begins wherever the processor is.
            if matches!(slot, Slot::Breakpoint(la) if Some(la) == here) {
                continue;
            }
            let (address, condition) = condition(slot);
            debug.arch.debugreg[n] = address;
            debug.arch.debugreg[7] |= 1 << (2 * n) | condition << (16 + 4 * n);
        }
        debug
    }

    /// Reads RAM at linear address `la`, up to the first byte that is not RAM.
    pub(super) fn read(vcpu: &VcpuFd, ram: &GuestMemoryMmap, la: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        for (at, len) in pages(la, data.len()) {
            let Some(gpa) = translate(vcpu, at) else { break };
            if ram.read_slice(&mut data[done..done + len], gpa).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Writes RAM at linear address `la`: all of it or nothing.
    pub(super) fn write(vcpu: &VcpuFd, ram: &GuestMemoryMmap, la: u64, data: &[u8]) -> bool {
        let parts: Vec<_> = pages(la, data.len()).collect();
        let parts: Option<Vec<_>> = parts
            .into_iter()
            .map(|(at, len)| {
                translate(vcpu, at).filter(|&gpa| ram.check_range(gpa, len)).map(|gpa| (gpa, len))
            })
            .collect();
        let Some(parts) = parts else { return false };
        let mut done = 0;
        parts.into_iter().all(|(gpa, len)| {
            done += len;
            ram.write_slice(&data[done - len..done], gpa).is_ok()
        })
    }
}

/// The parts of `len` bytes at `la` that are in one page each.
fn pages(la: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let (mut at, mut left) = (la, len);
    std::iter::from_fn(move || {
        let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(usize::MAX);
        let part = (at, left.min(in_page));
        at = at.wrapping_add(part.1 as u64);
        left -= part.1;
        (part.1 != 0).then_some(part)
    })
}

fn translate(vcpu: &VcpuFd, la: u64) -> Option<GuestAddress> {
    let translation = vcpu.translate_gva(la).ok()?;
    (translation.valid != 0).then_some(GuestAddress(translation.physical_address))
}

/// Debug registers for these points, perhaps more than there are.
fn slots(points: &DebugPoints) -> Vec<Slot> {
    let mut slots: Vec<_> = points.breakpoints.iter().map(|&la| Slot::Breakpoint(la)).collect();
    for point in &points.watchpoints {
        let (mut at, mut left) = (point.la, point.len);
        // One beyond what there is says enough.
        while left != 0 && slots.len() <= SLOTS {
            let aligned = |len: &u64| at.is_multiple_of(*len) && left >= *len;
            let len = [8, 4, 2].into_iter().find(aligned).unwrap_or(1);
            slots.push(Slot::Watch { la: point.la, at, len, writes_only: point.writes_only });
            (at, left) = (at.wrapping_add(len), left - len);
        }
    }
    slots
}

/// The address of a debug register, and its R/W and LEN fields in DR7.
const fn condition(slot: Slot) -> (u64, u64) {
    match slot {
        Slot::Breakpoint(la) => (la, EXECUTE),
        Slot::Watch { at, len, writes_only, .. } => {
            let length = match len {
                1 => 0,
                2 => 1,
                4 => 3,
                _ => 2,
            };
            (at, length << 2 | if writes_only { WRITES } else { ACCESSES })
        }
    }
}

#[cfg(test)]
mod tests {
    use cloister_cpu::Watchpoint;

    use super::*;

    #[test]
    fn a_watchpoint_takes_as_many_registers_as_its_alignment_asks_for() {
        for (la, len, expected) in [
            (0x1000, 8, &[(0x1000_u64, 8_u64)] as &[(u64, u64)]),
            (0x1004, 4, &[(0x1004, 4)]),
            (0x1001, 3, &[(0x1001, 1), (0x1002, 2)]),
            (0x1006, 12, &[(0x1006, 2), (0x1008, 8), (0x1010, 2)]),
        ] {
            let point = Watchpoint { la, len, writes_only: true };
            let points = DebugPoints { watchpoints: [point].into(), ..Default::default() };

            let parts: Vec<_> = slots(&points)
                .into_iter()
                .map(|slot| match slot {
                    Slot::Watch { at, len, .. } => (at, len),
                    Slot::Breakpoint(la) => (la, 0),
                })
                .collect();

            assert_eq!(parts, expected, "{la:#x} {len}");
        }
        let huge = Watchpoint { la: 0, len: u64::MAX, writes_only: false };
        let points = DebugPoints { watchpoints: [huge].into(), ..Default::default() };
        assert_eq!(slots(&points).len(), SLOTS + 1);
    }

    #[test]
    fn conditions_are_the_fields_of_dr7() {
        let watch = |len, writes_only| Slot::Watch { la: 0, at: 8, len, writes_only };

        assert_eq!(condition(Slot::Breakpoint(5)), (5, 0));
        assert_eq!(condition(watch(1, true)), (8, 0b0001));
        assert_eq!(condition(watch(4, false)), (8, 0b1111));
        assert_eq!(condition(watch(8, true)), (8, 0b1001));
    }

    #[test]
    fn ranges_are_cut_at_pages() {
        let parts: Vec<_> = pages(0xffe, 0x1004).collect();

        assert_eq!(parts, [(0xffe, 2), (0x1000, 0x1000), (0x2000, 2)]);
        assert_eq!(pages(0x1000, 0).count(), 0);
    }

    #[test]
    fn the_guests_breakpoints_have_the_registers_that_the_accelerators_leaves() {
        // DR0 off, DR1 locally for writes of 4 bytes, DR2 off, DR3 globally for execution.
        let guest = GuestPoints {
            addresses: [1, 0x1000, 3, 0x3000],
            control: 1 << 2 | 0b1101 << 20 | 2 << 6,
        };
        let debug = Debug { own: Some(0x9000), guest, ..Debug::default() };

        let registers = debug.registers(None).arch.debugreg;

        assert_eq!((registers[0], registers[1], registers[3]), (0x1000, 0x3000, 0x9000));
        let enabled = 1 | 1 << 2 | 1 << 6;
        assert_eq!(registers[7], DR7_FIXED | DR7_GD | enabled | 0b1101 << 16);
        // Under a debugger they wait.
        let debug = Debug { attached: true, ..debug };
        assert_eq!(debug.registers(None).arch.debugreg[7], DR7_FIXED | 1 << 6);
    }
}
