//! EDBGRD and EDBGWR.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, PageType, SgxStatus};
use cloister_x86::PageFaultCode;

use super::{W, occupy};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{BASE, PAGEINFO, SECINFO, SOURCE, Spec, started};
use crate::machine::{GP, Machine, Mapping, epcm_fault};
use crate::signer::Signer;

/// The EPC pages of a [`Case`]: a started enclave, its first TCS, its data page, one that is
/// pending, one that is modified, a version array, a page in use and an unused one.
const SECS: u32 = 0;
const THREAD: u32 = 1;
const DATA_PAGE: u32 = 4;
const MODIFIED: u32 = 8;
const PENDING: u32 = 20;
const VA: u32 = 21;
const HELD: u32 = 22;
const UNUSED: u32 = 23;

struct Case {
    leaf: u32,
    rcx: u64,
    debug: bool,
}

type Check = Condition<Case>;

fn read() -> Case {
    Case { leaf: leaf::EDBGRD, rcx: Machine::window(DATA_PAGE), debug: true }
}

fn write() -> Case {
    Case { leaf: leaf::EDBGWR, ..read() }
}

fn run(case: Case) -> Outcome {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    if !case.debug {
        spec.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
    }
    assert_eq!(spec.start(&mut machine, SECS, Signer::a()), SgxStatus::Success);
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    let pageinfo = PageInfo {
        linaddr: (BASE + 0x8000).into(),
        secs: Machine::window(SECS).into(),
        ..PageInfo::default()
    };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::EAUG, PAGEINFO, Machine::window(PENDING), 0).expect("EAUG completes");
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Trim));
    machine.status(leaf::EMODT, SECINFO, Machine::window(MODIFIED), 0);
    // A page of type TRIM is of the wrong type; one that becomes a TCS is not.
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Tcs));
    machine.status(leaf::EMODT, SECINFO, Machine::window(MODIFIED - 1), 0);
    let platform = machine.platform.clone();
    let other = occupy(&platform, HELD);
    let outcome = machine.encls(case.leaf, 0, case.rcx, 0);
    drop(other);
    reported(outcome)
}

const FAULTS: fn(&Case) -> Outcome = |_| Err(GP);
const NOT_DEBUGGABLE: fn(&Case) -> Outcome = |_| Ok(Some(SgxStatus::PageNotDebuggable));

/// #PF at the operand, with the access that the leaf makes.
const PAGE_FAULTS: fn(&Case) -> Outcome = |case| {
    let access = if case.leaf == leaf::EDBGWR { W } else { PageFaultCode::empty() };
    Err(epcm_fault(case.rcx, access))
};

/// What both leaves check alike, up to the offset within a TCS.
fn conditions() -> Vec<Check> {
    vec![
        Check::new(1, "alignment", |case| case.rcx += 4, FAULTS),
        Check::new(1, "not canonical", |case| case.rcx = 1 << 47, FAULTS).on("page"),
        Check::new(3, "not in the EPC", |case| case.rcx = SOURCE, PAGE_FAULTS).on("page"),
        Check::new(4, "in use", |case| case.rcx = Machine::window(HELD), FAULTS).on("page"),
        Check::new(5, "not VALID", |case| case.rcx = Machine::window(UNUSED), PAGE_FAULTS)
            .on("page"),
        Check::new(6, "PT_SECS", |case| case.rcx = Machine::window(SECS), PAGE_FAULTS).on("page"),
        Check::new(6, "PT_TRIM", |case| case.rcx = Machine::window(MODIFIED), PAGE_FAULTS)
            .on("page"),
        Check::new(7, "PENDING", |case| case.rcx = Machine::window(PENDING), NOT_DEBUGGABLE)
            .on("page"),
        Check::new(8, "MODIFIED", |case| case.rcx = Machine::window(MODIFIED - 1), NOT_DEBUGGABLE)
            .on("page"),
        Check::new(10, "not a debug enclave", |case| case.debug = false, FAULTS),
    ]
}

fn edbgrd() -> Vec<Check> {
    let beyond =
        Check::new(9, "TCS", |case: &mut Case| case.rcx = Machine::window(THREAD) + 72, FAULTS);
    let mut conditions = conditions();
    conditions.insert(9, beyond.on("page"));
    conditions
}

fn edbgwr() -> Vec<Check> {
    let va = Check::new(6, "PT_VA", |case: &mut Case| case.rcx = Machine::window(VA), PAGE_FAULTS);
    let beside =
        Check::new(9, "TCS", |case: &mut Case| case.rcx = Machine::window(THREAD) + 16, FAULTS);
    let mut conditions = conditions();
    conditions.insert(9, beside.on("page"));
    conditions.insert(7, va.on("page"));
    conditions
}

#[test]
fn a_debug_enclave_is_read_and_written() {
    assert_eq!(run(read()), Ok(Some(SgxStatus::Success)));
    assert_eq!(run(write()), Ok(Some(SgxStatus::Success)));
}

