//! What a JSON value asks for, and the form of answers (QEMU's QMP specification, "Protocol
//! Details").

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The arguments of a command by name.
pub(super) type Arguments = Map<String, Value>;

/// The class of an error, by which programs tell errors apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum ErrorClass {
    GenericError,
    CommandNotFound,
}

/// Why there is no result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct QmpError {
    pub(super) class: ErrorClass,
    /// For people.
    pub(super) desc: String,
}

impl QmpError {
    pub(super) fn generic(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, desc: desc.into() }
    }

    pub(super) fn not_found(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::CommandNotFound, desc: desc.into() }
    }
}

/// A command to run.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Request {
    pub(super) command: String,
    pub(super) arguments: Arguments,
}

/// Member by which a client tells answers apart.
const ID: &str = "id";

/// Whether a value asks for something at all.
pub(super) fn is_request(value: &Value) -> bool {
    value.get("execute").is_some()
}

/// Takes a value apart: the client's `id`, and the command or what is wrong with it.
pub(super) fn parse(value: Value) -> (Option<Value>, Result<Request, QmpError>) {
    let Value::Object(mut members) = value else {
        return (None, Err(QmpError::generic("a request is a JSON object, and this is not one")));
    };
    let id = members.remove(ID);
    (id, parse_members(members))
}

fn parse_members(mut members: Map<String, Value>) -> Result<Request, QmpError> {
    let command = members.remove("execute");
    let arguments = members.remove("arguments");
    if let Some(other) = members.keys().next() {
        return Err(QmpError::generic(format!("the request's member '{other}' is unexpected")));
    }
    let command = match command {
        Some(Value::String(command)) => command,
        Some(_) => return Err(QmpError::generic("the request's member 'execute' is not a string")),
        None => return Err(QmpError::generic("the request lacks the member 'execute'")),
    };
    let arguments = match arguments {
        Some(Value::Object(arguments)) => arguments,
        Some(_) => {
            return Err(QmpError::generic("the request's member 'arguments' is not an object"));
        }
        None => Map::new(),
    };
    Ok(Request { command, arguments })
}

/// The answer to a request.
pub(super) fn answer(id: Option<Value>, result: Result<Value, QmpError>) -> Value {
    let mut answer = match result {
        Ok(value) => json!({ "return": value }),
        Err(error) => json!({ "error": error }),
    };
    if let Some(id) = id {
        answer[ID] = id;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_command_and_perhaps_arguments_and_an_id() {
        let (id, request) =
            parse(json!({ "execute": "stop", "arguments": { "a": 1 }, "id": [null, 7] }));

        let request = request.unwrap();
        assert_eq!(id, Some(json!([null, 7])));
        assert_eq!((request.command.as_str(), &request.arguments["a"]), ("stop", &json!(1)));
    }

    #[test]
    fn each_wrong_request_keeps_its_id_and_says_what_is_wrong() {
        for (value, desc) in [
            (json!({ "id": 1 }), "the request lacks the member 'execute'"),
            (json!({ "id": 1, "execute": 1 }), "the request's member 'execute' is not a string"),
            (
                json!({ "id": 1, "execute": "stop", "arguments": [] }),
                "the request's member 'arguments' is not an object",
            ),
            (
                json!({ "id": 1, "execute": "stop", "x": [] }),
                "the request's member 'x' is unexpected",
            ),
        ] {
            assert_eq!(parse(value), (Some(json!(1)), Err(QmpError::generic(desc))));
        }
        assert_eq!(parse(json!([{ "execute": "stop" }])).0, None);
    }

    #[test]
    fn an_answer_carries_the_id_that_it_was_asked_with() {
        assert_eq!(answer(None, Ok(json!({}))), json!({ "return": {} }));
        assert_eq!(
            answer(Some(json!("a")), Err(QmpError::not_found("no"))),
            json!({ "id": "a", "error": { "class": "CommandNotFound", "desc": "no" } })
        );
    }
}
