//! 32-bit and 16-bit code: segments, stacks and addresses that wrap. The values are those of Intel
//! processors.

use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Exception, Gpr, Vector};

use crate::testing::{CODE, DATA, Ending, Guest, STACK, Start};

/// Writable data from `base` to `base + limit`; a 32-bit stack if `wide`.
fn data(base: u64, limit: u32, wide: bool) -> Segment {
    let rights = if wide { 0x40f3 } else { 0xf3 };
    Segment { selector: 0x2b, base, limit, rights: Rights(rights) }
}

/// 32-bit user code.
fn guest(code: &[u8]) -> Guest {
    let mut guest = Guest::new(Start::User32);
    guest.load_code(code);
    guest
}

fn is_page_fault(ending: Ending, address: u64) -> bool {
    matches!(ending, Ending::Exception(e) if e.vector == Vector::Pf && e.address == address)
}

#[test]
fn push_of_a_segment_register_writes_two_bytes_of_a_slot_of_four() {
    // push es
    let mut guest = guest(&[0x06]);
    guest.write(STACK - 4, &[0xaa; 4]);
    guest.vcpu.cpu.arch.segs[seg::ES].selector = 0x1234;

    guest.run();

    assert_eq!(guest.read(STACK - 4), [0x34, 0x12, 0xaa, 0xaa]);
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rsp], STACK - 4);
}

#[test]
fn push_of_a_segment_register_in_64_bit_mode_writes_all_of_the_slot() {
    // push fs
    let mut guest = Guest::new(Start::User64);
    guest.load_code(&[0x0f, 0xa0]);
    guest.write_u64(STACK - 8, u64::MAX);
    guest.vcpu.cpu.arch.segs[seg::FS].selector = 0x1234;

    guest.run();

    assert_eq!(guest.read_u64(STACK - 8), 0x1234);
}

#[test]
fn popa_that_faults_keeps_the_registers_before_and_the_stack_pointer() {
    // popad
    let mut guest = guest(&[0x61]);
    let top = DATA + 0x1000 - 8;
    guest.write(top, &[0x11, 0, 0, 0, 0x22, 0, 0, 0]);
    guest.set_page_flags(DATA + 0x1000, 0);
    guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = top;

    let ending = guest.run();

    assert!(is_page_fault(ending, DATA + 0x1000), "{ending:?}");
    let gpr = &guest.vcpu.cpu.arch.gpr;
    assert_eq!((gpr[Gpr::Rdi], gpr[Gpr::Rsi], gpr[Gpr::Rbp], gpr[Gpr::Rsp]), (0x11, 0x22, 0, top));
}

#[test]
fn pusha_that_faults_has_stored_what_comes_before() {
    // pushad
    let mut guest = guest(&[0x60]);
    guest.set_page_flags(DATA, 0);
    let cpu = &mut guest.vcpu.cpu;
    (cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::Rsp]) =
        (0x11, 0x22, DATA + 0x1008);

    let ending = guest.run();

    assert!(is_page_fault(ending, DATA + 0xffc), "{ending:?}");
    assert_eq!(guest.read_u64(DATA + 0x1000), 0x11_0000_0022);
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rsp], DATA + 0x1008);
}

#[test]
fn pop_of_a_segment_register_reads_two_bytes_of_a_slot_of_four() {
    // pop es, of a null selector at the end of a page
    let mut guest = guest(&[0x07]);
    guest.set_page_flags(DATA + 0x1000, 0);
    guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = DATA + 0xffe;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::ud()), "the end of the code");
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rsp], DATA + 0x1002);
}

#[test]
fn bound_below_the_lower_bound_does_not_read_the_upper_one() {
    // bound eax, [ebx]
    let mut guest = guest(&[0x62, 0x03]);
    guest.write(DATA + 0xffc, &[5, 0, 0, 0]);
    guest.set_page_flags(DATA + 0x1000, 0);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA + 0xffc;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::new(Vector::Br)));
}

#[test]
fn call_beyond_the_limit_of_cs_is_gp_after_the_push() {
    // call +100h
    let mut guest = guest(&[0xe8, 0, 1, 0, 0]);
    guest.vcpu.cpu.arch.segs[seg::CS].limit = CODE as u32 + 0x80;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::with_code(Vector::Gp, 0)));
    assert_eq!(guest.read(STACK - 4), (CODE as u32 + 5).to_le_bytes());
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rsp], STACK);
}

