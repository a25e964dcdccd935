//! When an instruction with a VEX prefix is one (SDM Vol. 2A, 2.4 and tables 2-18 and following).

use cloister_x86::regs::{Cr0, Cr4, Xfeatures};
use cloister_x86::{Exception, Gpr, PageFaultCode, Vector};
use iced_x86::code_asm::*;

use crate::cpu::Cpu;
use crate::testing::{CODE, DATA, Ending, Guest, Start};

/// VPADDD ymm0, ymm1, ymm2.
const VPADDD: [u8; 4] = [0xc5, 0xf5, 0xfe, 0xc2];
/// ANDN eax, ecx, edx.
const ANDN: [u8; 5] = [0xc4, 0xe2, 0x70, 0xf2, 0xc2];

const UD: Ending = Ending::Exception(Exception::ud());

/// The exception of VPADDD after a change of the processor, and where it came.
fn vpaddd(change: impl FnOnce(&mut Cpu)) -> (Ending, u64) {
    let mut guest = Guest::new(Start::Kernel64);
    guest.load_code(&VPADDD);
    change(&mut guest.vcpu.cpu);
    guest.vcpu.cpu.update_mode();
    let ending = guest.run();
    (ending, guest.vcpu.cpu.arch.rip - CODE)
}

#[test]
fn avx_instructions_need_the_operating_system_to_save_their_state() {
    let nm = Ending::Exception(Exception::new(Vector::Nm));
    let x87_sse = Xfeatures::X87 | Xfeatures::SSE;

    assert_eq!(vpaddd(|_| ()), (UD, 4), "UD2 after it");
    assert_eq!(vpaddd(|cpu| cpu.arch.cr4.remove(Cr4::OSXSAVE)), (UD, 0));
    assert_eq!(vpaddd(|cpu| cpu.arch.xcr0 = x87_sse), (UD, 0));
    assert_eq!(vpaddd(|cpu| cpu.arch.xcr0 = Xfeatures::X87), (UD, 0));
    assert_eq!(vpaddd(|cpu| cpu.arch.cr0 |= Cr0::TS), (nm, 0));
    let both = |cpu: &mut Cpu| {
        cpu.arch.xcr0 = x87_sse;
        cpu.arch.cr0 |= Cr0::TS;
    };
    assert_eq!(vpaddd(both), (UD, 0), "#UD before #NM");
}

#[test]
fn avx_instructions_ignore_what_enables_sse() {
    assert_eq!(vpaddd(|cpu| cpu.arch.cr4.remove(Cr4::OSFXSR)), (UD, 4));
    assert_eq!(vpaddd(|cpu| cpu.arch.cr0 |= Cr0::EM), (UD, 4));
}

#[test]
fn bmi_instructions_need_no_vector_state() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.load_code(&ANDN);
    guest.vcpu.cpu.arch.cr4.remove(Cr4::OSXSAVE);
    (guest.vcpu.cpu.arch.gpr[Gpr::Rcx], guest.vcpu.cpu.arch.gpr[Gpr::Rdx]) = (0b1100, 0b1010);

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0b0010);
}

#[test]
fn real_mode_has_no_vex_prefix() {
    for code in [&VPADDD[..], &ANDN] {
        let mut guest = Guest::new(Start::Real16);
        guest.load_code(code);

        let ending = guest.run();

        assert_eq!((ending, guest.vcpu.cpu.arch.rip), (UD, CODE), "{code:x?}");
    }
}

#[test]
fn protected_mode_of_32_bits_has_eight_registers() {
    let mut guest = Guest::new(Start::Flat32);
    guest.load_code(&VPADDD);
    guest.vcpu.cpu.arch.vector.ymm[1] = [1; 4];
    guest.vcpu.cpu.arch.vector.ymm[2] = [2; 4];

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], [3; 4]);
}

#[test]
fn vzeroall_and_vzeroupper_leave_what_32_bit_code_does_not_see() {
    for (upper_only, low) in [(false, 0), (true, 7)] {
        let mut guest = Guest::new(Start::User32);
        guest.assemble(|a| if upper_only { a.vzeroupper() } else { a.vzeroall() });
        guest.vcpu.cpu.arch.vector.ymm = [[7; 4]; 16];

        guest.run();

        assert_eq!(guest.vcpu.cpu.arch.vector.ymm[..8], [[low, low, 0, 0]; 8]);
        assert_eq!(guest.vcpu.cpu.arch.vector.ymm[8..], [[7; 4]; 8]);
    }
}

