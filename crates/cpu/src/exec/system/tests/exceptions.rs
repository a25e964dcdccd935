//! Exceptions and their frames: SDM Vol. 3A, chapter 6.

use cloister_x86::regs::Rflags;
use cloister_x86::{Gpr, msr};
use iced_x86::code_asm::*;

use super::kernel::{
    DPL3, Frame, HANDLERS, IST1, KERNEL_CODE, KERNEL_DATA, Kernel, PRESENT, RSP0, SPARE,
    TSS_SELECTOR, USER_CODE, USER_DATA,
};
use crate::Exit;
use crate::exec::system::descriptor::system_type;
use crate::testing::{CODE, DATA, STACK};

const RF: u64 = Rflags::RF.bits();
const IF: u64 = Rflags::IF.bits();

#[test]
fn a_fault_pushes_its_own_rip_with_rf_set() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.xor(ecx, ecx)?;
        a.div(ecx)
    });

    let frame = kernel.run_to_handler();

    assert_eq!(
        frame,
        Frame {
            vector: 0,
            error_code: None,
            rip: CODE + 2,
            cs: KERNEL_CODE.into(),
            rflags: RF | 0x46,
            rsp: STACK,
            ss: KERNEL_DATA.into(),
        }
    );
}

#[test]
fn int3_is_a_trap_without_rf() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.int3());

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip, frame.rflags), (3, CODE + 1, 2));
}

#[test]
fn the_handlers_stack_is_aligned_to_16_bytes_at_the_same_level() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.ud2());
    kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = STACK - 3;

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rsp), (6, STACK - 3));
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rsp], STACK - 16 - 40);
}

#[test]
fn a_fault_of_the_user_switches_to_rsp0_and_a_null_stack_segment() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.hlt());
    kernel.set_level(3);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (13, Some(0)));
    assert_eq!((frame.cs, frame.ss, frame.rsp), (USER_CODE.into(), USER_DATA.into(), STACK));
    let cpu = &kernel.vcpu().cpu;
    assert_eq!(cpu.arch.gpr[Gpr::Rsp], RSP0 - 48);
    assert_eq!(
        (cpu.arch.cpl, cpu.arch.segs[1].selector, cpu.arch.segs[2].selector),
        (0, KERNEL_CODE, 0)
    );
}

#[test]
fn an_interrupt_stack_table_entry_is_used_even_without_a_change_of_level() {
    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(6) | 1 << 32;
    kernel.set_gate_words(6, gate, 0);
    kernel.assemble(|a| a.ud2());

    let frame = kernel.run_to_handler();

    assert_eq!(frame.vector, 6);
    assert_eq!(kernel.vcpu().cpu.arch.gpr[Gpr::Rsp], IST1 - 40);
}

#[test]
fn an_interrupt_gate_clears_if_and_a_trap_gate_keeps_it() {
    for (kind, expected) in [(system_type::INTERRUPT_GATE, 0), (system_type::TRAP_GATE, IF)] {
        let mut kernel = Kernel::new();
        kernel.set_gate(6, HANDLERS + 6 * 16, kind);
        kernel.assemble(|a| a.ud2());
        kernel.vcpu().cpu.set_rflags(2 | IF | Rflags::NT.bits());

        let frame = kernel.run_to_handler();

        let now = kernel.vcpu().cpu.rflags();
        assert_eq!(frame.rflags, 2 | IF | Rflags::NT.bits() | RF);
        assert_eq!(now & (IF | Rflags::NT.bits() | RF | Rflags::TF.bits()), expected);
    }
}

