//! IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT and far returns.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr4, Rflags};
use cloister_x86::segment::{Rights, Segment, seg};
use iced_x86::code_asm::*;

use super::kernel::{
    CODE64, DPL3, KERNEL_CODE, KERNEL_DATA, Kernel, PRESENT, RSP0, SPARE, USER_CODE, USER_CODE32,
    USER_DATA,
};
use crate::testing::{CODE, DATA, STACK};

const RF: u64 = Rflags::RF.bits();
const IF: u64 = Rflags::IF.bits();
const NT: u64 = Rflags::NT.bits();
const IOPL: u64 = 0x3000;
/// Where tests return to.
const TARGET: u64 = 0x9000;
const USER_STACK: u64 = 0x3_0000;

/// A kernel that executes IRETQ with this frame; a HLT is at the target.
fn iretq(kernel: &mut Kernel, frame: [u64; 5]) {
    kernel.assemble(|a| a.iretq());
    kernel.guest.write(TARGET, &[0xf4]);
    for (n, value) in frame.into_iter().enumerate() {
        kernel.guest.write_u64(STACK + n as u64 * 8, value);
    }
}

#[test]
fn iretq_to_the_user_loads_flags_stack_and_invalidates_kernel_segments() {
    let mut kernel = Kernel::new();
    let flags = 2 | IF | IOPL | Rflags::CF.bits();
    iretq(&mut kernel, [TARGET, USER_CODE.into(), flags, USER_STACK, USER_DATA.into()]);

    // HLT at CPL 3 is #GP.
    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip, frame.cs), (13, TARGET, USER_CODE.into()));
    assert_eq!((frame.rflags, frame.rsp, frame.ss), (flags | RF, USER_STACK, USER_DATA.into()));
    let cpu = &kernel.vcpu().cpu;
    assert_eq!(cpu.arch.segs[seg::DS].selector, 0);
    assert!(cpu.arch.segs[seg::DS].rights.unusable());
    assert_eq!(cpu.arch.gpr[Gpr::Rsp], RSP0 - 48);
}

/// DS, ES, FS and GS with null selectors, of which `rpl` is the RPL, and bases.
fn load_null_selectors(kernel: &mut Kernel, rpl: u16) {
    for index in [seg::ES, seg::FS, seg::GS, seg::DS] {
        let rights = Rights(Rights::UNUSABLE);
        let base = 0x1000 * index as u64;
        kernel.vcpu().cpu.arch.segs[index] = Segment { selector: rpl, base, limit: 0, rights };
    }
}

#[test]
fn returns_to_an_outer_level_make_null_selectors_zero_and_keep_their_bases() {
    for rpl in 1..=3 {
        for far in [false, true] {
            let mut kernel = Kernel::new();
            let [code, data] = [USER_CODE, USER_DATA].map(u64::from);
            iretq(&mut kernel, [TARGET, code, 2, USER_STACK, data]);
            if far {
                kernel.guest.load_code(&[0x48, 0xcb]);
                for (n, value) in [TARGET, code, USER_STACK, data].into_iter().enumerate() {
                    kernel.guest.write_u64(STACK + n as u64 * 8, value);
                }
            }
            load_null_selectors(&mut kernel, rpl);

            let frame = kernel.run_to_handler();

            assert_eq!((frame.rip, frame.cs), (TARGET, code), "far: {far}");
            for index in [seg::ES, seg::FS, seg::GS, seg::DS] {
                let segment = kernel.vcpu().cpu.arch.segs[index];
                assert_eq!((segment.selector, segment.base), (0, 0x1000 * index as u64));
                assert!(segment.rights.unusable());
            }
        }
    }
}

#[test]
fn a_return_to_the_same_level_keeps_null_selectors() {
    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, KERNEL_CODE.into(), 2, USER_STACK, KERNEL_DATA.into()]);
    load_null_selectors(&mut kernel, 3);

    kernel.vcpu().run();

    assert_eq!(kernel.vcpu().cpu.arch.segs[seg::DS].selector, 3);
}

