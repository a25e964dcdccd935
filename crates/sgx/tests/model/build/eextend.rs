//! EEXTEND.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{PageType, SgxStatus};
use cloister_x86::PageFaultCode;

use super::{W, occupy};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{SECINFO, SOURCE, Spec, started};
use crate::machine::{GP, Machine, epcm_fault};

/// The EPC pages of a [`Case`]: an enclave with its data page, another enclave and a version array.
const SECS: u32 = 0;
const DATA_PAGE: u32 = 4;
const OTHER: u32 = 20;
const VA: u32 = 21;
const HELD: u32 = 22;
const UNUSED: u32 = 23;

struct Case {
    rbx: u64,
    rcx: u64,
    initialized: bool,
    /// Another leaf is using [`HELD`].
    in_use: bool,
}

type Check = Condition<Case>;

fn good() -> Case {
    Case {
        rbx: Machine::window(SECS),
        rcx: Machine::window(DATA_PAGE) + 0xf00,
        initialized: false,
        in_use: false,
    }
}

fn run(case: Case) -> Outcome {
    let mut machine = if case.initialized {
        started()
    } else {
        let mut machine = Machine::new(32);
        Spec::simple().load(&mut machine, SECS).expect("the enclave can be built");
        machine
    };
    Spec::simple().ecreate(&mut machine, OTHER).expect("another enclave");
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    let platform = machine.platform.clone();
    let other = case.in_use.then(|| occupy(&platform, HELD));
    let outcome = machine.encls(leaf::EEXTEND, case.rbx, case.rcx, 0);
    drop(other);
    reported(outcome)
}

const FAULTS: fn(&Case) -> Outcome = |_| Err(GP);

/// #PF at the chunk.
const CHUNK_FAULTS: fn(&Case) -> Outcome = |case| Err(epcm_fault(case.rcx, PageFaultCode::empty()));

fn conditions() -> Vec<Check> {
    vec![
        Check::new(1, "SECS alignment", |case| case.rbx += 2048, FAULTS),
        Check::new(1, "SECS not canonical", |case| case.rbx = 1 << 47, FAULTS).on("SECS"),
        Check::new(
            2,
            "SECS not in the EPC",
            |case| case.rbx = SOURCE,
            |case| Err(epcm_fault(case.rbx, W)),
        )
        .on("SECS"),
        Check::new(3, "chunk alignment", |case| case.rcx += 128, FAULTS),
        Check::new(3, "chunk not canonical", |case| case.rcx = 1 << 47, FAULTS).on("chunk"),
        Check::new(4, "chunk not in the EPC", |case| case.rcx = SOURCE, CHUNK_FAULTS).on("chunk"),
        Check::new(
            5,
            "chunk in use",
            |case| {
                case.in_use = true;
                case.rcx = Machine::window(HELD);
            },
            FAULTS,
        )
        .on("chunk"),
        Check::new(6, "chunk not VALID", |case| case.rcx = Machine::window(UNUSED), CHUNK_FAULTS)
            .on("chunk"),
        Check::new(7, "PT_SECS", |case| case.rcx = Machine::window(SECS), CHUNK_FAULTS).on("chunk"),
        Check::new(7, "PT_VA", |case| case.rcx = Machine::window(VA), CHUNK_FAULTS).on("chunk"),
        Check::new(8, "SECS of another enclave", |case| case.rbx = Machine::window(OTHER), FAULTS)
            .on("SECS"),
        Check::new(8, "SECS of another type", |case| case.rbx = Machine::window(VA), FAULTS)
            .on("SECS"),
        Check::new(10, "initialized", |case| case.initialized = true, FAULTS),
    ]
}

#[test]
fn a_good_chunk_is_measured() {
    assert_eq!(run(good()), Ok(None));
}

#[test]
fn each_condition_faults() {
    assert_eq!(each_alone(&conditions(), good, run), [""; 0]);
}

#[test]
fn of_two_conditions_the_first_decides() {
    let pairs = in_pairs(&conditions(), good, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared > 25, "{}", pairs.compared);
}

#[test]
fn a_trimmed_page_is_not_measured() {
    let mut machine = started();
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Trim));
    let trimmed = machine.status(leaf::EMODT, SECINFO, Machine::window(DATA_PAGE), 0);
    let chunk = Machine::window(DATA_PAGE);

    let extended = machine.encls(leaf::EEXTEND, Machine::window(SECS), chunk, 0);

    assert_eq!(trimmed, SgxStatus::Success);
    assert_eq!(extended, Err(epcm_fault(chunk, PageFaultCode::empty())), "before #GP: initialized");
}
