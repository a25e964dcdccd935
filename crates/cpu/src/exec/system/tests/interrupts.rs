//! Interrupts, NMIs, their shadows and HLT: SDM Vol. 3A, 6.6 to 6.8.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use iced_x86::code_asm::*;

use super::kernel::{HANDLERS, Kernel};
use crate::Exit;
use crate::state::Activity;
use crate::testing::CODE;

const IF: u64 = Rflags::IF.bits();
const SVR: u32 = 0x80f;
const EOI: u32 = 0x80b;
const TPR: u32 = 0x808;

/// A kernel whose local APIC is in x2APIC mode and enabled.
fn kernel() -> Kernel {
    let mut kernel = Kernel::new();
    let cpu = &mut kernel.vcpu().cpu;
    let base = cpu.apic.base();
    assert!(cpu.write_msr(0x1b, base | 1 << 10).is_ok());
    assert!(cpu.write_msr(SVR, 0x1ff).is_ok());
    kernel
}

fn send(kernel: &mut Kernel, vector: u8) {
    kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, vector.into());
}

#[test]
fn an_interrupt_waits_for_if_and_one_more_instruction_after_sti() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.nop()?;
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    send(&mut kernel, 0x41);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (0x41, CODE + 4));
    assert_eq!(frame.rflags, 2 | IF);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 1);
}

#[test]
fn sti_with_if_set_already_has_no_shadow() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.sti()?;
        a.inc(eax)
    });
    kernel.vcpu().cpu.set_rflags(2 | IF);
    send(&mut kernel, 0x41);

    assert_eq!(kernel.run_to_handler().rip, CODE);
}

#[test]
fn sti_hlt_wakes_after_the_hlt() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.sti()?;
        a.hlt()
    });
    send(&mut kernel, 0x41);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip), (0x41, CODE + 2));
}

#[test]
fn a_halted_processor_with_if_clear_is_not_woken_by_an_interrupt_but_by_an_nmi() {
    let mut kernel = kernel();
    kernel.assemble(|a| a.hlt());
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    send(&mut kernel, 0x41);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.rip, CODE + 1);

    kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.rip), (2, CODE + 1));
}

#[test]
fn a_second_nmi_waits_for_iret() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.nop()?;
        a.inc(eax)
    });
    kernel.guest.assemble_at(HANDLERS + 2 * 16, 64, |a| {
        a.inc(ebx)?;
        a.hlt()?;
        a.iretq()
    });
    let nmi = |kernel: &mut Kernel| {
        kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);
    };
    nmi(&mut kernel);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    nmi(&mut kernel);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rbx], 1);

    // Behind the HLT comes the IRET, and the second NMI with it.
    kernel.wake();
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(
        (kernel.vcpu().cpu.arch.gpr[Gpr::Rbx], kernel.vcpu().cpu.arch.gpr[Gpr::Rax]),
        (2, 0)
    );
}

#[test]
fn of_nmis_that_arrive_together_one_is_handled_one_waits_and_more_are_lost() {
    for (arrive, handled) in [(1, 1), (2, 2), (3, 2)] {
        let mut kernel = kernel();
        kernel.assemble(|a| a.nop());
        kernel.guest.assemble_at(HANDLERS + 2 * 16, 64, |a| {
            a.inc(ebx)?;
            a.iretq()
        });
        for _ in 0..arrive {
            kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);
        }

        assert_eq!(kernel.vcpu().run(), Exit::Hlt);

        let cpu = &kernel.vcpu().cpu;
        assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::Rbx]), (CODE + 2, handled), "{arrive}");
    }
}

#[test]
fn of_nmis_that_arrive_while_one_is_handled_one_waits() {
    let mut kernel = kernel();
    kernel.assemble(|a| a.nop());
    kernel.guest.assemble_at(HANDLERS + 2 * 16, 64, |a| {
        a.inc(ebx)?;
        a.hlt()?;
        a.iretq()
    });
    kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);

    for _ in 0..2 {
        kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);
    }
    for _ in 0..2 {
        kernel.wake();
        assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    }

    let cpu = &kernel.vcpu().cpu;
    assert_eq!((cpu.arch.rip, cpu.arch.gpr[Gpr::Rbx]), (CODE + 2, 2));
}

#[test]
fn mov_ss_holds_an_interrupt_off_for_one_instruction() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.sti()?;
        a.mov(ss, ebx)?;
        a.inc(eax)?;
        a.inc(eax)
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = 0x10;
    send(&mut kernel, 0x41);

    // STI covers MOV SS, which covers INC.
    let frame = kernel.run_to_handler();

    assert_eq!((frame.rip, kernel.vcpu().cpu.arch.gpr[Gpr::Rax]), (CODE + 5, 1));
}

