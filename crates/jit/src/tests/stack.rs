//! Accesses to the stack, which go to the page of the last one unasked, and what has to part the two.

use cloister_cpu::testing::{CODE, DATA, Ending, RAM_SIZE, STACK, Start};
use cloister_x86::Gpr;
use iced_x86::code_asm::*;

use super::links::{Program, ROUNDS, alike};

#[test]
fn accesses_of_all_sizes_and_alignments_reach_two_pages_in_turn() {
    let code: Program = |a| {
        let mut top = a.create_label();
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        // The page below and the page above, and bytes of both at once.
        for place in [-0x40, 0x40, -0x41, 0x43, -1, -3, -7, 0xfff - 0x2000] {
            a.mov(byte_ptr(rsp + place), cl)?;
            a.add(word_ptr(rsp + place), cx)?;
            a.xor(dword_ptr(rsp + place + 1), ecx)?;
            a.add(qword_ptr(rsp + place), rcx)?;
            a.adc(rax, qword_ptr(rsp + place + 2))?;
            a.movups(xmm1, xmmword_ptr(rsp + place))?;
            a.movups(xmmword_ptr(rsp + place + 4), xmm1)?;
            a.movzx(edx, byte_ptr(rsp + place))?;
            a.add(rbx, rdx)?;
            a.lock().xadd(qword_ptr(rsp + place), rax)?;
        }
        a.push(rax)?;
        a.push(rbx)?;
        a.push(rcx)?;
        a.pop(rdx)?;
        a.pop(rsi)?;
        a.pop(rdi)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    for offset in [0, 8, 16, 3, 0x7f8, 0xffc] {
        alike(Start::User64, &[(CODE, code)], &|state| {
            state.gpr[Gpr::Rsp] = DATA + 0x2000 + offset;
        });
    }
}

#[test]
fn a_stack_pointer_that_leads_nowhere_faults() {
    let programs: [Program; 5] = [
        |a| a.push(rax),
        |a| a.pop(rax),
        |a| a.add(qword_ptr(rsp), rax),
        |a| a.call(CODE + 0x100),
        |a| a.ret(),
    ];
    // The last one has the bit in it that stands for no page.
    let places = [RAM_SIZE + 0x1000, 1 << 47, 1 << 63, u64::MAX - 0xf, 0x8000_0000_0000_0800];
    for program in programs {
        for place in places {
            // In the last round, behind good accesses. Both values are the stack pointer's.
            let top = CODE + 0x40;
            let [before, after]: [Program; 2] = [
                |a| {
                    a.mov(ecx, 5)?;
                    a.jmp(CODE + 0x40)
                },
                |a| {
                    a.mov(qword_ptr(rbp - 8), rcx)?;
                    a.push(rcx)?;
                    a.pop(rdx)?;
                    a.dec(ecx)?;
                    a.cmove(rsp, rdi)?;
                    a.jmp(CODE + 0x80)
                },
            ];
            let again: Program = |a| {
                a.jne(CODE + 0x40)?;
                a.jmp(CODE + 0xc0)
            };
            let pieces =
                [(CODE, before), (top, after), (CODE + 0x80, again), (CODE + 0xc0, program)];
            let (ending, state) = alike(Start::User64, &pieces, &|state| {
                state.gpr[Gpr::Rdi] = place;
                state.gpr[Gpr::Rbp] = STACK;
            });
            assert!(matches!(ending, Ending::Exception(_)), "{ending:?}");
            assert_eq!((state.gpr[Gpr::Rsp], state.rip), (place, CODE + 0xc0));
        }
    }
}

/// Entry of the page table for the page below [`STACK`].
const ENTRY: u64 = 0x4000 + ((STACK >> 12) - 1) * 8;

#[test]
fn the_stack_is_elsewhere_once_its_translation_is_dropped() {
    let code: Program = |a| {
        let mut top = a.create_label();
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.push(rcx)?;
        a.add(qword_ptr(rsp), rbx)?;
        // Another page, and back.
        a.xor(qword_ptr(ENTRY), 0x1_0000)?;
        a.invlpg(byte_ptr(rsp))?;
        a.add(rbx, qword_ptr(rsp))?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.pop(rdx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    alike(Start::Kernel64, &[(CODE, code)], &|_| {});
}

#[test]
fn a_stack_that_may_not_be_written_any_more_faults() {
    let code: Program = |a| {
        let (mut top, mut skip) = (a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.mov(rax, qword_ptr(rsp - 0x20))?;
        a.push(rcx)?;
        a.cmp(ecx, 3)?;
        a.jne(skip)?;
        a.and(qword_ptr(ENTRY), !2)?;
        a.invlpg(byte_ptr(rsp))?;
        a.set_label(&mut skip)?;
        a.pop(rdx)?;
        a.mov(qword_ptr(rsp - 0x20), rdx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let (ending, state) = alike(Start::Kernel64, &[(CODE, code)], &|_| {});
    assert!(matches!(ending, Ending::Exception(_)));
    assert_eq!((state.gpr[Gpr::Rcx], state.gpr[Gpr::Rdx]), (3, 3));
}

#[test]
fn a_breakpoint_on_the_stack_is_met_by_the_next_push() {
    let code: Program = |a| {
        let (mut top, mut skip) = (a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.lea(rax, rsp - 8)?;
        a.mov(dr0, rax)?;
        // Writes of 8 bytes.
        a.mov(eax, 0x9_0401)?;
        a.set_label(&mut top)?;
        a.cmp(ecx, 3)?;
        a.jne(skip)?;
        a.mov(dr7, rax)?;
        a.set_label(&mut skip)?;
        a.push(rcx)?;
        a.inc(rbx)?;
        a.pop(rdx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let (_, state) = alike(Start::Kernel64, &[(CODE, code)], &|_| {});
    assert_eq!(state.gpr[Gpr::Rcx], 3);
}
