//! ECREATE.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, EpcmFlags, PageType, PlatformConfig,
    PlatformError, PlatformIdentity, Stop,
};
use cloister_x86::{Exception, Gpa, PageFaultCode};

use super::{NOT_MAPPED, W, not_mapped, occupy};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{BASE, PAGEINFO, SECINFO, SOURCE, Spec};
use crate::machine::{GP, Machine, Mapping, epcm_fault};

/// The operands of an ECREATE: a good SECS for EPC page 1. Page 0 is an SECS already.
struct Case {
    capabilities: Capabilities,
    rbx: u64,
    rcx: u64,
    pageinfo: PageInfo,
    secinfo: SecInfo,
    secs: Secs,
    /// Another leaf is using EPC page 1.
    in_use: bool,
}

type Check = Condition<Case>;

fn good() -> Case {
    Case {
        capabilities: Capabilities::default(),
        rbx: PAGEINFO,
        rcx: Machine::window(1),
        pageinfo: PageInfo {
            srcpge: SOURCE.into(),
            secinfo: SECINFO.into(),
            ..PageInfo::default()
        },
        secinfo: SecInfo::new(SecInfoFlags::empty(), PageType::Secs),
        secs: Spec::simple().secs(),
        in_use: false,
    }
}

fn run(case: Case) -> Outcome {
    let mut config = PlatformConfig::single(8, PlatformIdentity::from_seed(&[7; 32]));
    config.capabilities = case.capabilities;
    let mut machine = Machine::with(config);
    let existing = Spec { miscselect: 0, ..Spec::simple() };
    existing.ecreate(&mut machine, 0).expect("a good ECREATE");
    machine.operand(PAGEINFO, &case.pageinfo);
    machine.operand(SECINFO, &case.secinfo);
    machine.operand(SOURCE, &case.secs);
    let platform = machine.platform.clone();
    let other = case.in_use.then(|| occupy(&platform, 1));
    let outcome = machine.encls(leaf::ECREATE, case.rbx, case.rcx, 0);
    drop(other);
    reported(outcome)
}

const FAULTS: fn(&Case) -> Outcome = |_| Err(GP);

/// Attributes with these flags and XFRM.
fn attributes(case: &mut Case, flags: u64, xfrm: u64) {
    case.secs.attributes = Attributes { flags: flags.into(), xfrm: xfrm.into() };
}

const MODE64: u64 = AttributeFlags::MODE64BIT.bits();

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
        Check::new(6, "SECINFO alignment", |case| case.pageinfo.secinfo += 32, FAULTS),
        Check::new(7, "LINADDR", |case| case.pageinfo.linaddr = 4096.into(), FAULTS),
        Check::new(8, "PAGEINFO.SECS", |case| case.pageinfo.secs = 4096.into(), FAULTS),
        Check::new(
            9,
            "SECINFO not mapped",
            |case| case.pageinfo.secinfo = NOT_MAPPED.into(),
            |case| Err(not_mapped(case.pageinfo.secinfo.get())),
        ),
        Check::new(10, "SECINFO reserved flag", |case| case.secinfo.flags |= 1 << 6, FAULTS),
        Check::new(10, "SECINFO reserved bytes", |case| case.secinfo.reserved[55] = 1, FAULTS),
        Check::new(10, "SECINFO PENDING", |case| case.secinfo.flags |= 1 << 3, FAULTS),
        Check::new(11, "PT_REG", |case| case.secinfo.flags |= 2 << 8, FAULTS),
        Check::new(12, "target in use", |case| case.in_use = true, FAULTS).on("target"),
        Check::new(
            13,
            "target VALID",
            |case| case.rcx = Machine::window(0),
            |case| Err(epcm_fault(case.rcx, W)),
        )
        .on("target"),
        Check::new(
            14,
            "source not mapped",
            |case| case.pageinfo.srcpge = NOT_MAPPED.into(),
            |case| Err(not_mapped(case.pageinfo.srcpge.get())),
        ),
    ]
}

