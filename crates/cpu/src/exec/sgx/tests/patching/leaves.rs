//! What SGX itself writes: leaves, and the SSA frame of an asynchronous exit.

use core::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{GprSgx, PageInfo, SecInfo, SecInfoFlags, gprsgx};
use cloister_sgx::{PageType, enclu};
use cloister_x86::{Gpr, Vector};
use iced_x86::code_asm::*;
use zerocopy::IntoBytes as _;

use super::super::host::{
    AEP, DATA, EXITED, HOLE, Host, PAGEINFO, SECINFO, SECS, SHARED, SSA, enter, epc_page, exit,
    window,
};
use super::{NEW, OLD, PATCHED, RESULT, host, image, put, put_function, to_user};
use crate::Exit;
use crate::testing::DEVICE;

/// An EPC page that no enclave of the tests has, for a version array.
const VERSIONS: u32 = epc_page(HOLE) + 1;
/// Where an evicted page and its PCMD go.
const EVICTED: u64 = SHARED + 0x1000;
const PCMD: u64 = SHARED + 0x3000;

/// An enclave that calls the function at R14.
fn caller() -> Host {
    let mut host = host();
    host.load(|a| {
        a.call(r14)?;
        exit(a)
    });
    host
}

/// What the function whose result is at `at` returns in the enclave; `None` if it does not return.
fn call(host: &mut Host, at: u64) -> Option<u8> {
    host.enter();
    let gpr = &mut host.kernel.vcpu().cpu.arch.gpr;
    (gpr[Gpr::R8], gpr[Gpr::R14]) = (0, at - RESULT);
    let frame = host.kernel.run_to_handler();
    let left = (frame.vector, frame.rip) == (Vector::Ud as u8, EXITED);
    left.then(|| host.kernel.vcpu().cpu.arch.gpr[Gpr::R8] as u8)
}

/// A quadword in memory.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Writes ENCLS operands.
fn operands(host: &mut Host, pageinfo: PageInfo, secinfo: &SecInfo) {
    host.kernel.guest.write(PAGEINFO, pageinfo.as_bytes());
    host.kernel.guest.write(SECINFO, secinfo.as_bytes());
}

#[test]
fn what_edbgwr_wrote_anywhere_in_a_line_is_run() {
    let mut host = caller();
    for at in PATCHED + 64..PATCHED + 128 {
        put(&host, PATCHED, &[0x90; 256]);
        put_function(&host, at);
        let first = call(&mut host, at);

        let quad = at & !7;
        let word = word(&image(at - quad, 8, NEW));
        let page = window(epc_page(PATCHED));
        host.encls(leaf::EDBGWR, [word, page + (quad & 0xfff), 0]).expect("EDBGWR completes");

        assert_eq!((first, call(&mut host, at)), (Some(OLD), Some(NEW)), "{at:#x}");
    }
}

#[test]
fn what_ereport_wrote_is_run() {
    const REPORTDATA: u64 = 320;
    let report = PATCHED + 0x200;
    let at = report + REPORTDATA + RESULT;
    let mut host = host();
    host.load(|a| {
        a.call(r14)?;
        a.mov(r12d, r8d)?;
        a.mov(eax, enclu::leaf::EREPORT)?;
        a.mov(rbx, DATA)?;
        a.mov(rcx, DATA + 0x400)?;
        a.mov(rdx, report)?;
        a.enclu()?;
        a.call(r14)?;
        exit(a)
    });
    put_function(&host, at);
    put(&host, DATA + 0x400, &image(RESULT, 64, NEW));

    let result = call(&mut host, at);

    assert_eq!((host.kernel.vcpu().cpu.arch.gpr[Gpr::R12] as u8, result), (OLD, Some(NEW)));
}

#[test]
fn what_an_asynchronous_exit_saved_is_run_on_another_processor() {
    let at = SSA + (gprsgx::OFFSET + offset_of!(GprSgx, gpr) + 15 * 8) as u64;
    let code = |result| word(&image(RESULT, 8, result));
    let mut host = host();
    host.load(|a| {
        let mut reader = a.create_label();
        a.test(r13d, r13d)?;
        a.jne(reader)?;
        // R15 is saved in the GPRSGX region, where the other thread executes it.
        a.mov(r15, code(OLD))?;
        a.ud2()?;
        a.mov(al, byte_ptr(DEVICE))?;
        a.mov(r15, code(NEW))?;
        a.ud2()?;
        a.set_label(&mut reader)?;
        a.call(r14)?;
        a.mov(al, byte_ptr(DEVICE))?;
        a.jmp(reader)
    });
    let mut reader = host.processor(1);
    to_user(&mut reader);
    enter(&mut reader, 1);
    (reader.cpu.arch.gpr[Gpr::R13], reader.cpu.arch.gpr[Gpr::R14]) = (1, at - RESULT);
    // ERESUME looks at the frame too, so the reader comes after it.
    let frame = host.enter_and_run();
    let rip = host.saved(offset_of!(GprSgx, rip));
    host.set_saved(offset_of!(GprSgx, rip), rip + 2);
    host.return_from(&frame);
    let resumed = matches!(host.kernel.vcpu().run(), Exit::MmioRead { .. });
    let first =
        matches!(reader.run(), Exit::MmioRead { .. }).then_some(reader.cpu.arch.gpr[Gpr::R8] as u8);

    host.kernel.vcpu().complete(0);
    let frame = host.kernel.run_to_handler();
    reader.complete(0);
    let second =
        matches!(reader.run(), Exit::MmioRead { .. }).then_some(reader.cpu.arch.gpr[Gpr::R8] as u8);

    assert_eq!((resumed, frame.vector, frame.rip), (true, Vector::Ud as u8, AEP));
    assert_eq!((first, second), (Some(OLD), Some(NEW)));
}

