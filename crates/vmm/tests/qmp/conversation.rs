//! Greeting, negotiation, answers and errors, one client after the other, and the socket's file.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;

use cloister_vmm::qmp::ServeError;
use serde_json::{Value, json};

use crate::client::Client;
use crate::guests::IDLE;
use crate::machine::Running;

fn class(error: &Value) -> &str {
    error["class"].as_str().unwrap()
}

#[test]
fn a_conversation_begins_with_a_greeting_and_the_negotiation() {
    let running = Running::start(IDLE, &[]);
    let mut client = Client::connect(&running.socket);

    let greeting = client.read();
    let early = client.execute("query-status").unwrap_err();
    let negotiated = client.execute("qmp_capabilities");
    let again = client.execute("qmp_capabilities").unwrap_err();

    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
    assert!(greeting["QMP"]["version"]["package"].as_str().unwrap().starts_with("cloister "));
    for part in ["major", "minor", "micro"] {
        assert!(greeting["QMP"]["version"]["qemu"][part].is_u64(), "{greeting}");
    }
    assert_eq!((class(&early), class(&again)), ("CommandNotFound", "CommandNotFound"));
    assert_eq!(negotiated, Ok(json!({})));
    assert_eq!(client.status(), ("running".into(), true));
    assert_eq!(client.get("query-version"), greeting["QMP"]["version"]);
}

#[test]
fn a_capability_that_is_not_offered_cannot_be_enabled() {
    let running = Running::start(IDLE, &[]);
    let mut client = Client::connect(&running.socket);
    client.read();

    for (enable, word) in [
        (json!(["oob"]), "'oob'"),
        (json!([1]), "'enable'"),
        (json!("oob"), "'enable'"),
        (json!({}), "'enable'"),
    ] {
        let arguments = json!({ "enable": enable });
        client.send(json!({ "execute": "qmp_capabilities", "arguments": arguments }).to_string());
        let answer = client.read();
        let desc = answer["error"]["desc"].as_str().unwrap();
        assert_eq!(class(&answer["error"]), "GenericError");
        assert!(desc.contains(word), "{desc}");
    }
    client.send(r#"{"execute":"qmp_capabilities","arguments":{"enable":[]}}"#);

    assert_eq!(client.read(), json!({ "return": {} }));
}

#[test]
fn errors_have_a_class_and_name_what_is_wrong_and_keep_the_id() {
    let running = Running::start(IDLE, &[]);
    let mut client = running.client();

    for (request, class, word) in [
        (json!({ "execute": "frobnicate", "id": 1 }), "CommandNotFound", "frobnicate"),
        (json!({ "execute": "stop", "arguments": { "fast": 1 }, "id": 1 }), "GenericError", "fast"),
        (json!({ "execute": "stop", "arguments": 7, "id": 1 }), "GenericError", "arguments"),
        (json!({ "execute": "stop", "now": true, "id": 1 }), "GenericError", "now"),
        (json!({ "execute": [], "id": 1 }), "GenericError", "execute"),
        (json!({ "id": 1 }), "GenericError", "execute"),
        (json!({ "exec-oob": "stop", "id": 1 }), "GenericError", "exec-oob"),
    ] {
        client.send(request.to_string());

        let answer = client.read();
        let desc = answer["error"]["desc"].as_str().unwrap();
        assert_eq!((&answer["id"], &answer["error"]["class"]), (&json!(1), &json!(class)));
        assert!(desc.contains(word), "{desc}");
    }
    client.send("[]");
    assert_eq!(class(&client.read()["error"]), "GenericError");
    assert_eq!(client.status(), ("running".into(), true), "nothing was done");
}

#[test]
fn the_id_comes_back_whatever_it_is_and_requests_need_no_lines() {
    let running = Running::start(IDLE, &[]);
    let mut client = running.client();
    let ids = [json!("a"), json!(null), json!({ "x": [1, 2.5] }), json!([]), json!(-7)];

    let requests =
        ids.each_ref().map(|id| json!({ "execute": "query-name", "id": id }).to_string());
    client.send(requests.concat());

    for id in ids {
        assert_eq!(client.read(), json!({ "return": {}, "id": id }));
    }
}

#[test]
fn every_command_that_is_listed_is_found() {
    let running = Running::start(IDLE, &[]);
    let mut client = running.client();

    let commands = client.get("query-commands");

    let names: Vec<&str> = commands
        .as_array()
        .unwrap()
        .iter()
        .map(|command| command["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"qmp_capabilities") && names.contains(&"quit"));
    for name in names {
        // An argument that no command has: none does anything.
        let arguments = json!({ "no such": 0 });
        client.send(json!({ "execute": name, "arguments": arguments }).to_string());
        let expected = if name == "qmp_capabilities" { "CommandNotFound" } else { "GenericError" };
        assert_eq!(class(&client.read()["error"]), expected, "{name}");
    }
}

#[test]
fn clients_are_served_one_after_the_other_and_each_negotiates() {
    let running = Running::start(IDLE, &[]);
    let mut first = running.client();
    let mut second = Client::connect(&running.socket);
    second.send(r#"{"execute":"query-status","id":2}"#);

    first.get("stop");
    drop(first);

    assert!(second.read().get("QMP").is_some());
    let answer = second.read();
    assert_eq!((&answer["id"], class(&answer["error"])), (&json!(2), "CommandNotFound"));
    second.get("qmp_capabilities");
    assert_eq!(second.status(), ("paused".into(), false));
}

#[test]
fn a_client_that_sends_all_and_closes_its_end_gets_all_answers() {
    let running = Running::start(IDLE, &[]);
    let mut client = running.client();

    client.send(format!("{}{{\"execute\":", r#"{"execute":"query-name"}"#.repeat(1000)));
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();

    for _ in 0..1000 {
        assert_eq!(client.read(), json!({ "return": {} }));
    }
    assert_eq!(class(&client.read()["error"]), "GenericError");
    assert_eq!(client.try_read(), None);
}

#[test]
fn the_socket_replaces_one_that_was_left_and_goes_with_the_monitor() {
    let path = std::env::temp_dir().join(format!("cloister-qmp-left-{}", std::process::id()));
    drop(UnixListener::bind(&path).unwrap());
    let listen = cloister_vmm::qmp::Listen::new(&path, false).unwrap();
    let running = Running::start(IDLE, &[]);

    let server = running.serve(&listen).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert!(Client::connect(&path).read().get("QMP").is_some());
    drop(server);

    assert!(!path.exists());
}

#[test]
fn a_socket_that_another_process_has_replaced_stays() {
    let path = std::env::temp_dir().join(format!("cloister-qmp-other-{}", std::process::id()));
    let listen = cloister_vmm::qmp::Listen::new(&path, false).unwrap();
    let running = Running::start(IDLE, &[]);
    let server = running.serve(&listen).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();

    drop(server);

    assert!(path.exists());
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_path_that_cannot_be_a_socket_is_refused() {
    let running = Running::start(IDLE, &[]);
    let file = std::env::temp_dir().join(format!("cloister-qmp-file-{}", std::process::id()));
    fs::write(&file, "precious").unwrap();
    let serve = |path: &std::path::Path| {
        running.serve(&cloister_vmm::qmp::Listen::new(path, false).unwrap()).unwrap_err()
    };

    assert!(matches!(serve(&file), ServeError::NotSocket(_)));
    assert!(matches!(serve("/nonexistent/qmp".as_ref()), ServeError::Bind { .. }));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    fs::remove_file(&file).unwrap();
}
