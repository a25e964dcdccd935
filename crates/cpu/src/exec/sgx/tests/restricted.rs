//! Instructions that change their behaviour inside an enclave (SDM Vol. 3D, 36.6).

use core::mem::offset_of;

use cloister_sgx::layout::GprSgx;
use cloister_x86::Vector;
use cloister_x86::regs::Cr4;

use super::host::{AEP, CODE, EXITED, Host, exit};

/// Runs machine code in an enclave: the vector that ends it, and how far RIP is into the code if
/// that was an exit.
fn run(code: &[u8], change: impl FnOnce(&mut Host)) -> (u8, Option<u64>) {
    let mut host = Host::new();
    host.load(|a| {
        a.db(code)?;
        exit(a)
    });
    host.enter();
    change(&mut host);

    let frame = host.kernel.run_to_handler();

    if frame.rip == EXITED {
        return (frame.vector, None);
    }
    assert_eq!(frame.rip, AEP, "{code:02x?}");
    (frame.vector, Some(host.saved(offset_of!(GprSgx, rip)) - CODE))
}

const UD: (u8, Option<u64>) = (Vector::Ud as u8, Some(0));
const COMPLETED: (u8, Option<u64>) = (Vector::Ud as u8, None);

#[test]
fn illegal_instructions_are_ud_at_any_iopl() {
    let cases: &[(&str, &[u8])] = &[
        ("CPUID", &[0x0f, 0xa2]),
        ("GETSEC", &[0x0f, 0x37]),
        ("RDPMC", &[0x0f, 0x33]),
        ("SGDT", &[0x0f, 0x01, 0x04, 0x24]),
        ("SIDT", &[0x0f, 0x01, 0x0c, 0x24]),
        ("SLDT", &[0x0f, 0x00, 0xc0]),
        ("STR", &[0x0f, 0x00, 0xc8]),
        ("SMSW", &[0x0f, 0x01, 0xe0]),
        ("VMCALL", &[0x0f, 0x01, 0xc1]),
        ("VMFUNC", &[0x0f, 0x01, 0xd4]),
        ("IN AL, imm", &[0xe4, 0x80]),
        ("IN EAX, DX", &[0xed]),
        ("INSB", &[0x6c]),
        ("INSD", &[0x6d]),
        ("OUT imm, AL", &[0xe6, 0x80]),
        ("OUT DX, EAX", &[0xef]),
        ("OUTSB", &[0x6e]),
        ("OUTSD", &[0x6f]),
        ("far CALL", &[0xff, 0x1c, 0x24]),
        ("far JMP", &[0xff, 0x2c, 0x24]),
        ("far RET", &[0xcb]),
        ("far RET imm", &[0xca, 0x08, 0x00]),
        ("INT", &[0xcd, 0x80]),
        ("INT 3 of two bytes", &[0xcd, 0x03]),
        ("IRET", &[0x48, 0xcf]),
        ("LSS", &[0x0f, 0xb2, 0x04, 0x24]),
        ("LFS", &[0x0f, 0xb4, 0x04, 0x24]),
        ("LGS", &[0x0f, 0xb5, 0x04, 0x24]),
        ("MOV DS", &[0x8e, 0xd8]),
        ("MOV ES", &[0x8e, 0xc0]),
        ("MOV SS", &[0x8e, 0xd0]),
        ("MOV FS", &[0x8e, 0xe0]),
        ("MOV GS from memory", &[0x8e, 0x2c, 0x24]),
        ("POP FS", &[0x0f, 0xa1]),
        ("POP GS", &[0x0f, 0xa9]),
        ("SYSCALL", &[0x0f, 0x05]),
        ("SYSENTER", &[0x0f, 0x34]),
        ("SYSRET", &[0x0f, 0x07]),
        ("SYSRET to 64-bit code", &[0x48, 0x0f, 0x07]),
        ("SYSEXIT", &[0x0f, 0x35]),
        ("SYSEXIT to 64-bit code", &[0x48, 0x0f, 0x35]),
        ("INT3, opted out", &[0xcc]),
        ("INT1, opted out", &[0xf1]),
        ("ENCLS", &[0x0f, 0x01, 0xcf]),
        ("ENCLV", &[0x0f, 0x01, 0xc0]),
    ];
    for (name, code) in cases {
        for iopl in [0, 3 << 12] {
            let outcome = run(code, |host| host.kernel.vcpu().cpu.set_rflags(2 | iopl));

            assert_eq!(outcome, UD, "{name}, IOPL {iopl:#x}");
        }
    }
}

#[test]
fn instructions_that_only_look_dangerous_work() {
    let cases: &[(&str, &[u8])] = &[
        ("RDTSC", &[0x0f, 0x31]),
        ("RDTSCP", &[0x0f, 0x01, 0xf9]),
        ("RDRAND", &[0x0f, 0xc7, 0xf0]),
        ("RDSEED", &[0x0f, 0xc7, 0xf8]),
        ("RDFSBASE", &[0xf3, 0x48, 0x0f, 0xae, 0xc0]),
        ("WRGSBASE", &[0xf3, 0x48, 0x0f, 0xae, 0xd8]),
        ("MOV from DS", &[0x8c, 0xd8]),
        ("LAR", &[0x0f, 0x02, 0xc0]),
        ("VERR", &[0x0f, 0x00, 0xe0]),
        ("PAUSE", &[0xf3, 0x90]),
        ("LFENCE", &[0x0f, 0xae, 0xe8]),
    ];
    for (name, code) in cases {
        assert_eq!(run(code, |_| {}), COMPLETED, "{name}");
    }
}

#[test]
fn privileged_instructions_are_gp_as_outside() {
    let gp = (Vector::Gp as u8, Some(0));
    let cases: &[(&str, &[u8])] = &[
        ("HLT", &[0xf4]),
        ("MOV CR0", &[0x0f, 0x22, 0xc0]),
        ("MOV DR7", &[0x0f, 0x23, 0xf8]),
        ("RDMSR", &[0x0f, 0x32]),
        ("CLI", &[0xfa]),
        ("LGDT", &[0x0f, 0x01, 0x14, 0x24]),
        ("INVLPG", &[0x0f, 0x01, 0x3c, 0x24]),
        ("XSETBV", &[0x0f, 0x01, 0xd1]),
    ];
    for (name, code) in cases {
        assert_eq!(run(code, |_| {}), gp, "{name}");
    }
}

#[test]
fn rdtsc_obeys_tsd() {
    let tsd = |host: &mut Host| host.kernel.vcpu().cpu.arch.cr4 |= Cr4::TSD;

    assert_eq!(run(&[0x0f, 0x31], tsd), (Vector::Gp as u8, Some(0)));
}
