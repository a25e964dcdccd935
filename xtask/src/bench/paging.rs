//! How long a guest takes that has more enclave memory than EPC, and more processors than the host.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::image::Image;
use crate::machine::{Boot, Machine};
use crate::process;

/// MiB of enclaves, MiB of EPC, seconds that are to be enough on two cores.
const CASES: [(u32, u32, f64); 2] = [(40, 32, 20.0), (384, 128, 120.0)];
const CPUS: u32 = 8;

/// Runs the cases and prints a table.
///
/// # Errors
/// A guest that does not come to the end.
pub(super) fn run(image: &Image, cloister: &Machine) -> Result<()> {
    process::step(&format!("Enclaves larger than the EPC, {CPUS} vCPUs"));
    println!("    enclaves MiB  EPC MiB        s  wanted on two cores");
    for (enclaves, epc, wanted) in CASES {
        let task = format!("cloister.run=enclave-demo:oversubscribed:{enclaves}:{CPUS}");
        let mut boot = Boot::new(&image.kernel, &image.initrd, &task)
            .option("--sgx-epc", &format!("id=epc0,size={epc}M"));
        (boot.cpus, boot.memory) = (CPUS, "2G".to_owned());
        boot.limit = Duration::from_secs(900);
        let transcript = cloister.boot(&boot, |_, _| ControlFlow::Continue(()))?;
        let milliseconds = transcript
            .lines
            .iter()
            .find_map(|line| parse(line))
            .with_context(|| format!("nothing was measured:\n{}", transcript.tail()))?;
        let seconds = milliseconds / 1e3;
        println!("    {enclaves:12}  {epc:7}  {seconds:7.1}  at most {wanted:.0}");
    }
    Ok(())
}

/// `enclave-demo: N pages of enclaves in N threads, N sweeps: MILLISECONDS ms`.
fn parse(line: &str) -> Option<f64> {
    let (what, time) = line.rsplit_once(": ")?;
    what.contains("pages of enclaves").then_some(())?;
    time.strip_suffix(" ms")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_time_is_read_and_other_lines_are_not() {
        let line = "enclave-demo: 10240 pages of enclaves in 8 threads, 2 sweeps: 1234 ms";

        assert_eq!(parse(line), Some(1234.0));
        assert_eq!(parse("enclave-demo: done"), None);
        assert_eq!(parse("init: this took: 12 ms"), None);
    }
}
