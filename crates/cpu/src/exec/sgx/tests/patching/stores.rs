//! Every kind of store, to every place in a line and across a page, on one processor and on two.

use cloister_sgx::{AttributeFlags, Attributes};
use cloister_x86::Gpr;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::super::host::{Host, SHARED, enter, exit};
use super::{
    LEFT, NEW, OLD, PAGES, PATCHED, RESULT, host, image, put, put_function, run_to_exit, to_user,
};
use crate::testing::DEVICE;
use crate::{Exit, Vcpu};

/// Stores what RSI points at to where RDI points. R12 to R15 are not its own.
type Store = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A way to store.
struct Kind {
    name: &'static str,
    /// How many bytes of the source are stored unchanged.
    width: usize,
    /// Where they are in what is stored. The rest is whatever the instruction makes it.
    lead: u64,
    /// What RDI is a multiple of.
    align: u64,
    store: Store,
}

/// A store of `width` bytes at any address.
const fn plain(name: &'static str, width: usize, store: Store) -> Kind {
    Kind { name, width, lead: 0, align: 1, store }
}

/// A store of 16 bytes to an aligned address.
const fn aligned(name: &'static str, store: Store) -> Kind {
    Kind { name, width: 16, lead: 0, align: 16, store }
}

const KINDS: [Kind; 52] = [
    plain("MOV m8", 1, |a| {
        a.mov(al, byte_ptr(rsi))?;
        a.mov(byte_ptr(rdi), al)
    }),
    plain("MOV m16", 2, |a| {
        a.mov(ax, word_ptr(rsi))?;
        a.mov(word_ptr(rdi), ax)
    }),
    plain("MOV m32", 4, |a| {
        a.mov(eax, dword_ptr(rsi))?;
        a.mov(dword_ptr(rdi), eax)
    }),
    plain("MOV m64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(qword_ptr(rdi), rax)
    }),
    plain("MOV m8, imm8", 1, |a| a.mov(byte_ptr(rdi), u32::from(NEW))),
    plain("MOVBE m64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.bswap(rax)?;
        a.movbe(qword_ptr(rdi), rax)
    }),
    plain("MOVNTI m64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.movnti(qword_ptr(rdi), rax)
    }),
    plain("XOR m8", 1, |a| {
        a.mov(al, byte_ptr(rdi))?;
        a.xor(al, byte_ptr(rsi))?;
        a.xor(byte_ptr(rdi), al)
    }),
    plain("XOR m64", 8, |a| {
        a.mov(rax, qword_ptr(rdi))?;
        a.xor(rax, qword_ptr(rsi))?;
        a.xor(qword_ptr(rdi), rax)
    }),
    plain("ADD m32", 4, |a| {
        a.mov(eax, dword_ptr(rsi))?;
        a.sub(eax, dword_ptr(rdi))?;
        a.add(dword_ptr(rdi), eax)
    }),
    plain("LOCK XOR m8", 1, |a| {
        a.mov(al, byte_ptr(rdi))?;
        a.xor(al, byte_ptr(rsi))?;
        a.lock().xor(byte_ptr(rdi), al)
    }),
    plain("LOCK XOR m16", 2, |a| {
        a.mov(ax, word_ptr(rdi))?;
        a.xor(ax, word_ptr(rsi))?;
        a.lock().xor(word_ptr(rdi), ax)
    }),
    plain("LOCK XADD m32", 4, |a| {
        a.mov(eax, dword_ptr(rsi))?;
        a.sub(eax, dword_ptr(rdi))?;
        a.lock().xadd(dword_ptr(rdi), eax)
    }),
    plain("LOCK ADD m64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.sub(rax, qword_ptr(rdi))?;
        a.lock().add(qword_ptr(rdi), rax)
    }),
    plain("XCHG m8", 1, |a| {
        a.mov(al, byte_ptr(rsi))?;
        a.xchg(byte_ptr(rdi), al)
    }),
    plain("XCHG m16", 2, |a| {
        a.mov(ax, word_ptr(rsi))?;
        a.xchg(word_ptr(rdi), ax)
    }),
    plain("XCHG m32", 4, |a| {
        a.mov(eax, dword_ptr(rsi))?;
        a.xchg(dword_ptr(rdi), eax)
    }),
    plain("XCHG m64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.xchg(qword_ptr(rdi), rax)
    }),
    plain("CMPXCHG m32", 4, |a| {
        a.mov(eax, dword_ptr(rdi))?;
        a.mov(ecx, dword_ptr(rsi))?;
        a.cmpxchg(dword_ptr(rdi), ecx)
    }),
    plain("LOCK CMPXCHG m64", 8, |a| {
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(rcx, qword_ptr(rsi))?;
        a.lock().cmpxchg(qword_ptr(rdi), rcx)
    }),
    plain("LOCK CMPXCHG8B", 8, |a| {
        a.mov(eax, dword_ptr(rdi))?;
        a.mov(edx, dword_ptr(rdi + 4))?;
        a.mov(ebx, dword_ptr(rsi))?;
        a.mov(ecx, dword_ptr(rsi + 4))?;
        a.lock().cmpxchg8b(qword_ptr(rdi))
    }),
    aligned("CMPXCHG16B", |a| {
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(rdx, qword_ptr(rdi + 8))?;
        a.mov(rbx, qword_ptr(rsi))?;
        a.mov(rcx, qword_ptr(rsi + 8))?;
        a.cmpxchg16b(xmmword_ptr(rdi))
    }),
    aligned("LOCK CMPXCHG16B", |a| {
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(rdx, qword_ptr(rdi + 8))?;
        a.mov(rbx, qword_ptr(rsi))?;
        a.mov(rcx, qword_ptr(rsi + 8))?;
        a.lock().cmpxchg16b(xmmword_ptr(rdi))
    }),
    plain("STOSB", 1, |a| {
        a.mov(al, byte_ptr(rsi))?;
        a.stosb()
    }),
    plain("REP STOSQ", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(ecx, 1)?;
        a.rep().stosq()
    }),
    plain("MOVSD", 4, |a| a.movsd()),
    plain("REP MOVSB", 13, |a| {
        a.mov(ecx, 13)?;
        a.rep().movsb()
    }),
    plain("REP MOVSQ", 64, |a| {
        a.mov(ecx, 8)?;
        a.rep().movsq()
    }),
    plain("REP MOVSB downwards", 13, |a| {
        a.mov(ecx, 13)?;
        a.add(rsi, 12)?;
        a.add(rdi, 12)?;
        a.std()?;
        a.rep().movsb()?;
        a.cld()
    }),
    plain("PUSH r64", 8, |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(r15, rsp)?;
        a.lea(rsp, ptr(rdi + 8))?;
        a.push(rax)?;
        a.mov(rsp, r15)
    }),
    plain("PUSH m16", 2, |a| {
        a.mov(r15, rsp)?;
        a.lea(rsp, ptr(rdi + 2))?;
        a.push(word_ptr(rsi))?;
        a.mov(rsp, r15)
    }),
    plain("POP m64", 8, |a| {
        a.push(qword_ptr(rsi))?;
        a.pop(qword_ptr(rdi))
    }),
    plain("ENTER", 8, |a| {
        a.mov(r15, rsp)?;
        a.mov(rbp, qword_ptr(rsi))?;
        a.lea(rsp, ptr(rdi + 8))?;
        a.enter(0, 0)?;
        a.mov(rsp, r15)
    }),
    plain("MOVD", 4, |a| {
        a.movd(xmm0, dword_ptr(rsi))?;
        a.movd(dword_ptr(rdi), xmm0)
    }),
    plain("MOVQ from MMX", 8, |a| {
        a.movq(mm0, qword_ptr(rsi))?;
        a.movq(qword_ptr(rdi), mm0)?;
        a.emms()
    }),
    plain("MOVHPS", 8, |a| {
        a.movhps(xmm0, qword_ptr(rsi))?;
        a.movhps(qword_ptr(rdi), xmm0)
    }),
    plain("MOVUPS", 16, |a| {
        a.movups(xmm0, xmmword_ptr(rsi))?;
        a.movups(xmmword_ptr(rdi), xmm0)
    }),
    aligned("MOVAPS", |a| {
        a.movups(xmm0, xmmword_ptr(rsi))?;
        a.movaps(xmmword_ptr(rdi), xmm0)
    }),
    aligned("MOVNTDQ", |a| {
        a.movups(xmm0, xmmword_ptr(rsi))?;
        a.movntdq(xmmword_ptr(rdi), xmm0)
    }),
    plain("MASKMOVDQU", 16, |a| {
        a.movups(xmm0, xmmword_ptr(rsi))?;
        a.pcmpeqd(xmm1, xmm1)?;
        a.maskmovdqu(xmm0, xmm1)
    }),
    plain("PEXTRB", 1, |a| {
        a.movd(xmm0, dword_ptr(rsi))?;
        a.pextrb(byte_ptr(rdi), xmm0, 0)
    }),
    plain("VMOVDQU ymm", 32, |a| {
        a.vmovdqu(ymm0, ymmword_ptr(rsi))?;
        a.vmovdqu(ymmword_ptr(rdi), ymm0)
    }),
    plain("VEXTRACTF128", 16, |a| {
        a.vbroadcastf128(ymm0, xmmword_ptr(rsi))?;
        a.vextractf128(xmmword_ptr(rdi), ymm0, 1)
    }),
    plain("VMASKMOVPS ymm", 32, |a| {
        a.vmovdqu(ymm0, ymmword_ptr(rsi))?;
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        a.vmaskmovps(ymmword_ptr(rdi), ymm1, ymm0)
    }),
    plain("FST m32", 4, |a| {
        a.fld(dword_ptr(rsi))?;
        a.fst(dword_ptr(rdi))
    }),
    plain("FSTP m64", 8, |a| {
        a.fld(qword_ptr(rsi))?;
        a.fstp(qword_ptr(rdi))
    }),
    plain("FSTP m80", 10, |a| {
        a.fld(tbyte_ptr(rsi))?;
        a.fstp(tbyte_ptr(rdi))
    }),
    plain("FISTP m64", 8, |a| {
        a.fild(qword_ptr(rsi))?;
        a.fistp(qword_ptr(rdi))
    }),
    Kind {
        name: "FNSAVE",
        width: 10,
        lead: 28,
        align: 1,
        store: |a| {
            a.fld(tbyte_ptr(rsi))?;
            a.fnsave(ptr(rdi))
        },
    },
    Kind {
        name: "FXSAVE64",
        width: 16,
        lead: 160,
        align: 16,
        store: |a| {
            a.movups(xmm0, xmmword_ptr(rsi))?;
            a.fxsave64(ptr(rdi))
        },
    },
    Kind {
        name: "XSAVE64",
        width: 16,
        lead: 160,
        align: 64,
        store: |a| {
            a.movups(xmm0, xmmword_ptr(rsi))?;
            a.mov(eax, 3)?;
            a.xor(edx, edx)?;
            a.xsave64(ptr(rdi))
        },
    },
    Kind {
        name: "XSAVEC64",
        width: 16,
        lead: 160,
        align: 64,
        store: |a| {
            a.movups(xmm0, xmmword_ptr(rsi))?;
            a.mov(eax, 3)?;
            a.xor(edx, edx)?;
            a.xsavec64(ptr(rdi))
        },
    },
];

