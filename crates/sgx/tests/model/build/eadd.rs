//! EADD.

use std::sync::OnceLock;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, SigStruct};
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, EpcmFlags, PageType, SgxStatus};

use super::{NOT_MAPPED, RW, W, not_mapped, occupy};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{CODE, PAGEINFO, Page, SECINFO, SOURCE, Spec, TCS, tcs};
use crate::machine::{GP, Machine, epcm_fault};
use crate::signer::Signer;

/// The EPC pages of a [`Case`]: its enclave, another one, a version array and a free page.
const SECS: u32 = 0;
const OTHER: u32 = 1;
const VA: u32 = 2;
const FREE: u32 = 3;
const HELD: u32 = 4;

/// The operands of an EADD of a data page to an enclave without pages.
struct Case {
    enclave: Spec,
    rbx: u64,
    rcx: u64,
    pageinfo: PageInfo,
    secinfo: SecInfo,
    contents: [u8; 4096],
    initialized: bool,
    /// Another leaf is using [`HELD`].
    in_use: bool,
}

fn empty() -> Spec {
    Spec { pages: Vec::new(), ..Spec::simple() }
}

type Check = Condition<Case>;

fn good() -> Case {
    Case {
        enclave: empty(),
        rbx: PAGEINFO,
        rcx: Machine::window(FREE),
        pageinfo: PageInfo {
            linaddr: CODE.into(),
            srcpge: SOURCE.into(),
            secinfo: SECINFO.into(),
            secs: Machine::window(SECS).into(),
        },
        secinfo: SecInfo::new(RW, PageType::Reg),
        contents: [0x5a; 4096],
        initialized: false,
        in_use: false,
    }
}

fn run(case: Case) -> Outcome {
    let mut machine = Machine::new(8);
    empty().ecreate(&mut machine, OTHER).expect("another enclave");
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    case.enclave.ecreate(&mut machine, SECS).expect("a good ECREATE");
    if case.initialized {
        static SIGNED: OnceLock<SigStruct> = OnceLock::new();
        let sigstruct = SIGNED.get_or_init(|| empty().sigstruct(Signer::a()));
        machine.memory.le_hash = Signer::a().mrsigner();
        let status = case.enclave.einit(&mut machine, SECS, sigstruct, &EinitToken::none());
        assert_eq!(status, Ok(SgxStatus::Success));
    }
    let platform = machine.platform.clone();
    let other = case.in_use.then(|| occupy(&platform, HELD));
    machine.operand(PAGEINFO, &case.pageinfo);
    machine.operand(SECINFO, &case.secinfo);
    machine.memory.put(SOURCE, &case.contents);
    let outcome = machine.encls(leaf::EADD, case.rbx, case.rcx, 0);
    drop(other);
    reported(outcome)
}

const FAULTS: fn(&Case) -> Outcome = |_| Err(GP);

/// Makes the page a TCS whose contents `change` made of good ones.
fn thread(case: &mut Case, change: impl FnOnce(&mut [u8; 4096])) {
    case.secinfo = SecInfo::new(SecInfoFlags::empty(), PageType::Tcs);
    case.contents = tcs(0x4000, 2, 0x2010);
    change(&mut case.contents);
}

/// Makes the enclave a 32-bit one; its page stays in the enclave.
fn not64(case: &mut Case) {
    case.enclave.attributes = Attributes::new(AttributeFlags::DEBUG, 3);
    case.enclave.base = 0x1000_0000;
    case.pageinfo.linaddr = 0x1000_2000.into();
}

fn typed(case: &mut Case, page_type: PageType) {
    case.secinfo = SecInfo::new(RW, page_type);
}

