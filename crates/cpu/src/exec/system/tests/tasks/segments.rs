//! What a new task's segments are checked for: the switch is done, and the fault is the task's
//! (SDM Vol. 3A, table 7-1).

use cloister_x86::segment::seg;

use super::super::kernel::{CODE32, DATA, DPL3, PRESENT};
use super::machine::*;

/// A conforming code segment.
const CONFORMING: u64 = CODE32 | 4 << 40;
/// A code segment that cannot be read.
const EXECUTE_ONLY: u64 = CODE32 & !(2 << 40);
const READ_ONLY: u64 = DATA & !(2 << 40);
/// DPL 1.
const DPL1: u64 = 1 << 45;
const SPARE3: u32 = SPARE as u32 | 3;

/// What is wrong, the descriptor at SPARE, fields of the new TSS, vector and error code.
type Case<'a> = (&'a str, u64, &'a [(u64, u32)], u8, u32);

fn user_task(descriptor: u64, fields: &[(u64, u32)]) -> Machine {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.set_new_segments(USER_CODE, USER_DATA);
    machine.set_descriptor(SPARE, descriptor);
    for (at, value) in fields {
        machine.set_new(*at, *value);
    }
    machine
}

#[test]
fn selectors_of_the_new_task_are_judged_in_its_context() {
    let spare = SPARE.into();
    let absent = system(LDT_TYPE & !0x80, LDT_TABLE, 0x1f);
    let cases: [Case<'_>; 27] = [
        ("LDT: in an LDT", 0, &[(tss::LDT, 0x44)], 10, 0x44),
        ("LDT: beyond the GDT", 0, &[(tss::LDT, 0x100)], 10, 0x100),
        ("LDT: a TSS", 0, &[(tss::LDT, 0x28)], 10, 0x28),
        ("LDT: absent", absent, &[(tss::LDT, spare)], 10, spare),
        ("CS: DPL below RPL", CODE32, &[(tss::CS, SPARE3)], 10, spare),
        ("CS: conforming, DPL above RPL", CONFORMING | DPL3, &[(tss::CS, spare | 1)], 10, spare),
        ("CS: null", 0, &[(tss::CS, 3)], 10, 0),
        ("CS: beyond the GDT", 0, &[(tss::CS, 0x103)], 10, 0x100),
        ("CS: data", DATA | DPL3, &[(tss::CS, SPARE3)], 10, spare),
        ("CS: absent", (CODE32 | DPL3) & !PRESENT, &[(tss::CS, SPARE3)], 11, spare),
        ("SS: null", 0, &[(tss::SS, 3)], 10, 0),
        ("SS: beyond the GDT", 0, &[(tss::SS, 0x103)], 10, 0x100),
        ("SS: code", CODE32 | DPL3, &[(tss::SS, SPARE3)], 10, spare),
        ("SS: read-only", READ_ONLY | DPL3, &[(tss::SS, SPARE3)], 10, spare),
        ("SS: absent", (DATA | DPL3) & !PRESENT, &[(tss::SS, SPARE3)], 12, spare),
        ("SS: DPL is not CPL", DATA, &[(tss::SS, SPARE3)], 10, spare),
        ("SS: RPL is not CPL", DATA | DPL3, &[(tss::SS, spare)], 10, spare),
        ("DS: beyond the GDT", 0, &[(tss::DS, 0x103)], 10, 0x100),
        ("DS: a TSS", 0, &[(tss::DS, 0x2b)], 10, 0x28),
        ("DS: execute-only", EXECUTE_ONLY | DPL3, &[(tss::DS, SPARE3)], 10, spare),
        ("DS: absent", (DATA | DPL3) & !PRESENT, &[(tss::DS, SPARE3)], 11, spare),
        ("DS: DPL below CPL", DATA | DPL1, &[(tss::DS, spare)], 10, spare),
        ("ES: absent", (DATA | DPL3) & !PRESENT, &[(tss::ES, SPARE3)], 11, spare),
        ("FS: DPL below CPL", CODE32, &[(tss::FS, spare)], 10, spare),
        ("GS: execute-only", EXECUTE_ONLY | DPL3, &[(tss::FS + 4, SPARE3)], 10, spare),
        (
            "EIP beyond the limit",
            (CODE32 | DPL3) & !(1 << 55 | 0xf << 48),
            &[(tss::CS, SPARE3), (tss::EIP, 0x1_0000)],
            13,
            0,
        ),
        ("T: no trap before the fault", 0, &[(tss::DS, 0x103), (tss::TRAP, 1)], 10, 0x100),
    ];
    for (name, descriptor, fields, vector, code) in cases {
        let mut machine = user_task(descriptor, fields);

        let frame = machine.run_to_handler();

        let cs = machine.word(NEW_TSS + tss::CS);
        let eip = machine.word(NEW_TSS + tss::EIP);
        assert_eq!(frame, Frame { vector, error_code: Some(code), eip, cs }, "{name}");
        assert_eq!((machine.task(), machine.access(NEW)), (NEW, TSS32_BUSY), "{name}");
        assert_eq!(machine.new_link(), OLD.into(), "{name}");
    }
}

