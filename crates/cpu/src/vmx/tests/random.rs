//! Random VMCS contents: whatever a hypervisor writes, an entry is refused, fails, or lets the guest
//! run, and what the processor says of it holds.

use std::thread::{self, ScopedJoinHandle};

use cloister_x86::Gpr;
use iced_x86::code_asm::*;

use super::ept::PML4;
use super::machine::PAGE;
use crate::testing::Numbers;
use crate::vmx::fuzzing::contents::{self, prepare};
use crate::vmx::fuzzing::{INSTRUCTIONS, Outcome, Session, step, vmcs};
use crate::{Exit, Vcpu};

/// VM entries of the ordinary tests; the variable has another number.
const ENTRIES: u64 = 20_000;
const ENTRIES_VARIABLE: &str = "CLOISTER_VMCS_ENTRIES";
/// Entries by processors that share memory, each.
const SHARED_ENTRIES: u64 = 1_000;
/// Entries for which the same memory serves, whatever guests do to it.
const SESSION: u64 = 64;

/// Inputs of the fuzz target, of random bytes.
const INPUTS: u64 = 300;

/// Regions of processors that share memory, one page each, after the extended page tables.
const REGIONS: u64 = 0x20_8000;

#[test]
fn whatever_a_vmcs_says_the_processor_goes_on_as_it_says() {
    let entries = std::env::var(ENTRIES_VARIABLE)
        .map_or(ENTRIES, |text| text.parse().expect("a number of VM entries"));
    let mut numbers = Numbers::new(0x9e37_79b9_7f4a_7c15);
    let mut session = Session::new(&mut numbers);
    let (mut counts, mut rounds) = ([0; 4], 0);
    for _ in 0..entries {
        if rounds == SESSION {
            session = Session::new(&mut numbers);
            rounds = 0;
        }

        let outcome = session.round(&mut numbers);

        counts[outcome as usize] += 1;
        rounds = if outcome == Outcome::Over { SESSION } else { rounds + 1 };
    }
    // Each outcome is common enough for the test to mean something.
    let [refused, failed, exited, over] = counts;
    assert!(refused.min(failed).min(exited) > entries / 20 && over < entries / 4, "{counts:?}");
}

#[test]
fn bytes_of_a_fuzzer_decide_what_random_numbers_do() {
    let mut numbers = Numbers::new(0x5555_1234_9abc_def1);
    vmcs(&[]);
    for _ in 0..INPUTS {
        let length = numbers.below(4096);
        let bytes: Vec<u8> = (0..length).map(|_| numbers.draw() as u8).collect();
        vmcs(&bytes);
    }
}

#[test]
fn processors_whose_regions_and_tables_change_under_them_go_on() {
    let mut numbers = Numbers::new(0x0123_4567_89ab_cdef);
    let mut guest = contents::machine(4, &mut numbers);
    // Stores of any size of number, all over the extended page tables and the regions after them.
    guest.assemble_at(PAGE + 0x1000, 64, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            a.mov(rdx, rax)?;
            if left {
                a.shl(rdx, by)?;
            } else {
                a.shr(rdx, by)?;
            }
            a.xor(rax, rdx)?;
        }
        a.mov(rdx, rax)?;
        a.mov(rcx, rax)?;
        a.shr(rdx, cl)?;
        a.shr(rcx, 20)?;
        a.and(ecx, 0xfff8)?;
        a.mov(qword_ptr(rcx + PML4), rdx)?;
        a.jmp(again)
    });
    let start = guest.vcpu.cpu.arch.clone();
    let kicker = guest.vcpu.cpu.kicker.clone();
    let others: Vec<Vcpu> = (1..4).map(|id| guest.processor(id)).collect();
    let writer = &mut guest.vcpu;
    writer.cpu.arch.rip = PAGE + 0x1000;
    writer.cpu.arch.gpr[Gpr::Rax] = 0x9e37_79b9_7f4a_7c15;

    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.run());
        let entering: Vec<_> = (0..)
            .zip(others)
            .map(|(n, mut vcpu)| {
                let start = &start;
                scope.spawn(move || {
                    let mut numbers = Numbers::new(n + 1);
                    vcpu.cpu.ctl.vmx_enabled = true;
                    for _ in 0..SHARED_ENTRIES {
                        let at = REGIONS + 0x1000 * n;
                        prepare(&mut vcpu.cpu, start, at, &mut numbers);
                        for _ in 0..INSTRUCTIONS {
                            if step(&mut vcpu, &mut numbers).is_err() {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = entering.into_iter().map(ScopedJoinHandle::join).collect();
        kicker.request_exit();
        // Its own code and tables lie where MSR lists, logs of modified pages and guests may write.
        let end = writing.join().expect("the writer does not panic");
        assert!(matches!(end, Exit::Requested | Exit::TripleFault), "{end:?}");
        assert!(ended.iter().all(Result::is_ok), "a processor panicked");
    });
}
