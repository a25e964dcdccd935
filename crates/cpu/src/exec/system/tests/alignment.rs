//! Alignment checks at CPL 3 (SDM Vol. 3A, 6.15, #AC, and table 6-7). Where the manual leaves open
//! whether an instruction checks, it does what Intel processors do.

use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::{Exception, Gpr, Vector};

use crate::testing::{DATA, Ending, Guest, Start};

/// #UD of the instruction after the code: everything before it retired.
const RETIRED: Ending = Ending::Exception(Exception::ud());
const MISALIGNED: Ending = Ending::Exception(Exception::with_code(Vector::Ac, 0));
const REFUSED: Ending = Ending::Exception(Exception::with_code(Vector::Gp, 0));

/// A guest with alignment checks, and RDI at `address`.
fn guest(start: Start, code: &[u8], address: u64) -> Guest {
    let mut guest = Guest::new(start);
    guest.load_code(code);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rdi] = address;
    cpu.arch.gpr[Gpr::Rsi] = DATA + 0x800;
    cpu.arch.fpu.init();
    cpu.arch.cr0 |= Cr0::AM;
    cpu.set_rflags(Rflags::AC.bits());
    guest
}

/// Instructions with an operand at RDI, and the multiple at which it has to be.
const OPERANDS: [(&str, &[u8], u64); 62] = [
    ("MOV r8", &[0x8a, 0x07], 1),
    ("MOV r16", &[0x66, 0x8b, 0x07], 2),
    ("MOV r32", &[0x8b, 0x07], 4),
    ("MOV r64", &[0x48, 0x8b, 0x07], 8),
    ("MOV m64", &[0x48, 0x89, 0x07], 8),
    ("MOVZX r32, m16", &[0x0f, 0xb7, 0x07], 2),
    ("MOVSXD r64, m32", &[0x48, 0x63, 0x07], 4),
    ("MOVBE r32", &[0x0f, 0x38, 0xf0, 0x07], 4),
    ("MOVNTI m32", &[0x0f, 0xc3, 0x07], 4),
    ("ADD m32", &[0x01, 0x07], 4),
    ("LOCK ADD m32", &[0xf0, 0x01, 0x07], 4),
    ("XCHG m32", &[0x87, 0x07], 4),
    ("BT m16", &[0x66, 0x0f, 0xa3, 0x07], 2),
    ("BT m64", &[0x48, 0x0f, 0xa3, 0x07], 8),
    ("CMPXCHG8B", &[0x0f, 0xc7, 0x0f], 8),
    ("PUSH m64", &[0xff, 0x37], 8),
    ("VERR m16", &[0x0f, 0x00, 0x27], 2),
    ("STOSQ", &[0x48, 0xab], 8),
    ("SCASD", &[0xaf], 4),
    ("MOVSD", &[0xa5], 4),
    ("CMPSQ", &[0x48, 0xa7], 8),
    ("REP STOSQ", &[0xb1, 0x02, 0xf3, 0x48, 0xab], 8),
    ("FLD m32", &[0xd9, 0x07], 4),
    ("FLD m64", &[0xdd, 0x07], 8),
    ("FILD m16", &[0xdf, 0x07], 2),
    ("FLDCW", &[0xd9, 0x2f], 2),
    ("FLDENV m28", &[0xd9, 0x27], 4),
    ("FLDENV m14", &[0x66, 0xd9, 0x27], 2),
    ("FNSTENV m28", &[0xd9, 0x37], 4),
    ("FRSTOR m108", &[0xdd, 0x27], 4),
    ("FRSTOR m94", &[0x66, 0xdd, 0x27], 2),
    ("FNSAVE m108", &[0xdd, 0x37], 4),
    ("STMXCSR", &[0x0f, 0xae, 0x1f], 4),
    ("MOVQ mm", &[0x0f, 0x6f, 0x07], 8),
    ("PADDB mm", &[0x0f, 0xfc, 0x07], 8),
    ("MOVSS", &[0xf3, 0x0f, 0x10, 0x07], 4),
    ("MOVSD xmm", &[0xf2, 0x0f, 0x10, 0x07], 8),
    ("ADDSD", &[0xf2, 0x0f, 0x58, 0x07], 8),
    ("MOVHPS", &[0x0f, 0x16, 0x07], 8),
    ("PINSRW", &[0x66, 0x0f, 0xc4, 0x07, 0], 2),
    ("PEXTRQ", &[0x66, 0x48, 0x0f, 0x3a, 0x16, 0x07, 0], 8),
    ("PMOVZXBW", &[0x66, 0x0f, 0x38, 0x30, 0x07], 8),
    ("PMOVZXBQ", &[0x66, 0x0f, 0x38, 0x32, 0x07], 2),
    ("MASKMOVDQU", &[0x66, 0x0f, 0xf7, 0xc1], 8),
    ("VBROADCASTSD", &[0xc4, 0xe2, 0x7d, 0x19, 0x07], 8),
    ("MOVUPS", &[0x0f, 0x10, 0x07], 1),
    ("MOVUPS m128", &[0x0f, 0x11, 0x07], 1),
    ("MOVDQU", &[0xf3, 0x0f, 0x6f, 0x07], 1),
    ("LDDQU", &[0xf2, 0x0f, 0xf0, 0x07], 1),
    ("PCMPISTRI", &[0x66, 0x0f, 0x3a, 0x63, 0x07, 0], 1),
    ("VMOVDQU ymm", &[0xc5, 0xfe, 0x6f, 0x07], 1),
    ("VADDPS xmm", &[0xc5, 0xf8, 0x58, 0x07], 1),
    ("VADDPS ymm", &[0xc5, 0xfc, 0x58, 0x07], 1),
    ("VBROADCASTF128", &[0xc4, 0xe2, 0x7d, 0x1a, 0x07], 1),
    ("VMOVDDUP ymm", &[0xc5, 0xff, 0x12, 0x07], 1),
    ("VMASKMOVPS", &[0xc5, 0xf5, 0x76, 0xc9, 0xc4, 0xe2, 0x75, 0x2c, 0x07], 1),
    ("VPMASKMOVD m256", &[0xc5, 0xf5, 0x76, 0xc9, 0xc4, 0xe2, 0x75, 0x8e, 0x07], 1),
    ("CLFLUSH", &[0x0f, 0xae, 0x3f], 1),
    ("PREFETCHNTA", &[0x0f, 0x18, 0x07], 1),
    ("LEA", &[0x8d, 0x07], 1),
    ("POPCNT", &[0xf3, 0x0f, 0xb8, 0x07], 4),
    ("ADCX", &[0x66, 0x0f, 0x38, 0xf6, 0x07], 4),
];

