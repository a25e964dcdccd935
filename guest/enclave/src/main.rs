//! The enclave that `cargo xtask demo` measures, signs and runs.
//!
//! It has no operating system and no relocations, so it works wherever ELRANGE
//! is placed. `enclave.ld` lays it out; `xtask/src/enclave.rs` puts the threads in
//! front of it: for each a TCS, two SSA frames and a page of data. The first SSA
//! frame belongs to [`enclave_main`], the second to [`enclave_exception`], which
//! the host enters after a fault in the first.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "an enclave's entry, ENCLU and untrusted pointers have no safe form"
)]

mod heap;
mod leaves;
mod seal;
mod vectors;
mod work;

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::ptr;

use guest_sha256::Sha256;

use heap::Pages;

/// Where a thread's page of data lies, in bytes from its TCS.
const PROBE_OFFSET: u64 = 0x3000;
/// From one TCS to the next, in bytes.
const THREAD_SIZE: u64 = 0x4000;
/// Size of ELRANGE in bytes; xtask/src/enclave.rs says the same to ECREATE.
const ELRANGE_SIZE: u64 = 0x1000_0000;
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
/// EREPORT for the TARGETINFO that the input is, with the REPORTDATA after it, or for zeros if `input_len` is 0;
/// the REPORT goes to the output.
const OP_REPORT: u64 = 2;
/// UD2 in the enclave; the result is what the handler put into RAX.
const OP_FAULT: u64 = 3;
/// Store to the probe page and read it back.
const OP_STORE: u64 = 4;
/// Read the probe page.
const OP_LOAD: u64 = 5;
/// Seal the message of 32 bytes that the input is; the sealed message goes to the
/// output.
const OP_SEAL: u64 = 6;
/// Open what OP_SEAL has sealed; the result is 1 and the message goes to the
/// output, or the result is 0.
const OP_OPEN: u64 = 7;
/// Wait until `input` threads are in the enclave, then work until `input_len` AEXs
/// have happened; the result is the number of rounds.
const OP_WORK: u64 = 8;
/// Fill the AVX registers, wait until `input_len` AEXs have happened, and raise #UD;
/// the result is how many registers are unchanged after it.
const OP_VECTORS: u64 = 9;
/// Ask for the provisioning key; the result is EGETKEY's error code, or 0 and the key's
/// SHA-256 goes to the output.
const OP_PROVISION: u64 = 10;
/// Grow by `input_len` pages from offset `input` on; the result is their number, or EACCEPT's error
/// code above bit 32.
const OP_GROW: u64 = 11;
/// Go through these pages for the time that the low 12 bits of `input` tell; the result is how many
/// of them were as the time before left them.
const OP_SWEEP: u64 = 12;

/// Compress a block of SHA-256 `input` times; the result is what comes of it.
const OP_COMPRESS: u64 = 13;
/// As OP_FAULT, `input` times; the result is how often the handler put its value into RAX.
const OP_FAULTS: u64 = 14;

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
    // ELRANGE is aligned to its size, so the thread's number is in its address.
    mov edx, ebx
    and edx, {elrange_mask}
    shr edx, {thread_shift}
    imul edx, edx, 0x5000
    test rax, rax
    jnz 2f
    // Without a request it leaves at once: its host measures how long that takes.
    test rdi, rdi
    jz 4f
    lea rsp, [rip + main_stack_top]
    add rsp, rdx
    push rbx
    push rcx
    mov rsi, rbx
    call enclave_main
    pop rcx
    pop rbx
    // U_RSP and U_RBP of the frame in use: EENTER saved them.
    mov rdx, [rbx + 0x1fd8]
    mov rbp, [rbx + 0x1fe0]
    jmp 3f
2:
    lea rsp, [rip + handler_stack_top]
    add rsp, rdx
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
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    xorps xmm\number, xmm\number
    .endr
    mov eax, 4
    enclu
    ud2
4:
    mov rbx, rcx
    mov eax, 4
    enclu
    ud2

    .section .bss.stacks, "aw", @nobits
    .balign 4096
    .skip 0x4000
main_stack_top:
    .skip 0x1000
handler_stack_top:
    .skip 3 * 0x5000
    "#,
    elrange_mask = const ELRANGE_SIZE - 1,
    thread_shift = const THREAD_SIZE.trailing_zeros(),
);

