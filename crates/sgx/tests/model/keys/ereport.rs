//! The conditions of EREPORT.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, Stepping};

use crate::machine::GP;
use crate::order::{Condition, violations};
use crate::scenario::{ONE, Scenario, THREE, TWO, epc};
use crate::unfit::{Operand, Register};

const TARGETINFO: Operand = Operand { register: Register::Rbx, la: ONE + 0x200, write: false };
const REPORTDATA: Operand = Operand { register: Register::Rcx, la: TWO + 0x80, write: false };
const REPORT: Operand = Operand { register: Register::Rdx, la: THREE + 0x400, write: true };

fn good() -> Scenario {
    Scenario::inside(AttributeFlags::empty(), TARGETINFO.la, REPORTDATA.la, REPORT.la)
}

/// A byte of TARGETINFO is not zero.
fn reserved(name: &'static str, at: usize) -> Condition<Scenario> {
    Condition::new(name, "TARGETINFO", Err(GP), move |scenario: &mut Scenario| {
        scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x200 + at, &[1]);
    })
}

#[test]
fn ereport_checks_its_conditions_in_order() {
    let mut conditions = vec![TARGETINFO.misaligned()];
    conditions.extend(TARGETINFO.outside());
    conditions.extend(TARGETINFO.unresolved());
    conditions.extend(TARGETINFO.inaccessible());
    conditions.extend([
        reserved("CET_ATTRIBUTES", 48),
        reserved("reserved byte after CET_ATTRIBUTES", 49),
        reserved("first reserved byte after MISCSELECT", 56),
        reserved("first reserved byte after CONFIGID", 128),
        reserved("last byte", 511),
    ]);
    conditions.push(REPORTDATA.misaligned());
    conditions.extend(REPORTDATA.outside());
    conditions.extend(REPORTDATA.unresolved());
    conditions.extend(REPORTDATA.inaccessible());
    conditions.push(REPORT.misaligned());
    conditions.extend(REPORT.outside());
    conditions.extend(REPORT.unresolved());
    conditions.extend(REPORT.inaccessible());

    let found = violations(
        good,
        |scenario| scenario.enclu(user::EREPORT),
        u64::from(user::EREPORT),
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_refused_report_writes_nothing() {
    let mut scenario = good();
    scenario.machine.platform.page(EpcIndex(epc(THREE))).write(0x400, &[0xee; 432]);
    (REPORTDATA.misaligned().spoil)(&mut scenario);

    let outcome = scenario.enclu(user::EREPORT);

    let page = scenario.machine.platform.page(EpcIndex(epc(THREE))).to_bytes();
    assert_eq!(outcome, Err(GP));
    assert_eq!(page[0x400..0x400 + 432], [0xee; 432]);
}

#[test]
fn ereport_steps_like_any_instruction_and_keeps_flags_and_registers() {
    let mut scenario = good();
    scenario.machine.cpu.rflags = 0x202 | 0x8d5;
    let before = scenario.machine.cpu;

    let outcome = scenario
        .machine
        .enclu(user::EREPORT, TARGETINFO.la, REPORTDATA.la, REPORT.la)
        .expect("EREPORT completes");

    assert_eq!(outcome.stepping, Stepping::Usual);
    assert!(!outcome.flush);
    assert_eq!(scenario.machine.cpu.rflags, before.rflags);
    assert_eq!(scenario.machine.cpu.rip, before.rip);
}
