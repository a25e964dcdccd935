//! Asynchronous exits, the SSA frame they leave, and ERESUME.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, ExitingEvent, PlatformConfig,
    PlatformIdentity, SgxFeatures, SgxStatus, Stepping,
};
use cloister_x86::{Exception, Gpr, PageFaultCode, Vector};

use crate::enclave::{BASE, DATA, Spec, TCS, started};
use crate::machine::{GP, Machine};
use crate::signer::Signer;

const AEP: u64 = 0x40_2000;
const FRAME: EpcIndex = EpcIndex(5);
const GPRSGX: usize = 4096 - 184;
const EXINFO: usize = GPRSGX - 16;
const TF: u64 = 1 << 8;
const RF: u64 = 1 << 16;

/// A machine inside the simple enclave with every register full.
fn inside() -> Machine {
    let mut machine = started();
    machine.cpu.gpr[Gpr::Rsp] = 0x7ffe_0000;
    machine.cpu.gpr[Gpr::Rbp] = 0x7ffe_0010;
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    for (register, value) in machine.cpu.gpr.iter_mut().enumerate() {
        *value = 0x1111_1111_1111_1111 * register as u64;
    }
    machine.cpu.rip = BASE + 0x2345;
    machine.cpu.rflags = 0x202 | 0x8d5 | RF;
    machine.cpu.fs.base = BASE + 0x100;
    machine.cpu.gs.base = BASE + 0x200;
    let image = machine.xsave.image_mut(3);
    for (at, byte) in image.iter_mut().enumerate() {
        *byte = at as u8;
    }
    image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    image[512..576].fill(0);
    image[512] = 3;
    machine
}

fn exception(vector: Vector, error_code: u32, address: u64) -> ExitingEvent {
    ExitingEvent::Exception(Exception { vector, error_code, address })
}

/// EXITINFO and EXINFO after an AEX because of `event`.
fn reported(event: ExitingEvent) -> (u32, u64, u64) {
    let mut machine = inside();
    machine.aex(event).expect("inside");
    let page = machine.platform.page(FRAME);
    (page.load(GPRSGX + 160) as u32, page.load(EXINFO), page.load(EXINFO + 8))
}

#[test]
fn an_aex_saves_the_registers_and_leaves_synthetic_ones() {
    let mut machine = inside();
    let saved = machine.cpu;

    let synthetic = machine.aex(ExitingEvent::Interrupt).expect("inside");

    let page = machine.platform.page(FRAME);
    let gprs: Vec<u64> = (0..16).map(|register| page.load(GPRSGX + register * 8)).collect();
    assert_eq!(gprs, saved.gpr);
    assert_eq!(page.load(GPRSGX + 128), saved.rflags, "RFLAGS with RF as pushed");
    assert_eq!(page.load(GPRSGX + 136), saved.rip);
    assert_eq!(page.load(GPRSGX + 168), BASE + 0x100, "FSBASE");
    assert_eq!(page.load(GPRSGX + 176), BASE + 0x200, "GSBASE");
    assert_eq!(page.load(GPRSGX + 160) as u32, 0, "an interrupt is not reported");

    let cpu = &machine.cpu;
    assert_eq!((cpu.gpr[Gpr::Rax], cpu.gpr[Gpr::Rbx], cpu.gpr[Gpr::Rcx]), (3, TCS, AEP));
    assert_eq!((cpu.gpr[Gpr::Rdx], cpu.gpr[Gpr::Rsi], cpu.gpr[Gpr::Rdi]), (0, 0, 0));
    assert_eq!((cpu.gpr[Gpr::Rsp], cpu.gpr[Gpr::Rbp]), (0x7ffe_0000, 0x7ffe_0010));
    assert_eq!(cpu.gpr[8..], [0; 8]);
    assert_eq!(cpu.rip, AEP);
    assert_eq!(cpu.rflags, 0x202, "CF, PF, AF, ZF, SF, OF and RF are clear");
    assert_eq!(cpu.xcr0, 7);
    assert_eq!(cpu.fs.base, 0x7f00_0000_1000);
    assert_eq!(cpu.gs.base, 0x7f00_0000_2000);
    assert!(!machine.state.in_enclave());
    assert_eq!(synthetic.init, 3);
    assert_eq!((synthetic.fcw, synthetic.fsw, synthetic.mxcsr), (0x37f, 0, 0x1fb0));
    assert_eq!(synthetic.event, ExitingEvent::Interrupt);
    let tcs = machine.platform.page(EpcIndex(1));
    assert_eq!(tcs.load(24), 2 << 32 | 1, "CSSA counts up, NSSA stays");
    assert_eq!(tcs.load(0), 0, "the TCS can be entered");
}

