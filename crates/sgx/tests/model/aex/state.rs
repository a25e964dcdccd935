//! Extended state across an AEX: the XSAVE area of the frame and the synthetic state, by XFRM.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent};

use crate::machine::{GP, Machine};
use crate::scenario::{AEP, BASE, SSA, TCS, enter, epc, machine, spec_at, start};

/// Inside an enclave with this XFRM, whose registers hold a pattern.
fn inside(xfrm: u64) -> Machine {
    let mut machine = machine();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    start(&mut machine, &spec_at(BASE, flags, xfrm));
    machine.platform.page(EpcIndex(epc(SSA))).write(0, &[0xee; 4096]);
    enter(&mut machine);
    let image = machine.xsave.image_mut(7);
    for (at, byte) in image.iter_mut().enumerate() {
        *byte = at as u8 | 1;
    }
    image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    image[512..576].fill(0);
    image[512] = xfrm as u8;
    machine
}

#[test]
fn an_aex_stores_the_components_of_xfrm_and_nothing_else() {
    for (xfrm, end) in [(3, 576), (7, 832)] {
        let mut machine = inside(xfrm);
        let image = machine.xsave.image(7).to_vec();

        machine.aex(ExitingEvent::Interrupt).expect("inside");

        let page = machine.platform.page(EpcIndex(epc(SSA))).to_bytes();
        assert_eq!(page[..416], image[..416], "x87 and SSE");
        assert_eq!(page[416..512], [0xee; 96], "the bytes left to software");
        assert_eq!(page[512..536], image[512..536], "the header");
        assert_eq!(page[536..576], [0xee; 40], "reserved bytes that XSAVE does not write");
        assert_eq!(page[576..end], image[576..end], "AVX");
        assert_eq!(page[end..], [0xee].repeat(4096 - end), "beyond the area");
    }
}

#[test]
fn the_header_that_is_stored_is_confined_to_xfrm() {
    let mut machine = inside(3);
    let image = machine.xsave.image_mut(7);
    image[512..536].fill(0xff);

    machine.aex(ExitingEvent::Interrupt).expect("inside");

    let page = machine.platform.page(EpcIndex(epc(SSA)));
    assert_eq!((page.load(512), page.load(520), page.load(528)), (3, 0, 0));
}

#[test]
fn the_synthetic_state_covers_xfrm_and_xcr0_comes_back() {
    for xfrm in [3, 7] {
        let mut machine = inside(xfrm);
        let inside = machine.cpu.xcr0;

        let synthetic = machine.aex(ExitingEvent::Interrupt).expect("inside");

        assert_eq!((inside, machine.cpu.xcr0), (xfrm, 7));
        assert_eq!(synthetic.init, xfrm);
        assert_eq!((synthetic.fcw, synthetic.fsw, synthetic.mxcsr), (0x37f, 0, 0x1fb0));
    }
}

#[test]
fn eresume_brings_back_the_components_of_xfrm() {
    for xfrm in [3, 7] {
        let mut machine = inside(xfrm);
        let stored = machine.xsave.image(xfrm).to_vec();
        machine.aex(ExitingEvent::Interrupt).expect("inside");
        machine.xsave.image_mut(7).fill(0);

        let resumed = machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

        assert_eq!(resumed.xrstor, Some(xfrm));
        assert_eq!(machine.xsave.image(xfrm)[..416], stored[..416]);
        assert_eq!(machine.xsave.image(xfrm)[576..], stored[576..]);
        assert_eq!(machine.cpu.xcr0, xfrm);
    }
}

#[test]
fn avx_state_in_a_frame_needs_avx_in_xfrm() {
    for (xfrm, outcome) in [(3, Err(GP)), (7, Ok(()))] {
        let mut machine = inside(xfrm);
        machine.aex(ExitingEvent::Interrupt).expect("inside");
        machine.platform.page(EpcIndex(epc(SSA))).store(512, 4);

        assert_eq!(machine.enclu(user::ERESUME, TCS, AEP, 0).map(drop), outcome);
    }
}

#[test]
fn the_last_frame_takes_an_aex_and_no_further_entry() {
    let mut machine = inside(3);
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    enter(&mut machine);
    machine.aex(ExitingEvent::Interrupt).expect("inside");

    let full = machine.enclu(user::EENTER, TCS, AEP, 0).map(drop);
    let page = machine.platform.page(EpcIndex(epc(TCS)));

    assert_eq!(page.load(24), 2 << 32 | 2, "CSSA = NSSA");
    assert_eq!(full, Err(GP));
}
