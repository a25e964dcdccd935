//! The access check of SDM Vol. 3D, 35.3 to 35.5.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{Access, AccessOutcome, EpcIndex, check_access};
use cloister_x86::{Exception, La, PageFaultCode};

use crate::enclave::{BASE, CODE, DATA, Spec, TCS, started};
use crate::machine::Machine;

const ALL: [Access; 3] = [Access::Read, Access::Write, Access::Execute];

fn check(machine: &Machine, la: u64, page: Option<u32>, access: Access) -> AccessOutcome {
    check_access(&machine.platform, &machine.state, La(la), page.map(EpcIndex), access)
}

fn refused(la: u64, access: Access) -> AccessOutcome {
    let mut code = PageFaultCode::PRESENT | PageFaultCode::USER | PageFaultCode::SGX;
    match access {
        Access::Read => {}
        Access::Write => code |= PageFaultCode::WRITE,
        Access::Execute => code |= PageFaultCode::FETCH,
    }
    AccessOutcome::Fault(Exception::pf(la, code))
}

fn entered() -> Machine {
    let mut machine = started();
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine
}

#[test]
fn outside_an_enclave_the_epc_is_the_abort_page() {
    let machine = started();
    for access in ALL {
        assert_eq!(check(&machine, DATA, Some(4), access), AccessOutcome::AbortPage);
        assert_eq!(check(&machine, DATA, Some(30), access), AccessOutcome::AbortPage, "unused");
        assert_eq!(check(&machine, DATA, None, access), AccessOutcome::Allowed, "ordinary memory");
    }
}

#[test]
fn inside_the_epcm_permissions_hold() {
    let machine = entered();
    let data = DATA + 0x123;
    let code = CODE + 0x456;

    assert_eq!(check(&machine, data, Some(4), Access::Read), AccessOutcome::Allowed);
    assert_eq!(check(&machine, data, Some(4), Access::Write), AccessOutcome::Allowed);
    let execute = Access::Execute;
    assert_eq!(check(&machine, data, Some(4), execute), refused(data, execute));
    assert_eq!(check(&machine, code, Some(3), Access::Read), AccessOutcome::Allowed);
    assert_eq!(check(&machine, code, Some(3), execute), AccessOutcome::Allowed);
    assert_eq!(check(&machine, code, Some(3), Access::Write), refused(code, Access::Write));
}

#[test]
fn inside_each_page_stays_at_its_address_and_enclave() {
    let mut machine = entered();
    let mut other = Spec::simple();
    other.base = BASE + 0x10_0000;
    other.load(&mut machine, 12).expect("a second enclave");

    for access in ALL {
        let at = |la: u64, page: Option<u32>| (check(&machine, la, page, access), la);
        for (outcome, la) in [
            at(DATA, None),
            at(DATA, Some(5)),
            at(DATA, Some(30)),
            at(TCS, Some(1)),
            at(DATA, Some(0)),
            at(DATA, Some(16)),
        ] {
            assert_eq!(outcome, refused(la, access));
        }
    }
}

#[test]
fn inside_memory_beyond_elrange_is_data_only() {
    let machine = entered();
    let beyond = BASE + 0x10000;

    assert_eq!(check(&machine, beyond, None, Access::Read), AccessOutcome::Allowed);
    assert_eq!(check(&machine, beyond, None, Access::Write), AccessOutcome::Allowed);
    assert_eq!(check(&machine, beyond, Some(4), Access::Read), AccessOutcome::AbortPage);
    assert_eq!(check(&machine, beyond, Some(4), Access::Write), AccessOutcome::AbortPage);
    let fetch = AccessOutcome::Fault(Exception::gp(0));
    assert_eq!(check(&machine, beyond, None, Access::Execute), fetch);
    assert_eq!(check(&machine, BASE - 1, None, Access::Execute), fetch);
}

#[test]
fn a_blocked_page_takes_no_new_translations() {
    let mut machine = entered();
    let before = check(&machine, DATA, Some(4), Access::Read);

    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);

    assert_eq!(before, AccessOutcome::Allowed);
    assert_eq!(check(&machine, DATA, Some(4), Access::Read), refused(DATA, Access::Read));
}

#[test]
fn leaving_the_enclave_closes_it() {
    let mut machine = entered();

    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    assert_eq!(check(&machine, DATA, Some(4), Access::Read), AccessOutcome::AbortPage);
}
