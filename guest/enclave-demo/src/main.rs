//! Builds, enters and leaves an enclave through `/dev/sgx_enclave` and the vDSO,
//! and prints what happens line by line for xtask to check.
//!
//! Usage: `enclave-demo [TASK [ARGUMENT]]`, a task being
//!
//! - `tour` (the default): measure, enter, fault and leave, as `cargo xtask demo` shows;
//! - `seal`: seal a message inside the enclave and print it;
//! - `open HEX`: open a sealed message inside the enclave;
//! - `debug`: read and write a debug enclave through `/proc/self/mem`;
//! - `threads [AEXS]`: four threads in the enclave at once, for that many interruptions;
//! - `vectors`: AVX registers in the enclave;
//! - `oversubscribed MIB THREADS [SWEEPS]`: enclaves of that many MiB together, whose pages that many
//!   threads go through that often;
//! - `times`: how long it takes to compute in the enclave and outside, to enter and leave it, and to
//!   have a fault handled in it;
//! - `policy`: create enclaves while another thread adds attributes to their SECS;
//! - `provision`: ask for the provisioning key, without and with the right to it;
//! - `report TARGETINFO HEX FILE`: a REPORT with this REPORTDATA, for the enclave whose TARGETINFO is in
//!   a file, of an enclave with the right to the provisioning key, into another;
//! - `quote FILE HEX`: have the AESM service quote a REPORT with this REPORTDATA, into a file.
//!
//! `/enclave` holds `demo.sgxs`, `demo.sig` and `demo.mrenclave`, all made by xtask.

mod breakpoints;
mod debugger;
mod driver;
mod image;
mod oversubscribed;
mod policy;
mod provisioning;
mod quoting;
mod reporting;
mod sealing;
mod thread;
mod threads;
mod times;
mod tour;
mod vdso;
mod vectors;

use std::process::ExitCode;

use image::Image;

/// Where the image is.
const DIRECTORY: &str = "/enclave";
/// Offset in ELRANGE of the first thread's page of data.
const PROBE_OFFSET: usize = 0x3000;

/// Vectors of the exceptions that are provoked.
const VECTOR_UD: u16 = 6;
const VECTOR_PF: u16 = 14;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => {
            println!("enclave-demo: done");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("enclave-demo: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let image = Image::load(DIRECTORY)?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["tour"] => tour::run(&image),
        ["seal"] => sealing::seal(&image),
        ["open", sealed] => sealing::open(&image, sealed),
        ["breakpoints"] => breakpoints::run(&image),
        ["debug"] => debugger::run(&image),
        ["threads"] => threads::run(&image, threads::EXITS),
        ["threads", exits] => {
            let exits = exits.parse().map_err(|_| format!("{exits} is not a number of AEXs"))?;
            threads::run(&image, exits)
        }
        ["vectors"] => vectors::run(&image),
        ["oversubscribed", ref numbers @ ..] => {
            let numbers: Result<Vec<u64>, _> = numbers.iter().map(|word| word.parse()).collect();
            match numbers.as_deref() {
                Ok(&[mib, threads]) => {
                    oversubscribed::run(&image, mib, threads, oversubscribed::SWEEPS)
                }
                Ok(&[mib, threads, sweeps]) => oversubscribed::run(&image, mib, threads, sweeps),
                _ => Err("oversubscribed takes MIB THREADS [SWEEPS]".to_owned()),
            }
        }
        ["times"] => times::run(&image),
        ["policy"] => policy::run(&image),
        ["provision"] => provisioning::run(&image),
        ["report", target, reportdata, file] => reporting::run(&image, target, reportdata, file),
        ["quote", file, reportdata] => quoting::run(&image, file, reportdata),
        _ => Err(format!("there is no task {}", words.join(" "))),
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// The bytes of hexadecimal digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