/// Bits of R13: what a thread of the enclave does, in this order.
mod steps {
    /// Calls the function and puts what it returns into R12B.
    pub(super) const FIRST_CALL: u64 = 1;
    /// Reads a device register, so that the owner can do something while the thread is inside.
    pub(super) const PAUSE: u64 = 2;
    /// Stores.
    pub(super) const STORE: u64 = 4;
    /// Calls the function again; what it returns stays in R8B.
    pub(super) const SECOND_CALL: u64 = 8;
}

/// The enclave's code, for a function at R14.
fn program(a: &mut CodeAssembler, store: Store) -> Result<(), IcedError> {
    let (mut pause, mut change, mut call, mut leave) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    // After a reset all registers of the x87 FPU are in use.
    a.fninit()?;
    a.test(r13d, steps::FIRST_CALL as u32)?;
    a.je(pause)?;
    a.call(r14)?;
    a.mov(r12d, r8d)?;
    a.set_label(&mut pause)?;
    a.test(r13d, steps::PAUSE as u32)?;
    a.je(change)?;
    a.mov(al, byte_ptr(DEVICE))?;
    a.set_label(&mut change)?;
    a.test(r13d, steps::STORE as u32)?;
    a.je(call)?;
    store(a)?;
    a.set_label(&mut call)?;
    a.test(r13d, steps::SECOND_CALL as u32)?;
    a.je(leave)?;
    a.call(r14)?;
    a.set_label(&mut leave)?;
    exit(a)
}

