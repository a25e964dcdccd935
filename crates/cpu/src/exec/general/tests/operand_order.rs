//! Which of two operands in memory faults first. The manual leaves it open; Intel processors do as
//! the tests say.

use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, PageFaultCode, Vector};

use crate::testing::{DATA, Ending, Guest, Start};

/// Two pages that are not there.
const FIRST: u64 = DATA + 0x1000;
const SECOND: u64 = DATA + 0x3000;

fn page_fault(address: u64, code: PageFaultCode) -> Ending {
    Ending::Exception(Exception::pf(address, code))
}

/// A guest with RSI at [`FIRST`] and RDI at [`SECOND`].
fn guest(start: Start, code: &[u8]) -> Guest {
    let mut guest = Guest::new(start);
    guest.set_page_flags(FIRST, 0);
    guest.set_page_flags(SECOND, 0);
    guest.load_code(code);
    let gpr = &mut guest.vcpu.cpu.arch.gpr;
    (gpr[Gpr::Rsi], gpr[Gpr::Rdi], gpr[Gpr::Rcx]) = (FIRST, SECOND, 2);
    guest
}

const PREFIXES: [&[u8]; 3] = [&[], &[0xf3], &[0xf2]];

#[test]
fn cmps_looks_at_es_rdi_first_repeated_or_not() {
    for start in [Start::User64, Start::User32] {
        for (prefix, opcode) in PREFIXES.iter().flat_map(|p| [0xa6, 0xa7].map(|o| (p, o))) {
            let mut guest = guest(start, &[prefix, &[opcode][..]].concat());

            let ending = guest.run();

            let expected = page_fault(SECOND, PageFaultCode::USER);
            assert_eq!(ending, expected, "{start:?} {prefix:x?} {opcode:x}");
        }
    }
}

#[test]
fn cmps_checks_the_limit_of_es_before_it_reads_ds() {
    let mut by_ds = guest(Start::User32, &[0xf3, 0xa6]);
    by_ds.vcpu.cpu.arch.segs[seg::DS].limit = 0xfff;
    let mut by_es = guest(Start::User32, &[0xf3, 0xa6]);
    by_es.vcpu.cpu.arch.segs[seg::ES].limit = 0xfff;

    let endings = (by_ds.run(), by_es.run());

    let refused = Ending::Exception(Exception::with_code(Vector::Gp, 0));
    assert_eq!(endings, (page_fault(SECOND, PageFaultCode::USER), refused));
}

#[test]
fn movs_looks_at_its_source_first() {
    for (prefix, opcode) in PREFIXES.iter().flat_map(|p| [0xa4, 0xa5].map(|o| (p, o))) {
        let mut guest = guest(Start::User64, &[prefix, &[opcode][..]].concat());

        let ending = guest.run();

        assert_eq!(ending, page_fault(FIRST, PageFaultCode::USER), "{prefix:x?} {opcode:x}");
    }
}

#[test]
fn push_and_call_read_memory_before_they_write_the_stack_and_pop_reads_the_stack_first() {
    let write = PageFaultCode::USER | PageFaultCode::WRITE;
    let cases: [(&[u8], Ending, Ending); 3] = [
        // PUSH [RAX]; CALL [RAX]; POP [RAX]: with neither page, with that of the first alone.
        (&[0xff, 0x30], page_fault(FIRST, PageFaultCode::USER), page_fault(SECOND - 8, write)),
        (&[0xff, 0x10], page_fault(FIRST, PageFaultCode::USER), page_fault(SECOND - 8, write)),
        (&[0x8f, 0x00], page_fault(SECOND - 8, PageFaultCode::USER), page_fault(FIRST, write)),
    ];
    for (code, neither, one) in cases {
        let pops = code[0] == 0x8f;
        for (there, expected) in [(false, neither), (true, one)] {
            let mut guest = guest(Start::User64, code);
            guest.set_page_flags(SECOND - 0x1000, 0);
            if there {
                guest.set_page_flags(if pops { SECOND - 0x1000 } else { FIRST }, 0b111);
            }
            guest.vcpu.cpu.arch.gpr[Gpr::Rax] = FIRST;
            guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = if pops { SECOND - 8 } else { SECOND };

            let ending = guest.run();

            assert_eq!(ending, expected, "{code:x?}");
        }
    }
}

#[test]
fn enter_writes_the_frame_pointer_before_it_reads_those_of_other_frames() {
    let mut guest = guest(Start::User64, &[0xc8, 0, 0, 2]);
    guest.set_page_flags(SECOND - 0x1000, 0);
    guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = SECOND;
    guest.vcpu.cpu.arch.gpr[Gpr::Rbp] = FIRST;

    let ending = guest.run();

    let write = PageFaultCode::USER | PageFaultCode::WRITE;
    assert_eq!(ending, page_fault(SECOND - 8, write));
}
