//! The conditions of EEXIT.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex};
use cloister_x86::Gpr;

use super::thread::{ready, tcs};
use crate::machine::GP;
use crate::scenario::{AEP, TCS, enter, epc};

#[test]
fn eexit_takes_any_canonical_target() {
    let run = |target| {
        let mut scenario = ready(AttributeFlags::empty());
        enter(&mut scenario.machine);
        let outcome = scenario.machine.enclu(user::EEXIT, target, 0, 0).map(drop);
        (outcome, scenario.machine.state.in_enclave(), scenario.machine.cpu.rip == target)
    };

    assert_eq!(run(0x40_3000), (Ok(()), false, true));
    assert_eq!(run(0), (Ok(()), false, true));
    assert_eq!(run(TCS), (Ok(()), false, true), "in ELRANGE: the next fetch fails");
    assert_eq!(run(0xffff_8000_0000_0000), (Ok(()), false, true));
    assert_eq!(run(0x0000_8000_0000_0000), (Err(GP), true, false));
    assert_eq!(run(0xffff_7fff_ffff_ffff), (Err(GP), true, false));
}

#[test]
fn eexit_gives_the_aep_and_frees_the_thread() {
    let mut scenario = ready(AttributeFlags::empty());
    enter(&mut scenario.machine);
    scenario.machine.cpu.gpr[Gpr::Rsp] = 0x1234;
    scenario.machine.cpu.rflags = 0x202 | 0x8d5;

    scenario.machine.enclu(user::EEXIT, 0x40_3000, 7, 8).expect("EEXIT completes");

    let cpu = &scenario.machine.cpu;
    assert_eq!((cpu.gpr[Gpr::Rax], cpu.gpr[Gpr::Rbx], cpu.gpr[Gpr::Rcx]), (4, 0x40_3000, AEP));
    assert_eq!(cpu.gpr[Gpr::Rsp], 0x1234, "the stack is the enclave's to switch");
    assert_eq!(cpu.rflags, 0x202 | 0x8d5);
    let page = scenario.machine.platform.page(EpcIndex(epc(TCS)));
    assert_eq!((page.load(tcs::STATE), page.load(tcs::CSSA_NSSA)), (0, 2 << 32));
}

#[test]
fn without_xsave_xcr0_is_left_alone() {
    let mut scenario = ready(AttributeFlags::empty());
    scenario.machine.cpu.osxsave = false;
    scenario.machine.cpu.xcr0 = 1;

    enter(&mut scenario.machine);
    let inside = scenario.machine.cpu.xcr0;
    scenario.machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    assert_eq!((inside, scenario.machine.cpu.xcr0), (1, 1));
}
