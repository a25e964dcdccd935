//! Task switches among random descriptors and tasks: a guest may write anything there.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Cr4, Rflags};
use cloister_x86::segment::seg;

use super::machine::*;
use crate::testing::{CODE, Numbers, RAM_SIZE, STACK};
use crate::{Exit, Stop};

/// A descriptor of a kind that task switches look at.
fn descriptor(numbers: &mut Numbers) -> u64 {
    let access = numbers.one_of(&[0x89, 0x8b, 0x81, 0x83, 0x82, 0x85, 0x9b, 0x93, 0xfb, 0xf3]);
    let access = if numbers.draw().is_multiple_of(8) { numbers.draw() & 0xff } else { access };
    let base = numbers.one_of(&[0, OLD_TSS, NEW_TSS, NEW_TSS + 0xfd0, RAM_SIZE - 8, 0xffff_fff0]);
    let limit = numbers.one_of(&[0x67, 0x2b, 0x66, 0, 0xffff]);
    system(access, base, limit) | numbers.one_of(&[0, 0xcf << 48]) | (numbers.draw() & 0xf8) << 16
}

#[test]
fn random_tables_and_tasks_fault_before_the_switch_or_after_it() {
    let mut machine = Machine::new();
    let mut numbers = Numbers::new(0x1234_5678_9abc_def1);
    let (mut refused, mut switched) = (0, 0);
    for _ in 0..20_000 {
        let selector = (numbers.draw() as u16 & 0xf8) | numbers.one_of(&[0, 0, 0, 3, 4]);
        let code = match numbers.draw() % 4 {
            0 => far(JMP, selector),
            1 => far(CALL, selector),
            2 => [IRET; 7],
            _ => [0xcd, 0x40, 0, 0, 0, 0, 0],
        };
        machine.guest.write(CODE, &code);
        for at in (0..0x100).step_by(8) {
            let descriptor = descriptor(&mut numbers);
            machine.guest.write_u64(GDT + at, descriptor);
        }
        let entry = IDT + 0x40 * 8;
        machine.guest.write_u64(entry, gate(TASK_GATE, numbers.draw() as u16 & 0xfb));
        for tss in [OLD_TSS, NEW_TSS] {
            for at in (0..104).step_by(8) {
                let word = numbers.draw() & numbers.one_of(&[u64::MAX, 0x00ff_00ff_00ff_00ff]);
                machine.guest.write_u64(tss + at, word);
            }
        }
        let cpu = machine.cpu();
        cpu.arch.segs[seg::TR].selector = OLD;
        cpu.arch.segs[seg::TR].base = OLD_TSS;
        cpu.arch.segs[seg::TR].limit = 0x67;
        cpu.arch.segs[seg::TR].rights.0 = 0x8b;
        for (index, rights) in [(seg::CS, 0xc09b), (seg::SS, 0xc093)] {
            let segment = &mut cpu.arch.segs[index];
            (segment.base, segment.limit, segment.rights.0) = (0, u32::MAX, rights);
        }
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp], cpu.arch.cpl) = (CODE, STACK, 0);
        cpu.arch.cr0 = Cr0::PE | Cr0::ET;
        cpu.arch.cr4 = Cr4::empty();
        cpu.run.attention = 0;
        cpu.set_rflags(2 | Rflags::NT.bits());

        let outcome = machine.guest.vcpu.execute_one();

        let cpu = machine.cpu();
        match outcome {
            Ok(()) | Err(Stop::JUMP) => switched += 1,
            Err(Stop::FAULT) => {
                assert!(cpu.run.fault.take().is_some());
                assert_eq!((cpu.arch.segs[seg::TR].base, cpu.arch.rip), (OLD_TSS, CODE));
                refused += 1;
            }
            Err(_) => {
                // The new task faults, and cannot handle it.
                assert_eq!(cpu.run.exit.take(), Some(Exit::TripleFault));
                switched += 1;
            }
        }
    }
    assert!(refused > 10_000 && switched > 200, "{refused} refused, {switched} switched");
}