#[test]
fn each_operand_is_aligned_to_its_own_size_or_not_at_all() {
    for (name, code, multiple) in OPERANDS {
        for offset in [0, 1, 2, 4, 8] {
            let mut guest = guest(Start::User64, code, DATA + 0x40 + offset);

            let ending = guest.run();

            let expected = if offset % multiple == 0 { RETIRED } else { MISALIGNED };
            assert_eq!(ending, expected, "{name} at +{offset}");
        }
    }
}

#[test]
fn fld_m80_and_fbld_are_aligned_to_8_bytes_as_their_stores_are() {
    let codes: [&[u8]; 4] = [
        &[0xdb, 0x2f],             // FLD m80
        &[0xdf, 0x27],             // FBLD
        &[0xd9, 0xe8, 0xdb, 0x3f], // FLD1; FSTP m80
        &[0xd9, 0xe8, 0xdf, 0x37], // FLD1; FBSTP
    ];
    for code in codes {
        for (offset, expected) in [(2, MISALIGNED), (4, MISALIGNED), (8, RETIRED)] {
            let mut guest = guest(Start::User64, code, DATA + offset);

            let ending = guest.run();

            assert_eq!(ending, expected, "{code:x?} at +{offset}");
        }
    }
}

#[test]
fn far_pointers_and_bounds_are_aligned_to_their_parts() {
    let codes: [(&str, &[u8], u64); 6] = [
        ("BOUND m32&32", &[0x62, 0x07], 4),
        ("BOUND m16&16", &[0x66, 0x62, 0x07], 2),
        ("LES m16:32", &[0xc4, 0x07], 4),
        ("LFS m16:16", &[0x66, 0x0f, 0xb4, 0x07], 2),
        ("CALL m16:32", &[0xff, 0x1f], 4),
        ("JMP m16:16", &[0x66, 0xff, 0x2f], 2),
    ];
    for (name, code, multiple) in codes {
        for offset in [0, 1, 2, 4] {
            let mut guest = guest(Start::User32, code, DATA + offset);

            let ending = guest.run();

            let misaligned = offset % multiple != 0;
            assert_eq!(ending == MISALIGNED, misaligned, "{name} at +{offset}: {ending:?}");
        }
    }
}

#[test]
fn save_areas_at_no_multiple_of_4_are_misaligned_and_at_others_refused() {
    let codes: [(&str, &[u8]); 7] = [
        ("FXSAVE", &[0x0f, 0xae, 0x07]),
        ("FXRSTOR", &[0x0f, 0xae, 0x0f]),
        ("XSAVE", &[0x0f, 0xae, 0x27]),
        ("XSAVEOPT", &[0x0f, 0xae, 0x37]),
        ("XSAVEC", &[0x0f, 0xc7, 0x27]),
        ("XRSTOR", &[0x0f, 0xae, 0x2f]),
        ("XRSTOR64", &[0x48, 0x0f, 0xae, 0x2f]),
    ];
    for (name, code) in codes {
        for (offset, expected) in [(1, MISALIGNED), (2, MISALIGNED), (4, REFUSED), (8, REFUSED)] {
            let mut guest = guest(Start::User64, code, DATA + offset);

            let ending = guest.run();

            assert_eq!(ending, expected, "{name} at +{offset}");
        }
    }
}

