//! Bitwise logic, for integers and for floating-point values.

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::packed;
use crate::exec::vector::lane::Lane;
use crate::op::{Handler, Op};

/// The handler of a bitwise instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Andnpd, Andnps, Andpd, Andps, Orpd, Orps, Pand, Pandn, Por, Pxor, Xorpd, Xorps,
    };
    Some(match instruction.mnemonic() {
        Pand | Andps | Andpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] & b[0], a[1] & b[1]])
        }
        Pandn | Andnps | Andnpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [!a[0] & b[0], !a[1] & b[1]])
        }
        Por | Orps | Orpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] | b[0], a[1] | b[1]])
        }
        Pxor | Xorps | Xorpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] ^ b[0], a[1] ^ b[1]])
        }
        _ => return None,
    })
}
