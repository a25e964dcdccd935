//! From reset to 64-bit mode and back, and event delivery in the other modes.

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags};
use cloister_x86::segment::{Rights, Segment, TableRegister, seg};
use cloister_x86::{Exception, Gpr, msr};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::kernel::{CODE32, CODE64, DATA as DATA_DESCRIPTOR, DPL3, Kernel};
use crate::Exit;
use crate::testing::{CODE, DATA, Ending, Guest, STACK, Start};

const GDT: u64 = 0x6000;
const POINTER: u64 = 0x6100;
const PROTECTED: u64 = 0xa000;
const LONG: u64 = 0xb000;
/// Handler of #GP in [`protected`].
const FAULT: u64 = 0xc000;

#[test]
fn real_mode_code_reaches_64_bit_mode_through_protected_mode() {
    let mut guest = Guest::new(Start::Real16);
    for (n, descriptor) in [0, CODE32, DATA_DESCRIPTOR, CODE64].into_iter().enumerate() {
        guest.write_u64(GDT + n as u64 * 8, descriptor);
    }
    guest.write(POINTER, &0x1f_u16.to_le_bytes());
    guest.write_u64(POINTER + 2, GDT);
    guest.assemble(|a| {
        a.lgdt(fword_ptr(POINTER as i32))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        // JMP 8:PROTECTED with a 32-bit offset.
        a.db(&[0x66, 0xea, 0x00, 0xa0, 0, 0, 8, 0])
    });
    guest.assemble_at(PROTECTED, 32, |a| {
        a.mov(eax, 0x10)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(esp, STACK as i32)?;
        a.mov(eax, 0x1000)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr4)?;
        a.or(eax, 0x20)?;
        a.mov(cr4, eax)?;
        a.mov(ecx, msr::EFER as i32)?;
        a.rdmsr()?;
        a.or(eax, 0x100)?;
        a.wrmsr()?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32)?;
        a.mov(cr0, eax)?;
        // Still 32-bit code, in compatibility mode.
        a.push(0x18)?;
        a.push(LONG as i32)?;
        a.db(&[0xcb])
    });
    guest.assemble_at(LONG, 64, |a| {
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.hlt()
    });

    let ending = guest.run();

    assert_eq!(ending, Ending::Exit(Exit::Hlt));
    let cpu = &guest.vcpu.cpu;
    assert_eq!(cpu.arch.gpr[Gpr::Rax], 0x1122_3344_5566_7788);
    assert!(cpu.run.mode.is_64() && cpu.long_mode());
    assert_eq!((cpu.arch.segs[seg::CS].selector, cpu.arch.gpr[Gpr::Rsp]), (0x18, STACK));
    assert_eq!(guest.read_u64(GDT + 8), CODE32);
}

#[test]
fn enabling_paging_with_lme_needs_pae() {
    let mut guest = Guest::new(Start::Flat32);
    guest.vcpu.cpu.arch.cr4.remove(Cr4::PAE);
    guest.vcpu.cpu.arch.efer = Efer::LME;
    guest.assemble(|a| {
        a.mov(eax, 0x8000_0001u32)?;
        a.mov(cr0, eax)
    });

    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
}

#[test]
fn leaving_paging_from_64_bit_code_faults() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.mov(eax, 1)?;
        a.mov(cr0, rax)
    });

    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
    assert!(guest.vcpu.cpu.arch.cr0.contains(Cr0::PG));
}

#[test]
fn control_register_values_that_contradict_themselves_fault() {
    // (which, value)
    for (register, value) in [
        (0, 0x8000_0000),
        (0, 1 << 32 | 0x8000_0011),
        (0, 0xa000_0011),
        (4, 0),
        (4, 1 << 5 | 1 << 22),
        (4, 1 << 5 | 1 << 12),
        (4, 1 << 5 | 1 << 13),
        (4, 1 << 5 | 1 << 40),
        (3, 1 << 46),
        (3, 1 << 63),
        (8, 16),
    ] {
        let mut guest = Guest::new(Start::Kernel64);
        guest.assemble(|a| match register {
            0 => a.mov(cr0, rax),
            3 => a.mov(cr3, rax),
            4 => a.mov(cr4, rax),
            _ => a.mov(cr8, rax),
        });
        guest.vcpu.cpu.arch.gpr[Gpr::Rax] = value;

        assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)), "CR{register} {value:#x}");
    }
}

