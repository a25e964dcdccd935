//! What a debugger does with a debug enclave: `/proc/PID/mem`, behind which the
//! kernel executes EDBGRD and EDBGWR.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result as IoResult};
use std::os::unix::fs::FileExt;

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_FAULT, OP_LOAD, OP_STORE, Request, Thread};
use crate::vdso::{EENTER, EEXIT, ERESUME};
use crate::{PROBE_OFFSET, VECTOR_UD, ensure};

/// What the enclave keeps in its page of data.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
/// What the debugger writes over the middle of it, across two words of EDBGWR.
const PATCH: u64 = 0x0123_4567_89ab_cdef;
/// TCS.FLAGS and, in it, DBGOPTIN (SDM vol. 3D, table 35-6).
const TCS_FLAGS: u64 = 8;
const DBGOPTIN: u64 = 1;
/// TCS.OENTRY.
const TCS_OENTRY: u64 = 32;
/// GPRSGX of the first thread's SSA frame 0, and RIP in it (SDM vol. 3D, table 35-9).
const GPRSGX0: u64 = 0x2000 - 184;
const GPRSGX_RIP: u64 = 136;
/// What the debugger puts into RAX of the interrupted frame.
const MENDED: u64 = 0xdeb6_dead;

/// Reads and writes a debug enclave, and tries it with another.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    let enclave = Enclave::build(image, Attributes::DEBUG)?;
    let memory = Memory::of(&enclave)?;
    let thread = Thread::new(&enclave, 0)?;
    read_and_write_data(&thread, &memory)?;
    opt_in(&memory)?;
    mend_a_fault(&thread, &memory)?;
    let other = Enclave::build(image, Attributes::PLAIN)?;
    refuse_others(&Thread::new(&other, 0)?, &Memory::of(&other)?)
}

fn read_and_write_data(thread: &Thread<'_>, memory: &Memory) -> Result<(), String> {
    thread.call(OP_STORE, SECRET, 0)?;
    let seen = memory.read(PROBE_OFFSET as u64).map_err(|error| format!("no data: {error}"))?;
    ensure(seen == SECRET, "the debugger does not read what the enclave stored")?;
    let at = PROBE_OFFSET as u64 + 4;
    memory.write(at, PATCH).map_err(|error| format!("data not written: {error}"))?;
    let loaded = thread.call(OP_LOAD, 0, 0)?.result;
    println!(
        "enclave-demo: the debugger read {seen:#x}, and wrote what the enclave reads as {loaded:#x}"
    );
    ensure(loaded == SECRET & 0xffff_ffff | PATCH << 32, "the debugger's write went elsewhere")
}

/// DBGOPTIN is all that may be written in a TCS.
fn opt_in(memory: &Memory) -> Result<(), String> {
    let read = |at| memory.read(at).map_err(|error| format!("cannot read the TCS: {error}"));
    let (flags, entry) = (read(TCS_FLAGS)?, read(TCS_OENTRY)?);
    ensure(flags == 0, "a new TCS has flags")?;
    memory.write(TCS_FLAGS, DBGOPTIN).map_err(|error| format!("no DBGOPTIN: {error}"))?;
    let flags = read(TCS_FLAGS)?;
    ensure(flags == DBGOPTIN, "DBGOPTIN was not written")?;
    let refused = code(memory.write(TCS_OENTRY, 0));
    ensure(refused == Some(libc::EIO), "OENTRY can be written")?;
    ensure(read(TCS_OENTRY)? == entry && entry != 0, "OENTRY was changed")?;
    println!("enclave-demo: the debugger set TCS.FLAGS to {flags:#x}, and OENTRY stays {entry:#x}");
    Ok(())
}

/// UD2 in the enclave: the debugger finds RIP in the SSA frame, steps over the
/// instruction and puts its result into RAX.
fn mend_a_fault(thread: &Thread<'_>, memory: &Memory) -> Result<(), String> {
    let mut request = Request::new(OP_FAULT, 0, 0);
    let run = thread.enter(EENTER, &mut request)?;
    ensure(run.function == ERESUME && run.exception_vector == VECTOR_UD, "no #UD")?;
    let fixed = || -> IoResult<u64> {
        let rip = memory.read(GPRSGX0 + GPRSGX_RIP)?;
        memory.write(GPRSGX0 + GPRSGX_RIP, rip + 2)?;
        memory.write(GPRSGX0, MENDED)?;
        Ok(rip)
    };
    let rip = fixed().map_err(|error| format!("cannot fix the SSA frame: {error}"))?;
    let resumed = thread.enter(ERESUME, &mut request)?;
    ensure(resumed.function == EEXIT, "ERESUME did not lead to EEXIT")?;
    let offset = rip.wrapping_sub(thread.enclave.base());
    println!(
        "enclave-demo: the debugger fixed #UD at {offset:#x}, the enclave returned {:#x}",
        request.result
    );
    ensure(request.result == MENDED, "the resumed enclave lost the debugger's change")
}

/// An enclave without DEBUG: EDBGRD and EDBGWR are not even tried.
fn refuse_others(thread: &Thread<'_>, memory: &Memory) -> Result<(), String> {
    thread.call(OP_STORE, SECRET, 0)?;
    let at = PROBE_OFFSET as u64;
    let (read, written) = (code(memory.read(at)), code(memory.write(at, PATCH)));
    let expected = Some(libc::EIO);
    ensure((read, written) == (expected, expected), "an enclave without DEBUG can be debugged")?;
    let kept = thread.call(OP_LOAD, 0, 0)?.result;
    ensure(kept == SECRET, "the debugger changed an enclave without DEBUG")?;
    println!("enclave-demo: an enclave without DEBUG gives the debugger EIO");
    Ok(())
}

fn code<T>(outcome: IoResult<T>) -> Option<i32> {
    outcome.err().as_ref().and_then(Error::raw_os_error)
}

/// An enclave's memory as a debugger sees it, by offset in ELRANGE.
struct Memory {
    file: File,
    base: u64,
}

impl Memory {
    fn of(enclave: &Enclave) -> Result<Self, String> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open("/proc/self/mem");
        let file = file.map_err(|error| format!("cannot open /proc/self/mem: {error}"))?;
        Ok(Self { file, base: enclave.base() })
    }

    fn read(&self, offset: u64) -> IoResult<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.base + offset)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, value: u64) -> IoResult<()> {
        self.file.write_all_at(&value.to_le_bytes(), self.base + offset)
    }
}
