//! Key separation and sharing: which identities enter which key.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyRequest, Report, TargetInfo, key_name};
use cloister_sgx::{AttributeFlags, EpcIndex};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::keys::derivation::cmac;
use crate::scenario::{ONE, Scenario, THREE, TWO, epc};

/// Places of identities in the SECS.
const ATTRIBUTES: usize = 48;
const MRENCLAVE: usize = 64;
const MRSIGNER: usize = 128;
const CONFIGID: usize = 192;
const ISVPRODID: usize = 256;
const ISVSVN: usize = 258;
const CONFIGSVN: usize = 260;
const ISVFAMILYID: usize = 264;
const ISVEXTPRODID: usize = 280;
const MISCSELECT: usize = 20;

/// Everything that may enter a key, by name and place in the SECS.
const IDENTITIES: [(&str, usize); 8] = [
    ("MRENCLAVE", MRENCLAVE),
    ("MRSIGNER", MRSIGNER),
    ("CONFIGID", CONFIGID),
    ("CONFIGSVN", CONFIGSVN),
    ("ISVPRODID", ISVPRODID),
    ("ISVFAMILYID", ISVFAMILYID),
    ("ISVEXTPRODID", ISVEXTPRODID),
    ("ISVSVN", ISVSVN),
];

/// Inside an enclave that may request every key, with SECS bytes changed by `change`.
fn inside(change: Option<usize>) -> Scenario {
    let flags = AttributeFlags::PROVISIONKEY | AttributeFlags::EINITTOKEN_KEY | AttributeFlags::KSS;
    let mut scenario = Scenario::inside(flags, ONE, TWO, THREE);
    let secs = scenario.machine.platform.page(EpcIndex(0));
    secs.write(CONFIGSVN, &[3]);
    if let Some(at) = change {
        let mut byte = [0];
        secs.read(at, &mut byte);
        secs.write(at, &[byte[0] + 1]);
    }
    // Whoever signed the enclave is the launch authority.
    secs.read(MRSIGNER, &mut scenario.machine.memory.le_hash);
    scenario
}

fn key(scenario: &mut Scenario, request: &KeyRequest) -> [u8; 16] {
    let platform = scenario.machine.platform.clone();
    platform.page(EpcIndex(epc(ONE))).write(0, request.as_bytes());
    let outcome = scenario.machine.enclu(user::EGETKEY, ONE, TWO, 0).map(drop);
    assert_eq!((outcome, scenario.machine.cpu.gpr[0]), (Ok(()), 0));
    let mut key = [0; 16];
    platform.page(EpcIndex(epc(TWO))).read(0, &mut key);
    key
}

/// The identities on which the key that `request` asks for depends.
fn depends_on(request: &KeyRequest) -> Vec<&'static str> {
    let base = key(&mut inside(None), request);
    IDENTITIES
        .into_iter()
        .filter(|&(_, at)| key(&mut inside(Some(at)), request) != base)
        .map(|(name, _)| name)
        .collect()
}

fn request(name: u16, policy: u16) -> KeyRequest {
    KeyRequest { keyname: name.into(), keypolicy: policy.into(), ..KeyRequest::new_zeroed() }
}

#[test]
fn keypolicy_chooses_the_identities_of_seal_keys() {
    for (policy, expected) in [
        (0, vec!["ISVPRODID"]),
        (1 << 0, vec!["MRENCLAVE", "ISVPRODID"]),
        (1 << 1, vec!["MRSIGNER", "ISVPRODID"]),
        (1 << 2, vec![]),
        (1 << 3, vec!["CONFIGID", "ISVPRODID"]),
        (1 << 4, vec!["ISVPRODID", "ISVFAMILYID"]),
        (1 << 5, vec!["ISVPRODID", "ISVEXTPRODID"]),
        (
            0x3b,
            vec!["MRENCLAVE", "MRSIGNER", "CONFIGID", "ISVPRODID", "ISVFAMILYID", "ISVEXTPRODID"],
        ),
    ] {
        assert_eq!(depends_on(&request(key_name::SEAL, policy)), expected, "policy {policy:x}");
    }
}

#[test]
fn keypolicy_chooses_the_identities_of_provisioning_seal_keys_but_the_signer() {
    for (policy, expected) in [
        (0, vec!["MRSIGNER", "ISVPRODID"]),
        (1 << 0, vec!["MRSIGNER", "ISVPRODID"]),
        (1 << 2, vec!["MRSIGNER"]),
        (1 << 3, vec!["MRSIGNER", "CONFIGID", "ISVPRODID"]),
        (1 << 4, vec!["MRSIGNER", "ISVPRODID", "ISVFAMILYID"]),
        (1 << 5, vec!["MRSIGNER", "ISVPRODID", "ISVEXTPRODID"]),
    ] {
        let name = key_name::PROVISION_SEAL;
        assert_eq!(depends_on(&request(name, policy)), expected, "policy {policy:x}");
    }
}

#[test]
fn the_other_keys_have_fixed_identities() {
    for policy in [0, 0x3f] {
        for (name, expected) in [
            (key_name::REPORT, vec!["MRENCLAVE", "CONFIGID", "CONFIGSVN"]),
            (key_name::EINITTOKEN, vec!["MRSIGNER", "ISVPRODID"]),
            (key_name::PROVISION, vec!["MRSIGNER", "ISVPRODID"]),
        ] {
            assert_eq!(depends_on(&request(name, policy)), expected, "key {name}");
        }
    }
}

