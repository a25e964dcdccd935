//! `cargo xtask demo`: a stock kernel, a virtual EPC, an enclave.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::console::Transcript;
use crate::image::{Contents, Image};
use crate::machine::{Boot, Machine};
use crate::nested::{self, L2, Vmm};
use crate::process;

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// The enclave runs in a guest of the guest, by Linux's KVM and QEMU
    #[arg(long)]
    nested: bool,
    /// Seconds until a guest that hangs is ended
    #[arg(long, default_value_t = 180)]
    timeout: u64,
}

/// What must be in the console: a name for it, and the text of the line.
pub(crate) type Expectation<'a> = (&'a str, String);

/// Runs the demo.
///
/// # Errors
/// Anything that did not appear, or an exit code that is not 0.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let image = Image::get(Contents::Demo)?;
    let machine = Machine::build("release")?;
    let boot = if options.nested { nested(&image)? } else { plain(&image) };
    let boot = Boot { limit: Duration::from_secs(options.timeout), ..boot };
    process::step(&format!("Booting Linux {} with 64 MiB of virtual EPC", image.release));
    let transcript = machine.boot(&boot, |line, _| {
        let mark = if options.nested && !line.starts_with(L2) { "L1: " } else { "" };
        println!("{mark}{line}");
        ControlFlow::Continue(())
    })?;
    check(&transcript, &expectations(&image), options)?;
    println!("==> Everything appeared, in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn plain(image: &Image) -> Boot {
    Boot::new(&image.kernel, &image.initrd, "cloister.run=sgx,enclave-demo")
        .option("--sgx-epc", "id=epc0,size=64M")
}

/// A machine with VMX, in which QEMU boots the image.
fn nested(image: &Image) -> Result<Boot> {
    let initrd = nested::initrd(&image.initrd, "nested-demo", Vmm::Qemu)?;
    let append = format!("cloister.run=modules,kvm,l2 l2.run={}", nested::DEMO);
    let boot = Boot::new(&image.kernel, &initrd, &append);
    let boot = Boot { memory: nested::MEMORY.to_owned(), ..boot };
    Ok(boot.option(nested::EPC.0, nested::EPC.1).option(nested::CPU.0, nested::CPU.1))
}

pub(crate) fn expectations(image: &Image) -> Vec<Expectation<'static>> {
    let mrenclave = &image.mrenclave;
    let message = "the quick brown fox runs in an enclave";
    let digest = crate::image::hex(&<sha2::Sha256 as sha2::Digest>::digest(message));
    vec![
        ("the kernel's EPC section", "sgx: EPC section 0x".to_owned()),
        ("/dev/sgx_enclave", "sgx: /dev/sgx_enclave is ".to_owned()),
        ("MRENCLAVE measured by EADD and EEXTEND", format!("MRENCLAVE in the REPORT: {mrenclave}")),
        ("MRENCLAVE by the sgxs crate", format!("MRENCLAVE by sgxs:       {mrenclave}")),
        ("the result computed inside the enclave", format!("computed inside:  {digest}")),
        (
            "enclave memory read from outside",
            format!("enclave memory from outside: {}", "ff".repeat(16)),
        ),
        (
            "a fault handled inside the enclave",
            "resumed after #UD, the enclave returned 0x600dc0de".to_owned(),
        ),
        ("a fault repaired by the host", "resumed after #PF, the enclave returned 0x".to_owned()),
        ("the end of the enclave's program", "enclave-demo: done".to_owned()),
        ("power-off", "reboot: Power down".to_owned()),
    ]
}

fn check(transcript: &Transcript, expected: &[Expectation<'_>], options: &Options) -> Result<()> {
    process::step("What was to be shown");
    let mut missing = Vec::new();
    for (name, text) in expected {
        let says = |line: &String| line.contains(text) && (!options.nested || line.starts_with(L2));
        let found = transcript.lines.iter().any(says);
        println!("    {} {name}", if found { "yes" } else { "NO " });
        if !found {
            missing.push(*name);
        }
    }
    if transcript.timed_out {
        bail!(
            "the guest was ended after {} s (see --timeout); its last lines:\n{}",
            options.timeout,
            transcript.tail()
        );
    }
    if !missing.is_empty() {
        bail!("the console did not show {}\n{}", missing.join(", "), transcript.tail());
    }
    match transcript.exit {
        Some(0) => Ok(()),
        code => bail!("cloister ended with {code:?} instead of exit code 0\n{}", transcript.tail()),
    }
}
