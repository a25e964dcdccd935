//! Two processors that change each other's code, both translated or one of them, in one page with
//! what they wait for each other by.

use std::time::{Duration, Instant};

use cloister_cpu::prepare_barrier;
use cloister_cpu::testing::{CODE, DATA, Guest, Start};
use cloister_cpu::{ArchState, Vcpu};
use cloister_x86::{Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

use crate::Jit;

/// How long it goes on; CLOISTER_PATCHING_SECONDS asks for more.
const SECONDS: u64 = 1;
/// Changes of each function in one run.
const ROUNDS: u64 = 50;
/// Calls of a function between two changes.
const CALLS: i32 = 20;

/// `MOV EAX, imm32; RET; NOP; NOP` and `MOV EDX, imm32; XCHG EAX, EDX; RET; NOP`, without the number.
const PLAIN: u64 = 0x9090_c300_0000_00b8;
const EXCHANGED: u64 = 0x90c3_9200_0000_00ba;

/// What a processor changes, calls, and tells the other by: each in a line of its own of one page.
struct Side {
    function: u64,
    changed: u64,
    called: u64,
}

const SIDES: [Side; 2] = [
    Side { function: DATA, changed: DATA + 0x80, called: DATA + 0x88 },
    Side { function: DATA + 0x40, changed: DATA + 0xc0, called: DATA + 0xc8 },
];

/// In round RBX, up to RBP: makes the other's function (R13) return the round, and says so (R14);
/// waits for the same of the other (R15), executes a serializing instruction, as SDM Vol. 3A, 9.1.3,
/// wants of whoever executes code that another processor has changed, and calls its function (R12);
/// says so (R8), and waits for the other (R9).
fn program(a: &mut CodeAssembler) -> Result<(), IcedError> {
    use iced_x86::code_asm::*;

    let (mut top, mut odd, mut store) = (a.create_label(), a.create_label(), a.create_label());
    let (mut change, mut call, mut wait) = (a.create_label(), a.create_label(), a.create_label());
    let mut wrong = a.create_label();
    a.set_label(&mut top)?;
    a.mov(rax, rbx)?;
    a.shl(rax, 8)?;
    a.test(bl, 1)?;
    a.jne(odd)?;
    a.mov(rcx, PLAIN)?;
    a.jmp(store)?;
    a.set_label(&mut odd)?;
    a.mov(rcx, EXCHANGED)?;
    a.set_label(&mut store)?;
    a.or(rax, rcx)?;
    a.mov(qword_ptr(r13), rax)?;
    a.mov(qword_ptr(r14), rbx)?;
    a.set_label(&mut change)?;
    a.pause()?;
    a.cmp(qword_ptr(r15), rbx)?;
    a.jb(change)?;
    a.mov(rax, cr3)?;
    a.mov(cr3, rax)?;
    a.mov(esi, CALLS)?;
    a.set_label(&mut call)?;
    a.xor(eax, eax)?;
    a.call(r12)?;
    a.cmp(eax, ebx)?;
    a.jne(wrong)?;
    a.dec(esi)?;
    a.jne(call)?;
    a.mov(qword_ptr(r8), rbx)?;
    a.set_label(&mut wait)?;
    a.pause()?;
    a.cmp(qword_ptr(r9), rbx)?;
    a.jb(wait)?;
    a.inc(rbx)?;
    a.cmp(rbx, rbp)?;
    a.jbe(top)?;
    a.ud2()?;
    // The other must not wait for ever.
    a.set_label(&mut wrong)?;
    a.mov(qword_ptr(r14), -1)?;
    a.mov(qword_ptr(r8), -1)?;
    a.int3()
}

/// The state in which processor `n` begins the first round.
fn state(first: &ArchState, n: usize) -> ArchState {
    let (own, other) = (&SIDES[n], &SIDES[1 - n]);
    let mut state = first.clone();
    state.rip = CODE;
    state.gpr[Gpr::Rsp] -= 0x1000 * n as u64;
    (state.gpr[Gpr::Rbx], state.gpr[Gpr::Rbp]) = (1, ROUNDS);
    (state.gpr[Gpr::R12], state.gpr[Gpr::R13]) = (own.function, other.function);
    (state.gpr[Gpr::R14], state.gpr[Gpr::R15]) = (own.changed, other.changed);
    (state.gpr[Gpr::R8], state.gpr[Gpr::R9]) = (own.called, other.called);
    state
}

/// Runs both for [`ROUNDS`].
fn run(vcpus: &mut [Vcpu; 2]) {
    std::thread::scope(|scope| {
        for (n, vcpu) in vcpus.iter_mut().enumerate() {
            scope.spawn(move || {
                vcpu.run();
                let ended = vcpu.caught_exception().map(|exception| exception.vector);
                let [rax, rbx] = [Gpr::Rax, Gpr::Rbx].map(|of| vcpu.cpu.state().gpr[of]);
                assert_eq!(
                    (ended, rbx),
                    (Some(Vector::Ud), ROUNDS + 1),
                    "processor {n}: in round {rbx} the function returned {rax}"
                );
            });
        }
    });
}

#[test]
fn processors_that_change_each_others_code_execute_what_was_written_last() {
    let seconds = std::env::var("CLOISTER_PATCHING_SECONDS")
        .map_or(SECONDS, |seconds| seconds.parse().expect("CLOISTER_PATCHING_SECONDS is a number"));
    prepare_barrier().expect("the host has membarrier");
    for translated in [[true, true], [true, false]] {
        let mut guest = Guest::with_cpus(Start::Kernel64, 2);
        guest.assemble(program);
        let first = guest.vcpu.cpu.state().clone();
        let mut other = guest.processor(1);
        other.catch_exceptions(true);
        let Guest { vcpu, .. } = &mut guest;
        let spare = Vcpu::new(vcpu.cpu.package().clone(), 0, vcpu.cpu.ctl.features);
        let mut vcpus = [std::mem::replace(vcpu, spare), other];
        for (vcpu, translated) in vcpus.iter_mut().zip(translated) {
            if translated {
                let jit = Jit::new().expect("the host runs generated code");
                vcpu.set_translator(Box::new(jit), 1);
            }
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) / 2 {
            for side in &SIDES {
                guest.write_u64(side.changed, 0);
                guest.write_u64(side.called, 0);
            }
            for (n, vcpu) in vcpus.iter_mut().enumerate() {
                vcpu.cpu.set_state(state(&first, n));
            }
            run(&mut vcpus);
        }
    }
}
