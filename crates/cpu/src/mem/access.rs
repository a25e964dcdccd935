//! Loads, stores and read-modify-writes of instructions.
#![expect(unsafe_code, reason = "TLB entries hold pointers to guest memory")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::PoisonError;

use cloister_x86::Gpa;

use super::tlb::{AccessKind, MmuMode};
use super::translate::Target;
use super::{Int, PageBytes, Plain, host};
use crate::cpu::Cpu;
use crate::exit::{Exec, Exit, Stop};
use crate::phys::Tracker;
use crate::run_state::attention;

/// A checked operand of a read-modify-write: made by [`Cpu::open`], used up by [`Cpu::close`] of
/// the same instruction.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place<T> {
    la: u64,
    /// Where a value of the type is in memory, in one page.
    memory: Option<PageBytes>,
    value: PhantomData<T>,
}

impl<T: Plain> Place<T> {
    const fn new(la: u64, memory: Option<PageBytes>) -> Self {
        Self { la, memory, value: PhantomData }
    }
}

impl Cpu {
    /// Where `T::SIZE` bytes at `la` can be read with the current rights, if the TLB says so.
    #[inline(always)]
    fn readable<T: Plain>(&self, la: u64) -> Option<*const u8> {
        let entry = self.run.tlb.entry(AccessKind::Read, self.run.mmu_mode, la);
        (self.run.tlb.hits(entry, la) && la & 0xfff <= 4096 - T::SIZE as u64)
            .then(|| entry.addend.wrapping_add(la) as *const u8)
    }

    /// Where `T::SIZE` bytes at `la`, which are not code, can be written with the current rights,
    /// if the TLB says so.
    #[inline(always)]
    fn writable<T: Plain>(&self, la: u64) -> Option<(*mut u8, Tracker)> {
        let entry = self.run.tlb.entry(AccessKind::Write, self.run.mmu_mode, la);
        if self.run.tlb.hits(entry, la) && la & 0xfff <= 4096 - T::SIZE as u64 {
            let holds_code = entry.track.is_code((la & 0xfff) as usize, T::SIZE);
            return (!holds_code).then(|| (entry.addend.wrapping_add(la) as *mut u8, entry.track));
        }
        None
    }

    /// Reads `T::SIZE` bytes at linear address `la` with the current rights.
    ///
    /// # Errors
    ///
    /// As [`Cpu::translate`], #AC, or a device access.
    #[inline(always)]
    pub(crate) fn load<T: Plain>(&mut self, la: u64) -> Exec<T> {
        match self.quick_load(la) {
            Some(value) => Ok(value),
            None => self.load_slow(la),
        }
    }

    /// [`Cpu::load`] where the TLB knows the page; `None` where more has to be done.
    #[inline(always)]
    pub(crate) fn quick_load<T: Plain>(&self, la: u64) -> Option<T> {
        // SAFETY: `readable` keeps to the page, which is `PageBytes` that the TLB was filled with.
        self.readable::<T>(la).map(|at| unsafe { host::load(at) })
    }

    /// Writes `T::SIZE` bytes at linear address `la` with the current rights.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load`], and [`Stop::ALONE`]; nothing is written then.
    #[inline(always)]
    pub(crate) fn store<T: Plain>(&mut self, la: u64, value: T) -> Exec {
        if self.quick_store(la, value) {
            return Ok(());
        }
        self.store_slow(la, value)
    }

    /// [`Cpu::store`] where the TLB knows the page; `false` where more has to be done.
    #[inline(always)]
    pub(crate) fn quick_store<T: Plain>(&mut self, la: u64, value: T) -> bool {
        let Some((at, track)) = self.writable::<T>(la) else { return false };
        // SAFETY: `writable` keeps to the page, which is `PageBytes` that the TLB was filled with.
        unsafe { host::store(at, value) };
        track.stored((la & 0xfff) as usize, T::SIZE);
        true
    }

