//! The enclave that `cargo xtask demo` measures, signs and runs.
//!
//! It has no operating system and no relocations, so it works wherever ELRANGE
//! is placed. `enclave.ld` lays it out; `xtask/src/enclave.rs` puts the TCS and
//! the SSA frames in front of it. One thread, two SSA frames: the first belongs
//! to [`enclave_main`], the second to [`enclave_exception`], which the host
//! enters after a fault in the first.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "an enclave's entry, ENCLU and untrusted pointers have no safe form"
)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::ptr;

use guest_sha256::Sha256;

/// Where TCS, SSA frames and the probe page lie, in bytes from the TCS.
const PROBE_OFFSET: u64 = 0x3000;
/// Size of ELRANGE in bytes; xtask/src/enclave.rs says the same to ECREATE.
const ELRANGE_SIZE: u64 = 0x4_0000;
/// GPRSGX of SSA frame 0: the last 184 bytes of the frame's one page
/// (SDM vol. 3D, 35.9).
const GPRSGX0: u64 = 0x2000 - 184;
/// What the exception handler leaves in RAX of the interrupted frame.
const RESUMED: u64 = 0x600d_c0de;

/// Bytes of a REPORT (SDM vol. 3D, EREPORT), the largest output.
const OUTPUT_SIZE: usize = 432;

/// What the host asks for, in untrusted memory. The same layout is in
/// guest/enclave-demo/src/main.rs.
#[repr(C)]
struct Request {
    /// One of the OP_ values.
    op: u64,
    /// Address of the input outside the enclave.
    input: u64,
    /// Bytes of input.
    input_len: u64,
    /// What the operation returns.
    result: u64,
    /// Digest, REPORT body or handler's findings.
    output: [u8; OUTPUT_SIZE],
}

/// SHA-256 of the input.
const OP_HASH: u64 = 1;
/// EREPORT for a zero TARGETINFO; the REPORT goes to the output.
const OP_REPORT: u64 = 2;
/// UD2 in the enclave; the result is what the handler put into RAX.
const OP_FAULT: u64 = 3;
/// Store to the probe page and read it back.
const OP_STORE: u64 = 4;
/// Read the probe page.
const OP_LOAD: u64 = 5;

/// Result of a request that names no operation or points into the enclave.
const REFUSED: u64 = u64::MAX;

global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl enclave_entry
    .type enclave_entry, @function
enclave_entry:
    // EENTER: RAX = CSSA, RBX = TCS, RCX = where EEXIT returns to.
    cld
    test rax, rax
    jnz 2f
    lea rsp, [rip + main_stack_top]
    push rbx
    push rcx
    mov rsi, rbx
    call enclave_main
    pop rcx
    pop rbx
    // U_RSP and U_RBP of the frame in use, not those of the entry: an ERESUME
    // from another depth of the host's stack replaces them.
    mov rdx, [rbx + 0x1fd8]
    mov rbp, [rbx + 0x1fe0]
    jmp 3f
2:
    lea rsp, [rip + handler_stack_top]
    push rbx
    push rcx
    mov rsi, rbx
    call enclave_exception
    pop rcx
    pop rbx
    mov rdx, [rbx + 0x2fd8]
    mov rbp, [rbx + 0x2fe0]
3:
    mov rsp, rdx
    mov rbx, rcx
    // Nothing of the enclave's may leave in a register.
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    mov eax, 4
    enclu
    ud2

    .section .bss.stacks, "aw", @nobits
    .balign 4096
    .skip 0x4000
main_stack_top:
    .skip 0x1000
handler_stack_top:
    "#
);

/// TARGETINFO, REPORTDATA and REPORT need 512-, 128- and 512-byte alignment
/// (SDM vol. 3D, EREPORT).
#[repr(C, align(512))]
struct Aligned<const N: usize>([u8; N]);

/// Memory that EREPORT writes.
struct Output(UnsafeCell<Aligned<OUTPUT_SIZE>>);

// SAFETY: the enclave has one TCS, so one thread.
unsafe impl Sync for Output {}

static TARGETINFO: Aligned<512> = Aligned([0; 512]);
static REPORTDATA: Aligned<64> = Aligned([0; 64]);
static REPORT: Output = Output(UnsafeCell::new(Aligned([0; OUTPUT_SIZE])));

