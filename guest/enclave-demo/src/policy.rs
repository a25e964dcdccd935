//! Enclaves that the guest's CPUID may forbid, asked for while another thread rewrites the SECS.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::driver::{self, Attributes, KSS, PROVISIONKEY, Secs};
use crate::image::Image;

/// Enclaves that are wanted.
const ENCLAVES: usize = 200;
/// How long they stay, for who looks from outside.
const STAY: Duration = Duration::from_secs(3);
/// The driver's word for an ECREATE that faulted.
const FAULTED: &str = "SGX_IOC_ENCLAVE_CREATE: Input/output error";

/// Creates enclaves until there are enough, from an SECS that at first has two attributes more than
/// most guests may have, and that another thread adds them to and takes them from.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    let secs = Box::new(Secs::new(image, driver::reserve(image.size)?, Attributes::PLAIN));
    secs.attributes.fetch_or(PROVISIONKEY | KSS, Ordering::Relaxed);
    let done = AtomicBool::new(false);
    let (created, refused) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                secs.attributes.fetch_xor(PROVISIONKEY, Ordering::Relaxed);
                secs.attributes.fetch_xor(KSS, Ordering::Relaxed);
            }
        });
        let outcome = create(&secs);
        done.store(true, Ordering::Relaxed);
        outcome
    })?;
    println!("enclave-demo: {} enclaves created, {refused} refused", created.len());
    thread::sleep(STAY);
    Ok(())
}

/// The enclaves, and how often the driver refused one.
fn create(secs: &Secs) -> Result<(Vec<File>, u64), String> {
    let (mut created, mut refused) = (Vec::new(), 0);
    while created.len() < ENCLAVES {
        match secs.create() {
            Ok(enclave) => created.push(enclave),
            Err(reason) if reason == format!("{FAULTED} (os error 5)") => refused += 1,
            Err(reason) => return Err(reason),
        }
    }
    Ok((created, refused))
}
