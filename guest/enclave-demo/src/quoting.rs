//! A quote of the enclave's REPORT, from the AESM service, asked for as Gramine does.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::driver::Attributes;
use crate::image::Image;
use crate::{ensure, hex, reporting};

const SOCKET: &str = "/var/run/aesmd/aesm.socket";

/// Requests, whose responses have the same numbers (linux-sgx, messages.proto).
const INIT_QUOTE_EX: u64 = 15;
const GET_QUOTE_SIZE_EX: u64 = 16;
const GET_QUOTE_EX: u64 = 17;
/// AESM_INVALID_REPORT.
const INVALID_REPORT: u64 = 47;

/// MRSIGNER of Intel's quoting enclave, which Gramine names as a constant.
const QE3_MRSIGNER: [u8; 32] = [
    0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82, 0x9a,
    0x00, 0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5, 0x7b, 0xff,
];

/// Has a REPORT with this REPORTDATA quoted, and one refused that was changed.
pub(crate) fn run(image: &Image, file: &str, reportdata: &str) -> Result<(), String> {
    let key = key_id();

    let init = ask(INIT_QUOTE_EX, &[Bytes(1, &key), Number(3, 1), Number(4, 32)])?;
    let target = init.bytes(2)?;
    ensure(target.len() > 32, "the service's TARGETINFO is short")?;
    println!("enclave-demo: quoting enclave {}", hex(&target[..32]));

    let report = reporting::report(image, Attributes::PLAIN, target, reportdata)?;

    // What is no message, too long or cut short harms nobody else.
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x05\0\0\0\xff\xff\xff\xff\xff", b"\x09"] {
        let mut service = connect()?;
        service.write_all(nonsense).map_err(|error| format!("{SOCKET}: {error}"))?;
    }
    let size = ask(GET_QUOTE_SIZE_EX, &[Bytes(1, &key)])?.number(2)?;
    let mut changed = report.clone();
    changed[330] ^= 1;
    let refused = send(GET_QUOTE_EX, &[Bytes(1, &changed), Bytes(2, &key), Number(4, size)])?;
    ensure(refused.number(1)? == INVALID_REPORT, "a REPORT that was changed is not refused")?;
    println!("enclave-demo: a REPORT that was changed: AESM_INVALID_REPORT");
    let quoted = ask(GET_QUOTE_EX, &[Bytes(1, &report), Bytes(2, &key), Number(4, size)])?;
    let quote = quoted.bytes(2)?;
    ensure(quote.len() as u64 == size, "the quote has another size than was said")?;
    fs::write(file, quote).map_err(|error| format!("cannot write {file}: {error}"))?;
    println!("enclave-demo: quote of {size} bytes");
    Ok(())
}

/// The name of QE3's ECDSA key, as Gramine has it.
fn key_id() -> [u8; 256] {
    let mut name = [0; 256];
    name[4] = 32;
    name[6..38].copy_from_slice(&QE3_MRSIGNER);
    name[54] = 1;
    name[154] = 2;
    name
}

/// A field of a request: its number and what it holds.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

use Field::{Bytes, Number};

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

fn put_bytes(message: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(message, number << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn connect() -> Result<UnixStream, String> {
    UnixStream::connect(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))
}

/// The fields of a response: an integer in the first form, bytes in the second.
struct Response(Vec<(u64, u64, Vec<u8>)>);

impl Response {
    fn find(&self, number: u64) -> Result<&(u64, u64, Vec<u8>), String> {
        let found = self.0.iter().find(|&&(known, ..)| known == number);
        found.ok_or_else(|| format!("the response has no field {number}"))
    }

    fn number(&self, number: u64) -> Result<u64, String> {
        Ok(self.find(number)?.1)
    }

    fn bytes(&self, number: u64) -> Result<&[u8], String> {
        Ok(&self.find(number)?.2)
    }
}

/// The response to a request that is to succeed.
fn ask(number: u64, fields: &[Field<'_>]) -> Result<Response, String> {
    let response = send(number, fields)?;
    match response.number(1)? {
        0 => Ok(response),
        code => Err(format!("the AESM service answers request {number} with error {code}")),
    }
}

fn send(number: u64, fields: &[Field<'_>]) -> Result<Response, String> {
    let mut request = Vec::new();
    for field in fields {
        match *field {
            Number(number, value) => {
                put_varint(&mut request, number << 3);
                put_varint(&mut request, value);
            }
            Bytes(number, bytes) => put_bytes(&mut request, number, bytes),
        }
    }
    let mut message = Vec::new();
    put_bytes(&mut message, number, &request);
    let failed = |error| format!("{SOCKET}: {error}");
    let mut service = connect()?;
    let length = message.len() as u32;
    service.write_all(&[&length.to_ne_bytes(), &message[..]].concat()).map_err(failed)?;
    let mut length = [0; 4];
    service.read_exact(&mut length).map_err(failed)?;
    let mut response = vec![0; u32::from_ne_bytes(length) as usize];
    service.read_exact(&mut response).map_err(failed)?;
    let mut response = &response[..];
    let (found, _, inner) = take_field(&mut response).ok_or("the response is no message")?;
    ensure(found == number, "the response is to another request")?;
    let mut inner = &inner[..];
    let mut fields = Vec::new();
    while !inner.is_empty() {
        fields.push(take_field(&mut inner).ok_or("the response is no message")?);
    }
    Ok(Response(fields))
}

fn take_field(message: &mut &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let tag = take_varint(message)?;
    let value = take_varint(message)?;
    match tag & 7 {
        0 => Some((tag >> 3, value, Vec::new())),
        2 => Some((tag >> 3, 0, message.split_off(..value as usize)?.to_vec())),
        _ => None,
    }
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
