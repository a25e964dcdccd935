//! Extended page tables.

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::SecondaryControls;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{End, GUEST, Machine, PAGE};
use crate::testing::DATA;
use crate::vmx::fuzzing::hypervisor::map_all;
pub(super) use crate::vmx::fuzzing::hypervisor::{ALL, PML4, TABLE, WRITE_BACK};

/// The walk reads [`DATA`] here.
pub(super) const ELSEWHERE: u64 = 0x20_4000;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;

/// Extended page tables that map all to itself: the first 2 MiB by pages of 4 KiB.
pub(super) fn with_ept(accessed_dirty: bool) -> Machine {
    let mut machine = Machine::new();
    give_ept(&mut machine, accessed_dirty);
    machine
}

/// Gives the guest of a machine the tables of [`with_ept`].
pub(super) fn give_ept(machine: &mut Machine, accessed_dirty: bool) {
    machine.second(SecondaryControls::EPT);
    let flags = if accessed_dirty { 1 << 6 } else { 0 };
    machine.write(Field::EPTP, PML4 | 3 << 3 | 6 | flags);
    map_all(&mut machine.guest);
}

/// The entry of the page at [`DATA`].
pub(super) const ENTRY: u64 = TABLE + 8 * (DATA >> 12);

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
const READ: Code = |a| a.mov(rax, qword_ptr(DATA));
const WRITE: Code = |a| a.mov(qword_ptr(DATA), rax);
const FETCH: Code = |a| {
    a.mov(rax, DATA)?;
    a.jmp(rax)
};

#[test]
fn guest_physical_pages_are_where_the_entries_say() {
    let mut machine = with_ept(false);
    machine.guest.write_u64(ELSEWHERE, 0x1234);
    machine.guest.write_u64(ENTRY, ELSEWHERE | WRITE_BACK | ALL);
    assert_eq!(machine.run(READ), End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[0], 0x1234);
}

#[test]
fn violations_say_the_access_and_the_rights() {
    // Rights of the entry, the access, the qualification.
    let table: [(u64, Code, u64); 7] = [
        (0, READ, 0x181),
        (0, WRITE, 0x182),
        (0, FETCH, 0x184),
        (1, WRITE, 0x18a),
        (5, WRITE, 0x1aa),
        (3, FETCH, 0x19c),
        (4, READ, 0x1a1),
    ];
    for (rights, code, qualification) in table {
        let mut machine = with_ept(false);
        machine.guest.write_u64(ENTRY, DATA | WRITE_BACK | rights);
        assert_eq!(machine.run(code), End::Host(48), "{rights} {qualification:#x}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification, "{rights}");
        assert_eq!(machine.read(Field::GUEST_PHYSICAL_ADDRESS), DATA);
        assert_eq!(machine.read(Field::GUEST_LINEAR_ADDRESS), DATA);
    }
}

#[test]
fn entries_that_mean_nothing_are_misconfigurations() {
    for entry in [2, 6, 7 | 2 << 3, 7 | 7 << 3, 7 | 1 << 50] {
        let mut machine = with_ept(false);
        machine.guest.write_u64(ENTRY, DATA | entry);
        assert_eq!(machine.run(READ), End::Host(49), "{entry:#x}");
        assert_eq!(machine.read(Field::GUEST_PHYSICAL_ADDRESS), DATA);
    }
}

#[test]
fn accessed_and_dirty_flags_are_kept_where_asked() {
    for (keeps, code, flags) in
        [(false, WRITE, 0), (true, READ, ACCESSED), (true, WRITE, ACCESSED | DIRTY)]
    {
        let mut machine = with_ept(keeps);
        assert_eq!(machine.run(code), End::Guest);
        assert_eq!(machine.guest.read_u64(ENTRY) & (ACCESSED | DIRTY), flags);
    }
}

#[test]
fn the_guests_own_paging_structures_are_translated_too() {
    // CR3 of the guest names a page that is not there; with the flags walks are writes.
    for (keeps, qualification) in [(false, 0x81), (true, 0x83)] {
        let mut machine = with_ept(keeps);
        let root = machine.read(Field::GUEST_CR3);
        machine.guest.write_u64(TABLE + 8 * (root >> 12), 0);
        assert_eq!(machine.run(READ), End::Host(48));
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification);
        assert_eq!(machine.read(Field::GUEST_PHYSICAL_ADDRESS), root);
        assert_eq!(machine.read(Field::GUEST_LINEAR_ADDRESS), GUEST);
    }
}

#[test]
fn an_unrestricted_guest_runs_in_real_address_mode() {
    let mut machine = with_ept(false);
    machine.second(SecondaryControls::UNRESTRICTED_GUEST);
    machine.clear_entry(cloister_x86::vmx::EntryControls::IA32E);
    machine.write(Field::GUEST_CR0, 0x30);
    machine.write(Field::GUEST_CR4, 0x2000);
    machine.write(Field::GUEST_RIP, 0x2000);
    let segment = |n| Field::GUEST_ES_BASE.plus(n);
    for n in 0..6 {
        machine.write(Field::GUEST_ES_RIGHTS.plus(n), if n == 1 { 0x9b } else { 0x93 });
        machine.write(Field::GUEST_ES_LIMIT.plus(n), 0xffff);
        machine.write(segment(n), 0);
    }
    machine.write(segment(1), GUEST - 0x2000);
    machine.write(Field::GUEST_CS_SELECTOR, ((GUEST - 0x2000) >> 4) & 0xffff);
    machine.guest.assemble_at(GUEST, 16, |a| {
        a.mov(ax, 0x1234)?;
        a.hlt()
    });
    machine.control(cloister_x86::vmx::ProcControls::HLT);
    assert_eq!(machine.launch(), End::Host(12));
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[0] & 0xffff, 0x1234);
    assert_eq!(machine.read(Field::GUEST_RIP), 0x2003);
}

#[test]
fn pages_that_become_dirty_are_logged_until_the_log_is_full() {
    let code: Code = |a| {
        a.mov(qword_ptr(DATA), rax)?;
        a.mov(qword_ptr(DATA + 8), rax)?;
        a.mov(qword_ptr(DATA + 0x1000), rax)
    };
    let logging = |index| {
        let mut machine = with_ept(true);
        machine.second(SecondaryControls::PAGE_MODIFICATION_LOG);
        machine.write(Field::PML_ADDRESS, PAGE);
        machine.write(Field::GUEST_PML_INDEX, index);
        machine
    };
    let mut machine = logging(511);
    assert_eq!(machine.run(code), End::Guest);
    // With the flags, the walk of the guest's paging structures writes them.
    let logged: Vec<u64> = (0..6).map(|n| machine.guest.read_u64(PAGE + 8 * (511 - n))).collect();
    assert_eq!(logged, [0x1000, 0x2000, 0x3000, 0x4000, DATA, DATA + 0x1000]);

    // PML index, and the index at the exit.
    for (index, left) in [(0, 0xffff), (512, 512)] {
        let mut machine = logging(index);
        assert_eq!(machine.run(code), End::Host(62), "{index}");
        assert_eq!(machine.read(Field::GUEST_PML_INDEX), left, "{index}");
    }
}
