//! EENTER, ERESUME and EEXIT outside 64-bit mode: segments, limits and 32-bit registers.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent};
use cloister_x86::{Gpr, Rights};

use super::thread::{WU, tcs};
use crate::machine::{GP, Machine, epcm_fault};
use crate::order::{Condition, violations};
use crate::scenario::{self, AEP, Scenario, UNUSED, map, start};

const BASE: u64 = 0x1000_0000;
const SSA: u64 = BASE + 0x4000;
const GPRSGX: u64 = SSA + 0x2000 - 184;

/// A processor in 32-bit mode outside a 32-bit enclave, with flat segments.
fn machine() -> Machine {
    let mut machine = scenario::machine();
    start(&mut machine, &scenario::spec_at(BASE, AttributeFlags::DEBUG, 3));
    machine.cpu.mode64 = false;
    machine.cpu.cs.rights = Rights(0xc0fb);
    machine.cpu.fs = machine.cpu.ds;
    machine.cpu.gs = machine.cpu.ds;
    machine
}

fn ready() -> Scenario {
    Scenario { machine: machine(), rbx: BASE, rcx: AEP, rdx: 0 }
}

fn interrupted() -> Scenario {
    let mut scenario = ready();
    scenario.machine.enclu(user::EENTER, BASE, AEP, 0).expect("EENTER completes");
    scenario.machine.cpu.rip = BASE + 0x2100;
    scenario.machine.xsave.image_mut(3).fill(0);
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
    scenario
}

fn segment(
    name: &'static str,
    part: &'static str,
    change: fn(&mut Machine),
) -> Condition<Scenario> {
    Condition::new(name, part, Err(GP), move |scenario: &mut Scenario| {
        change(&mut scenario.machine);
    })
}

/// The first conditions: segments, before the TCS is looked at.
fn segments() -> Vec<Condition<Scenario>> {
    vec![
        segment("DS unusable", "DS", |machine| machine.cpu.ds.rights.0 |= Rights::UNUSABLE),
        segment("DS expand-down", "DS", |machine| machine.cpu.ds.rights.0 |= Rights::EC),
        segment("CS base", "CS", |machine| machine.cpu.cs.base = 4096),
        segment("DS base", "DS", |machine| machine.cpu.ds.base = 4096),
        segment("ES base", "ES", |machine| machine.cpu.es.base = 4096),
        segment("SS base", "SS", |machine| machine.cpu.ss.base = 4096),
        segment("SS 16-bit", "SS", |machine| machine.cpu.ss.rights.0 &= !Rights::DB),
        segment("the TCS beyond DS", "DS", |machine| machine.cpu.ds.limit = BASE as u32 + 0xffe),
        Condition::new("TCS not VALID", "TCS page", Err(epcm_fault(BASE, WU)), |scenario| {
            let scenario: &mut Scenario = scenario;
            map(&mut scenario.machine, BASE, UNUSED);
        }),
    ]
}

/// From the SSA frame on.
fn frame() -> Vec<Condition<Scenario>> {
    let page = |name, la: u64, fault_at: u64, part| {
        Condition::new(name, part, Err(epcm_fault(fault_at, WU)), move |scenario| {
            let scenario: &mut Scenario = scenario;
            map(&mut scenario.machine, la, UNUSED);
        })
    };
    vec![
        page("XSAVE page not VALID", SSA, SSA, "XSAVE page"),
        page("GPRSGX page not VALID", SSA + 0x1000, GPRSGX, "GPRSGX page"),
        segment("the end of GPRSGX beyond DS", "DS", |machine| {
            machine.cpu.ds.limit = (GPRSGX + 182) as u32;
        }),
    ]
}

fn tcs_field(name: &'static str, at: usize, value: u64) -> Condition<Scenario> {
    Condition::new(name, "TCS", Err(GP), move |scenario: &mut Scenario| {
        scenario.machine.platform.page(EpcIndex(1)).store(at, value);
    })
}

/// The last conditions: FS and GS as the TCS has them, and its STATE.
fn thread_segments() -> Vec<Condition<Scenario>> {
    vec![
        tcs_field("FS beyond DS", 64, 0x7fff_ffff),
        tcs_field("GS beyond DS", 64, 0x7fff_ffff << 32),
        tcs_field("FS wraps around with holes in DS", 64, 0xffff_ffff),
        tcs_field("GS wraps around with holes in DS", 64, 0xffff_ffff << 32),
        tcs_field("STATE", tcs::STATE, 1),
    ]
}

/// DS ends where the enclave does, so that limits of FS and GS can be beyond it.
fn limited(mut scenario: Scenario) -> Scenario {
    scenario.machine.cpu.ds.limit = BASE as u32 + 0x1_ffff;
    scenario
}

