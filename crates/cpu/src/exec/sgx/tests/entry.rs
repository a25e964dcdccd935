//! Entry, exit, asynchronous exit and resumption (SDM Vol. 3D, 36.3 and chapter 37).

use core::mem::offset_of;

use cloister_sgx::layout::GprSgx;
use cloister_sgx::{AttributeFlags, Attributes, enclu};
use cloister_x86::segment::seg;
use cloister_x86::{Gpr, Vector};
use iced_x86::code_asm::*;

use super::host::{AEP, APP, BASE, CODE, DATA, EXITED, Host, READ_ONLY, SHARED, exit, tcs_of};
use crate::exec::system::tests::kernel::{Frame, USER_CODE, USER_DATA};
use crate::testing::STACK;

/// RFLAGS.CF, PF, AF, ZF, SF and OF.
const STATUS: u64 = 0x8d5;
const RF: u64 = 1 << 16;
const SGX_BIT: u64 = 1 << 15;

/// Asserts on where an AEX left the user: at the AEP, with the registers of ERESUME.
fn assert_synthetic(host: &mut Host, frame: &Frame) {
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((frame.rip, frame.rsp), (AEP, STACK));
    assert_eq!((frame.cs, frame.ss), (u64::from(USER_CODE), u64::from(USER_DATA)));
    assert_eq!(frame.rflags & (STATUS | RF), 0);
    // RAX, RCX, RDX, RBX; then RBP, RSI, RDI.
    assert_eq!(cpu.arch.gpr.registers()[..4], [u64::from(enclu::leaf::ERESUME), AEP, 0, tcs_of(0)]);
    assert_eq!(cpu.arch.gpr.registers()[5..8], [0; 3]);
    assert_eq!(cpu.arch.gpr.registers()[8..16], [0; 8]);
    assert!(!cpu.enclave.in_enclave());
}

#[test]
fn an_enclave_is_entered_with_cssa_and_the_return_address_and_left_for_rbx() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(r8, rax)?;
        a.mov(r9, rcx)?;
        a.mov(r10, rbx)?;
        a.mov(r11, rsp)?;
        exit(a)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.rip, frame.rsp), (Vector::Ud as u8, EXITED, STACK));
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!(cpu.arch.gpr.registers()[8..12], [0, APP + 3, tcs_of(0), STACK]);
    // EEXIT: RCX is the AEP.
    assert_eq!(cpu.arch.gpr[Gpr::Rcx], AEP);
    assert!(!cpu.enclave.in_enclave());
}

#[test]
fn fs_and_gs_are_the_threads_inside_and_the_users_outside() {
    let mut host = Host::new();
    host.load(|a| {
        a.rdfsbase(r8)?;
        a.rdgsbase(r9)?;
        a.mov(r10, SHARED)?;
        a.wrfsbase(r10)?;
        exit(a)
    });
    host.enter();
    host.kernel.vcpu().cpu.arch.segs[seg::FS].base = 0x1234;
    host.kernel.vcpu().cpu.arch.segs[seg::GS].base = 0x5678;

    host.kernel.run_to_handler();

    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!(cpu.arch.gpr.registers()[8..10], [BASE, BASE]);
    assert_eq!((cpu.arch.segs[seg::FS].base, cpu.arch.segs[seg::GS].base), (0x1234, 0x5678));
}

#[test]
fn xcr0_is_xfrm_inside_and_the_users_outside() {
    let mut host = Host::new();
    host.load(|a| {
        a.xor(ecx, ecx)?;
        a.xgetbv()?;
        a.mov(r8, rax)?;
        exit(a)
    });
    let outside = host.kernel.vcpu().cpu.arch.xcr0;

    host.enter_and_run();

    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.arch.xcr0), (3, outside));
    assert_ne!(outside.bits(), 3);
}

#[test]
fn a_fault_exits_to_the_aep_and_eresume_runs_the_instruction_again() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(r8, 0x1111_2222_3333_4444_u64)?;
        a.mov(rsp, DATA + 0x800)?;
        a.mov(rbp, 0x99_u64)?;
        a.mov(rdi, READ_ONLY)?;
        a.add(r8, 1)?;
        a.mov(rax, DATA)?;
        a.mov(byte_ptr(rax), 1)?;
        exit(a)
    });
    host.map(DATA, None, 0);

    let fault = host.enter_and_run();

    assert_eq!((fault.vector, fault.error_code), (Vector::Pf as u8, Some(0b110)));
    assert_synthetic(&mut host, &fault);
    // CR2 has no offset.
    assert_eq!(host.kernel.vcpu().cpu.arch.cr2, DATA);
    let saved = |register: usize| host.saved(register * 8);
    assert_eq!((saved(8), saved(7)), (0x1111_2222_3333_4445, READ_ONLY));
    assert_eq!((saved(4), saved(5)), (DATA + 0x800, 0x99));
    assert_eq!(host.saved(offset_of!(GprSgx, ursp)), STACK);
    let rip = host.saved(offset_of!(GprSgx, rip));
    assert_eq!(host.saved(offset_of!(GprSgx, rflags)) & RF, RF);

    host.map(DATA, Some(super::host::epc_page(DATA)), 7);
    let end = host.return_and_run(&fault);

    assert_eq!((end.vector, end.rip), (Vector::Ud as u8, EXITED));
    let cpu = &host.kernel.vcpu().cpu;
    assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.arch.gpr[Gpr::Rbp]), (0x1111_2222_3333_4445, 0x99));
    assert_eq!(host.epc(DATA), 1);
    assert!(rip > CODE && rip < CODE + 0x100, "{rip:#x}");
}

