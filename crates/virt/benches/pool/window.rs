//! A kernel that has all of the EPC mapped, and no other memory.

use std::sync::Arc;

use cloister_sgx::encls::{self, leaf};
use cloister_sgx::{
    Capabilities, DEFAULT_LE_HASH, EnclsRegs, EpcAccess, EpcIndex, LeafPort, Platform, Stop,
};
use cloister_x86::{Exception, La, PAGE_SIZE};

const BASE: u64 = 0xffff_8000_0000_0000;
/// RBX of EPA: PT_VA.
const PT_VA: u64 = 3;

pub(crate) struct Window(pub(crate) Arc<Platform>);

impl Window {
    /// EPA.
    pub(crate) fn version_array(&mut self, target: EpcIndex) {
        let rcx = BASE + u64::from(target.0) * PAGE_SIZE;
        let regs = EnclsRegs { eax: leaf::EPA, rbx: PT_VA, rcx, rdx: 0, mode64: true };
        let platform = self.0.clone();
        encls::execute(&platform, self, &regs).expect("EPA");
    }
}

impl LeafPort for Window {
    fn linear(&mut self, ea: u64, _len: u64) -> Result<La, Stop> {
        Ok(La(ea))
    }

    fn read(&mut self, _la: La, _buf: &mut [u8]) -> Result<(), Stop> {
        Err(Stop::Fault(Exception::gp(0)))
    }

    fn write(&mut self, _la: La, _bytes: &[u8]) -> Result<(), Stop> {
        Err(Stop::Fault(Exception::gp(0)))
    }

    fn resolve_epc(&mut self, la: La, _access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        Ok(Some(EpcIndex(((la.0 - BASE) / PAGE_SIZE) as u32)))
    }

    fn event_pending(&mut self) -> bool {
        false
    }

    fn capabilities(&self) -> Capabilities {
        *self.0.capabilities()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        DEFAULT_LE_HASH
    }
}
