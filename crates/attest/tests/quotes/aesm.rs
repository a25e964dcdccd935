//! The service at AESM's socket, as its clients speak to it.

use cloister_attest::aesm::{Aesm, MAX_MESSAGE};
use cloister_attest::quote::Quoter;
use cloister_attest::quoting_enclave as qe;
use cloister_attest::verify::Policy;
use cloister_sgx::layout::{Report, TargetInfo};
use sha2::{Digest as _, Sha256};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::platform::{Site, maced, platform, unsigned_report};

/// The name of QE3's key as Gramine has it (pal/src/host/linux-sgx/host_platform.c), in 256 bytes.
fn gramines_key_id() -> [u8; 256] {
    let mut name = [0; 256];
    name[4] = 32;
    name[6..38].copy_from_slice(&[
        0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82,
        0x9a, 0x00, 0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5,
        0x7b, 0xff,
    ]);
    name[54] = 1;
    name[154] = 2;
    name
}

/// A field of a request: its number and an integer or bytes.
enum Field<'a> {
    Number(u8, u64),
    Bytes(u8, &'a [u8]),
}

use Field::{Bytes, Number};

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn request(number: u64, fields: &[Field<'_>]) -> Vec<u8> {
    let fields: Vec<u8> = fields
        .iter()
        .flat_map(|one| match *one {
            Number(number, value) => [varint(u64::from(number) << 3), varint(value)].concat(),
            Bytes(number, bytes) => field(number.into(), bytes),
        })
        .collect();
    field(number, &fields)
}

/// A response: its number, its error code, and its other fields, integers as bytes of a varint.
#[derive(PartialEq, Eq, Debug)]
struct Response {
    number: u64,
    code: u64,
    fields: Vec<(u64, Vec<u8>)>,
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = *bytes.split_off_first().expect("a varint");
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

fn response(bytes: &[u8]) -> Response {
    let mut all = bytes;
    let number = read_varint(&mut all) >> 3;
    assert_eq!(read_varint(&mut all), all.len() as u64);
    let mut fields = Vec::new();
    while !all.is_empty() {
        let tag = read_varint(&mut all);
        let value = match tag & 7 {
            0 => read_varint(&mut all).to_le_bytes().to_vec(),
            _ => {
                let length = usize::try_from(read_varint(&mut all)).unwrap();
                all.split_off(..length).expect("bytes").to_vec()
            }
        };
        fields.push((tag >> 3, value));
    }
    let (first, code) = fields.remove(0);
    assert_eq!(first, 1);
    Response { number, code: read_u64(&code), fields }
}

fn read_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

impl Response {
    fn field(&self, number: u64) -> &[u8] {
        let found = self.fields.iter().find(|&&(known, _)| known == number);
        &found.unwrap_or_else(|| panic!("field {number} of {self:?}")).1
    }
}

fn service(site: &Site) -> Aesm {
    Aesm::new(Quoter::new(&site.platform, &site.authority).expect("a certificate"))
}

fn ask(service: &Aesm, number: u64, fields: &[Field<'_>]) -> Response {
    response(&service.answer(&request(number, fields)))
}

#[test]
fn what_gramine_asks_leads_to_a_quote_that_is_accepted() {
    let site = Site::new(1);
    let service = service(&site);
    let key = gramines_key_id();

    let init = ask(&service, 15, &[Bytes(1, &key), Number(3, 1), Number(4, 32)]);
    assert_eq!((init.number, init.code, init.field(4).len()), (15, 0, 32));
    assert_eq!(init.field(2), qe::target_info().as_bytes());

    let report = maced(&site.platform, unsigned_report(&site.platform));
    let quoted = ask(&service, 17, &[Bytes(1, report.as_bytes()), Bytes(2, &key), Number(4, 8192)]);
    assert_eq!((quoted.number, quoted.code), (17, 0));
    let verdict = site.judge(quoted.field(2), &Policy::default()).expect("it is accepted");
    assert_eq!(verdict.reportdata, report.reportdata);

    let size = ask(&service, 16, &[Bytes(1, &key)]);
    assert_eq!((size.number, size.code), (16, 0));
    assert_eq!(read_u64(size.field(2)), quoted.field(2).len() as u64);
    // The key's name is what the quoting enclave's REPORT says of it.
    let reportdata = 432 + 4 + 64 + 64 + 320;
    assert_eq!(init.field(4), &quoted.field(2)[reportdata..reportdata + 32]);
}

#[test]
fn a_client_finds_out_which_key_there_is() {
    let site = Site::new(1);
    let service = service(&site);

    let number = ask(&service, 21, &[]);
    let names = ask(&service, 22, &[Number(1, 256)]);
    let any = ask(&service, 19, &[]);
    let list = [&[0, 0, 0, 0, 1, 0, 0, 0], &gramines_key_id()[..]].concat();
    let chosen = ask(&service, 19, &[Bytes(1, &list), Number(2, 1000)]);

    assert_eq!((number.code, read_u64(number.field(2))), (0, 1));
    assert_eq!((names.code, names.field(2)), (0, any.field(2)));
    assert_eq!((chosen.code, chosen.field(2)), (0, &gramines_key_id()[..]));
    let own = ask(&service, 16, &[Bytes(1, names.field(2))]);
    assert_eq!(own.code, 0);
}

#[test]
fn an_enclave_sees_that_the_quoting_enclave_made_the_quote() {
    let site = Site::new(1);
    let service = service(&site);
    let report = maced(&site.platform, unsigned_report(&site.platform));
    let target = TargetInfo { measurement: report.mrenclave, ..TargetInfo::new_zeroed() };
    let asked = [&[7; 16], target.as_bytes(), &[0; 432]].concat();

    let key = gramines_key_id();
    let fields = [Bytes(1, report.as_bytes()), Bytes(2, &key), Bytes(3, &asked), Number(4, 8192)];
    let quoted = ask(&service, 17, &fields);
    let short = [Bytes(1, report.as_bytes()), Bytes(2, &key), Bytes(3, &[0; 959]), Number(4, 8192)];
    let refused = ask(&service, 17, &short);

    assert_eq!(quoted.code, 0);
    let (same, told) = quoted.field(3).split_at(16 + 512);
    assert_eq!(same, &asked[..16 + 512]);
    let told = Report::read_from_bytes(told).expect("a REPORT");
    assert!(site.platform.is_genuine(&told, &target));
    assert_eq!(told.mrenclave, qe::mrenclave());
    let digest = Sha256::new().chain_update([7; 16]).chain_update(quoted.field(2)).finalize();
    assert_eq!(&told.reportdata[..32], &digest[..]);
    assert_eq!((refused.code, refused.fields.len()), (3, 0));
}

#[test]
fn what_cannot_be_done_has_the_services_error_code_and_no_quote() {
    const PARAMETER: u64 = 3;
    const MESSAGE: u64 = 22;
    const UNAVAILABLE: u64 = 30;
    const UNSUPPORTED_KEY: u64 = 38;
    const INVALID_REPORT: u64 = 47;
    let site = Site::new(1);
    let service = service(&site);
    let report = maced(&site.platform, unsigned_report(&site.platform));
    let elsewhere = maced(&platform(2), unsigned_report(&site.platform));
    let (report, elsewhere) = (report.as_bytes(), elsewhere.as_bytes());
    let key = gramines_key_id();
    let mut other_key = key;
    other_key[10] ^= 1;
    let epid = [0; 256];

    for (number, fields, code) in [
        (17, vec![Bytes(1, elsewhere), Bytes(2, &key), Number(4, 8192)], INVALID_REPORT),
        (17, vec![Bytes(1, &report[1..]), Bytes(2, &key), Number(4, 8192)], PARAMETER),
        (17, vec![Bytes(1, report), Bytes(2, &key), Number(4, 1000)], PARAMETER),
        (17, vec![Bytes(1, report), Bytes(2, &key)], PARAMETER),
        (17, vec![Bytes(2, &key), Number(4, 8192)], PARAMETER),
        (17, vec![Bytes(1, report), Number(4, 8192)], PARAMETER),
        (17, vec![Bytes(1, report), Bytes(2, &other_key), Number(4, 8192)], UNSUPPORTED_KEY),
        (17, vec![Bytes(1, report), Bytes(2, &epid), Number(4, 8192)], UNSUPPORTED_KEY),
        (17, vec![Bytes(1, report), Number(2, 7), Number(4, 8192)], MESSAGE),
        (16, vec![Bytes(1, &key[1..])], PARAMETER),
        (15, vec![Bytes(1, &key)], PARAMETER),
        (15, vec![Bytes(1, &key), Number(3, 1), Number(4, 31)], PARAMETER),
        (15, vec![Bytes(1, &key), Number(3, 1)], PARAMETER),
        (19, vec![Bytes(1, &key)], PARAMETER),
        (22, vec![Number(1, 255)], PARAMETER),
        (22, vec![], PARAMETER),
        // EPID, launch tokens.
        (1, vec![Number(9, 1000)], UNAVAILABLE),
        (3, vec![Bytes(1, &[0; 32])], UNAVAILABLE),
    ] {
        let answer = ask(&service, number, &fields);

        assert_eq!((answer.number, answer.code, answer.fields.len()), (number, code, 0));
    }
    let init = ask(&service, 15, &[Bytes(1, &key), Number(3, 0)]);
    assert_eq!((init.code, read_u64(init.field(3)), init.fields.len()), (0, 32, 2));
    for (message, code) in [
        (&[][..], UNAVAILABLE),
        (b"\xf2\x06\x00", UNAVAILABLE),
        (b"\x78\x01", UNAVAILABLE),
        (b"\x7a\x05\x08", MESSAGE),
        (b"\x7a\x01\x08", MESSAGE),
        (&[0; MAX_MESSAGE + 1], MESSAGE),
    ] {
        let answer = response(&service.answer(message));
        assert_eq!((answer.number, answer.code, answer.fields.len()), (20, code, 0), "{message:?}");
    }
    // Fields that nobody knows are passed over.
    let unknown = [Number(9, 5000), Bytes(1, &key), Bytes(77, b"x")];
    assert_eq!(ask(&service, 16, &unknown).code, 0);
}