/// A store that is to change the function's result at `at`: its place and what it stores.
struct Change {
    at: u64,
    operand: u64,
    image: Vec<u8>,
}

/// The changes by a kind of store in the two lines around a page boundary: by its first byte and by
/// its last, or, where the store's surroundings are its own, by one that brings the function along.
fn changes(kind: &Kind) -> Vec<Change> {
    let boundary = PATCHED + PAGES / 2 * 0x1000;
    let skews = match (kind.lead, kind.width) {
        (0, 1) => vec![0],
        (0, width) => vec![0, width as u64 - 1],
        _ => vec![RESULT],
    };
    let mut changes = Vec::new();
    for at in boundary - 64..boundary + 64 {
        for skew in &skews {
            let operand = at - skew - kind.lead;
            if operand.is_multiple_of(kind.align) {
                changes.push(Change { at, operand, image: image(*skew, kind.width, NEW) });
            }
        }
    }
    changes
}

/// An enclave that can store in one way.
fn load(kind: &Kind) -> Host {
    let mut host = host();
    let attributes = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    host.load_with(Attributes::new(attributes, 7), |a| program(a, kind.store));
    host
}

/// NOPs everywhere, the old function in its place, and the image of the new one for the store.
fn arrange(host: &mut Host, change: &Change) {
    put(host, PATCHED, &[0x90; PAGES as usize * 0x1000]);
    put_function(host, change.at);
    host.kernel.guest.write(SHARED, &change.image);
}

