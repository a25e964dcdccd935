//! Single elements of vector registers and of memory.

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::Int;

/// Element `i` of a register's quadwords.
#[inline(always)]
pub(super) fn get<T: Int>(register: &[u64; 4], i: usize) -> T {
    let per_quadword = 8 / T::SIZE;
    T::trunc(register[(i / per_quadword) & 3] >> (i % per_quadword * T::SIZE * 8))
}

/// Replaces element `i` of a register's quadwords.
#[inline(always)]
pub(super) fn set<T: Int>(register: &mut [u64; 4], i: usize, value: T) {
    let per_quadword = 8 / T::SIZE;
    let shift = i % per_quadword * T::SIZE * 8;
    let ones = u64::MAX >> (64 - T::BITS);
    let quadword = &mut register[(i / per_quadword) & 3];
    *quadword = *quadword & !(ones << shift) | value.zext() << shift;
}

/// Whether an element of a mask chooses: its sign bit.
#[inline(always)]
pub(super) fn chosen<T: Int>(mask: &[u64; 4], i: usize) -> bool {
    get::<T>(mask, i).zext() >> (T::BITS - 1) != 0
}

/// Whether an access that is exempt from alignment checks would fail one.
fn is_exempt<T: Int>(cpu: &Cpu, la: u64) -> bool {
    la & (T::SIZE as u64 - 1) != 0 && cpu.alignment_checked()
}

/// Reads an element for an instruction that never raises #AC.
///
/// # Errors
///
/// As [`Cpu::load`].
#[inline(always)]
pub(super) fn load<T: Int>(cpu: &mut Cpu, la: u64) -> Exec<T> {
    if !is_exempt::<T>(cpu, la) {
        return cpu.load(la);
    }
    let mut value = 0;
    for i in 0..T::SIZE as u64 {
        let at = cpu.wrap_la(la.wrapping_add(i));
        value |= u64::from(cpu.load::<u8>(at)?) << (8 * i);
    }
    Ok(T::trunc(value))
}

/// Writes an element for an instruction that never raises #AC.
///
/// # Errors
///
/// As [`Cpu::store`].
pub(super) fn store<T: Int>(cpu: &mut Cpu, la: u64, value: T) -> Exec {
    if !is_exempt::<T>(cpu, la) {
        return cpu.store(la, value);
    }
    for i in 0..T::SIZE as u64 {
        let at = cpu.wrap_la(la.wrapping_add(i));
        cpu.store(at, (value.zext() >> (8 * i)) as u8)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_numbered_from_the_lowest() {
        let mut register = [0x0000_0001_0000_0000, 3 << 32 | 2, 0, 0];

        set::<u32>(&mut register, 7, 0x8000_0000);
        set::<u64>(&mut register, 2, 9);

        assert_eq!([1, 2, 3].map(|i| get::<u32>(&register, i)), [1, 2, 3]);
        assert_eq!(register, [1 << 32, 3 << 32 | 2, 9, 1 << 63]);
        assert!(chosen::<u64>(&register, 3) && chosen::<u32>(&register, 7));
        assert!(!chosen::<u32>(&register, 6));
    }
}
