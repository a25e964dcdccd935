//! String instructions: MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS, with REP, REPE and REPNE.
//!
//! A repeated instruction commits each element: a fault, an exit or an event finds RCX, RSI and RDI
//! as they are between two elements, and the instruction runs again from there (SDM Vol. 2B, REP).
//! Runs of elements of MOVS, STOS, CMPS and SCAS that stay in a page are done at once: see
//! [`super::string_run`].

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use iced_x86::Instruction;

use super::by_size;
use super::string_run::{compare_run, copy_run, fill_run, scan_run};
use crate::cpu::Cpu;
use crate::exec::table::{rewrite, rows};
use crate::exec::vector::fp::compare;
use crate::exec::vector::{self, transfer};
use crate::exit::{Exec, Exit, Stop};
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{MEM_SEGMENT, Op, REPE, REPNE};
use crate::run_state::attention;
use crate::vmx::intercept::IoAccess;

/// Elements done one by one before events are looked at.
const ELEMENTS_PER_LOOK: u32 = 1024;
/// Runs within a page before events are looked at.
const RUNS_PER_LOOK: u32 = 32;

/// What a string instruction does with one element.
pub(super) trait Element {
    /// Whether RSI moves.
    const SOURCE: bool;
    /// Whether RDI moves.
    const DESTINATION: bool;
    /// Whether REPE and REPNE look at ZF.
    const COMPARES: bool = false;
    /// Registers of which REP with an address size of 32 bits makes the upper halves zeros even
    /// where not one iteration is completed, as on Intel processors.
    const EXTENDED: &[Gpr] = &[Gpr::Rcx];
    /// What a repeated instruction with a count of zero checks even so.
    #[inline(always)]
    fn check<T: Int>(_cpu: &mut Cpu) -> Exec {
        Ok(())
    }
    /// Does one element at the offsets RSI and RDI.
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, source: u64, destination: u64) -> Exec;
    /// Does up to `count` elements at once, upwards, if that is easy: how many were done. One that
    /// compares ends after the first element that ends the instruction, with its flags.
    #[inline(always)]
    fn run<T: Int>(_cpu: &mut Cpu, _op: &Op, _count: u64) -> u64 {
        0
    }
}

#[inline(always)]
fn source_linear<T: Int>(cpu: &mut Cpu, op: &Op, offset: u64) -> Exec<u64> {
    if op.special & MEM_SEGMENT == 0 {
        return Ok(offset);
    }
    cpu.segmented(usize::from(op.seg), offset, T::SIZE, AccessKind::Read)
}

/// Linear address of the source of a run.
#[inline(always)]
fn source_of_run(cpu: &Cpu, op: &Op) -> u64 {
    if op.special & MEM_SEGMENT == 0 {
        cpu.arch.gpr[Gpr::Rsi]
    } else {
        cpu.arch.segs[usize::from(op.seg & 7)].base.wrapping_add(cpu.arch.gpr[Gpr::Rsi])
    }
}

/// The destination is in ES whatever the prefixes say.
#[inline(always)]
fn destination_linear<T: Int>(cpu: &mut Cpu, offset: u64, kind: AccessKind) -> Exec<u64> {
    cpu.segmented(seg::ES, offset, T::SIZE, kind)
}

struct Movs;
impl Element for Movs {
    const SOURCE: bool = true;
    const DESTINATION: bool = true;
    const EXTENDED: &[Gpr] = &[Gpr::Rcx, Gpr::Rsi, Gpr::Rdi];
    #[inline(always)]
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, source: u64, destination: u64) -> Exec {
        let from = source_linear::<T>(cpu, op, source)?;
        let value = cpu.load::<T>(from)?;
        let to = destination_linear::<T>(cpu, destination, AccessKind::Write)?;
        cpu.store(to, value)
    }
    #[inline(always)]
    fn run<T: Int>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        let from = source_of_run(cpu, op);
        copy_run::<T>(cpu, from, cpu.arch.gpr[Gpr::Rdi], count)
    }
}

struct Stos;
impl Element for Stos {
    const SOURCE: bool = false;
    const DESTINATION: bool = true;
    const EXTENDED: &[Gpr] = &[Gpr::Rcx, Gpr::Rdi];
    #[inline(always)]
    fn step<T: Int>(cpu: &mut Cpu, _op: &Op, _source: u64, destination: u64) -> Exec {
        let to = destination_linear::<T>(cpu, destination, AccessKind::Write)?;
        let value = cpu.reg::<T>(0, false);
        cpu.store(to, value)
    }
    #[inline(always)]
    fn run<T: Int>(cpu: &mut Cpu, _op: &Op, count: u64) -> u64 {
        let value = cpu.reg::<T>(0, false);
        fill_run::<T>(cpu, cpu.arch.gpr[Gpr::Rdi], value, count)
    }
}