#[test]
fn the_xsave_area_holds_what_xsave_stores() {
    let mut machine = inside();
    machine.platform.page(FRAME).write(416, &[0xee; 96]);
    machine.xsave.image_mut(3)[512] = 7;

    machine.aex(ExitingEvent::Interrupt).expect("inside");

    let page = machine.platform.page(FRAME).to_bytes();
    assert_eq!(page[..416], machine.xsave.image(3)[..416]);
    assert_eq!(page[416..512], [0xee; 96], "left to software");
    assert_eq!(page[512..520], [3, 0, 0, 0, 0, 0, 0, 0], "XSTATE_BV within XFRM");
    assert_eq!(page[520..536], [0; 16]);
}

#[test]
fn avx_state_travels_through_the_ssa_frame() {
    let mut config = PlatformConfig::single(32, PlatformIdentity::from_seed(&[0; 32]));
    config.capabilities.xfrm = 7;
    let mut machine = Machine::with(config);
    let mut spec = Spec::simple();
    spec.attributes = Attributes::new(AttributeFlags::MODE64BIT, 7);
    let status = spec.start(&mut machine, 0, Signer::a());
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    let image = machine.xsave.image_mut(7);
    image.fill(0);
    image[512] = 7;
    image[576..].fill(0xa5);
    let size = image.len();

    let synthetic = machine.aex(ExitingEvent::Interrupt).expect("inside");
    machine.xsave.image_mut(7).fill(0);
    let resumed = machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    assert_eq!(status, SgxStatus::Success);
    assert_eq!(size, 832);
    assert_eq!(synthetic.init, 7);
    assert_eq!(machine.platform.page(FRAME).to_bytes()[576..832], [0xa5; 256]);
    assert_eq!(resumed.xrstor, Some(7));
    assert_eq!(machine.xsave.image(7)[576..], [0xa5; 256]);
}

#[test]
fn exceptions_are_reported_as_the_sdm_lists_them() {
    let valid = 1 << 31;
    let hardware = valid | 3 << 8;
    for (vector, number) in [
        (Vector::De, 0),
        (Vector::Db, 1),
        (Vector::Br, 5),
        (Vector::Ud, 6),
        (Vector::Mf, 16),
        (Vector::Ac, 17),
        (Vector::Xm, 19),
    ] {
        assert_eq!(reported(exception(vector, 0, 0)), (hardware | number, 0, 0), "{vector:?}");
    }
    assert_eq!(reported(exception(Vector::Bp, 0, 0)), (valid | 6 << 8 | 3, 0, 0));
    assert_eq!(reported(exception(Vector::Gp, 0x18, 0)), (hardware | 13, 0, 0x18));
    assert_eq!(reported(exception(Vector::Pf, 0x8007, DATA)), (hardware | 14, DATA, 0x8007));
    for vector in [Vector::Of, Vector::Nm, Vector::Ss, Vector::Np, Vector::Mc, Vector::Nmi] {
        assert_eq!(reported(exception(vector, 0, 0)), (0, 0, 0), "{vector:?}");
    }
    let supervisor = PageFaultCode::PRESENT.bits();
    assert_eq!(reported(exception(Vector::Pf, supervisor, DATA)), (0, 0, 0), "U/S = 0");
}

#[test]
fn faults_stay_hidden_without_exinfo() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.miscselect = 0;
    let status = spec.start(&mut machine, 0, Signer::a());
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");

    machine.aex(exception(Vector::Pf, 0x8007, DATA)).expect("inside");

    assert_eq!(status, SgxStatus::Success);
    let page = machine.platform.page(FRAME);
    assert_eq!(page.load(GPRSGX + 160) as u32, 0);
    assert_eq!(page.load(EXINFO), 0);
}

#[test]
fn a_page_fault_shows_the_system_only_the_page() {
    let mut machine = inside();

    let synthetic = machine.aex(exception(Vector::Pf, 0x8007, DATA + 0x123)).expect("inside");

    assert_eq!(synthetic.event, exception(Vector::Pf, 0x8007, DATA));
    assert_eq!(machine.platform.page(FRAME).load(EXINFO), DATA + 0x123, "the enclave sees all");
}

