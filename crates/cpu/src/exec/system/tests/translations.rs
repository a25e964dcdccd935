//! What keeps and what drops translations: SDM Vol. 3A, 4.10.

use cloister_x86::Gpr;
use cloister_x86::regs::Cr4;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::kernel::Kernel;
use crate::Exit;
use crate::testing::{CODE, DATA};

const FLAGS: u64 = 0b11;
const GLOBAL: u64 = 1 << 8;
const OTHER: u64 = DATA + 0x1000;
/// Entry of [`DATA`]'s page in the page table of the test machine.
const ENTRY: u64 = 0x4000 + (DATA >> 12) * 8;
/// A second PML4 with the same contents.
const PML4: u64 = 0x1000;
const SECOND_PML4: u64 = 0x20_0000;

/// Code that reads through [`DATA`], changes its mapping to [`OTHER`], does `between`, and reads
/// again. Says which page the second read saw.
fn second_read(
    kernel: &mut Kernel,
    extra: u64,
    between: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> u64 {
    kernel.guest.write_u64(DATA, 1);
    kernel.guest.write_u64(OTHER, 2);
    let pml4 = kernel.guest.read_u64(PML4);
    kernel.guest.write_u64(SECOND_PML4, pml4);
    kernel.guest.set_page_flags(DATA, FLAGS | extra);
    kernel.assemble(|a| {
        a.mov(rdi, DATA)?;
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(r8, OTHER | FLAGS | extra)?;
        a.mov(qword_ptr(ENTRY), r8)?;
        between(a)?;
        a.mov(rbx, qword_ptr(rdi))
    });
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 1);
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx]
}

/// A kernel with PCIDs and global pages on.
fn kernel() -> Kernel {
    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.cr4 |= Cr4::PCIDE | Cr4::PGE;
    kernel
}

#[test]
fn a_changed_entry_is_not_seen_until_the_translation_is_dropped() {
    assert_eq!(second_read(&mut kernel(), 0, |a| a.nop()), 1);
    assert_eq!(second_read(&mut kernel(), 0, |a| a.invlpg(byte_ptr(rdi))), 2);
}

#[test]
fn loading_cr3_drops_all_but_global_translations() {
    let reload = |a: &mut CodeAssembler| {
        a.mov(rcx, cr3)?;
        a.mov(cr3, rcx)
    };
    assert_eq!(second_read(&mut kernel(), 0, reload), 2);
    assert_eq!(second_read(&mut kernel(), GLOBAL, reload), 1);
    // Without PGE the G bit means nothing.
    let mut plain = Kernel::new();
    assert_eq!(second_read(&mut plain, GLOBAL, reload), 2);
}

#[test]
fn invlpg_drops_global_translations_too() {
    assert_eq!(second_read(&mut kernel(), GLOBAL, |a| a.invlpg(byte_ptr(rdi))), 2);
}

#[test]
fn bit_63_of_cr3_keeps_the_translations_of_the_pcid() {
    let switch = |keep: u64| {
        move |a: &mut CodeAssembler| {
            // To PCID 1 and back to PCID 0.
            a.mov(rcx, SECOND_PML4 | 1)?;
            a.mov(cr3, rcx)?;
            a.mov(rcx, PML4 | keep)?;
            a.mov(cr3, rcx)
        }
    };
    assert_eq!(second_read(&mut kernel(), 0, switch(1 << 63)), 1);
    assert_eq!(second_read(&mut kernel(), 0, switch(0)), 2);
}

#[test]
fn translations_of_another_pcid_are_not_used() {
    let switch = |a: &mut CodeAssembler| {
        a.mov(rcx, SECOND_PML4 | 1 | 1 << 63)?;
        a.mov(cr3, rcx)
    };
    assert_eq!(second_read(&mut kernel(), 0, switch), 2);
}

#[test]
fn invpcid_drops_what_its_type_says() {
    const DESCRIPTOR: u64 = DATA + 0x2000;
    // (type, PCID, page is global, page read after)
    for (kind, pcid, extra, expected) in [
        (0, 0, 0, 2),
        (1, 0, 0, 2),
        (1, 7, 0, 1),
        (1, 0, GLOBAL, 1),
        (2, 0, GLOBAL, 2),
        (3, 0, 0, 2),
        (3, 0, GLOBAL, 1),
    ] {
        let mut kernel = kernel();
        kernel.guest.write_u64(DESCRIPTOR, pcid);
        kernel.guest.write_u64(DESCRIPTOR + 8, DATA);

        let seen = second_read(&mut kernel, extra, |a| {
            a.mov(ecx, kind)?;
            a.mov(rsi, DESCRIPTOR)?;
            a.invpcid(rcx, xmmword_ptr(rsi))
        });

        assert_eq!(seen, expected, "type {kind}, PCID {pcid}, G {extra:#x}");
    }
}

/// Entry of the page directory for the first 2 MiB, and another page table for it.
const DIRECTORY_ENTRY: u64 = 0x3000;
const SECOND_TABLE: u64 = 0x20_1000;

