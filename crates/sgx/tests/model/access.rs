//! The access check of SDM Vol. 3D, 35.3 to 35.5.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{
    Access, AccessOutcome, AttributeFlags, EpcIndex, EpcmFlags, PageType, check_access,
};
use cloister_x86::{Exception, La, PageFaultCode};
use zerocopy::IntoBytes as _;

use crate::enclave::{BASE, CODE, DATA, Spec, TCS, started};
use crate::machine::{Machine, Mapping};
use crate::scenario::{self, ONE, TWO, VA, epc};
use crate::unfit::Unfit;

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

/// The access check for page TWO of the enclave after `change`, by kind of access.
fn after(change: impl FnOnce(&mut Machine)) -> [AccessOutcome; 3] {
    let mut machine = scenario::outside(AttributeFlags::empty());
    scenario::enter(&mut machine);
    change(&mut machine);
    let page = match machine.memory.mappings.get(&TWO) {
        Some(&Mapping::Epc { index, .. }) => Some(index.0),
        _ => None,
    };
    ALL.map(|access| check(&machine, TWO, page, access))
}

#[test]
fn each_flaw_of_a_page_refuses_every_access() {
    for unfit in [
        Unfit::NotEpc,
        Unfit::NotValid,
        Unfit::Blocked,
        Unfit::OtherEnclave,
        Unfit::Pending,
        Unfit::Modified,
        Unfit::OtherAddress,
        Unfit::NoRead,
    ] {
        let outcomes = after(|machine| unfit.make(machine, TWO, epc(TWO)));
        assert_eq!(outcomes, ALL.map(|access| refused(TWO, access)), "{unfit:?}");
    }
}

#[test]
fn pages_of_other_types_refuse_every_access() {
    let secs = after(|machine| scenario::map(machine, TWO, 0));
    let va = after(|machine| {
        scenario::make_va(machine);
        scenario::map(machine, TWO, VA);
    });
    let trimmed = after(|machine| {
        // Accepted, so that the type alone is wrong.
        let none = SecInfoFlags::empty();
        scenario::modify(machine, leaf::EMODT, epc(TWO), none, PageType::Trim);
        scenario::exit(machine);
        scenario::track(machine);
        scenario::enter(machine);
        let secinfo = SecInfo::new(SecInfoFlags::MODIFIED, PageType::Trim);
        machine.platform.page(EpcIndex(epc(ONE))).write(0, secinfo.as_bytes());
        machine.enclu(user::EACCEPT, ONE, TWO, 0).expect("EACCEPT completes");
        assert_eq!(machine.platform.epcm(EpcIndex(epc(TWO))).flags, EpcmFlags::VALID);
    });
    let mut threaded = scenario::outside(AttributeFlags::empty());
    scenario::enter(&mut threaded);
    let own = ALL.map(|access| check(&threaded, scenario::TCS, Some(1), access));

    let expected = ALL.map(|access| refused(TWO, access));
    assert_eq!([secs, va, trimmed], [expected; 3]);
    assert_eq!(own, ALL.map(|access| refused(scenario::TCS, access)), "its own TCS");
}

#[test]
fn each_permission_allows_its_kind_of_access() {
    let [r, w, x] = [SecInfoFlags::R, SecInfoFlags::W, SecInfoFlags::X];
    for (request, allowed) in [
        (r, [true, false, false]),
        (r | w, [true, true, false]),
        (r | x, [true, false, true]),
        (x, [false, false, true]),
        (r | w | x, [true, true, true]),
        (SecInfoFlags::empty(), [false, false, false]),
    ] {
        let outcomes = after(|machine| {
            let all = SecInfo::new(r | w | x, PageType::Reg);
            machine.platform.page(EpcIndex(epc(ONE))).write(0, all.as_bytes());
            machine.enclu(user::EMODPE, ONE, TWO, 0).expect("EMODPE completes");
            scenario::modify(machine, leaf::EMODPR, epc(TWO), request, PageType::Reg);
        });

        let passed = outcomes.map(|outcome| outcome == AccessOutcome::Allowed);
        assert_eq!(passed, allowed, "{request:?}, PR pending");
    }
}

#[test]
fn the_ends_of_elrange_divide_enclave_accesses_from_others() {
    let mut machine = scenario::outside(AttributeFlags::empty());
    scenario::enter(&mut machine);
    let last = scenario::END - 0x1000;

    for access in ALL {
        assert_eq!(check(&machine, last, None, access), refused(last, access), "no EPC page");
    }
    let gp = AccessOutcome::Fault(Exception::gp(0));
    for la in [scenario::END, BASE - 0x1000] {
        assert_eq!(check(&machine, la, None, Access::Read), AccessOutcome::Allowed);
        assert_eq!(check(&machine, la, None, Access::Write), AccessOutcome::Allowed);
        assert_eq!(check(&machine, la, None, Access::Execute), gp);
        assert_eq!(check(&machine, la, Some(epc(TWO)), Access::Execute), gp, "before the EPC");
    }
}
