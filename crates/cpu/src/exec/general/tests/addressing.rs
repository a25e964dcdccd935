//! Addresses of memory operands.

use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, Vector};

use crate::testing::{CODE, DATA, Ending, Guest, Start};

/// #UD of the instruction after the code: everything before it retired.
const RETIRED: Ending = Ending::Exception(Exception::ud());
/// Not canonical, and a multiple of 16.
const NOT_CANONICAL: u64 = 1 << 47;

const fn refused(vector: Vector) -> Ending {
    Ending::Exception(Exception::with_code(vector, 0))
}

#[test]
fn a_32_bit_displacement_alone_is_whole_in_16_bit_code() {
    let displacement = (DATA as u32 + 4).to_le_bytes();
    let loads: [&[u8]; 3] = [
        &[0x66, 0x67, 0x8b, 0x05], // MOV EAX, [disp32]
        &[0x66, 0x67, 0xa1],       // MOV EAX, moffs32
        &[0x66, 0x67, 0x8d, 0x05], // LEA EAX, [disp32]
    ];
    for (load, expected) in loads.into_iter().zip([0x89ab_cdef, 0x89ab_cdef, DATA + 4]) {
        let mut guest = Guest::new(Start::Real16);
        guest.vcpu.cpu.arch.segs[seg::DS].limit = u32::MAX;
        guest.write(DATA + 4, &0x89ab_cdef_u32.to_le_bytes());
        guest.load_code(&[load, &displacement].concat());

        let ending = guest.run();

        assert_eq!(ending, RETIRED, "{load:x?}");
        assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], expected, "{load:x?}");
    }
}

#[test]
fn a_32_bit_displacement_beyond_the_limit_is_refused_in_16_bit_code() {
    for load in [&[0x67, 0x2e, 0xa1][..], &[0x66, 0x67, 0x2e, 0x8b, 0x05]] {
        let mut guest = Guest::new(Start::Real16);
        guest.load_code(&[load, &[0, 0x20, 1, 0]].concat());

        let ending = guest.run();

        assert_eq!(ending, refused(Vector::Gp), "{load:x?}");
        assert_eq!(guest.vcpu.cpu.arch.rip, CODE, "{load:x?}");
    }
}

#[test]
fn ignored_segment_prefixes_do_not_choose_between_stack_fault_and_general_protection() {
    let operands: [(&[u8], Vector); 7] = [
        (&[0x8b, 0x08], Vector::Gp),             // MOV ECX, [RAX]
        (&[0x8b, 0x0c, 0x24], Vector::Ss),       // [RSP]
        (&[0x8b, 0x4d, 0x00], Vector::Ss),       // [RBP]
        (&[0x8b, 0x0c, 0x28], Vector::Gp),       // [RAX + RBP]
        (&[0x41, 0x8b, 0x4d, 0x00], Vector::Gp), // [R13]
        (&[0x0f, 0x10, 0x0c, 0x24], Vector::Ss), // MOVUPS XMM1, [RSP]
        (&[0xac], Vector::Gp),                   // LODSB
    ];
    for (operand, vector) in operands {
        for prefix in [&[][..], &[0x26], &[0x2e], &[0x36], &[0x3e]] {
            let mut guest = Guest::new(Start::User64);
            guest.load_code(&[prefix, operand].concat());
            guest.vcpu.cpu.arch.gpr.set_registers(&[NOT_CANONICAL; 16]);
            if operand == [0x8b, 0x0c, 0x28] {
                guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 0;
            }

            let ending = guest.run();

            assert_eq!(ending, refused(vector), "{prefix:x?} {operand:x?}");
        }
    }
}

#[test]
fn an_fs_or_gs_prefix_makes_a_stack_address_no_stack_reference() {
    for prefix in [0x64, 0x65] {
        let mut guest = Guest::new(Start::User64);
        guest.load_code(&[0x36, prefix, 0x2e, 0x8b, 0x4d, 0x00]);
        guest.vcpu.cpu.arch.gpr[Gpr::Rbp] = NOT_CANONICAL;

        let ending = guest.run();

        assert_eq!(ending, refused(Vector::Gp), "{prefix:x}");
    }
}

#[test]
fn the_last_of_fs_and_gs_counts_whatever_comes_after() {
    let cases: [(&[u8], u64); 4] = [
        (&[0x65, 0x64], 0x100),
        (&[0x64, 0x65], 0x200),
        (&[0x64, 0x2e], 0x100),
        (&[0x64, 0x36, 0x65, 0x3e], 0x200),
    ];
    for (prefix, offset) in cases {
        let mut guest = Guest::new(Start::User64);
        guest.write_u64(DATA + 0x100, 0x100);
        guest.write_u64(DATA + 0x200, 0x200);
        guest.load_code(&[prefix, &[0x48, 0x8b, 0x08]].concat());
        guest.vcpu.cpu.arch.segs[seg::FS].base = DATA + 0x100;
        guest.vcpu.cpu.arch.segs[seg::GS].base = DATA + 0x200;

        let ending = guest.run();

        assert_eq!(ending, RETIRED, "{prefix:x?}");
        assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rcx], offset, "{prefix:x?}");
    }
}

/// A guest without paging whose DS begins 64 bytes below 4 GiB. Nothing is there: it reads as ones.
fn at_the_end_of_4_gib(code: &[u8]) -> Guest {
    let mut guest = Guest::new(Start::Flat32);
    guest.vcpu.cpu.arch.segs[seg::DS].base = 0xffff_ffc0;
    guest.load_code(code);
    guest
}

#[test]
fn the_upper_bound_beyond_4_gib_is_at_0() {
    // BOUND EAX, [3CH]: -1 and 5.
    let mut guest = at_the_end_of_4_gib(&[0x62, 0x05, 0x3c, 0, 0, 0]);
    guest.write(0, &5_u32.to_le_bytes());
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 3;

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
}

#[test]
fn what_maskmovdqu_stores_beyond_4_gib_is_at_0() {
    // PCMPEQD XMM0, XMM0; MASKMOVDQU XMM0, XMM0
    let mut guest = at_the_end_of_4_gib(&[0x66, 0x0f, 0x76, 0xc0, 0x66, 0x0f, 0xf7, 0xc0]);
    guest.vcpu.cpu.arch.gpr[Gpr::Rdi] = 0x38;

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    assert_eq!((guest.read_u64(0), guest.read_u64(8)), (u64::MAX, 0));
}

#[test]
fn the_part_of_a_save_area_beyond_4_gib_is_at_0() {
    // VPCMPEQD YMM0, YMM0, YMM0; XSAVEC [0]; VZEROALL; XRSTOR [0]
    let mut guest = at_the_end_of_4_gib(&[
        0xc5, 0xfd, 0x76, 0xc0, 0x0f, 0xc7, 0x25, 0, 0, 0, 0, 0xc5, 0xfc, 0x77, 0x0f, 0xae, 0x2d,
        0, 0, 0, 0,
    ]);
    // AVX state alone: of the legacy region nothing counts.
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 4;

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    assert_eq!(guest.read_u64(512 - 64), 4, "XSTATE_BV");
    assert_eq!(guest.read_u64(576 - 64), u64::MAX, "the upper half of YMM0");
    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], [0, 0, u64::MAX, u64::MAX]);
}
