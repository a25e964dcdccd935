//! What the leaves of the SGX model cost, beside what is published of hardware.

use anyhow::{Context, Result};

use crate::process;

/// EADD and 16 EEXTENDs are to take at most this many times what SHA-256 alone takes, where the
/// host has SHA extensions.
const WANTED_HASH_RATIO: f64 = 1.5;
/// Host memory that an EPC page is to take at most beyond its contents, in bytes. An EPCM entry takes
/// 32.
const WANTED_BYTES_BEYOND: f64 = 40.0;

/// Published figures of SGX hardware, in TSC cycles unless a unit is named.
const HARDWARE: [(&str, &str); 7] = [
    ("EADD+16*EEXTEND", "about 7 us"),
    ("SHA-256-of-the-same", "-"),
    ("EINIT", "-"),
    ("EENTER+EEXIT", "8000 to 12000"),
    ("AEX+ERESUME", "about 27800 with a handler"),
    ("EBLOCK+EWB+ELDU", "12000 to 40000"),
    ("EAUG+EACCEPT", "-"),
];

/// One line of the benchmark's report.
#[derive(Debug, PartialEq)]
struct Line {
    name: String,
    values: Vec<f64>,
}

/// Runs the benchmark of `crates/sgx` and prints its table: how many cycles the host's TSC counts in a
/// nanosecond.
///
/// # Errors
/// The benchmark does not run.
pub(super) fn run() -> Result<f64> {
    process::step("Leaves of the SGX model");
    let text = process::capture(
        process::cargo()
            .args(["bench", "--quiet", "--locked", "--package", "cloister-sgx"])
            .args(["--bench", "leaves"]),
    )?;
    let lines: Vec<Line> = text.lines().filter_map(parse).collect();
    let value = |name: &str, index: usize| -> Result<f64> {
        lines
            .iter()
            .find(|line| line.name == name)
            .and_then(|line| line.values.get(index).copied())
            .with_context(|| format!("the benchmark of the leaves says nothing of {name}"))
    };
    println!("    leaves                ns      cycles  hardware (cycles)");
    for (name, hardware) in HARDWARE {
        let (ns, cycles) = (value(name, 0)?, value(name, 1)?);
        println!("    {name:<19}  {ns:6.0}  {cycles:10.0}  {hardware}");
    }
    let whole = value("ECREATE..EINIT-of-1-GiB", 0)? / 1e9;
    println!("    ECREATE to EINIT of 1 GiB, every page measured: {whole:.2} s");
    let ratio = value("EADD+16*EEXTEND/SHA-256", 0)?;
    println!(
        "    EADD+16*EEXTEND to SHA-256 alone: {ratio:.2} (wanted: at most {WANTED_HASH_RATIO})"
    );
    let beyond = value("per-EPC-page-beyond-4096", 0)?;
    println!(
        "    memory per EPC page beyond 4096: {beyond:.1} bytes (wanted: at most {WANTED_BYTES_BEYOND})"
    );
    Ok(value("SHA-256-of-the-same", 1)? / value("SHA-256-of-the-same", 0)?)
}

/// `leaf NAME NANOSECONDS CYCLES`, `ratio NAME VALUE` or `size NAME BYTES`.
fn parse(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    if !["leaf", "ratio", "size"].contains(&words.next()?) {
        return None;
    }
    let name = words.next()?.to_owned();
    let values: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
    (!values.is_empty()).then_some(Line { name, values })
}

#[cfg(test)]
mod tests {
    use super::{Line, parse};

    #[test]
    fn report_lines_are_read_and_others_are_not() {
        let line = parse("leaf EENTER+EEXIT 300 760");

        let expected = Line { name: "EENTER+EEXIT".to_owned(), values: vec![300.0, 760.0] };
        assert_eq!(line, Some(expected));
        assert_eq!(parse("running 0 tests"), None);
        assert_eq!(parse("leaf EINIT"), None);
    }
}
