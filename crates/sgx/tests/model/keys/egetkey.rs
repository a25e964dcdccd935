//! The conditions of EGETKEY.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyRequest, key_name};
use cloister_sgx::{AttributeFlags, EpcIndex, SgxStatus, Stepping};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::machine::GP;
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{ONE, Scenario, TWO, epc};
use crate::unfit::{Operand, Register, Unfit};

const KEYREQUEST: Operand = Operand { register: Register::Rbx, la: ONE + 0x200, write: false };
const KEY: Operand = Operand { register: Register::Rcx, la: TWO + 0x10, write: true };
const INVALID_ATTRIBUTE: Outcome = Ok(SgxStatus::InvalidAttribute as u64);
const INVALID_CPUSVN: Outcome = Ok(SgxStatus::InvalidCpuSvn as u64);
const INVALID_ISVSVN: Outcome = Ok(SgxStatus::InvalidIsvSvn as u64);
const INVALID_KEYNAME: Outcome = Ok(SgxStatus::InvalidKeyName as u64);

/// Byte offsets in KEYREQUEST.
mod at {
    pub(super) const KEYNAME: usize = 0;
    pub(super) const KEYPOLICY: usize = 2;
    pub(super) const ISVSVN: usize = 4;
    pub(super) const CET_ATTRIBUTES_MASK: usize = 6;
    pub(super) const RESERVED: usize = 7;
    pub(super) const CPUSVN: usize = 8;
    pub(super) const CONFIGSVN: usize = 76;
    pub(super) const RESERVED_2: usize = 78;
}

/// ATTRIBUTES in the SECS.
const SECS_ATTRIBUTES: usize = 48;

/// An enclave with all attributes that keys ask for, about to request key `name`.
fn good(name: u16) -> Scenario {
    let flags = AttributeFlags::PROVISIONKEY | AttributeFlags::EINITTOKEN_KEY | AttributeFlags::KSS;
    let scenario = Scenario::inside(flags, KEYREQUEST.la, KEY.la, 0);
    let request = KeyRequest { keyname: name.into(), ..KeyRequest::new_zeroed() };
    scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x200, request.as_bytes());
    scenario
}

/// Bytes of KEYREQUEST that the enclave may not have there.
fn field(
    name: &'static str,
    part: &'static str,
    outcome: Outcome,
    at: usize,
    value: u8,
) -> Condition<Scenario> {
    Condition::new(name, part, outcome, move |scenario: &mut Scenario| {
        scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x200 + at, &[value]);
    })
}

/// The enclave lacks an attribute.
fn without(name: &'static str, outcome: Outcome, attribute: AttributeFlags) -> Condition<Scenario> {
    Condition::new(name, "ATTRIBUTES", outcome, move |scenario: &mut Scenario| {
        let secs = scenario.machine.platform.page(EpcIndex(0));
        secs.store(SECS_ATTRIBUTES, secs.load(SECS_ATTRIBUTES) & !attribute.bits());
    })
}

/// The conditions on both operands.
fn operands() -> Vec<Condition<Scenario>> {
    let mut conditions = vec![KEYREQUEST.misaligned()];
    conditions.extend(KEYREQUEST.outside());
    conditions.extend(KEYREQUEST.unresolved());
    conditions.extend(KEYREQUEST.inaccessible());
    conditions.push(KEY.misaligned());
    conditions.extend(KEY.outside());
    conditions.extend(KEY.unresolved());
    conditions.extend(KEY.inaccessible());
    conditions
}

/// The conditions on the format of KEYREQUEST.
fn format() -> Vec<Condition<Scenario>> {
    vec![
        field("CET_ATTRIBUTES_MASK", "mask", Err(GP), at::CET_ATTRIBUTES_MASK, 1),
        field("reserved byte", "reserved", Err(GP), at::RESERVED, 1),
        field("reserved bytes: the first", "reserved", Err(GP), at::RESERVED_2, 1),
        field("reserved bytes: the last", "reserved", Err(GP), 511, 1),
        field("KEYPOLICY bit 6", "KEYPOLICY", Err(GP), at::KEYPOLICY, 1 << 6),
        field("KEYPOLICY bit 15", "KEYPOLICY", Err(GP), at::KEYPOLICY + 1, 1 << 7),
    ]
}

/// What is wrong with the order of the conditions for key `name`: from the page of the output on,
/// then its `own`.
fn found(name: u16, own: Vec<Condition<Scenario>>) -> Vec<String> {
    let mut conditions = vec![KEY.unfit(Unfit::NoWrite)];
    conditions.extend(format());
    conditions.extend(own);
    violations(|| good(name), |scenario| scenario.enclu(user::EGETKEY), 0, &conditions)
}

