//! The requests for quotes that Intel's AESM service takes at `/var/run/aesmd/aesm.socket`, for clients such
//! as Gramine and the SGX SDK's `libsgx_quote_ex`.
//!
//! A request is a message of Protocol Buffers, and so is its response; on the socket the length comes
//! before each, 4 bytes in the host's order. Source: `messages.proto` and the ECDSA part of the service in
//! Intel's linux-sgx, psw/ae/aesm_service.

mod key_id;
mod protobuf;
mod qe_report;

use zerocopy::IntoBytes as _;

use crate::quote::{QuoteError, Quoter};
use crate::quoting_enclave as qe;
use key_id::Unselected;
use protobuf::{Malformed, Value, fields, put_bytes, put_number};

/// Bytes of a request at most, and of a response: with room for a quote and what comes with it.
pub const MAX_MESSAGE: usize = 64 << 10;

/// Error codes (`aesm_error_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Code {
    Parameter = 3,
    Message = 22,
    ServiceUnavailable = 30,
    UnsupportedAttKeyId = 38,
    InvalidReport = 47,
}

/// The numbers of requests, which those of their responses are too.
mod request {
    pub(super) const INIT_QUOTE_EX: u64 = 15;
    pub(super) const GET_QUOTE_SIZE_EX: u64 = 16;
    pub(super) const GET_QUOTE_EX: u64 = 17;
    pub(super) const SELECT_ATT_KEY_ID: u64 = 19;
    pub(super) const GET_SUPPORTED_ATT_KEY_ID_NUM: u64 = 21;
    pub(super) const GET_SUPPORTED_ATT_KEY_IDS: u64 = 22;
    /// Those for launch tokens, EPID and platform updates, which nobody serves here.
    pub(super) const OTHERS: [u64; 10] = [1, 2, 3, 4, 10, 11, 12, 13, 14, 18];
}

/// The response to what is no request of the service.
const UNSUPPORTED: u64 = 20;
/// Each response's field of its error code.
const ERROR_CODE: u64 = 1;

/// The service, for one platform.
#[derive(Debug)]
pub struct Aesm(Quoter);

impl Aesm {
    /// The service that answers with quotes of `quoter`.
    #[must_use]
    pub fn new(quoter: Quoter) -> Self {
        Self(quoter)
    }

    /// The response to a request, whatever it is. Neither has the length before it.
    #[must_use]
    pub fn answer(&self, message: &[u8]) -> Vec<u8> {
        let (number, answer) = match find_request(message) {
            Ok((number, fields)) => (number, self.answer_to(number, &fields)),
            Err(code) => (UNSUPPORTED, Err(code)),
        };
        let mut fields = Vec::new();
        put_number(&mut fields, ERROR_CODE, answer.as_ref().err().map_or(0, |&code| code as u64));
        fields.extend(answer.unwrap_or_default());
        let mut response = Vec::new();
        put_bytes(&mut response, number, &fields);
        response
    }

    /// The fields of a response after its error code.
    fn answer_to(&self, number: u64, fields: &Fields<'_>) -> Result<Vec<u8>, Code> {
        match number {
            request::INIT_QUOTE_EX => self.init_quote(fields),
            request::GET_QUOTE_SIZE_EX => {
                fields.key_id(1)?;
                Ok(number_field(2, self.0.size() as u64))
            }
            request::GET_QUOTE_EX => self.get_quote(fields),
            request::SELECT_ATT_KEY_ID => {
                let selected = match fields.bytes(1)? {
                    None => key_id::own(),
                    Some(list) => key_id::select(list).map_err(|why| match why {
                        Unselected::Malformed => Code::Parameter,
                        Unselected::Unknown => Code::UnsupportedAttKeyId,
                    })?,
                };
                Ok(bytes_field(2, &selected))
            }
            request::GET_SUPPORTED_ATT_KEY_ID_NUM => Ok(number_field(2, 1)),
            request::GET_SUPPORTED_ATT_KEY_IDS => {
                if fields.number(1)? != Some(key_id::SIZE as u64) {
                    return Err(Code::Parameter);
                }
                Ok(bytes_field(2, &key_id::own()))
            }
            _ => Err(Code::ServiceUnavailable),
        }
    }

