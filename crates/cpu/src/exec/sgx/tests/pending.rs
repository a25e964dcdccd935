//! Events that EINIT gives way to (SDM Vol. 3D, EINIT).

use cloister_sgx::LeafPort as _;
use cloister_x86::regs::Rflags;

use crate::apic::take_inbox;
use crate::cpu::Cpu;
use crate::exec::sgx::port::Port;
use crate::testing::{Guest, Start};

/// Spurious-interrupt vector register of the x2APIC.
const SVR: u32 = 0x80f;
/// Data of messages to the local APIC.
const INTERRUPT: u32 = 0x52;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;

/// A processor with its local APIC enabled and IF clear.
fn guest() -> Guest {
    let mut guest = Guest::new(Start::Kernel64);
    let cpu = &mut guest.vcpu.cpu;
    assert!(cpu.write_apic_base(0xfee0_0d00), "x2APIC mode");
    assert!(cpu.write_msr(SVR, 0x1ff).is_ok());
    cpu.arch.system_flags.remove(Rflags::IF);
    guest
}

fn enabled(cpu: &mut Cpu) {
    cpu.arch.system_flags.insert(Rflags::IF);
}

/// Messages to a processor that is prepared so, and whether an event is pending then.
type Case = (&'static str, &'static [u32], fn(&mut Cpu), bool);

#[test]
fn only_an_event_that_the_processor_would_take_is_pending() {
    let table: [Case; 10] = [
        ("nothing", &[], enabled, false),
        ("an NMI with IF clear", &[NMI], |_| {}, true),
        ("an NMI while one is handled", &[NMI], |cpu| cpu.arch.nmi_blocked = true, false),
        ("an interrupt", &[INTERRUPT], enabled, true),
        ("an interrupt with IF clear", &[INTERRUPT], |_| {}, false),
        (
            "an interrupt below the task priority",
            &[INTERRUPT],
            |cpu| {
                enabled(cpu);
                cpu.set_task_priority(0x50);
            },
            false,
        ),
        (
            "an interrupt to an APIC that is off",
            &[INTERRUPT],
            |cpu| {
                enabled(cpu);
                assert!(cpu.write_msr(SVR, 0xff).is_ok());
            },
            false,
        ),
        ("both, with IF clear", &[INTERRUPT, NMI], |_| {}, true),
        ("INIT", &[INIT], |_| {}, true),
        ("a start-up IPI", &[6 << 8], |_| {}, false),
    ];
    for (name, messages, prepare, expected) in table {
        let mut guest = guest();
        let cpu = &mut guest.vcpu.cpu;
        prepare(cpu);
        for &message in messages {
            cpu.package.deliver_msi(0xfee0_0000, message);
        }

        let posted = Port::new(cpu).event_pending();
        let accepted = match messages {
            // It resets the processor when it is accepted.
            [INIT] => expected,
            _ => {
                assert_eq!(take_inbox(cpu), Ok(()), "{name}");
                Port::new(cpu).event_pending()
            }
        };

        assert_eq!((posted, accepted), (expected, expected), "{name}");
    }
}