#[test]
fn arpl_that_changes_nothing_needs_no_write_access() {
    // arpl [ebx], ax
    let mut guest = guest(&[0x63, 0x03]);
    guest.write(DATA, &[7, 0]);
    guest.set_page_flags(DATA, 5);
    let cpu = &mut guest.vcpu.cpu;
    (cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rbx]) = (2, DATA);

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::ud()), "the end of the code");
    assert!(!guest.vcpu.cpu.arch.flags.zf());
}

#[test]
fn arpl_of_a_page_that_is_absent_is_the_fault_of_a_read() {
    let mut guest = guest(&[0x63, 0x03]);
    guest.set_page_flags(DATA, 0);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA;

    let ending = guest.run();

    assert!(matches!(ending, Ending::Exception(e) if e.error_code == 4), "{ending:?}");
}

#[test]
fn a_line_of_an_execute_only_segment_can_be_flushed() {
    // clflush cs:[ebx]; then mov al, cs:[ebx]
    let mut guest = guest(&[0x2e, 0x0f, 0xae, 0x3b, 0x2e, 0x8a, 0x03]);
    guest.vcpu.cpu.arch.segs[seg::CS].rights = Rights(0xc0f9);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::with_code(Vector::Gp, 0)));
    assert_eq!(guest.vcpu.cpu.arch.rip, CODE + 4, "the load faults");
}

#[test]
fn an_access_across_the_end_of_a_segment_of_4_gib_is_no_segment_fault() {
    // mov eax, [ebx]
    let mut guest = guest(&[0x8b, 0x03]);
    guest.vcpu.cpu.arch.segs[seg::DS] = data(0, u32::MAX, true);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = 0xffff_fffe;

    let ending = guest.run();

    assert!(is_page_fault(ending, 0xffff_fffe), "{ending:?}");
}

#[test]
fn misalignment_comes_before_the_fault_of_the_stack_segment() {
    // paddq xmm0, ss:[ebx]
    let mut guest = guest(&[0x36, 0x66, 0x0f, 0xd4, 0x03]);
    guest.vcpu.cpu.arch.segs[seg::SS] = data(0, 0xfff, true);

    let endings = [0x1001, 0x1010].map(|offset| {
        guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = offset;
        guest.vcpu.cpu.arch.rip = CODE;
        guest.run()
    });

    let expected = [Vector::Gp, Vector::Ss].map(|v| Ending::Exception(Exception::with_code(v, 0)));
    assert_eq!(endings, expected);
}

#[test]
fn fxsave_checks_its_first_bytes_then_the_alignment_then_the_rest() {
    // fxsave ss:[ebx]
    let mut guest = guest(&[0x36, 0x0f, 0xae, 0x03]);
    guest.vcpu.cpu.arch.segs[seg::SS] = data(0, 0xfff, true);

    let vectors = [0xffd, 0xfe1, 0xfe0].map(|offset| {
        guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = offset;
        guest.vcpu.cpu.arch.rip = CODE;
        match guest.run() {
            Ending::Exception(e) => Some(e.vector),
            Ending::Exit(_) => None,
        }
    });

    assert_eq!(vectors, [Some(Vector::Ss), Some(Vector::Gp), Some(Vector::Ss)]);
}

#[test]
fn fstp_of_ten_bytes_beyond_the_limit_has_stored_eight() {
    // fninit; fld1; fstp tbyte es:[ebx]
    let mut guest = guest(&[0xdb, 0xe3, 0xd9, 0xe8, 0x26, 0xdb, 0x3b]);
    guest.vcpu.cpu.arch.segs[seg::ES] = data(DATA, 0x108, true);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = 0x100;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::with_code(Vector::Gp, 0)));
    assert_eq!(guest.read_u64(DATA + 0x100), 1 << 63);
}