struct Lods;
impl Element for Lods {
    const SOURCE: bool = true;
    const DESTINATION: bool = false;
    #[inline(always)]
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, source: u64, _destination: u64) -> Exec {
        let from = source_linear::<T>(cpu, op, source)?;
        let value = cpu.load::<T>(from)?;
        cpu.set_reg(0, false, value);
        Ok(())
    }
}

struct Scas;
impl Element for Scas {
    const SOURCE: bool = false;
    const DESTINATION: bool = true;
    const COMPARES: bool = true;
    #[inline(always)]
    fn step<T: Int>(cpu: &mut Cpu, _op: &Op, _source: u64, destination: u64) -> Exec {
        let at = destination_linear::<T>(cpu, destination, AccessKind::Read)?;
        let value = cpu.load::<T>(at)?;
        let accumulator = cpu.reg::<T>(0, false);
        cpu.arch.flags.sub(accumulator, value, accumulator.minus(value));
        Ok(())
    }
    #[inline(always)]
    fn run<T: Int>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        let value = cpu.reg::<T>(0, false);
        scan_run::<T>(cpu, cpu.arch.gpr[Gpr::Rdi], value, count, op.prefix & REPNE != 0)
    }
}

struct Cmps;
impl Element for Cmps {
    const SOURCE: bool = true;
    const DESTINATION: bool = true;
    const COMPARES: bool = true;
    #[inline(always)]
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, source: u64, destination: u64) -> Exec {
        // Processors read the second operand first.
        let at = destination_linear::<T>(cpu, destination, AccessKind::Read)?;
        let b = cpu.load::<T>(at)?;
        let from = source_linear::<T>(cpu, op, source)?;
        let a = cpu.load::<T>(from)?;
        cpu.arch.flags.sub(a, b, a.minus(b));
        Ok(())
    }
    #[inline(always)]
    fn run<T: Int>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        let from = source_of_run(cpu, op);
        compare_run::<T>(cpu, from, cpu.arch.gpr[Gpr::Rdi], count, op.prefix & REPNE != 0)
    }
}

/// INS, whose operand is in ES, or OUTS, in VMX non-root operation.
fn intercept<T: Int, const INPUT: bool>(
    cpu: &mut Cpu,
    op: &Op,
    port: u16,
    segment: usize,
    offset: u64,
) -> Exec {
    if cpu.guest_controls().is_none() {
        return Ok(());
    }
    let flat = cpu.run.mode.is_64() && !matches!(segment, seg::FS | seg::GS);
    let base = if flat { 0 } else { cpu.arch.segs[segment & 7].base };
    let string = Some(cpu.wrap_la(base.wrapping_add(offset)));
    cpu.intercept_io(
        op,
        IoAccess { port, size: T::SIZE as u8, input: INPUT, string, immediate: false },
    )
}

struct Ins;
impl Element for Ins {
    const SOURCE: bool = false;
    const DESTINATION: bool = true;
    const EXTENDED: &[Gpr] = &[];
    fn check<T: Int>(cpu: &mut Cpu) -> Exec {
        cpu.may_access_ports(cpu.arch.gpr[Gpr::Rdx] as u16, T::SIZE as u8)
    }
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, _source: u64, destination: u64) -> Exec {
        let port = cpu.arch.gpr[Gpr::Rdx] as u16;
        cpu.io_permission(port, T::SIZE as u8)?;
        intercept::<T, true>(cpu, op, port, seg::ES, destination)?;
        let to = destination_linear::<T>(cpu, destination, AccessKind::Write)?;
        // The destination must take the value before the port gives it up.
        let (_, place) = cpu.open::<T>(to)?;
        let value = cpu.device(Exit::IoIn { port, size: T::SIZE as u8 })?;
        cpu.close(place, T::trunc(value))
    }
}

struct Outs;
impl Element for Outs {
    const SOURCE: bool = true;
    const DESTINATION: bool = false;
    const EXTENDED: &[Gpr] = &[];
    fn check<T: Int>(cpu: &mut Cpu) -> Exec {
        cpu.may_access_ports(cpu.arch.gpr[Gpr::Rdx] as u16, T::SIZE as u8)
    }
    fn step<T: Int>(cpu: &mut Cpu, op: &Op, source: u64, _destination: u64) -> Exec {
        let port = cpu.arch.gpr[Gpr::Rdx] as u16;
        cpu.io_permission(port, T::SIZE as u8)?;
        intercept::<T, false>(cpu, op, port, usize::from(op.seg), source)?;
        let from = source_linear::<T>(cpu, op, source)?;
        let value = cpu.load::<T>(from)?.zext() as u32;
        cpu.device(Exit::IoOut { port, size: T::SIZE as u8, value }).map(drop)
    }
}

