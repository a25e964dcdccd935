//! The provisioning key, which not every machine has.

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_PROVISION, Thread};
use crate::{ensure, hex};

/// SGX_INVALID_ATTRIBUTE (SDM vol. 3D, table 38-4).
const SGX_INVALID_ATTRIBUTE: u64 = 2;

/// Asks in an enclave without the attribute, then in one with it.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    let plain = Enclave::build(image, Attributes::PLAIN)?;
    let request = Thread::new(&plain, 0)?.call(OP_PROVISION, 0, 0)?;
    ensure(request.result == SGX_INVALID_ATTRIBUTE, "EGETKEY gave the provisioning key to all")?;
    println!("enclave-demo: without the attribute: SGX_INVALID_ATTRIBUTE");
    match Enclave::build(image, Attributes::PROVISION) {
        Ok(enclave) => {
            let request = Thread::new(&enclave, 0)?.call(OP_PROVISION, 0, 0)?;
            ensure(request.result == 0, "EGETKEY refused the provisioning key")?;
            println!("enclave-demo: provisioning key with SHA-256 {}", hex(&request.output[..32]));
        }
        Err(reason) => println!("enclave-demo: no enclave with the attribute: {reason}"),
    }
    Ok(())
}
