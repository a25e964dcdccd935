//! The rules of SGX virtualization (docs/virt-rules.md) that a guest can provoke, on bare metal: the same
//! program runs as a guest of Cloister and, in L1, as one of Linux's KVM.
//!
//! Each line is `rule: NAME: OUTCOME`: an exception, or what RAX holds after the instruction. The first module
//! (`--initrd`) is a SIGSTRUCT for an enclave of no page, which xtask has signed. A triple fault ends the
//! machine.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a kernel's entry, ENCLS and MSRs have no safe form")]

mod operands;
mod processor;
mod start;

use core::fmt::Write;
use core::panic::PanicInfo;

use guest_bare::{Console, first_module, first_section, key_hash};
use guest_sha256::digest;

use operands::{Operands, Secs, SecsField};
use processor::{Outcome, cpuid, encls, rdmsr, without_paging, wrmsr};

const ECREATE: u32 = 0;
const EINIT: u32 = 2;
const EREMOVE: u32 = 3;
const EAUG: u32 = 0xd;
const ERDINFO: u32 = 0x10;

const IA32_FEATURE_CONTROL: u32 = 0x3a;
const IA32_SGXLEPUBKEYHASH0: u32 = 0x8c;
/// Lock, SGX launch control and SGX of IA32_FEATURE_CONTROL.
const SGX_CONTROLS: u64 = 1 | 1 << 17 | 1 << 18;

const PAGE: u64 = 4096;
/// 1 GiB beyond what is mapped.
const UNMAPPED: u64 = 513 << 30;
const NOT_CANONICAL: u64 = 1 << 62;

fn show(name: &str, outcome: Outcome) {
    // The console takes everything.
    let _ = writeln!(Console, "rule: {name}: {outcome}");
}

/// What the entry calls, with the PVH protocol's `hvm_start_info`.
#[unsafe(no_mangle)]
extern "C" fn main(start_info: u64) {
    processor::set_up_exceptions();
    show("ECREATE without paging", without_paging());
    enumeration();
    registers();
    if let Some((epc, _)) = first_section() {
        announced(epc);
        operands_of_ecreate(epc);
        contents_of_secs(epc);
        initialization(epc, first_module(start_info));
    }
}

fn enumeration() {
    let [_, features, more, _] = cpuid(7, 0);
    show("CPUID 7: SGX", Outcome::Done((features >> 2 & 1).into()));
    show("CPUID 7: SGX_LC", Outcome::Done((more >> 30 & 1).into()));
    for (subleaf, registers) in [(0, "12H.0"), (1, "12H.1"), (3, "12H.3")] {
        for (value, name) in cpuid(0x12, subleaf).into_iter().zip(["EAX", "EBX", "ECX", "EDX"]) {
            let _ = write!(Console, "rule: CPUID {registers}:{name}: ");
            let _ = writeln!(Console, "{:#x}", value);
        }
    }
    let [_, _, size, _] = cpuid(0x12, 2);
    show("CPUID 12H.2: size of the section", Outcome::Done((size & 0xffff_f000).into()));
}

fn registers() {
    let control = match rdmsr(IA32_FEATURE_CONTROL) {
        Outcome::Done(value) => Outcome::Done(value & SGX_CONTROLS),
        fault => fault,
    };
    show("FEATURE_CONTROL: lock, SGX, SGX_LC", control);
    show("FEATURE_CONTROL is written once locked", wrmsr(IA32_FEATURE_CONTROL, SGX_CONTROLS));
    let hash = rdmsr(IA32_SGXLEPUBKEYHASH0);
    show("the hash after reset, first part", hash);
    show("the hash is written", wrmsr(IA32_SGXLEPUBKEYHASH0, 0x0123_4567_89ab_cdef));
    show("the hash as it was written", rdmsr(IA32_SGXLEPUBKEYHASH0));
}

/// Leaves by whether CPUID announces them.
fn announced(epc: u64) {
    show("ERDINFO, which is not announced", encls(ERDINFO, UNMAPPED, epc, 0));
    show("leaf 1FH, which there is not", encls(0x1f, 0, epc, 0));
    show("leaf 40H, beyond the bitmap", encls(0x40, 0, epc, 0));
    show("EAUG, not aligned", encls(EAUG, 1, epc, 0));
}