rows! {
    Movsb | Movsw | Movsq => rewrite(form::<Movs>),
    Stosb | Stosw | Stosd | Stosq => rewrite(form::<Stos>),
    Lodsb | Lodsw | Lodsd | Lodsq => rewrite(form::<Lods>),
    Scasb | Scasw | Scasd | Scasq => rewrite(form::<Scas>),
    Cmpsb | Cmpsw | Cmpsq => rewrite(form::<Cmps>),
    Insb | Insw | Insd => rewrite(form::<Ins>).ends_block().illegal_in_enclave(),
    Outsb | Outsw | Outsd => rewrite(form::<Outs>).ends_block().illegal_in_enclave(),
    // Two vector instructions have names of string instructions.
    Movsd => rewrite(|instruction, mode, op| {
        if instruction.is_string_instruction() {
            form::<Movs>(instruction, mode, op)
        } else {
            transfer::movsd(instruction, vector::arrange(instruction, op))
        }
    }),
    Cmpsd => rewrite(|instruction, mode, op| {
        if instruction.is_string_instruction() {
            form::<Cmps>(instruction, mode, op)
        } else {
            compare::cmpsd(vector::arrange(instruction, op))
        }
    })
    .under_mxcsr(),
}

fn form<E: Element>(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let size = instruction.memory_size().size() as u8;
    let run = if op.prefix & (REPE | REPNE) == 0 {
        by_size!(size, single[E])
    } else {
        by_size!(size, repeated[E])
    };
    Some(Op { run, size, ..op })
}

#[inline(always)]
fn mask(op: &Op) -> u64 {
    match op.addr_size {
        8 => u64::MAX,
        4 => 0xffff_ffff,
        _ => 0xffff,
    }
}

/// Adds to a register as wide as the address size.
#[inline(always)]
fn advance(cpu: &mut Cpu, op: &Op, register: Gpr, by: u64) {
    let old = cpu.arch.gpr[register];
    let new = old.wrapping_add(by);
    cpu.arch.gpr[register] = match op.addr_size {
        8 => new,
        4 => new & 0xffff_ffff,
        _ => (old & !0xffff) | (new & 0xffff),
    };
}

#[inline(always)]
fn advance_both<T: Int, E: Element>(cpu: &mut Cpu, op: &Op, elements: u64) {
    let bytes = elements.wrapping_mul(T::SIZE as u64);
    let by = if cpu.arch.system_flags.contains(Rflags::DF) { bytes.wrapping_neg() } else { bytes };
    if E::SOURCE {
        advance(cpu, op, Gpr::Rsi, by);
    }
    if E::DESTINATION {
        advance(cpu, op, Gpr::Rdi, by);
    }
}

extern "C" fn single<T: Int, E: Element>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mask = mask(op);
    E::step::<T>(cpu, op, cpu.arch.gpr[Gpr::Rsi] & mask, cpu.arch.gpr[Gpr::Rdi] & mask)?;
    advance_both::<T, E>(cpu, op, 1);
    Ok(())
}

extern "C" fn repeated<T: Int, E: Element>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mask = mask(op);
    if op.addr_size == 4 {
        for &register in E::EXTENDED {
            cpu.arch.gpr[register] &= 0xffff_ffff;
        }
    }
    let until_equal = op.prefix & REPNE != 0;
    // Debug traps come after each iteration.
    let alone = attention::TRACE | attention::BREAKPOINTS | attention::MONITOR_TRAP;
    let trace = cpu.run.attention & alone != 0;
    let runs = op.addr_size == 8
        && cpu.run.mode.is_64()
        && !trace
        && !cpu.arch.system_flags.contains(Rflags::DF);
    let flags = cpu.arch.flags;
    let (mut elements, mut pages) = (0, 0);
    loop {
        let count = cpu.arch.gpr[Gpr::Rcx] & mask;
        if count == 0 {
            return E::check::<T>(cpu);
        }
        let mut done = 0;
        if runs {
            done = E::run::<T>(cpu, op, count);
            pages += 1;
        }
        if done == 0 {
            let step =
                E::step::<T>(cpu, op, cpu.arch.gpr[Gpr::Rsi] & mask, cpu.arch.gpr[Gpr::Rdi] & mask);
            if let Err(stop) = step {
                if stop == Stop::FAULT {
                    // SDM Vol. 2B, REP: a faulting CMPS or SCAS leaves the flags as they were.
                    cpu.arch.flags = flags;
                }
                return Err(stop);
            }
            if !cpu.run.device_log.is_empty() {
                cpu.device_commit();
            }
            done = 1;
            elements += 1;
        }
        advance_both::<T, E>(cpu, op, done);
        advance(cpu, op, Gpr::Rcx, done.wrapping_neg());
        if count == done || (E::COMPARES && cpu.arch.flags.zf() == until_equal) {
            return Ok(());
        }
        let apart = trace || cpu.run.virtual_write.is_some();
        if apart || elements >= ELEMENTS_PER_LOOK || pages >= RUNS_PER_LOOK + elements {
            // Let the engine look at events, and come back.
            cpu.arch.rip = cpu.op_rip(op);
            cpu.run.between_iterations = true;
            return Err(Stop::JUMP);
        }
    }
}
