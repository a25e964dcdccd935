//! Every bit of what EWB left in memory, flipped.

use cloister_sgx::encls::{self, leaf};
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{
    Capabilities, EnclsRegs, EpcAccess, EpcIndex, LeafPort, PageType, SgxStatus, Stop,
};
use cloister_x86::{Exception, La, PageFaultCode};

use super::store::{EVICTED, PCMD, VA, evict, ewb, slot, with_va};
use crate::enclave::{BASE, PAGEINFO, SECINFO, Spec};
use crate::machine::{GP, Machine, Memory};

/// Where the evicted page is loaded to.
const TARGET: u32 = 30;
/// An SECS without pages.
const LONELY: u32 = 10;

/// What EWB wrote.
struct Evicted {
    page_type: PageType,
    page: [u8; 4096],
    pcmd: [u8; 128],
    linaddr: u64,
    /// PAGEINFO.SECS for the load.
    secs: u64,
}

/// A processor that finds `evicted` where the kernel keeps an evicted page.
struct Store<'a> {
    memory: &'a mut Memory,
    evicted: &'a Evicted,
}

impl LeafPort for Store<'_> {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop> {
        self.memory.linear(ea, len)
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        match la.0 {
            EVICTED => buf.copy_from_slice(&self.evicted.page),
            PCMD => buf.copy_from_slice(&self.evicted.pcmd),
            _ => return self.memory.read(la, buf),
        }
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.memory.write(la, bytes)
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        self.memory.resolve_epc(la, access)
    }

    fn event_pending(&mut self) -> bool {
        self.memory.event_pending()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.memory.le_pubkey_hash()
    }
}

/// Takes what EWB wrote from the memory of `machine`.
fn evicted(machine: &Machine, page_type: PageType) -> Evicted {
    let mut evicted = Evicted {
        page_type,
        page: [0; 4096],
        pcmd: [0; 128],
        linaddr: 0,
        secs: if has_parent(page_type as u8) { Machine::window(0) } else { 0 },
    };
    evicted.page.copy_from_slice(&machine.memory.get(EVICTED, 4096));
    evicted.pcmd.copy_from_slice(&machine.memory.get(PCMD, 128));
    let linaddr = machine.memory.get(PAGEINFO, 8);
    evicted.linaddr = linaddr.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    evicted
}

/// ELDU of `evicted` with the version in slot 0.
fn eldu(machine: &mut Machine, evicted: &Evicted) -> Result<SgxStatus, Stop> {
    let pageinfo = PageInfo {
        linaddr: evicted.linaddr.into(),
        srcpge: EVICTED.into(),
        secinfo: PCMD.into(),
        secs: evicted.secs.into(),
    };
    machine.operand(PAGEINFO, &pageinfo);
    let regs = EnclsRegs {
        eax: leaf::ELDU,
        rbx: PAGEINFO,
        rcx: Machine::window(TARGET),
        rdx: slot(0),
        mode64: true,
    };
    let platform = machine.platform.clone();
    let mut port = Store { memory: &mut machine.memory, evicted };
    let outcome = encls::execute(&platform, &mut port, &regs)?;
    Ok(outcome.status.expect("ELDU reports"))
}

const fn has_parent(page_type: u8) -> bool {
    matches!(page_type, 1 | 2 | 4)
}

/// What ELDU says to a flipped bit of PCMD.
fn expected(page_type: PageType, bit: usize) -> Result<SgxStatus, Stop> {
    if (512..576).contains(&bit) {
        // ENCLAVEID is a handle for software, which the pseudo-code does not look at.
        return Ok(SgxStatus::Success);
    }
    if !(8..16).contains(&bit) {
        return Ok(SgxStatus::MacCompareFail);
    }
    let flipped = page_type as u8 ^ 1 << (bit - 8);
    match (has_parent(page_type as u8), has_parent(flipped)) {
        // An SECS is named for a page without one.
        (true, false) => Err(GP),
        // The SECS is at address 0, where nothing is.
        (false, true) => Err(Stop::Fault(Exception::pf(0, PageFaultCode::WRITE))),
        _ => Ok(SgxStatus::MacCompareFail),
    }
}