#[test]
fn floating_point_exceptions_keep_their_sign_in_the_synthetic_state() {
    let mf = inside().aex(exception(Vector::Mf, 0, 0)).expect("inside");
    let xm = inside().aex(exception(Vector::Xm, 0, 0)).expect("inside");

    assert_eq!((mf.fcw, mf.fsw, mf.mxcsr), (0x37e, 0x8081, 0x1fb0));
    assert_eq!((xm.fcw, xm.fsw, xm.mxcsr), (0x37f, 0, 0x1f01));
}

#[test]
fn no_aex_happens_outside_an_enclave() {
    let mut machine = started();
    let before = machine.cpu;

    let outcome = machine.aex(ExitingEvent::Interrupt);

    assert_eq!(outcome, None);
    assert_eq!(machine.cpu, before);
}

#[test]
fn eresume_continues_where_the_aex_was() {
    let mut machine = inside();
    let saved = machine.cpu;
    let state = machine.xsave.image(3).to_vec();
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    machine.xsave.image_mut(3).fill(0xcc);

    let outcome = machine.enclu(user::ERESUME, TCS, AEP + 8, 0).expect("ERESUME completes");

    assert_eq!(outcome.xrstor, Some(3));
    assert!(outcome.flush);
    assert_eq!(outcome.stepping, Stepping::Suppressed);
    assert_eq!(machine.xsave.image(3)[..416], state[..416]);
    assert_eq!(machine.cpu.gpr, saved.gpr);
    assert_eq!(machine.cpu.rip, saved.rip);
    assert_eq!(machine.cpu.rflags, saved.rflags);
    assert_eq!((machine.cpu.fs.base, machine.cpu.gs.base), (BASE + 0x100, BASE + 0x200));
    assert_eq!(machine.cpu.xcr0, 3);
    let tcs = machine.platform.page(EpcIndex(1));
    assert_eq!(tcs.load(24), 2 << 32, "CSSA counts down");
    assert_eq!(tcs.load(40), AEP + 8, "the new AEP");
    assert_eq!(tcs.load(0), 1);
}

#[test]
fn a_second_aex_uses_the_same_frame_after_eresume() {
    let mut machine = inside();
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    machine.cpu.gpr[Gpr::Rsp] = 0x6000;
    machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    machine.aex(ExitingEvent::Interrupt).expect("inside");

    assert_eq!(machine.cpu.gpr[Gpr::Rsp], 0x7ffe_0000, "URSP is that of the last EENTER");
    assert_eq!(machine.platform.page(EpcIndex(1)).load(24), 2 << 32 | 1);
}

#[test]
fn a_handler_entered_after_an_aex_gets_the_next_frame() {
    let mut machine = inside();
    machine.aex(exception(Vector::Ud, 0, 0)).expect("inside");

    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    let cssa = machine.cpu.gpr[Gpr::Rax];
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let full = machine.enclu(user::EENTER, TCS, AEP, 0);

    assert_eq!(cssa, 1);
    assert_eq!(full, Err(GP), "no frame is left");
    assert!(machine.enclu(user::ERESUME, TCS, AEP, 0).is_ok());
}

#[test]
fn eresume_needs_a_used_frame() {
    let mut machine = started();
    assert_eq!(machine.enclu(user::ERESUME, TCS, AEP, 0), Err(GP));
}

#[test]
fn eresume_rejects_a_frame_that_cannot_be_loaded() {
    let run = |at: usize, value: u64| {
        let mut machine = inside();
        machine.aex(ExitingEvent::Interrupt).expect("inside");
        machine.platform.page(FRAME).store(at, value);
        let outcome = machine.enclu(user::ERESUME, TCS, AEP, 0).map(drop);
        let state = machine.platform.page(EpcIndex(1)).load(0);
        assert_eq!(state, u64::from(outcome.is_ok()), "a failed entry frees the TCS");
        outcome
    };

    assert_eq!(run(512, 2), Ok(()), "x87 state in its INIT state");
    assert_eq!(run(512, 7), Err(GP), "XSTATE_BV beyond XFRM");
    assert_eq!(run(520, 1), Err(GP), "XCOMP_BV");
    assert_eq!(run(528, 1), Err(GP), "reserved in the header");
    assert_eq!(run(24, 0x1_0000), Err(GP), "MXCSR reserved bit");
    assert_eq!(run(GPRSGX + 136, 1 << 47), Err(GP), "RIP not canonical");
    assert_eq!(run(GPRSGX + 168, 1 << 47), Err(GP), "FSBASE not canonical");
    assert_eq!(run(GPRSGX + 176, 1 << 47), Err(GP), "GSBASE not canonical");
}

