//! Who reaches which memory: the abort page, the access check, translations (SDM Vol. 3D, 35.3 to
//! 35.5).

use core::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::GprSgx;
use cloister_x86::{Gpr, Vector};
use iced_x86::code_asm::*;

use super::host::{
    AEP, APP, BASE, CODE, DATA, EXITED, HOLE, Host, READ_ONLY, SHARED, SIZE, epc_page, exit,
    tcs_of, window,
};

const PF: u8 = Vector::Pf as u8;
const GP: u8 = Vector::Gp as u8;
const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const I: u64 = 16;
const SGX: u64 = 1 << 15;

#[test]
fn outside_an_enclave_epc_reads_as_ones_and_drops_writes_at_every_level() {
    for level in [0, 3] {
        for at in [DATA, window(epc_page(DATA)), window(30)] {
            let mut host = Host::new();
            host.load(exit);
            host.kernel.set_level(level);
            host.kernel.guest.assemble_at(APP, 64, |a| {
                a.mov(rdi, at)?;
                a.mov(qword_ptr(rdi), 5)?;
                a.mov(rax, qword_ptr(rdi))?;
                a.lock().inc(qword_ptr(rdi))?;
                a.mov(ebx, dword_ptr(rdi + 0xffc))?;
                a.ud2()
            });
            host.kernel.vcpu().cpu.arch.rip = APP;

            let frame = host.kernel.run_to_handler();

            assert_eq!(frame.vector, Vector::Ud as u8);
            let cpu = &host.kernel.vcpu().cpu;
            assert_eq!(
                (cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rbx]),
                (u64::MAX, 0xffff_ffff),
                "{level}, {at:#x}"
            );
            assert_eq!(host.epc(DATA), 0);
        }
    }
}

#[test]
fn code_in_epc_fetched_from_outside_is_ones_which_are_ud() {
    let mut host = Host::new();
    host.load(exit);
    host.kernel.set_level(3);
    host.kernel.vcpu().cpu.arch.rip = CODE;

    let frame = host.kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (Vector::Ud as u8, CODE));
}

#[test]
fn an_enclave_reaches_ordinary_memory_and_its_own_pages() {
    let mut host = Host::new();
    host.kernel.guest.write_u64(SHARED, 40);
    host.load(|a| {
        a.mov(rsi, SHARED)?;
        a.mov(rdi, DATA)?;
        a.mov(r8, qword_ptr(rsi))?;
        a.add(r8, 2)?;
        a.mov(qword_ptr(rdi), r8)?;
        a.mov(r9, qword_ptr(rdi))?;
        a.mov(qword_ptr(rsi), r9)?;
        exit(a)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.rip), (Vector::Ud as u8, EXITED));
    assert_eq!((host.kernel.guest.read_u64(SHARED), host.epc(DATA)), (42, 42));
}

#[test]
fn outside_elrange_epc_is_the_abort_page_even_from_inside() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rdi, window(epc_page(DATA)))?;
        a.mov(qword_ptr(rdi), 5)?;
        a.mov(r8, qword_ptr(rdi))?;
        exit(a)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.rip), (Vector::Ud as u8, EXITED));
    assert_eq!((host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], host.epc(DATA)), (u64::MAX, 0));
}

/// What is changed before the enclave is entered.
type Change = fn(&mut Host);

/// The vector that ended the user's run, and its error code.
type Outcome = (u8, Option<u64>);

/// What the enclave's access `access(rdi)` with RDI at `at` becomes after `change`.
fn access(at: u64, write: bool, change: impl FnOnce(&mut Host)) -> (u8, Option<u64>) {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rdi, at)?;
        if write {
            a.mov(byte_ptr(rdi), 1)?;
        } else {
            a.mov(al, byte_ptr(rdi))?;
        }
        exit(a)
    });
    change(&mut host);

    let frame = host.enter_and_run();

    if frame.vector == PF {
        assert_eq!((frame.rip, host.kernel.vcpu().cpu.arch.cr2), (AEP, at & !0xfff));
    }
    (frame.vector, frame.error_code)
}

#[test]
fn what_the_epcm_forbids_has_the_sgx_bit_and_what_the_page_tables_forbid_has_not() {
    let fine = (Vector::Ud as u8, None);
    let cases: [(&str, u64, bool, Change, Outcome); 13] = [
        ("a read", DATA, false, |_| {}, fine),
        ("a write", DATA, true, |_| {}, fine),
        ("a read of R", READ_ONLY + 5, false, |_| {}, fine),
        ("a write to R", READ_ONLY + 5, true, |_| {}, (PF, Some(P | W | U | SGX))),
        ("a write to RX", CODE, true, |_| {}, (PF, Some(P | W | U | SGX))),
        ("a read of a TCS", tcs_of(0), false, |_| {}, (PF, Some(P | U | SGX))),
        (
            "a write that the page tables forbid too",
            READ_ONLY,
            true,
            |host| host.map(READ_ONLY, Some(epc_page(READ_ONLY)), 5),
            (PF, Some(P | W | U)),
        ),
        (
            "a page of the kernel's",
            DATA,
            false,
            |host| host.map(DATA, Some(epc_page(DATA)), 3),
            (PF, Some(P | U)),
        ),
        ("a page that is not mapped", HOLE, false, |_| {}, (PF, Some(U))),
        ("RAM in ELRANGE", DATA, false, |host| host.map(DATA, None, 7), (PF, Some(P | U | SGX))),
        (
            "another page of the enclave",
            DATA,
            false,
            |host| host.map(DATA, Some(epc_page(READ_ONLY)), 7),
            (PF, Some(P | U | SGX)),
        ),
        (
            "a page of no enclave",
            HOLE,
            false,
            |host| host.map(HOLE, Some(31), 7),
            (PF, Some(P | U | SGX)),
        ),
        (
            "a blocked page",
            DATA,
            false,
            |host| {
                host.encls_ok(leaf::EBLOCK, [0, window(epc_page(DATA)), 0]);
            },
            (PF, Some(P | U | SGX)),
        ),
    ];
    for (name, at, write, change, expected) in cases {
        assert_eq!(access(at, write, change), expected, "{name}");
    }
}

