//! A message sealed by the enclave on one run and opened on another.

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_OPEN, OP_SEAL, Thread};
use crate::{ensure, hex, unhex};

/// What is sealed, 32 bytes.
const MESSAGE: &[u8; 32] = b"a secret that survives a restart";
/// Bytes of a sealed message.
const SEALED_SIZE: usize = 96;

/// Has the enclave seal the message, and prints what may be kept anywhere.
pub(crate) fn seal(image: &Image) -> Result<(), String> {
    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    let address = MESSAGE.as_ptr() as u64;
    let request = Thread::new(&enclave, 0)?.call(OP_SEAL, address, 0)?;
    ensure(request.result == SEALED_SIZE as u64, "the enclave got no key to seal with")?;
    println!("enclave-demo: sealed {}", hex(&request.output[..SEALED_SIZE]));
    Ok(())
}

/// Has the enclave open what [`seal`] printed.
pub(crate) fn open(image: &Image, sealed: &str) -> Result<(), String> {
    let sealed = unhex(sealed).filter(|sealed| sealed.len() == SEALED_SIZE);
    let sealed = sealed.ok_or("a sealed message has 192 hexadecimal digits")?;
    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    let request = Thread::new(&enclave, 0)?.call(OP_OPEN, sealed.as_ptr() as u64, 0)?;
    ensure(request.result == 1, "the seal's tag does not match")?;
    let message = String::from_utf8_lossy(&request.output[..MESSAGE.len()]);
    println!("enclave-demo: opened: {message}");
    Ok(())
}