/// The conditions on the contents of the SECS, each of which is #GP(0).
fn contents() -> Vec<Check> {
    vec![
        Check::new(15, "XFRM without SSE", |case| attributes(case, MODE64, 1), FAULTS),
        Check::new(16, "XFRM not announced", |case| attributes(case, MODE64, 0x203), FAULTS),
        Check::new(16, "XFRM bit 63", |case| attributes(case, MODE64, 3 | 1 << 63), FAULTS),
        Check::new(
            16,
            "XFRM that XSETBV refuses",
            |case| {
                case.capabilities.xfrm = 0xe7;
                attributes(case, MODE64, 0x27);
            },
            FAULTS,
        ),
        Check::new(17, "CET_ATTRIBUTES", |case| case.secs.cet_attributes = 1, FAULTS),
        Check::new(
            18,
            "CET_LEG_BITMAP_OFFSET",
            |case| case.secs.cet_leg_bitmap_offset = 4096.into(),
            FAULTS,
        ),
        Check::new(20, "MISCSELECT", |case| case.secs.miscselect = 2.into(), FAULTS),
        Check::new(
            20,
            "EXINFO not announced",
            |case| {
                case.capabilities.miscselect = 0;
                case.secs.miscselect = 1.into();
            },
            FAULTS,
        ),
        Check::new(21, "SSAFRAMESIZE", |case| case.secs.ssaframesize = 0.into(), FAULTS),
        Check::new(
            22,
            "BASEADDR not canonical",
            |case| case.secs.baseaddr = (1u64 << 47).into(),
            FAULTS,
        ),
        Check::new(
            23,
            "BASEADDR above 4 GiB outside 64-bit mode",
            |case| {
                attributes(case, 0, 3);
                case.secs.baseaddr = (1u64 << 32).into();
            },
            FAULTS,
        ),
        Check::new(
            24,
            "SIZE outside 64-bit mode",
            |case| {
                attributes(case, 0, 3);
                case.secs.baseaddr = 0.into();
                case.secs.size = (1u64 << 31).into();
            },
            FAULTS,
        ),
        Check::new(
            25,
            "SIZE in 64-bit mode",
            |case| {
                case.secs.baseaddr = 0.into();
                case.secs.size = (1u64 << 36).into();
            },
            FAULTS,
        ),
        Check::new(26, "SIZE of one page", |case| case.secs.size = 4096.into(), FAULTS),
        Check::new(26, "SIZE of nothing", |case| case.secs.size = 0.into(), FAULTS),
        Check::new(27, "SIZE of three pages", |case| case.secs.size = 0x3000.into(), FAULTS),
        Check::new(
            28,
            "BASEADDR alignment",
            |case| case.secs.baseaddr = (BASE + 0x8000).into(),
            FAULTS,
        ),
        Check::new(29, "INIT", |case| attributes(case, MODE64 | 1, 3), FAULTS),
        Check::new(29, "reserved flag", |case| attributes(case, MODE64 | 1 << 3, 3), FAULTS),
        Check::new(29, "CET", |case| attributes(case, MODE64 | 1 << 6, 3), FAULTS),
        Check::new(29, "AEXNOTIFY", |case| attributes(case, MODE64 | 1 << 10, 3), FAULTS),
        Check::new(30, "first reserved", |case| case.secs.reserved1[14] = 1, FAULTS),
        Check::new(30, "second reserved", |case| case.secs.reserved2[0] = 1, FAULTS),
        Check::new(30, "third reserved", |case| case.secs.reserved3[31] = 1, FAULTS),
        Check::new(30, "fourth reserved", |case| case.secs.reserved4[0] = 1, FAULTS),
        Check::new(30, "last byte", |case| case.secs.reserved5[3415] = 1, FAULTS),
        Check::new(30, "left to software", |case| case.secs.eid = 1.into(), FAULTS),
        Check::new(31, "CONFIGID", |case| case.secs.configid[63] = 1, FAULTS),
        Check::new(31, "CONFIGSVN", |case| case.secs.configsvn = 1.into(), FAULTS),
    ]
}

#[test]
fn a_good_secs_is_created() {
    assert_eq!(run(good()), Ok(None));
}

#[test]
fn each_bad_operand_faults() {
    assert_eq!(each_alone(&operands(), good, run), [""; 0]);
}

#[test]
fn each_illegal_secs_faults() {
    assert_eq!(each_alone(&contents(), good, run), [""; 0]);
}

#[test]
fn of_two_conditions_the_first_decides() {
    let mut conditions = operands();
    conditions.extend(contents());

    let pairs = in_pairs(&conditions, good, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared > 200, "{}", pairs.compared);
}

