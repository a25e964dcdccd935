//! ECREATE, EADD, EEXTEND, EREMOVE, EDBGRD and EDBGWR.

mod conflicts;
mod debug;
mod eadd;
mod ecreate;
mod eextend;
mod eremove;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::SecInfoFlags;
use cloister_sgx::{
    Capabilities, EpcIndex, HeldPage, Platform, PlatformConfig, PlatformIdentity, SgxFeatures, Stop,
};
use cloister_x86::{Exception, PageFaultCode};

use crate::enclave::PAGEINFO;
use crate::machine::{GP, Machine};

const W: PageFaultCode = PageFaultCode::WRITE;
const RW: SecInfoFlags = SecInfoFlags::R.union(SecInfoFlags::W);

/// A linear address that leads nowhere.
const NOT_MAPPED: u64 = 0x5000_0000;

/// The page fault of a supervisor's read where nothing is mapped.
fn not_mapped(la: u64) -> Stop {
    Stop::Fault(Exception::pf(la, PageFaultCode::empty()))
}

/// Another leaf that has a page for itself.
pub(crate) fn occupy(platform: &Platform, page: u32) -> HeldPage<'_> {
    platform.hold(EpcIndex(page)).expect("a page that no leaf has")
}

#[test]
fn leaves_that_cpuid_does_not_announce_are_invalid() {
    let mut config = PlatformConfig::single(8, PlatformIdentity::from_seed(&[0; 32]));
    config.capabilities = Capabilities { features: SgxFeatures::SGX1, ..Capabilities::default() };
    let mut machine = Machine::with(config);

    for number in [leaf::EAUG, leaf::EMODPR, leaf::EMODT, 0x10, 0x11, 0x12, 0x13, 0x3f, u32::MAX] {
        assert_eq!(machine.encls(number, PAGEINFO, Machine::window(0), 0), Err(GP), "{number:#x}");
    }
}