/// An evicted page of each type, with the machine that it can be loaded to.
fn one_of_each_type() -> Vec<(Machine, Evicted)> {
    let types = [PageType::Reg, PageType::Tcs, PageType::Trim, PageType::Secs, PageType::Va];
    types
        .into_iter()
        .map(|page_type| {
            let mut machine = with_va();
            let status = match page_type {
                PageType::Reg => evict(&mut machine, 4, 0),
                PageType::Tcs => evict(&mut machine, 1, 0),
                PageType::Trim => {
                    let trim = SecInfo::new(SecInfoFlags::empty(), PageType::Trim);
                    machine.operand(SECINFO, &trim);
                    machine.status(leaf::EMODT, SECINFO, Machine::window(4), 0);
                    evict(&mut machine, 4, 0)
                }
                PageType::Secs => {
                    Spec::simple().ecreate(&mut machine, LONELY).expect("ECREATE completes");
                    ewb(&mut machine, LONELY, 0).expect("EWB completes")
                }
                _ => {
                    machine.encls(leaf::EPA, 3, Machine::window(12), 0).expect("EPA completes");
                    ewb(&mut machine, 12, 0).expect("EWB completes")
                }
            };
            assert_eq!(status, SgxStatus::Success);
            let evicted = evicted(&machine, page_type);
            (machine, evicted)
        })
        .collect()
}

#[test]
fn every_flipped_bit_of_the_page_is_detected() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);
    let mut evicted = evicted(&machine, PageType::Reg);

    let missed: Vec<usize> = (0..4096 * 8)
        .filter(|bit| {
            evicted.page[bit / 8] ^= 1 << (bit % 8);
            let outcome = eldu(&mut machine, &evicted);
            evicted.page[bit / 8] ^= 1 << (bit % 8);
            outcome != Ok(SgxStatus::MacCompareFail)
        })
        .collect();

    assert_eq!(missed, [0; 0]);
    assert!(!machine.platform.epcm(EpcIndex(TARGET)).valid());
    assert_eq!(eldu(&mut machine, &evicted), Ok(SgxStatus::Success));
}

#[test]
fn every_flipped_bit_of_pcmd_has_its_outcome() {
    for (mut machine, mut evicted) in one_of_each_type() {
        let va = EpcIndex(VA);
        let version = machine.platform.page(va).load(0);

        for bit in 0..128 * 8 {
            evicted.pcmd[bit / 8] ^= 1 << (bit % 8);
            let outcome = eldu(&mut machine, &evicted);
            evicted.pcmd[bit / 8] ^= 1 << (bit % 8);

            let page_type = evicted.page_type;
            assert_eq!(outcome, expected(page_type, bit), "bit {bit} of a {page_type:?} page");
            if outcome == Ok(SgxStatus::Success) {
                machine.eremove(TARGET);
                machine.platform.page(va).store(0, version);
            }
            assert!(!machine.platform.epcm(EpcIndex(TARGET)).valid());
        }
        assert_eq!(eldu(&mut machine, &evicted), Ok(SgxStatus::Success));
    }
}

#[test]
fn every_flipped_bit_of_the_version_is_detected() {
    for (mut machine, evicted) in one_of_each_type() {
        let va = EpcIndex(VA);
        let version = machine.platform.page(va).load(0);

        for bit in 0..64 {
            machine.platform.page(va).store(0, version ^ 1 << bit);
            let outcome = eldu(&mut machine, &evicted);

            assert_eq!(outcome, Ok(SgxStatus::MacCompareFail), "bit {bit}");
        }
        machine.platform.page(va).store(0, version);
        assert_eq!(eldu(&mut machine, &evicted), Ok(SgxStatus::Success));
    }
}

#[test]
fn every_flipped_bit_of_the_linear_address_is_detected() {
    for (mut machine, mut evicted) in one_of_each_type() {
        for bit in 0..64 {
            evicted.linaddr ^= 1 << bit;
            let outcome = eldu(&mut machine, &evicted);
            evicted.linaddr ^= 1 << bit;

            assert_eq!(outcome, Ok(SgxStatus::MacCompareFail), "bit {bit}");
        }
        assert_eq!(eldu(&mut machine, &evicted), Ok(SgxStatus::Success));
    }
}

#[test]
fn another_enclave_is_detected() {
    for (mut machine, mut evicted) in one_of_each_type() {
        if !has_parent(evicted.page_type as u8) {
            continue;
        }
        let mut twin = Spec::simple();
        twin.pages.clear();
        twin.ecreate(&mut machine, LONELY).expect("a second enclave at the same address");
        assert_eq!(twin.base, BASE);

        evicted.secs = Machine::window(LONELY);
        let stolen = eldu(&mut machine, &evicted);
        evicted.secs = Machine::window(0);
        let loaded = eldu(&mut machine, &evicted);

        assert_eq!(stolen, Ok(SgxStatus::MacCompareFail));
        assert_eq!(loaded, Ok(SgxStatus::Success));
    }
}
