//! Extended page tables that another processor rewrites while they are walked.

use std::thread;

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::SecondaryControls;
use iced_x86::code_asm::*;

use super::ept::{ALL, ENTRY, TABLE, WRITE_BACK, give_ept};
use super::machine::{AT_HOST, End, GUEST, HOST, Machine, PAGE};
use crate::state::VmxState;
use crate::testing::DATA;
use crate::vmx::fuzzing::hypervisor::PD;
use crate::{Exit, Vcpu};

/// Pages that [`DATA`] may be: what the first 8 bytes of each are.
const PAGES: [(u64, u64); 3] = [(0x1d_0000, 1), (0x1d_1000, 2), (0x1d_2000, 3)];
/// A table like [`TABLE`], in which [`DATA`] is the third of them and read-only.
const OTHER_TABLE: u64 = 0x20_5000;
/// What the writer is asked for, and what it has come to: rights to write while it is even.
const ASKED: u64 = 0x1d_3000;
const DONE: u64 = 0x1d_3008;
/// The writer's code.
const WRITER: u64 = 0x1d_4000;

const READ: u64 = 1;
const ROUNDS: u64 = 1_000;
/// Rounds until rights are taken away.
const PERIOD: u64 = 8;

/// A guest that reads [`DATA`] and writes beside it, and a hypervisor that drops all it has of the extended
/// page tables before each entry.
fn reader(accessed_dirty: bool) -> Machine {
    let mut machine = Machine::with_cpus(2);
    give_ept(&mut machine, accessed_dirty);
    machine.second(SecondaryControls::VPID);
    machine.write(Field::VPID, 1);
    for (page, value) in PAGES {
        machine.guest.write_u64(page, value);
    }
    for page in 0..512 {
        let entry = machine.guest.read_u64(TABLE + 8 * page);
        machine.guest.write_u64(OTHER_TABLE + 8 * page, entry);
    }
    machine.guest.write_u64(ENTRY, PAGES[0].0 | WRITE_BACK | ALL);
    let other = OTHER_TABLE + (ENTRY - TABLE);
    machine.guest.write_u64(other, PAGES[2].0 | WRITE_BACK | READ);
    machine.code(HOST, |a| {
        a.out(AT_HOST, al)?;
        a.mov(eax, 2)?;
        a.invept(rax, xmmword_ptr(PAGE))?;
        a.vmresume()
    });
    machine.code(GUEST, |a| {
        a.mov(rbx, qword_ptr(DATA))?;
        a.mov(qword_ptr(DATA + 8), rax)?;
        a.cpuid()
    });
    machine
}

/// A processor that changes the entries of the way to [`DATA`] again and again.
fn writer(machine: &mut Machine) -> Vcpu {
    let [first, second] = [PAGES[0].0, PAGES[1].0].map(|page| page | WRITE_BACK);
    let tables = [OTHER_TABLE, TABLE].map(|table| (PD, table | ALL));
    machine.guest.assemble_at(WRITER, 64, |a| {
        let (mut again, mut reading, mut done) =
            (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.mov(rax, qword_ptr(ASKED))?;
        a.test(eax, 1)?;
        a.jnz(reading)?;
        for (at, value) in
            [(ENTRY, first | ALL), tables[0], (ENTRY, second | ALL), tables[1], (ENTRY, 0)]
        {
            a.mov(rcx, value)?;
            a.mov(qword_ptr(at), rcx)?;
        }
        a.jmp(done)?;
        a.set_label(&mut reading)?;
        for (at, value) in [(ENTRY, first | READ), tables[0], (ENTRY, second | READ), tables[1]] {
            a.mov(rcx, value)?;
            a.mov(qword_ptr(at), rcx)?;
        }
        a.set_label(&mut done)?;
        a.mov(qword_ptr(DONE), rax)?;
        a.jmp(again)
    });
    let mut vcpu = machine.guest.processor(1);
    let mut state = machine.guest.vcpu.cpu.arch.clone();
    state.vmx = VmxState::default();
    state.rip = WRITER;
    vcpu.cpu.set_state(state);
    vcpu
}

/// Runs the guest while the tables change. Exits for want of a right to write, and without it, of entries
/// that were not there, and of none.
fn read_on(machine: &mut Machine) -> [u64; 3] {
    const CPUID: End = End::Host(10);
    const VIOLATION: End = End::Host(48);
    /// Access and rights of the qualification: reading and writing what is not there, writing what can only
    /// be read.
    const ABSENT: [u64; 2] = [0o01, 0o02];
    const READ_ONLY: u64 = 0o12;
    let mut ends = [0; 3];
    for round in 0..ROUNDS {
        let protected = round % PERIOD == PERIOD - 1;
        if protected || round % PERIOD == 0 {
            let asked = 2 * (round / PERIOD) + u64::from(protected);
            machine.guest.write_u64(ASKED, asked);
            while protected && machine.guest.read_u64(DONE) != asked {
                thread::yield_now();
            }
        }
        machine.write(Field::GUEST_RIP, GUEST);
        machine.guest.vcpu.cpu.arch.gpr[3] = 0;
        let end = if round == 0 {
            machine.launch()
        } else {
            machine.guest.vcpu.complete(0);
            machine.go()
        };
        let value = machine.guest.vcpu.cpu.arch.gpr[3];
        let qualification = machine.read(Field::EXIT_QUALIFICATION);
        match end {
            CPUID if !protected => ends[2] += 1,
            VIOLATION => {
                assert_eq!(machine.read(Field::GUEST_PHYSICAL_ADDRESS) & !0xfff, DATA);
                assert_eq!(qualification >> 6, 0o6, "{qualification:#x}");
                match qualification & 0o77 {
                    READ_ONLY => ends[0] += 1,
                    absent if ABSENT.contains(&absent) && !protected => ends[1] += 1,
                    other => panic!("{other:#o} with {protected}"),
                }
            }
            end => panic!("{end:?} with {protected}"),
        }
        let unread = end == VIOLATION && qualification & 1 != 0;
        assert!(unread || (1..=3).contains(&value), "{value:#x}");
    }
    ends
}

#[test]
fn walks_of_tables_that_another_processor_rewrites_find_what_was_mapped() {
    for accessed_dirty in [false, true] {
        let mut machine = reader(accessed_dirty);
        let mut writer = writer(&mut machine);
        let kicker = writer.cpu.kicker.clone();
        let ends = thread::scope(|scope| {
            let writing = scope.spawn(move || writer.run());
            let reading = scope.spawn(|| read_on(&mut machine)).join();
            kicker.request_exit();
            assert_eq!(writing.join().expect("the writer does not panic"), Exit::Requested);
            reading.expect("each exit is one of those that the tables allow")
        });
        let [read_only, ..] = ends;
        assert!(read_only >= ROUNDS / PERIOD, "{ends:?}");
    }
}
