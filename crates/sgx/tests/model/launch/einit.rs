//! The conditions of EINIT.

use std::sync::OnceLock;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, SigStruct};
use cloister_sgx::{AttributeFlags, Attributes, PlatformConfig, PlatformIdentity, SgxStatus, Stop};
use cloister_x86::{Exception, PageFaultCode};
use zerocopy::IntoBytes as _;

use super::launcher::{Launcher, Options};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{SIGSTRUCT, SOURCE, Spec, TOKEN};
use crate::machine::{GP, Machine, epcm_fault};
use crate::signer::Signer;

const W: PageFaultCode = PageFaultCode::WRITE;
/// A linear address that leads nowhere.
const NOT_MAPPED: u64 = 0x5000_0000;
/// The EPC pages of a [`Case`] after those of the launch enclave.
pub(super) const SECS: u32 = 16;
const VA: u32 = 18;
const UNUSED: u32 = 19;

/// The operands of an EINIT on a platform that is locked to B's launch enclave, of an enclave that
/// A signed.
pub(super) struct Case {
    pub(super) rbx: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) enclave: Spec,
    pub(super) sigstruct: SigStruct,
    /// The signature is for another SIGSTRUCT.
    pub(super) forged: bool,
    pub(super) token: EinitToken,
    /// The MAC is for another token.
    pub(super) unsealed: bool,
    pub(super) event: bool,
    pub(super) initialized: bool,
    pub(super) in_use: bool,
}

/// An enclave without pages is enough.
pub(super) fn empty() -> Spec {
    Spec { pages: Vec::new(), ..Spec::simple() }
}

fn signed() -> &'static SigStruct {
    static SIGNED: OnceLock<SigStruct> = OnceLock::new();
    SIGNED.get_or_init(|| empty().sigstruct_with_mask(Signer::a(), !0))
}

/// A debug launch enclave; its key is the same on each machine of the tests.
pub(super) fn launcher() -> &'static Launcher {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    LAUNCHER.get_or_init(|| Launcher::start(&mut machine(), &Options::DEBUG))
}

pub(super) fn machine() -> Machine {
    let mut config = PlatformConfig::single(32, PlatformIdentity::from_seed(&[7; 32]));
    config.default_le_hash = Signer::b().mrsigner();
    config.le_hash_writable = false;
    let mut machine = Machine::with(config);
    machine.memory.le_hash = *machine.platform.default_le_hash();
    machine
}

pub(super) fn good() -> Case {
    Case {
        rbx: SIGSTRUCT,
        rcx: Machine::window(SECS),
        rdx: TOKEN,
        enclave: empty(),
        sigstruct: signed().clone(),
        forged: false,
        token: launcher().token(&empty(), Signer::a()),
        unsealed: false,
        event: false,
        initialized: false,
        in_use: false,
    }
}

pub(super) fn run(mut case: Case) -> Outcome {
    let mut machine = machine();
    case.enclave.ecreate(&mut machine, SECS).expect("the enclave can be built");
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    if case.initialized {
        // On a processor whose launch-control hash is A's, which asks for no token.
        let mut sigstruct = signed().clone();
        sigstruct.attributes = case.enclave.attributes;
        Signer::a().resign(&mut sigstruct);
        machine.memory.le_hash = Signer::a().mrsigner();
        let status = case.enclave.einit(&mut machine, SECS, &sigstruct, &EinitToken::none());
        assert_eq!(status, Ok(SgxStatus::Success));
        machine.memory.le_hash = *machine.platform.default_le_hash();
    }
    // Signing takes longer than all else.
    if !case.forged && case.sigstruct.as_bytes() != signed().as_bytes() {
        Signer::a().resign(&mut case.sigstruct);
    }
    if !case.unsealed {
        launcher().seal(&mut case.token);
    }
    machine.operand(SIGSTRUCT, &case.sigstruct);
    machine.operand(TOKEN, &case.token);
    machine.memory.event = case.event;
    let platform = machine.platform.clone();
    let other = case.in_use.then(|| crate::build::occupy(&platform, UNUSED));
    let outcome = machine.encls(leaf::EINIT, case.rbx, case.rcx, case.rdx);
    drop(other);
    reported(outcome)
}

type Check = Condition<Case>;

