//! A processor in the middle of a leaf: another one acts while it accesses memory.

use cloister_sgx::{EpcAccess, EpcIndex, LeafPort, Stop};
use cloister_x86::La;

use crate::machine::Memory;

/// The memory of a processor whose first access to the page at `at` takes so long that `then`
/// happens before it. What the leaf holds by then stays held.
pub(super) struct Meanwhile<'a, F: FnOnce()> {
    pub(super) memory: &'a mut Memory,
    pub(super) at: u64,
    pub(super) then: Option<F>,
}

impl<F: FnOnce()> Meanwhile<'_, F> {
    fn accessed(&mut self, la: La) {
        if la.page().0 == self.at
            && let Some(then) = self.then.take()
        {
            then();
        }
    }
}

impl<F: FnOnce()> LeafPort for Meanwhile<'_, F> {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop> {
        self.memory.linear(ea, len)
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        self.accessed(la);
        self.memory.read(la, buf)
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.accessed(la);
        self.memory.write(la, bytes)
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        self.memory.resolve_epc(la, access)
    }

    fn event_pending(&mut self) -> bool {
        self.memory.event_pending()
    }

    fn epc_virtualization(&self) -> bool {
        self.memory.epc_virtualization()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.memory.le_pubkey_hash()
    }
}
