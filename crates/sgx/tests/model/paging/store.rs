//! A kernel's backing store for one evicted page.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::PageInfo;
use cloister_sgx::{Capabilities, PlatformConfig, PlatformIdentity, SgxFeatures, SgxStatus, Stop};

use crate::enclave::{PAGEINFO, Spec};
use crate::machine::{Machine, OPERANDS};
use crate::signer::Signer;

/// Where evicted pages and their PCMDs go.
pub(super) const EVICTED: u64 = OPERANDS + 0x8000;
pub(super) const PCMD: u64 = OPERANDS + 0x1_0000;
/// The version array.
pub(super) const VA: u32 = 20;

/// A platform of 32 EPC pages on which everything is announced.
pub(super) fn oversubscribed() -> PlatformConfig {
    let mut config = PlatformConfig::single(32, PlatformIdentity::from_seed(&[7; 32]));
    config.capabilities = Capabilities {
        features: SgxFeatures::SGX1
            | SgxFeatures::SGX2
            | SgxFeatures::OVERSUB_ENCLV
            | SgxFeatures::OVERSUB_ENCLS,
        ..Capabilities::default()
    };
    config
}

/// [`Spec::simple`] started in EPC pages 0 to 8, an empty version array, and a place for a page.
pub(super) fn with_va() -> Machine {
    let mut machine = Machine::with(oversubscribed());
    let started = Spec::simple().start(&mut machine, 0, Signer::a());
    assert_eq!(started, SgxStatus::Success);
    add_va(&mut machine);
    machine
}

/// The version array and a place for a page.
pub(super) fn add_va(machine: &mut Machine) {
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    machine.memory.put(EVICTED, &[0; 4096]);
    machine.memory.put(PCMD, &[0; 128]);
}

/// The linear address of version slot `number`.
pub(super) fn slot(number: u64) -> u64 {
    Machine::window(VA) + number * 8
}

/// EWB of EPC page `page` to the store, with version slot `number`.
pub(super) fn ewb(machine: &mut Machine, page: u32, number: u64) -> Result<SgxStatus, Stop> {
    let pageinfo = PageInfo { srcpge: EVICTED.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    let outcome = machine.encls(leaf::EWB, PAGEINFO, Machine::window(page), slot(number))?;
    Ok(outcome.status.expect("EWB reports"))
}

/// EBLOCK, ETRACK and EWB of a child page of the SECS in EPC page `secs`.
pub(super) fn evict_from(machine: &mut Machine, secs: u32, page: u32, number: u64) -> SgxStatus {
    machine.status(leaf::EBLOCK, 0, Machine::window(page), 0);
    machine.status(leaf::ETRACK, 0, Machine::window(secs), 0);
    ewb(machine, page, number).expect("EWB completes")
}

/// The same for the enclave of [`with_va`].
pub(super) fn evict(machine: &mut Machine, page: u32, number: u64) -> SgxStatus {
    evict_from(machine, 0, page, number)
}

/// Load leaf `number` to `page`, as `linaddr` of the enclave with its SECS at `secs` (0: none).
pub(super) fn load(
    machine: &mut Machine,
    number: u32,
    page: u32,
    version: u64,
    linaddr: u64,
    secs: u64,
) -> Result<SgxStatus, Stop> {
    let pageinfo = PageInfo {
        linaddr: linaddr.into(),
        srcpge: EVICTED.into(),
        secinfo: PCMD.into(),
        secs: secs.into(),
    };
    machine.operand(PAGEINFO, &pageinfo);
    let outcome = machine.encls(number, PAGEINFO, Machine::window(page), slot(version))?;
    Ok(outcome.status.expect("ELDU reports"))
}