#[test]
fn iretq_to_the_same_level_pops_the_stack_pointer_too() {
    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, KERNEL_CODE.into(), 2, USER_STACK, KERNEL_DATA.into()]);

    kernel.vcpu().run();

    let cpu = &kernel.vcpu().cpu;
    assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp]), (TARGET + 1, USER_STACK));
    assert_eq!(cpu.arch.segs[seg::DS].selector, KERNEL_DATA);
}

#[test]
fn iretq_to_64_bit_kernel_code_accepts_a_null_stack_segment_and_to_user_code_does_not() {
    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, KERNEL_CODE.into(), 2, USER_STACK, 0]);
    kernel.vcpu().run();
    assert_eq!(kernel.vcpu().cpu.arch.rip, TARGET + 1);

    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, USER_CODE.into(), 2, USER_STACK, 3]);
    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.error_code, frame.rip), (13, Some(0), CODE));
}

#[test]
fn iretq_to_compatibility_mode_runs_32_bit_code() {
    let mut kernel = Kernel::new();
    iretq(
        &mut kernel,
        [0xdead_0000_0000 | TARGET, USER_CODE32.into(), 2, USER_STACK, USER_DATA.into()],
    );
    // 48H is DEC EAX in 32-bit code, a REX prefix in 64-bit code.
    kernel.guest.write(TARGET, &[0x48, 0xcd, 0x80]);
    kernel.vcpu().cpu.arch.gpr[Gpr::Rax] = 0;

    let frame = kernel.run_to_handler();

    // INT 80H through a gate of DPL 0.
    assert_eq!((frame.vector, frame.error_code), (13, Some(0x80 << 3 | 2)));
    assert_eq!((frame.rip, frame.cs), (TARGET + 1, USER_CODE32.into()));
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 0xffff_ffff);
}

#[test]
fn iretq_faults_on_what_it_may_not_load() {
    let spare = u64::from(SPARE);
    let (code, data) = (u64::from(USER_CODE), u64::from(USER_DATA));
    // (descriptor at SPARE, frame, vector, error code)
    for (descriptor, frame, vector, error) in [
        (0, [TARGET, 0, 2, USER_STACK, data], 13, 0),
        (0, [TARGET, 0xff8, 2, USER_STACK, data], 13, 0xff8),
        (0, [1 << 47, code, 2, USER_STACK, data], 13, 0),
        // CS is data; RPL and DPL differ; absent.
        (super::kernel::DATA, [TARGET, spare, 2, USER_STACK, data], 13, spare),
        (CODE64, [TARGET, spare | 3, 2, USER_STACK, data], 13, spare),
        ((CODE64 | DPL3) & !PRESENT, [TARGET, spare | 3, 2, USER_STACK, data], 11, spare),
        // L and D both set.
        (CODE64 | DPL3 | 1 << 54, [TARGET, spare | 3, 2, USER_STACK, data], 13, spare),
        // SS: kernel's, wrong RPL, absent.
        (0, [TARGET, code, 2, USER_STACK, 0x10], 13, 0x10),
        (0, [TARGET, code, 2, USER_STACK, data & !3], 13, data & !3),
        (
            (super::kernel::DATA | DPL3) & !PRESENT,
            [TARGET, code, 2, USER_STACK, spare | 3],
            12,
            spare,
        ),
    ] {
        let mut kernel = Kernel::new();
        kernel.set_descriptor(SPARE, descriptor);
        iretq(&mut kernel, frame);

        let fault = kernel.run_to_handler();

        assert_eq!(
            (fault.vector, fault.error_code, fault.rip, fault.rsp),
            (vector, Some(error), CODE, STACK),
            "{frame:x?}"
        );
    }
}

#[test]
fn iret_with_nt_set_is_a_general_protection_fault_in_long_mode() {
    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, KERNEL_CODE.into(), 2, STACK, 0]);
    kernel.vcpu().cpu.set_rflags(2 | NT);

    assert_eq!(kernel.run_to_handler().vector, 13);
}

#[test]
fn iret_of_the_user_changes_neither_iopl_nor_if() {
    let mut kernel = Kernel::new();
    iretq(&mut kernel, [TARGET, USER_CODE.into(), 2 | IOPL, USER_STACK, USER_DATA.into()]);
    kernel.set_level(3);
    kernel.vcpu().cpu.set_rflags(2 | IF);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.rip, frame.rflags & (IF | IOPL)), (TARGET, IF));
}

