//! Delivery of exceptions and interrupts (SDM Vol. 3A, chapter 6).

use cloister_x86::Exception;

use crate::exit::Exit;
use crate::state::Cpu;

/// Delivers an exception whose RIP is `cpu.rip`, with whatever exceptions delivery itself raises.
///
/// # Errors
///
/// [`Exit::TripleFault`].
pub fn deliver_exception(_cpu: &mut Cpu, _exception: Exception) -> Result<(), Exit> {
    Err(Exit::TripleFault)
}