/// Called by the entry for CSSA = 0.
///
/// # Safety
/// `tcs` is the TCS that was entered; the page at `tcs + PROBE_OFFSET` is the
/// enclave's.
#[unsafe(no_mangle)]
unsafe extern "C" fn enclave_main(request: *mut Request, tcs: u64) {
    let base = elrange(tcs);
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
    // SAFETY: only addresses are made here, of a request that lies outside the enclave.
    let output = unsafe { (&raw mut (*request).output).cast::<u8>() };
    let result = match op {
        OP_HASH if outside(base, input, input_len) => {
            let mut hash = Sha256::default();
            for i in 0..input_len {
                hash.push(take(input + i));
            }
            give(output, &hash.finish());
            input_len
        }
        OP_REPORT if input_len == 0 => {
            leaves::report(|_| 0, |report| give(output, report));
            0
        }
        OP_REPORT if outside(base, input, leaves::REPORT_INPUT_SIZE as u64) => {
            leaves::report(|at| take(input + at as u64), |report| give(output, report));
            0
        }
        OP_FAULT => fault(),
        OP_STORE => {
            let probe = (tcs + PROBE_OFFSET) as *mut u64;
            // SAFETY: the probe page belongs to the enclave and nothing in Rust
            // lives there.
            unsafe {
                ptr::write_volatile(probe, input);
                ptr::read_volatile(probe)
            }
        }
        OP_LOAD => {
            // SAFETY: the probe page belongs to the enclave and nothing in Rust
            // lives there.
            unsafe { ptr::read_volatile((tcs + PROBE_OFFSET) as *const u64) }
        }
        OP_SEAL if outside(base, input, seal::MESSAGE_SIZE as u64) => {
            let mut message = [0; seal::MESSAGE_SIZE];
            (input..).zip(&mut message).for_each(|(from, byte)| *byte = take(from));
            match seal::seal(&message) {
                Some(sealed) => {
                    give(output, &sealed);
                    sealed.len() as u64
                }
                None => REFUSED,
            }
        }
        OP_OPEN if outside(base, input, seal::SEALED_SIZE as u64) => {
            let mut sealed = [0; seal::SEALED_SIZE];
            (input..).zip(&mut sealed).for_each(|(from, byte)| *byte = take(from));
            match seal::open(&sealed) {
                Some(message) => {
                    give(output, &message);
                    1
                }
                None => 0,
            }
        }
        OP_PROVISION => match leaves::provision_key() {
            Ok(key) => {
                let mut hash = Sha256::default();
                hash.update(&key);
                give(output, &hash.finish());
                0
            }
            Err(code) => code,
        },
        OP_GROW => match Pages::new(base, ELRANGE_SIZE, input, input_len) {
            Some(pages) => pages.grow().unwrap_or_else(|code| code << 32),
            None => REFUSED,
        },
        OP_SWEEP => match Pages::new(base, ELRANGE_SIZE, input & !0xfff, input_len) {
            Some(pages) => pages.sweep(input & 0xfff),
            None => REFUSED,
        },
        OP_WORK => {
            work::wait_for(input);
            // SAFETY: the thread runs on its frame 0, which is not a Rust object.
            let mut exits = unsafe { work::Exits::of_frame(tcs + GPRSGX0) };
            let (rounds, digest) = work::until((tcs - base) / THREAD_SIZE, &mut exits, input_len);
            give(output, &digest);
            rounds
        }
        OP_COMPRESS => guest_sha256::compress_repeatedly(input),
        OP_FAULTS => (0..input).filter(|_| fault() == RESUMED).count() as u64,
        OP_VECTORS => {
            // SAFETY: the thread runs on its frame 0, which is not a Rust object.
            unsafe { vectors::kept(tcs + GPRSGX0, input_len) }
        }
        _ => REFUSED,
    };
    // SAFETY: the whole request lies outside the enclave, as `outside` found.
    unsafe { ptr::write_volatile(&raw mut (*request).result, result) }
}

/// Where ELRANGE begins, which holds `address`.
fn elrange(address: u64) -> u64 {
    address & !(ELRANGE_SIZE - 1)
}

/// Reads a byte of an input that [`outside`] has judged.
fn take(address: u64) -> u8 {
    // SAFETY: the address does not lie in ELRANGE; if it is not mapped, the enclave
    // faults and the host sees it.
    unsafe { ptr::read_volatile(address as *const u8) }
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
    let base = elrange(tcs);
    if !outside(base, request as u64, size_of::<Request>() as u64) {
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
        let opcode = if outside(base, at, 2) { 0 } else { ptr::read_volatile(at as *const u16) };
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
