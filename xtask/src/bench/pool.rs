//! What a huge EPC section costs the host: to configure, to start with, to release.

use std::collections::HashMap;
use std::ops::ControlFlow;

use anyhow::{Context, Result};

use crate::image::Image;
use crate::machine::{Boot, Machine};
use crate::process;

/// Runs the benchmark of `crates/virt` and prints its table.
///
/// # Errors
/// The benchmark does not run.
pub(super) fn run() -> Result<()> {
    process::step("Host EPC: a section of 64 GiB is released while another machine allocates");
    let text = process::capture(
        process::cargo()
            .args(["bench", "--quiet", "--locked", "--package", "cloister-virt"])
            .args(["--bench", "pool"]),
    )?;
    let values: HashMap<&str, f64> = text.lines().filter_map(parse).collect();
    let value = |name: &str| -> Result<f64> {
        let value = values.get(name).copied();
        value.with_context(|| format!("the benchmark of the pool says nothing of {name}"))
    };
    println!("    allocation of a page    mean us   worst us    pages");
    for (name, meaning) in [("quiet", "with nobody else"), ("beside", "beside the release")] {
        println!(
            "    {meaning:<20}  {:9.2}  {:9.0}  {:7.0}",
            value(&format!("{name}-mean-nanoseconds"))? / 1e3,
            value(&format!("{name}-worst-nanoseconds"))? / 1e3,
            value(&format!("{name}-allocations"))?,
        );
    }
    let ratio = value("beside-mean-nanoseconds")? / value("quiet-mean-nanoseconds")?;
    println!("    mean allocation beside the release to one with nobody else: {ratio:.2}");
    println!("    released: {:.0} pages/s", value("released-per-second")?);
    println!("    preallocated: {:.0} pages/s", value("preallocated-per-second")?);
    println!(
        "    512 GiB configured: {:.1} ms, {:.0} KiB",
        value("configured-microseconds")? / 1e3,
        value("configured-KiB")?
    );
    Ok(())
}

/// Starts machines without EPC and with 512 GiB of it.
///
/// # Errors
/// A machine that prints nothing.
pub(super) fn start(image: &Image, cloister: &Machine) -> Result<()> {
    process::step("Start to the kernel's first line");
    println!("    virtual EPC     ms  resident MiB");
    for (name, epc) in [("none", None), ("512 GiB", Some("id=epc0,size=512G"))] {
        let mut boot = Boot::new(&image.kernel, &image.initrd, "earlyprintk=serial,ttyS0,115200");
        if let Some(epc) = epc {
            boot = boot.option("--sgx-epc", epc);
        }
        let mut first = None;
        let transcript = cloister.boot(&boot, |line, since| {
            if line.contains("Linux version") {
                first = Some(since);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let first =
            first.with_context(|| format!("the kernel printed nothing:\n{}", transcript.tail()))?;
        let mib = transcript.peak_kib / 1024;
        println!("    {name:<11}  {:5.0}  {mib:12}", first.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// `pool NAME VALUE`.
fn parse(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.strip_prefix("pool ")?.split_once(' ')?;
    Some((name, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn report_lines_are_read_and_others_are_not() {
        assert_eq!(parse("pool configured-KiB 8272"), Some(("configured-KiB", 8272.0)));
        assert_eq!(parse("leaf EINIT 1"), None);
        assert_eq!(parse("pool x y"), None);
    }
}