/// Code that reads [`DATA`], has the page directory lead to [`SECOND_TABLE`] with all rights, does
/// `between`, and accesses [`OTHER`], which that table maps to the page of [`DATA`]; RBX is what it read.
/// The first table has `entry` for [`OTHER`].
fn through_the_second_table(
    entry: u64,
    between: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> u64 {
    let mut kernel = kernel();
    kernel.guest.write_u64(DATA, 1);
    kernel.guest.write_u64(OTHER, 2);
    for n in 0..512 {
        let entry = kernel.guest.read_u64(0x4000 + n * 8);
        kernel.guest.write_u64(SECOND_TABLE + n * 8, entry);
    }
    kernel.guest.write_u64(SECOND_TABLE + (OTHER >> 12) * 8, DATA | FLAGS);
    kernel.guest.write_u64(0x4000 + (OTHER >> 12) * 8, entry);
    kernel.assemble(|a| {
        a.mov(rdi, DATA)?;
        a.mov(r9, OTHER)?;
        a.mov(r8, 0x4000 | FLAGS)?;
        a.mov(qword_ptr(DIRECTORY_ENTRY), r8)?;
        a.invlpg(byte_ptr(rdi))?;
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(r8, SECOND_TABLE | FLAGS)?;
        a.mov(qword_ptr(DIRECTORY_ENTRY), r8)?;
        between(a)?;
        a.mov(rbx, qword_ptr(r9))?;
        a.mov(qword_ptr(r9), 3)
    });
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 1);
    let seen = kernel.vcpu().cpu.arch.gpr[Gpr::Rbx];
    // Where it read, it could write.
    let page = if seen == 1 { DATA } else { OTHER };
    assert_eq!(kernel.guest.read_u64(page), 3);
    seen
}

#[test]
fn a_page_table_that_was_exchanged_is_seen_once_anything_is_dropped() {
    let reload = |a: &mut CodeAssembler| {
        a.mov(rcx, cr3)?;
        a.mov(cr3, rcx)
    };
    assert_eq!(through_the_second_table(OTHER | FLAGS, reload), 1);
    // INVLPG drops the page tables of all addresses (SDM Vol. 3A, 4.10.4.1).
    let elsewhere = |a: &mut CodeAssembler| a.invlpg(byte_ptr(0x7f_0000));
    assert_eq!(through_the_second_table(OTHER | FLAGS, elsewhere), 1);
    assert_eq!(through_the_second_table(OTHER | FLAGS, |a| a.nop()), 2);
}

#[test]
fn no_fault_comes_from_a_page_table_that_was_exchanged() {
    assert_eq!(through_the_second_table(0, |a| a.nop()), 1);
}

#[test]
fn invpcid_faults_on_descriptors_that_mean_nothing() {
    for (kind, pcid, address, pcide) in
        [(4, 0, 0, true), (1, 0x1000, 0, true), (0, 0, 1 << 47, true), (1, 1, 0, false)]
    {
        let mut kernel = Kernel::new();
        kernel.vcpu().cpu.arch.cr4.set(Cr4::PCIDE, pcide);
        kernel.guest.write_u64(DATA, pcid);
        kernel.guest.write_u64(DATA + 8, address);
        kernel.assemble(|a| a.invpcid(rcx, xmmword_ptr(rsi)));
        kernel.vcpu().cpu.arch.gpr[Gpr::Rcx] = kind;
        kernel.vcpu().cpu.arch.gpr[Gpr::Rsi] = DATA;

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.error_code, frame.rip), (13, Some(0), CODE));
    }
}

#[test]
fn clearing_pge_drops_global_translations() {
    let toggle = |a: &mut CodeAssembler| {
        a.mov(rcx, cr4)?;
        a.xor(ecx, Cr4::PGE.bits() as u32)?;
        a.mov(cr4, rcx)
    };
    assert_eq!(second_read(&mut kernel(), GLOBAL, toggle), 2);
}

#[test]
fn code_in_a_remapped_page_is_found_anew() {
    // A function at DATA is replaced by one at OTHER by changing the mapping.
    let mut kernel = kernel();
    kernel.guest.set_page_flags(DATA, FLAGS);
    kernel.guest.assemble_at(DATA, 64, |a| {
        a.mov(eax, 1)?;
        a.ret()
    });
    kernel.guest.assemble_at(OTHER, 64, |a| {
        a.mov(eax, 2)?;
        a.ret()
    });
    kernel.assemble(|a| {
        a.mov(rdi, DATA)?;
        a.call(rdi)?;
        a.mov(ebx, eax)?;
        a.mov(r8, OTHER | FLAGS)?;
        a.mov(qword_ptr(ENTRY), r8)?;
        a.invlpg(byte_ptr(rdi))?;
        a.call(rdi)
    });

    assert_eq!(kernel.vcpu().run(), Exit::Hlt);

    assert_eq!(
        (kernel.vcpu().cpu.arch.gpr[Gpr::Rbx], kernel.vcpu().cpu.arch.gpr[Gpr::Rax]),
        (1, 2)
    );
}
