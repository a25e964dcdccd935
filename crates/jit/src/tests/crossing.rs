//! Instructions that begin in one page and end in another.

use cloister_cpu::ArchState;
use cloister_cpu::testing::{CODE, Ending, Start};
use cloister_x86::Gpr;
use iced_x86::code_asm::*;

use super::links::{Program, ROUNDS, alike};

/// A page at whose end an instruction begins: `add rbx, 1000` has its opcode there and its immediate in
/// the page after.
const FIRST: u64 = CODE + 0x3000;
const ACROSS: u64 = SECOND - 3;
const SECOND: u64 = FIRST + 0x1000;
/// A page that takes the place of [`SECOND`].
const ELSEWHERE: u64 = SECOND ^ EXCHANGED as u64;
const EXCHANGED: i32 = 0x2000;
/// The entry of the page table for [`SECOND`].
const ENTRY: u64 = 0x4000 + (SECOND >> 12) * 8;

const ADD_THOUSAND: Program = |a| {
    a.add(rbx, 1000)?;
    a.ret()
};
const ADD_MILLION: Program = |a| {
    a.add(rbx, 1_000_000)?;
    a.ret()
};

/// Runs `code` beside the instruction, and what the other page makes of it.
fn run(code: Program) -> (Ending, ArchState) {
    let elsewhere = ELSEWHERE - (SECOND - ACROSS);
    alike(
        Start::Kernel64,
        &[(CODE, code), (ACROSS, ADD_THOUSAND), (elsewhere, ADD_MILLION)],
        &|_| {},
    )
}

#[test]
fn an_instruction_across_pages_is_what_its_second_page_says() {
    let (_, state) = run(|a| {
        let mut top = a.create_label();
        a.mov(rsi, SECOND)?;
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.call(ACROSS)?;
        a.call(ACROSS)?;
        a.xor(qword_ptr(ENTRY), EXCHANGED)?;
        a.invlpg(byte_ptr(rsi))?;
        a.dec(ecx)?;
        a.jne(top)
    });

    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS) * 1_001_000);
}

#[test]
fn a_store_into_the_second_page_changes_the_instruction() {
    let (_, state) = run(|a| {
        let mut top = a.create_label();
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.call(ACROSS)?;
        a.call(ACROSS)?;
        a.test(cl, 3)?;
        let mut skip = a.create_label();
        a.jne(skip)?;
        a.mov(dword_ptr(SECOND), ecx)?;
        a.set_label(&mut skip)?;
        a.dec(ecx)?;
        a.jne(top)
    });

    let mut immediate = 1000;
    let mut expected = 0;
    for round in (1..=ROUNDS).rev() {
        expected += 2 * u64::from(immediate);
        if round % 4 == 0 {
            immediate = round;
        }
    }
    assert_eq!(state.gpr[Gpr::Rbx], expected);
}

#[test]
fn an_instruction_whose_second_page_is_gone_faults_there() {
    let (ending, state) = run(|a| {
        let (mut top, mut skip) = (a.create_label(), a.create_label());
        a.mov(rsi, SECOND)?;
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.call(ACROSS)?;
        a.cmp(ecx, 3)?;
        a.jne(skip)?;
        a.and(dword_ptr(ENTRY), -2)?;
        a.invlpg(byte_ptr(rsi))?;
        a.set_label(&mut skip)?;
        a.dec(ecx)?;
        a.jne(top)
    });

    assert!(matches!(ending, Ending::Exception(_)), "{ending:?}");
    assert_eq!((state.rip, state.gpr[Gpr::Rcx]), (ACROSS, 2));
    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS - 2) * 1000);
}

#[test]
fn a_branch_across_pages_leads_back_into_its_first_page() {
    let code: Program = |a| {
        a.mov(ecx, ROUNDS)?;
        a.jmp(SECOND - 6)
    };
    // INC, DEC, and JNE with its distance in the second page.
    let around: Program = |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.inc(rbx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let itself: Program = |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.loop_(top)
    };

    let (_, state) = alike(Start::User64, &[(CODE, code), (SECOND - 6, around)], &|_| {});
    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS));

    let code: Program = |a| {
        a.mov(ecx, ROUNDS)?;
        a.jmp(SECOND - 1)
    };
    let (_, state) = alike(Start::User64, &[(CODE, code), (SECOND - 1, itself)], &|_| {});
    assert_eq!(state.gpr[Gpr::Rcx], 0);
}
