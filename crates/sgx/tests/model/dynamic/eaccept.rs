//! The conditions of EACCEPT.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType, SgxStatus, Stepping};
use cloister_x86::{PageFaultCode, Rights};

use super::secinfo::{MODIFIED, NONE, PENDING, PR, R, RW, SECINFO, W, X, put, request, reserved};
use crate::enclave::{Spec, tcs};
use crate::machine::{GP, Machine, epcm_fault};
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{
    self, FOUR, Scenario, TWO, VA, eaug, enter, epc, exit, make_va, map, modify, track,
};
use crate::unfit::{Operand, Register, Unfit};

/// The pending page.
const NEW: u64 = FOUR + 0x1000;
const TARGET: Operand = Operand { register: Register::Rcx, la: NEW, write: false };
const MISMATCH: Outcome = Ok(SgxStatus::PageAttributesMismatch as u64);
const NOT_TRACKED: Outcome = Ok(SgxStatus::NotTracked as u64);

/// A pending page, and the request that accepts it.
fn pending() -> Scenario {
    let mut scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, NEW, 0);
    eaug(&mut scenario.machine, epc(NEW), NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, epc(NEW));
    put(&scenario, RW | PENDING, PageType::Reg);
    scenario
}

/// The page tables lead RCX to EPC page `page`.
fn replaced(
    name: &'static str,
    page: u32,
    outcome: Outcome,
    prepare: impl Fn(&mut Machine) + 'static,
) -> Condition<Scenario> {
    Condition::new(name, "RCX page", outcome, move |scenario: &mut Scenario| {
        prepare(&mut scenario.machine);
        map(&mut scenario.machine, NEW, page);
    })
}

fn illegal_requests() -> Vec<Condition<Scenario>> {
    let illegal = |flags, page_type| request(flags, page_type, Err(GP));
    vec![
        illegal(RW, PageType::Reg),
        illegal(RW | MODIFIED, PageType::Reg),
        illegal(RW | PENDING | MODIFIED, PageType::Reg),
        illegal(RW | PR | MODIFIED, PageType::Reg),
        illegal(NONE, PageType::Tcs),
        illegal(PENDING, PageType::Tcs),
        illegal(MODIFIED | PENDING, PageType::Tcs),
        illegal(MODIFIED | PR, PageType::Tcs),
        illegal(NONE, PageType::Trim),
        illegal(PENDING, PageType::Trim),
        illegal(MODIFIED | PENDING, PageType::Trim),
        illegal(MODIFIED | PR, PageType::Trim),
        illegal(RW | PENDING, PageType::Secs),
        illegal(RW | PENDING, PageType::Va),
        illegal(RW | PENDING, PageType::SsFirst),
        illegal(RW | PENDING, PageType::SsRest),
    ]
}

#[test]
fn eaccept_checks_its_conditions_in_order() {
    let fault = Err(epcm_fault(NEW, PageFaultCode::USER));
    let mut conditions = vec![SECINFO.misaligned()];
    conditions.extend(SECINFO.outside());
    conditions.extend(SECINFO.unresolved());
    conditions.extend(SECINFO.inaccessible());
    conditions.extend(reserved());
    conditions.push(TARGET.misaligned());
    conditions.extend(TARGET.outside());
    conditions.extend(TARGET.unresolved());
    conditions.extend(illegal_requests());
    conditions.push(TARGET.unfit(Unfit::NotValid));
    conditions.push(TARGET.unfit(Unfit::Blocked));
    conditions.push(replaced("PT_SECS", 0, fault, |_| {}));
    conditions.push(replaced("PT_VA", VA, fault, make_va));
    conditions.push(TARGET.unfit(Unfit::OtherEnclave));
    conditions.push(replaced("ENCLAVEADDRESS", 30, MISMATCH, |machine| {
        eaug(machine, 30, NEW + 0x1000).expect("EAUG completes");
    }));
    conditions.extend([
        request(RW | PR, PageType::Reg, MISMATCH),
        request(W | PENDING, PageType::Reg, MISMATCH),
        request(R | PENDING, PageType::Reg, MISMATCH),
        request(RW | X | PENDING, PageType::Reg, MISMATCH),
        request(MODIFIED, PageType::Tcs, MISMATCH),
        request(RW | MODIFIED, PageType::Trim, MISMATCH),
    ]);

    let found = violations(pending, |scenario| scenario.enclu(user::EACCEPT), 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

/// A changed page before it is accepted.
struct Changed {
    scenario: Scenario,
    tracked: bool,
}

impl Changed {
    fn accept(&mut self) -> Outcome {
        if self.tracked {
            exit(&mut self.scenario.machine);
            track(&mut self.scenario.machine);
            enter(&mut self.scenario.machine);
        }
        self.scenario.enclu(user::EACCEPT)
    }

    fn target(&self) -> cloister_sgx::EpcPage<'_> {
        self.scenario.machine.platform.page(EpcIndex(epc(TWO)))
    }
}

/// Page TWO, which EMODT made a TCS, and the request that accepts it.
fn thread() -> Changed {
    let mut scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, TWO, 0);
    scenario.machine.platform.page(EpcIndex(epc(TWO))).write(0, &tcs(0x4000, 2, 0x2010));
    modify(&mut scenario.machine, leaf::EMODT, epc(TWO), NONE, PageType::Tcs);
    put(&scenario, MODIFIED, PageType::Tcs);
    Changed { scenario, tracked: true }
}