fn operands() -> Vec<Check> {
    vec![
        Check::new(1, "PAGEINFO alignment", |case| case.rbx += 16, FAULTS),
        Check::new(1, "PAGEINFO not canonical", |case| case.rbx = 1 << 47, FAULTS).on("PAGEINFO"),
        Check::new(2, "target alignment", |case| case.rcx += 2048, FAULTS),
        Check::new(2, "target not canonical", |case| case.rcx = 1 << 47, FAULTS).on("target"),
        Check::new(
            3,
            "target not in the EPC",
            |case| case.rcx = SOURCE,
            |case| Err(epcm_fault(case.rcx, W)),
        )
        .on("target"),
        Check::new(
            4,
            "PAGEINFO not mapped",
            |case| case.rbx = NOT_MAPPED,
            |case| Err(not_mapped(case.rbx)),
        )
        .on("PAGEINFO"),
        Check::new(5, "SRCPGE alignment", |case| case.pageinfo.srcpge += 2048, FAULTS),
        Check::new(6, "SECS alignment", |case| case.pageinfo.secs += 2048, FAULTS),
        Check::new(7, "SECINFO alignment", |case| case.pageinfo.secinfo += 32, FAULTS),
        Check::new(8, "LINADDR alignment", |case| case.pageinfo.linaddr += 2048, FAULTS),
        Check::new(
            9,
            "SECS not in the EPC",
            |case| case.pageinfo.secs = SOURCE.into(),
            |case| Err(epcm_fault(case.pageinfo.secs.get(), W)),
        )
        .on("SECS"),
        Check::new(
            10,
            "SECINFO not mapped",
            |case| case.pageinfo.secinfo = NOT_MAPPED.into(),
            |case| Err(not_mapped(case.pageinfo.secinfo.get())),
        ),
        Check::new(11, "SECINFO reserved flag", |case| case.secinfo.flags |= 1 << 6, FAULTS),
        Check::new(11, "SECINFO reserved bytes", |case| case.secinfo.reserved[0] = 1, FAULTS),
        Check::new(11, "SECINFO PENDING", |case| case.secinfo.flags |= 1 << 3, FAULTS),
        Check::new(11, "SECINFO MODIFIED", |case| case.secinfo.flags |= 1 << 4, FAULTS),
        Check::new(11, "SECINFO PR", |case| case.secinfo.flags |= 1 << 5, FAULTS),
        Check::new(12, "PT_SECS", |case| typed(case, PageType::Secs), FAULTS),
        Check::new(12, "PT_VA", |case| typed(case, PageType::Va), FAULTS),
        Check::new(12, "PT_TRIM", |case| typed(case, PageType::Trim), FAULTS),
        Check::new(12, "type 7", |case| case.secinfo.flags |= 7 << 8, FAULTS),
        Check::new(13, "PT_SS_FIRST", |case| typed(case, PageType::SsFirst), FAULTS),
        Check::new(13, "PT_SS_REST", |case| typed(case, PageType::SsRest), FAULTS),
    ]
}

fn pages() -> Vec<Check> {
    vec![
        Check::new(
            14,
            "target in use",
            |case| {
                case.in_use = true;
                case.rcx = Machine::window(HELD);
            },
            FAULTS,
        )
        .on("target"),
        Check::new(
            15,
            "target VALID",
            |case| case.rcx = Machine::window(OTHER),
            |case| Err(epcm_fault(case.rcx, W)),
        )
        .on("target"),
        Check::new(
            16,
            "SECS in use",
            |case| {
                case.in_use = true;
                case.pageinfo.secs = Machine::window(HELD).into();
            },
            FAULTS,
        )
        .on("SECS"),
        Check::new(
            17,
            "SECS not VALID",
            |case| case.pageinfo.secs = Machine::window(7).into(),
            |case| Err(epcm_fault(case.pageinfo.secs.get(), W)),
        )
        .on("SECS"),
        Check::new(
            18,
            "SECS of another type",
            |case| case.pageinfo.secs = Machine::window(VA).into(),
            |case| Err(epcm_fault(case.pageinfo.secs.get(), W)),
        )
        .on("SECS"),
        Check::new(
            19,
            "source not mapped",
            |case| case.pageinfo.srcpge = NOT_MAPPED.into(),
            |case| Err(not_mapped(case.pageinfo.srcpge.get())),
        ),
    ]
}

