//! One client's conversation, without any system call.

use serde_json::{Value, json};

use super::commands::{self, NEGOTIATE};
use super::context::Context;
use super::events::EventQueue;
use super::input::{Input, Malformed};
use super::request::{self, QmpError, Request};

/// Bytes of answers that wait for the client to read. Beyond, its requests wait in their turn.
const MAX_OUTPUT: usize = 1 << 20;

/// What ends a message, as QEMU has it.
const LINE_END: &[u8] = b"\r\n";

/// The conversation, from the greeting on.
#[derive(Debug)]
pub(super) struct Session {
    input: Input,
    /// No more input will come.
    input_ended: bool,
    output: Vec<u8>,
    /// Whether `qmp_capabilities` has ended the negotiation: before, there are no other commands and
    /// no events.
    negotiated: bool,
}

impl Session {
    /// A conversation that begins with the greeting.
    pub(super) fn new() -> Self {
        let mut this =
            Self { input: Input::new(), input_ended: false, output: Vec::new(), negotiated: false };
        let capabilities: [&str; 0] = [];
        this.say(&json!({
            "QMP": { "version": commands::version(), "capabilities": capabilities }
        }));
        this
    }

    /// Takes what the client sent, to be called while [`Session::wants_input`]. Nothing means that
    /// nothing more will come.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.input_ended |= bytes.is_empty();
        self.input.push(bytes);
    }

    /// Says what happened, and answers requests, until there are no more or the client has enough to
    /// read.
    pub(super) fn work(&mut self, context: &Context, events: &EventQueue) {
        self.tell(events);
        while self.has_room() {
            let next = if self.input_ended { self.input.next_of_rest() } else { self.input.next() };
            let Some(next) = next else { return };
            let answer = self.answer(context, next);
            // What a command did is told before its answer.
            self.tell(events);
            self.say(&answer);
        }
    }

    /// Whether more input can be taken.
    pub(super) fn wants_input(&self) -> bool {
        !self.input_ended && self.has_room()
    }

    /// Whether nothing more will come and everything is answered.
    pub(super) fn is_over(&self) -> bool {
        self.input_ended && self.output.is_empty()
    }

    /// What the client is to read.
    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `length` bytes of the output are sent.
    pub(super) fn sent(&mut self, length: usize) {
        self.output.drain(..length);
    }

    fn has_room(&self) -> bool {
        self.output.len() < MAX_OUTPUT
    }

    fn tell(&mut self, events: &EventQueue) {
        while self.has_room()
            && let Some(event) = events.pop()
        {
            if self.negotiated {
                self.say(&event.message());
            }
        }
    }

    fn answer(&mut self, context: &Context, input: Result<Value, Malformed>) -> Value {
        let (id, request) = match input {
            Ok(value) => request::parse(value),
            Err(malformed) => (None, Err(QmpError::generic(malformed.to_string()))),
        };
        request::answer(id, request.and_then(|request| self.obey(context, &request)))
    }

    fn obey(&mut self, context: &Context, request: &Request) -> Result<Value, QmpError> {
        match (request.command.as_str(), self.negotiated) {
            (NEGOTIATE, false) => {
                let result = commands::negotiate(&request.arguments)?;
                self.negotiated = true;
                Ok(result)
            }
            (NEGOTIATE, true) => {
                Err(QmpError::not_found("capabilities are negotiated already, once a connection"))
            }
            (command, false) => Err(QmpError::not_found(format!(
                "the command {command} waits for the negotiation of capabilities: send \
                 '{NEGOTIATE}' first"
            ))),
            (_, true) => commands::run(context, request),
        }
    }

    fn say(&mut self, message: &Value) {
        self.output.extend_from_slice(message.to_string().as_bytes());
        self.output.extend_from_slice(LINE_END);
    }
}
