//! EXITINFO and EXINFO: what the enclave learns of the event that took it out (SDM Vol. 3D,
//! tables 35-9, 35-10, 35-12 and 35-13).

use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, MISCSELECT_EXINFO};
use cloister_x86::{Exception, Vector};

use crate::enclave::Spec;
use crate::scenario::{ONE, SSA, enter, epc, machine, spec, start};

const EXITINFO: usize = 4096 - 184 + 160;
const EXINFO: usize = 4096 - 184 - 16;
const HARDWARE: u32 = 1 << 31 | 3 << 8;
const SOFTWARE: u32 = 1 << 31 | 6 << 8;
/// What was in the frame before.
const STALE: u64 = 0xeeee_eeee_eeee_eeee;

/// EXITINFO, MADDR, and ERRCD with the reserved bytes after it.
fn report(miscselect: u32, event: ExitingEvent) -> (u32, u64, u64) {
    let mut machine = machine();
    start(&mut machine, &Spec { miscselect, ..spec(AttributeFlags::empty()) });
    enter(&mut machine);
    let platform = machine.platform.clone();
    let page = platform.page(EpcIndex(epc(SSA + 0x1000)));
    page.write(EXINFO, &[0xee; 16]);
    page.write(EXITINFO, &[0xee; 4]);
    machine.aex(event).expect("inside");
    (page.load(EXITINFO) as u32, page.load(EXINFO), page.load(EXINFO + 8))
}

fn exception(vector: Vector, error_code: u32, address: u64) -> ExitingEvent {
    ExitingEvent::Exception(Exception { vector, error_code, address })
}

#[test]
fn some_exceptions_are_reported_to_every_enclave() {
    for (vector, exitinfo) in [
        (Vector::De, HARDWARE),
        (Vector::Db, HARDWARE | 1),
        (Vector::Bp, SOFTWARE | 3),
        (Vector::Br, HARDWARE | 5),
        (Vector::Ud, HARDWARE | 6),
        (Vector::Mf, HARDWARE | 16),
        (Vector::Ac, HARDWARE | 17),
        (Vector::Xm, HARDWARE | 19),
    ] {
        for miscselect in [0, MISCSELECT_EXINFO] {
            let reported = report(miscselect, exception(vector, 0, 0));
            assert_eq!(reported, (exitinfo, STALE, STALE), "{vector:?}, EXINFO is left alone");
        }
    }
}

#[test]
fn other_events_clear_exitinfo() {
    for miscselect in [0, MISCSELECT_EXINFO] {
        assert_eq!(report(miscselect, ExitingEvent::Interrupt), (0, STALE, STALE));
        for vector in [Vector::Of, Vector::Nm, Vector::Np, Vector::Ss, Vector::Mc, Vector::Nmi] {
            assert_eq!(report(miscselect, exception(vector, 0, 0)), (0, STALE, STALE));
        }
    }
}

#[test]
fn general_protection_is_reported_with_exinfo_alone() {
    let fault = exception(Vector::Gp, 0x1234, 0);

    assert_eq!(report(0, fault), (0, STALE, STALE));
    assert_eq!(report(MISCSELECT_EXINFO, fault), (HARDWARE | 13, 0, 0x1234), "MADDR is cleared");
}

#[test]
fn page_faults_are_reported_with_exinfo_alone() {
    for error_code in [4, 5, 6, 7, 0x14, 0x15, 0x25, 0x8005, 0x8007, 0x8015] {
        let fault = exception(Vector::Pf, error_code, ONE + 0x123);

        assert_eq!(report(0, fault), (0, STALE, STALE));
        let reported = (HARDWARE | 14, ONE + 0x123, u64::from(error_code));
        assert_eq!(report(MISCSELECT_EXINFO, fault), reported, "{error_code:x}");
    }
}

#[test]
fn page_faults_of_supervisor_accesses_are_not_reported() {
    for error_code in [0, 1, 2, 3, 9, 0x8001] {
        let fault = exception(Vector::Pf, error_code, ONE);

        assert_eq!(report(MISCSELECT_EXINFO, fault), (0, STALE, STALE), "{error_code:x}");
    }
}
