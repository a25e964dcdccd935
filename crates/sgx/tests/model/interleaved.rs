//! Two processors in the middle of a leaf, without threads: while one of them carries out a leaf,
//! and holds what the leaf holds, the other gets a turn.

use cloister_sgx::encls;
use cloister_sgx::{EnclsRegs, EpcAccess, EpcIndex, LeafOutcome, LeafPort, Stop};
use cloister_x86::La;

use crate::machine::{Machine, Memory};

/// The memory of a processor, which stops for another one's turn when the leaf accesses `at`.
struct Interleaved<'a, F> {
    memory: &'a mut Memory,
    at: u64,
    turn: Option<F>,
}

impl<F: FnOnce()> Interleaved<'_, F> {
    fn pass(&mut self, la: La) {
        if la.0 == self.at
            && let Some(turn) = self.turn.take()
        {
            turn();
        }
    }
}

impl<F: FnOnce()> LeafPort for Interleaved<'_, F> {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop> {
        self.memory.linear(ea, len)
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        self.pass(la);
        self.memory.read(la, buf)
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.pass(la);
        self.memory.write(la, bytes)
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        self.memory.resolve_epc(la, access)
    }

    fn event_pending(&mut self) -> bool {
        self.memory.event_pending()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.memory.le_pubkey_hash()
    }
}

/// Executes an ENCLS leaf on `machine`, with `turn` while the leaf accesses memory at `at`.
pub(crate) fn encls_with_turn(
    machine: &mut Machine,
    [eax, rbx, rcx, rdx]: [u64; 4],
    at: u64,
    turn: impl FnOnce(),
) -> Result<LeafOutcome, Stop> {
    let regs = EnclsRegs { eax: eax as u32, rbx, rcx, rdx, mode64: machine.memory.mode64 };
    let mut port = Interleaved { memory: &mut machine.memory, at, turn: Some(turn) };
    let outcome = encls::execute(&machine.platform, &mut port, &regs);
    assert!(port.turn.is_none(), "the leaf never accessed {at:#x}");
    outcome
}
