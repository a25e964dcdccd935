//! Code that changes in an enclave's pages is executed as it is now, whatever changed it.

mod leaves;
mod stores;

use cloister_sgx::EpcIndex;
use cloister_sgx::layout::SecInfoFlags;
use cloister_x86::Vector;
use cloister_x86::segment::seg;

use super::host::{EXITED, Host, SSA, capabilities, epc_page};
use crate::Vcpu;

/// Pages that the enclave reads, writes and executes: SSA frames of threads that are not entered.
const PATCHED: u64 = SSA + 0x4000;
/// How many.
const PAGES: u64 = 4;

/// What the function returns before and after the change.
const OLD: u8 = 0x11;
const NEW: u8 = 0x22;
/// From the start of the function to the byte that says what it returns.
const RESULT: u64 = 2;

/// The function MOV R8B, `result`; RET, among NOPs: the byte `n` places after `result`.
fn function(n: i64, result: u8) -> u8 {
    match n {
        -2 => 0x41,
        -1 => 0xb0,
        0 => result,
        1 => 0xc3,
        _ => 0x90,
    }
}

/// A host for an enclave whose data can be executed, on machines with two processors.
fn host() -> Host {
    let mut host = Host::with(capabilities(), 3);
    host.data = SecInfoFlags::R | SecInfoFlags::W | SecInfoFlags::X;
    host
}

/// Puts bytes into the enclave, and tells processors so.
fn put(host: &Host, la: u64, bytes: &[u8]) {
    let first = bytes.len().min(0x1000 - (la & 0xfff) as usize);
    let (now, later) = bytes.split_at(first);
    let index = EpcIndex(epc_page(la));
    host.platform.page(index).write((la & 0xfff) as usize, now);
    host.kernel.guest.vcpu.cpu.epc_written(index);
    if !later.is_empty() {
        put(host, la + first as u64, later);
    }
}

/// `len` bytes of the function from the `from`th before its result on.
fn image(from: u64, len: usize, result: u8) -> Vec<u8> {
    (0..len as i64).map(|n| function(n - from as i64, result)).collect()
}

/// Puts the old function where its result is the byte at `at`.
fn put_function(host: &Host, at: u64) {
    put(host, at - RESULT, &image(RESULT, 4, OLD));
}

/// Puts a processor into user mode.
fn to_user(vcpu: &mut Vcpu) {
    let cpu = &mut vcpu.cpu;
    for segment in &mut cpu.arch.segs[..6] {
        segment.rights.0 |= 3 << 5;
    }
    cpu.arch.cpl = cpu.arch.segs[seg::CS].rights.dpl();
    cpu.update_mode();
}

/// Runs a processor that leaves the enclave by EEXIT: the vector that stops it, and where.
fn run_to_exit(vcpu: &mut Vcpu) -> (Option<Vector>, u64) {
    vcpu.run();
    (vcpu.caught_exception().map(|exception| exception.vector), vcpu.cpu.arch.rip)
}

/// What [`run_to_exit`] returns of a processor that has left.
const LEFT: (Option<Vector>, u64) = (Some(Vector::Ud), EXITED);
