//! Where translated code keeps the guest's registers.
//!
//! Ten are in registers of the host, most in their own, so that shifts by CL and the like need no moves;
//! the others are in memory. The host's RAX has the flags, since LAHF and SETO can put them there.

use cloister_cpu::native::layout;
use iced_x86::Register;

use crate::asm::{
    R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, Reg, Rm,
};

/// The processor.
pub(crate) const CPU: Reg = R15;
/// The flags where they are not in the host's register: bits 15:8 as LAHF has them, AL 1 for OF, else
/// 0. The other bits are anything.
pub(crate) const FLAGS: Reg = RAX;
/// Scratch registers; `ADDRESS` is where memory operands are made, and between blocks it is RIP.
pub(crate) const ADDRESS: Reg = R13;
pub(crate) const TEMP: Reg = R14;
pub(crate) const TEMP2: Reg = R11;

/// Where the guest's RAX is, and RSP.
pub(crate) const ACCUMULATOR: Reg = R12;
pub(crate) const STACK: Reg = R10;

/// Hosts of guest registers, by number.
pub(crate) const HOSTS: [(u8, Reg); 10] = [
    (0, ACCUMULATOR),
    (1, RCX),
    (2, RDX),
    (3, RBX),
    (4, STACK),
    (5, RBP),
    (6, RSI),
    (7, RDI),
    (8, R8),
    (9, R9),
];

/// Where guest register `number` is in memory.
pub(crate) const fn home(number: u8) -> Rm {
    Rm::Mem(CPU, (layout::GPR + 8 * number as usize) as i32)
}

/// A field of the processor.
pub(crate) const fn field(offset: usize) -> Rm {
    Rm::Mem(CPU, offset as i32)
}

/// The host register that guest register `number` is in.
pub(crate) fn host(number: u8) -> Option<Reg> {
    HOSTS.iter().find(|(guest, _)| *guest == number).map(|(_, host)| *host)
}

/// Where guest register `number` is.
pub(crate) fn place(number: u8) -> Rm {
    host(number).map_or_else(|| home(number), Rm::Reg)
}

/// Number of a general-purpose register; `None` for AH, CH, DH, BH and other kinds.
pub(crate) fn number(register: Register) -> Option<u8> {
    let number = register.number() as u8;
    if register.is_gpr8() {
        match number {
            0..4 => Some(number),
            4..8 => None,
            _ => Some(number - 4),
        }
    } else if register.is_gpr() {
        Some(number)
    } else {
        None
    }
}
