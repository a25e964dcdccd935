//! Measures how many million guest instructions retire in a second, interpreted and translated.
//!
//! `cargo run --release -p cloister-jit --example mips`
#![expect(clippy::print_stdout, reason = "its output is the point")]

use cloister_cpu::testing::{DATA, Ending, Guest, Start};
use cloister_jit::Jit;
use cloister_x86::Gpr;
use iced_x86::IcedError;
use iced_x86::code_asm::{
    CodeAssembler, dword_ptr, eax, ebx, ecx, edx, qword_ptr, r8, r9, rax, rbp, rbx, rcx, rdi, rdx,
    rsi, rsp, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmmword_ptr, ymm0, ymm1, ymm2, ymm3,
    ymmword_ptr,
};

const ROUNDS: u64 = 5_000_000;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Registers only: 9 instructions a round.
fn integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.set_label(&mut top)?;
    a.add(rax, rcx)?;
    a.xor(rbx, rax)?;
    a.lea(rdx, rbx + 8)?;
    a.shl(rdx, 3)?;
    a.mov(r8, rdx)?;
    a.and(r8, 0xfff)?;
    a.add(r9, r8)?;
    a.dec(rcx)?;
    a.jne(top)
}

/// Loads, stores and read-modify-writes over 16 KiB: 9 instructions a round.
fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.set_label(&mut top)?;
    a.mov(rdi, rcx)?;
    a.and(rdi, 0x7ff)?;
    a.mov(rax, qword_ptr(rsi + rdi * 8))?;
    a.add(rax, rcx)?;
    a.mov(qword_ptr(rsi + rdi * 8), rax)?;
    a.add(qword_ptr(rsi + 0x80), rax)?;
    a.movzx(edx, iced_x86::code_asm::byte_ptr(rsi + rdi))?;
    a.dec(rcx)?;
    a.jne(top)
}

/// Calls two deep with frames: 19 instructions a round.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut outer, mut inner, mut end) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut top)?;
    a.mov(rdi, rcx)?;
    a.call(outer)?;
    a.dec(rcx)?;
    a.jne(top)?;
    a.jmp(end)?;
    a.set_label(&mut outer)?;
    a.push(rbp)?;
    a.mov(rbp, rsp)?;
    a.push(rbx)?;
    a.mov(rbx, rdi)?;
    a.call(inner)?;
    a.add(rax, rbx)?;
    a.pop(rbx)?;
    a.pop(rbp)?;
    a.ret()?;
    a.set_label(&mut inner)?;
    a.push(rbp)?;
    a.mov(rbp, rsp)?;
    a.lea(rax, rdi + rdi * 2)?;
    a.test(rax, rax)?;
    a.pop(rbp)?;
    a.ret()?;
    a.set_label(&mut end)?;
    a.nop()
}

/// Short blocks with branches that a processor cannot predict well: 11 to 13 instructions a round.
fn branches(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut odd, mut next, mut low) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(rsi, DATA)?;
    a.mov(eax, 1)?;
    a.set_label(&mut top)?;
    a.imul_3(eax, eax, 1_103_515_245)?;
    a.add(eax, 12345)?;
    a.mov(ebx, eax)?;
    a.shr(ebx, 16)?;
    a.test(ebx, 1)?;
    a.jne(odd)?;
    a.add(dword_ptr(rsi), ebx)?;
    a.jmp(next)?;
    a.set_label(&mut odd)?;
    a.cmp(ebx, 0x4000)?;
    a.jb(low)?;
    a.inc(edx)?;
    a.set_label(&mut low)?;
    a.sub(dword_ptr(rsi + 4), ebx)?;
    a.set_label(&mut next)?;
    a.dec(ecx)?;
    a.jne(top)
}

/// `rep movsb` and `rep stosq` of a page each: counted as two instructions a round.
fn strings(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rdx, rcx)?;
    a.shr(rdx, 5)?;
    a.set_label(&mut top)?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, DATA + 0x1000)?;
    a.mov(ecx, 4096)?;
    a.rep().movsb()?;
    a.mov(ecx, 512)?;
    a.mov(rdi, DATA + 0x2000)?;
    a.rep().stosq()?;
    a.dec(rdx)?;
    a.jne(top)
}

/// `repe cmpsb` and `repne scasb` of a page each that is all zeros: counted as two instructions a round.
fn comparisons(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rdx, rcx)?;
    a.shr(rdx, 10)?;
    a.mov(eax, 1)?;
    a.set_label(&mut top)?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, DATA + 0x1000)?;
    a.mov(ecx, 4096)?;
    a.repe().cmpsb()?;
    a.mov(ecx, 4096)?;
    a.mov(rdi, DATA + 0x1000)?;
    a.repne().scasb()?;
    a.dec(rdx)?;
    a.jne(top)
}