#[test]
fn pcide_needs_long_mode_and_pcid_0() {
    let value = (Cr4::PAE | Cr4::PCIDE).bits();
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| a.mov(cr4, rax));
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = value;
    guest.vcpu.cpu.arch.cr3 |= 8;
    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));

    let mut guest = Guest::new(Start::Flat32);
    guest.assemble(|a| a.mov(cr4, eax));
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = value;
    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
}

#[test]
fn system_instructions_of_the_user_fault() {
    type Instruction = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let instructions: [(&str, Instruction); 20] = [
        ("mov cr0", |a| a.mov(rax, cr0)),
        ("mov cr3", |a| a.mov(cr3, rax)),
        ("mov cr8", |a| a.mov(cr8, rax)),
        ("mov dr7", |a| a.mov(rax, dr7)),
        ("clts", |a| a.clts()),
        ("lmsw", |a| a.lmsw(ax)),
        ("hlt", |a| a.hlt()),
        ("cli", |a| a.cli()),
        ("sti", |a| a.sti()),
        ("invlpg", |a| a.invlpg(byte_ptr(rax))),
        ("invpcid", |a| a.invpcid(rax, xmmword_ptr(rdi))),
        ("wbinvd", |a| a.wbinvd()),
        ("rdmsr", |a| a.rdmsr()),
        ("wrmsr", |a| a.wrmsr()),
        ("swapgs", |a| a.swapgs()),
        ("lgdt", |a| a.lgdt(fword_ptr(rdi))),
        ("lidt", |a| a.lidt(fword_ptr(rdi))),
        ("lldt", |a| a.lldt(ax)),
        ("ltr", |a| a.ltr(ax)),
        ("sysret", |a| a.sysretq()),
    ];
    for (name, instruction) in instructions {
        let mut guest = Guest::new(Start::User64);
        guest.assemble(instruction);
        guest.vcpu.cpu.arch.gpr[Gpr::Rdi] = DATA;

        assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)), "{name}");
    }
}

#[test]
fn umip_keeps_the_user_from_reading_system_registers() {
    type Instruction = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let instructions: [Instruction; 5] = [
        |a| a.sgdt(fword_ptr(rdi)),
        |a| a.sidt(fword_ptr(rdi)),
        |a| a.sldt(eax),
        |a| a.str(eax),
        |a| a.smsw(eax),
    ];
    for instruction in instructions {
        for (umip, expected) in [(true, Exception::gp(0)), (false, Exception::ud())] {
            let mut guest = Guest::new(Start::User64);
            guest.assemble(instruction);
            guest.vcpu.cpu.arch.gpr[Gpr::Rdi] = DATA;
            guest.vcpu.cpu.arch.cr4.set(Cr4::UMIP, umip);

            // Without UMIP the UD2 after the instruction is reached.
            assert_eq!(guest.run(), Ending::Exception(expected));
        }
    }
}

#[test]
fn instructions_that_are_not_there_are_undefined() {
    let encodings: [&[u8]; 10] = [
        &[0x0f, 0x01, 0xc1],       // VMCALL
        &[0x0f, 0x01, 0xc2],       // VMLAUNCH
        &[0x0f, 0x78, 0xc0],       // VMREAD
        &[0x0f, 0x01, 0xc8],       // MONITOR
        &[0x0f, 0x01, 0xc9],       // MWAIT
        &[0x0f, 0xaa],             // RSM
        &[0x0f, 0x01, 0xe8],       // SERIALIZE
        &[0x0f, 0x20, 0xc8],       // MOV from CR1
        &[0x0f, 0x22, 0xe8],       // MOV to CR5
        &[0xf0, 0x0f, 0x20, 0xc0], // LOCK MOV from CR0
    ];
    for encoding in encodings {
        let mut guest = Guest::new(Start::Kernel64);
        guest.load_code(encoding);

        let ending = guest.run();

        assert_eq!(ending, Ending::Exception(Exception::ud()), "{encoding:x?}");
        assert_eq!(guest.vcpu.cpu.arch.rip, CODE, "{encoding:x?}");
    }
}

