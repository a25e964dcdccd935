//! Breakpoints, INT1, INT3 and RF in enclaves (SDM Vol. 3D, 40.3 and 40.4).

use core::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu;
use cloister_sgx::layout::GprSgx;
use cloister_x86::regs::Rflags;
use cloister_x86::{Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::host::{
    AEP, APP, BASE, CODE, DATA, EXITED, Host, SECS, SHARED, SIGSTRUCT, SIZE, STUB, TOKEN, exit,
    tcs_of, window,
};
use crate::exec::system::tests::kernel::Frame;
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::testing::DEVICE;

const RF: u64 = Rflags::RF.bits();
const DB: u8 = Vector::Db as u8;
const UD: u8 = Vector::Ud as u8;
const CLEAR: u64 = 0xffff_0ff0;
/// DR7: breakpoints 0 and 1 enabled; each with these conditions.
const G0: u64 = 2;
const G1: u64 = 8;
const READ_WRITE_0: u64 = 3 << 16;
const LEN4_0: u64 = 3 << 18;

const RIP: usize = offset_of!(GprSgx, rip);
const RFLAGS: usize = offset_of!(GprSgx, rflags);
const EXITINFO: usize = offset_of!(GprSgx, exitinfo);

fn host(opt_in: bool, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Host {
    let mut host = Host::new();
    host.load(code);
    if opt_in {
        host.opt_in();
    }
    host
}

/// Enters with breakpoint 0 at `at`, of the kind that `control`, the value of DR7, says.
fn enter_with(host: &mut Host, at: u64, control: u64) -> Frame {
    host.enter();
    let cpu = &mut host.kernel.vcpu().cpu;
    cpu.arch.dr[0] = at;
    cpu.write_dr7(control);
    host.kernel.run_to_handler()
}

#[test]
fn opted_out_instruction_breakpoints_inside_are_suppressed_and_not_reported() {
    let mut host = host(false, |a| {
        a.inc(r8)?;
        exit(a)
    });

    let frame = enter_with(&mut host, CODE, G0);

    assert_eq!((frame.vector, frame.rip), (UD, EXITED));
    assert_eq!(
        (host.kernel.vcpu().cpu.arch.dr6, host.kernel.vcpu().cpu.arch.gpr[Gpr::R8]),
        (CLEAR, 1)
    );
}

#[test]
fn opted_out_instruction_breakpoints_outside_hit_before_and_after() {
    for (at, rip) in [(APP, APP), (EXITED, EXITED)] {
        let mut host = host(false, exit);

        let frame = enter_with(&mut host, at, G0);

        assert_eq!((frame.vector, frame.rip), (DB, rip));
        assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | 1);
    }
}

#[test]
fn opted_in_an_instruction_breakpoint_faults_and_rf_in_the_ssa_lets_it_pass_once() {
    let mut host = host(true, |a| {
        a.inc(r8)?;
        a.inc(r9)?;
        a.jmp(CODE)
    });

    let hit = enter_with(&mut host, CODE + 3, G0);
    let (rip, rflags) = (host.saved(RIP), host.saved(RFLAGS));
    assert_eq!((hit.vector, hit.rip, hit.rflags & RF), (DB, AEP, 0));
    assert_eq!((rip, rflags & RF), (CODE + 3, 0));
    assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | 1);

    // Without RF it hits at once; with it, when the loop comes by again.
    let again = host.return_and_run(&hit);
    assert_eq!((again.vector, host.saved(RIP), host.saved(9 * 8)), (DB, CODE + 3, 0));
    host.set_saved(RFLAGS, rflags | RF);
    let passed = host.return_and_run(&again);
    assert_eq!((passed.vector, host.saved(RIP), host.saved(9 * 8)), (DB, CODE + 3, 1));
    assert_eq!(host.saved(8 * 8), 2);
    assert_eq!(host.saved(RFLAGS) & RF, 0);
}

#[test]
fn rf_from_the_ssa_lasts_for_one_instruction_also_without_breakpoints() {
    let mut host = host(false, |a| {
        a.ud2()?;
        a.inc(r8)?;
        a.inc(r8)?;
        a.mov(al, byte_ptr(DEVICE))
    });
    let fault = host.enter_and_run();
    assert_eq!(host.saved(RFLAGS) & RF, RF);
    host.set_saved(RIP, CODE + 2);

    host.return_from(&fault);
    assert!(matches!(host.kernel.vcpu().run(), crate::Exit::MmioRead { .. }));

    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.rflags() & RF), (2, 0));
}

#[test]
fn data_breakpoints_in_elrange_hit_opted_in_alone_and_outside_it_always() {
    for (opt_in, at, hits) in
        [(false, DATA, false), (true, DATA, true), (false, SHARED, true), (true, SHARED, true)]
    {
        let mut host = host(opt_in, |a| {
            a.mov(rdi, at)?;
            a.inc(dword_ptr(rdi))?;
            a.inc(r8)?;
            exit(a)
        });

        let frame = enter_with(&mut host, at, G0 | READ_WRITE_0 | LEN4_0);

        if hits {
            assert_eq!((frame.vector, frame.rip), (DB, AEP), "{opt_in}, {at:#x}");
            assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | 1);
            assert_eq!(host.saved(8 * 8), 0);
        } else {
            assert_eq!((frame.vector, frame.rip), (UD, EXITED), "{opt_in}, {at:#x}");
            assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR);
        }
    }
}

