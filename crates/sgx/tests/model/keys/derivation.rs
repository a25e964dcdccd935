//! EREPORT and EGETKEY.

use aes::Aes128;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyRequest, Report, TargetInfo, key_name};
use cloister_sgx::{
    AttributeFlags, Attributes, EnclaveIdentity, EpcIndex, PlatformConfig, PlatformIdentity,
    SgxStatus, Stop,
};
use cloister_x86::{Gpr, PageFaultCode};
use cmac::{Cmac, KeyInit as _, Mac as _};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::enclave::{CODE, DATA, Spec, TCS, started};
use crate::machine::{GP, Machine, epcm_fault};
use crate::signer::Signer;

const KEYREQUEST: u64 = DATA;
const KEY: u64 = DATA + 0x200;
const TARGETINFO: u64 = DATA + 0x400;
const REPORTDATA: u64 = DATA + 0x600;
const REPORT: u64 = DATA + 0x800;

/// AES-128 CMAC.
pub(crate) fn cmac(key: &[u8; 16], message: &[u8]) -> [u8; 16] {
    let mut cmac = Cmac::<Aes128>::new(key.into());
    cmac.update(message);
    cmac.finalize().into_bytes().into()
}

fn enter(machine: &mut Machine) {
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
}

/// A machine inside an enclave that `change` made of the simple one.
fn inside(change: impl FnOnce(&mut Spec)) -> Machine {
    inside_on(Machine::new(32), 0, change)
}

/// The same at EPC page `secs` of a given machine.
fn inside_on(mut machine: Machine, secs: u32, change: impl FnOnce(&mut Spec)) -> Machine {
    let mut spec = Spec::simple();
    change(&mut spec);
    let status = spec.start(&mut machine, secs, Signer::a());
    assert_eq!(status, SgxStatus::Success);
    enter(&mut machine);
    machine
}

fn flags(spec: &mut Spec, flags: AttributeFlags) {
    let all = flags | AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    spec.attributes = Attributes::new(all, 3);
}

/// EGETKEY by the enclave whose data page is EPC page `data`.
fn egetkey_at(
    machine: &mut Machine,
    data: u32,
    request: &KeyRequest,
) -> Result<Result<[u8; 16], u64>, Stop> {
    let page = EpcIndex(data);
    machine.platform.page(page).write(0, request.as_bytes());
    machine.platform.page(page).write(0x200, &[0xee; 16]);
    machine.enclu(user::EGETKEY, KEYREQUEST, KEY, 0)?;
    let mut key = [0; 16];
    machine.platform.page(page).read(0x200, &mut key);
    Ok(if machine.cpu.gpr[Gpr::Rax] == 0 { Ok(key) } else { Err(machine.cpu.gpr[Gpr::Rax]) })
}

/// EGETKEY by the simple enclave in EPC pages 0 to 8.
fn egetkey(machine: &mut Machine, request: &KeyRequest) -> Result<Result<[u8; 16], u64>, Stop> {
    egetkey_at(machine, 4, request)
}

fn request(name: u16) -> KeyRequest {
    KeyRequest { keyname: name.into(), ..KeyRequest::new_zeroed() }
}

/// A seal key request bound to MRENCLAVE and MRSIGNER.
fn seal() -> KeyRequest {
    KeyRequest { keypolicy: 3.into(), ..request(key_name::SEAL) }
}

fn key(machine: &mut Machine, request: &KeyRequest) -> [u8; 16] {
    egetkey(machine, request).expect("EGETKEY completes").expect("the key is given")
}

/// EREPORT by the simple enclave for `target`.
fn ereport(machine: &mut Machine, target: &TargetInfo, data: &[u8; 64]) -> Result<Report, Stop> {
    let page = EpcIndex(4);
    machine.platform.page(page).write(0x400, target.as_bytes());
    machine.platform.page(page).write(0x600, data);
    machine.enclu(user::EREPORT, TARGETINFO, REPORTDATA, REPORT)?;
    let bytes = machine.platform.page(page).to_bytes();
    Ok(Report::read_from_prefix(&bytes[0x800..]).expect("a REPORT").0)
}

