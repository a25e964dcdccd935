//! `x-query-sgx-epc`, by hand and through the client of `cloister epc`.

use std::time::Duration;

use cloister_epc_view::{QmpClient, QmpError};
use serde_json::{Value, json};

use crate::guests::IDLE;
use crate::machine::Running;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn the_report_tells_each_section_and_the_page_map_on_demand() {
    let sections = ["--sgx-epc", "id=a,size=1M,prealloc=on", "--sgx-epc", "id=b,size=512G"];
    let running = Running::start(IDLE, &sections);
    let mut client = running.client();

    let brief = client.get("x-query-sgx-epc");
    drop(client);
    let whole = QmpClient::connect(&running.socket, LIMIT).unwrap().epc_report(true).unwrap();

    let of = |section: usize, name: &str| brief["sections"][section][name].clone();
    assert_eq!((of(0, "id"), of(1, "id")), (json!("a"), json!("b")));
    assert_eq!((of(0, "size"), of(1, "size")), (json!(1 << 20), json!(512_u64 << 30)));
    assert_eq!((&of(0, "pages")["backed"], &of(1, "pages")["backed"]), (&json!(256), &json!(0)));
    assert_eq!((of(0, "faults"), of(0, "page-map")), (json!(0), Value::Null));
    let cells = |section: usize| whole.sections[section].page_map.as_ref().unwrap().cells.as_str();
    assert_eq!(cells(0), "-".repeat(256));
    assert_eq!(cells(1), ".".repeat(1 << 14));
}

#[test]
fn a_guest_without_sections_has_an_empty_report() {
    let report = Running::start(IDLE, &[]).client().get("x-query-sgx-epc");

    assert_eq!((&report["sections"], &report["enclaves"]), (&json!([]), &json!([])));
    assert_eq!(report["name"], "guest");
}

#[test]
fn wrong_arguments_are_named() {
    let running = Running::start(IDLE, &["--sgx-epc", "id=a,size=1M"]);
    let mut client = running.client();

    for (arguments, expected) in [
        (json!({ "page-map": "yes" }), "the argument 'page-map' is not a boolean"),
        (json!({ "map": true }), "the argument 'map' is unexpected"),
    ] {
        let request = json!({ "execute": "x-query-sgx-epc", "arguments": arguments });
        client.send(request.to_string());
        let answer = client.read();
        assert_eq!(answer["error"]["desc"], expected);
    }
}

#[test]
fn a_client_hears_that_the_machine_ended() {
    let mut running = Running::start(IDLE, &["--sgx-epc", "id=a,size=1M"]);
    let mut client = QmpClient::connect(&running.socket, LIMIT).unwrap();
    client.epc_report(false).unwrap();

    running.control.quit();
    running.outcome();
    running.end_monitor();

    let error = client.epc_report(false).unwrap_err();
    assert!(matches!(error, QmpError::Ended(_)), "{error}");
    let error = QmpClient::connect(&running.socket, LIMIT).unwrap_err();
    assert!(error.to_string().contains("the machine has ended"), "{error}");
}