#[test]
fn operands_that_must_be_aligned_always_are_refused_and_not_misaligned() {
    let codes: [(&str, &[u8]); 4] = [
        ("MOVAPS", &[0x0f, 0x28, 0x07]),
        ("ADDPS", &[0x0f, 0x58, 0x07]),
        ("VMOVAPS ymm", &[0xc5, 0xfc, 0x28, 0x07]),
        ("CMPXCHG16B", &[0x48, 0x0f, 0xc7, 0x0f]),
    ];
    for (name, code) in codes {
        for offset in [1, 2, 4, 8] {
            let mut guest = guest(Start::User64, code, DATA + offset);

            let ending = guest.run();

            assert_eq!(ending, REFUSED, "{name} at +{offset}");
        }
    }
}

#[test]
fn a_pseudo_descriptor_is_aligned_by_its_base() {
    let sgdt = [0x0f, 0x01, 0x07];
    let cases = [
        (Start::User64, 6, RETIRED),
        (Start::User64, 0, MISALIGNED),
        (Start::User64, 2, MISALIGNED),
        (Start::User32, 2, RETIRED),
        (Start::User32, 0, MISALIGNED),
        (Start::User32, 1, MISALIGNED),
    ];
    for (start, offset, expected) in cases {
        let mut guest = guest(start, &sgdt, DATA + offset);

        let ending = guest.run();

        assert_eq!(ending, expected, "{start:?} at +{offset}");
    }
}

#[test]
fn misalignment_comes_before_a_page_fault_and_after_a_non_canonical_address() {
    for code in [&[0x8b, 0x07][..], &[0x89, 0x07], &[0xdb, 0x2f], &[0xf0, 0x01, 0x07]] {
        let mut absent = guest(Start::User64, code, DATA + 0x1001);
        absent.set_page_flags(DATA + 0x1000, 0);
        let mut not_canonical = guest(Start::User64, code, (1 << 47) + 1);
        let mut half_canonical = guest(Start::User64, code, (1 << 47) - 1);

        let endings = [absent.run(), not_canonical.run(), half_canonical.run()];

        assert_eq!(endings, [MISALIGNED, REFUSED, MISALIGNED], "{code:x?}");
    }
}

#[test]
fn a_non_canonical_stack_address_is_a_stack_fault_however_it_is_aligned() {
    let mut guest = guest(Start::User64, &[0x8b, 0x45, 0x00], DATA);
    guest.vcpu.cpu.arch.gpr[Gpr::Rbp] = (1 << 47) + 1;

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::with_code(Vector::Ss, 0)));
}

#[test]
fn alignment_is_not_checked_without_any_of_its_three_conditions() {
    let misaligned = |change: fn(&mut Guest)| {
        let mut guest = guest(Start::User64, &[0xdb, 0x2f, 0x8b, 0x07], DATA + 1);
        change(&mut guest);
        guest.run()
    };

    let without_am = misaligned(|guest| {
        guest.vcpu.cpu.arch.cr0.remove(Cr0::AM);
        guest.vcpu.cpu.update_mode();
    });
    let without_ac = misaligned(|guest| guest.vcpu.cpu.set_rflags(0));
    let mut kernel = guest(Start::Kernel64, &[0xdb, 0x2f, 0x8b, 0x07], DATA + 1);

    assert_eq!([without_am, without_ac, kernel.run()], [RETIRED; 3]);
}

#[test]
fn pushes_and_pops_are_aligned_to_their_size() {
    let codes: [(&[u8], u64); 7] = [
        (&[0x50], 8),                   // PUSH RAX
        (&[0x58], 8),                   // POP RAX
        (&[0x66, 0x50], 2),             // PUSH AX
        (&[0x9c], 8),                   // PUSHFQ
        (&[0x0f, 0xa0], 8),             // PUSH FS
        (&[0xc8, 0, 0, 0], 8),          // ENTER 0, 0
        (&[0x48, 0x89, 0xe5, 0xc9], 8), // MOV RBP, RSP; LEAVE
    ];
    for (code, multiple) in codes {
        for offset in [0, 1, 2, 4] {
            let mut guest = guest(Start::User64, code, DATA);
            guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = DATA + 0x400 + offset;

            let ending = guest.run();

            let expected = if offset % multiple == 0 { RETIRED } else { MISALIGNED };
            assert_eq!(ending, expected, "{code:x?} at +{offset}");
        }
    }
}
