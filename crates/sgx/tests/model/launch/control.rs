//! Launch control from end to end: a launch enclave decides for the enclaves of other signers.

use cloister_sgx::layout::EinitToken;
use cloister_sgx::{AttributeFlags, Attributes, PlatformConfig, PlatformIdentity, SgxStatus};

use super::launcher::{self, Launcher, Options};
use crate::enclave::Spec;
use crate::machine::Machine;
use crate::signer::Signer;

/// Where the enclaves that need a token are built, after the launch enclave.
const SECS: u32 = 16;
const DEBUG: AttributeFlags = AttributeFlags::MODE64BIT.union(AttributeFlags::DEBUG);

/// A machine whose launch-control hash is that of B's key for good.
fn locked(seed: u8) -> Machine {
    let mut config = PlatformConfig::single(32, PlatformIdentity::from_seed(&[seed; 32]));
    config.default_le_hash = Signer::b().mrsigner();
    config.le_hash_writable = false;
    let mut machine = Machine::with(config);
    machine.memory.le_hash = *machine.platform.default_le_hash();
    machine
}

fn with_flags(flags: AttributeFlags) -> Spec {
    Spec { attributes: Attributes::new(flags, 3), debug_mask: true, ..Spec::simple() }
}

/// EINIT of `enclave`, signed by A.
fn launch(machine: &mut Machine, enclave: &Spec, token: &EinitToken) -> SgxStatus {
    enclave.load(machine, SECS).expect("the enclave can be built");
    let sigstruct = enclave.sigstruct(Signer::a());
    enclave.einit(machine, SECS, &sigstruct, token).expect("EINIT completes")
}

#[test]
fn a_launch_enclave_lets_another_signer_in_on_a_locked_platform() {
    let mut machine = locked(7);
    let launcher = Launcher::start(&mut machine, &Options::PRODUCTION);
    let enclave = with_flags(AttributeFlags::MODE64BIT);

    let with_token = launch(&mut machine, &enclave, &launcher.token(&enclave, Signer::a()));
    let without = launch(&mut locked(7), &enclave, &EinitToken::none());

    assert!(!machine.platform.le_hash_writable());
    assert_eq!(with_token, SgxStatus::Success);
    assert_eq!(without, SgxStatus::InvalidEinitToken);
}

#[test]
fn on_an_unlocked_platform_whoever_the_hash_names_needs_no_token() {
    let mut machine = Machine::new(32);
    let unlocked = machine.platform.le_hash_writable();
    machine.memory.le_hash = Signer::a().mrsigner();

    let trusted = launch(&mut machine, &Spec::simple(), &EinitToken::none());
    let by_default = launch(&mut Machine::new(32), &Spec::simple(), &EinitToken::none());

    assert!(unlocked);
    assert_eq!(trusted, SgxStatus::Success);
    assert_eq!(
        by_default,
        SgxStatus::InvalidEinitToken,
        "the hash at reset is that of Intel's key"
    );
}

#[test]
fn only_the_enclave_that_the_hash_names_may_have_the_token_key() {
    let launcher = launcher::spec(false);
    let run = |signer: &Signer| {
        let mut machine = locked(7);
        launcher.load(&mut machine, 0).expect("the enclave can be built");
        let sigstruct = launcher.sigstruct(signer);
        launcher.einit(&mut machine, 0, &sigstruct, &EinitToken::none())
    };

    assert_eq!(run(Signer::b()), Ok(SgxStatus::Success));
    assert_eq!(run(Signer::a()), Ok(SgxStatus::InvalidAttribute));
}

#[test]
fn a_token_does_not_make_a_launch_enclave() {
    let mut machine = locked(7);
    let launcher = Launcher::start(&mut machine, &Options::PRODUCTION);
    let usurper = with_flags(AttributeFlags::MODE64BIT | AttributeFlags::EINITTOKEN_KEY);

    let status = launch(&mut machine, &usurper, &launcher.token(&usurper, Signer::a()));

    assert_eq!(status, SgxStatus::InvalidAttribute);
}

#[test]
fn an_enclave_without_the_attribute_gets_no_launch_key() {
    let mut machine = locked(7);
    let ordinary = with_flags(AttributeFlags::MODE64BIT);
    let status = ordinary.start(&mut machine, 0, Signer::b());
    let request = launcher::request(ordinary.isvsvn, *machine.platform.cpusvn());

    let key = launcher::launch_key(&mut machine, &request);

    assert_eq!(status, SgxStatus::Success);
    assert_eq!(key, Err(SgxStatus::InvalidAttribute.rax()));
}

#[test]
fn debug_launch_enclaves_launch_debug_enclaves_only() {
    let run = |options: &Options, flags: AttributeFlags| {
        let mut machine = locked(7);
        let launcher = Launcher::start(&mut machine, options);
        let enclave = with_flags(flags);
        let token = launcher.token(&enclave, Signer::a());
        launch(&mut machine, &enclave, &token)
    };
    let production = AttributeFlags::MODE64BIT;

    assert_eq!(run(&Options::DEBUG, DEBUG), SgxStatus::Success);
    assert_eq!(run(&Options::DEBUG, production), SgxStatus::InvalidEinitToken);
    assert_eq!(run(&Options::PRODUCTION, DEBUG), SgxStatus::Success);
    assert_eq!(run(&Options::PRODUCTION, production), SgxStatus::Success);
}

