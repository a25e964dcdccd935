//! REPORTs for other enclaves.

use std::fs;

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_REPORT, Thread};
use crate::{ensure, unhex};

/// Sizes of TARGETINFO, REPORTDATA and a REPORT (SDM vol. 3D, sections 35.15 and 35.16).
const TARGETINFO_SIZE: usize = 512;
const REPORTDATA_SIZE: usize = 64;
const REPORT_SIZE: usize = 432;

/// Writes a REPORT of an enclave with the right to the provisioning key.
pub(crate) fn run(image: &Image, target: &str, data: &str, file: &str) -> Result<(), String> {
    let target = fs::read(target).map_err(|error| format!("cannot read {target}: {error}"))?;
    let report = report(image, Attributes::PROVISION, &target, data)?;
    fs::write(file, report).map_err(|error| format!("cannot write {file}: {error}"))
}

/// The REPORT of an enclave for that of `target`, with REPORTDATA in hexadecimal digits.
pub(crate) fn report(
    image: &Image,
    attributes: Attributes,
    target: &[u8],
    data: &str,
) -> Result<Vec<u8>, String> {
    ensure(target.len() == TARGETINFO_SIZE, "TARGETINFO has 512 bytes")?;
    let data = unhex(data).filter(|bytes| bytes.len() == REPORTDATA_SIZE);
    let data = data.ok_or("REPORTDATA has 128 hexadecimal digits")?;
    let input = [target, &data].concat();
    let enclave = Enclave::build(image, attributes)?;
    let request =
        Thread::new(&enclave, 0)?.call(OP_REPORT, input.as_ptr() as u64, input.len() as u64)?;
    ensure(request.result == 0, "the enclave made no REPORT")?;
    Ok(request.output.get(..REPORT_SIZE).ok_or("the REPORT is short")?.to_vec())
}