#[test]
fn a_report_is_verified_by_its_target_and_by_nobody_else() {
    let mut machine = inside(|_| {});
    let spec = Spec::simple();
    let mut target = TargetInfo::new_zeroed();
    target.measurement = spec.mrenclave();
    target.attributes = Attributes::new(
        AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::DEBUG,
        3,
    );
    target.miscselect = spec.miscselect.into();

    let report = ereport(&mut machine, &target, &[0x17; 64]).expect("EREPORT completes");
    let mut request = request(key_name::REPORT);
    request.keyid = report.keyid;
    let own = key(&mut machine, &request);
    target.measurement[0] ^= 1;
    let other = ereport(&mut machine, &target, &[0x17; 64]).expect("EREPORT completes");

    assert_eq!(cmac(&own, &report.as_bytes()[..384]), report.mac);
    assert_ne!(cmac(&own, &other.as_bytes()[..384]), other.mac);
    assert_eq!(report.mrenclave, spec.mrenclave());
    assert_eq!(report.mrsigner, Signer::a().mrsigner());
    assert_eq!(report.reportdata, [0x17; 64]);
    assert_eq!((report.isvprodid.get(), report.isvsvn.get()), (9, 4));
    assert_eq!(report.attributes.flags.get(), 7, "INIT, DEBUG and MODE64BIT");
    assert_eq!(&report.cpusvn, machine.platform.cpusvn());
}

#[test]
fn the_manufacturer_tells_reports_of_the_platform_from_others() {
    let mut machine = inside(|_| {});
    let fuses = PlatformIdentity::from_seed(&[7; 32]).fuses;
    let other = PlatformIdentity::from_seed(&[8; 32]).fuses;
    let mut target = TargetInfo::new_zeroed();
    target.measurement = [0x29; 32];
    target.attributes = Attributes::new(AttributeFlags::INIT, 3);

    let report = ereport(&mut machine, &target, &[0x17; 64]).expect("EREPORT completes");
    let mut changed = report.clone();
    changed.reportdata[9] ^= 1;
    let elsewhere = TargetInfo { measurement: [0x2a; 32], ..target.clone() };

    assert!(fuses.is_genuine(&report, &target));
    assert!(!fuses.is_genuine(&changed, &target));
    assert!(!fuses.is_genuine(&report, &elsewhere));
    assert!(!other.is_genuine(&report, &target));
}

#[test]
fn the_manufacturer_has_the_keys_that_egetkey_gives() {
    let mut machine = inside(|spec| {
        let flags = AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
        spec.attributes = Attributes::new(flags, 3);
        spec.miscselect = 0;
    });
    let fuses = PlatformIdentity::from_seed(&[7; 32]).fuses;
    let enclave = EnclaveIdentity {
        mrenclave: machine.platform.enclave(EpcIndex(0)).unwrap().identity.unwrap().mrenclave,
        mrsigner: Signer::a().mrsigner(),
        isvprodid: 9,
        isvsvn: 4,
    };
    let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
    let attributes = Attributes::new(flags, 3);

    for name in [key_name::PROVISION, key_name::PROVISION_SEAL, key_name::REPORT, key_name::SEAL] {
        let request = KeyRequest { keypolicy: 3.into(), ..request(name) };
        let given = key(&mut machine, &request);
        assert_eq!(fuses.egetkey(&enclave, attributes, &request), Ok(given), "key {name}");
    }
    let refused = fuses.egetkey(&enclave, attributes, &request(key_name::EINITTOKEN));
    assert_eq!(refused, Err(SgxStatus::InvalidAttribute));
    let newer = KeyRequest { isvsvn: 5.into(), ..request(key_name::PROVISION) };
    assert_eq!(fuses.egetkey(&enclave, attributes, &newer), Err(SgxStatus::InvalidIsvSvn));
    assert_ne!(fuses.manufacturer_key("one"), fuses.manufacturer_key("other"));
}

