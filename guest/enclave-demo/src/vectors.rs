//! AVX registers in the enclave: kept through AEX and ERESUME, and invisible outside.

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_FAULT, OP_VECTORS, Request, Thread};
use crate::vdso::{EENTER, EEXIT, ERESUME};
use crate::{VECTOR_UD, ensure};

/// AEXs that the registers are kept through before the one that this program sees.
const EXITS: u64 = 5;

/// An enclave with XFRM 7 waits with all registers full until it was interrupted
/// often enough, then raises #UD. In one with XFRM 3, AVX itself is #UD.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    let enclave = Enclave::build(image, Attributes::AVX)?;
    let thread = Thread::new(&enclave, 0)?;
    let mut request = Request::new(OP_VECTORS, 0, EXITS);
    let (run, seen) = thread.enter_and_look(EENTER, &mut request)?;
    ensure(run.function == ERESUME && run.exception_vector == VECTOR_UD, "no #UD")?;
    ensure(seen.iter().all(|&byte| byte == 0), "AVX registers after an AEX are not zero")?;
    // The handler steps over UD2, as OP_FAULT has it do.
    let repair = thread.call(OP_FAULT, 0, 0)?;
    ensure(repair.result == 1, "the enclave's exception handler did not know the fault")?;
    let (resumed, seen) = thread.enter_and_look(ERESUME, &mut request)?;
    ensure(resumed.function == EEXIT, "ERESUME did not lead to EEXIT")?;
    ensure(seen.iter().all(|&byte| byte == 0), "AVX registers after EEXIT are not zero")?;
    println!("enclave-demo: XFRM 7: {} registers kept, none seen outside", request.result);
    ensure(request.result == 16, "AVX registers were lost")?;

    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    let thread = Thread::new(&enclave, 0)?;
    let run = thread.enter(EENTER, &mut Request::new(OP_VECTORS, 0, EXITS))?;
    ensure(run.function == ERESUME && run.exception_vector == VECTOR_UD, "XFRM 3 allows AVX")?;
    let repair = thread.call(OP_FAULT, 0, 0)?;
    ensure(repair.result == 0, "it was UD2 that raised #UD, not AVX")?;
    println!("enclave-demo: XFRM 3: AVX raises #UD at offset {:#x}", repair.input);
    Ok(())
}
