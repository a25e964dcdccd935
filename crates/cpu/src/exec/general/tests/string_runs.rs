//! String instructions that are done a page at a time do what they do element by element.

use cloister_x86::{Exception, Gpr};

use crate::state::ArchState;
use crate::testing::{CODE, DATA, Ending, Guest, Numbers, Start};

/// The end of the readable data: the page after it is not there.
const END: u64 = DATA + 0x4000;

/// Runs one instruction from a state.
fn run(guest: &mut Guest, code: &[u8], registers: [(Gpr, u64); 4]) -> (Ending, ArchState) {
    guest.load_code(code);
    let mut state = guest.vcpu.cpu.state().clone();
    state.rip = CODE;
    state.set_rflags(0x2 | 0x8d5);
    for (register, value) in registers {
        state.gpr[register] = value;
    }
    guest.vcpu.cpu.set_state(state);
    let ending = guest.run();
    let mut state = guest.vcpu.cpu.state().clone();
    if ending != Ending::Exception(Exception::ud()) {
        // After a fault they are those of the last time that events were looked at.
        state.set_rflags(2);
    }
    // Where the instruction began does not depend on its prefixes, where it ends does.
    state.rip = if state.rip == CODE { CODE } else { CODE + 1 };
    (ending, state)
}

#[test]
fn comparisons_by_pages_end_as_element_by_element() {
    let mut guest = Guest::new(Start::User64);
    guest.set_page_flags(END, 0);
    let mut random = Numbers::new(0x1234_5678_9abc_def1);
    for round in 0..4000 {
        let pick = random.draw();
        // Mostly alike, so that both kinds run on for some time.
        let rare = if pick & 0xf00 == 0 { 200 } else { 3 };
        for page in (DATA..END).step_by(0x1000) {
            let at = page + random.draw() % 0x1000;
            guest.write(at, &[if random.draw().is_multiple_of(rare) { 7 } else { 0 }]);
        }
        let repeat = if pick & 1 == 0 { 0xf3 } else { 0xf2 };
        let opcode = [0xa6, 0xa7, 0xae, 0xaf][(pick >> 1) as usize & 3];
        let size: &[u8] = [&[][..], &[0x66], &[0x48]][(pick >> 3) as usize % 3];
        let (size, rex) = if size == [0x48] { (&[][..], size) } else { (size, &[][..]) };
        let code = [size, &[repeat], rex, &[opcode]].concat();
        let from = DATA + random.draw() % 0x4000;
        let registers = [
            (Gpr::Rsi, from),
            (Gpr::Rdi, if pick & 0x1000 == 0 { from ^ 0x40 } else { DATA + pick % 0x4000 }),
            (Gpr::Rcx, random.draw() % 0x2800),
            (Gpr::Rax, if pick & 0x2000 == 0 { 0 } else { 0x0707 }),
        ];

        let by_pages = run(&mut guest, &code, registers);
        // With 32-bit addresses they go one by one.
        let one_by_one = run(&mut guest, &[&[0x67], &code[..]].concat(), registers);

        assert_eq!(by_pages, one_by_one, "round {round}: {code:x?} {registers:x?}");
    }
}