fn contents() -> Vec<Check> {
    vec![
        Check::new(
            20,
            "first reserved byte of a TCS",
            |case| thread(case, |page| page[72] = 1),
            FAULTS,
        ),
        Check::new(
            20,
            "last reserved byte of a TCS",
            |case| thread(case, |page| page[4095] = 1),
            FAULTS,
        ),
        Check::new(
            21,
            "FSLIMIT of a 32-bit enclave",
            |case| {
                not64(case);
                thread(case, |page| page[64] = 0xfe);
            },
            FAULTS,
        ),
        Check::new(
            22,
            "GSLIMIT of a 32-bit enclave",
            |case| {
                not64(case);
                thread(case, |page| page[69] = 0xf7);
            },
            FAULTS,
        ),
        Check::new(
            24,
            "W without R",
            |case| case.secinfo = SecInfo::new(SecInfoFlags::W, PageType::Reg),
            FAULTS,
        ),
        Check::new(
            26,
            "LINADDR below the enclave",
            |case| case.pageinfo.linaddr = (case.enclave.base - 4096).into(),
            FAULTS,
        ),
        Check::new(
            27,
            "LINADDR at the end of the enclave",
            |case| case.pageinfo.linaddr = (case.enclave.base + case.enclave.size).into(),
            FAULTS,
        ),
        Check::new(29, "initialized", |case| case.initialized = true, FAULTS),
    ]
}

#[test]
fn a_good_page_is_added() {
    assert_eq!(run(good()), Ok(None));
}

#[test]
fn each_bad_operand_faults() {
    assert_eq!(each_alone(&operands(), good, run), [""; 0]);
}

#[test]
fn each_unfit_epc_page_faults() {
    assert_eq!(each_alone(&pages(), good, run), [""; 0]);
}

#[test]
fn each_illegal_page_faults() {
    assert_eq!(each_alone(&contents(), good, run), [""; 0]);
}

#[test]
fn of_two_conditions_the_first_decides() {
    let mut conditions = operands();
    conditions.extend(pages());
    conditions.extend(contents());

    let pairs = in_pairs(&conditions, good, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared > 240, "{}", pairs.compared);
}

#[test]
fn an_address_beyond_the_canonical_range_faults_for_each_operand() {
    let with = |change: fn(&mut PageInfo)| {
        let mut case = good();
        change(&mut case.pageinfo);
        run(case)
    };

    assert_eq!(with(|pageinfo| pageinfo.srcpge = (1u64 << 63).into()), Err(GP), "SRCPGE");
    assert_eq!(with(|pageinfo| pageinfo.secs = (1u64 << 63).into()), Err(GP), "SECS");
    assert_eq!(with(|pageinfo| pageinfo.secinfo = (1u64 << 63).into()), Err(GP), "SECINFO");
}

#[test]
fn the_limits_of_a_tcs_count_outside_64_bit_mode_only() {
    let mut in_64 = good();
    thread(&mut in_64, |page| page[64..72].fill(0));
    let mut in_32 = good();
    not64(&mut in_32);
    thread(&mut in_32, |_| {});

    assert_eq!(run(in_64), Ok(None));
    assert_eq!(run(in_32), Ok(None));
}

#[test]
fn the_page_is_entered_in_the_epcm() {
    let mut machine = Machine::new(32);
    let spec = Spec::simple();

    spec.load(&mut machine, 0).expect("the enclave can be built");

    let thread = machine.platform.epcm(EpcIndex(1));
    assert!(thread.is(PageType::Tcs));
    assert_eq!(thread.flags, EpcmFlags::VALID);
    assert_eq!(thread.address, TCS);
    assert_eq!(thread.secs, EpcIndex(0));
    let code = machine.platform.epcm(EpcIndex(3));
    assert_eq!(code.flags, EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::X);
    assert_eq!(code.address, CODE);
    assert_eq!(machine.platform.page(EpcIndex(3)).to_bytes(), [0x90; 4096]);
}

#[test]
fn what_software_may_not_set_in_a_tcs_is_cleared() {
    let mut machine = Machine::new(8);
    let spec = Spec::simple();
    let mut contents = tcs(0x4000, 2, 0x2010);
    contents[0] = 1;
    contents[8] = 1;
    contents[24] = 1;
    contents[40] = 1;
    spec.ecreate(&mut machine, 0).expect("a good ECREATE");

    spec.eadd(&mut machine, 0, 1, &Page::tcs(0, contents)).expect("a good EADD");

    assert_eq!(machine.platform.page(EpcIndex(1)).to_bytes(), tcs(0x4000, 2, 0x2010));
}

#[test]
fn a_page_cannot_be_its_own_secs() {
    let mut case = good();
    case.rcx = Machine::window(7);
    case.pageinfo.secs = Machine::window(7).into();

    assert_eq!(run(case), Err(GP), "it cannot be held shared and exclusive at once");
}