#[test]
fn of_several_wrong_selectors_the_first_in_the_manuals_order_counts() {
    let absent_ldt = (tss::LDT, u32::from(SPARE));
    let cases: [Case<'_>; 8] = [
        ("LDT type before CS level", 0, &[(tss::LDT, 0x28), (tss::CS, 0x0b)], 10, 0x28),
        ("CS level before SS", 0, &[(tss::CS, 0x0b), (tss::SS, 3)], 10, 8),
        ("SS before LDT present", 0, &[absent_ldt, (tss::SS, 0x103)], 10, 0x100),
        ("SS level before LDT present", 0, &[absent_ldt, (tss::SS, 0x13)], 10, 0x10),
        ("LDT present before CS type", 0, &[absent_ldt, (tss::CS, 0x23)], 10, SPARE.into()),
        ("CS type before SS RPL", 0, &[(tss::CS, 0x2b), (tss::SS, 0x20)], 10, 0x28),
        ("SS RPL before DS", 0, &[(tss::SS, 0x20), (tss::DS, 0x103)], 10, 0x20),
        ("DS before ES", 0, &[(tss::DS, 0x103), (tss::ES, 0x10b)], 10, 0x100),
    ];
    for (name, _, fields, vector, code) in cases {
        let mut machine = user_task(system(LDT_TYPE & !0x80, LDT_TABLE, 0x1f), fields);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.error_code), (vector, Some(code)), "{name}");
    }
}

#[test]
fn what_a_task_may_load_is_loaded() {
    let cases: [Case<'_>; 6] = [
        ("conforming code of an inner level", CONFORMING, &[(tss::CS, SPARE3)], 0, 0),
        ("execute-only code", EXECUTE_ONLY | DPL3, &[(tss::CS, SPARE3)], 0, 0),
        ("null data segments", 0, &[(tss::DS, 0), (tss::ES, 3)], 0, 0),
        ("conforming code as data", CONFORMING, &[(tss::DS, SPARE3)], 0, 0),
        ("read-only data", READ_ONLY | DPL3, &[(tss::DS, SPARE3)], 0, 0),
        ("a null LDT with an RPL", 0, &[(tss::LDT, 2)], 0, 0),
    ];
    for (name, descriptor, fields, ..) in cases {
        let mut machine = user_task(descriptor, fields);
        machine.guest.write(TASK, &[0x0f, 0x0b]);

        let frame = machine.run_to_handler();

        assert_eq!((frame.vector, frame.eip), (6, TASK as u32), "{name}");
    }
}

#[test]
fn registers_after_a_selector_that_fails_hold_theirs_and_cannot_be_used() {
    let mut machine = user_task(0, &[(tss::ES, 0x103), (tss::FS, 0x23)]);

    machine.run_to_handler();

    let cpu = machine.cpu();
    let [es, ds, fs] = [seg::ES, seg::DS, seg::FS].map(|index| cpu.arch.segs[index]);
    assert_eq!([es, ds, fs].map(|segment| segment.selector), [0x103, 0x23, 0x23]);
    assert_eq!([es, ds, fs].map(|segment| segment.rights.unusable()), [true, false, true]);
}

#[test]
fn iret_meets_the_segments_of_the_task_that_it_returns_to() {
    let mut machine = Machine::with_code(&far(CALL, NEW));
    machine.guest.write(TASK, &[HLT, IRET]);
    machine.run();
    machine.guest.write(OLD_TSS + tss::DS, &0x48_u32.to_le_bytes());
    machine.set_descriptor(SPARE, DATA & !PRESENT);

    let frame = machine.run_to_handler();

    let eip = machine.old(tss::EIP);
    assert_eq!(frame, Frame { vector: 11, error_code: Some(0x48), eip, cs: 8 });
    assert_eq!((machine.task(), machine.access(NEW)), (OLD, TSS32));
}