#[test]
fn a_page_fault_sets_cr2_and_tells_of_the_access() {
    // (page flags, level, write, error code)
    for (flags, level, write, code) in [
        (0, 0, false, 0b00000),
        (0, 0, true, 0b00010),
        (0, 3, false, 0b00100),
        (0b001, 3, false, 0b00101),
        (0b101, 3, true, 0b00111),
        (0b101, 0, true, 0b00011),
        (1 << 50 | 0b111, 0, false, 0b01001),
    ] {
        let mut kernel = Kernel::new();
        kernel.assemble(
            |a| {
                if write { a.mov(byte_ptr(rbx), al) } else { a.mov(al, byte_ptr(rbx)) }
            },
        );
        kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = DATA + 0x123;
        kernel.guest.set_page_flags(DATA, flags);
        kernel.set_level(level);

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.error_code, frame.rip), (14, Some(code), CODE));
        assert_eq!(kernel.vcpu().cpu.arch.cr2, DATA + 0x123);
    }
}

#[test]
fn an_absent_gate_gives_np_with_the_idt_bit_and_ext_for_hardware_exceptions() {
    for (software, code) in [(true, 6 << 3 | 0b010), (false, 6 << 3 | 0b011)] {
        let mut kernel = Kernel::new();
        let gate = kernel.gate_low(6) & !PRESENT;
        kernel.set_gate_words(6, gate, 0);
        kernel.assemble(|a| if software { a.int(6) } else { a.ud2() });

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.error_code, frame.rip), (11, Some(code), CODE));
    }
}

#[test]
fn int_n_needs_a_gate_that_its_level_may_use() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.int(0x80));
    kernel.set_level(3);

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.error_code, frame.rip), (13, Some(0x80 << 3 | 2), CODE));

    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(0x80) | DPL3;
    kernel.set_gate_words(0x80, gate, 0);
    kernel.assemble(|a| a.int(0x80));
    kernel.set_level(3);

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.rip), (0x80, CODE + 2));
}

#[test]
fn a_vector_beyond_the_idt_is_a_general_protection_fault() {
    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.idtr.limit = 0x20 * 16 - 1;
    kernel.assemble(|a| a.int(0x20));

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.error_code), (13, Some(0x20 << 3 | 2)));
}

#[test]
fn bad_handler_segments_fault_with_their_selector() {
    // (selector in the gate, descriptor there, vector, error code)
    let code64 = super::kernel::CODE64;
    for (selector, descriptor, vector, code) in [
        (0, 0, 13, 0),
        (SPARE, super::kernel::DATA, 13, u64::from(SPARE)),
        (SPARE, super::kernel::CODE32, 13, u64::from(SPARE)),
        (SPARE, code64 | DPL3, 13, u64::from(SPARE)),
        (SPARE, code64 & !PRESENT, 11, u64::from(SPARE)),
        (0xff8, 0, 13, 0xff8),
        (SPARE | 4, 0, 13, u64::from(SPARE | 4)),
    ] {
        let mut kernel = Kernel::new();
        if selector & 0x7ff == selector && selector != 0 {
            kernel.set_descriptor(selector, descriptor);
        }
        let gate = kernel.gate_low(0x40) & !0xffff_0000 | u64::from(selector) << 16;
        kernel.set_gate_words(0x40, gate, 0);
        kernel.assemble(|a| a.int(0x40));

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (vector, Some(code)), "{selector:#x}");
    }
}

#[test]
fn a_task_state_segment_too_short_for_the_stack_is_an_invalid_tss() {
    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.segs[6].limit = 4 + 7 - 1;
    // #TS itself comes back through the same TSS: give it a way out.
    kernel.assemble(|a| a.ud2());
    kernel.set_level(3);

    assert_eq!(kernel.vcpu().run(), Exit::TripleFault);

    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.segs[6].limit = 36 + 7 - 1;
    let gate = kernel.gate_low(6) | 1 << 32;
    kernel.set_gate_words(6, gate, 0);
    kernel.assemble(|a| a.ud2());

    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.error_code), (10, Some(u64::from(TSS_SELECTOR) | 1)));
}