fn operands_of_ecreate(epc: u64) {
    let mut operands = Operands::new(&Secs::valid());
    let info = operands.page_info();
    let ecreate = |name, info, target| show(name, encls(ECREATE, info, target, 0));
    ecreate("ECREATE: PAGEINFO not aligned", info + 8, epc);
    ecreate("ECREATE: PAGEINFO not canonical", NOT_CANONICAL, epc);
    ecreate("ECREATE: PAGEINFO not mapped", UNMAPPED, epc);
    ecreate("ECREATE: target not aligned", info, epc + 8);
    ecreate("ECREATE: target not canonical", info, NOT_CANONICAL);
    ecreate("ECREATE: target not mapped", info, UNMAPPED);
    ecreate("ECREATE: target outside the EPC", info, operands.secs());
    let (secs, secinfo) = (operands.secs(), operands.secinfo());
    for (name, source, secinfo) in [
        ("ECREATE: source not aligned", secs + 8, secinfo),
        ("ECREATE: source not canonical", NOT_CANONICAL, secinfo),
        ("ECREATE: source not mapped", UNMAPPED, secinfo),
        ("ECREATE: SECINFO not aligned", secs, secinfo + 8),
        ("ECREATE: SECINFO not mapped", secs, UNMAPPED),
    ] {
        ecreate(name, operands.page_info_of(source, secinfo), epc);
    }
}

fn contents_of_secs(epc: u64) {
    for (name, field, value) in [
        ("ECREATE: a bit of MISCSELECT that CPUID lacks", SecsField::MiscSelect, 1 << 5),
        ("ECREATE: MISCSELECT.EXINFO", SecsField::MiscSelect, 1),
        ("ECREATE: a bit of ATTRIBUTES that is reserved", SecsField::Attributes, 4 | 1 << 3),
        ("ECREATE: ATTRIBUTES.DEBUG", SecsField::Attributes, 4 | 1 << 1),
        ("ECREATE: ATTRIBUTES.PROVISIONKEY", SecsField::Attributes, 4 | 1 << 4),
        ("ECREATE: ATTRIBUTES.KSS", SecsField::Attributes, 4 | 1 << 7),
        ("ECREATE: a bit of XFRM that CPUID lacks", SecsField::Xfrm, 3 | 1 << 17),
        ("ECREATE: XFRM without SSE", SecsField::Xfrm, 1),
        ("ECREATE: SIZE beyond the largest", SecsField::Size, 1 << 56),
        ("ECREATE: SIZE that is no power of two", SecsField::Size, 3 << 16),
        ("ECREATE: as CPUID announces", SecsField::Size, Secs::SIZE),
    ] {
        let mut operands = Operands::new(&Secs::valid().with(field, value));
        show(name, encls(ECREATE, operands.page_info(), epc, 0));
        encls(EREMOVE, 0, epc, 0);
    }
}

fn initialization(epc: u64, sigstruct: &[u8]) {
    let mut operands = Operands::new(&Secs::valid());
    encls(ECREATE, operands.page_info(), epc, 0);
    show("ECREATE: a page in use", encls(ECREATE, operands.page_info(), epc, 0));
    let (sigstruct, token) = operands.for_einit(sigstruct);
    let einit = |name, sigstruct, target, token| show(name, encls(EINIT, sigstruct, target, token));
    einit("EINIT: SIGSTRUCT not aligned", sigstruct + 8, epc, token);
    einit("EINIT: SIGSTRUCT not canonical", NOT_CANONICAL, epc, token);
    einit("EINIT: SIGSTRUCT not mapped", UNMAPPED, epc, token);
    einit("EINIT: token not aligned", sigstruct, epc, token + 8);
    einit("EINIT: token not mapped", sigstruct, epc, UNMAPPED);
    einit("EINIT: target not aligned", sigstruct, epc + 8, token);
    einit("EINIT: target not mapped", sigstruct, UNMAPPED, token);
    einit("EINIT: target is no SECS", sigstruct, epc + PAGE, token);
    einit("EINIT: SIGSTRUCT of zeros", operands.zeros(), epc, token);
    einit("EINIT: another key than the hash's", sigstruct, epc, token);
    let hash = key_hash(digest(operands.modulus()));
    for (index, value) in (IA32_SGXLEPUBKEYHASH0..).zip(hash) {
        wrmsr(index, value);
    }
    einit("EINIT: the hash's key", sigstruct, epc, token);
    einit("EINIT: initialized before", sigstruct, epc, token);
    show("EREMOVE", encls(EREMOVE, 0, epc, 0));
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "rule: a panic: ends the rules");
    loop {
        core::hint::spin_loop();
    }
}