#[test]
fn requested_values_enter_the_keys_of_table_38_66() {
    type Vary = fn(&mut KeyRequest);
    let varied: [(&str, Vary); 6] = [
        ("ISVSVN", |request| request.isvsvn = 2.into()),
        ("CPUSVN", |request| request.cpusvn[0] = 1),
        ("ATTRIBUTEMASK", |request| request.attributemask.flags = 4.into()),
        ("MISCMASK", |request| request.miscmask = 1.into()),
        ("KEYID", |request| request.keyid[31] = 1),
        ("CONFIGSVN", |request| request.configsvn = 2.into()),
    ];
    let all = vec!["ISVSVN", "CPUSVN", "ATTRIBUTEMASK", "MISCMASK", "KEYID", "CONFIGSVN"];
    let configured = 1 << 3;
    for (name, policy, expected) in [
        (key_name::SEAL, configured, all.clone()),
        (key_name::SEAL, 0, all[..5].to_vec()),
        (key_name::REPORT, 0, vec!["KEYID"]),
        (key_name::EINITTOKEN, 0, all[..5].to_vec()),
        (key_name::PROVISION, 0, all[..4].to_vec()),
        (
            key_name::PROVISION_SEAL,
            configured,
            vec!["ISVSVN", "CPUSVN", "ATTRIBUTEMASK", "MISCMASK", "CONFIGSVN"],
        ),
    ] {
        let mut scenario = inside(None);
        let base = key(&mut scenario, &request(name, policy));
        let changed: Vec<_> = varied
            .iter()
            .filter(|(_, vary)| {
                let mut request = request(name, policy);
                vary(&mut request);
                key(&mut scenario, &request) != base
            })
            .map(|(field, _)| *field)
            .collect();

        assert_eq!(changed, expected, "key {name}, policy {policy}");
    }
}

#[test]
fn masked_attributes_and_miscselect_leave_keys_alone() {
    let with = |mask: u64, misc: u32, change: &dyn Fn(&Scenario)| {
        let mut request = request(key_name::SEAL, 0);
        request.attributemask.flags = mask.into();
        request.miscmask = misc.into();
        let mut scenario = inside(None);
        change(&scenario);
        key(&mut scenario, &request)
    };
    let toggle = |at: usize, bit: u8| {
        move |scenario: &Scenario| {
            let secs = scenario.machine.platform.page(EpcIndex(0));
            let mut byte = [0];
            secs.read(at, &mut byte);
            secs.write(at, &[byte[0] ^ bit]);
        }
    };
    let none = |_: &Scenario| {};
    // MODE64BIT is bit 2; the processor latched it at entry.
    let mode = toggle(ATTRIBUTES, 4);
    let debug = toggle(ATTRIBUTES, 2);
    let misc = toggle(MISCSELECT, 1);

    assert_eq!(with(0, 0, &none), with(0, 0, &mode), "not in ATTRIBUTEMASK");
    assert_ne!(with(4, 0, &none), with(4, 0, &mode), "in ATTRIBUTEMASK");
    assert_ne!(with(0, 0, &none), with(0, 0, &debug), "DEBUG is always included");
    assert_eq!(with(0, 0, &none), with(0, 0, &misc), "not in MISCMASK");
    assert_ne!(with(0, 1, &none), with(0, 1, &misc), "in MISCMASK");
}

#[test]
fn a_report_names_its_enclave_and_only_the_target_verifies_it() {
    let mut reporter = inside(None);
    let platform = reporter.machine.platform.clone();
    let secs = platform.page(EpcIndex(0));
    secs.write(CONFIGID, &[0x11; 64]);
    secs.write(ISVFAMILYID, &[0x22; 16]);
    secs.write(ISVEXTPRODID, &[0x33; 16]);
    let mut target = TargetInfo::new_zeroed();
    secs.read(MRENCLAVE, &mut target.measurement);
    secs.read(ATTRIBUTES, target.attributes.as_mut_bytes());
    secs.read(MISCSELECT, target.miscselect.as_mut_bytes());
    target.configid = [0x11; 64];
    target.configsvn = 3.into();
    let mut report = |target: &TargetInfo| {
        platform.page(EpcIndex(epc(ONE))).write(0, target.as_bytes());
        reporter.machine.enclu(user::EREPORT, ONE, TWO, THREE).expect("EREPORT completes");
        let bytes = platform.page(EpcIndex(epc(THREE))).to_bytes();
        Report::read_from_prefix(&bytes).expect("a REPORT").0
    };

    let good = report(&target);
    let other_configid = report(&TargetInfo { configid: [0; 64], ..target.clone() });
    let other_configsvn = report(&TargetInfo { configsvn: 4.into(), ..target.clone() });
    let other_misc = report(&TargetInfo { miscselect: 0.into(), ..target.clone() });
    let report_key = KeyRequest { keyid: good.keyid, ..request(key_name::REPORT, 0) };
    let own = key(&mut reporter, &report_key);

    let verifies = |report: &Report| cmac(&own, &report.as_bytes()[..384]) == report.mac;
    assert!(verifies(&good));
    assert!(!verifies(&other_configid));
    assert!(!verifies(&other_configsvn));
    assert!(!verifies(&other_misc));
    assert_eq!(good.configid, [0x11; 64]);
    assert_eq!(good.configsvn.get(), 3);
    assert_eq!((good.isvfamilyid, good.isvextprodid), ([0x22; 16], [0x33; 16]));
    assert_eq!(good.cet_attributes, 0, "CET is off");
}