#[test]
fn with_pvi_the_user_has_vif_for_its_interrupt_flag() {
    const VIF: u64 = Rflags::VIF.bits();
    const VIP: u64 = Rflags::VIP.bits();
    for (pvi, flags, code, expected) in [
        (true, 0, 0xfb, (6, VIF)),
        (true, VIF, 0xfa, (6, 0)),
        (true, VIP, 0xfb, (13, VIP)),
        (false, 0, 0xfb, (13, 0)),
        (false, VIF, 0xfa, (13, VIF)),
    ] {
        let mut kernel = Kernel::new();
        // STI or CLI; UD2
        kernel.guest.write(CODE, &[code, 0x0f, 0x0b]);
        kernel.set_level(3);
        let cpu = &mut kernel.vcpu().cpu;
        cpu.arch.cr4.set(Cr4::PVI, pvi);
        cpu.set_rflags(2 | flags);

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rflags & (VIF | VIP | IF)), expected, "{code:#x}");
    }
}

#[test]
fn syscall_saves_rip_and_flags_and_enters_the_kernel() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.syscall());
    kernel.guest.write(TARGET, &[0xf4]);
    kernel.set_level(3);
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.msrs.star = u64::from(KERNEL_CODE) << 32;
    cpu.arch.msrs.lstar = TARGET;
    cpu.arch.msrs.fmask = IF | Rflags::DF.bits();
    let flags = 2 | IF | Rflags::DF.bits() | Rflags::CF.bits();
    cpu.set_rflags(flags);

    kernel.vcpu().run();

    let cpu = &kernel.vcpu().cpu;
    assert_eq!(
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::R11]),
        (TARGET + 1, CODE + 2, flags)
    );
    assert_eq!(
        (cpu.arch.cpl, cpu.rflags(), cpu.arch.gpr[Gpr::Rsp]),
        (0, 2 | Rflags::CF.bits(), STACK)
    );
    assert_eq!((cpu.arch.segs[seg::CS].selector, cpu.arch.segs[seg::SS].selector), (8, 16));
}

#[test]
fn sysret_returns_to_64_bit_and_to_32_bit_code() {
    for wide in [true, false] {
        let mut kernel = Kernel::new();
        kernel.assemble(|a| if wide { a.sysretq() } else { a.sysret() });
        kernel.guest.write(TARGET, &[0xf4]);
        let cpu = &mut kernel.vcpu().cpu;
        cpu.arch.msrs.star = u64::from(USER_CODE32) << 48;
        cpu.arch.gpr[Gpr::Rcx] = TARGET;
        cpu.arch.gpr[Gpr::R11] = 0xffff_ffff_ffff_fc97 & !Rflags::TF.bits();

        let frame = kernel.run_to_handler();

        let selector = if wide { USER_CODE } else { USER_CODE32 };
        assert_eq!(
            (frame.vector, frame.rip, frame.cs, frame.ss),
            (13, TARGET, selector.into(), 0x23)
        );
        // RF and VM are not loaded.
        assert_eq!(frame.rflags, 0x003c_7c97 & !Rflags::TF.bits() | 2 | RF);
    }
}

#[test]
fn sysret_to_a_non_canonical_address_faults_in_the_kernel() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.sysretq());
    kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = 1 << 47;

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.cs, frame.rip), (13, KERNEL_CODE.into(), CODE));
}

#[test]
fn syscall_without_sce_or_in_compatibility_mode_is_undefined() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.syscall());
    kernel.vcpu().cpu.arch.efer.remove(cloister_x86::regs::Efer::SCE);
    assert_eq!(kernel.run_to_handler().vector, 6);

    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.syscall());
    kernel.set_level(3);
    kernel.vcpu().cpu.arch.segs[seg::CS].rights.0 = 0xc0fb;
    kernel.vcpu().cpu.update_mode();
    assert_eq!(kernel.run_to_handler().vector, 6);
}

