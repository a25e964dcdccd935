//! Samples of Intel's SDK, which the user has built, under `cloister exec` (docs/stacks/intel-sdk.md).

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};

use super::Setup;
use super::attest::{certified, verdict};
use super::exec::run;

/// A sample of the SDK's.
struct Sample {
    /// Its folder below `SampleCode`.
    name: &'static str,
    /// Where its makefile leaves programs and enclaves, below that.
    built: &'static str,
    program: &'static str,
    /// Lines that it writes where all went well.
    lines: &'static [&'static str],
}

const SAMPLE_ENCLAVE: Sample = Sample {
    name: "SampleEnclave",
    built: "",
    program: "app",
    // The checksum is the enclave's, of what the program gave it.
    lines: &[", 100) = 0xfffd4143", "Info: SampleEnclave successfully returned."],
};

/// Samples that need nothing but the SDK, the loader and a machine, and end within seconds.
const OTHERS: [Sample; 6] = [
    Sample {
        name: "SealUnseal",
        built: "",
        program: "app",
        lines: &["Sealing data succeeded.", "Unseal succeeded."],
    },
    Sample {
        name: "LocalAttestation",
        built: "bin",
        program: "app",
        lines: &[
            "succeed to establish secure channel.",
            "Succeed to exchange secure message...",
            "Succeed to close Session...",
        ],
    },
    Sample { name: "SampleCommonLoader", built: "", program: "sample", lines: &["Success!"] },
    Sample {
        name: "Cxx11SGXDemo",
        built: "",
        program: "app",
        lines: &["Info: Cxx11DemoEnclave successfully returned."],
    },
    Sample {
        name: "Cxx14SGXDemo",
        built: "",
        program: "app",
        lines: &["Info: Cxx14DemoEnclave successfully returned."],
    },
    Sample {
        name: "Cxx17SGXDemo",
        built: "",
        program: "app",
        lines: &["Info: Cxx17DemoEnclave successfully returned."],
    },
];

/// Intel's example for quotes, which is published with its attestation primitives.
const QUOTE_GENERATION: Sample = Sample {
    name: "QuoteGenerationSample",
    built: "",
    program: "app",
    // A certificate chain is in the quote.
    lines: &["[APP] cert_key_type = 0x5"],
};

/// The library of the SDK's simulation mode, which needs no SGX and so shows nothing.
const SIMULATION: &str = "libsgx_urts_sim";

impl Sample {
    /// Copies what was built of it, the program and its enclaves, to a folder of the test's; false where there is none.
    fn copy(&self, setup: &Setup, sdk: &Path) -> Result<bool> {
        let built = sdk.join("SampleCode").join(self.name).join(self.built);
        let program = built.join(self.program);
        if !program.exists() {
            return Ok(false);
        }
        let code = fs::read(&program).with_context(|| program.display().to_string())?;
        let simulated = code.windows(SIMULATION.len()).any(|part| part == SIMULATION.as_bytes());
        ensure!(
            !simulated,
            "--sdk: {} was built for simulation: build it with SGX_MODE=HW",
            program.display()
        );

        let folder = setup.path(self.name);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(built)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let enclave = name.to_string_lossy().ends_with(".signed.so");
            if enclave || name == self.program {
                fs::copy(&path, folder.join(name)).with_context(|| path.display().to_string())?;
            }
        }
        Ok(true)
    }

    /// Runs the copy in a machine, and checks how it ends.
    fn run(&self, setup: &Setup, sdk: &Path, options: &[&str]) -> Result<()> {
        let output = self.output(setup, sdk, options)?;
        let written = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", self.name);
        for line in self.lines {
            ensure!(written.contains(line), "{}: no {line:?} in {written}", self.name);
        }
        Ok(())
    }

    fn output(&self, setup: &Setup, sdk: &Path, options: &[&str]) -> Result<Output> {
        let library = sdk.join("lib64");
        let library = fs::canonicalize(&library)
            .with_context(|| format!("--sdk: {}", library.display()))?
            .display()
            .to_string();
        let variable = format!("LD_LIBRARY_PATH={library}");
        let options = [&["--ro", &library, "--env", &variable], options].concat();
        run(setup, self.name, &options, &[&format!("./{}", self.program)])
    }
}

/// Samples that were built do as they say, and SampleEnclave does not with an enclave that was changed.
pub(crate) fn samples(setup: &Setup, sdk: &Path) -> Result<()> {
    let sdk = fs::canonicalize(sdk).with_context(|| format!("--sdk {}", sdk.display()))?;
    if !SAMPLE_ENCLAVE.copy(setup, &sdk)? {
        let folder = sdk.join("SampleCode").join(SAMPLE_ENCLAVE.name);
        bail!("--sdk: there is no app in {}: build it with make", folder.display());
    }
    SAMPLE_ENCLAVE.run(setup, &sdk, &[])?;
    changed(setup, &sdk)?;
    for sample in OTHERS {
        if sample.copy(setup, &sdk)? {
            sample.run(setup, &sdk, &[])?;
        } else {
            absent(&sample);
        }
    }
    if QUOTE_GENERATION.copy(setup, &sdk)? {
        quote(setup, &sdk)?;
    } else {
        absent(&QUOTE_GENERATION);
    }
    Ok(())
}

fn absent(sample: &Sample) {
    println!("           {} is not built", sample.name);
}

/// What Intel's libraries have quoted at the machine's AESM socket is accepted under the platform's root alone.
fn quote(setup: &Setup, sdk: &Path) -> Result<()> {
    let (own, other) = (certified(setup, "own")?, certified(setup, "other")?);
    // With the variable set, Intel's library does not load quoting enclaves of its own.
    let options = ["--attest", "--platform", &own, "--env", "SGX_AESM_ADDR=1"];
    QUOTE_GENERATION.run(setup, sdk, &options)?;

    let quote = setup.path(QUOTE_GENERATION.name).join("quote.dat");
    let accepted = verdict(setup, &quote, &own, &["--debug"])?;
    ensure!(accepted.is_ok(), "{accepted:?}");
    let elsewhere = verdict(setup, &quote, &other, &["--debug"])?;
    ensure!(elsewhere.is_err(), "{elsewhere:?}");
    Ok(())
}

/// EINIT finds another measurement than the signed one where a page of SampleEnclave's is another.
fn changed(setup: &Setup, sdk: &Path) -> Result<()> {
    /// A text that is measured with the enclave.
    const TEXT: &[u8] = b"Checksum(0x%p";
    let enclave = setup.path(SAMPLE_ENCLAVE.name).join("enclave.signed.so");
    let mut bytes = fs::read(&enclave)?;
    let at = bytes.windows(TEXT.len()).position(|part| part == TEXT);
    bytes[at.context("SampleEnclave's enclave has no checksum")?] ^= 1;
    fs::write(&enclave, bytes)?;
    let output = SAMPLE_ENCLAVE.output(setup, sdk, &[])?;
    // Of what EINIT says Linux makes EPERM, and the loader of that an unexpected error.
    let written = String::from_utf8_lossy(&output.stdout);
    let refused = written.contains("Error: Unexpected error occurred.");
    ensure!(refused && output.status.code() == Some(255), "{output:?}");
    Ok(())
}
