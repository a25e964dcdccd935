use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use iced_x86::code_asm::*;

use super::*;
use crate::testing::{CODE, DATA, DEVICE, Ending, Guest, STACK, Start};

fn stop_at(guest: &mut Guest, breakpoints: &[u64]) {
    let breakpoints = breakpoints.iter().copied().collect();
    guest.vcpu.set_debug_points(Some(&DebugPoints { breakpoints, ..DebugPoints::default() }));
}

fn watch(guest: &mut Guest, la: u64, len: u64, writes_only: bool) {
    let watchpoints = BTreeSet::from([Watchpoint { la, len, writes_only }]);
    guest.vcpu.set_debug_points(Some(&DebugPoints { watchpoints, ..DebugPoints::default() }));
}

const fn breakpoint(la: u64) -> Ending {
    Ending::Exit(Exit::Debug(DebugStop::Breakpoint { la }))
}

const STEP: Ending = Ending::Exit(Exit::Debug(DebugStop::Step));

fn step(guest: &mut Guest) -> Ending {
    guest.vcpu.debug_step();
    guest.run()
}

fn rip(guest: &Guest) -> u64 {
    guest.vcpu.cpu.arch.rip
}

fn gpr(guest: &Guest, register: Gpr) -> u64 {
    guest.vcpu.cpu.arch.gpr[register]
}

/// INC EAX; INC ECX; INC EDX: two bytes each.
fn three_increments(start: Start) -> Guest {
    let mut guest = Guest::new(start);
    guest.load_code(&[0xff, 0xc0, 0xff, 0xc1, 0xff, 0xc2]);
    guest
}

#[test]
fn a_breakpoint_stops_before_its_instruction_in_every_mode() {
    for start in [Start::User64, Start::Kernel64, Start::User32, Start::Flat32, Start::Real16] {
        let mut guest = three_increments(start);
        stop_at(&mut guest, &[CODE + 2]);

        assert_eq!(guest.run(), breakpoint(CODE + 2), "{start:?}");

        assert_eq!((rip(&guest), gpr(&guest, Gpr::Rax)), (CODE + 2, 1), "{start:?}");
        assert_eq!(gpr(&guest, Gpr::Rcx), 0, "{start:?}");
        // It holds until it is taken back.
        assert_eq!(guest.run(), breakpoint(CODE + 2), "{start:?}");
        stop_at(&mut guest, &[]);
        assert!(matches!(guest.run(), Ending::Exception(_)), "{start:?}");
        assert_eq!(gpr(&guest, Gpr::Rdx), 1, "{start:?}");
    }
}

#[test]
fn code_that_was_decoded_before_and_after_has_the_breakpoints_of_its_time() {
    let mut guest = three_increments(Start::User64);
    let again = |guest: &mut Guest| {
        guest.vcpu.cpu.arch.rip = CODE;
        guest.run()
    };
    assert!(matches!(again(&mut guest), Ending::Exception(_)));
    stop_at(&mut guest, &[CODE + 4]);
    assert_eq!(again(&mut guest), breakpoint(CODE + 4));
    stop_at(&mut guest, &[CODE]);
    assert_eq!(again(&mut guest), breakpoint(CODE));
    guest.vcpu.set_debug_points(None);
    assert!(matches!(again(&mut guest), Ending::Exception(_)));
    stop_at(&mut guest, &[CODE + 4]);
    assert_eq!(again(&mut guest), breakpoint(CODE + 4));
}

#[test]
fn a_breakpoint_is_that_of_a_linear_address_whatever_page_is_mapped_there() {
    let mut guest = three_increments(Start::User64);
    // The same page at another address.
    let alias = DATA;
    guest.write_u64(0x4000 + (alias >> 12) * 8, CODE | 7);
    stop_at(&mut guest, &[alias + 2]);

    assert!(matches!(guest.run(), Ending::Exception(_)));
    assert_eq!(gpr(&guest, Gpr::Rdx), 1);
    guest.vcpu.cpu.arch.rip = alias;
    assert_eq!(guest.run(), breakpoint(alias + 2));
}

#[test]
fn an_instruction_that_crosses_pages_and_one_that_runs_alone_have_breakpoints() {
    let mut guest = Guest::new(Start::Kernel64);
    let crossing = CODE + 0xffe;
    // MOV ECX, imm32.
    guest.write(crossing, &[0xb9, 1, 0, 0, 0, 0x0f, 0x0b]);
    guest.vcpu.cpu.arch.rip = crossing;
    stop_at(&mut guest, &[crossing]);
    assert_eq!(guest.run(), breakpoint(crossing));

    let mut guest = three_increments(Start::Kernel64);
    // A breakpoint of the guest's, which has every instruction run alone.
    guest.vcpu.cpu.write_dr7(2);
    stop_at(&mut guest, &[CODE + 2]);
    assert_eq!(guest.run(), breakpoint(CODE + 2));
}