    /// Opens an operand for a read-modify-write: its value and where to put the new one.
    ///
    /// # Errors
    ///
    /// As [`Cpu::store`]: the operand must be writable.
    #[inline(always)]
    pub(crate) fn open<T: Plain>(&mut self, la: u64) -> Exec<(T, Place<T>)> {
        if let Some((at, track)) = self.writable::<T>(la) {
            // SAFETY: `writable` keeps to the page, which is `PageBytes` that the TLB was filled
            // with.
            let value = unsafe { host::load(at) };
            // SAFETY: these are part of the `PageBytes` that the TLB was filled with.
            let memory = NonNull::new(at).map(|at| unsafe { PageBytes::new(at, track) });
            return Ok((value, Place::new(la, memory)));
        }
        self.open_slow(la)
    }

    /// Replaces the bytes at `la` by `f` of them where the TLB knows the page, and returns the old
    /// value; `None` where more has to be done.
    #[inline(always)]
    pub(crate) fn quick_modify<T: Plain>(&mut self, la: u64, f: impl FnOnce(T) -> T) -> Option<T> {
        let (at, track) = self.writable::<T>(la)?;
        // SAFETY: `writable` keeps to the page, which is `PageBytes` that the TLB was filled with.
        let value = unsafe {
            let value = host::load(at);
            host::store(at, f(value));
            value
        };
        track.stored((la & 0xfff) as usize, T::SIZE);
        Some(value)
    }

    /// Writes the new value of an opened operand, in the same instruction.
    ///
    /// # Errors
    ///
    /// A device access.
    #[inline(always)]
    pub(crate) fn close<T: Plain>(&mut self, place: Place<T>, value: T) -> Exec {
        if let Some(bytes) = place.memory {
            // SAFETY: `open` checked that a value of the type stays in the page, which whoever made
            // the `PageBytes` vouches for.
            unsafe { host::store(bytes.host().as_ptr(), value) };
            bytes.track().stored((place.la & 0xfff) as usize, T::SIZE);
            return Ok(());
        }
        self.store_slow(place.la, value)
    }