#[test]
fn an_address_beyond_the_canonical_range_faults_for_each_operand() {
    let with = |change: fn(&mut Case)| {
        let mut case = good();
        change(&mut case);
        run(case)
    };

    assert_eq!(with(|case| case.pageinfo.srcpge = (1u64 << 63).into()), Err(GP), "SRCPGE");
    assert_eq!(with(|case| case.pageinfo.secinfo = (1u64 << 63).into()), Err(GP), "SECINFO");
}

#[test]
fn what_software_may_not_set_starts_at_zero() {
    let mut case = good();
    case.secs.mrenclave = [1; 32];
    case.secs.mrsigner = [1; 32];
    case.secs.isvprodid = 1.into();
    case.secs.isvsvn = 1.into();
    let mut machine = Machine::new(8);
    Spec::simple().ecreate(&mut machine, 0).expect("a good ECREATE");
    machine.operand(SOURCE, &case.secs);

    machine.encls(leaf::ECREATE, PAGEINFO, Machine::window(3), 0).expect("a good ECREATE");

    let view = machine.platform.epcm(EpcIndex(3));
    assert!(view.is(PageType::Secs));
    assert_eq!(view.flags, EpcmFlags::VALID);
    assert_eq!((view.address, view.secs), (0, EpcIndex(3)));
    let (first, second) = (
        machine.platform.page(EpcIndex(0)).to_bytes(),
        machine.platform.page(EpcIndex(3)).to_bytes(),
    );
    assert_eq!(first[64..260], second[64..260], "MRENCLAVE to CONFIGSVN");
}

#[test]
fn announced_attributes_may_be_set() {
    let with = |flags: AttributeFlags| {
        let mut case = good();
        case.capabilities.attributes |= AttributeFlags::AEXNOTIFY;
        attributes(&mut case, (AttributeFlags::MODE64BIT | flags).bits(), 3);
        run(case)
    };

    assert_eq!(with(AttributeFlags::DEBUG), Ok(None));
    assert_eq!(with(AttributeFlags::PROVISIONKEY), Ok(None));
    assert_eq!(with(AttributeFlags::EINITTOKEN_KEY), Ok(None));
    assert_eq!(with(AttributeFlags::KSS), Ok(None));
    assert_eq!(with(AttributeFlags::AEXNOTIFY), Ok(None));
}

#[test]
fn a_configuration_needs_kss() {
    let mut case = good();
    attributes(&mut case, (AttributeFlags::MODE64BIT | AttributeFlags::KSS).bits(), 3);
    case.secs.configid = [3; 64];
    case.secs.configsvn = 7.into();

    assert_eq!(run(case), Ok(None));
}

#[test]
fn an_enclave_outside_64_bit_mode_fits_below_4_gib() {
    let mut case = good();
    attributes(&mut case, 0, 3);
    case.secs.baseaddr = 0x8000_0000.into();
    case.secs.size = 0x4000_0000.into();

    assert_eq!(run(case), Ok(None));
}

#[test]
fn no_platform_announces_cet() {
    let mut config = PlatformConfig::single(8, PlatformIdentity::from_seed(&[7; 32]));
    config.capabilities.attributes |= AttributeFlags::CET;

    let refused = cloister_sgx::Platform::new(config).map(drop);

    assert!(matches!(refused, Err(PlatformError::Capabilities(_))), "{refused:?}");
}

#[test]
fn an_unbacked_target_stops_the_leaf_before_it_commits() {
    let mut machine = Machine::new(8);
    let unbacked = Mapping::Unbacked { gpa: Gpa(0x1_0000_0000) };
    machine.memory.mappings.insert(0x9000, unbacked);
    Spec::simple().ecreate(&mut machine, 0).expect("operands for ECREATE");

    let stopped = machine.encls(leaf::ECREATE, PAGEINFO, 0x9000, 0);

    assert_eq!(stopped, Err(Stop::EpcMiss { gpa: Gpa(0x1_0000_0000) }));
}

#[test]
fn a_target_that_the_page_tables_protect_faults_without_the_sgx_bit() {
    let mut machine = Machine::new(8);
    Spec::simple().ecreate(&mut machine, 0).expect("operands for ECREATE");
    let read_only = Mapping::Epc { index: EpcIndex(1), writable: false };
    machine.memory.mappings.insert(0x9000, read_only);

    let stopped = machine.encls(leaf::ECREATE, PAGEINFO, 0x9000, 0);

    let code = PageFaultCode::PRESENT | W;
    assert_eq!(stopped, Err(Stop::Fault(Exception::pf(0x9000, code))));
}
