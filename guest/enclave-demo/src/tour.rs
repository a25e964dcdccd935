//! Measures, enters, faults and leaves the enclave: what `cargo xtask demo` shows.

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_FAULT, OP_HASH, OP_LOAD, OP_REPORT, OP_STORE, Request, Thread};
use crate::vdso::{EENTER, EEXIT, ERESUME};
use crate::{PROBE_OFFSET, VECTOR_PF, VECTOR_UD, ensure, hex};

/// What the enclave's exception handler puts into RAX.
const RESUMED: u64 = 0x600d_c0de;
/// Offset of MRENCLAVE in a REPORT (SDM vol. 3D, table 35-21).
const REPORT_MRENCLAVE: usize = 64;
/// What is hashed inside the enclave.
const MESSAGE: &str = "the quick brown fox runs in an enclave";
/// What the enclave keeps in the probe page.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// Every step, each with its line.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    println!(
        "enclave-demo: enclave of {} pages initialized at {:#x}, ELRANGE of {} MiB",
        image.pages.len(),
        enclave.base(),
        image.size >> 20
    );
    let thread = Thread::new(&enclave, 0)?;

    let mut request = thread.call(OP_REPORT, 0, 0)?;
    let measured = &request.output[REPORT_MRENCLAVE..REPORT_MRENCLAVE + 32];
    println!("enclave-demo: MRENCLAVE in the REPORT: {}", hex(measured));
    println!("enclave-demo: MRENCLAVE by sgxs:       {}", hex(&image.mrenclave));
    ensure(measured == image.mrenclave, "the two MRENCLAVE values differ")?;

    request = thread.call(OP_HASH, MESSAGE.as_ptr() as u64, MESSAGE.len() as u64)?;
    let inside = &request.output[..32];
    println!("enclave-demo: SHA-256 computed inside:  {}", hex(inside));
    let outside = guest_sha256::digest(MESSAGE.as_bytes());
    println!("enclave-demo: SHA-256 computed outside: {}", hex(&outside));
    ensure(inside == outside, "the enclave's result is wrong")?;

    look_from_outside(&thread)?;
    handle_fault_inside(&thread)?;
    handle_fault_outside(&thread)
}

/// The abort page: reads give ones, writes are dropped (SDM vol. 3D, 35.5).
fn look_from_outside(thread: &Thread<'_>) -> Result<(), String> {
    let stored = thread.call(OP_STORE, SECRET, 0)?.result;
    ensure(stored == SECRET, "the enclave does not read back what it stored")?;
    let seen = thread.enclave.read(PROBE_OFFSET);
    println!("enclave-demo: enclave memory from outside: {}", hex(&seen));
    ensure(seen.iter().all(|&byte| byte == 0xff), "enclave memory is visible from outside")?;
    thread.enclave.write(PROBE_OFFSET, 0);
    let kept = thread.call(OP_LOAD, 0, 0)?.result;
    println!("enclave-demo: after a write from outside the enclave reads {kept:#x}");
    ensure(kept == SECRET, "a write from outside changed enclave memory")
}

/// UD2 in the enclave: AEX, then EENTER on the second SSA frame, whose handler
/// repairs the first, then ERESUME.
fn handle_fault_inside(thread: &Thread<'_>) -> Result<(), String> {
    let mut request = Request::new(OP_FAULT, 0, 0);
    let run = thread.enter(EENTER, &mut request)?;
    // An AEX leaves ERESUME in RAX, which the vDSO reports.
    ensure(run.function == ERESUME, "UD2 in the enclave did not end the enclave's run")?;
    ensure(run.exception_vector == VECTOR_UD, "UD2 in the enclave did not raise #UD")?;
    let mut repair = Request::new(OP_FAULT, 0, 0);
    let handled = thread.enter(EENTER, &mut repair)?;
    ensure(handled.function == EEXIT, "the enclave's exception handler did not come back")?;
    ensure(repair.result == 1, "the enclave's exception handler did not know the fault")?;
    println!(
        "enclave-demo: #UD in the enclave at offset {:#x}, EXITINFO {:#x}, handled inside",
        repair.input, repair.input_len
    );
    let resumed = thread.enter(ERESUME, &mut request)?;
    ensure(resumed.function == EEXIT, "ERESUME did not lead to EEXIT")?;
    println!("enclave-demo: resumed after #UD, the enclave returned {:#x}", request.result);
    ensure(request.result == RESUMED, "the resumed enclave lost the handler's change")
}

/// A store to a page that the host took the write permission from: the host
/// repairs the mapping and ERESUME runs the store again.
fn handle_fault_outside(thread: &Thread<'_>) -> Result<(), String> {
    thread.enclave.protect(PROBE_OFFSET, libc::PROT_READ)?;
    let mut request = Request::new(OP_STORE, !SECRET, 0);
    let run = thread.enter(EENTER, &mut request)?;
    ensure(run.function == ERESUME, "the store to a read-only page did not fault")?;
    ensure(run.exception_vector == VECTOR_PF, "the store did not raise #PF")?;
    println!(
        "enclave-demo: #PF in the enclave at offset {:#x}, error code {:#x}, repaired by the host",
        run.exception_addr.wrapping_sub(thread.enclave.base()),
        run.exception_error_code
    );
    thread.enclave.protect(PROBE_OFFSET, libc::PROT_READ | libc::PROT_WRITE)?;
    let resumed = thread.enter(ERESUME, &mut request)?;
    ensure(resumed.function == EEXIT, "ERESUME did not lead to EEXIT")?;
    println!("enclave-demo: resumed after #PF, the enclave returned {:#x}", request.result);
    ensure(request.result == !SECRET, "the resumed store had no effect")
}
