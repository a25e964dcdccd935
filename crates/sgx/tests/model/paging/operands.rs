//! What all operands have in common: addresses that are not canonical, or lead nowhere.

use cloister_sgx::encls::leaf;
use cloister_sgx::{SgxStatus, Stop};
use cloister_x86::{Exception, Gpa, PageFaultCode};

use super::bench::{Bench, Operand};
use super::{eblock, eld, enclv, epa, erdinfo, etrack, ewb};
use crate::machine::{GP, Mapping};

/// An address that is not canonical, and aligned to everything.
const NO_ADDRESS: u64 = 1 << 47;

/// A leaf with good operands, the registers that hold addresses, and those among them that are to
/// be in the EPC, with whether the leaf's access is a write.
struct Case {
    name: &'static str,
    good: fn() -> Bench,
    addresses: &'static [Operand],
    epc: &'static [(Operand, bool)],
}

fn cases() -> [Case; 12] {
    use Operand::{Rbx, Rcx, Rdx, Secs};
    let case = |name, good, addresses, epc| Case { name, good, addresses, epc };
    let load: (&[Operand], &[(Operand, bool)]) =
        (&[Rbx, Rcx, Rdx, Secs], &[(Rcx, true), (Rdx, true), (Secs, true)]);
    [
        case("EPA", epa::good, &[Rcx], &[(Rcx, true)]),
        case("EBLOCK", eblock::good, &[Rcx], &[(Rcx, true)]),
        case("ETRACK", etrack::etrack, &[Rcx], &[(Rcx, true)]),
        case("ETRACKC", etrack::etrackc, &[Rcx], &[(Rcx, true)]),
        case("EWB", ewb::good, &[Rbx, Rcx, Rdx], &[(Rcx, true), (Rdx, true)]),
        case("ELDB", || eld::good(leaf::ELDB), load.0, load.1),
        case("ELDU", || eld::good(leaf::ELDU), load.0, load.1),
        case("ELDUC", || eld::good(leaf::ELDUC), load.0, load.1),
        case("ERDINFO", erdinfo::good, &[Rbx, Rcx], &[(Rcx, false)]),
        case("EDECVIRTCHILD", enclv::edec, &[Rbx, Rcx], &[(Rbx, true), (Rcx, false)]),
        case("EINCVIRTCHILD", enclv::einc, &[Rbx, Rcx], &[(Rbx, true), (Rcx, false)]),
        case("ESETCONTEXT", enclv::esetcontext, &[Rcx, Rdx], &[(Rcx, false)]),
    ]
}

fn set(bench: &mut Bench, operand: Operand, address: u64) {
    match operand {
        Operand::Rbx => bench.rbx = address,
        Operand::Rcx => bench.rcx = address,
        Operand::Rdx => bench.rdx = address,
        Operand::Secs => bench.pageinfo.secs = address.into(),
    }
}

#[test]
fn the_good_operands_are_good() {
    for case in cases() {
        assert_eq!((case.good)().run(), Ok(SgxStatus::Success), "{}", case.name);
    }
}

#[test]
fn an_address_that_is_not_canonical_faults() {
    for case in cases() {
        for &operand in case.addresses {
            let mut bench = (case.good)();
            set(&mut bench, operand, NO_ADDRESS);

            assert_eq!(bench.run(), Err(GP), "{} {operand:?}", case.name);
        }
    }
}

#[test]
fn a_pointer_in_pageinfo_that_is_not_canonical_faults() {
    for good in [ewb::good, || eld::good(leaf::ELDU)] {
        let (mut pcmd, mut page): (Bench, Bench) = (good(), good());
        pcmd.pageinfo.secinfo = NO_ADDRESS.into();
        page.pageinfo.srcpge = NO_ADDRESS.into();

        assert_eq!((pcmd.run(), page.run()), (Err(GP), Err(GP)));
    }
}

#[test]
fn an_epc_operand_that_is_not_mapped_faults_by_the_page_tables() {
    for case in cases() {
        for &(operand, write) in case.epc {
            let mut bench = (case.good)();
            let la = bench.address(operand);
            bench.forbidden.push((la, true));

            let mut code = PageFaultCode::empty();
            code.set(PageFaultCode::WRITE, write);
            let fault = Err(Stop::Fault(Exception::pf(la, code)));
            assert_eq!(bench.run(), fault, "{} {operand:?}", case.name);
        }
    }
}

#[test]
fn an_epc_operand_without_backing_stops_the_leaf() {
    for case in cases() {
        for &(operand, _) in case.epc {
            let mut bench = (case.good)();
            let gpa = Gpa(0x7000_0000);
            let la = bench.address(operand);
            bench.machine.memory.mappings.insert(la, Mapping::Unbacked { gpa });

            assert_eq!(bench.run(), Err(Stop::EpcMiss { gpa }), "{} {operand:?}", case.name);
        }
    }
}
