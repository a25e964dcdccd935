//! `__vdso_sgx_enter_enclave`: found in the vDSO's symbol table and called.
#![expect(unsafe_code, reason = "reads the kernel's vDSO image and calls into it")]

use std::arch::asm;
use std::ffi::CStr;

/// ENCLU leaves as the vDSO reports them.
pub(crate) const EENTER: u32 = 2;
/// ENCLU[ERESUME].
pub(crate) const ERESUME: u32 = 3;
/// ENCLU[EEXIT]: the enclave left by itself.
pub(crate) const EEXIT: u32 = 4;

const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;

/// `struct sgx_enclave_run`.
#[repr(C)]
pub(crate) struct Run {
    tcs: u64,
    /// The last seen ENCLU leaf.
    pub(crate) function: u32,
    /// Vector of the exception that ended the run.
    pub(crate) exception_vector: u16,
    /// Its error code.
    pub(crate) exception_error_code: u16,
    /// The address that it names.
    pub(crate) exception_addr: u64,
    user_handler: u64,
    user_data: u64,
    reserved: [u64; 27],
}

impl Run {
    /// A run of the thread whose TCS is at `tcs`, without a user handler.
    pub(crate) fn new(tcs: u64) -> Self {
        Self {
            tcs,
            function: 0,
            exception_vector: 0,
            exception_error_code: 0,
            exception_addr: 0,
            user_handler: 0,
            user_data: 0,
            reserved: [0; 27],
        }
    }
}

/// YMM0 to YMM15.
pub(crate) type Registers = [u8; 512];

/// Calls the vDSO's function, then does what the last lines say with R12 = `seen`.
///
/// The address is the vDSO's function, its seventh argument is on the stack. After an
/// AEX every register but RSP and RBP holds synthetic state, so all others are
/// declared as changed; the vDSO restores RBX.
macro_rules! enter {
    ($address:expr, $request:expr, $function:expr, $run:expr, $seen:expr, $($after:literal),+) => {{
        let status: i32;
        asm!(
            "push r12",
            "push r15",
            "call r14",
            "add rsp, 8",
            "pop r12",
            "cld",
            $($after,)+
            inlateout("r12") $seen => _,
            inlateout("r14") $address => _,
            inlateout("r15") std::ptr::from_mut::<Run>($run) => _,
            in("rdi") $request,
            in("rsi") 0_u64,
            in("rdx") 0_u64,
            in("ecx") $function,
            in("r8") 0_u64,
            in("r9") 0_u64,
            lateout("eax") status,
            lateout("r13") _,
            clobber_abi("sysv64"),
        );
        status
    }};
}

/// The vDSO function.
#[derive(Clone, Copy)]
pub(crate) struct EnterEnclave {
    address: u64,
}

impl EnterEnclave {
    /// Looks the function up; `None` if the kernel's vDSO does not have it.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: getauxval only reads the process's auxiliary vector.
        let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        if base == 0 {
            return None;
        }
        let vdso = Vdso { base };
        let offset = vdso.symbol(c"__vdso_sgx_enter_enclave")?;
        Some(Self { address: base + offset })
    }

    /// Enters the enclave with RDI = `request`. Returns 0 or a negative errno;
    /// -EFAULT means that `run` describes an exception.
    ///
    /// ERESUME must find the stack as deep as EENTER did: it does not change U_RSP and
    /// U_RBP in the SSA frame, to which AEX and EEXIT go back. So this is a call of its
    /// own, and so is all between it and the function that enters and resumes.
    #[inline(never)]
    pub(crate) fn call(self, request: u64, function: u32, run: &mut Run) -> i32 {
        let seen = std::ptr::null_mut::<u8>();
        // SAFETY: nothing is written to `seen`.
        unsafe { enter!(self.address, request, function, run, seen, "") }
    }

    /// As [`EnterEnclave::call`], and stores the AVX registers as they are right
    /// behind it. The processor must have AVX.
    #[inline(never)]
    pub(crate) fn call_and_look(
        self,
        request: u64,
        function: u32,
        run: &mut Run,
        seen: &mut Registers,
    ) -> i32 {
        let seen = seen.as_mut_ptr();
        // SAFETY: the 16 registers fill `seen`.
        unsafe {
            enter!(
                self.address,
                request,
                function,
                run,
                seen,
                ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vmovdqu [r12 + 32 * \\number], ymm\\number",
                ".endr"
            )
        }
    }
}

/// Enters the thread with the TCS at `tcs` so often with RDI = 0, at which the enclave leaves at once,
/// without the vDSO and with nothing else in between.
pub(crate) fn enter_and_leave(tcs: u64, times: u64) {
    // SAFETY: the enclave changes RAX, RBX and RDX alone; an address that is not that of a TCS is a fault. After
    // an AEX the kernel returns to the AEP, which is the ENCLU itself, with what ERESUME wants in the
    // registers.
    unsafe {
        asm!(
            "mov {saved}, rbx",
            "2:",
            "mov rbx, {tcs}",
            "mov eax, 2",
            "lea rcx, [rip + 3f]",
            "3:",
            "enclu",
            "dec {times}",
            "jnz 2b",
            "mov rbx, {saved}",
            saved = out(reg) _,
            tcs = in(reg) tcs,
            times = inout(reg) times => _,
            in("rdi") 0_u64,
            out("rax") _,
            out("rcx") _,
            out("rdx") _,
        );
    }
}

/// The ELF image that the kernel mapped.
struct Vdso {
    base: u64,
}

impl Vdso {
    /// The value of a dynamic symbol. The vDSO is linked at 0, so table addresses
    /// are offsets too.
    fn symbol(&self, name: &CStr) -> Option<u64> {
        let (mut hash, mut strings, mut symbols) = (None, None, None);
        let mut entry = self.dynamic()?;
        loop {
            let (tag, value) = (self.u64(entry), self.u64(entry + 8));
            match tag {
                DT_NULL => break,
                DT_HASH => hash = Some(value),
                DT_STRTAB => strings = Some(value),
                DT_SYMTAB => symbols = Some(value),
                _ => {}
            }
            entry += 16;
        }
        let (hash, strings, symbols) = (hash?, strings?, symbols?);
        // DT_HASH: bucket count, then the number of symbols.
        let count = self.u32(hash + 4);
        (0..u64::from(count)).map(|index| symbols + index * 24).find_map(|symbol| {
            let at = self.base + strings + u64::from(self.u32(symbol));
            // SAFETY: the string table holds NUL-terminated names.
            let found = unsafe { CStr::from_ptr(at as *const libc::c_char) };
            (found == name).then(|| self.u64(symbol + 8))
        })
    }

    /// Offset of the dynamic section.
    fn dynamic(&self) -> Option<u64> {
        let (headers, count) = (self.u64(32), self.u32(56) & 0xffff);
        (0..u64::from(count))
            .map(|index| headers + index * 56)
            .find(|&header| self.u32(header) == PT_DYNAMIC)
            .map(|header| self.u64(header + 8))
    }

    fn u64(&self, offset: u64) -> u64 {
        // SAFETY: offsets come from the kernel's own ELF headers.
        unsafe { std::ptr::read_unaligned((self.base + offset) as *const u64) }
    }

    fn u32(&self, offset: u64) -> u32 {
        // SAFETY: offsets come from the kernel's own ELF headers.
        unsafe { std::ptr::read_unaligned((self.base + offset) as *const u32) }
    }
}