#[test]
fn eenter_outside_64_bit_mode_checks_its_conditions_in_order() {
    let mut conditions = segments();
    conditions.extend(frame());
    conditions.push(segment("entry point beyond CS", "CS", |machine| {
        machine.cpu.cs.limit = BASE as u32 + 0x200f;
    }));
    conditions.extend(thread_segments());

    let found =
        violations(|| limited(ready()), |scenario| scenario.enclu(user::EENTER), 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn eresume_outside_64_bit_mode_checks_its_conditions_in_order() {
    let mut conditions = segments();
    conditions.extend(frame());
    conditions.push(segment("RIP beyond CS", "CS", |machine| {
        machine.cpu.cs.limit = BASE as u32 + 0x20ff;
    }));
    conditions.extend(thread_segments());

    let found = violations(
        || limited(interrupted()),
        |scenario| scenario.enclu(user::ERESUME).map(|_| 0),
        0,
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn null_segments_are_not_looked_at_but_ds() {
    let mut scenario = ready();
    for segment in [&mut scenario.machine.cpu.es, &mut scenario.machine.cpu.ss] {
        segment.base = 4096;
        segment.rights.0 |= Rights::UNUSABLE;
    }

    assert_eq!(scenario.enclu(user::EENTER), Ok(0));
}

#[test]
fn segments_may_wrap_around_a_ds_without_holes() {
    let mut scenario = ready();
    scenario.machine.platform.page(EpcIndex(1)).store(64, u64::MAX);

    assert_eq!(scenario.enclu(user::EENTER), Ok(0));
    assert_eq!((scenario.machine.cpu.fs.limit, scenario.machine.cpu.gs.limit), (!0, !0));
}

#[test]
fn segments_are_not_looked_at_in_64_bit_mode() {
    let mut scenario = super::thread::ready(AttributeFlags::empty());
    for segment in [
        &mut scenario.machine.cpu.cs,
        &mut scenario.machine.cpu.ds,
        &mut scenario.machine.cpu.es,
        &mut scenario.machine.cpu.ss,
    ] {
        segment.base = 4096;
        segment.limit = 0;
    }

    assert_eq!(scenario.enclu(user::EENTER), Ok(0));
}

#[test]
fn an_aep_of_a_32_bit_thread_has_32_bits() {
    let mut scenario = ready();
    scenario.rcx = 1 << 47 | AEP;

    assert_eq!(scenario.enclu(user::EENTER), Ok(0), "the upper half does not belong to ECX");
    assert_eq!(scenario.machine.platform.page(EpcIndex(1)).load(40), AEP);
}

#[test]
fn an_aex_saves_low_halves_and_eresume_brings_them_back() {
    let mut machine = machine();
    machine.cpu.gpr[Gpr::Rsp] = 0x7000_0000;
    machine.enclu(user::EENTER, BASE, AEP, 0).expect("EENTER completes");
    let frame = EpcIndex(6);
    machine.platform.page(frame).write(4096 - 184, &[0xee; 128]);
    for (register, value) in machine.cpu.gpr.iter_mut().enumerate() {
        *value = 0x0101_0101 * register as u64;
    }
    machine.cpu.rip = BASE + 0x2100;
    machine.cpu.rflags = 0x202;
    machine.xsave.image_mut(3).fill(0);
    let inside = machine.cpu;

    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let outside = machine.cpu;
    let page = machine.platform.page(frame).to_bytes();
    machine.enclu(user::ERESUME, BASE, AEP, 0).expect("ERESUME completes");

    assert_eq!(page[4096 - 184 + 8..4096 - 184 + 16], [1, 1, 1, 1, 0xee, 0xee, 0xee, 0xee], "ECX");
    assert_eq!(page[4096 - 184 + 64..4096 - 184 + 128], [0xee; 64], "R8 to R15 are not stored");
    assert_eq!(
        (outside.gpr[Gpr::Rax], outside.gpr[Gpr::Rbx], outside.gpr[Gpr::Rcx]),
        (3, BASE, AEP)
    );
    assert_eq!(outside.gpr[Gpr::Rsp], 0x7000_0000);
    assert_eq!(outside.gpr[8..], inside.gpr[8..], "R8 to R15 are left alone");
    assert_eq!(machine.cpu.gpr[..8], inside.gpr[..8]);
    assert_eq!(machine.cpu.rip, inside.rip);
}

#[test]
fn eexit_outside_64_bit_mode_stays_within_cs() {
    let run = |target: u64, limit: u32| {
        let mut scenario = ready();
        scenario.enclu(user::EENTER).expect("EENTER completes");
        scenario.machine.cpu.cs.limit = limit;
        let outcome = scenario.machine.enclu(user::EEXIT, target, 0, 0).map(drop);
        outcome.map(|()| scenario.machine.cpu.rip)
    };

    assert_eq!(run(0x40_3000, 0x40_3000), Ok(0x40_3000));
    assert_eq!(run(0x40_3000, 0x40_2fff), Err(GP));
    assert_eq!(run(0xdead_0000_0040_3000, u32::MAX), Ok(0x40_3000), "EBX");
}

#[test]
fn edeccssa_outside_64_bit_mode_looks_at_the_end_of_the_frame() {
    let run = |limit: u64, unmapped: bool| {
        let mut scenario = interrupted();
        scenario.machine.enclu(user::EENTER, BASE, AEP, 0).expect("EENTER completes");
        scenario.machine.cpu.ds.limit = limit as u32;
        if unmapped {
            map(&mut scenario.machine, SSA + 0x1000, UNUSED);
        }
        scenario.enclu(user::EDECCSSA)
    };

    assert_eq!(run(GPRSGX + 183, false), Ok(u64::from(user::EDECCSSA)));
    assert_eq!(run(GPRSGX + 182, false), Err(GP));
    assert_eq!(run(GPRSGX + 182, true), Err(epcm_fault(GPRSGX, WU)), "the page comes first");
    assert_eq!(run(GPRSGX - 1, true), Err(GP), "the beginning comes before the page");
}

#[test]
fn operands_of_enclu_are_within_ds_outside_64_bit_mode() {
    for number in [user::EREPORT, user::EGETKEY, user::EACCEPT, user::EMODPE, user::EACCEPTCOPY] {
        let mut scenario = ready();
        scenario.machine.enclu(user::EENTER, BASE, AEP, 0).expect("EENTER completes");
        scenario.machine.cpu.ds.limit = BASE as u32;

        let outcome = scenario.machine.enclu(number, BASE + 0xc000, BASE + 0xd000, BASE + 0xe000);

        assert_eq!(outcome.map(drop), Err(GP), "leaf {number}");
    }
}