#[test]
fn each_condition_of_edbgrd_has_its_outcome() {
    assert_eq!(each_alone(&edbgrd(), read, run), [""; 0]);
}

#[test]
fn each_condition_of_edbgwr_has_its_outcome() {
    assert_eq!(each_alone(&edbgwr(), write, run), [""; 0]);
}

#[test]
fn of_two_conditions_of_edbgrd_the_first_decides() {
    let pairs = in_pairs(&edbgrd(), read, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared >= 12, "{}", pairs.compared);
}

#[test]
fn of_two_conditions_of_edbgwr_the_first_decides() {
    let pairs = in_pairs(&edbgwr(), write, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared >= 12, "{}", pairs.compared);
}

#[test]
fn a_page_that_becomes_a_tcs_is_not_debuggable_at_any_offset() {
    let at =
        |case: Case, offset: u64| run(Case { rcx: Machine::window(MODIFIED - 1) + offset, ..case });
    let not_debuggable = Ok(Some(SgxStatus::PageNotDebuggable));

    assert_eq!(at(read(), 72), not_debuggable, "before the limit of a TCS");
    assert_eq!(at(write(), 16), not_debuggable, "before the place of FLAGS");
}

#[test]
fn what_is_written_is_read_back() {
    let mut machine = started();

    let written = machine.status(leaf::EDBGWR, 0x1122_3344_5566_7788, Machine::window(4) + 8, 0);
    let read = machine.encls(leaf::EDBGRD, 0, Machine::window(4) + 8, 0).expect("it completes");
    let optin = machine.status(leaf::EDBGWR, 1, Machine::window(1) + 8, 0);

    assert_eq!(written, SgxStatus::Success);
    assert_eq!(read.rbx, Some(0x1122_3344_5566_7788));
    assert_eq!(optin, SgxStatus::Success);
    assert_eq!(machine.platform.page(EpcIndex(1)).load(8), 1, "TCS.FLAGS.DBGOPTIN");
}

#[test]
fn a_tcs_is_read_up_to_its_limit() {
    let mut machine = started();

    let last = machine.encls(leaf::EDBGRD, 0, Machine::window(THREAD) + 64, 0);

    assert_eq!(last.map(|outcome| outcome.rbx), Ok(Some(0xffff_0000_ffff)));
}

#[test]
fn a_version_slot_shows_only_whether_it_is_occupied() {
    let mut machine = started();
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    machine.platform.page(EpcIndex(VA)).store(8, 0x1234_5678_9abc_def8);
    machine.platform.page(EpcIndex(VA)).store(16, 7);
    let mut read = |slot: u64| {
        let at = Machine::window(VA) + slot * 8;
        machine.encls(leaf::EDBGRD, 0, at, 0).expect("it completes").rbx
    };

    assert_eq!(read(0), Some(0));
    assert_eq!(read(1), Some(u64::MAX));
    assert_eq!(read(2), Some(0), "bits 2:0 do not count");
}

#[test]
fn permissions_of_the_page_do_not_matter() {
    let mut machine = started();

    let code = machine.status(leaf::EDBGWR, 0xcc, Machine::window(3), 0);

    assert_eq!(code, SgxStatus::Success, "a page without W");
    assert_eq!(machine.platform.page(EpcIndex(3)).load(0), 0xcc);
}

#[test]
fn outside_64_bit_mode_4_bytes_move_and_4_byte_alignment_is_enough() {
    let mut machine = started();
    machine.memory.mappings.insert(0x9000, Mapping::Epc { index: EpcIndex(4), writable: true });
    machine.memory.mode64 = false;

    machine.status(leaf::EDBGWR, 0xffff_ffff_0102_0304, 0x9004, 0);
    let read = machine.encls(leaf::EDBGRD, 0, 0x9004, 0).expect("it completes");
    let read_unaligned = machine.encls(leaf::EDBGRD, 0, 0x9002, 0);
    let write_unaligned = machine.encls(leaf::EDBGWR, 0, 0x9006, 0);

    assert_eq!(read.rbx, Some(0x0102_0304));
    assert_eq!(machine.platform.page(EpcIndex(4)).load(0), 0x0102_0304_5a5a_5a5a);
    assert_eq!(read_unaligned, Err(GP));
    assert_eq!(write_unaligned, Err(GP));
}

#[test]
fn an_error_sets_zf_and_rax_and_leaves_rbx_alone() {
    let mut machine = started();
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Tcs));
    machine.status(leaf::EMODT, SECINFO, Machine::window(MODIFIED), 0);

    let at = Machine::window(MODIFIED);
    let error = machine.encls_registers(leaf::EDBGRD, 0x77, at, 0).expect("it completes");
    let success = machine.encls_registers(leaf::EDBGRD, 0x77, Machine::window(3), 0);

    assert_eq!((error.rax, error.rbx, error.rflags), (21, 0x77, 0x42));
    let success = success.expect("it completes");
    assert_eq!((success.rax, success.rbx, success.rflags), (0, 0x9090_9090_9090_9090, 0x2));
}