#[test]
fn elements_of_a_masked_move_do_not_wrap_at_64_kib() {
    // vmaskmovps xmm0, xmm1, es:[bx]
    let mut guest = guest(&[0x26, 0x67, 0xc4, 0xe2, 0x71, 0x2c, 0x07]);
    guest.vcpu.cpu.arch.segs[seg::ES] = data(DATA, 0x1_ffff, true);
    guest.write(DATA + 0x1_0004, &[5, 0, 0, 0]);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = 0xfffc;
    // Elements 0 and 2.
    cpu.arch.vector.ymm[1] = [0x8000_0000, 0x8000_0000, 0, 0];

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], [0, 5, 0, 0]);
}

#[test]
fn a_masked_move_checks_the_segment_before_the_pages() {
    // vmaskmovps xmm0, xmm1, es:[ebx]
    let mut guest = guest(&[0x26, 0xc4, 0xe2, 0x71, 0x2c, 0x03]);
    guest.vcpu.cpu.arch.segs[seg::ES] = data(DATA, 0x107, true);
    guest.set_page_flags(DATA, 0);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = 0x100;
    cpu.arch.vector.ymm[1] = [0x8000_0000, 0x8000_0000, 0, 0];

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::with_code(Vector::Gp, 0)));
}

#[test]
fn halves_of_maskmovdqu_wrap_at_64_kib_each() {
    // addr16 maskmovdqu xmm0, xmm1, in ES by a prefix
    let mut guest = guest(&[0x26, 0x67, 0x66, 0x0f, 0xf7, 0xc1]);
    guest.vcpu.cpu.arch.segs[seg::ES] = data(DATA, 0x1_ffff, true);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rdi] = 0xfff9;
    cpu.arch.vector.ymm[0] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 0, 0];
    cpu.arch.vector.ymm[1] = [u64::MAX, u64::MAX, 0, 0];

    guest.run();

    assert_eq!(guest.read_u64(DATA + 0xfff9), 0x1111_1111_1111_1111);
    assert_eq!(guest.read_u64(DATA + 1), 0x2222_2222_2222_2222);
}

/// REP with 32-bit addresses in 64-bit mode, with a count of zero: which of RCX, RSI and RDI keep
/// their upper halves.
fn kept_by_rep(opcode: u8) -> [bool; 3] {
    let mut guest = Guest::new(Start::User64);
    guest.load_code(&[0x67, 0xf3, opcode]);
    let high = 1 << 40;
    for register in [1, 6, 7] {
        guest.vcpu.cpu.arch.gpr[register] = high;
    }
    guest.run();
    [1, 6, 7].map(|register| guest.vcpu.cpu.arch.gpr[register] == high)
}

#[test]
fn rep_with_32_bit_addresses_extends_registers_without_an_iteration() {
    let [movs, cmps, stos, lods, scas] = [0xa4, 0xa6, 0xaa, 0xac, 0xae].map(kept_by_rep);

    assert_eq!(movs, [false, false, false]);
    assert_eq!(stos, [false, true, false]);
    for compared in [cmps, lods, scas] {
        assert_eq!(compared, [false, true, true]);
    }
}

#[test]
fn bit_offsets_of_an_absolute_operand_wrap_at_the_address_size() {
    // addr32 bts [DATA], rax, with the bit offset of 2^35 + 9
    let mut guest = Guest::new(Start::User64);
    let code = [&[0x67, 0x48, 0x0f, 0xab, 0x04, 0x25][..], &(DATA as u32).to_le_bytes()].concat();
    guest.load_code(&code);
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = (1 << 35) + 9;

    guest.run();

    assert_eq!(guest.read_u64(DATA), 1 << 9);
}

#[test]
fn a_displacement_alone_has_32_bits_with_an_address_size_prefix_in_16_bit_code() {
    // addr32 mov al, [DATA + 7]; addr32 mov ah, [DATA + 8], by either encoding
    let mut guest = Guest::new(Start::User32);
    guest.vcpu.cpu.arch.segs[seg::CS].rights = Rights(0x80fb);
    guest.vcpu.cpu.update_mode();
    let [low, high] = [7, 8].map(|n| (DATA as u32 + n).to_le_bytes());
    guest.load_code(&[&[0x67, 0xa0][..], &low, &[0x67, 0x8a, 0x25], &high].concat());
    guest.write(DATA + 7, &[0x34, 0x12]);

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x1234);
}
