//! Runs of string elements within pages, straight in memory.

use crate::cpu::Cpu;
use crate::mem::{Int, host};

/// How many elements of `T` from `la` on lie in its page.
#[inline(always)]
fn room<T: Int>(la: u64) -> u64 {
    (4096 - (la & 0xfff)) / T::SIZE as u64
}

/// Copies up to `count` elements upwards from `from` to `to`, as single accesses would: the number
/// of elements copied, 0 where the TLB does not know the pages or the destination holds code.
#[inline(never)]
pub(super) fn copy_run<T: Int>(cpu: &mut Cpu, from: u64, to: u64, count: u64) -> u64 {
    let count = count.min(room::<T>(from)).min(room::<T>(to));
    let bytes = count as usize * T::SIZE;
    let Some(destination) = cpu.run.tlb.writable(cpu.run.mmu_mode, to) else { return 0 };
    let Some(source) = cpu.run.tlb.readable(cpu.run.mmu_mode, from) else { return 0 };
    if bytes == 0 {
        return 0;
    }
    #[expect(unsafe_code, reason = "copies guest memory")]
    // SAFETY: whoever filled the TLB vouches for both pages (see `PageBytes`), which the bytes do
    // not leave: `count` is bounded by the room in each.
    unsafe {
        let (source, to) = (source.host().as_ptr().cast_const(), destination.host().as_ptr());
        let ahead = (to as u64).wrapping_sub(source as u64);
        if ahead.wrapping_sub(1) < bytes as u64 - 1 {
            // Elements that were written are read again.
            for n in 0..count as usize {
                let value: T = host::load(source.add(n * T::SIZE));
                host::store(to.add(n * T::SIZE), value);
            }
        } else {
            host::copy_up(source, to, bytes);
        }
    }
    destination.track().stored(destination.offset(), bytes);
    count
}

/// Fills up to `count` elements upwards from `to`; as [`copy_run`].
#[inline(never)]
pub(super) fn fill_run<T: Int>(cpu: &mut Cpu, to: u64, value: T, count: u64) -> u64 {
    let count = count.min(room::<T>(to));
    let Some(destination) = cpu.run.tlb.writable(cpu.run.mmu_mode, to) else { return 0 };
    if count == 0 {
        return 0;
    }
    #[expect(unsafe_code, reason = "fills guest memory")]
    // SAFETY: whoever filled the TLB vouches for the page (see `PageBytes`), which the bytes do not
    // leave: `count` is bounded by the room in it.
    unsafe {
        host::fill(destination.host().as_ptr(), value, count as usize);
    }
    destination.track().stored(destination.offset(), count as usize * T::SIZE);
    count
}

/// Compares elements upwards from `a` with those from `b`, as CMPS does, until two are equal
/// (`until_equal`) or differ, `count` at most: the number of elements compared, with the flags of the
/// last; 0 where the TLB does not know the pages.
#[inline(never)]
pub(super) fn compare_run<T: Int>(
    cpu: &mut Cpu,
    a: u64,
    b: u64,
    count: u64,
    until_equal: bool,
) -> u64 {
    let count = count.min(room::<T>(a)).min(room::<T>(b));
    let Some(b) = cpu.run.tlb.readable(cpu.run.mmu_mode, b) else { return 0 };
    let Some(a) = cpu.run.tlb.readable(cpu.run.mmu_mode, a) else { return 0 };
    let (a, b) = (a.host().as_ptr(), b.host().as_ptr());
    run_of_pairs::<T>(cpu, count, until_equal, |n| {
        #[expect(unsafe_code, reason = "reads guest memory")]
        // SAFETY: whoever filled the TLB vouches for both pages (see `PageBytes`), which the elements do
        // not leave: `count` is bounded by the room in each.
        unsafe {
            (host::load(a.add(n * T::SIZE)), host::load(b.add(n * T::SIZE)))
        }
    })
}

/// Compares `value` with elements upwards from `at`, as SCAS does; as [`compare_run`].
#[inline(never)]
pub(super) fn scan_run<T: Int>(
    cpu: &mut Cpu,
    at: u64,
    value: T,
    count: u64,
    until_equal: bool,
) -> u64 {
    let count = count.min(room::<T>(at));
    let Some(at) = cpu.run.tlb.readable(cpu.run.mmu_mode, at) else { return 0 };
    let at = at.host().as_ptr();
    run_of_pairs::<T>(cpu, count, until_equal, |n| {
        #[expect(unsafe_code, reason = "reads guest memory")]
        // SAFETY: whoever filled the TLB vouches for the page (see `PageBytes`), which the elements do
        // not leave: `count` is bounded by the room in it.
        unsafe {
            (value, host::load(at.add(n * T::SIZE)))
        }
    })
}

/// Compares pairs in order: see [`compare_run`].
#[inline(always)]
fn run_of_pairs<T: Int>(
    cpu: &mut Cpu,
    count: u64,
    until_equal: bool,
    pair: impl Fn(usize) -> (T, T),
) -> u64 {
    let mut done = 0;
    while done < count {
        let (a, b) = pair(done as usize);
        done += 1;
        if (a == b) == until_equal || done == count {
            cpu.arch.flags.sub(a, b, a.minus(b));
            break;
        }
    }
    done
}
