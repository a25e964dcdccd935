//! ENCLS, ENCLU, ENCLV and what enclave mode forbids (SDM Vol. 3D, chapters 35 to 39).

use std::ptr::NonNull;

use cloister_sgx::EpcIndex;
use iced_x86::Instruction;

use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, Op};
use crate::phys::{CodeTrack, PhysPage};
use crate::state::{Cpu, Exec};

/// The handler of an SGX instruction.
pub fn select(_instruction: &Instruction, _mode: Mode, _op: &mut Op) -> Option<Handler> {
    None
}

/// The handler of an instruction that enclave mode forbids: #UD or #GP (SDM Vol. 3D, 39.6).
#[must_use]
pub fn restricted(_instruction: &Instruction) -> Option<Handler> {
    None
}

impl Cpu {
    /// The access check of enclave mode for a page that the page tables allow: what is to be
    /// accessed, or `None` for the abort page (SDM Vol. 3D, 35.3).
    ///
    /// # Errors
    ///
    /// #PF with the SGX bit.
    pub fn enclave_access(
        &mut self,
        _la: u64,
        _kind: AccessKind,
        page: PhysPage,
    ) -> Exec<Option<PhysPage>> {
        Ok(Some(page))
    }

    /// The bytes and the code tracking of an EPC page.
    #[must_use]
    pub fn epc_memory(&self, _index: EpcIndex) -> Option<(NonNull<u8>, NonNull<CodeTrack>)> {
        None
    }
}

/// What comes before an event is delivered: inside an enclave, an asynchronous exit
/// (SDM Vol. 3D, 36.3 and 36.4). It may change the event (the address of a page fault, RF in the
/// pushed image) and [`Cpu::rip`], which the handler returns to.
pub fn before_event(_cpu: &mut Cpu, _event: &mut crate::exec::system::event::Event) {}
