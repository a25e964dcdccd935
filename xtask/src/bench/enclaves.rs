//! What enclaves cost a guest: computing in one, entering and leaving it, and Linux's selftests as a whole.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Measured, best_of, parse};
use crate::image::{Contents, Image};
use crate::machine::{Boot, EPC, Machine};
use crate::process;
use crate::selftests;

/// Computing in an enclave is to take at most this many times what it takes outside.
const WANTED_COMPUTE: f64 = 1.2;
/// EENTER and EEXIT, and AEX and ERESUME, are to take at most so many cycles of the host's TSC.
const WANTED_ENTRY: f64 = 2_000.0;
const WANTED_AEX: f64 = 8_000.0;
/// The selftests are to take at most this part of what they take interpreted.
const WANTED_SELFTESTS: f64 = 0.5;

/// Runs a guest's own measurements, of which the best of `repeat` count, and the selftests. `cycles` is how many the host's TSC counts in a
/// nanosecond.
///
/// # Errors
/// A guest that does not come to the end, or a selftest that fails.
pub(super) fn run(image: &Image, cloister: &Machine, cycles: f64, repeat: u32) -> Result<()> {
    process::step(&format!("Enclaves, as their guest sees them, best of {repeat}"));
    let boot = Boot::new(&image.kernel, &image.initrd, "cloister.run=enclave-demo:times")
        .option(EPC.0, EPC.1);
    let measured = best_of(repeat, || {
        let transcript = cloister.boot(&boot, |_, _| ControlFlow::Continue(()))?;
        let measured = parse(transcript.lines.iter().map(String::as_str));
        ensure!(!measured.is_empty(), "nothing was measured:\n{}", transcript.tail());
        Ok(measured)
    })?;
    let figures = Figures::of(&measured)?;
    let [inside, outside] = [figures.inside, figures.outside].map(|nanoseconds| nanoseconds / 1e6);
    println!(
        "    hashes inside {inside:.1} ms, outside {outside:.1} ms: {:.2} (wanted: at most {WANTED_COMPUTE})",
        inside / outside
    );
    let [entry, call, aex] = [figures.entry, figures.call, figures.aex].map(|ns| ns * cycles);
    println!("    EENTER+EEXIT: {entry:.0} cycles (wanted: at most {WANTED_ENTRY})");
    println!("    a call through the vDSO: {call:.0} cycles");
    println!(
        "    AEX+ERESUME and the kernel between, without the call of the handler: {aex:.0} cycles \
         (wanted: at most {WANTED_AEX})"
    );
    selftests_whole(cloister)
}

/// What the guest's program measures, in nanoseconds.
pub(super) struct Figures {
    /// The same hashes in the enclave and outside.
    pub(super) inside: f64,
    pub(super) outside: f64,
    /// One EENTER and EEXIT.
    pub(super) entry: f64,
    /// One call of the enclave through the vDSO.
    pub(super) call: f64,
    /// One AEX and ERESUME, with the kernel's handling of the fault between.
    pub(super) aex: f64,
}

impl Figures {
    /// # Errors
    /// A figure that is missing, or an enclave that hashed something else.
    pub(super) fn of(measured: &[Measured]) -> Result<Self> {
        let find = |name: &str| -> Result<&Measured> {
            let found = measured.iter().find(|one| one.name == name);
            found.with_context(|| format!("{name} was not measured"))
        };
        let (inside, outside) = (find("hashes-inside")?, find("hashes-outside")?);
        ensure!(inside.checksum == outside.checksum, "the enclave computed something else");
        let call = each(find("call")?)?;
        Ok(Self {
            inside: inside.nanoseconds as f64,
            outside: outside.nanoseconds as f64,
            entry: each(find("EENTER+EEXIT")?)?,
            call,
            aex: each(find("fault-and-handler")?)? - call,
        })
    }
}

/// Nanoseconds of one of as many as the checksum says.
fn each(measured: &Measured) -> Result<f64> {
    let digits = measured.checksum.trim_start_matches("0x");
    let count = u64::from_str_radix(digits, 16).context("it does not say how often")?;
    Ok(measured.nanoseconds as f64 / count as f64)
}

/// The selftests translated and interpreted.
fn selftests_whole(cloister: &Machine) -> Result<()> {
    let image = Image::get(Contents::Tests)?;
    let seconds = |translate: &str| -> Result<f64> {
        let mut boot = Boot::new(&image.kernel, &image.initrd, "cloister.run=reclaimer,test_sgx")
            .option(EPC.0, EPC.1)
            .option("--translate", translate);
        boot.limit = Duration::from_secs(900);
        let (mut begun, mut ended) = (None, None);
        let transcript = cloister.boot(&boot, |line, since| {
            if line.starts_with("init: begin test_sgx") {
                begun = Some(since);
            }
            if line.starts_with("init: end test_sgx") {
                ended = Some(since);
            }
            ControlFlow::Continue(())
        })?;
        selftests::check_passed(&selftests::parse(&transcript.lines)?, &transcript)?;
        let (begun, ended) = begun.zip(ended).context("init does not say when they ran")?;
        Ok((ended - begun).as_secs_f64())
    };
    let (translated, interpreted) = (seconds("on")?, seconds("off")?);
    println!(
        "    Linux's SGX selftests {translated:.1} s, interpreted {interpreted:.1} s: {:.2} (wanted: at \
         most {WANTED_SELFTESTS})",
        translated / interpreted
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Measured, each};

    #[test]
    fn the_checksum_says_how_often_something_was_done() {
        let measured = |checksum: &str| Measured {
            name: String::new(),
            nanoseconds: 3200,
            checksum: checksum.into(),
        };

        assert_eq!(each(&measured("0x20")).unwrap(), 100.0);
        assert!(each(&measured("-")).is_err());
    }
}