    /// Replaces an operand by `f` of it in one atomic step and returns the old value. `f` may be
    /// called more than once.
    ///
    /// # Errors
    ///
    /// As [`Cpu::open`].
    pub(crate) fn locked<T: Int>(&mut self, la: u64, mut f: impl FnMut(T) -> T) -> Exec<T> {
        let (_, place) = self.open::<T>(la)?;
        if let Some(bytes) = place.memory
            && let Some(old) = bytes.update(&mut f)
        {
            return Ok(old);
        }
        // A split lock: exclusive among split locks, as on hardware with a bus lock.
        let shared = self.package.clone();
        let _guard = shared.split_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, place) = self.open::<T>(la)?;
        self.close(place, f(old))?;
        Ok(old)
    }

    /// CMPXCHG16B's memory access: if the 16 bytes at `la` equal `expected` they become `new`,
    /// else they are written back; returns what they were.
    ///
    /// # Errors
    ///
    /// As [`Cpu::open`]. The caller has checked the alignment.
    pub(crate) fn compare_exchange_16(&mut self, la: u64, expected: u128, new: u128) -> Exec<u128> {
        let (_, place) = self.open::<u128>(la)?;
        if let Some(bytes) = place.memory
            && let Some(old) = bytes.compare_exchange_16(expected, new)
        {
            return Ok(old);
        }
        let shared = self.package.clone();
        let _guard = shared.split_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, place) = self.open::<u128>(la)?;
        self.close(place, if old == expected { new } else { old })?;
        Ok(old)
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Plain>(&mut self, la: u64) -> Exec<T> {
        let mut bytes = [0u8; 32];
        self.read_bytes(la, &mut bytes[..T::SIZE], self.run.mmu_mode)?;
        Ok(T::from_bytes(&bytes[..T::SIZE]))
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Plain>(&mut self, la: u64, value: T) -> Exec {
        let mut bytes = [0u8; 32];
        value.put_bytes(&mut bytes[..T::SIZE]);
        self.write_bytes(la, &bytes[..T::SIZE], self.run.mmu_mode)
    }

    #[cold]
    #[inline(never)]
    fn open_slow<T: Plain>(&mut self, la: u64) -> Exec<(T, Place<T>)> {
        self.check_access(la, T::SIZE, AccessKind::Write, self.run.mmu_mode)?;
        let memory = match self.writable_target(la, T::SIZE, self.run.mmu_mode)? {
            [Some(Target::Memory { bytes, .. }), None] => Some(bytes),
            _ => None,
        };
        if let Some(bytes) = memory {
            return Ok((bytes.load(), Place::new(la, memory)));
        }
        let mut bytes = [0u8; 32];
        self.read_bytes(la, &mut bytes[..T::SIZE], self.run.mmu_mode)?;
        Ok((T::from_bytes(&bytes[..T::SIZE]), Place::new(la, memory)))
    }

    /// Reads `out.len()` bytes (at most 4096) with the rights of `mode`.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load`].
    pub(crate) fn read_bytes(&mut self, la: u64, out: &mut [u8], mode: MmuMode) -> Exec {
        self.check_access(la, out.len(), AccessKind::Read, mode)?;
        let first = out.len().min(4096 - (la & 0xfff) as usize);
        let (head, tail) = out.split_at_mut(first);
        let second_la = self.wrap_la(la.wrapping_add(first as u64));
        if !tail.is_empty() {
            self.check_canonical(second_la)?;
        }
        let target = self.translate(la, AccessKind::Read, mode)?;
        if tail.is_empty() {
            return self.read_target(target, head);
        }
        let second = self.translate(second_la, AccessKind::Read, mode)?;
        self.read_target(target, head)?;
        self.read_target(second, tail)
    }

    /// Writes `data.len()` bytes (at most 4096) with the rights of `mode`. Nothing is written
    /// unless all of it can be.
    ///
    /// # Errors
    ///
    /// As [`Cpu::store`].
    pub(crate) fn write_bytes(&mut self, la: u64, data: &[u8], mode: MmuMode) -> Exec {
        self.check_access(la, data.len(), AccessKind::Write, mode)?;
        let first = data.len().min(4096 - (la & 0xfff) as usize);
        let (head, tail) = data.split_at(first);
        let targets = self.writable_target(la, data.len(), mode)?;
        if let [Some(target), _] = targets {
            self.write_target(target, head)?;
        }
        if let [_, Some(target)] = targets {
            self.write_target(target, tail)?;
        }
        Ok(())
    }

    /// Checks that `len` bytes (at most 4096) can be read now, for an instruction that looks at one
    /// end of its operand before the other.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load`], without device accesses.
    pub(crate) fn probe_read(&mut self, la: u64, len: usize) -> Exec {
        self.check_access(la, len, AccessKind::Read, self.run.mmu_mode)?;
        self.translate(la, AccessKind::Read, self.run.mmu_mode)?;
        let first = len.min(4096 - (la & 0xfff) as usize);
        if first != len {
            let second_la = self.wrap_la(la.wrapping_add(first as u64));
            self.check_canonical(second_la)?;
            self.translate(second_la, AccessKind::Read, self.run.mmu_mode)?;
        }
        Ok(())
    }

    /// Checks that `len` bytes (at most 4096) can be written now, for an instruction that writes
    /// them in several pieces.
    ///
    /// # Errors
    ///
    /// As [`Cpu::store`].
    pub(crate) fn probe_write(&mut self, la: u64, len: usize) -> Exec {
        self.check_access(la, len, AccessKind::Write, self.run.mmu_mode)?;
        self.writable_target(la, len, self.run.mmu_mode).map(drop)
    }

    /// Checks that `len` bytes (at most 4096) can be written now.
    fn writable_target(&mut self, la: u64, len: usize, mode: MmuMode) -> Exec<[Option<Target>; 2]> {
        let first = len.min(4096 - (la & 0xfff) as usize);
        let second_la = self.wrap_la(la.wrapping_add(first as u64));
        if first != len {
            self.check_canonical(second_la)?;
        }
        let target = self.translate(la, AccessKind::Write, mode)?;
        self.check_write(target, la, first)?;
        if first == len {
            return Ok([Some(target), None]);
        }
        let second = self.translate(second_la, AccessKind::Write, mode)?;
        self.check_write(second, second_la, len - first)?;
        Ok([Some(target), Some(second)])
    }

    /// Checks what is written, before anything is. A store into code of the running block's page must be
    /// the last thing the block does.
    fn check_write(&mut self, target: Target, la: u64, len: usize) -> Exec {
        if let Target::ApicAccess(offset) = target {
            return self.check_apic_access_write(offset, len);
        }
        if let Target::Memory { bytes, phys } = target
            && phys == self.run.block_phys
            && !self.run.alone
            && bytes.track().is_code((la & 0xfff) as usize, len)
        {
            return Err(Stop::ALONE);
        }
        Ok(())
    }

    /// Linear addresses wrap at 4 GiB outside IA-32e mode.
    pub(crate) fn wrap_la(&self, la: u64) -> u64 {
        if self.long_mode() { la } else { la & 0xffff_ffff }
    }

    fn read_target(&mut self, target: Target, out: &mut [u8]) -> Exec {
        match target {
            Target::Memory { bytes, .. } => bytes.read(out),
            Target::Void => out.fill(0xff),
            Target::ApicAccess(offset) => return self.apic_access_read(offset, out),
            Target::Device(gpa) => {
                for (i, chunk) in out.chunks_mut(8).enumerate() {
                    let value = self.device_read(gpa.wrapping_add(i as u64 * 8), chunk.len())?;
                    chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
                }
            }
        }
        Ok(())
    }

    fn write_target(&mut self, target: Target, data: &[u8]) -> Exec {
        match target {
            Target::Memory { bytes, .. } => bytes.write(data),
            Target::Void => {}
            Target::ApicAccess(offset) => return self.apic_access_write(offset, data),
            Target::Device(gpa) => {
                for (i, chunk) in data.chunks(8).enumerate() {
                    let mut value = [0; 8];
                    value[..chunk.len()].copy_from_slice(chunk);
                    let gpa = gpa.wrapping_add(i as u64 * 8);
                    self.device_write(gpa, chunk.len(), u64::from_le_bytes(value))?;
                }
            }
        }
        Ok(())
    }

    #[cfg_attr(not(test), expect(clippy::cast_possible_truncation, reason = "eight bytes at most"))]
    fn device_read(&mut self, gpa: Gpa, len: usize) -> Exec<u64> {
        if self.apic.claims(gpa) {
            return Ok(self.apic_mmio_read(gpa, len));
        }
        self.device(Exit::MmioRead { gpa, size: len as u8 })
    }

    #[cfg_attr(not(test), expect(clippy::cast_possible_truncation, reason = "eight bytes at most"))]
    fn device_write(&mut self, gpa: Gpa, len: usize, value: u64) -> Exec {
        if self.apic.claims(gpa) {
            self.apic_mmio_write(gpa, len, value);
            return Ok(());
        }
        self.device(Exit::MmioWrite { gpa, size: len as u8, value }).map(drop)
    }

    /// A device access of the instruction under way: exits the first time, and gives the owner's
    /// answer when the instruction runs again.
    ///
    /// # Errors
    ///
    /// [`Stop::EXIT`] the first time.
    pub(crate) fn device(&mut self, exit: Exit) -> Exec<u64> {
        if let Some(&value) = self.run.device_log.get(self.run.device_next) {
            self.run.device_next += 1;
            return Ok(value);
        }
        Err(self.exit_with(exit))
    }

    /// Forgets the device accesses of an iteration that a string instruction has committed.
    pub(crate) fn device_commit(&mut self) {
        self.run.device_log.clear();
        self.run.device_next = 0;
        self.run.attention &= !attention::DEVICE;
    }
}