#[test]
fn egetkey_checks_its_conditions_in_order() {
    let mut conditions = operands();
    conditions.extend(format());
    conditions.push(field("KEYNAME", "KEYNAME", INVALID_KEYNAME, at::KEYNAME, 5));

    let found = violations(
        || good(key_name::SEAL),
        |scenario| scenario.enclu(user::EGETKEY),
        0,
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_seal_key_has_its_conditions_checked_in_order() {
    let own = vec![
        field("CPUSVN", "CPUSVN", INVALID_CPUSVN, at::CPUSVN, 0xff),
        field("ISVSVN", "ISVSVN", INVALID_ISVSVN, at::ISVSVN, 5),
        field("CONFIGSVN", "CONFIGSVN", INVALID_ISVSVN, at::CONFIGSVN, 1),
    ];

    assert_eq!(found(key_name::SEAL, own), Vec::<String>::new());
}

#[test]
fn a_report_key_has_its_conditions_checked_in_order() {
    assert_eq!(found(key_name::REPORT, Vec::new()), Vec::<String>::new());
}

#[test]
fn an_einittoken_key_has_its_conditions_checked_in_order() {
    let attribute = AttributeFlags::EINITTOKEN_KEY;
    let own = vec![
        without("EINITTOKEN_KEY", INVALID_ATTRIBUTE, attribute),
        Condition::new("MRSIGNER", "launch hash", INVALID_ATTRIBUTE, |scenario: &mut Scenario| {
            scenario.machine.memory.le_hash[0] ^= 1;
        }),
        field("CPUSVN", "CPUSVN", INVALID_CPUSVN, at::CPUSVN, 0xff),
        field("ISVSVN", "ISVSVN", INVALID_ISVSVN, at::ISVSVN, 5),
    ];

    assert_eq!(found(key_name::EINITTOKEN, own), Vec::<String>::new());
}

#[test]
fn a_provisioning_key_has_its_conditions_checked_in_order() {
    let own = || {
        vec![
            without("PROVISIONKEY", INVALID_ATTRIBUTE, AttributeFlags::PROVISIONKEY),
            field("CPUSVN", "CPUSVN", INVALID_CPUSVN, at::CPUSVN, 0xff),
            field("ISVSVN", "ISVSVN", INVALID_ISVSVN, at::ISVSVN, 5),
        ]
    };

    assert_eq!(found(key_name::PROVISION, own()), Vec::<String>::new());
}

#[test]
fn a_provisioning_seal_key_has_its_conditions_checked_in_order() {
    let own = vec![
        without("PROVISIONKEY", INVALID_ATTRIBUTE, AttributeFlags::PROVISIONKEY),
        field("CPUSVN", "CPUSVN", INVALID_CPUSVN, at::CPUSVN, 0xff),
        field("ISVSVN", "ISVSVN", INVALID_ISVSVN, at::ISVSVN, 5),
    ];

    assert_eq!(found(key_name::PROVISION_SEAL, own), Vec::<String>::new());
}

#[test]
fn every_other_key_name_is_unknown() {
    for name in [5, 6, 0x100, 0xffff] {
        assert_eq!(good(name).enclu(user::EGETKEY), INVALID_KEYNAME, "{name}");
    }
}

#[test]
fn key_separation_needs_its_attribute() {
    let run = |at: usize, value: u8| {
        let mut scenario = good(key_name::SEAL);
        (without("KSS", Err(GP), AttributeFlags::KSS).spoil)(&mut scenario);
        (field("", "", Err(GP), at, value).spoil)(&mut scenario);
        scenario.enclu(user::EGETKEY)
    };

    assert_eq!(run(at::KEYPOLICY, 3), Ok(0), "MRENCLAVE and MRSIGNER");
    for bit in 2..6 {
        assert_eq!(run(at::KEYPOLICY, 1 << bit), Err(GP), "KEYPOLICY bit {bit}");
    }
    assert_eq!(run(at::CONFIGSVN, 1), Err(GP), "CONFIGSVN before SGX_INVALID_ISVSVN");
}

#[test]
fn the_format_comes_before_key_separation_and_the_name() {
    let mut scenario = good(99);
    (without("KSS", Err(GP), AttributeFlags::KSS).spoil)(&mut scenario);
    (field("", "", Err(GP), at::KEYPOLICY, 4).spoil)(&mut scenario);

    assert_eq!(scenario.enclu(user::EGETKEY), Err(GP), "KSS before KEYNAME");
}

#[test]
fn a_component_of_cpusvn_that_is_newer_makes_it_invalid() {
    for component in 0..16 {
        let mut scenario = good(key_name::SEAL);
        let mut cpusvn = *scenario.machine.platform.cpusvn();
        let page = EpcIndex(epc(ONE));
        scenario.machine.platform.page(page).write(0x200 + at::CPUSVN, &cpusvn);
        let current = scenario.enclu(user::EGETKEY);
        cpusvn[component] += 1;
        scenario.machine.platform.page(page).write(0x200 + at::CPUSVN, &cpusvn);
        let newer = scenario.enclu(user::EGETKEY);

        assert_eq!(current, Ok(0));
        assert_eq!(newer, INVALID_CPUSVN, "component {component}");
    }
}

#[test]
fn egetkey_reports_in_rax_and_flags_and_steps_like_any_instruction() {
    let mut scenario = good(key_name::SEAL);
    let mut run = |name: u8| {
        scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x200 + at::KEYNAME, &[name]);
        scenario.machine.cpu.rflags = 0x202 | 0x8d5;
        let outcome = scenario
            .machine
            .enclu(user::EGETKEY, KEYREQUEST.la, KEY.la, 0)
            .expect("EGETKEY completes");
        (scenario.machine.cpu.rflags, outcome.stepping)
    };

    assert_eq!(run(4), (0x202, Stepping::Usual));
    assert_eq!(run(5), (0x202 | 0x40, Stepping::Usual));
}
