//! VM entry: what is refused, what fails with an exit, and what is loaded.

use cloister_x86::Gpr;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::EntryControls;

use super::machine::{End, Machine, PAGE};
use crate::state::Shadow;

const INVALID_MSR: End = End::Host(1 << 31 | 34);

#[test]
fn the_state_of_the_machine_of_these_tests_is_entered() {
    assert_eq!(Machine::new().run(|_| Ok(())), End::Guest);
}

#[test]
fn launch_state_decides_between_vmlaunch_and_vmresume() {
    let mut machine = Machine::new();
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    machine.guest.vcpu.complete(0);
    machine.guest.vcpu.cpu.arch.rip = crate::testing::CODE;
    assert_eq!(machine.launch(), End::Refused(Some(4)));
}

#[test]
fn entry_under_mov_ss_and_without_a_vmcs_is_refused() {
    let mut machine = Machine::new();
    machine.guest.vcpu.cpu.set_shadow(Shadow::MovSs);
    assert_eq!(machine.run(|_| Ok(())), End::Refused(Some(26)));
    let mut machine = Machine::new();
    machine.guest.vcpu.cpu.arch.vmx.current = None;
    assert_eq!(machine.run(|_| Ok(())), End::Refused(None));
}

#[test]
fn an_msr_that_cannot_be_loaded_fails_the_entry_by_its_number() {
    let mut machine = Machine::new();
    machine.write(Field::ENTRY_MSR_LOAD_ADDRESS, PAGE);
    machine.write(Field::ENTRY_MSR_LOAD_COUNT, 2);
    machine.guest.write_u64(PAGE, cloister_x86::msr::KERNEL_GS_BASE.into());
    machine.guest.write_u64(PAGE + 8, 0x1234);
    machine.guest.write_u64(PAGE + 16, cloister_x86::msr::FS_BASE.into());

    assert_eq!(machine.run(|_| Ok(())), INVALID_MSR);
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 2);
    assert_eq!(machine.guest.vcpu.cpu.arch.msrs.kernel_gs_base, 0x1234);
}

#[test]
fn an_msr_list_has_at_most_512_entries() {
    // As many as there is RAM for.
    const LIST: u64 = 0x20_0000;
    for (count, end) in [(512, End::Guest), (513, INVALID_MSR), (0x1_0000, INVALID_MSR)] {
        let mut machine = Machine::new();
        machine.write(Field::ENTRY_MSR_LOAD_ADDRESS, LIST);
        machine.write(Field::ENTRY_MSR_LOAD_COUNT, count);
        for n in 0..count {
            machine.guest.write_u64(LIST + 16 * n, cloister_x86::msr::KERNEL_GS_BASE.into());
            machine.guest.write_u64(LIST + 16 * n + 8, n);
        }

        assert_eq!(machine.run(|_| Ok(())), end, "{count}");
        assert_eq!(machine.guest.vcpu.cpu.arch.msrs.kernel_gs_base, 511, "{count}");
        if end == INVALID_MSR {
            assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 513, "{count}");
        }
    }
}

#[test]
fn guest_state_is_loaded_and_host_state_comes_back() {
    let mut machine = Machine::new();
    machine.write(Field::GUEST_RSP, 0x1_8000);
    machine.write(Field::GUEST_RFLAGS, 0x8d7);
    machine.write(Field::GUEST_SYSENTER_CS, 0x33);
    let before = machine.guest.vcpu.cpu.arch.gpr[Gpr::Rsp];

    assert_eq!(machine.run(|_| Ok(())), End::Guest);
    let arch = &machine.guest.vcpu.cpu.arch;
    assert_eq!(arch.gpr[Gpr::Rsp], 0x1_8000);
    assert_eq!((arch.rflags(), arch.msrs.sysenter_cs), (0x8d7, 0x33));

    let mut machine = Machine::new();
    machine.write(Field::GUEST_RSP, 0x1_8000);
    machine.write(Field::GUEST_RFLAGS, 0x8d7);
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    let arch = &machine.guest.vcpu.cpu.arch;
    assert_eq!((arch.gpr[Gpr::Rsp], arch.rflags()), (before, 2));
    assert_eq!(
        (machine.read(Field::GUEST_RSP), machine.read(Field::GUEST_RFLAGS)),
        (0x1_8000, 0x8d7)
    );
    assert_eq!(machine.read(Field::ENTRY_CONTROLS) as u32 & EntryControls::IA32E.bits(), 1 << 9);
}

#[test]
fn lists_hold_the_register_of_speculation_control() {
    let lists = |loaded: u64| {
        let mut machine = Machine::new();
        for (n, (address, count, value)) in (0..).zip([
            (Field::ENTRY_MSR_LOAD_ADDRESS, Field::ENTRY_MSR_LOAD_COUNT, loaded),
            (Field::EXIT_MSR_STORE_ADDRESS, Field::EXIT_MSR_STORE_COUNT, 0),
            (Field::EXIT_MSR_LOAD_ADDRESS, Field::EXIT_MSR_LOAD_COUNT, 4),
        ]) {
            let entry = PAGE + 16 * n;
            machine.write(address, entry);
            machine.write(count, 1);
            machine.guest.write_u64(entry, cloister_x86::msr::SPEC_CTRL.into());
            machine.guest.write_u64(entry + 8, value);
        }
        machine
    };
    let mut machine = lists(1);
    assert_eq!(machine.run(|a| a.cpuid()), End::Host(10));
    assert_eq!(machine.guest.read_u64(PAGE + 24), 1);
    assert_eq!(machine.guest.vcpu.cpu.arch.msrs.spec_ctrl, 4);
    // A reserved bit.
    assert_eq!(lists(1 << 3).run(|a| a.cpuid()), INVALID_MSR);
}
