//! Clients that send anything, or read nothing.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;

use crate::client::Client;
use crate::guests::DOTS;
use crate::machine::{PATIENCE, Running};

/// Lines that are not a request.
const LINES: usize = 100_000;

/// Something malformed in one line, without its end.
fn malformed(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let some = |rng: &mut ChaCha8Rng, bytes: &[u8]| bytes[rng.next_u32() as usize % bytes.len()];
    let request =
        r#"{"execute":"query-status","arguments":{"a":[1,2,{"b":"c"}]},"id":"x"}"#.as_bytes();
    let length = rng.next_u32() as usize % 60 + 1;
    match rng.next_u32() % 12 {
        // Random bytes, of which the first is not white space.
        0 => {
            let mut bytes = vec![0; length];
            rng.fill_bytes(&mut bytes);
            bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = 0);
            bytes[0] |= 0x80;
            bytes
        }
        1 => b"{:".iter().copied().chain((0..length).map(|_| some(rng, b"{}[]\",:0e\\"))).collect(),
        // Cut short.
        2 => request[..1 + rng.next_u32() as usize % (request.len() - 1)].to_vec(),
        3 => "[".repeat(length * 50).into_bytes(),
        4 => format!("{{\"execute\":{}1}}", "[".repeat(length * 50)).into_bytes(),
        5 => format!("{{\"execute\":1e{}}}", "9".repeat(length * 10)).into_bytes(),
        6 => format!("{{\"execute\":-{}}}", "7".repeat(length * 10)).into_bytes(),
        7 => format!("{{\"execute\":\"{}\"}}", "y".repeat(length * 20)).into_bytes(),
        8 => [b"{\"execute\":\"".as_slice(), &[0xc3, 0x28, 0xff], b"\"}"].concat(),
        9 => json!({ "execute": length.is_multiple_of(2) }).to_string().into_bytes(),
        10 => json!({ "id": length, "arguments": {} }).to_string().into_bytes(),
        _ => json!([length, "execute"]).to_string().into_bytes(),
    }
}

#[test]
fn each_of_100_000_malformed_lines_is_an_error_and_nothing_is_lost() {
    let running = Running::start(DOTS, &["--sgx-epc", "id=a,size=1M"]);
    let mut client = running.client();
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let lines = thread::spawn(move || {
        let mut rng = ChaCha8Rng::seed_from_u64(0x100_000);
        for _ in 0..LINES {
            let mut line = malformed(&mut rng);
            line.push(b'\n');
            writer.write_all(&line).unwrap();
        }
        writer.write_all(b"{\"execute\":\"query-status\",\"id\":\"last\"}\n").unwrap();
    });

    let mut errors = 0;
    let last = loop {
        let answer = client.read();
        match answer.get("error") {
            Some(error) => assert!(error["desc"].is_string(), "{answer}"),
            None => break answer,
        }
        errors += 1;
    };

    lines.join().unwrap();
    assert_eq!(errors, LINES);
    assert_eq!(last, json!({ "id": "last", "return": { "status": "running", "running": true } }));
    running.screen.wait_for_more();
    client.get("stop");
    client.get("cont");
    client.get("quit");
    running.outcome();
}

#[test]
fn a_line_of_many_mebibytes_is_one_error() {
    let running = Running::start(DOTS, &[]);
    let mut client = running.client();

    client.send(b"{\"execute\":\"");
    client.send(vec![b'z'; 32 << 20]);
    client.send(b"\"}\n{\"execute\":\"query-name\"}");

    assert_eq!(client.read()["error"]["class"], "GenericError");
    assert_eq!(client.read(), json!({ "return": {} }));
}

#[test]
fn a_client_that_reads_nothing_holds_up_neither_the_machine_nor_its_end() {
    let mut running = Running::start(DOTS, &[]);
    let client = running.client();
    let mut writer: UnixStream = client.stream.get_ref().try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = r#"{"execute":"query-commands"}"#.repeat(1000);
    // Until the monitor takes no more.
    while writer.write_all(request.as_bytes()).is_ok() {}

    for _ in 0..3000 {
        running.control.stop();
        running.control.resume().unwrap();
    }
    running.screen.wait_for_more();
    running.control.quit();
    running.outcome();
    let start = Instant::now();
    running.end_monitor();

    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_room_for_the_next() {
    let running = Running::start(DOTS, &[]);
    for index in 0..200 {
        let mut client = Client::connect(&running.socket);
        match index % 4 {
            0 => client.send(r#"{"execute":"qmp_capa"#),
            1 => client.send(r#"{"execute":"qmp_capabilities"}{"execute":"stop"}"#.repeat(50)),
            2 => drop(client.read()),
            _ => {}
        }
    }

    assert_eq!(running.client().get("query-name"), json!({}));
}
