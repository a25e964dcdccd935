//! SECINFO as an operand in the enclave's page ONE.

use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{EpcIndex, PageType};
use zerocopy::IntoBytes as _;

use crate::machine::GP;
use crate::order::{Condition, Outcome};
use crate::scenario::{ONE, Scenario, epc};
use crate::unfit::{Operand, Register};

/// Where it lies.
pub(super) const SECINFO: Operand =
    Operand { register: Register::Rbx, la: ONE + 0x40, write: false };
/// The part that its flags are.
pub(super) const FLAGS: &str = "SECINFO flags";

pub(super) const R: SecInfoFlags = SecInfoFlags::R;
pub(super) const W: SecInfoFlags = SecInfoFlags::W;
pub(super) const X: SecInfoFlags = SecInfoFlags::X;
pub(super) const RW: SecInfoFlags = R.union(W);
pub(super) const PENDING: SecInfoFlags = SecInfoFlags::PENDING;
pub(super) const MODIFIED: SecInfoFlags = SecInfoFlags::MODIFIED;
pub(super) const PR: SecInfoFlags = SecInfoFlags::PR;
pub(super) const NONE: SecInfoFlags = SecInfoFlags::empty();

/// Writes SECINFO.FLAGS, but for the bits that are always reserved.
pub(super) fn put(scenario: &Scenario, flags: SecInfoFlags, page_type: PageType) {
    let bytes = SecInfo::new(flags, page_type).flags;
    scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x40, &bytes.as_bytes()[..2]);
}

/// A request in SECINFO that ends with `outcome`.
pub(super) fn request(
    flags: SecInfoFlags,
    page_type: PageType,
    outcome: Outcome,
) -> Condition<Scenario> {
    let name = format!("SECINFO {flags:?} {page_type:?}");
    Condition::new(name, FLAGS, outcome, move |scenario: &mut Scenario| {
        put(scenario, flags, page_type);
    })
}

/// Its reserved fields are not zero.
pub(super) fn reserved() -> Vec<Condition<Scenario>> {
    let bit = |name: &'static str, at: usize, value: u8, part: &'static str| {
        Condition::new(name, part, Err(GP), move |scenario: &mut Scenario| {
            scenario.machine.platform.page(EpcIndex(epc(ONE))).write(0x40 + at, &[value]);
        })
    };
    vec![
        bit("FLAGS bits 7:6", 0, 0xc3, FLAGS),
        bit("FLAGS bit 16", 2, 1, "SECINFO reserved"),
        bit("FLAGS bit 63", 7, 0x80, "SECINFO reserved"),
        bit("the first reserved byte", 8, 1, "SECINFO reserved"),
        bit("the last reserved byte", 63, 1, "SECINFO reserved"),
    ]
}