#[test]
fn ereport_checks_its_operands() {
    let mut machine = inside(|_| {});
    machine.platform.page(EpcIndex(4)).clear();
    let mut run =
        |rbx: u64, rcx: u64, rdx: u64| machine.enclu(user::EREPORT, rbx, rcx, rdx).unwrap_err();
    let read = PageFaultCode::USER;
    let write = read | PageFaultCode::WRITE;

    assert_eq!(run(TARGETINFO + 256, REPORTDATA, REPORT), GP, "TARGETINFO alignment");
    assert_eq!(run(TARGETINFO, REPORTDATA + 64, REPORT), GP, "REPORTDATA alignment");
    assert_eq!(run(TARGETINFO, REPORTDATA, REPORT + 256), GP, "REPORT alignment");
    assert_eq!(run(0x10_0000, REPORTDATA, REPORT), GP, "outside ELRANGE");
    assert_eq!(run(TCS, REPORTDATA, REPORT), epcm_fault(TCS, read), "a TCS");
    assert_eq!(run(TARGETINFO, REPORTDATA, CODE), epcm_fault(CODE, write), "not writable");
    machine.platform.page(EpcIndex(4)).write(0x400 + 200, &[1]);
    let reserved = machine.enclu(user::EREPORT, TARGETINFO, REPORTDATA, REPORT);
    assert_eq!(reserved, Err(GP), "reserved in TARGETINFO");
}

#[test]
fn seal_keys_are_stable_and_bound_to_what_the_policy_says() {
    let base = key(&mut inside(|_| {}), &seal());
    let again = key(&mut inside(|_| {}), &seal());
    let other_code = |spec: &mut Spec| spec.pages[2].contents[0] ^= 1;
    let enclave = key(&mut inside(other_code), &seal());
    let signer_only = KeyRequest { keypolicy: 2.into(), ..request(key_name::SEAL) };
    let signer = key(&mut inside(|_| {}), &signer_only);
    let signer_other_code = key(&mut inside(other_code), &signer_only);
    let keyid = key(&mut inside(|_| {}), &KeyRequest { keyid: [1; 32], ..seal() });
    let svn = key(&mut inside(|_| {}), &KeyRequest { isvsvn: 4.into(), ..seal() });
    let product = key(&mut inside(|spec| spec.isvprodid = 10), &seal());
    let platform = PlatformConfig::single(32, PlatformIdentity::from_seed(&[8; 32]));
    let elsewhere = key(&mut inside_on(Machine::with(platform), 0, |_| {}), &seal());

    assert_eq!(base, again);
    assert_eq!(signer, signer_other_code, "the same author");
    let mut distinct = vec![base, enclave, signer, keyid, svn, product, elsewhere];
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 7);
}

#[test]
fn debug_and_production_enclaves_never_share_a_seal_key() {
    let debug = key(&mut inside(|_| {}), &KeyRequest { keypolicy: 2.into(), ..seal() });
    let mut production = inside(|spec| {
        spec.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
    });

    let other = key(&mut production, &KeyRequest { keypolicy: 2.into(), ..seal() });

    assert_ne!(debug, other, "DEBUG is always included");
}

#[test]
fn a_refused_key_sets_zf_and_writes_nothing() {
    let mut machine = inside(|_| {});

    let refused = egetkey(&mut machine, &request(5)).expect("EGETKEY completes");

    assert_eq!(refused, Err(256));
    assert_eq!(machine.cpu.rflags & 0x8d5, 0x40, "ZF alone");
    assert_eq!(machine.platform.page(EpcIndex(4)).load(0x200), 0xeeee_eeee_eeee_eeee);
}

#[test]
fn keys_are_refused_with_the_code_of_the_sdm() {
    let mut plain = inside(|_| {});
    let mut run = |request: &KeyRequest| egetkey(&mut plain, request).expect("it completes");

    assert_eq!(run(&request(5)), Err(256), "no such name");
    assert_eq!(run(&request(key_name::PROVISION)), Err(2), "PROVISIONKEY");
    assert_eq!(run(&request(key_name::PROVISION_SEAL)), Err(2), "PROVISIONKEY");
    assert_eq!(run(&request(key_name::EINITTOKEN)), Err(2), "EINITTOKEN_KEY");
    let mut newer = seal();
    newer.cpusvn[9] = 1;
    assert_eq!(run(&newer), Err(32), "CPUSVN");
    assert_eq!(run(&KeyRequest { isvsvn: 5.into(), ..newer.clone() }), Err(32), "CPUSVN first");
    assert_eq!(run(&KeyRequest { isvsvn: 5.into(), ..seal() }), Err(64), "ISVSVN");
}