#[test]
fn what_eacceptcopy_put_into_a_page_that_was_used_before_is_run() {
    let (copied, at) = (DATA, PATCHED + 0x123);
    let mut host = host();
    host.load(|a| {
        let mut call = a.create_label();
        // The owner says in R13 whether there is a page to accept.
        a.test(r13d, r13d)?;
        a.je(call)?;
        a.mov(eax, enclu::leaf::EACCEPTCOPY)?;
        a.mov(rbx, SSA + 0x2000)?;
        a.mov(rcx, PATCHED)?;
        a.mov(rdx, copied)?;
        a.enclu()?;
        a.set_label(&mut call)?;
        a.call(r14)?;
        exit(a)
    });
    put_function(&host, at);
    put(&host, copied + 0x123 - RESULT, &image(RESULT, 4, NEW));
    let secinfo = SecInfo::new(host.data, PageType::Reg);
    put(&host, SSA + 0x2000, secinfo.as_bytes());
    let first = call(&mut host, at);
    let page = window(epc_page(PATCHED));

    host.encls_ok(leaf::EREMOVE, [0, page, 0]);
    let pageinfo =
        PageInfo { linaddr: PATCHED.into(), secs: window(SECS).into(), ..PageInfo::default() };
    operands(&mut host, pageinfo, &secinfo);
    host.encls_ok(leaf::EAUG, [PAGEINFO, page, 0]);
    host.kernel.vcpu().cpu.arch.gpr[Gpr::R13] = 1;
    let second = call(&mut host, at);

    assert_eq!((first, second), (Some(OLD), Some(NEW)));
}

#[test]
fn what_eadd_put_into_a_page_of_an_enclave_that_is_gone_is_run() {
    let at = PATCHED + 0x123;
    let mut host = caller();
    put_function(&host, at);
    let first = call(&mut host, at);
    for page in (SECS..=epc_page(HOLE)).rev() {
        host.encls_ok(leaf::EREMOVE, [0, window(page), 0]);
    }

    host.load(|a| {
        a.call(r14)?;
        exit(a)
    });
    let second = call(&mut host, at);

    // The new enclave's page holds zeros: ADD [RAX], AL, up to the end of the page and further.
    assert_eq!((first, second), (Some(OLD), None));
}

#[test]
fn what_eldu_put_in_the_place_of_another_page_is_run() {
    let places = [PATCHED, PATCHED + 0x1000];
    let at = |n: usize| places[n] + 0x123;
    let mut host = caller();
    for (n, result) in [OLD, NEW].into_iter().enumerate() {
        put(&host, at(n) - RESULT, &image(RESULT, 4, result));
    }
    let first = [call(&mut host, at(0)), call(&mut host, at(1))];
    operands(&mut host, PageInfo::default(), &SecInfo::new(SecInfoFlags::empty(), PageType::Va));
    const PT_VA: u64 = 3;
    host.encls_ok(leaf::EPA, [PT_VA, window(VERSIONS), 0]);
    for place in places {
        host.encls_ok(leaf::EBLOCK, [0, window(epc_page(place)), 0]);
    }
    host.encls_ok(leaf::ETRACK, [0, window(SECS), 0]);
    let pageinfo = |n: u64| PageInfo {
        srcpge: (EVICTED + n * 0x1000).into(),
        secinfo: (PCMD + n * 128).into(),
        ..PageInfo::default()
    };
    for (n, place) in (0..).zip(places) {
        host.kernel.guest.write(PAGEINFO, pageinfo(n).as_bytes());
        host.encls_ok(leaf::EWB, [PAGEINFO, window(epc_page(place)), window(VERSIONS) + n * 8]);
    }

    for (n, (place, other)) in (0..).zip([(places[0], places[1]), (places[1], places[0])]) {
        let secs = window(SECS).into();
        let pageinfo = PageInfo { linaddr: place.into(), secs, ..pageinfo(n) };
        host.kernel.guest.write(PAGEINFO, pageinfo.as_bytes());
        host.encls_ok(leaf::ELDU, [PAGEINFO, window(epc_page(other)), window(VERSIONS) + n * 8]);
        host.map(place, Some(epc_page(other)), 7);
    }
    let second = [call(&mut host, at(0)), call(&mut host, at(1))];

    assert_eq!((first, second), ([Some(OLD), Some(NEW)], [Some(OLD), Some(NEW)]));
}