#[test]
fn sysenter_and_sysexit_use_their_msrs_and_registers() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.sysenter());
    kernel.guest.assemble_at(TARGET, 64, |a| a.sysexitq());
    kernel.guest.write(0x9800, &[0xf4]);
    kernel.set_level(3);
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.msrs.sysenter_cs = KERNEL_CODE.into();
    cpu.arch.msrs.sysenter_eip = TARGET;
    cpu.arch.msrs.sysenter_esp = RSP0;
    cpu.arch.gpr[Gpr::Rcx] = USER_STACK;
    cpu.arch.gpr[Gpr::Rdx] = 0x9800;
    cpu.set_rflags(2 | IF);

    let frame = kernel.run_to_handler();

    // SYSEXIT's 64-bit selectors are the base plus 32 and 40.
    assert_eq!((frame.vector, frame.rip, frame.rsp), (13, 0x9800, USER_STACK));
    assert_eq!(
        (frame.cs, frame.ss),
        ((u64::from(KERNEL_CODE) + 32) | 3, (u64::from(KERNEL_CODE) + 40) | 3)
    );
    assert_eq!(frame.rflags & IF, 0);
}

#[test]
fn sysenter_without_a_code_segment_faults() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.sysenter());

    assert_eq!(kernel.run_to_handler().vector, 13);
}

#[test]
fn a_far_call_and_return_keep_the_level() {
    let mut kernel = Kernel::new();
    kernel.guest.write_u64(DATA, TARGET | u64::from(KERNEL_CODE) << 32);
    // lcall [rdi] with a 32-bit offset.
    kernel.guest.load_code(&[0xff, 0x1f, 0xf4]);
    kernel.guest.assemble_at(TARGET, 64, |a| {
        a.mov(rbx, rsp)?;
        a.db(&[0xcb])
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;

    kernel.vcpu().run();

    let cpu = &kernel.vcpu().cpu;
    assert_eq!(
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp], cpu.arch.gpr[Gpr::Rbx]),
        (CODE + 3, STACK, STACK - 8)
    );
    assert_eq!(kernel.guest.read_u64(STACK - 8), u64::from(KERNEL_CODE) << 32 | (CODE + 2));
}

#[test]
fn a_call_gate_leads_to_the_kernel_and_a_far_return_back() {
    let mut kernel = Kernel::new();
    let gate = (TARGET & 0xffff) | u64::from(KERNEL_CODE) << 16 | 0xec00 << 32;
    kernel.set_descriptor(SPARE, gate);
    kernel.set_descriptor(SPARE + 8, 0);
    kernel.guest.write_u64(DATA, u64::from(SPARE | 3) << 32);
    kernel.guest.load_code(&[0xff, 0x1f, 0xf4]);
    kernel.guest.assemble_at(TARGET, 64, |a| {
        a.mov(rbx, rsp)?;
        a.mov(ecx, cs)?;
        a.mov(r8, qword_ptr(rsp))?;
        a.mov(r9, qword_ptr(rsp + 8))?;
        a.mov(r10, qword_ptr(rsp + 16))?;
        a.mov(r11, qword_ptr(rsp + 24))?;
        a.db(&[0x48, 0xcb])
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.set_level(3);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip, frame.cs), (13, CODE + 2, USER_CODE.into()));
    assert_eq!((frame.rsp, frame.ss), (STACK, USER_DATA.into()));
    let cpu = &kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::Rbx], cpu.arch.gpr[Gpr::Rcx] as u16), (RSP0 - 32, KERNEL_CODE));
    assert_eq!(
        cpu.arch.gpr.registers()[8..12],
        [CODE + 2, USER_CODE.into(), STACK, USER_DATA.into()]
    );
}

#[test]
fn a_call_gate_of_a_lower_level_than_the_callers_is_refused() {
    let mut kernel = Kernel::new();
    kernel.set_descriptor(SPARE, (TARGET & 0xffff) | u64::from(KERNEL_CODE) << 16 | 0x8c00 << 32);
    kernel.guest.write_u64(DATA, u64::from(SPARE | 3) << 32);
    kernel.guest.load_code(&[0xff, 0x1f]);
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.set_level(3);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (13, Some(SPARE.into())));
}
