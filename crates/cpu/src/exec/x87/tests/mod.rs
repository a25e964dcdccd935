//! What the comparison with the host's user mode cannot reach: pending exceptions, CR0, and the
//! environment's layouts.

use cloister_float::F80;
use cloister_x86::regs::Cr0;
use cloister_x86::{Exception, Gpr, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::testing::{CODE, DATA, Ending, Guest, Start};

/// #UD of the instruction after the code: everything before it retired.
const RETIRED: Ending = Ending::Exception(Exception::ud());

/// The status word with IE, ES and B.
const INVALID_PENDING: u16 = 0x8081;

fn words<const N: usize>(guest: &Guest, address: u64) -> [u16; N] {
    std::array::from_fn(|n| u16::from_le_bytes(guest.read(address + 2 * n as u64)))
}

fn dwords<const N: usize>(guest: &Guest, address: u64) -> [u32; N] {
    std::array::from_fn(|n| u32::from_le_bytes(guest.read(address + 4 * n as u64)))
}

/// Leaves an unmasked stack underflow pending: FADD m32 on an empty stack, at CODE + 10.
fn underflow_from_memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.fninit()?;
    a.mov(word_ptr(ebx), 0x37e)?;
    a.fldcw(word_ptr(ebx))?;
    a.fadd(dword_ptr(ebx + 8))
}

#[test]
fn a_pending_exception_faults_the_next_waiting_instruction() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.mov(ebx, DATA as u32)?;
        underflow_from_memory(a)?;
        a.fnstsw(ax)?;
        a.fld1()
    });

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::new(Vector::Mf)));
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax] as u16, INVALID_PENDING | 0x40);
}

#[test]
fn fwait_reports_a_pending_exception_and_fnclex_drops_it() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.mov(ebx, DATA as u32)?;
        underflow_from_memory(a)?;
        a.fnclex()?;
        a.wait()?;
        underflow_from_memory(a)?;
        a.wait()
    });

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::new(Vector::Mf)));
}

#[test]
fn unmasking_a_recorded_exception_makes_it_pending() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.fninit()?;
        a.mov(ebx, DATA as u32)?;
        // 1 / 0 with ZE masked.
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        a.mov(word_ptr(ebx), 0x37b)?;
        a.fldcw(word_ptr(ebx))?;
        a.fnstsw(ax)
    });

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax] as u16 & 0x8084, 0x8084);
}

#[test]
fn emulation_and_task_switched_make_the_device_unavailable() {
    for bit in [Cr0::EM, Cr0::TS] {
        let mut guest = Guest::new(Start::Kernel64);
        guest.vcpu.cpu.arch.cr0 |= bit;
        guest.assemble(|a| a.fninit());

        let ending = guest.run();

        assert_eq!(ending, Ending::Exception(Exception::new(Vector::Nm)));
    }
}

#[test]
fn fwait_heeds_task_switched_only_with_monitor_coprocessor() {
    let mut alone = Guest::new(Start::Kernel64);
    alone.vcpu.cpu.arch.cr0 |= Cr0::TS;
    alone.assemble(|a| a.wait());
    let mut both = Guest::new(Start::Kernel64);
    both.vcpu.cpu.arch.cr0 |= Cr0::TS | Cr0::MP;
    both.assemble(|a| a.wait());

    let endings = (alone.run(), both.run());

    assert_eq!(endings, (RETIRED, Ending::Exception(Exception::new(Vector::Nm))));
}

#[test]
fn the_protected_32_bit_environment_has_pointers_and_opcode_and_masks_all() {
    let mut guest = Guest::new(Start::Flat32);
    guest.assemble(|a| {
        a.mov(ebx, DATA as u32)?;
        underflow_from_memory(a)?;
        a.fnstenv(ptr(ebx + 0x40))?;
        a.fnstcw(word_ptr(ebx + 0x100))
    });
    let fadd = CODE as u32 + 5 + 2 + 5 + 2;

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    assert_eq!(
        dwords::<7>(&guest, DATA + 0x40),
        [
            0xffff_037e,
            0xffff_0000 | u32::from(INVALID_PENDING | 0x40),
            0xffff_ffff,
            fadd,
            // D8 43: the last three bits of the escape, then ModRM.
            0x043 << 16,
            DATA as u32 + 8,
            0xffff_0000,
        ]
    );
    assert_eq!(words::<1>(&guest, DATA + 0x100), [0x37f]);
}

#[test]
fn the_real_mode_16_bit_environment_has_linear_pointers() {
    let mut guest = Guest::new(Start::Real16);
    guest.vcpu.cpu.arch.fpu.fip = 0xa_1234;
    guest.vcpu.cpu.arch.fpu.fdp = 0xb_5678;
    guest.vcpu.cpu.arch.fpu.fop = 0x7ab;
    guest.vcpu.cpu.arch.fpu.set_control_word(0x37f);
    guest.assemble(|a| {
        a.mov(bx, 0x3000)?;
        a.fnstenv(ptr(bx))
    });

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    assert_eq!(words::<7>(&guest, 0x3000), [0x37f, 0, 0x5555, 0x1234, 0xa7ab, 0x5678, 0xb000]);
}

#[test]
fn frstor_brings_back_what_fnsave_took() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.fninit()?;
        a.fldpi()?;
        a.fldz()?;
        a.fld1()?;
        a.ffree(st2)?;
        a.mov(ebx, DATA as u32)?;
        a.fnsave(ptr(rbx))?;
        a.fld1()?;
        a.frstor(ptr(rbx))
    });

    let ending = guest.run();

    assert_eq!(ending, RETIRED);
    let fpu = &guest.vcpu.cpu.arch.fpu;
    assert_eq!((fpu.top, fpu.tags, fpu.tag_word()), (5, 0b0110_0000, 0xd3ff));
    assert_eq!([fpu.st(0), fpu.st(1)], [F80::ONE, F80::ZERO]);
    assert_eq!(fpu.st(2), F80::new(0x4000, 0xc90f_daa2_2168_c235));
}

#[test]
fn a_store_that_faults_leaves_the_stack_alone() {
    let mut guest = Guest::new(Start::User64);
    guest.set_page_flags(DATA, 0);
    guest.assemble(|a| {
        a.fninit()?;
        a.fld1()?;
        a.mov(ebx, DATA as u32)?;
        a.fstp(tbyte_ptr(rbx))
    });

    let ending = guest.run();

    assert!(matches!(ending, Ending::Exception(Exception { vector: Vector::Pf, .. })));
    assert_eq!((guest.vcpu.cpu.arch.fpu.top, guest.vcpu.cpu.arch.fpu.tags), (7, 0x80));
}
