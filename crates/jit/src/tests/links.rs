//! Blocks that lead to each other, and what has to part them: changed code, other translations, events.

use std::time::Duration;

use cloister_cpu::testing::{CODE, Ending, Guest, RAM_SIZE, Start};
use cloister_cpu::{ArchState, Exit};
use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{ROOM, guest, run_loaded};
use crate::host::HostFeatures;

pub(super) type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A page of code beside that of the program.
const OTHER: u64 = CODE + 0x3000;
/// Rounds of loops: enough to translate and link all of it.
pub(super) const ROUNDS: u32 = 100;

/// Runs pieces of code, of which the first is at [`CODE`] and ends in `ud2`, both ways: they end alike, as
/// they are returned.
pub(super) fn alike(
    start: Start,
    code: &[(u64, Program)],
    prepare: &dyn Fn(&mut ArchState),
) -> (Ending, ArchState) {
    let [expected, found] = [None, Some(HostFeatures::detect())].map(|host| {
        let mut guest = guest(start, host);
        for (address, program) in code {
            guest.assemble_at(*address, 64, |a| {
                program(a)?;
                a.ud2()
            });
        }
        let initial = guest.vcpu.cpu.state().clone();
        run_loaded(&mut guest, &[7; ROOM], &initial, prepare)
    });
    assert_eq!(expected.ending, found.ending);
    assert_eq!(expected.state, found.state);
    assert!(expected.data == found.data, "other data");
    (found.ending, found.state)
}

#[test]
fn a_loop_that_changes_its_own_block_runs_what_it_wrote() {
    let code: Program = |a| {
        let (mut top, mut changed) = (a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.lea(rsi, qword_ptr(changed))?;
        a.set_label(&mut top)?;
        // The immediate of the instruction after it.
        a.mov(dword_ptr(rsi + 1), ecx)?;
        a.set_label(&mut changed)?;
        a.mov(eax, 0)?;
        a.add(rbx, rax)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let (_, state) = alike(Start::User64, &[(CODE, code)], &|_| {});
    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS * (ROUNDS + 1) / 2));
}

#[test]
fn a_block_that_changes_a_block_ahead_or_behind_in_its_page_leads_to_what_it_wrote() {
    let code: Program = |a| {
        let (mut top, mut changed, mut middle, mut skip) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.lea(rsi, qword_ptr(changed))?;
        a.set_label(&mut top)?;
        a.test(cl, 3)?;
        a.jne(skip)?;
        // In one round of four.
        a.mov(dword_ptr(rsi + 1), ecx)?;
        a.set_label(&mut skip)?;
        a.jmp(changed)?;
        a.nop()?;
        a.set_label(&mut middle)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.ud2()?;
        a.set_label(&mut changed)?;
        a.mov(eax, 7)?;
        a.add(rbx, rax)?;
        a.push(rcx)?;
        a.test(cl, 7)?;
        a.lea(rdx, qword_ptr(middle))?;
        a.pop(rcx)?;
        a.jmp(middle)
    };
    alike(Start::User64, &[(CODE, code)], &|_| {});
}

