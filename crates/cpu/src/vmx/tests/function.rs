//! VM functions: EPTP switching (SDM Vol. 3C, 25.5.6).

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::SecondaryControls;
use cloister_x86::{Gpr, msr};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::ept::{ALL, ELSEWHERE, PML4, WRITE_BACK, with_ept};
use super::machine::{End, GUEST, Machine, PAGE};
use crate::testing::DATA;
use crate::vmx::capability;

/// Other tables, which lead to [`ELSEWHERE`] instead of [`DATA`].
const OTHER: u64 = 0x30_0000;
const FLAGS: u64 = 3 << 3 | 6;

/// A guest with a list of two EPT pointers at [`PAGE`].
fn switching(vpid: bool) -> Machine {
    let mut machine = with_ept(false);
    machine.second(SecondaryControls::VM_FUNCTIONS);
    machine.write(Field::VM_FUNCTION_CONTROLS, 1);
    machine.write(Field::EPTP_LIST, PAGE);
    if vpid {
        machine.second(SecondaryControls::VPID);
        machine.write(Field::VPID, 1);
    }
    machine.guest.write_u64(PAGE, PML4 | FLAGS);
    machine.guest.write_u64(PAGE + 8, OTHER | FLAGS);
    for level in 0..3 {
        machine.guest.write_u64(OTHER + level * 0x1000, (OTHER + (level + 1) * 0x1000) | ALL);
    }
    let all = 1 << 7 | WRITE_BACK | ALL;
    machine.guest.write_u64(OTHER + 0x2008, 0x20_0000 | all);
    for page in 0..512 {
        let to = if page << 12 == DATA { ELSEWHERE } else { page << 12 };
        machine.guest.write_u64(OTHER + 0x3000 + 8 * page, to | WRITE_BACK | ALL);
    }
    machine.guest.write_u64(DATA, 0x1111);
    machine.guest.write_u64(ELSEWHERE, 0x2222);
    machine
}

/// Chooses an EPT pointer, and reads before and after.
fn switch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rsi, qword_ptr(DATA))?;
    a.vmfunc()?;
    a.mov(rdi, qword_ptr(DATA))
}

#[test]
fn the_guest_goes_on_with_the_tables_that_it_chooses() {
    for vpid in [false, true] {
        let mut machine = switching(vpid);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = 1;
        let end = machine.run(|a| {
            switch(a)?;
            a.mov(ecx, 0)?;
            a.vmfunc()?;
            a.mov(rbx, qword_ptr(DATA))?;
            a.mov(ecx, 1)?;
            a.vmfunc()
        });
        assert_eq!(end, End::Guest);
        let gpr = &machine.guest.vcpu.cpu.arch.gpr;
        let values = [Gpr::Rsi, Gpr::Rdi, Gpr::Rbx].map(|register| gpr[register]);
        assert_eq!(values, [0x1111, 0x2222, 0x1111], "{vpid}");
        assert_eq!(machine.read(Field::EPTP), OTHER | FLAGS);
    }
}

#[test]
fn what_the_list_does_not_have_and_functions_that_are_not_enabled_exit() {
    // EAX, ECX, the list's second entry.
    for (function, index, eptp) in [
        (0, 512, OTHER | FLAGS),
        (0, u64::from(u32::MAX), OTHER | FLAGS),
        (0, 1, OTHER | 3 << 3),
        (0, 1, 1 << 51 | FLAGS),
        (1, 0, OTHER | FLAGS),
        (63, 0, OTHER | FLAGS),
    ] {
        let mut machine = switching(false);
        machine.guest.write_u64(PAGE + 8, eptp);
        let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
        (gpr[Gpr::Rax], gpr[Gpr::Rcx]) = (function, index);
        assert_eq!(machine.run(|a| a.vmfunc()), End::Host(59), "{function} {index} {eptp:#x}");
        assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 3);
        assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
        assert_eq!(machine.read(Field::EPTP), PML4 | FLAGS);
    }
}

#[test]
fn vmfunc_is_undefined_without_its_control_and_for_numbers_from_64_on() {
    for (control, function) in [(false, 0), (true, 64)] {
        let mut machine = switching(false);
        if !control {
            machine.write(Field::SECONDARY_CONTROLS, SecondaryControls::EPT.bits().into());
        }
        machine.write(Field::EXCEPTION_BITMAP, 1 << 6);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax] = function;
        assert_eq!(machine.run(|a| a.vmfunc()), End::Host(0), "{control} {function}");
    }
}

#[test]
fn the_list_and_the_functions_are_checked() {
    type Change = fn(&mut Machine);
    let table: [(&str, Change, End); 5] = [
        ("reserved function", |m| m.write(Field::VM_FUNCTION_CONTROLS, 2), End::Refused(Some(7))),
        ("list, unaligned", |m| m.write(Field::EPTP_LIST, PAGE + 8), End::Refused(Some(7))),
        ("list, too high", |m| m.write(Field::EPTP_LIST, 1 << 51), End::Refused(Some(7))),
        (
            "without EPT",
            |m| {
                let functions = SecondaryControls::VM_FUNCTIONS.bits();
                m.write(Field::SECONDARY_CONTROLS, functions.into());
            },
            End::Refused(Some(7)),
        ),
        (
            "no function",
            |m| {
                m.write(Field::VM_FUNCTION_CONTROLS, 0);
                m.write(Field::EPTP_LIST, u64::MAX);
            },
            End::Guest,
        ),
    ];
    for (name, change, end) in table {
        let mut machine = switching(false);
        change(&mut machine);
        assert_eq!(machine.run(|_| Ok(())), end, "{name}");
    }
    let features = Machine::new().guest.vcpu.cpu.ctl.features;
    assert_eq!(capability::read(msr::VMX_VMFUNC, &features), Some(1));
}