#[test]
fn an_access_that_crosses_into_a_forbidden_page_faults_there_and_writes_nothing() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rdi, READ_ONLY - 4)?;
        a.mov(rax, -1_i64)?;
        a.mov(qword_ptr(rdi), rax)?;
        exit(a)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.error_code), (PF, Some(P | W | U | SGX)));
    assert_eq!(host.kernel.vcpu().cpu.arch.cr2, READ_ONLY);
    assert_eq!(host.epc(READ_ONLY - 8), 0);
}

#[test]
fn a_fetch_from_outside_elrange_is_gp_wherever_it_leads() {
    for target in [APP, SHARED, BASE + SIZE, BASE - 0x1000, window(epc_page(CODE)), 0x50_0000] {
        let mut host = Host::new();
        host.map(window(epc_page(CODE)), Some(epc_page(CODE)), 7);
        host.load(|a| {
            a.mov(rax, target)?;
            a.jmp(rax)
        });
        host.map(BASE - 0x1000, None, 7);
        host.kernel.guest.write(SHARED, &[0x90; 16]);

        let frame = host.enter_and_run();

        if target == BASE + SIZE || target == 0x50_0000 {
            // The page tables come first, and these are not mapped.
            assert_eq!((frame.vector, frame.error_code), (PF, Some(U | I)), "{target:#x}");
        } else {
            assert_eq!((frame.vector, frame.error_code), (GP, Some(0)), "{target:#x}");
        }
        assert_eq!(frame.rip, AEP);
        assert_eq!(host.saved(offset_of!(GprSgx, rip)), target);
    }
}

#[test]
fn a_fetch_in_elrange_needs_x() {
    for (target, code) in [
        (DATA, P | U | I | SGX),
        (READ_ONLY, P | U | I | SGX),
        (tcs_of(1), P | U | I | SGX),
        (HOLE, U | I),
    ] {
        let mut host = Host::new();
        host.load(|a| {
            a.mov(rax, target)?;
            a.jmp(rax)
        });
        let frame = host.enter_and_run();

        assert_eq!((frame.vector, frame.error_code), (PF, Some(code)), "{target:#x}");
        assert_eq!(host.kernel.vcpu().cpu.arch.cr2, target);
    }
}

/// Whether a translation made before is gone after.
#[test]
fn each_entry_and_exit_forgets_what_was_cached_inside() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rdi, DATA)?;
        a.mov(r8, qword_ptr(rdi))?;
        exit(a)
    });
    host.enter_and_run();
    // Without INVLPG, as `map` would do: only the page table entry changes.
    let entry = 0x20_0000 + ((DATA - window(0)) >> 12) * 8;
    host.kernel.guest.write_u64(entry, 0);

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.error_code, frame.rip), (PF, Some(U), AEP));
}

#[test]
fn a_stale_translation_lives_on_inside_until_an_asynchronous_exit() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rdi, DATA)?;
        a.mov(r8, qword_ptr(rdi))?;
        // The user changes its own page tables: they are ordinary memory.
        a.mov(rsi, 0x20_0000 + ((DATA - window(0)) >> 12) * 8)?;
        a.mov(qword_ptr(rsi), 0)?;
        a.mov(r9, qword_ptr(rdi))?;
        a.mov(rcx, HOLE)?;
        a.mov(cl, byte_ptr(rcx))?;
        a.mov(r10, qword_ptr(rdi))?;
        exit(a)
    });
    let first = host.enter_and_run();
    assert_eq!((first.error_code, host.kernel.vcpu().cpu.arch.cr2), (Some(U), HOLE));

    // A debugger moves RIP past the access to the hole, to the one that worked twice.
    let rip = host.saved(offset_of!(GprSgx, rip));
    host.set_saved(offset_of!(GprSgx, rip), rip + 2);
    let second = host.return_and_run(&first);

    assert_eq!((second.error_code, host.kernel.vcpu().cpu.arch.cr2), (Some(U), DATA));
}

#[test]
fn code_that_a_leaf_changed_is_decoded_afresh() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(r8d, 1)?;
        exit(a)
    });
    host.enter_and_run();
    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1);
    let at = window(epc_page(CODE));
    let word = host.encls(leaf::EDBGRD, [0, at, 0]).expect("EDBGRD completes").rbx;

    // MOV R8D, 1 is 41 B8 01 00 00 00.
    let changed = word & !0xff_0000 | 0x2_0000;
    host.encls(leaf::EDBGWR, [changed, at, 0]).expect("EDBGWR completes");
    host.enter_and_run();

    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 2);
}