#[test]
fn real_mode_delivers_through_the_vector_table_without_an_error_code() {
    let mut guest = Guest::new(Start::Real16);
    guest.vcpu.catch_exceptions(false);
    guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = 0x7f00;
    guest.vcpu.cpu.arch.idtr = TableRegister { base: 0x500, limit: 0x3ff };
    guest.write(0x500 + 0x40 * 4, &[0x34, 0x00, 0x00, 0x0a]);
    guest.write(0xa034, &[0xf4]);
    guest.assemble(|a| {
        a.sti()?;
        a.int(0x40)
    });

    assert_eq!(guest.vcpu.run(), Exit::Hlt);

    let cpu = &guest.vcpu.cpu;
    assert_eq!((cpu.arch.rip, cpu.arch.segs[seg::CS].selector), (0x35, 0x0a00));
    assert_eq!((cpu.arch.gpr[Gpr::Rsp], cpu.rflags() & Rflags::IF.bits()), (0x7f00 - 6, 0));
    let frame: [u8; 6] = guest.read(0x7f00 - 6);
    assert_eq!(frame, [0x03, 0x80, 0, 0, 0x02, 0x02]);
}

#[test]
fn real_mode_iret_returns_where_int_came_from() {
    let mut guest = Guest::new(Start::Real16);
    guest.vcpu.catch_exceptions(false);
    guest.vcpu.cpu.arch.gpr[Gpr::Rsp] = 0x7f00;
    guest.vcpu.cpu.arch.idtr = TableRegister { base: 0x500, limit: 0x3ff };
    guest.write(0x500 + 0x40 * 4, &[0x34, 0x00, 0x00, 0x0a]);
    guest.write(0xa034, &[0xcf]);
    guest.assemble(|a| {
        a.sti()?;
        a.int(0x40)?;
        a.hlt()
    });

    assert_eq!(guest.vcpu.run(), Exit::Hlt);

    let cpu = &guest.vcpu.cpu;
    assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp]), (CODE + 4, 0x7f00));
    assert_eq!(cpu.arch.segs[seg::CS].selector, 0);
    assert!(cpu.arch.system_flags.contains(Rflags::IF));
}

/// A 32-bit kernel without paging, with a GDT, a TSS and 32-bit interrupt gates for #GP and
/// vector 40H, whose handlers halt.
fn protected() -> Guest {
    const IDT: u64 = 0x7000;
    const TSS: u64 = 0x6800;
    let mut guest = Guest::new(Start::Flat32);
    guest.vcpu.catch_exceptions(false);
    for (n, descriptor) in
        [0, CODE32, DATA_DESCRIPTOR, CODE32 | DPL3, DATA_DESCRIPTOR | DPL3].into_iter().enumerate()
    {
        guest.write_u64(GDT + n as u64 * 8, descriptor);
    }
    for (vector, handler) in [(13, FAULT), (0x40, PROTECTED)] {
        guest.write_u64(IDT + vector * 8, handler | 8 << 16 | 0xee00 << 32);
    }
    guest.write(FAULT, &[0xf4]);
    guest.write_u64(TSS + 4, STACK | 0x10 << 32);
    guest.write(PROTECTED, &[0xf4]);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gdtr = TableRegister { base: GDT, limit: 0x27 };
    cpu.arch.idtr = TableRegister { base: IDT, limit: 0x7ff };
    cpu.arch.segs[seg::TR] =
        Segment { selector: 0x30, base: TSS, limit: 0x67, rights: Rights(0x8b) };
    cpu.arch.segs[seg::CS].selector = 8;
    cpu.arch.segs[seg::SS].selector = 0x10;
    guest
}

fn words<const N: usize>(guest: &Guest, at: u64) -> [u32; N] {
    std::array::from_fn(|n| u32::from_le_bytes(guest.read(at + n as u64 * 4)))
}

