//! A client that knows nothing of the server but the protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::machine::PATIENCE;

pub(crate) struct Client {
    pub(crate) stream: BufReader<UnixStream>,
    events: VecDeque<Value>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream), events: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next message of any kind; `None` at the end.
    pub(crate) fn try_read(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    pub(crate) fn read(&mut self) -> Value {
        self.try_read().expect("a message")
    }

    /// The next message that is not an event. Events are kept.
    pub(crate) fn read_answer(&mut self) -> Value {
        loop {
            let message = self.read();
            if message.get("event").is_none() {
                return message;
            }
            self.events.push_back(message);
        }
    }

    /// Runs a command without arguments: its result, or its error.
    pub(crate) fn execute(&mut self, command: &str) -> Result<Value, Value> {
        self.send(json!({ "execute": command }).to_string());
        let mut answer = self.read_answer();
        match answer.get_mut("return") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        }
    }

    /// Runs a command and wants a result.
    pub(crate) fn get(&mut self, command: &str) -> Value {
        self.execute(command).unwrap()
    }

    /// The next event without its time: its name, and its reason if it has one.
    pub(crate) fn event(&mut self) -> (String, String) {
        let event = self.events.pop_front().unwrap_or_else(|| self.read());
        assert!(event["timestamp"]["seconds"].as_u64() > Some(1_600_000_000), "{event}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["event"]), text(&event["data"]["reason"]))
    }

    /// The status, and whether the machine runs.
    pub(crate) fn status(&mut self) -> (String, bool) {
        let status = self.get("query-status");
        (status["status"].as_str().unwrap().to_owned(), status["running"].as_bool().unwrap())
    }
}