#[test]
fn a_function_in_another_page_is_changed_between_calls() {
    let code: Program = |a| {
        let mut top = a.create_label();
        a.mov(ecx, ROUNDS)?;
        a.mov(rsi, OTHER)?;
        a.set_label(&mut top)?;
        a.call(OTHER)?;
        a.test(cl, 7)?;
        a.call(rsi)?;
        // Its immediate, through memory that is linear memory, too.
        a.mov(dword_ptr(rsi + 1), ecx)?;
        a.call(OTHER)?;
        a.mov(dword_ptr(rsi + 0x40), ecx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let function: Program = |a| {
        a.mov(eax, 5)?;
        a.add(rbx, rax)?;
        a.ret()
    };
    let (_, state) = alike(Start::User64, &[(CODE, code), (OTHER, function)], &|_| {});
    assert_ne!(state.gpr[Gpr::Rbx], 0);
}

#[test]
fn returns_go_where_the_stack_says_also_when_no_call_was_there() {
    let code: Program = |a| {
        let (mut top, mut there, mut deep, mut down) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        // A return that jumps.
        a.lea(rax, qword_ptr(there))?;
        a.push(rax)?;
        a.ret()?;
        a.inc(r9)?;
        a.set_label(&mut there)?;
        // Deeper than what is noted of calls.
        a.mov(edx, 100)?;
        a.call(deep)?;
        // A call that does not return.
        a.call(OTHER)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.ud2()?;
        a.set_label(&mut deep)?;
        a.inc(rbx)?;
        a.dec(edx)?;
        a.je(down)?;
        a.call(deep)?;
        a.inc(r8)?;
        a.set_label(&mut down)?;
        a.ret()
    };
    let other: Program = |a| {
        a.pop(rax)?;
        a.lea(rax, rax + 0)?;
        a.jmp(rax)
    };
    alike(Start::User64, &[(CODE, code), (OTHER, other)], &|_| {});
}

#[test]
fn a_return_to_a_non_canonical_address_faults_at_the_return() {
    let code: Program = |a| {
        let (mut top, mut good, mut ready) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.lea(rax, qword_ptr(good))?;
        a.cmp(ecx, 1)?;
        a.jne(ready)?;
        a.mov(rax, 0x8000_0000_0000_u64)?;
        a.set_label(&mut ready)?;
        a.push(rax)?;
        a.cmp(ecx, 50)?;
        a.ret()?;
        a.set_label(&mut good)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let (ending, _) = alike(Start::User64, &[(CODE, code)], &|_| {});
    assert!(matches!(ending, Ending::Exception(_)));
}

#[test]
fn flags_are_right_at_a_fault_in_a_linked_loop() {
    let code: Program = |a| {
        let (mut top, mut odd, mut next) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rsi, RAM_SIZE / 2)?;
        a.set_label(&mut top)?;
        a.add(eax, 0x7fff_fff1)?;
        a.jo(odd)?;
        a.inc(rbx)?;
        a.set_label(&mut odd)?;
        a.sbb(rdx, rax)?;
        a.mov(r8, qword_ptr(rsi))?;
        a.js(next)?;
        a.adc(r9, r8)?;
        a.set_label(&mut next)?;
        // Past the device, and once out of the memory.
        a.lea(rsi, rsi + 0x5000)?;
        a.jmp(top)
    };
    let (ending, state) = alike(Start::User64, &[(CODE, code)], &|_| {});
    assert!(matches!(ending, Ending::Exception(_)));
    assert!(state.gpr[Gpr::Rsi] >= RAM_SIZE);
}

#[test]
fn popf_of_tf_in_a_linked_loop_traps_after_the_next_instruction() {
    let code: Program = |a| {
        let (mut top, mut skip) = (a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.pushfq()?;
        a.cmp(ecx, 3)?;
        a.jne(skip)?;
        a.or(qword_ptr(rsp), Rflags::TF.bits() as i32)?;
        a.set_label(&mut skip)?;
        a.popfq()?;
        a.inc(rbx)?;
        a.inc(rdx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    // There is no handler.
    let (ending, state) = alike(Start::User64, &[(CODE, code)], &|_| {});
    assert_eq!(ending, Ending::Exit(Exit::TripleFault));
    assert_eq!(state.gpr[Gpr::Rbx], state.gpr[Gpr::Rdx] + 1);
}

#[test]
fn a_breakpoint_that_a_linked_loop_sets_stops_it() {
    let code: Program = |a| {
        let (mut top, mut skip, mut there) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.lea(rax, qword_ptr(there))?;
        a.mov(dr0, rax)?;
        a.mov(eax, 0x401)?;
        a.set_label(&mut top)?;
        a.cmp(ecx, 3)?;
        a.jne(skip)?;
        a.mov(dr7, rax)?;
        a.set_label(&mut skip)?;
        a.inc(rbx)?;
        a.set_label(&mut there)?;
        a.inc(rdx)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let (ending, state) = alike(Start::Kernel64, &[(CODE, code)], &|_| {});
    assert!(matches!(ending, Ending::Exception(_)));
    assert_eq!(state.gpr[Gpr::Rcx], 3);
}

/// Makes a second set of page tables at 2 MiB that maps [`OTHER`] to the page after it: their CR3.
fn other_tables(a: &mut CodeAssembler) -> Result<u64, IcedError> {
    const TABLES: u64 = 0x20_0000;
    a.cld()?;
    // PML4, PDPT, PD and the first page table, each with its own one below.
    a.mov(rsi, 0x1000_u64)?;
    a.mov(rdi, TABLES)?;
    a.mov(ecx, 4 * 512)?;
    a.rep().movsq()?;
    for (table, next) in [(0, 1), (1, 2), (2, 3)] {
        a.mov(rax, (TABLES + next * 0x1000) | 0b111)?;
        a.mov(qword_ptr(TABLES + table * 0x1000), rax)?;
    }
    a.mov(rax, (OTHER + 0x1000) | 0b111)?;
    a.mov(qword_ptr(TABLES + 0x3000 + (OTHER >> 12) * 8), rax)?;
    Ok(TABLES)
}

const ADD_ONE: Program = |a| {
    a.inc(rbx)?;
    a.ret()
};
const ADD_THOUSAND: Program = |a| {
    a.add(rbx, 1000)?;
    a.ret()
};

#[test]
fn a_call_leads_where_the_page_tables_in_force_say() {
    let code: Program = |a| {
        let mut top = a.create_label();
        let tables = other_tables(a)?;
        a.mov(rdx, tables)?;
        a.mov(rsi, 0x1000_u64)?;
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.call(OTHER)?;
        a.call(OTHER)?;
        a.mov(cr3, rdx)?;
        a.call(OTHER)?;
        a.mov(cr3, rsi)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let pieces = [(CODE, code), (OTHER, ADD_ONE), (OTHER + 0x1000, ADD_THOUSAND)];
    let (_, state) = alike(Start::Kernel64, &pieces, &|_| {});
    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS) * 1002);
}

#[test]
fn a_call_leads_elsewhere_once_its_translation_is_dropped() {
    /// Entry of the page table for [`OTHER`].
    const ENTRY: u64 = 0x4000 + (OTHER >> 12) * 8;
    let code: Program = |a| {
        let mut top = a.create_label();
        a.mov(rsi, OTHER)?;
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.call(OTHER)?;
        a.call(rsi)?;
        a.xor(qword_ptr(ENTRY), 0x7000)?;
        a.invlpg(byte_ptr(rsi))?;
        a.dec(ecx)?;
        a.jne(top)
    };
    // OTHER ^ 7000H is another page.
    let pieces = [(CODE, code), (OTHER, ADD_ONE), (OTHER ^ 0x7000, ADD_THOUSAND)];
    let (_, state) = alike(Start::Kernel64, &pieces, &|_| {});
    assert_eq!(state.gpr[Gpr::Rbx], u64::from(ROUNDS) * 1001);
}

/// A machine of two processors, the second of which is to run `program` translated, and its processor.
fn second_processor(program: Program) -> (Guest, cloister_cpu::Vcpu) {
    let mut guest = Guest::with_cpus(Start::User64, 2);
    guest.assemble_at(CODE, 64, program);
    let mut vcpu = guest.processor(1);
    vcpu.cpu.set_state(guest.vcpu.cpu.state().clone());
    vcpu.set_translator(Box::new(crate::Jit::new().expect("the host runs generated code")), 2);
    vcpu.catch_exceptions(true);
    (guest, vcpu)
}

#[test]
fn a_tight_loop_sees_events_at_once() {
    let programs: [Program; 3] = [
        |a| {
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.jmp(top)
        },
        |a| {
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.call(OTHER)?;
            a.jmp(top)
        },
        |a| {
            // Returns alone, each to itself.
            a.lea(rax, qword_ptr(CODE))?;
            a.push(rax)?;
            a.ret()
        },
    ];
    for program in programs {
        let (mut guest, mut vcpu) = second_processor(program);
        guest.assemble_at(OTHER, 64, ADD_ONE);
        let kicker = vcpu.cpu.package().kickers[1].clone();
        std::thread::scope(|scope| {
            let runner = scope.spawn(move || vcpu.run());
            std::thread::sleep(Duration::from_millis(20));
            kicker.request_exit();
            assert_eq!(runner.join().unwrap(), Exit::Requested);
        });
    }
}

#[test]
fn a_linked_loop_sees_that_another_processor_changed_it() {
    let programs: [Program; 2] = [
        |a| {
            let (mut top, mut even) = (a.create_label(), a.create_label());
            a.set_label(&mut top)?;
            a.inc(rbx)?;
            a.test(bl, 1)?;
            a.je(even)?;
            a.inc(rdx)?;
            a.set_label(&mut even)?;
            a.jmp(top)
        },
        |a| {
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.call(OTHER)?;
            a.jmp(top)
        },
    ];
    for (program, changed) in programs.into_iter().zip([CODE, OTHER]) {
        let (mut guest, mut vcpu) = second_processor(program);
        guest.assemble_at(OTHER, 64, ADD_ONE);
        std::thread::scope(|scope| {
            let runner = scope.spawn(move || (vcpu.run(), vcpu));
            std::thread::sleep(Duration::from_millis(20));
            // UD2 in place of the first instruction.
            guest.write(changed, &[0x0f, 0x0b]);
            let (exit, mut vcpu) = runner.join().unwrap();
            assert_eq!(exit, Exit::Requested);
            assert!(vcpu.caught_exception().is_some());
            assert_eq!(vcpu.cpu.state().rip, changed);
        });
    }
}

#[test]
fn data_beside_code_is_stored_and_code_beside_data_is_changed() {
    let code: Program = |a| {
        let (mut top, mut function) = (a.create_label(), a.create_label());
        a.mov(ecx, ROUNDS)?;
        a.lea(rsi, qword_ptr(function))?;
        a.lea(rdi, qword_ptr(CODE + 0x800))?;
        a.set_label(&mut top)?;
        // Lines of the page without code, and such that reach from them to others.
        a.mov(qword_ptr(rdi), rcx)?;
        a.add(qword_ptr(rdi + 0x3c), rcx)?;
        a.inc(byte_ptr(rdi + 0x100))?;
        a.call(function)?;
        a.test(cl, 15)?;
        a.sete(byte_ptr(rdi + 0x200))?;
        a.mov(byte_ptr(rsi + 3), cl)?;
        a.add(rdx, qword_ptr(rdi + 0x3c))?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.ud2()?;
        a.set_label(&mut function)?;
        a.add(rbx, 1)?;
        a.ret()
    };
    alike(Start::User64, &[(CODE, code)], &|_| {});
}

#[test]
fn pushes_in_a_row_are_done_up_to_the_one_that_faults_or_that_changes_code() {
    // Down from the second page of the memory the stack runs into the device, from the code's own page
    // into the code.
    for stack in [RAM_SIZE - 0x1000 + 0x18, CODE + 0x800, RAM_SIZE + 0x10] {
        let code: Program = |a| {
            let mut top = a.create_label();
            a.mov(ecx, ROUNDS)?;
            a.set_label(&mut top)?;
            a.add(rax, rcx)?;
            a.push(rax)?;
            a.push(rcx)?;
            a.push(r12)?;
            a.push(rbp)?;
            a.push(rdi)?;
            a.pop(rdi)?;
            a.pop(r13)?;
            a.add(rsi, 7)?;
            a.dec(ecx)?;
            a.jne(top)
        };
        alike(Start::User64, &[(CODE, code)], &|state| state.gpr[Gpr::Rsp] = stack);
    }
}

#[test]
fn a_translator_that_comes_to_another_machine_knows_nothing_of_the_first_ones_code() {
    let program = |step: i32| {
        move |a: &mut CodeAssembler| {
            let (mut top, mut skip) = (a.create_label(), a.create_label());
            a.mov(ecx, ROUNDS)?;
            a.set_label(&mut top)?;
            a.test(cl, 1)?;
            a.jmp(skip)?;
            a.nop()?;
            a.set_label(&mut skip)?;
            a.add(rbx, step)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.ud2()
        }
    };
    let jit = crate::Jit::new().expect("the host runs generated code");
    let mut translator: Option<Box<dyn cloister_cpu::native::Translator>> = Some(Box::new(jit));
    for (step, sum) in [(1, ROUNDS), (2, 2 * ROUNDS)] {
        let mut guest = Guest::new(Start::User64);
        guest.vcpu.set_translator(translator.take().expect("it was taken back"), 2);
        guest.assemble_at(CODE, 64, program(step));
        guest.run();
        assert_eq!(guest.vcpu.cpu.state().gpr[Gpr::Rbx], u64::from(sum));
        translator = guest.vcpu.take_translator();
    }
}