    /// TARGETINFO of the quoting enclave, and the name of its attestation key for who has room for it.
    fn init_quote(&self, fields: &Fields<'_>) -> Result<Vec<u8>, Code> {
        fields.key_id(1)?;
        let wants_name = fields.number(3)?.ok_or(Code::Parameter)? != 0;
        let name = self.0.key_id();
        let size = name.len() as u64;
        let mut answer = bytes_field(2, qe::target_info().as_bytes());
        put_number(&mut answer, 3, size);
        if wants_name {
            if fields.number(4)?.is_none_or(|room| room < size) {
                return Err(Code::Parameter);
            }
            put_bytes(&mut answer, 4, &name);
        }
        Ok(answer)
    }

    fn get_quote(&self, fields: &Fields<'_>) -> Result<Vec<u8>, Code> {
        fields.key_id(2)?;
        let report = fields.bytes(1)?.ok_or(Code::Parameter)?;
        let room = fields.number(4)?.ok_or(Code::Parameter)?;
        let quote = self.0.quote(report).map_err(|error| match error {
            QuoteError::Length(_) => Code::Parameter,
            QuoteError::Mac => Code::InvalidReport,
        })?;
        if room < quote.len() as u64 {
            return Err(Code::Parameter);
        }
        let mut answer = bytes_field(2, &quote);
        if let Some(asked) = fields.bytes(3)? {
            let told = qe_report::fill(self.0.platform(), asked, &quote).ok_or(Code::Parameter)?;
            put_bytes(&mut answer, 3, &told);
        }
        Ok(answer)
    }
}

/// Which request a message is, and its fields.
fn find_request(message: &[u8]) -> Result<(u64, Fields<'_>), Code> {
    if message.len() > MAX_MESSAGE {
        return Err(Code::Message);
    }
    let request = fields(message)?.into_iter().rev().find_map(|(number, value)| match value {
        Value::Bytes(request) => is_request(number).then_some((number, request)),
        _ => None,
    });
    let (number, request) = request.ok_or(Code::ServiceUnavailable)?;
    Ok((number, Fields(fields(request)?)))
}

fn is_request(number: u64) -> bool {
    use request::{
        GET_QUOTE_EX, GET_QUOTE_SIZE_EX, GET_SUPPORTED_ATT_KEY_ID_NUM, GET_SUPPORTED_ATT_KEY_IDS,
        INIT_QUOTE_EX, OTHERS, SELECT_ATT_KEY_ID,
    };
    let served = [
        INIT_QUOTE_EX,
        GET_QUOTE_SIZE_EX,
        GET_QUOTE_EX,
        SELECT_ATT_KEY_ID,
        GET_SUPPORTED_ATT_KEY_ID_NUM,
        GET_SUPPORTED_ATT_KEY_IDS,
    ];
    served.contains(&number) || OTHERS.contains(&number)
}

impl From<Malformed> for Code {
    fn from(_: Malformed) -> Self {
        Self::Message
    }
}

/// The fields of a request. Of several of one number the last counts, and one of another kind is an error.
struct Fields<'a>(Vec<(u64, Value<'a>)>);

impl<'a> Fields<'a> {
    fn find(&self, number: u64) -> Option<Value<'a>> {
        self.0.iter().rev().find(|&&(known, _)| known == number).map(|&(_, value)| value)
    }

    fn number(&self, number: u64) -> Result<Option<u64>, Code> {
        match self.find(number) {
            None => Ok(None),
            Some(Value::Number(value)) => Ok(Some(value)),
            Some(_) => Err(Code::Message),
        }
    }

    fn bytes(&self, number: u64) -> Result<Option<&'a [u8]>, Code> {
        match self.find(number) {
            None => Ok(None),
            Some(Value::Bytes(value)) => Ok(Some(value)),
            Some(_) => Err(Code::Message),
        }
    }

    /// Wants the name of a known attestation key.
    fn key_id(&self, number: u64) -> Result<(), Code> {
        let name = self.bytes(number)?.and_then(|name| name.first_chunk());
        if key_id::is_known(name.ok_or(Code::Parameter)?) {
            Ok(())
        } else {
            Err(Code::UnsupportedAttKeyId)
        }
    }
}

fn number_field(field: u64, number: u64) -> Vec<u8> {
    let mut message = Vec::new();
    put_number(&mut message, field, number);
    message
}

fn bytes_field(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(&mut message, field, bytes);
    message
}
