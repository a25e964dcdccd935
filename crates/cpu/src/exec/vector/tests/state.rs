//! AVX state in XSAVE areas (SDM Vol. 1, chapter 13).

use cloister_x86::regs::Xfeatures;
use iced_x86::code_asm::*;

use crate::testing::{DATA, Guest, Start};

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
    (cpu.gpr[0], cpu.gpr[3]) = (7, DATA);
    cpu.vector.ymm = ymm;
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
    assert_eq!(saved.vcpu.cpu.vector.ymm, numbered(0..4));
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
    assert_eq!(saved.vcpu.cpu.vector.ymm, numbered(2..4));
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
    refused.vcpu.cpu.xcr0 = Xfeatures::X87 | Xfeatures::SSE;
    refused.write_u64(DATA + XSTATE_BV, 4);

    refused.run();

    assert_eq!(refused.vcpu.cpu.rip, crate::testing::CODE);
}

#[test]
fn xgetbv_of_1_says_what_is_in_use() {
    for (range, expected) in [(0..0, 0), (0..2, 2), (2..4, 4), (0..4, 6)] {
        let mut asked = guest(numbered(range));
        asked.assemble(|a| a.xgetbv());
        asked.vcpu.cpu.gpr[1] = 1;

        asked.run();

        assert_eq!(asked.vcpu.cpu.gpr[0] & 6, expected);
        assert_eq!(asked.vcpu.cpu.gpr[2], 0);
    }
}