#[test]
fn eresume_takes_no_privileged_flag_from_the_frame() {
    let mut machine = inside();
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let frame = machine.platform.page(FRAME);
    frame.store(GPRSGX + 128, u64::MAX);

    machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    let taken = 1 | 4 | 0x10 | 0x40 | 0x80 | 0x400 | 0x800 | 0x4000 | RF | 1 << 18 | 1 << 21;
    assert_eq!(machine.cpu.rflags, 0x202 | taken, "no TF, IOPL, VM, VIF, VIP");
}

#[test]
fn the_trap_flag_comes_back_with_an_aex_and_goes_with_eresume() {
    let mut machine = started();
    machine.cpu.rflags |= TF;
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    machine.xsave.image_mut(3).fill(0);

    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let outside = machine.cpu.rflags & TF;
    let saved = machine.platform.page(FRAME).load(GPRSGX + 128) & TF;
    machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");
    let resumed = machine.cpu.rflags & TF;
    let left = machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    assert_eq!((outside, saved, resumed), (TF, 0, 0));
    assert_eq!(machine.cpu.rflags & TF, TF);
    assert_eq!(left.stepping, Stepping::Pending);
}

/// A machine with an AEX-Notify enclave that was left by an AEX.
fn notified(request: bool) -> Machine {
    let mut config = PlatformConfig::single(32, PlatformIdentity::from_seed(&[0; 32]));
    let default = Capabilities::default();
    config.capabilities = Capabilities {
        attributes: default.attributes | AttributeFlags::AEXNOTIFY,
        features: default.features | SgxFeatures::EDECCSSA,
        ..default
    };
    let mut machine = Machine::with(config);
    let mut spec = Spec::simple();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG | AttributeFlags::AEXNOTIFY;
    spec.attributes = Attributes::new(flags, 3);
    spec.pages[0].contents[8] = 2;
    // sgxs does not know AEXNOTIFY, so the signature says nothing of it.
    let sigstruct = spec.sigstruct_with_mask(Signer::a(), !(AttributeFlags::AEXNOTIFY.bits() | 2));
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let none = cloister_sgx::layout::EinitToken::none();
    let status = spec.einit(&mut machine, 0, &sigstruct, &none).expect("EINIT completes");
    assert_eq!(status, SgxStatus::Success);
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    machine.cpu.rip = BASE + 0x2222;
    machine.xsave.image_mut(3).fill(0);
    machine.platform.page(FRAME).write(GPRSGX + 167, &[u8::from(request)]);
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    machine
}

#[test]
fn eresume_notifies_a_thread_that_asked_for_it() {
    let mut machine = notified(true);

    let outcome = machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    assert_eq!(outcome.xrstor, None);
    assert_eq!(machine.cpu.rip, BASE + 0x2010, "the entry point");
    assert_eq!(machine.cpu.gpr[Gpr::Rax], 1, "CSSA");
    assert_eq!(machine.platform.page(EpcIndex(1)).load(24), 2 << 32 | 1, "no frame is popped");
}

#[test]
fn eresume_resumes_a_thread_that_did_not_ask() {
    let mut machine = notified(false);

    let outcome = machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    assert_eq!(outcome.xrstor, Some(3));
    assert_eq!(machine.cpu.rip, BASE + 0x2222);
}

#[test]
fn edeccssa_pops_the_frame_of_a_notified_thread() {
    let mut machine = notified(true);
    machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    let popped = machine.enclu(user::EDECCSSA, 0, 0, 0);
    let empty = machine.enclu(user::EDECCSSA, 0, 0, 0);
    machine.cpu.rip = BASE + 0x2abc;
    machine.aex(ExitingEvent::Interrupt).expect("inside");

    assert!(popped.is_ok());
    assert_eq!(empty, Err(GP), "CSSA is 0");
    assert_eq!(machine.platform.page(FRAME).load(GPRSGX + 136), BASE + 0x2abc, "frame 0 again");
}
