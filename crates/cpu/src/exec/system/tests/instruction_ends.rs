//! Where an instruction may end: its length of 15 bytes (SDM Vol. 3A, 6.15, "Interrupt 13") and the
//! limit of CS (Vol. 3A, 5.3).

use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, Vector};

use crate::testing::{CODE, Ending, Guest, Start};

const PAGE: u64 = 0x1000;
const UD2: [u8; 2] = [0x0f, 0x0b];
const MOV_EAX: [u8; 5] = [0xb8, 1, 2, 3, 4];

fn prefixed(count: usize, prefix: u8, rest: &[u8]) -> Vec<u8> {
    [&vec![prefix; count][..], rest].concat()
}

/// What ends the program that begins with `bytes`, and how far it came.
fn outcome(guest: &mut Guest, at: u64) -> (Exception, u64) {
    guest.vcpu.cpu.arch.rip = at;
    match guest.run() {
        Ending::Exception(exception) => (exception, guest.vcpu.cpu.arch.rip - at),
        Ending::Exit(exit) => panic!("{exit:?}"),
    }
}

#[test]
fn an_instruction_of_16_bytes_is_a_general_protection_fault() {
    let vex = [0xc4, 0xe2, 0x7d, 0x18, 0x84, 0x25, 0, 0, 2, 0];
    let add = [0x48, 0x81, 4, 0x25, 0, 0, 2, 0, 0, 1, 0, 0];
    let load = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0];
    for code in [
        prefixed(15, 0x66, &[0x90]),
        prefixed(15, 0x2e, &[0x90]),
        prefixed(15, 0xf3, &[0x90]),
        prefixed(15, 0x48, &[0x90]),
        prefixed(30, 0x66, &[0x90]),
        // Two-byte opcodes and operands that begin or end after the 15th byte.
        prefixed(14, 0x66, &UD2),
        prefixed(14, 0x66, &[0x0f, 0x04]),
        prefixed(6, 0x2e, &vex),
        prefixed(4, 0x3e, &add),
        prefixed(6, 0x2e, &load),
        // Each prefix once.
        [&[0x66, 0x67, 0xf0, 0xf3, 0x2e][..], &add].concat(),
    ] {
        let mut guest = Guest::new(Start::User64);
        guest.load_code(&code);

        assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), 0), "{code:x?}");
    }
}

#[test]
fn an_instruction_of_15_bytes_executes() {
    let add = [0x48, 0x81, 4, 0x25, 0, 0, 2, 0, 0, 1, 0, 0];
    let load = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0];
    for code in [
        prefixed(14, 0x66, &[0x90]),
        prefixed(14, 0x48, &[0x90]),
        prefixed(3, 0x3e, &add),
        prefixed(5, 0x2e, &load),
    ] {
        let mut guest = Guest::new(Start::User64);
        guest.load_code(&code);

        assert_eq!(outcome(&mut guest, CODE), (Exception::ud(), 15), "{code:x?}");
    }
}

#[test]
fn an_undefined_instruction_of_15_bytes_stays_undefined() {
    let mut guest = Guest::new(Start::User64);
    // LEA with a register operand.
    guest.load_code(&prefixed(13, 0x66, &[0x8d, 0xc0]));

    assert_eq!(outcome(&mut guest, CODE), (Exception::ud(), 0));
}

#[test]
fn the_sixteenth_byte_is_not_fetched() {
    for prefixes in [15, 16] {
        let mut guest = Guest::new(Start::User64);
        let start = CODE + PAGE - prefixes as u64;
        guest.write(start, &vec![0x66; prefixes]);
        guest.set_page_flags(CODE + PAGE, 0);

        assert_eq!(outcome(&mut guest, start), (Exception::gp(0), 0), "{prefixes}");
    }
}