const FAULTS: fn(&Case) -> Outcome = |_| Err(GP);
const SIG_STRUCT: fn(&Case) -> Outcome = |_| Ok(Some(SgxStatus::InvalidSigStruct));
const ATTRIBUTE: fn(&Case) -> Outcome = |_| Ok(Some(SgxStatus::InvalidAttribute));
const MEASUREMENT: fn(&Case) -> Outcome = |_| Ok(Some(SgxStatus::InvalidMeasurement));
const EINITTOKEN: fn(&Case) -> Outcome = |_| Ok(Some(SgxStatus::InvalidEinitToken));
const SECS_FAULTS: fn(&Case) -> Outcome = |case| Err(epcm_fault(case.rcx, W));

fn not_mapped(la: u64) -> Outcome {
    Err(Stop::Fault(Exception::pf(la, PageFaultCode::empty())))
}

/// Gives the enclave, its signature and its token these flags.
pub(super) fn flags(case: &mut Case, flags: AttributeFlags) {
    let attributes = Attributes::new(flags, 3);
    case.enclave.attributes = attributes;
    case.sigstruct.attributes = attributes;
    case.token.attributes = attributes;
}

fn operands() -> Vec<Check> {
    vec![
        Check::new(1, "SIGSTRUCT alignment", |case| case.rbx += 2048, FAULTS),
        Check::new(1, "SIGSTRUCT not canonical", |case| case.rbx = 1 << 47, FAULTS).on("SIGSTRUCT"),
        Check::new(2, "SECS alignment", |case| case.rcx += 2048, FAULTS),
        Check::new(2, "SECS not canonical", |case| case.rcx = 1 << 47, FAULTS).on("SECS"),
        Check::new(3, "token alignment", |case| case.rdx += 256, FAULTS),
        Check::new(3, "token not canonical", |case| case.rdx = 1 << 47, FAULTS).on("token"),
        Check::new(4, "SECS not in the EPC", |case| case.rcx = SOURCE, SECS_FAULTS).on("SECS"),
        Check::new(
            5,
            "SIGSTRUCT not mapped",
            |case| case.rbx = NOT_MAPPED,
            |case| not_mapped(case.rbx),
        )
        .on("SIGSTRUCT"),
        Check::new(
            6,
            "token not mapped",
            |case| case.rdx = NOT_MAPPED + 4096,
            |case| not_mapped(case.rdx),
        )
        .on("token"),
    ]
}

fn signature() -> Vec<Check> {
    vec![
        Check::new(7, "HEADER", |case| case.sigstruct.header[15] ^= 1, SIG_STRUCT),
        Check::new(8, "VENDOR", |case| case.sigstruct.vendor = 0x8087.into(), SIG_STRUCT),
        Check::new(9, "HEADER2", |case| case.sigstruct.header2[0] ^= 2, SIG_STRUCT),
        Check::new(10, "EXPONENT", |case| case.sigstruct.exponent = 65537.into(), SIG_STRUCT),
        Check::new(11, "first reserved", |case| case.sigstruct.reserved1[83] = 1, SIG_STRUCT),
        Check::new(11, "second reserved", |case| case.sigstruct.reserved2[1] = 1, SIG_STRUCT),
        Check::new(11, "third reserved", |case| case.sigstruct.reserved3[0] = 1, SIG_STRUCT),
        Check::new(11, "fourth reserved", |case| case.sigstruct.reserved4[11] = 1, SIG_STRUCT),
        Check::new(11, "CET_ATTRIBUTES", |case| case.sigstruct.cet_attributes = 1, SIG_STRUCT),
        Check::new(
            11,
            "CET_ATTRIBUTES_MASK",
            |case| case.sigstruct.cet_attributes_mask = 1,
            SIG_STRUCT,
        ),
        Check::new(
            12,
            "a pending event",
            |case| case.event = true,
            |_| Ok(Some(SgxStatus::UnmaskedEvent)),
        ),
        Check::new(
            13,
            "forged signature",
            |case| {
                case.forged = true;
                case.sigstruct.signature[100] ^= 1;
            },
            |_| Ok(Some(SgxStatus::InvalidSignature)),
        ),
    ]
}

