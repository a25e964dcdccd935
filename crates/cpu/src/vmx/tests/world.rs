//! Translations across VM entries and exits: what must not be used any more.

use cloister_x86::regs::Cr0;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::SecondaryControls;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::ept::{ALL, ELSEWHERE, ENTRY, PML4, WRITE_BACK, with_ept};
use super::machine::{AT_HOST, End, GUEST, HOST, Machine, PAGE};
use crate::testing::DATA;

const CPUID: End = End::Host(10);
const INVEPT: u64 = 0x50;
const INVVPID: u64 = 0x51;
/// The page table of the guest's lowest 2 MiB, once it has one.
const GUEST_TABLE: u64 = 0x10_6000;

/// A guest with a VPID that reads [`DATA`] again and again.
fn reader() -> Machine {
    let mut machine = with_ept(false);
    machine.second(SecondaryControls::VPID);
    machine.write(Field::VPID, 1);
    machine.guest.write_u64(DATA, 0x1111);
    machine.guest.write_u64(ELSEWHERE, 0x2222);
    machine.code(HOST, |a| {
        a.out(AT_HOST, al)?;
        a.vmresume()
    });
    assert_eq!(machine.run(read), CPUID);
    assert_eq!(value(&machine), 0x1111);
    machine
}

fn read(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, qword_ptr(DATA))?;
    a.cpuid()
}

fn value(machine: &Machine) -> u64 {
    machine.guest.vcpu.cpu.arch.gpr[3]
}

/// Lets the host go on, and the guest from its start.
fn again(machine: &mut Machine) -> End {
    machine.write(Field::GUEST_RIP, GUEST);
    machine.guest.vcpu.complete(0);
    machine.go()
}

/// As [`again`], after an invalidation of this kind and descriptor.
fn again_after(machine: &mut Machine, instruction: u64, kind: u64, descriptor: [u64; 2]) -> End {
    for (n, word) in (0..).zip(descriptor) {
        machine.guest.write_u64(PAGE + 8 * n, word);
    }
    machine.code(HOST + 2, |a| {
        a.mov(rax, kind)?;
        if instruction == INVEPT {
            a.invept(rax, xmmword_ptr(PAGE))?;
        } else {
            a.invvpid(rax, xmmword_ptr(PAGE))?;
        }
        a.vmresume()
    });
    again(machine)
}

#[test]
fn invept_drops_what_extended_page_tables_said() {
    let eptp = PML4 | 3 << 3 | 6;
    for (kind, descriptor) in [(1, [eptp, 0]), (2, [0, 0])] {
        let mut machine = reader();
        machine.guest.write_u64(ENTRY, ELSEWHERE | WRITE_BACK | ALL);
        assert_eq!(again_after(&mut machine, INVEPT, kind, descriptor), CPUID);
        assert_eq!(value(&machine), 0x2222, "{kind}");
    }
}

#[test]
fn invvpid_drops_what_the_guests_page_tables_said() {
    for (kind, descriptor) in [(0, [1, DATA]), (1, [1, 0]), (2, [0, 0]), (3, [1, 0])] {
        let mut machine = reader();
        split(&mut machine, ELSEWHERE);
        assert_eq!(again_after(&mut machine, INVVPID, kind, descriptor), CPUID);
        assert_eq!(value(&machine), 0x2222, "{kind}");
    }
}

/// Gives the guest a page table for its lowest 2 MiB, in which [`DATA`] is elsewhere.
fn split(machine: &mut Machine, data: u64) {
    let pd = 0x3000;
    for page in 0..512 {
        let to = if page << 12 == DATA { data } else { page << 12 };
        machine.guest.write_u64(GUEST_TABLE + 8 * page, to | 7);
    }
    machine.guest.write_u64(pd, GUEST_TABLE | 7);
}

#[test]
fn a_violation_drops_what_led_to_it() {
    let mut machine = reader();
    machine.guest.write_u64(ENTRY, DATA | WRITE_BACK | 1);
    let eptp = PML4 | 3 << 3 | 6;
    assert_eq!(again_after(&mut machine, INVEPT, 1, [eptp, 0]), CPUID);
    machine.code(GUEST, |a| {
        a.mov(qword_ptr(DATA), rax)?;
        read(a)
    });
    machine.code(HOST + 2, |a| a.vmresume());
    assert_eq!(again(&mut machine), End::Host(48));
    // Now it is another page, which can be written: no INVEPT.
    machine.guest.write_u64(ENTRY, ELSEWHERE | WRITE_BACK | ALL);
    machine.code(GUEST, read);
    assert_eq!(again(&mut machine), CPUID);
    assert_eq!(value(&machine), 0x2222);
}

#[test]
fn registers_that_the_hypervisor_changes_hold_for_translations_made_before() {
    let mut machine = reader();
    split(&mut machine, DATA);
    machine.guest.write_u64(GUEST_TABLE + 8 * (DATA >> 12), DATA | 5);
    machine.code(GUEST, |a| {
        a.mov(qword_ptr(DATA), rbx)?;
        a.cpuid()
    });
    machine.write(Field::EXCEPTION_BITMAP, 1 << 14);
    let protecting = machine.read(Field::GUEST_CR0) | Cr0::WP.bits();
    machine.write(Field::GUEST_CR0, protecting ^ Cr0::WP.bits());
    assert_eq!(again_after(&mut machine, INVVPID, 1, [1, 0]), CPUID, "CR0.WP is clear");
    machine.write(Field::GUEST_CR0, protecting);
    machine.code(HOST + 2, |a| a.vmresume());
    assert_eq!(again(&mut machine), End::Host(0), "the page is read-only");
}

#[test]
fn guests_without_a_vpid_share_nothing_with_their_hypervisor() {
    let mut machine = with_ept(false);
    machine.guest.write_u64(ENTRY, ELSEWHERE | WRITE_BACK | ALL);
    machine.guest.write_u64(DATA, 0x1111);
    machine.guest.write_u64(ELSEWHERE, 0x2222);
    machine.code(HOST, |a| {
        a.mov(rbx, qword_ptr(DATA))?;
        a.out(AT_HOST, al)?;
        a.vmresume()
    });
    assert_eq!(machine.run(read), CPUID);
    assert_eq!(value(&machine), 0x1111);
    machine.code(GUEST, |a| {
        a.mov(rbx, qword_ptr(DATA))?;
        a.mov(rcx, rbx)?;
        a.cpuid()
    });
    assert_eq!(again(&mut machine), CPUID);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[1], 0x2222);
    assert_eq!(value(&machine), 0x1111);
}