/// Lets a thread take these steps next.
fn prepare(vcpu: &mut Vcpu, thread: u64, change: &Change, steps: u64) {
    enter(vcpu, thread);
    let gpr = &mut vcpu.cpu.arch.gpr;
    (gpr[Gpr::Rsi], gpr[Gpr::Rdi]) = (SHARED, change.operand);
    (gpr[Gpr::R8], gpr[Gpr::R12], gpr[Gpr::R13], gpr[Gpr::R14]) = (0, 0, steps, change.at - RESULT);
}

#[test]
fn a_processor_runs_code_in_an_enclave_as_any_store_of_its_own_left_it() {
    for kind in &KINDS {
        let mut host = load(kind);
        let mut vcpu = host.processor(1);
        to_user(&mut vcpu);
        for change in changes(kind) {
            arrange(&mut host, &change);
            let all = steps::FIRST_CALL | steps::STORE | steps::SECOND_CALL;
            prepare(&mut vcpu, 0, &change, all);

            let left = run_to_exit(&mut vcpu);

            let results = (vcpu.cpu.arch.gpr[Gpr::R12] as u8, vcpu.cpu.arch.gpr[Gpr::R8] as u8);
            assert_eq!((left, results), (LEFT, (OLD, NEW)), "{} at {:#x}", kind.name, change.at);
        }
    }
}

#[test]
fn a_processor_runs_code_in_an_enclave_as_any_store_of_another_left_it() {
    for kind in &KINDS {
        let mut host = load(kind);
        let (mut reader, mut writer) = (host.processor(1), host.processor(2));
        to_user(&mut reader);
        to_user(&mut writer);
        for change in changes(kind) {
            arrange(&mut host, &change);
            let calls = steps::FIRST_CALL | steps::PAUSE | steps::SECOND_CALL;
            prepare(&mut reader, 0, &change, calls);
            prepare(&mut writer, 1, &change, steps::STORE);

            let paused = matches!(reader.run(), Exit::MmioRead { .. });
            let stored = run_to_exit(&mut writer);
            reader.complete(0);
            let left = run_to_exit(&mut reader);

            let results = (reader.cpu.arch.gpr[Gpr::R12] as u8, reader.cpu.arch.gpr[Gpr::R8] as u8);
            assert_eq!((paused, stored, left), (true, LEFT, LEFT), "{}", kind.name);
            assert_eq!(results, (OLD, NEW), "{} at {:#x}", kind.name, change.at);
        }
    }
}