#[test]
fn a_page_fault_while_delivering_a_page_fault_is_a_double_fault() {
    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(8) | 1 << 32;
    kernel.set_gate_words(8, gate, 0);
    kernel.assemble(|a| a.mov(al, byte_ptr(rbx)));
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = DATA;
    kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = DATA + 0x2000;
    kernel.guest.set_page_flags(DATA, 0);
    kernel.guest.set_page_flags(DATA + 0x1000, 0);

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.error_code, frame.rip), (8, Some(0), CODE));
    assert_eq!(frame.rsp, DATA + 0x2000);
    assert_eq!(kernel.vcpu().cpu.arch.cr2, DATA + 0x2000 - 48);
}

#[test]
fn contributory_after_contributory_is_a_double_fault_and_benign_is_not() {
    // #GP whose gate is absent: #NP after #GP.
    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(13) & !PRESENT;
    kernel.set_gate_words(13, gate, 0);
    kernel.assemble(|a| a.mov(ds, bx));
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = 0xff8;
    assert_eq!(kernel.run_to_handler().vector, 8);

    // #UD whose gate is absent: #NP alone.
    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(6) & !PRESENT;
    kernel.set_gate_words(6, gate, 0);
    kernel.assemble(|a| a.ud2());
    assert_eq!(kernel.run_to_handler().vector, 11);

    // A page fault after #GP comes serially: only #GP during #PF would be double.
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.mov(ds, bx));
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = 0xff8;
    let gate = kernel.gate_low(14) | 1 << 32;
    kernel.set_gate_words(14, gate, 0);
    kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = DATA + 0x1000;
    kernel.guest.set_page_flags(DATA, 0);
    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.error_code), (14, Some(2)));
}

#[test]
fn without_a_double_fault_handler_the_processor_shuts_down() {
    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.idtr.limit = 0;
    kernel.assemble(|a| a.ud2());

    assert_eq!(kernel.vcpu().run(), Exit::TripleFault);
    assert_eq!(kernel.vcpu().cpu.arch.rip, CODE);
}

#[test]
fn nothing_is_committed_when_delivery_faults() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| a.int(0x40));
    kernel.vcpu().cpu.arch.idtr.limit = 0x3ff;
    kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = DATA + 0x1008;
    kernel.guest.set_page_flags(DATA, 0);
    let gate = kernel.gate_low(14) | 1 << 32;
    kernel.set_gate_words(14, gate, 0);
    kernel.guest.write_u64(DATA + 0x1000, 0x5555);
    kernel.vcpu().cpu.arch.idtr.limit = 0xfff;

    let frame = kernel.run_to_handler();

    assert_eq!((frame.vector, frame.rip, frame.rsp), (14, CODE, DATA + 0x1008));
    assert_eq!(kernel.guest.read_u64(DATA + 0x1000), 0x5555);
}

#[test]
fn a_non_canonical_handler_or_stack_faults() {
    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(0x40);
    kernel.set_gate_words(0x40, gate, 0x8000);
    kernel.assemble(|a| a.int(0x40));
    let frame = kernel.run_to_handler();
    assert_eq!((frame.vector, frame.error_code), (13, Some(0)));

    let mut kernel = Kernel::new();
    let gate = kernel.gate_low(12) | 1 << 32;
    kernel.set_gate_words(12, gate, 0);
    kernel.assemble(|a| a.int(0x40));
    kernel.vcpu().cpu.arch.gpr[Gpr::Rsp] = 0x8000_0000_0000;
    let frame = kernel.run_to_handler();
    // The frame itself lies below the boundary, but the stack pointer does not.
    assert_eq!((frame.vector, frame.error_code), (12, Some(0)));
}

#[test]
fn a_debug_exception_ends_the_recording_of_branches() {
    let mut kernel = Kernel::new();
    kernel.assemble(|a| {
        a.mov(ecx, msr::DEBUGCTL)?;
        a.mov(eax, 1)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.int1()
    });

    let frame = kernel.run_to_handler();

    assert_eq!(frame.vector, 1);
    let arch = &kernel.vcpu().cpu.arch;
    assert_eq!((arch.gpr[Gpr::Rbx], arch.msrs.debugctl), (1, 0));
}