#[test]
fn malformed_key_requests_fault() {
    let mut plain = inside(|_| {});
    let mut run = |request: &KeyRequest| egetkey(&mut plain, request).map(drop);

    assert_eq!(run(&KeyRequest { reserved1: 1, ..seal() }), Err(GP), "reserved");
    assert_eq!(run(&KeyRequest { reserved2: [1; 434], ..seal() }), Err(GP), "reserved");
    assert_eq!(run(&KeyRequest { cet_attributes_mask: 1, ..seal() }), Err(GP), "no CET");
    assert_eq!(run(&KeyRequest { keypolicy: (1u16 << 6).into(), ..seal() }), Err(GP), "policy");
    assert_eq!(run(&KeyRequest { keypolicy: 4.into(), ..seal() }), Err(GP), "needs KSS");
    assert_eq!(run(&KeyRequest { configsvn: 1.into(), ..seal() }), Err(GP), "needs KSS");
}

#[test]
fn egetkey_checks_its_operands() {
    let mut machine = inside(|_| {});
    let mut run = |rbx: u64, rcx: u64| machine.enclu(user::EGETKEY, rbx, rcx, 0).unwrap_err();
    let read = PageFaultCode::USER;
    let write = read | PageFaultCode::WRITE;

    assert_eq!(run(KEYREQUEST + 64, KEY), GP, "KEYREQUEST alignment");
    assert_eq!(run(KEYREQUEST, KEY + 8), GP, "output alignment");
    assert_eq!(run(0x10_0000, KEY), GP, "outside ELRANGE");
    assert_eq!(run(KEYREQUEST, 0x10_0000), GP, "output outside ELRANGE");
    assert_eq!(run(TCS, KEY), epcm_fault(TCS, read), "a TCS");
    assert_eq!(run(KEYREQUEST, CODE), epcm_fault(CODE, write), "output not writable");
}

#[test]
fn provisioning_keys_survive_a_new_owner() {
    let with_owner = |owner: u8| {
        let mut identity = PlatformIdentity::from_seed(&[7; 32]);
        identity.fuses.owner_epoch = [owner; 16];
        let machine = Machine::with(PlatformConfig::single(32, identity));
        inside_on(machine, 0, |spec| flags(spec, AttributeFlags::PROVISIONKEY))
    };
    let (mut first, mut second) = (with_owner(1), with_owner(2));

    for name in [key_name::PROVISION, key_name::PROVISION_SEAL] {
        let before = key(&mut first, &request(name));
        let after = key(&mut second, &request(name));
        assert_eq!(before, after, "key {name}");
    }
    assert_ne!(key(&mut first, &seal()), key(&mut second, &seal()));
}

#[test]
fn key_separation_reaches_configuration_and_product() {
    let kss = |spec: &mut Spec| flags(spec, AttributeFlags::KSS);
    let policy = |bits: u16| KeyRequest { keypolicy: (3 | bits).into(), ..seal() };

    let plain = key(&mut inside(kss), &policy(0));
    let no_product = key(&mut inside(kss), &policy(1 << 2));
    let config = key(&mut inside(kss), &policy(1 << 3));
    let newer = KeyRequest { configsvn: 1.into(), ..policy(1 << 3) };
    let beyond = egetkey(&mut inside(kss), &newer).expect("it completes");

    assert_ne!(plain, no_product);
    assert_ne!(plain, config, "KEYPOLICY itself is a dependency");
    assert_eq!(beyond, Err(64), "CONFIGSVN");
}

#[test]
fn two_enclaves_attest_to_each_other() {
    let mut machine = started();
    let mut second = Spec::simple();
    second.pages[3].contents[0] = 1;
    let mut verifier = inside_on(Machine::on(machine.platform.clone()), 12, |spec| {
        *spec = second.clone();
    });
    enter(&mut machine);
    let mut target = TargetInfo::new_zeroed();
    target.measurement = second.mrenclave();
    target.attributes = Attributes::new(
        AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::DEBUG,
        3,
    );
    target.miscselect = second.miscselect.into();

    let report = ereport(&mut machine, &target, &[1; 64]).expect("EREPORT completes");
    let mut request = request(key_name::REPORT);
    request.keyid = report.keyid;
    let verifying = egetkey_at(&mut verifier, 16, &request).expect("EGETKEY completes");
    let own = egetkey(&mut machine, &request).expect("EGETKEY completes");

    assert_eq!(cmac(&verifying.expect("a key"), &report.as_bytes()[..384]), report.mac);
    assert_ne!(cmac(&own.expect("a key"), &report.as_bytes()[..384]), report.mac);
}
