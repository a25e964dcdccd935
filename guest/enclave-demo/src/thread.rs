//! Threads of the enclave and what they are asked for.

use crate::driver::Enclave;
use crate::vdso::{EENTER, EEXIT, EnterEnclave, Registers, Run, enter_and_leave};

/// How many threads the enclave has.
pub(crate) const THREADS: u64 = 4;
/// From one TCS to the next, in bytes; the first is the first page of ELRANGE.
const THREAD_SIZE: u64 = 0x4000;

/// What the host asks of the enclave. The same layout is in guest/enclave.
#[repr(C)]
pub(crate) struct Request {
    pub(crate) op: u64,
    pub(crate) input: u64,
    pub(crate) input_len: u64,
    pub(crate) result: u64,
    pub(crate) output: [u8; 432],
}

pub(crate) const OP_HASH: u64 = 1;
pub(crate) const OP_REPORT: u64 = 2;
pub(crate) const OP_FAULT: u64 = 3;
pub(crate) const OP_STORE: u64 = 4;
pub(crate) const OP_LOAD: u64 = 5;
pub(crate) const OP_SEAL: u64 = 6;
pub(crate) const OP_OPEN: u64 = 7;
pub(crate) const OP_WORK: u64 = 8;
pub(crate) const OP_VECTORS: u64 = 9;
pub(crate) const OP_PROVISION: u64 = 10;
pub(crate) const OP_GROW: u64 = 11;
pub(crate) const OP_SWEEP: u64 = 12;
pub(crate) const OP_COMPRESS: u64 = 13;
pub(crate) const OP_FAULTS: u64 = 14;

/// A thread of the enclave.
pub(crate) struct Thread<'a> {
    pub(crate) enclave: &'a Enclave,
    enter: EnterEnclave,
    /// Address of its TCS.
    tcs: u64,
}

impl<'a> Thread<'a> {
    /// The thread with this number, of [`THREADS`].
    pub(crate) fn new(enclave: &'a Enclave, number: u64) -> Result<Self, String> {
        let enter = EnterEnclave::find().ok_or("the vDSO has no __vdso_sgx_enter_enclave")?;
        Ok(Self { enclave, enter, tcs: enclave.base() + number * THREAD_SIZE })
    }

    /// Enters the enclave so often, which leaves at once.
    pub(crate) fn enter_and_leave(&self, times: u64) {
        enter_and_leave(self.tcs, times);
    }

    /// Enters the enclave for one operation that must end in EEXIT.
    pub(crate) fn call(&self, op: u64, input: u64, input_len: u64) -> Result<Request, String> {
        let mut request = Request::new(op, input, input_len);
        let run = self.enter(EENTER, &mut request)?;
        if run.function == EEXIT {
            Ok(request)
        } else {
            Err(format!(
                "operation {op} ended in exception {} with error code {:#x} at {:#x}",
                run.exception_vector, run.exception_error_code, run.exception_addr
            ))
        }
    }

    /// EENTER or ERESUME; the returned `function` is EEXIT if the enclave left by
    /// itself, else the leaf that was interrupted by the exception.
    #[inline(never)]
    pub(crate) fn enter(&self, function: u32, request: &mut Request) -> Result<Run, String> {
        let mut run = Run::new(self.tcs);
        let address: *mut Request = request;
        let status = self.enter.call(address as u64, function, &mut run);
        ended(status, run)
    }

    /// As [`Thread::enter`], with what the AVX registers hold right after it.
    #[inline(never)]
    pub(crate) fn enter_and_look(
        &self,
        function: u32,
        request: &mut Request,
    ) -> Result<(Run, Registers), String> {
        let mut run = Run::new(self.tcs);
        let mut seen = [0xff; size_of::<Registers>()];
        let address: *mut Request = request;
        let status = self.enter.call_and_look(address as u64, function, &mut run, &mut seen);
        Ok((ended(status, run)?, seen))
    }
}

/// -EFAULT is an exception, which `run` describes.
fn ended(status: i32, run: Run) -> Result<Run, String> {
    if status == 0 || status == -libc::EFAULT {
        Ok(run)
    } else {
        Err(format!("__vdso_sgx_enter_enclave returned {status}"))
    }
}

impl Request {
    pub(crate) fn new(op: u64, input: u64, input_len: u64) -> Self {
        Self { op, input, input_len, result: 0, output: [0; 432] }
    }
}