#[test]
fn a_debug_launch_enclave_cannot_pass_for_a_production_one() {
    let mut machine = locked(7);
    let launcher = Launcher::start(&mut machine, &Options::DEBUG);
    let enclave = with_flags(AttributeFlags::MODE64BIT);
    let mut token = launcher.token(&enclave, Signer::a());
    token.maskedattributesle.flags &= !AttributeFlags::DEBUG.bits();

    let status = launch(&mut machine, &enclave, &token);

    assert_eq!(status, SgxStatus::InvalidEinitToken, "its launch key is another");
}

#[test]
fn a_token_with_a_wrong_mac_is_refused() {
    let run = |change: fn(&mut EinitToken)| {
        let mut machine = locked(7);
        let launcher = Launcher::start(&mut machine, &Options::PRODUCTION);
        let enclave = Spec::simple();
        let mut token = launcher.token(&enclave, Signer::a());
        change(&mut token);
        launch(&mut machine, &enclave, &token)
    };
    let invalid = SgxStatus::InvalidEinitToken;

    assert_eq!(run(|_| {}), SgxStatus::Success);
    assert_eq!(run(|token| token.mac[15] ^= 0x80), invalid, "MAC");
    assert_eq!(run(|token| token.mrenclave[0] ^= 1), invalid, "a field under the MAC");
    assert_eq!(run(|token| token.keyid[31] ^= 1), invalid, "KEYID");
    assert_eq!(run(|token| token.isvsvnle = 3.into()), invalid, "ISVSVNLE");
    assert_eq!(run(|token| token.isvprodidle = 8.into()), invalid, "ISVPRODIDLE");
    assert_eq!(run(|token| token.maskedmiscselectle = 1.into()), invalid, "MASKEDMISCSELECTLE");
    assert_eq!(run(|token| token.maskedattributesle.xfrm ^= 1), invalid, "MASKEDATTRIBUTESLE");
    assert_eq!(run(|token| token.cpusvnle[0] -= 1), invalid, "an older CPUSVNLE");
    assert_eq!(run(|token| token.valid = 0.into()), invalid, "not a token at all");
}

#[test]
fn a_launch_key_of_an_older_cpusvn_is_good_and_of_a_newer_one_is_not() {
    let older = [1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let enclave = Spec::simple();
    let mut machine = locked(7);
    let options = Options { cpusvn: Some(older), ..Options::PRODUCTION };
    let launcher = Launcher::start(&mut machine, &options);
    let token = launcher.token(&enclave, Signer::a());
    let mut newer = token.clone();
    newer.cpusvnle[0] = 3;

    let with_older = launch(&mut machine, &enclave, &token);
    let with_newer = launch(&mut locked(7), &enclave, &newer);

    assert_eq!(with_older, SgxStatus::Success);
    assert_eq!(with_newer, SgxStatus::InvalidCpuSvn);
}

#[test]
fn a_token_holds_for_one_enclave_of_one_signer_with_its_attributes() {
    let run = |change: fn(&mut Spec), signer: &Signer| {
        let mut machine = locked(7);
        let launcher = Launcher::start(&mut machine, &Options::PRODUCTION);
        let mut enclave = with_flags(DEBUG);
        let token = launcher.token(&enclave, signer);
        change(&mut enclave);
        launch(&mut machine, &enclave, &token)
    };

    assert_eq!(run(|_| {}, Signer::a()), SgxStatus::Success);
    let other_page = run(|spec| spec.pages[3].contents[0] ^= 1, Signer::a());
    let other_signer = run(|_| {}, Signer::b());
    let provision = run(
        |spec| spec.attributes = Attributes::new(DEBUG | AttributeFlags::PROVISIONKEY, 3),
        Signer::a(),
    );
    let production =
        run(|spec| spec.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3), Signer::a());
    assert_eq!(other_page, SgxStatus::InvalidMeasurement);
    assert_eq!(other_signer, SgxStatus::InvalidMeasurement);
    assert_eq!(provision, SgxStatus::InvalidAttribute);
    assert_eq!(production, SgxStatus::InvalidAttribute);
}

#[test]
fn a_token_holds_on_one_platform() {
    let enclave = Spec::simple();
    let launcher = Launcher::start(&mut locked(7), &Options::PRODUCTION);
    let token = launcher.token(&enclave, Signer::a());

    let here = launch(&mut locked(7), &enclave, &token);
    let elsewhere = launch(&mut locked(8), &enclave, &token);

    assert_eq!(here, SgxStatus::Success);
    assert_eq!(elsewhere, SgxStatus::InvalidEinitToken);
}

#[test]
fn a_token_ends_when_another_launch_enclave_takes_over() {
    let mut machine = locked(7);
    let enclave = Spec::simple();
    let launcher = Launcher::start(&mut machine, &Options::PRODUCTION);
    let token = launcher.token(&enclave, Signer::a());
    machine.memory.le_hash = [0x11; 32];

    let status = launch(&mut machine, &enclave, &token);

    assert_eq!(status, SgxStatus::InvalidEinitToken);
}