#[test]
fn a_step_is_one_instruction_even_at_a_breakpoint_and_leaves_no_trace() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.pushfq()?;
        a.pop(rax)?;
        a.inc(ecx)
    });
    stop_at(&mut guest, &[CODE]);
    assert_eq!(guest.run(), breakpoint(CODE));
    let dr = (guest.vcpu.cpu.arch.dr6, guest.vcpu.cpu.arch.dr7);

    for next in [1, 2, 4] {
        assert_eq!(step(&mut guest), STEP);
        assert_eq!(rip(&guest), CODE + next);
    }

    assert_eq!(gpr(&guest, Gpr::Rax) & Rflags::TF.bits(), 0);
    assert_eq!((guest.vcpu.cpu.arch.dr6, guest.vcpu.cpu.arch.dr7), dr);
    // It was one step each.
    assert!(matches!(guest.run(), Ending::Exception(_)));
}

#[test]
fn a_step_ends_after_what_the_owner_completes() {
    let mut guest = Guest::new(Start::Kernel64);
    guest.assemble(|a| {
        a.cpuid()?;
        a.in_(al, 0x80)?;
        a.mov(qword_ptr(DEVICE), rbx)
    });

    assert!(matches!(step(&mut guest), Ending::Exit(Exit::Cpuid { .. })));
    guest.vcpu.finish_cpuid(cloister_x86::cpuid::CpuidResult::default());
    assert_eq!((guest.run(), rip(&guest)), (STEP, CODE + 2));
    assert!(matches!(step(&mut guest), Ending::Exit(Exit::IoIn { .. })));
    guest.vcpu.complete(7);
    assert_eq!((guest.run(), rip(&guest)), (STEP, CODE + 4));
    assert!(matches!(step(&mut guest), Ending::Exit(Exit::MmioWrite { .. })));
    guest.vcpu.complete(0);
    assert_eq!(guest.run(), STEP);
}

#[test]
fn a_step_of_the_guests_own_comes_after_the_owners() {
    let mut guest = three_increments(Start::Kernel64);
    guest.vcpu.cpu.set_rflags(Rflags::TF.bits() | 2);

    assert_eq!(step(&mut guest), STEP);

    let state = guest.vcpu.cpu.state();
    assert_eq!((state.rip, state.debug_pending), (CODE + 2, 1 << 14));
}

#[test]
fn a_watched_access_stops_after_its_instruction() {
    for (writes_only, hit) in [(false, 2), (true, 3)] {
        let mut guest = Guest::new(Start::User64);
        guest.assemble(|a| {
            a.mov(ecx, dword_ptr(DATA))?;
            a.mov(esi, dword_ptr(DATA + 6))?;
            a.mov(dword_ptr(DATA + 4), esi)?;
            a.inc(edx)
        });
        watch(&mut guest, DATA + 7, 1, writes_only);

        let stop = guest.run();

        assert_eq!(stop, Ending::Exit(Exit::Debug(DebugStop::Watchpoint { la: DATA + 7 })));
        assert_eq!(rip(&guest), CODE + 7 * hit);
        guest.vcpu.set_debug_points(None);
        assert!(matches!(guest.run(), Ending::Exception(_)));
        assert_eq!(gpr(&guest, Gpr::Rdx), 1);
    }
}

#[test]
fn memory_is_read_and_written_whatever_the_rights_and_without_a_trace() {
    let mut guest = Guest::new(Start::User64);
    let entry = 0x4000 + (DATA >> 12) * 8;
    // Present, read-only, for the supervisor alone.
    guest.set_page_flags(DATA, 1);
    let cpu = &guest.vcpu.cpu;

    // Across a page.
    assert!(cpu.debug_write(DATA + 0xffe, &[1, 2, 3, 4]));
    let mut read = [0; 4];
    assert_eq!(cpu.debug_read(DATA + 0xffe, &mut read), 4);

    assert_eq!((read, guest.read(DATA + 0xffe)), ([1, 2, 3, 4], [1, 2, 3, 4]));
    assert_eq!(guest.read_u64(entry), DATA | 1);
    // Device registers, what is not mapped, and what is not canonical.
    for la in [DEVICE, 0x7f_0000_0000, 1 << 63] {
        let cpu = &guest.vcpu.cpu;
        assert_eq!((cpu.debug_read(la, &mut read), cpu.debug_write(la, &[0])), (0, false));
    }
    let cpu = &guest.vcpu.cpu;
    assert_eq!(
        (cpu.debug_read(DEVICE - 2, &mut read), cpu.debug_write(DEVICE - 2, &read)),
        (2, false)
    );
}

#[test]
fn written_code_runs() {
    let mut guest = three_increments(Start::User64);
    assert!(matches!(guest.run(), Ending::Exception(_)));
    // INC EBX in place of INC ECX.
    assert!(guest.vcpu.cpu.debug_write(CODE + 3, &[0xc3]));
    guest.vcpu.cpu.arch.rip = CODE;

    assert!(matches!(guest.run(), Ending::Exception(_)));

    assert_eq!((gpr(&guest, Gpr::Rbx), gpr(&guest, Gpr::Rcx)), (1, 1));
}

#[test]
fn a_pause_takes_back_a_step_that_was_not_made() {
    let mut guest = three_increments(Start::User64);
    guest.vcpu.debug_step();
    guest.vcpu.debug_pause();

    assert!(matches!(guest.run(), Ending::Exception(_)));
    assert_eq!(gpr(&guest, Gpr::Rsp), STACK);
}