#[test]
fn fourteen_prefixes_at_the_end_of_a_page_need_the_next_one() {
    let mut guest = Guest::new(Start::User64);
    let start = CODE + PAGE - 14;
    guest.write(start, &[0x66; 14]);
    guest.set_page_flags(CODE + PAGE, 0);

    let (exception, done) = outcome(&mut guest, start);

    assert_eq!((exception.vector, exception.address, done), (Vector::Pf, CODE + PAGE, 0));
}

/// 32-bit code under paging that reaches to the offset `limit`.
fn limited(limit: u64) -> Guest {
    let mut guest = Guest::new(Start::User32);
    guest.vcpu.cpu.arch.segs[seg::CS].limit = limit as u32;
    guest
}

#[test]
fn an_instruction_whose_tail_is_beyond_the_limit_of_cs_faults() {
    let last = MOV_EAX.len() as u64 - 1;
    for tail in 1..=last {
        let mut guest = limited(CODE + last - tail);
        guest.load_code(&MOV_EAX);

        assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), 0), "{tail} bytes beyond");
        assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0);
    }
}

#[test]
fn an_instruction_that_ends_at_the_limit_of_cs_executes_and_the_next_faults() {
    let length = MOV_EAX.len() as u64;
    let mut guest = limited(CODE + length - 1);
    guest.load_code(&MOV_EAX);

    assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), length));
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x0403_0201);
}

#[test]
fn a_limit_counts_for_code_that_ran_before_under_a_larger_one() {
    let mut guest = limited(u32::MAX.into());
    guest.load_code(&MOV_EAX);
    assert_eq!(outcome(&mut guest, CODE), (Exception::ud(), MOV_EAX.len() as u64));

    for (beyond, done) in [(1, 0), (0, MOV_EAX.len() as u64)] {
        guest.vcpu.cpu.arch.segs[seg::CS].limit = (CODE + MOV_EAX.len() as u64 - 1 - beyond) as u32;

        assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), done), "{beyond} bytes beyond");
    }
}

#[test]
fn code_runs_on_when_its_limit_grows() {
    let mut guest = limited(CODE + 2);
    guest.load_code(&MOV_EAX);
    assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), 0));

    guest.vcpu.cpu.arch.segs[seg::CS].limit = u32::MAX;

    assert_eq!(outcome(&mut guest, CODE), (Exception::ud(), MOV_EAX.len() as u64));
}

#[test]
fn a_limit_at_the_end_of_a_page_keeps_the_next_page_out_of_it() {
    let start = CODE + PAGE - 2;
    let mut guest = limited(CODE + PAGE - 1);
    guest.write(start, &MOV_EAX);
    guest.set_page_flags(CODE + PAGE, 0);

    assert_eq!(outcome(&mut guest, start), (Exception::gp(0), 0));
}

#[test]
fn a_limit_in_the_second_page_of_an_instruction_counts_after_the_page() {
    let start = CODE + PAGE - 2;
    let mut guest = limited(CODE + PAGE);
    guest.write(start, &MOV_EAX);
    assert_eq!(outcome(&mut guest, start), (Exception::gp(0), 0));

    guest.set_page_flags(CODE + PAGE, 0);

    let (exception, done) = outcome(&mut guest, start);
    assert_eq!((exception.vector, exception.address, done), (Vector::Pf, CODE + PAGE, 0));
}

#[test]
fn a_branch_whose_tail_is_beyond_the_limit_of_cs_faults_too() {
    for (bits, code) in [(32, &[0xe9, 0, 0, 0, 0][..]), (16, &[0xe9, 0, 0]), (16, &[0xb8, 1, 2])] {
        let last = code.len() as u64 - 1;
        let mut guest = limited(CODE + last - 1);
        if bits == 16 {
            guest.vcpu.cpu.arch.segs[seg::CS].rights.0 &= !(1 << 14);
            guest.vcpu.cpu.update_mode();
        }
        guest.load_code(code);

        assert_eq!(outcome(&mut guest, CODE), (Exception::gp(0), 0), "{bits} bits: {code:x?}");
    }
}
