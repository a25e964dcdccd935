use super::*;
use serde_json::json;

/// Values, and `None` for each error, of a stream that comes in pieces of `size` bytes and ends.
fn read(stream: &[u8], size: usize) -> Vec<Option<Value>> {
    let mut input = Input::new();
    let mut read = Vec::new();
    for piece in stream.chunks(size) {
        input.push(piece);
        read.extend(std::iter::from_fn(|| input.next()).map(Result::ok));
    }
    read.extend(std::iter::from_fn(|| input.next_of_rest()).map(Result::ok));
    read
}

/// The outcome of a stream, which must not depend on the pieces that it comes in.
fn outcome(stream: impl AsRef<[u8]>) -> Vec<Option<Value>> {
    let whole = read(stream.as_ref(), usize::MAX);
    for size in [1, 2, 7] {
        assert_eq!(read(stream.as_ref(), size), whole, "pieces of {size}");
    }
    whole
}

fn stop() -> Value {
    json!({ "execute": "stop" })
}

#[test]
fn values_need_nothing_between_them_and_may_be_spread_over_lines() {
    let stream = "{\"execute\":\"stop\"}[1,2] \r\n\t{\n  \"execute\":\n  \"stop\"\n}\n{}";

    assert_eq!(outcome(stream), [Some(stop()), Some(json!([1, 2])), Some(stop()), Some(json!({}))]);
}

#[test]
fn brackets_and_quotes_in_strings_are_text() {
    let stream = r#"{"a":"}{][\"\\"}{"execute":"stop"}"#;

    assert_eq!(outcome(stream), [Some(json!({ "a": "}{][\"\\" })), Some(stop())]);
}

#[test]
fn each_malformed_line_is_one_error_and_the_next_line_is_read() {
    for line in [
        "garbage",
        "garbage {} [] \"",
        "}",
        "]]]",
        "12",
        "\"execute\"",
        "\u{e9}",
        "{\"execute\":\"stop\"",
        "{\"execute\":",
        "{\"execute\":\"st",
        "{\"execute\":\"st\\",
        "{\"a\" \"b\"}",
        "{\"a\" \"b\"} trailing",
        "{a}",
        "[1,]",
        "[1,",
        "{]",
        "[}",
        "{\"a\":1e999999}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\x\"}",
        "{'execute':'stop'}",
        "{\"a\":nul}",
        "{",
    ] {
        let stream = format!("{line}\n{}\n", stop());

        assert_eq!(outcome(stream), [None, Some(stop())], "{line}");
    }
    for line in [&b"\xff"[..], b"{\"a\":\"\xff\"}", b"{\"a\":\"\0\"}", b"{\xc3}", b"\0"] {
        let stream = [line, b"\n{\"execute\":\"stop\"}\n"].concat();

        assert_eq!(outcome(stream), [None, Some(stop())], "{line:x?}");
    }
}

#[test]
fn blank_lines_are_nothing() {
    assert_eq!(outcome("\n\r\n \t\n"), []);
}

#[test]
fn lines_cut_short_are_an_error_each_before_the_next_request() {
    let stream = format!("{}{}\n", "{\"execute\":\n".repeat(1000), stop());

    let outcome = outcome(stream);

    assert_eq!(outcome.len(), 1001);
    assert!(outcome[..1000].iter().all(Option::is_none));
    assert_eq!(outcome[1000], Some(stop()));
}

#[test]
fn most_lines_cut_short_are_an_error_at_once() {
    let mut input = Input::new();

    input.push(b"{\"execute\":\"sto\n");

    assert!(matches!(input.next(), Some(Err(Malformed::Syntax(_)))));
    input.push(b"{\"execute\" \"stop\"\n");
    assert!(matches!(input.next(), Some(Err(Malformed::Syntax(_)))));
}

#[test]
fn a_value_cut_short_by_the_end_is_an_error() {
    assert_eq!(outcome("{\"execute\":"), [None]);
    assert_eq!(outcome("{\"a\":[1,\n2,\n"), [None, None]);
}

#[test]
fn values_that_are_too_long_are_an_error_and_not_kept() {
    let long = format!("{{\"a\":\"{}\"}}\n{}\n", "x".repeat(4 * MAX_VALUE), stop());
    let lines = format!("[{}\n{}\n", "1,\n".repeat(MAX_VALUE / 2), stop());
    let mut input = Input::new();
    let mut errors = 0;

    for piece in long.as_bytes().chunks(4096) {
        input.push(piece);
        errors += std::iter::from_fn(|| input.next()).filter(Result::is_err).count();
        assert!(input.bytes.len() <= MAX_VALUE + 4096);
    }

    assert_eq!(errors, 1);
    assert_eq!(read(long.as_bytes(), 4096), [None, Some(stop())]);
    assert_eq!(read(lines.as_bytes(), 4096).last(), Some(&Some(stop())));
}

#[test]
fn values_that_are_nested_too_deep_are_an_error() {
    let nested = |depth| format!("{}{}\n", "[".repeat(depth), "]".repeat(depth));

    assert!(outcome(nested(MAX_DEPTH as usize))[0].is_some());
    for depth in [MAX_DEPTH as usize + 1, 1000, 100_000] {
        let stream = nested(depth) + &stop().to_string();
        assert_eq!(read(stream.as_bytes(), 4096), [None, Some(stop())], "{depth}");
    }
}

#[test]
fn whatever_comes_a_request_on_its_own_line_is_found() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    const ALPHABET: &[u8] = b"{}[]\",:\\ 1ea\n\xff{}\"";
    let mut rng = ChaCha8Rng::seed_from_u64(0x9a7);
    for _ in 0..20_000 {
        let length = rng.next_u32() % 40;
        let mut stream: Vec<u8> =
            (0..length).map(|_| ALPHABET[rng.next_u32() as usize % ALPHABET.len()]).collect();
        stream.extend_from_slice(b"\n{\"execute\":\"stop\"}\n");

        assert_eq!(outcome(&stream).last(), Some(&Some(stop())), "{}", stream.escape_ascii());
    }
}