#[test]
fn of_an_access_across_the_border_of_elrange_the_part_outside_counts_opted_out() {
    // (breakpoint of four bytes, access of eight bytes, hits)
    for (point, la, hits) in [
        (BASE - 4, BASE - 4, true),
        (BASE, BASE - 4, false),
        (BASE + SIZE - 4, BASE + SIZE - 4, false),
        (BASE + SIZE, BASE + SIZE - 4, true),
        (BASE + SIZE, BASE + SIZE, true),
        (BASE + SIZE - 4, BASE + SIZE - 8, false),
    ] {
        let mut host = host(false, |a| a.mov(al, byte_ptr(DEVICE)));
        host.enter();
        assert!(matches!(host.kernel.vcpu().run(), crate::Exit::MmioRead { .. }));
        let cpu = &mut host.kernel.vcpu().cpu;
        cpu.arch.dr[0] = point;
        cpu.write_dr7(G0 | READ_WRITE_0 | LEN4_0);

        cpu.check_access(la, 8, AccessKind::Read, MmuMode::Enclave).unwrap();

        assert_eq!(cpu.arch.debug_pending == 1, hits, "{point:#x}, {la:#x}");
    }
}

#[test]
fn a_trap_reports_an_instruction_breakpoint_at_the_aep_as_well() {
    let mut host = host(true, |a| {
        a.mov(rdi, DATA)?;
        a.inc(dword_ptr(rdi))?;
        exit(a)
    });
    host.kernel.vcpu().cpu.arch.dr[1] = AEP;

    let frame = enter_with(&mut host, DATA, G0 | G1 | READ_WRITE_0 | LEN4_0);

    assert_eq!((frame.vector, frame.rip), (DB, AEP));
    assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR | 0b11);
}

#[test]
fn int3_and_int1_opted_in_are_faults_whatever_the_gates_dpl() {
    // EXITINFO: a software exception for INT3, a hardware exception for INT1.
    for (code, vector, exitinfo) in [(0xcc_u8, 3, 0x8000_0603_u32), (0xf1, 1, 0x8000_0301)] {
        let mut host = host(true, |a| {
            a.inc(r8)?;
            a.db(&[code])?;
            exit(a)
        });

        let frame = host.enter_and_run();

        assert_eq!((frame.vector, frame.rip), (vector, AEP));
        assert_eq!((host.saved(RIP), host.saved(8 * 8)), (CODE + 3, 1));
        assert_eq!((host.saved(RFLAGS) | frame.rflags) & RF, 0);
        assert_eq!(host.saved(EXITINFO) as u32, exitinfo);
        assert_eq!(host.kernel.vcpu().cpu.arch.dr6, CLEAR);
    }
}

#[test]
fn egetkey_and_ereport_trigger_data_breakpoints_on_their_epc_operands_opted_in_alone() {
    let output = DATA + 0x800;
    for (opt_in, hits) in [(true, true), (false, false)] {
        for number in [enclu::leaf::EGETKEY, enclu::leaf::EREPORT] {
            // The operand that RBX names, inside it, and after what EGETKEY reads.
            for (point, other) in [(DATA, false), (DATA + 0x1fc, false), (DATA + 0x300, true)] {
                let mut host = host(opt_in, |a| {
                    a.mov(rbx, DATA)?;
                    a.lea(rcx, qword_ptr(rbx + 0x400))?;
                    a.mov(rdx, output)?;
                    a.mov(eax, number)?;
                    a.enclu()?;
                    exit(a)
                });

                let frame = enter_with(&mut host, point, G0 | READ_WRITE_0 | LEN4_0);

                let name = format!("{opt_in}, leaf {number}, {point:#x}");
                if hits && !other {
                    assert_eq!((frame.vector, frame.rip), (DB, AEP), "{name}");
                } else {
                    assert_eq!((frame.vector, frame.rip), (UD, EXITED), "{name}");
                }
            }
        }
    }
}

#[test]
fn entry_triggers_no_data_breakpoint_on_the_tcs() {
    for opt_in in [false, true] {
        let mut host = host(opt_in, exit);

        let frame = enter_with(&mut host, tcs_of(0), G0 | READ_WRITE_0 | LEN4_0);

        assert_eq!((frame.vector, frame.rip), (UD, EXITED));
    }
}

#[test]
fn encls_triggers_data_breakpoints_on_its_ordinary_operands_alone() {
    for (point, hits) in [(SIGSTRUCT + 0x80, true), (TOKEN + 4, true), (window(SECS) + 0x40, false)]
    {
        let mut host = host(false, exit);
        // EINIT reads its operands and refuses the signature's header.
        host.kernel.guest.write(SIGSTRUCT, &[0]);
        host.kernel.wake();
        host.kernel.set_level(0);
        let cpu = &mut host.kernel.vcpu().cpu;
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax]) = (STUB, u64::from(leaf::EINIT));
        (cpu.arch.gpr[Gpr::Rbx], cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::Rdx]) =
            (SIGSTRUCT, window(SECS), TOKEN);
        cpu.arch.dr[0] = point;
        cpu.write_dr7(G0 | READ_WRITE_0 | LEN4_0);

        assert_eq!(host.kernel.vcpu().run(), crate::Exit::Hlt);

        // SGX_INVALID_SIG_STRUCT either way: a trap comes after the instruction.
        assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 1);
        if hits {
            let frame = host.kernel.frame();
            assert_eq!((frame.vector, frame.rip), (DB, STUB + 3), "{point:#x}");
        } else {
            assert_eq!(host.kernel.vcpu().cpu.arch.rip, STUB + 4, "{point:#x}");
        }
    }
}