/// Rounds of SHA-256 by the SHA extensions over 16 KiB: 12 instructions a round.
fn sha(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.set_label(&mut top)?;
    a.mov(rdi, rcx)?;
    a.and(rdi, 0x3ff0)?;
    a.movdqu(xmm4, xmmword_ptr(rsi + rdi))?;
    a.pshufb(xmm4, xmm7)?;
    a.movdqa(xmm0, xmm4)?;
    a.paddd(xmm0, xmmword_ptr(rsi + 0x40))?;
    a.sha256rnds2(xmm2, xmm1)?;
    a.pshufd(xmm0, xmm0, 0xe)?;
    a.sha256msg1(xmm3, xmm4)?;
    a.sha256rnds2(xmm1, xmm2)?;
    a.dec(rcx)?;
    a.jne(top)
}

/// AES-128 in counter mode, four blocks a round: 58 instructions.
fn aes(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let blocks = [xmm2, xmm3, xmm4, xmm5];
    a.mov(rdx, rcx)?;
    a.shr(rdx, 3)?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, DATA + 0x1000)?;
    a.set_label(&mut top)?;
    a.movdqu(xmm0, xmmword_ptr(rsi))?;
    for block in blocks {
        a.paddd(xmm1, xmm6)?;
        a.movdqa(block, xmm1)?;
        a.pxor(block, xmm0)?;
    }
    for key in 1..10 {
        a.movups(xmm0, xmmword_ptr(rsi + 16 * key))?;
        for block in blocks {
            a.aesenc(block, xmm0)?;
        }
    }
    for (n, block) in blocks.into_iter().enumerate() {
        a.aesenclast(block, xmm0)?;
        a.movups(xmmword_ptr(rdi + 16 * n), block)?;
    }
    a.dec(rdx)?;
    a.jne(top)
}

/// Copies 16 KiB by AVX: 11 instructions a round of 128 bytes.
fn copy(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.set_label(&mut top)?;
    a.mov(rdi, rcx)?;
    a.and(rdi, 0x7f)?;
    a.shl(rdi, 7)?;
    for (n, block) in [ymm0, ymm1, ymm2, ymm3].into_iter().enumerate() {
        a.vmovdqu(block, ymmword_ptr(rsi + rdi + 32 * n))?;
        a.vmovdqu(ymmword_ptr(rsi + rdi + 0x8000 + 32 * n), block)?;
    }
    a.dec(rcx)?;
    a.jne(top)
}

/// A polynomial in doubles: 9 instructions a round.
fn doubles(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.set_label(&mut top)?;
    a.mov(rdi, rcx)?;
    a.and(rdi, 0x7ff)?;
    a.cvtsi2sd(xmm0, rdi)?;
    a.mulsd(xmm0, xmm1)?;
    a.addsd(xmm0, qword_ptr(rsi + rdi * 8))?;
    a.addsd(xmm2, xmm0)?;
    a.movsd_2(qword_ptr(rsi + rdi * 8), xmm0)?;
    a.dec(rcx)?;
    a.jne(top)
}

/// Processor time that this process has used: what others run does not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

fn main() {
    let programs: [(&str, Program, f64); 10] = [
        ("integer loop", integer, 9.0),
        ("memory loop", memory, 9.0),
        ("calls", calls, 19.0),
        ("branches", branches, 11.25),
        ("strings", strings, 9.0 / 32.0),
        ("comparisons", comparisons, 9.0 / 1024.0),
        ("SHA-256", sha, 12.0),
        ("AES-128-CTR", aes, 68.0 / 8.0),
        ("copy by AVX", copy, 13.0),
        ("doubles", doubles, 9.0),
    ];
    for (name, program, per_round) in programs {
        let mips = [false, true].map(|translated| {
            let mut guest = Guest::new(Start::User64);
            if translated {
                let jit = Jit::new().expect("the host runs generated code");
                guest.vcpu.set_translator(Box::new(jit), 16);
            }
            guest.assemble(program);
            let mut state = guest.vcpu.cpu.state().clone();
            state.gpr[Gpr::Rcx] = ROUNDS;
            guest.vcpu.cpu.set_state(state);
            let start = cpu_seconds();
            let ending = guest.run();
            let seconds = cpu_seconds() - start;
            assert!(matches!(ending, Ending::Exception(_)), "{ending:?}");
            ROUNDS as f64 * per_round / seconds / 1e6
        });
        println!(
            "{name:14} {:7.1} MIPS, translated {:7.1}: {:.2} times",
            mips[0],
            mips[1],
            mips[1] / mips[0]
        );
    }
}
