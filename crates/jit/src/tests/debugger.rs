//! The owner's debugger of a processor with a translator.

use cloister_cpu::testing::{CODE, DATA, Ending, Guest, Start};
use cloister_cpu::{DebugPoints, DebugStop, Exit, Watchpoint};
use cloister_x86::Gpr;
use iced_x86::code_asm::{ecx, qword_ptr, rax};

use super::guest;
use crate::host::HostFeatures;

/// Rounds of the loop, from where it is on.
const ROUNDS: u64 = 1000;
const TOP: u64 = CODE + 5;

/// A guest whose loop of ADD, INC and DEC has run translated, and that is about to run it again.
fn warm() -> Guest {
    let mut guest = guest(Start::User64, Some(HostFeatures::detect()));
    guest.assemble(|a| {
        let mut top = a.create_label();
        a.mov(ecx, ROUNDS as i32)?;
        a.set_label(&mut top)?;
        a.inc(rax)?;
        a.mov(qword_ptr(DATA), rax)?;
        a.dec(ecx)?;
        a.jne(top)
    });
    assert!(matches!(guest.run(), Ending::Exception(_)));
    assert!(guest.vcpu.statistics().counts().entries > 0);
    rewind(&mut guest);
    guest
}

fn rewind(guest: &mut Guest) {
    let mut state = guest.vcpu.cpu.state().clone();
    (state.rip, state.gpr[Gpr::Rax]) = (CODE, 0);
    guest.vcpu.cpu.set_state(state);
}

fn stop_at(guest: &mut Guest, la: u64) {
    let points = DebugPoints { breakpoints: [la].into(), ..DebugPoints::default() };
    guest.vcpu.set_debug_points(Some(&points));
}

const fn stopped(stop: DebugStop) -> Ending {
    Ending::Exit(Exit::Debug(stop))
}

fn rax_of(guest: &Guest) -> u64 {
    guest.vcpu.cpu.state().gpr[Gpr::Rax]
}

#[test]
fn a_breakpoint_in_translated_code_stops_each_round() {
    let mut guest = warm();
    let at = stopped(DebugStop::Breakpoint { la: TOP + 3 });
    stop_at(&mut guest, TOP + 3);

    for round in 1..=100 {
        assert_eq!((guest.run(), rax_of(&guest)), (at, round));
        guest.vcpu.debug_step();
        assert_eq!(guest.run(), stopped(DebugStop::Step));
    }
    // The rest of the code is translated as before, and after the debugger all of it.
    guest.vcpu.set_debug_points(None);
    let before = guest.vcpu.statistics().counts();
    assert!(matches!(guest.run(), Ending::Exception(_)));
    assert_eq!(rax_of(&guest), ROUNDS);
    assert!(guest.vcpu.statistics().counts().blocks > before.blocks);
}

#[test]
fn a_breakpoint_elsewhere_leaves_code_translated() {
    let mut guest = warm();
    stop_at(&mut guest, DATA + 0x800);
    let before = guest.vcpu.statistics().counts();

    assert!(matches!(guest.run(), Ending::Exception(_)));

    let after = guest.vcpu.statistics().counts();
    assert!(after.blocks > before.blocks);
    assert!(after.interpreted_runs - before.interpreted_runs < ROUNDS / 100);
}

#[test]
fn a_watched_store_of_translated_code_stops_after_it() {
    let mut guest = warm();
    let watchpoints = [Watchpoint { la: DATA, len: 8, writes_only: true }].into();
    guest.vcpu.set_debug_points(Some(&DebugPoints { watchpoints, ..DebugPoints::default() }));

    for round in 1..=10 {
        let stop = stopped(DebugStop::Watchpoint { la: DATA });
        assert_eq!((guest.run(), rax_of(&guest)), (stop, round));
        assert_eq!(guest.read_u64(DATA), round);
    }
}
