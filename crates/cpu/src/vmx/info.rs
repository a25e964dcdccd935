//! VM-exit instruction information (SDM Vol. 3C, 27.2.5, tables 27-8 to 27-14), and the displacement
//! that goes with it in the exit qualification.

use crate::cpu::Cpu;
use crate::op::{BLOCK_SLOT, NO_MEMORY, Op, ZERO_SLOT};

/// The operand is a register.
const REGISTER: u32 = 1 << 10;
const NO_INDEX: u32 = 1 << 22;
const NO_BASE: u32 = 1 << 27;

/// Address size: 0 for 16 bits, 1 for 32, 2 for 64.
pub(crate) const fn address_size(op: &Op) -> u32 {
    op.addr_size.trailing_zeros() - 1
}

/// The memory operand, or that operand 0 is a register, here in bits 6:3.
pub(crate) const fn operand(op: &Op) -> u32 {
    if op.mem_operand == NO_MEMORY {
        return REGISTER | (op.dst as u32) << 3;
    }
    let index = if op.index == ZERO_SLOT { NO_INDEX } else { (op.index as u32) << 18 };
    let base = match op.base {
        ZERO_SLOT | BLOCK_SLOT => NO_BASE,
        base => (base as u32) << 23,
    };
    op.scale as u32 | address_size(op) << 7 | (op.seg as u32) << 15 | index | base
}

/// A memory operand with a register in bits 31:28.
pub(crate) const fn operand_and_register(op: &Op, register: u8) -> u32 {
    operand(op) | (register as u32) << 28
}

/// The destination of RDRAND and RDSEED.
pub(crate) const fn random(op: &Op) -> u32 {
    (op.dst as u32) << 3 | (op.size.trailing_zeros() - 1) << 11
}

impl Cpu {
    /// The displacement of a memory operand; of one that is relative to RIP, its address.
    pub(crate) fn displacement(&self, op: &Op) -> u64 {
        match (op.mem_operand, op.base) {
            (NO_MEMORY, _) => 0,
            (_, BLOCK_SLOT) => self.effective(op),
            _ => op.disp,
        }
    }
}