/// Called by the entry for CSSA = 0.
///
/// # Safety
/// `tcs` is the TCS that was entered; the page at `tcs + PROBE_OFFSET` is the
/// enclave's.
#[unsafe(no_mangle)]
unsafe extern "C" fn enclave_main(request: *mut Request, tcs: u64) {
    let base = tcs;
    if !outside(base, request as u64, size_of::<Request>() as u64) {
        return;
    }
    // SAFETY: the whole request lies outside the enclave, so no enclave memory
    // can be reached through it; the host may change it at any time, hence each
    // field is read once, and the copies are judged and used.
    let (op, input, input_len) = unsafe {
        (
            ptr::read_volatile(&raw const (*request).op),
            ptr::read_volatile(&raw const (*request).input),
            ptr::read_volatile(&raw const (*request).input_len),
        )
    };
    // SAFETY: as above; only addresses are made here.
    let output = unsafe { (&raw mut (*request).output).cast::<u8>() };
    let result = match op {
        OP_HASH if outside(base, input, input_len) => {
            let mut hash = Sha256::default();
            for i in 0..input_len {
                // SAFETY: `outside` has shown that the range does not touch
                // ELRANGE; if it is not mapped, the enclave faults and the host
                // sees it.
                hash.push(unsafe { ptr::read_volatile((input + i) as *const u8) });
            }
            give(output, &hash.finish());
            input_len
        }
        OP_REPORT => {
            report();
            // SAFETY: one thread, so nobody writes REPORT while it is copied.
            give(output, unsafe { &(*REPORT.0.get()).0 });
            0
        }
        OP_FAULT => fault(),
        OP_STORE => {
            let probe = (base + PROBE_OFFSET) as *mut u64;
            // SAFETY: the probe page belongs to the enclave and nothing in Rust
            // lives there.
            unsafe {
                ptr::write_volatile(probe, input);
                ptr::read_volatile(probe)
            }
        }
        OP_LOAD => {
            // SAFETY: as for OP_STORE.
            unsafe { ptr::read_volatile((base + PROBE_OFFSET) as *const u64) }
        }
        _ => REFUSED,
    };
    // SAFETY: checked above; a plain field outside the enclave.
    unsafe { ptr::write_volatile(&raw mut (*request).result, result) }
}

/// Copies to the output of a request, which the caller has checked. Byte by byte:
/// a call of memcpy would go through a table that somebody had to relocate.
fn give(output: *mut u8, bytes: &[u8]) {
    for (i, &byte) in bytes.iter().enumerate().take(OUTPUT_SIZE) {
        // SAFETY: within the output, which lies outside the enclave.
        unsafe { ptr::write_volatile(output.add(i), byte) }
    }
}

/// Called by the entry for CSSA = 1: looks at the frame that faulted, steps over
/// the UD2 and leaves a value in its RAX.
///
/// # Safety
/// `tcs` is the TCS that was entered, its SSA frame 0 holds the interrupted state.
#[unsafe(no_mangle)]
unsafe extern "C" fn enclave_exception(request: *mut Request, tcs: u64) {
    if !outside(tcs, request as u64, size_of::<Request>() as u64) {
        return;
    }
    let gprsgx = tcs + GPRSGX0;
    let rip = (gprsgx + 136) as *mut u64;
    let exitinfo = (gprsgx + 160) as *const u32;
    // SAFETY: SSA frame 0 is enclave memory that only the processor and this
    // handler touch while CSSA is 1; RIP there is an address in the enclave.
    unsafe {
        let at = ptr::read_volatile(rip);
        let info = ptr::read_volatile(exitinfo);
        let opcode = if outside(tcs, at, 2) { 0 } else { ptr::read_volatile(at as *const u16) };
        // 0F 0B is UD2; EXITINFO: VALID, type 3 (hardware exception), vector 6.
        let known = opcode == 0x0b0f && info == 0x8000_0306;
        if known {
            ptr::write_volatile(rip, at + 2);
            ptr::write_volatile(gprsgx as *mut u64, RESUMED);
        }
        ptr::write_volatile(&raw mut (*request).input, at - tcs);
        ptr::write_volatile(&raw mut (*request).input_len, u64::from(info));
        ptr::write_volatile(&raw mut (*request).result, u64::from(known));
    }
}

/// True if `len` bytes at `start` do not wrap around and do not touch ELRANGE.
fn outside(base: u64, start: u64, len: u64) -> bool {
    match start.checked_add(len) {
        Some(end) => end <= base || start >= base + ELRANGE_SIZE,
        None => false,
    }
}

/// ENCLU[EREPORT] with a TARGETINFO of zeros: nobody can verify the MAC, but the
/// body names this enclave.
fn report() {
    // SAFETY: the three operands are enclave memory, aligned and sized as
    // EREPORT wants; RBX is the compiler's, so it is exchanged around the leaf.
    unsafe {
        asm!(
            "xchg rbx, {target}",
            "enclu",
            "xchg rbx, {target}",
            target = inout(reg) TARGETINFO.0.as_ptr() => _,
            inout("rax") 0_u64 => _,
            in("rcx") REPORTDATA.0.as_ptr(),
            in("rdx") REPORT.0.get(),
        );
    }
}

/// Executes UD2 and returns RAX as it is afterwards.
fn fault() -> u64 {
    let rax: u64;
    // SAFETY: UD2 leaves every register and all memory unchanged; the handler
    // changes RIP and RAX of the frame only.
    unsafe {
        asm!("ud2", inout("rax") 0_u64 => rax, options(nostack));
    }
    rax
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        // SAFETY: UD2 only faults; the host sees the exception.
        unsafe { asm!("ud2", options(nomem, nostack)) }
    }
}