fn in_tcs(name: &'static str, at: usize, value: u64) -> Condition<Changed> {
    Condition::new(name, "TCS", Err(GP), move |changed: &mut Changed| {
        changed.target().store(at, value);
    })
}

#[test]
fn eaccept_of_a_thread_checks_its_conditions_in_order() {
    let mismatch = |name: &'static str, flags, page_type| {
        Condition::new(name, "SECINFO", MISMATCH, move |changed: &mut Changed| {
            put(&changed.scenario, flags, page_type);
        })
    };
    let conditions = [
        mismatch("R", MODIFIED | R, PageType::Tcs),
        mismatch("W", MODIFIED | W, PageType::Tcs),
        mismatch("X", MODIFIED | X, PageType::Tcs),
        mismatch("MODIFIED", PR, PageType::Reg),
        mismatch("PT", MODIFIED, PageType::Trim),
        Condition::new("not tracked", "tracking", NOT_TRACKED, |changed: &mut Changed| {
            changed.tracked = false;
        }),
        in_tcs("the first reserved byte, where OCETSSA is with CET", 72, 1),
        in_tcs("PREVSSP with CET", 80, 1),
        in_tcs("the last reserved quadword", 4088, 1 << 63),
        in_tcs("DBGOPTIN", 8, 1),
        in_tcs("CSSA = NSSA", 24, 2 << 32 | 2),
        in_tcs("NSSA = 0", 24, 0),
        in_tcs("AEP", 40, 1),
        in_tcs("STATE", 0, 1),
    ];

    let found = violations(thread, Changed::accept, 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_thread_of_a_32_bit_enclave_needs_segment_limits_of_whole_pages() {
    let run = |limits: u64| {
        let mut machine = scenario::machine();
        let spec = Spec { ..scenario::spec_at(0x1000_0000, AttributeFlags::DEBUG, 3) };
        scenario::start(&mut machine, &spec);
        machine.cpu.mode64 = false;
        machine.cpu.cs.rights = Rights(0xc0fb);
        let page = EpcIndex(epc(TWO));
        machine.platform.page(page).write(0, &tcs(0x4000, 2, 0x2010));
        machine.platform.page(page).store(64, limits);
        machine.memory.mode64 = true;
        modify(&mut machine, leaf::EMODT, epc(TWO), NONE, PageType::Tcs);
        track(&mut machine);
        machine.enclu(user::EENTER, 0x1000_0000, 0x40_2000, 0).expect("EENTER completes");
        let mut scenario = Scenario { machine, rbx: 0x1000_c040, rcx: 0x1000_d000, rdx: 0 };
        put(&scenario, MODIFIED, PageType::Tcs);
        scenario.enclu(user::EACCEPT)
    };

    assert_eq!(run(0xffff_f000_0000_0fff), Err(GP), "GSLIMIT");
    assert_eq!(run(0x0000_0fff_ffff_0000), Err(GP), "FSLIMIT");
    assert_eq!(run(0x0000_1fff_0000_0fff), Ok(0));
}

#[test]
fn a_thread_of_a_64_bit_enclave_has_any_segment_limits() {
    let mut changed = thread();
    changed.target().store(64, 0);

    assert_eq!(changed.accept(), Ok(0));
}

#[test]
fn restricted_and_trimmed_pages_are_tracked_and_pending_ones_are_not() {
    let changed = |number: u32, flags, page_type, request, tracked| {
        let mut scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, TWO, 0);
        modify(&mut scenario.machine, number, epc(TWO), flags, page_type);
        put(&scenario, request, page_type);
        Changed { scenario, tracked }.accept()
    };
    let restricted = |tracked| changed(leaf::EMODPR, R, PageType::Reg, R | PR, tracked);
    let trimmed = |tracked| changed(leaf::EMODT, NONE, PageType::Trim, MODIFIED, tracked);

    assert_eq!((restricted(false), restricted(true)), (NOT_TRACKED, Ok(0)));
    assert_eq!((trimmed(false), trimmed(true)), (NOT_TRACKED, Ok(0)));
    assert_eq!(pending().enclu(user::EACCEPT), Ok(0), "no ETRACK since EAUG");
}

#[test]
fn eaccept_clears_pending_modified_and_pr() {
    let mut scenario = pending();
    put(&scenario, RW | PENDING | PR, PageType::Reg);
    scenario.machine.cpu.rflags = 0x202 | 0x8d5;

    let outcome = scenario.machine.enclu(user::EACCEPT, SECINFO.la, NEW, 0).expect("completes");

    let flags = scenario.machine.platform.epcm(EpcIndex(epc(NEW))).flags;
    assert_eq!(flags, EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::W, "PR is not compared");
    assert_eq!(scenario.machine.cpu.rflags, 0x202);
    assert_eq!(outcome.stepping, Stepping::Usual);
}
