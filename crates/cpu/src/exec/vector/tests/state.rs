//! AVX state in XSAVE areas (SDM Vol. 1, chapter 13).

use cloister_x86::regs::Xfeatures;
use cloister_x86::{Exception, Gpr, Vector};
use iced_x86::code_asm::*;

use crate::testing::{CODE, DATA, Ending, Guest, Start};

const XSTATE_BV: u64 = 512;
const XCOMP_BV: u64 = 520;
const AVX: u64 = 576;

/// YMM registers with their number in all quadwords of `range`.
fn numbered(range: std::ops::Range<usize>) -> [[u64; 4]; 16] {
    std::array::from_fn(|n| {
        std::array::from_fn(|q| if range.contains(&q) { n as u64 + 1 } else { 0 })
    })
}

/// A guest with RBX at the area and all components requested.
fn guest(ymm: [[u64; 4]; 16]) -> Guest {
    let mut guest = Guest::new(Start::Kernel64);
    let cpu = &mut guest.vcpu.cpu;
    (cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rbx]) = (7, DATA);
    cpu.arch.vector.ymm = ymm;
    guest
}

#[test]
fn xsave_and_xrstor_carry_the_upper_halves() {
    let mut saved = guest(numbered(0..4));
    saved.assemble(|a| {
        a.xsave64(ptr(rbx))?;
        a.vzeroall()?;
        a.xrstor64(ptr(rbx))
    });

    saved.run();

    assert_eq!(saved.read_u64(DATA + XSTATE_BV) & 6, 6);
    assert_eq!(saved.read_u64(DATA + AVX + 16 * 15 + 8), 16);
    assert_eq!(saved.vcpu.cpu.arch.vector.ymm, numbered(0..4));
}

#[test]
fn xsavec_compacts_and_xrstor_initializes_what_is_not_there() {
    let mut saved = guest(numbered(2..4));
    saved.assemble(|a| {
        a.xsavec64(ptr(rbx))?;
        a.vpcmpeqd(ymm0, ymm0, ymm0)?;
        a.xrstor64(ptr(rbx))
    });

    saved.run();

    assert_eq!(saved.read_u64(DATA + XCOMP_BV), 1 << 63 | 7);
    assert_eq!(saved.read_u64(DATA + XSTATE_BV) & 6, 4, "the XMM registers were zero");
    assert_eq!(saved.vcpu.cpu.arch.vector.ymm, numbered(2..4));
}

#[test]
fn xsaveopt_does_not_write_upper_halves_of_zeros() {
    let mut saved = guest(numbered(0..2));
    saved.write(DATA + AVX, &[0xa5; 256]);
    saved.assemble(|a| a.xsaveopt64(ptr(rbx)));

    saved.run();

    assert_eq!(saved.read_u64(DATA + XSTATE_BV) & 6, 2);
    assert_eq!(saved.read::<256>(DATA + AVX), [0xa5; 256]);
}

#[test]
fn xrstor_of_a_component_that_xcr0_lacks_is_refused() {
    let mut refused = guest(numbered(0..4));
    refused.assemble(|a| a.xrstor64(ptr(rbx)));
    refused.vcpu.cpu.arch.xcr0 = Xfeatures::X87 | Xfeatures::SSE;
    refused.write_u64(DATA + XSTATE_BV, 4);

    refused.run();

    assert_eq!(refused.vcpu.cpu.arch.rip, CODE);
}

#[test]
fn xgetbv_of_1_says_what_is_in_use() {
    for (range, expected) in [(0..0, 0), (0..2, 2), (2..4, 4), (0..4, 6)] {
        let mut asked = guest(numbered(range));
        asked.assemble(|a| a.xgetbv());
        asked.vcpu.cpu.arch.gpr[Gpr::Rcx] = 1;

        asked.run();

        assert_eq!(asked.vcpu.cpu.arch.gpr[Gpr::Rax] & 6, expected);
        assert_eq!(asked.vcpu.cpu.arch.gpr[Gpr::Rdx], 0);
    }
}

/// An instruction that loads MXCSR from the area at RBX, by its bytes and the area's XCOMP_BV.
const LOADS_OF_MXCSR: [(&str, &[u8], u64); 8] = [
    ("XRSTOR", &[0x0f, 0xae, 0x2b], 0),
    ("XRSTOR64", &[0x48, 0x0f, 0xae, 0x2b], 0),
    ("XRSTOR, compacted", &[0x0f, 0xae, 0x2b], 1 << 63 | 7),
    ("XRSTOR64, compacted", &[0x48, 0x0f, 0xae, 0x2b], 1 << 63 | 7),
    ("XRSTORS", &[0x0f, 0xc7, 0x1b], 1 << 63 | 7),
    ("XRSTORS64", &[0x48, 0x0f, 0xc7, 0x1b], 1 << 63 | 7),
    ("FXRSTOR", &[0x0f, 0xae, 0x0b], 0),
    ("FXRSTOR64", &[0x48, 0x0f, 0xae, 0x0b], 0),
];

#[test]
fn a_restore_that_refuses_mxcsr_changes_nothing() {
    for (name, code, xcomp_bv) in LOADS_OF_MXCSR {
        for components in [0, 1, 2, 3, 6, 7] {
            let mut refused = guest(numbered(0..4));
            refused.write(DATA, &[0x11; 512]);
            refused.write_u64(DATA + 24, 0x1_0000);
            // Of a compacted area without SSE state MXCSR is not loaded.
            let present = if xcomp_bv == 0 { components } else { components | 2 };
            refused.write_u64(DATA + XSTATE_BV, present);
            refused.write_u64(DATA + XCOMP_BV, xcomp_bv);
            refused.write(DATA + AVX, &[0x22; 256]);
            refused.load_code(code);
            refused.vcpu.cpu.arch.fpu.top = 3;
            let (fpu, vector) =
                (refused.vcpu.cpu.arch.fpu.clone(), refused.vcpu.cpu.arch.vector.clone());

            let ending = refused.run();

            let fault = Ending::Exception(Exception::with_code(Vector::Gp, 0));
            assert_eq!(ending, fault, "{name}, components {components}");
            assert_eq!(refused.vcpu.cpu.arch.rip, CODE, "{name}, components {components}");
            assert_eq!(refused.vcpu.cpu.arch.fpu, fpu, "{name}, components {components}");
            assert_eq!(refused.vcpu.cpu.arch.vector, vector, "{name}, components {components}");
        }
    }
}

#[test]
fn ldmxcsr_of_reserved_bits_changes_nothing() {
    for code in [&[0x0f, 0xae, 0x13][..], &[0xc5, 0xf8, 0xae, 0x13]] {
        let mut refused = guest(numbered(0..4));
        refused.write_u64(DATA, 0x1_0000);
        refused.load_code(code);

        let ending = refused.run();

        let fault = Ending::Exception(Exception::with_code(Vector::Gp, 0));
        assert_eq!(ending, fault, "{code:x?}");
        assert_eq!(refused.vcpu.cpu.arch.vector.mxcsr, 0x1f80, "{code:x?}");
    }
}
