//! Gathers that fault and go on, and their addresses (SDM Vol. 2C, VPGATHERDD).

use cloister_x86::Gpr;

use crate::exit::Exit;
use crate::testing::{DATA, DEVICE, Ending, Guest, Start};

/// VPGATHERDD xmm0, [rbx + xmm1 * 4], xmm2.
const XMM: [u8; 6] = [0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8b];
/// VPGATHERDD ymm0, [rbx + ymm1 * 4], ymm2.
const YMM: [u8; 6] = [0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x8b];

#[test]
fn a_gather_that_faults_keeps_what_it_has_and_goes_on_from_there() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.load_code(&YMM);
    for i in 0..8 {
        guest.write(DATA + 0x1000 * i, &(0x100 + i as u32).to_le_bytes());
    }
    guest.set_page_flags(DATA + 0x3000, 0);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = DATA;
    cpu.arch.vector.ymm[0] = [u64::MAX; 4];
    cpu.arch.vector.ymm[1] = std::array::from_fn(|n| {
        let index = |i: u64| i * 0x400;
        index(2 * n as u64) | index(2 * n as u64 + 1) << 32
    });
    // All but element 1.
    cpu.arch.vector.ymm[2] = [0x8000_0000, 0xffff_ffff_8000_0000, u64::MAX, u64::MAX];

    let first = guest.run();
    let (partial, left) = (guest.vcpu.cpu.arch.vector.ymm[0], guest.vcpu.cpu.arch.vector.ymm[2]);
    guest.set_page_flags(DATA + 0x3000, 7);
    guest.write(DATA, &[0; 4]);
    guest.run();

    assert!(
        matches!(first, Ending::Exception(e) if e.vector as u8 == 14 && e.address == DATA + 0x3000)
    );
    assert_eq!(partial[..2], [0xffff_ffff_0000_0100, 0xffff_ffff_0000_0102]);
    assert_eq!(left, [0, 0xffff_ffff_0000_0000, u64::MAX, u64::MAX]);
    let done = [
        0xffff_ffff_0000_0100,
        0x0000_0103_0000_0102,
        0x0000_0105_0000_0104,
        0x0000_0107_0000_0106,
    ];
    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], done, "element 0 is not read again");
    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[2], [0; 4]);
}

#[test]
fn a_gather_from_a_device_asks_for_each_element_once() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.load_code(&XMM);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = DEVICE;
    cpu.arch.vector.ymm[1] = [2 << 32 | 1, 0, 0, 0];
    cpu.arch.vector.ymm[2] = [u64::MAX, 0, 0, 0];

    let mut asked = Vec::new();
    for answer in [0x11, 0x22] {
        let ending = guest.run();
        let Ending::Exit(Exit::MmioRead { gpa, size: 4 }) = ending else { panic!("{ending:?}") };
        asked.push(gpa.0 - DEVICE);
        guest.vcpu.complete(answer);
    }
    guest.run();

    assert_eq!(asked, [4, 8]);
    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0], [0x22_0000_0011, 0, 0, 0]);
}

#[test]
fn an_address_size_prefix_truncates_the_sum() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.load_code(&[&[0x67][..], &XMM].concat());
    guest.write(DATA - 4, &[1, 2, 3, 4]);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rbx] = 0xffff_ffff_0000_0000 | DATA;
    cpu.arch.vector.ymm[1] = [0xffff_ffff, 0, 0, 0];
    cpu.arch.vector.ymm[2] = [0x8000_0000, 0, 0, 0];

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0][0], 0x0403_0201);
}

#[test]
fn an_index_without_a_base_reaches_32_bit_addresses() {
    // VPGATHERDD xmm0, [xmm1 * 4 + disp32], xmm2, in 32-bit code.
    let mut code = vec![0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8d];
    code.extend((DATA as u32 + 4).to_le_bytes());
    let mut guest = Guest::new(Start::User32);
    guest.load_code(&code);
    guest.write(DATA, &[1, 2, 3, 4]);
    guest.vcpu.cpu.arch.vector.ymm[1] = [0xffff_ffff, 0, 0, 0];
    guest.vcpu.cpu.arch.vector.ymm[2] = [0x8000_0000, 0, 0, 0];

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.vector.ymm[0][0], 0x0403_0201);
}

#[test]
fn registers_of_a_gather_differ() {
    // VPGATHERDD with the index as the destination, as the mask, and the mask as the destination.
    for code in [
        [0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x8b],
        [0xc4, 0xe2, 0x71, 0x90, 0x04, 0x8b],
        [0xc4, 0xe2, 0x79, 0x90, 0x04, 0x8b],
    ] {
        let mut guest = Guest::new(Start::Kernel64);
        guest.load_code(&code);
        guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA;

        guest.run();

        assert_eq!(guest.vcpu.cpu.arch.rip, crate::testing::CODE, "{code:x?}");
    }
}
