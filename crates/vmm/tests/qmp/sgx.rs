//! What the monitor says of SGX.

use serde_json::{Value, json};

use crate::guests::IDLE;
use crate::machine::Running;

fn query(options: &[&str], command: &str) -> Value {
    Running::start(IDLE, options).client().get(command)
}

fn bits(info: &Value) -> [bool; 4] {
    ["sgx", "sgx1", "sgx2", "flc"].map(|name| info[name].as_bool().unwrap())
}

#[test]
fn a_guest_with_sections_has_what_its_flags_say() {
    let epc = ["--sgx-epc", "id=a,size=8M", "--sgx-epc", "id=b,size=5G"];
    for (cpu, expected) in [
        ("host", [true, true, true, true]),
        ("host,-sgx2", [true, true, false, true]),
        ("host,-sgxlc", [true, true, true, false]),
        ("host,-sgx1", [true, false, false, true]),
    ] {
        let info = query(&[&epc[..], &["--cpu", cpu]].concat(), "query-sgx");

        assert_eq!(bits(&info), expected, "{cpu}");
        assert_eq!(
            info["sections"],
            json!([
                { "id": "a", "node": 0, "size": 8 << 20 },
                { "id": "b", "node": 0, "size": 5_u64 << 30 },
            ])
        );
        let leaves: Vec<_> = info["cpuid"].as_array().unwrap().iter().collect();
        let of = |leaf, subleaf| {
            leaves
                .iter()
                .find(|found| found["leaf"] == leaf && found["subleaf"] == subleaf)
                .unwrap()
        };
        assert_eq!(of(7, 0)["ebx"].as_u64().unwrap() >> 2 & 1, 1);
        assert_eq!(of(0x12, 0)["eax"].as_u64().unwrap() & 3 == 3, expected[2], "{cpu}");
        assert_eq!(of(0x12, 2)["eax"].as_u64().unwrap() & 0xf, 1);
    }
}

#[test]
fn a_guest_without_sections_has_no_sgx_and_could_have() {
    let info = query(&[], "query-sgx");
    let possible = query(&[], "query-sgx-capabilities");

    assert_eq!(bits(&info), [false; 4]);
    assert_eq!(info["sections"], json!([]));
    assert_eq!(bits(&possible), [true; 4]);
}

#[test]
fn the_capabilities_are_those_of_the_platform_and_its_pool() {
    let info = query(&["--sgx-epc", "id=a,size=8M"], "query-sgx-capabilities");

    assert_eq!(bits(&info), [true; 4]);
    assert_eq!(info["sections"], json!([{ "node": 0, "size": 8 << 20 }]));
}
