//! Random enclave programs, and a hammer of SGX, on bare metal: the same program runs as a guest of Cloister
//! however its processors are executed.
//!
//! The command line says what happens, after `cloister.run=`:
//!
//! - `programs:SEED:FIRST:COUNT`: prints `random: program NUMBER DIGEST` for each. Where an interrupt came does not
//!   show in a digest; all else does. `trace:SEED:NUMBER` prints what a digest is of.
//! - `hammer:SEED:SECONDS`: all processors at once, and then `random: hammer ...`.
//!
//! The first module (`--initrd`) is a SIGSTRUCT for the enclaves, whose contents it does not measure. A triple fault
//! ends the machine.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a kernel's entry, ENCLS and page tables have no safe form")]

mod clock;
mod code;
mod enclave;
mod hammer;
mod leaves;
mod map;
mod numbers;
mod program;
mod start;
mod traps;

use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::slice;

use guest_bare::{Console, first_module, first_section, key_hash};
use guest_sha256::digest;

use program::Programs;

/// Where user memory begins: code of ring 3, and then data.
pub(crate) const USER: u64 = 32 << 20;
/// ENCLU, where enclaves come out asynchronously; where they come out by EEXIT; ENCLU for all else.
pub(crate) const AEP: u64 = USER;
pub(crate) const OUT: u64 = USER + 0x10;
pub(crate) const SITE: u64 = USER + 0x20;
/// Data of processes.
pub(crate) const USER_DATA: u64 = USER + 0x1_0000;
/// ENCLU, and the interrupt that ends code under test.
const ENCLU: [u8; 5] = [0x0f, 0x01, 0xd7, 0xcd, 0x80];
const IA32_FEATURE_CONTROL: u64 = 0x3a;
const IA32_SGXLEPUBKEYHASH0: u64 = 0x8c;

static mut PROGRAMS: Programs = Programs::new(0);

/// What the entry calls on each processor, with the PVH protocol's `hvm_start_info` on the first.
#[unsafe(no_mangle)]
extern "C" fn main(processor: u32, start_info: u64) -> ! {
    traps::set_up(processor);
    if processor != 0 {
        hammer::join(processor);
    }
    for (place, code) in [(AEP, &ENCLU[..]), (OUT, &ENCLU[3..]), (SITE, &ENCLU)] {
        // SAFETY: RAM that is nobody's.
        unsafe { slice::from_raw_parts_mut(place as *mut u8, code.len()) }.copy_from_slice(code);
    }
    let (line, sigstruct) = (command_line(start_info), first_module(start_info));
    let Some((section, size)) = first_section() else {
        let _ = writeln!(Console, "random: no EPC");
        end();
    };
    let task =
        line.split(|&byte| byte == b' ').find_map(|word| word.strip_prefix(b"cloister.run="));
    let mut words = task.unwrap_or_default().split(|&byte| byte == b':');
    let name = words.next().unwrap_or_default();
    let mut number = || words.next().map_or(0, number);
    // In trap mode an exit, after which the handler of #UD is known.
    let _ = writeln!(Console, "random: begins");
    match name {
        b"programs" => programs(section, sigstruct, number(), number(), number(), false),
        b"trace" => programs(section, sigstruct, number(), number(), 1, true),
        b"hammer" => hammer::run(section, size, sigstruct, number(), number()),
        _ => {
            let _ = writeln!(Console, "random: no task");
        }
    }
    end();
}

fn programs(section: u64, sigstruct: &[u8], seed: u64, first: u64, count: u64, trace: bool) {
    let all = set_up(section, sigstruct);
    trust(&mut all.attempts, all.operands.modulus());
    for index in first..first + count {
        let digest = all.run(seed, index, trace);
        let _ = writeln!(Console, "random: program {index} {digest:016x}");
    }
    // SAFETY: interrupts are off.
    let (interrupts, inside) = unsafe {
        let block = traps::block(0);
        ((*block).interrupts, (*block).in_enclaves)
    };
    let _ = writeln!(Console, "random: {interrupts} interrupts, {inside} of them in enclaves");
}

fn set_up(section: u64, sigstruct: &[u8]) -> &'static mut Programs {
    // SAFETY: the first processor alone comes here, once.
    let all = unsafe { &mut *(&raw mut PROGRAMS).cast::<Programs>() };
    *all = Programs::new(section);
    all.operands.set_sigstruct(sigstruct);
    all
}

/// Makes launch control trust a signer.
pub(crate) fn trust(attempts: &mut leaves::Attempts, modulus: &[u8]) {
    attempts.wrmsr(IA32_FEATURE_CONTROL, 0x60001);
    for (index, value) in (IA32_SGXLEPUBKEYHASH0..).zip(key_hash(digest(modulus))) {
        attempts.wrmsr(index, value);
    }
}

/// The command line, by `hvm_start_info`.
fn command_line(start_info: u64) -> &'static [u8] {
    // SAFETY: the protocol gives it, and it stays where it is.
    unsafe {
        let line = *((start_info + 24) as *const *const u8);
        let length = (0..4096).find(|&at| *line.add(at) == 0).unwrap_or_default();
        slice::from_raw_parts(line, length)
    }
}

fn number(word: &[u8]) -> u64 {
    word.iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |value, byte| u64::wrapping_mul(value, 10).wrapping_add(u64::from(byte - b'0')))
}

/// Ends the machine by a triple fault.
fn end() -> ! {
    // SAFETY: nothing comes after it.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &[0_u8; 10], options(noreturn)) }
}

/// What the entry of exceptions calls for one that no code under test has raised.
#[unsafe(no_mangle)]
extern "C" fn lost_exception(vector: u64, first: u64, second: u64) -> ! {
    let _ = writeln!(Console, "random: lost: vector {vector} {first:x} {second:x}");
    end();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "random: panic: {info}");
    end();
}