#[test]
fn encodings_of_features_that_are_not_announced_are_undefined() {
    let encodings: [&[u8]; 4] = [
        &[0xc4, 0xe2, 0x75, 0xdc, 0xc2],       // VAESENC ymm0, ymm1, ymm2
        &[0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00], // VPCLMULQDQ ymm0, ymm1, ymm2, 0
        &[0x62, 0xf1, 0x75, 0x28, 0xfe, 0xc2], // VPADDD ymm0, ymm1, ymm2 with EVEX
        &[0xc4, 0xe2, 0x75, 0x50, 0xc2],       // VPDPBUSD ymm0, ymm1, ymm2
    ];
    for code in encodings {
        let mut guest = Guest::new(Start::Kernel64);
        guest.load_code(code);

        let ending = guest.run();

        assert_eq!((ending, guest.vcpu.cpu.arch.rip), (UD, CODE), "{code:x?}");
    }
}

#[test]
fn an_unmasked_exception_is_undefined_without_osxmmexcpt() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| a.vdivps(ymm0, ymm1, ymm2));
    guest.vcpu.cpu.arch.vector.mxcsr = 0x1d80;
    guest.vcpu.cpu.arch.vector.ymm[1] = [0x3f80_0000_3f80_0000; 4];
    guest.vcpu.cpu.arch.cr4.remove(Cr4::OSXMMEXCPT);

    let ending = guest.run();

    assert_eq!((ending, guest.vcpu.cpu.arch.rip), (UD, CODE));
    assert_eq!(guest.vcpu.cpu.arch.vector.mxcsr, 0x1d84);
}

#[test]
fn masked_moves_are_exempt_from_alignment_checks() {
    let mut guest = Guest::new(Start::User64);
    guest.assemble(|a| {
        a.vmaskmovps(xmm0, xmm1, xmmword_ptr(rbx))?;
        a.vmaskmovps(xmmword_ptr(rbx + 0x20), xmm1, xmm0)
    });
    guest.write(DATA + 1, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = DATA + 1;
    cpu.arch.vector.ymm[1] = [1 << 63, 0, 0, 0];
    cpu.arch.cr0 |= Cr0::AM;
    cpu.set_rflags(1 << 18 | 2);

    let ending = guest.run();

    assert_eq!(ending, UD, "UD2 after them");
    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], [0x0807_0605_0000_0000, 0, 0, 0]);
    assert_eq!(guest.read::<12>(DATA + 0x21), [0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0]);
}

#[test]
fn masked_moves_look_at_the_whole_address_before_they_look_at_a_page() {
    let codes: [&[u8]; 4] = [
        &[0xc4, 0xe2, 0x75, 0x2c, 0x03], // VMASKMOVPS ymm0, ymm1, [rbx]
        &[0xc4, 0xe2, 0x75, 0x2e, 0x03], // VMASKMOVPS [rbx], ymm1, ymm0
        &[0xc4, 0xe2, 0xf5, 0x8c, 0x03], // VPMASKMOVQ ymm0, ymm1, [rbx]
        &[0xc4, 0xe2, 0xf5, 0x8e, 0x03], // VPMASKMOVQ [rbx], ymm1, ymm0
    ];
    let start = (1 << 47) - 16;
    // The first and the last element, of which the last is beyond; the first two.
    let masks = [[1 << 63 | 1 << 31, 0, 0, 1 << 63], [1 << 63 | 1 << 31, 1 << 63, 0, 0]];
    for (code, mask) in codes.iter().flat_map(|code| masks.map(|mask| (code, mask))) {
        let mut guest = Guest::new(Start::Kernel64);
        guest.load_code(code);
        guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = start;
        guest.vcpu.cpu.arch.vector.ymm[1] = mask;

        let ending = guest.run();

        let write = if code[3] & 2 != 0 { 2 } else { 0 };
        let absent = Exception::pf(start, PageFaultCode::from_bits_retain(write));
        let expected = if mask[3] != 0 { Exception::gp(0) } else { absent };
        assert_eq!(ending, Ending::Exception(expected), "{code:x?} {mask:x?}");
    }
}