fn enclave() -> Vec<Check> {
    vec![
        Check::new(
            14,
            "SECS in use",
            |case| {
                case.in_use = true;
                case.rcx = Machine::window(UNUSED);
            },
            FAULTS,
        )
        .on("SECS"),
        Check::new(15, "not VALID", |case| case.rcx = Machine::window(UNUSED), SECS_FAULTS)
            .on("SECS"),
        Check::new(16, "PT_VA", |case| case.rcx = Machine::window(VA), SECS_FAULTS).on("SECS"),
        Check::new(
            17,
            "ISVFAMILYID without KSS",
            |case| case.sigstruct.isvfamilyid[15] = 1,
            SIG_STRUCT,
        ),
        Check::new(19, "initialized", |case| case.initialized = true, FAULTS),
        Check::new(20, "ENCLAVEHASH", |case| case.sigstruct.enclavehash[31] ^= 1, MEASUREMENT),
        Check::new(
            21,
            "EINITTOKEN_KEY for another signer",
            |case| {
                let debug = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
                flags(case, debug | AttributeFlags::EINITTOKEN_KEY);
            },
            ATTRIBUTE,
        ),
        Check::new(
            22,
            "an ATTRIBUTES flag",
            |case| case.sigstruct.attributes.flags ^= AttributeFlags::PROVISIONKEY.bits(),
            ATTRIBUTE,
        ),
        Check::new(22, "XFRM", |case| case.sigstruct.attributes.xfrm ^= 4, ATTRIBUTE),
        Check::new(23, "MISCSELECT", |case| case.sigstruct.miscselect ^= 1, ATTRIBUTE),
    ]
}

fn token() -> Vec<Check> {
    vec![
        Check::new(25, "no token", |case| case.token.valid = 0.into(), EINITTOKEN)
            .on("token VALID"),
        Check::new(
            26,
            "production enclave, debug launch enclave",
            |case| flags(case, AttributeFlags::MODE64BIT),
            EINITTOKEN,
        )
        .on("token VALID"),
        Check::new(27, "reserved bits of VALID", |case| case.token.valid = 3.into(), EINITTOKEN)
            .on("token VALID"),
        Check::new(27, "first reserved", |case| case.token.reserved1[43] = 1, EINITTOKEN)
            .on("token VALID"),
        Check::new(27, "second reserved", |case| case.token.reserved2[0] = 1, EINITTOKEN)
            .on("token VALID"),
        Check::new(27, "third reserved", |case| case.token.reserved3[31] = 1, EINITTOKEN)
            .on("token VALID"),
        Check::new(27, "fourth reserved", |case| case.token.reserved4[22] = 1, EINITTOKEN)
            .on("token VALID"),
        Check::new(27, "CET", |case| case.token.cet_masked_attributes_le = 1, EINITTOKEN)
            .on("token VALID"),
        Check::new(
            28,
            "CPUSVN",
            |case| case.token.cpusvnle[15] = 1,
            |_| Ok(Some(SgxStatus::InvalidCpuSvn)),
        ),
        Check::new(
            29,
            "MAC",
            |case| {
                case.unsealed = true;
                case.token.mac[0] ^= 1;
            },
            EINITTOKEN,
        ),
        Check::new(30, "MRENCLAVE", |case| case.token.mrenclave[0] ^= 1, MEASUREMENT),
        Check::new(30, "MRSIGNER", |case| case.token.mrsigner[31] ^= 1, MEASUREMENT),
        Check::new(
            31,
            "an ATTRIBUTES flag of the token",
            |case| case.token.attributes.flags ^= AttributeFlags::PROVISIONKEY.bits(),
            ATTRIBUTE,
        ),
        Check::new(31, "XFRM of the token", |case| case.token.attributes.xfrm ^= 4, ATTRIBUTE),
    ]
}

fn all() -> Vec<Check> {
    [operands(), signature(), enclave(), token()].into_iter().flatten().collect()
}

#[test]
fn a_good_enclave_is_initialized() {
    assert_eq!(run(good()), Ok(Some(SgxStatus::Success)));
}

#[test]
fn each_bad_operand_faults() {
    assert_eq!(each_alone(&operands(), good, run), [""; 0]);
}

#[test]
fn each_defect_of_the_sigstruct_has_its_code() {
    assert_eq!(each_alone(&signature(), good, run), [""; 0]);
}

#[test]
fn each_mismatch_with_the_enclave_has_its_outcome() {
    assert_eq!(each_alone(&enclave(), good, run), [""; 0]);
}

#[test]
fn each_defect_of_the_token_has_its_code() {
    assert_eq!(each_alone(&token(), good, run), [""; 0]);
}

#[test]
fn of_two_conditions_the_first_decides() {
    let pairs = in_pairs(&all(), good, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared > 600, "{}", pairs.compared);
}
