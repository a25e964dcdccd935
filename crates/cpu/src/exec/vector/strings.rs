//! PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM (SDM Vol. 2B, 4.1).

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;

use super::form::by_form;
use super::lane::{Element, Lane};
use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exit::Exec;
use crate::op::Op;

/// Lengths by `$length`, result by `$finish`, source by the memory operand.
macro_rules! string {
    ($length:ident, $finish:ident) => {
        |_, op| {
            extern "C" fn run<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
                cpu.check_form::<FORM>()?;
                let b = cpu.xmm_source::<FORM, KIND>(op)?;
                let a = cpu.arch.vector.xmm(op.dst);
                let imm = op.imm as u8;
                let (a_len, b_len) = $length(cpu, a, b, imm);
                let result = compare(a, b, a_len, b_len, imm);
                set_flags(cpu, result, a_len, b_len, imm);
                $finish::<FORM>(cpu, result, imm);
                Ok(())
            }
            by_form!(op, run, M128_ANY)
        }
    };
}

vector_rows! {
    Pcmpestri | Vpcmpestri => choose(string!(explicit_lengths, finish_index)),
    Pcmpestri64 | Vpcmpestri64 => choose(string!(explicit_lengths_64, finish_index)),
    Pcmpestrm | Vpcmpestrm => choose(string!(explicit_lengths, finish_mask)),
    Pcmpestrm64 | Vpcmpestrm64 => choose(string!(explicit_lengths_64, finish_mask)),
    Pcmpistri | Vpcmpistri => choose(string!(implicit_lengths, finish_index)),
    Pcmpistrm | Vpcmpistrm => choose(string!(implicit_lengths, finish_mask)),
}

/// Elements of a string: 16 bytes or 8 words.
const fn capacity(imm: u8) -> usize {
    if imm & 1 != 0 { 8 } else { 16 }
}

/// The magnitudes of EAX and EDX, saturated (SDM Vol. 2B, 4.1.2).
fn explicit_lengths(cpu: &Cpu, _a: Lane, _b: Lane, imm: u8) -> (usize, usize) {
    let length = |n: u8| {
        let value: u32 = cpu.reg(n, false);
        ((value as i32).unsigned_abs() as usize).min(capacity(imm))
    };
    (length(0), length(2))
}

/// The magnitudes of RAX and RDX, saturated.
fn explicit_lengths_64(cpu: &Cpu, _a: Lane, _b: Lane, imm: u8) -> (usize, usize) {
    let length =
        |n: usize| (cpu.arch.gpr[n] as i64).unsigned_abs().min(capacity(imm) as u64) as usize;
    (length(0), length(2))
}

/// Up to the first null element.
fn implicit_lengths(_cpu: &Cpu, a: Lane, b: Lane, imm: u8) -> (usize, usize) {
    let length = |lane: Lane| {
        let elements = elements(lane, imm);
        elements[..capacity(imm)].iter().position(|&x| x == 0).unwrap_or(capacity(imm))
    };
    (length(a), length(b))
}

/// The elements as signed or unsigned numbers; those past the capacity are 0.
fn elements(lane: Lane, imm: u8) -> [i32; 16] {
    let mut elements = [0; 16];
    match imm & 3 {
        0 => elements = u8::split(lane).map(i32::from),
        1 => elements[..8].copy_from_slice(&u16::split(lane).map(i32::from)),
        2 => elements = i8::split(lane).map(i32::from),
        _ => elements[..8].copy_from_slice(&i16::split(lane).map(i32::from)),
    }
    elements
}