#[test]
fn sse_and_x87_state_is_saved_cleared_and_restored() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(eax, 0x55)?;
        a.movd(xmm3, eax)?;
        a.fninit()?;
        a.fld1()?;
        a.ud2()?;
        a.movd(r8d, xmm3)?;
        a.fist(dword_ptr(DATA + 0x10))?;
        exit(a)
    });
    let fault = host.enter_and_run();
    let outside = host.kernel.vcpu().cpu.arch.vector.mxcsr;
    let rip = host.saved(offset_of!(GprSgx, rip));

    // A debugger steps over UD2.
    host.set_saved(offset_of!(GprSgx, rip), rip + 2);
    let end = host.return_and_run(&fault);

    assert_eq!((fault.vector, outside), (Vector::Ud as u8, 0x1fb0));
    assert_eq!((end.vector, end.rip), (Vector::Ud as u8, EXITED));
    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 0x55);
    assert_eq!(host.epc(DATA + 0x10), 1);
}

#[test]
fn an_interrupt_exits_between_two_instructions() {
    let mut host = Host::new();
    host.load(|a| {
        let mut top = a.create_label();
        a.xor(r8d, r8d)?;
        a.set_label(&mut top)?;
        a.inc(r8)?;
        a.jmp(top)
    });
    host.enter();
    let cpu = &mut host.kernel.vcpu().cpu;
    cpu.set_rflags(0x202);
    let kicker = cpu.kicker.clone();
    let interrupter = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        kicker.request_exit();
    });

    // Stopped inside, by the owner; nothing of that is seen by the guest.
    assert_eq!(host.kernel.vcpu().run(), crate::Exit::Requested);
    interrupter.join().unwrap();
    assert!(host.kernel.vcpu().cpu.enclave.in_enclave());
    let counted = host.kernel.vcpu().cpu.arch.gpr[Gpr::R8];
    let event = crate::event::Event::plain(0x40, crate::event::Kind::External);
    crate::event::deliver(&mut host.kernel.vcpu().cpu, event).unwrap();
    let frame = host.kernel.run_to_handler();

    assert_eq!(frame.vector, 0x40);
    assert_synthetic(&mut host, &frame);
    assert_eq!(host.saved(8 * 8), counted);
    assert_eq!(host.saved(offset_of!(GprSgx, exitinfo)) as u32, 0);
}

#[test]
fn a_fault_of_enclu_inside_is_an_exit_as_well() {
    for (number, name) in
        [(enclu::leaf::EENTER, "EENTER"), (enclu::leaf::ERESUME, "ERESUME"), (99, "99")]
    {
        let mut host = Host::new();
        host.load(|a| {
            a.mov(eax, number)?;
            a.enclu()
        });

        let frame = host.enter_and_run();

        assert_eq!((frame.vector, frame.error_code), (Vector::Gp as u8, Some(0)), "{name}");
        assert_synthetic(&mut host, &frame);
        assert_eq!(host.saved(offset_of!(GprSgx, rip)), CODE + 5, "{name}");
    }
}

#[test]
fn cr0_ts_is_nm_before_an_entry_and_at_enclu_inside() {
    let mut host = Host::new();
    host.load(exit);
    host.enter();
    host.kernel.vcpu().cpu.arch.cr0 |= cloister_x86::regs::Cr0::TS;

    let frame = host.kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (Vector::Nm as u8, APP));
}

#[test]
fn the_einittoken_key_is_for_the_signer_that_this_processors_hash_names() {
    let mut host = Host::new();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG | AttributeFlags::EINITTOKEN_KEY;
    // KEYREQUEST of zeros asks for the EINITTOKEN key.
    host.load_with(Attributes::new(flags, 3), |a| {
        a.mov(eax, enclu::leaf::EGETKEY)?;
        a.mov(rbx, DATA)?;
        a.mov(rcx, DATA + 0x800)?;
        a.enclu()?;
        a.mov(r8, rax)?;
        exit(a)
    });
    let mrsigner = host.kernel.vcpu().cpu.ctl.le_pubkey_hash;
    assert_ne!(mrsigner, *host.platform.default_le_hash());

    host.enter_and_run();
    let (trusted, key) = (host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], host.epc(DATA + 0x800));
    host.kernel.vcpu().cpu.ctl.le_pubkey_hash = *host.platform.default_le_hash();
    host.enter_and_run();
    let other = host.kernel.vcpu().cpu.arch.gpr[Gpr::R8];

    // SGX_INVALID_ATTRIBUTE.
    assert_eq!((trusted, other), (0, 2));
    assert_ne!(key, 0);
}

#[test]
fn init_keeps_the_launch_control_hash_and_leaves_the_enclave() {
    let mut host = Host::new();
    host.load(|a| a.mov(al, byte_ptr(crate::testing::DEVICE)));
    host.enter();
    assert!(matches!(host.kernel.vcpu().run(), crate::Exit::MmioRead { .. }));
    let cpu = &mut host.kernel.vcpu().cpu;
    assert!(cpu.enclave.in_enclave());
    let hash = cpu.ctl.le_pubkey_hash;

    cpu.init();

    assert!(!cpu.enclave.in_enclave());
    assert_eq!(cpu.ctl.le_pubkey_hash, hash);
    assert_eq!(host.epc(tcs_of(0)), 0, "the TCS is inactive");
}

#[test]
fn an_entry_point_that_is_not_executable_faults_inside_with_the_sgx_bit() {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(rax, DATA)?;
        a.jmp(rax)
    });

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.error_code), (Vector::Pf as u8, Some(SGX_BIT | 0b10101)));
    assert_synthetic(&mut host, &frame);
    assert_eq!(host.saved(offset_of!(GprSgx, rip)), DATA);
}