#[test]
fn the_higher_priority_goes_first_and_the_lower_one_waits_for_eoi() {
    let mut kernel = kernel();
    kernel.assemble(|a| a.nop());
    for vector in [0x35, 0x62, 0x61] {
        send(&mut kernel, vector);
    }
    kernel.vcpu().cpu.set_rflags(2 | IF);

    assert_eq!(kernel.run_to_handler().vector, 0x62);
    // Same class in service: nothing until EOI, though IF is set again.
    kernel.vcpu().cpu.set_rflags(2 | IF);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.frame().vector, 0x62);

    assert!(kernel.vcpu().cpu.write_msr(EOI, 0).is_ok());
    assert_eq!(kernel.run_to_handler().vector, 0x61);
    assert!(kernel.vcpu().cpu.write_msr(EOI, 0).is_ok());
    kernel.vcpu().cpu.set_rflags(2 | IF);
    assert_eq!(kernel.run_to_handler().vector, 0x35);
}

#[test]
fn the_task_priority_holds_lower_classes_back_and_cr8_is_its_upper_half() {
    let mut kernel = kernel();
    kernel.assemble(|a| {
        a.mov(eax, 6)?;
        a.mov(cr8, rax)?;
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.mov(eax, 5)?;
        a.mov(cr8, rax)?;
        a.mov(ebx, 1)
    });
    send(&mut kernel, 0x62);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, kernel.vcpu().cpu.arch.gpr[Gpr::Rbx]), (0x62, 0));
    assert_eq!(kernel.vcpu().cpu.read_msr(TPR), Ok(Some(0x50)));
}

#[test]
fn eoi_of_a_level_triggered_interrupt_is_told_to_the_owner() {
    let mut kernel = kernel();
    kernel.assemble(|a| a.nop());
    kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 0xc000 | 0x52);
    kernel.vcpu().cpu.set_rflags(2 | IF);
    assert_eq!(kernel.run_to_handler().vector, 0x52);

    assert!(kernel.vcpu().cpu.write_msr(EOI, 0).is_ok());

    assert_eq!(kernel.vcpu().run(), Exit::Eoi { vector: 0x52 });
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
}

#[test]
fn a_disabled_apic_drops_interrupts_and_takes_nmis() {
    let mut kernel = kernel();
    kernel.assemble(|a| a.nop());
    assert!(kernel.vcpu().cpu.write_msr(SVR, 0xff).is_ok());
    kernel.vcpu().cpu.set_rflags(2 | IF);
    send(&mut kernel, 0x41);
    assert_eq!(kernel.vcpu().run(), Exit::Hlt);
    assert_eq!(kernel.vcpu().cpu.arch.rip, CODE + 2);

    kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, 4 << 8);
    assert_eq!(kernel.run_to_handler().vector, 2);
}

const INIT: u64 = 5 << 8;
const ICR: u32 = 0x830;

#[test]
fn init_takes_the_bootstrap_processor_to_the_reset_vector_and_is_told_to_the_owner() {
    // From a device, to its own APIC ID, to itself, to all.
    for icr in [None, Some(INIT), Some(INIT | 1 << 18), Some(INIT | 2 << 18)] {
        let mut kernel = kernel();
        kernel.assemble(|a| {
            a.nop()?;
            a.nop()
        });
        match icr {
            Some(icr) => assert_eq!(kernel.vcpu().cpu.write_msr(ICR, icr), Ok(true)),
            None => kernel.vcpu().cpu.package.deliver_msi(0xfee0_0000, INIT as u32),
        }

        assert_eq!(kernel.vcpu().run(), Exit::Init, "{icr:x?}");

        let cpu = &kernel.vcpu().cpu;
        assert_eq!((cpu.arch.segs[seg::CS].base, cpu.arch.rip), (0xffff_0000, 0xfff0), "{icr:x?}");
        assert_ne!(cpu.arch.activity, Activity::WaitForSipi);
    }
}

#[test]
fn init_makes_another_processor_wait_for_a_start_up_ipi() {
    let kernel = Kernel::with_cpus(2);
    let mut other = kernel.guest.processor(1);
    other.cpu.package.deliver_msi(0xfee0_1000, INIT as u32);

    assert_eq!(other.run(), Exit::Hlt);
    assert_eq!(other.cpu.arch.activity, Activity::WaitForSipi);
}