#[test]
fn a_32_bit_gate_pushes_three_words_at_the_same_level() {
    let mut guest = protected();
    guest.assemble(|a| a.int(0x40));

    assert_eq!(guest.vcpu.run(), Exit::Hlt);

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rsp], STACK - 12);
    assert_eq!(words(&guest, STACK - 12), [CODE as u32 + 2, 8, 2]);
}

#[test]
fn a_32_bit_gate_to_an_inner_level_pushes_the_stack_and_iret_returns_to_it() {
    let mut guest = protected();
    guest.assemble(|a| {
        a.int(0x40)?;
        a.mov(eax, 7)?;
        a.hlt()
    });
    guest.write(PROTECTED, &[0x89, 0xe3, 0xcf]); // MOV EBX, ESP; IRETD
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.gpr[Gpr::Rsp] = DATA;
    cpu.arch.cpl = 3;
    for segment in &mut cpu.arch.segs[..6] {
        segment.rights.0 |= 3 << 5;
        segment.selector = 0x23;
    }
    cpu.arch.segs[seg::CS].selector = 0x1b;
    cpu.update_mode();

    // The HLT of the user faults: its frame lies where that of INT was.
    assert_eq!(guest.vcpu.run(), Exit::Hlt);

    assert_eq!((guest.vcpu.cpu.arch.rip, guest.vcpu.cpu.arch.gpr[Gpr::Rax]), (FAULT + 1, 7));
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rbx], STACK - 20);
    assert_eq!(words(&guest, STACK - 24), [0, CODE as u32 + 7, 0x1b, 0x1_0002, DATA as u32, 0x23]);
}

#[test]
fn far_jumps_in_protected_mode_check_the_limit() {
    let mut guest = protected();
    guest.vcpu.catch_exceptions(true);
    // 64 KiB of code.
    guest.write_u64(GDT + 8, CODE32 & !(0xf << 48 | 1 << 55));
    guest.assemble(|a| a.db(&[0xea, 0, 0, 1, 0, 8, 0]));

    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
}

#[test]
fn nxe_cannot_be_set_where_execute_disable_is_switched_off() {
    let mut kernel = Kernel::new();
    let cpu = &mut kernel.vcpu().cpu;
    cpu.arch.efer.remove(Efer::NXE);
    let (off, on) = (cpu.arch.efer.bits(), (cpu.arch.efer | Efer::NXE).bits());
    cpu.ctl.features.execute_disable = false;

    assert!(cpu.write_msr(msr::EFER, on).is_err());
    assert_eq!((cpu.arch.efer.bits(), cpu.write_msr(msr::EFER, off)), (off, Ok(true)));
    cpu.ctl.features.execute_disable = true;
    assert_eq!(cpu.write_msr(msr::EFER, on), Ok(true));
}

#[test]
fn syscall_msrs_and_bases_refuse_non_canonical_addresses() {
    for index in [
        msr::LSTAR,
        msr::CSTAR,
        msr::FS_BASE,
        msr::GS_BASE,
        msr::KERNEL_GS_BASE,
        msr::SYSENTER_EIP,
        msr::SYSENTER_ESP,
    ] {
        let mut kernel = Kernel::new();
        kernel.assemble(|a| a.wrmsr());
        kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = index.into();
        kernel.vcpu().cpu.arch.gpr[Gpr::Rdx] = 0x8000;

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip), (13, CODE), "{index:#x}");
    }
}

#[test]
fn an_msr_of_the_owner_exits_and_its_answer_arrives() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.rdmsr()?;
        a.wrmsr()
    });
    let index = msr::FEATURE_CONTROL;
    kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = index.into();

    assert_eq!(kernel.vcpu().run(), Exit::Rdmsr { index });
    kernel.vcpu().finish_rdmsr(0x1_0000_0005);
    assert_eq!(kernel.vcpu().run(), Exit::Wrmsr { index, value: 0x1_0000_0005 });
    kernel.vcpu().inject(Exception::gp(0)).unwrap();

    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    let frame = kernel.frame();
    assert_eq!((frame.vector, frame.rip), (13, CODE + 2));
}