/// IntRes2: a bit for each element of `b`.
#[must_use]
pub(crate) fn compare(a: Lane, b: Lane, a_len: usize, b_len: usize, imm: u8) -> u32 {
    let n = capacity(imm);
    let (x, y) = (elements(a, imm), elements(b, imm));
    let (x, y) = (&x[..a_len.min(n)], &y[..b_len.min(n)]);
    let bit = |set: bool, j: usize| u32::from(set) << j;
    // The tables of validity (4.1.6) are in the bounds of the slices.
    let aggregated = match imm >> 2 & 3 {
        // Equal any: the element is in the set `a`.
        0 => (0..y.len()).fold(0, |bits, j| bits | bit(x.contains(&y[j]), j)),
        // Ranges: it is in one of the ranges; a range without an end has no elements.
        1 => (0..y.len()).fold(0, |bits, j| {
            let inside = x.chunks_exact(2).any(|range| range[0] <= y[j] && y[j] <= range[1]);
            bits | bit(inside, j)
        }),
        // Equal each: both ended counts as equal.
        2 => (0..n).fold(0, |bits, j| bits | bit(x.get(j) == y.get(j), j)),
        // Equal ordered: `a` begins here, as far as `b` reaches in the register.
        _ => (0..n).fold(0, |bits, j| {
            let found = (0..n - j).all(|i| x.get(i).is_none_or(|x| y.get(i + j) == Some(x)));
            bits | bit(found, j)
        }),
    };
    let all = (1u32 << n) - 1;
    match imm >> 4 & 3 {
        1 => aggregated ^ all,
        3 => aggregated ^ ((1 << y.len()) - 1),
        _ => aggregated,
    }
}

fn set_flags(cpu: &mut Cpu, result: u32, a_len: usize, b_len: usize, imm: u8) {
    let mut flags = Rflags::empty();
    flags.set(Rflags::CF, result != 0);
    flags.set(Rflags::ZF, b_len < capacity(imm));
    flags.set(Rflags::SF, a_len < capacity(imm));
    flags.set(Rflags::OF, result & 1 != 0);
    cpu.arch.flags.set_bits(flags.bits());
}

/// ECX: the lowest or highest element that matches, or their number if none does.
fn finish_index<const FORM: u8>(cpu: &mut Cpu, result: u32, imm: u8) {
    let index = match result {
        0 => capacity(imm) as u32,
        _ if imm & 0x40 != 0 => 31 - result.leading_zeros(),
        _ => result.trailing_zeros(),
    };
    cpu.arch.gpr[Gpr::Rcx] = u64::from(index);
}

/// XMM0: a mask of bits or of elements.
fn finish_mask<const FORM: u8>(cpu: &mut Cpu, result: u32, imm: u8) {
    let mask = match imm & 0x41 {
        0x40 => u8::join(std::array::from_fn(|i| if result >> i & 1 != 0 { !0 } else { 0 })),
        0x41 => u16::join(std::array::from_fn(|i| if result >> i & 1 != 0 { !0 } else { 0 })),
        _ => [u64::from(result), 0],
    };
    cpu.arch.vector.set_low::<FORM>(0, mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> Lane {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text);
        u8::join(bytes)
    }

    #[test]
    fn equal_any_finds_the_characters_of_a_set() {
        assert_eq!(compare(text(b"aeiou"), text(b"hello"), 5, 5, 0), 0b10010);
    }

    #[test]
    fn ranges_leave_out_a_range_without_an_end() {
        assert_eq!(compare(text(b"az0"), text(b"a0Z9"), 3, 4, 0b0100), 0b0001);
    }

    #[test]
    fn equal_each_counts_two_ended_strings_as_equal() {
        assert_eq!(compare(text(b"abc"), text(b"abd"), 3, 3, 0b1000), 0xfffb);
        assert_eq!(compare(text(b"abc"), text(b"ab"), 3, 2, 0b1000), 0xfffb);
    }

    #[test]
    fn equal_ordered_finds_a_needle_and_its_beginning_at_the_end() {
        assert_eq!(compare(text(b"We"), text(b"WhenWeWillBe"), 2, 12, 0b1100), 1 << 4);
        assert_eq!(compare(text(b"ab"), text(b"xxxxxxxxxxxxxxxa"), 2, 16, 0b1100), 1 << 15);
    }

    #[test]
    fn masked_negation_leaves_what_is_past_the_end() {
        assert_eq!(compare(text(b"abc"), text(b"abd"), 3, 3, 0b11_1000), 0xfffb ^ 0b111);
    }
}
