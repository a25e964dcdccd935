//! Bitwise logic, for integers and for floating-point values.

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::packed;
use crate::exec::vector::lane::Lane;
use crate::op::{Handler, Op};

/// The handler of a bitwise instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Andnpd, Andnps, Andpd, Andps, Orpd, Orps, Pand, Pandn, Por, Pxor, Vandnpd, Vandnps, Vandpd,
        Vandps, Vorpd, Vorps, Vpand, Vpandn, Vpor, Vpxor, Vxorpd, Vxorps, Xorpd, Xorps,
    };
    Some(match instruction.mnemonic() {
        Pand | Andps | Andpd | Vpand | Vandps | Vandpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] & b[0], a[1] & b[1]])
        }
        Pandn | Andnps | Andnpd | Vpandn | Vandnps | Vandnpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [!a[0] & b[0], !a[1] & b[1]])
        }
        Por | Orps | Orpd | Vpor | Vorps | Vorpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] | b[0], a[1] | b[1]])
        }
        Pxor | Xorps | Xorpd | Vpxor | Vxorps | Vxorpd => {
            packed!(instruction, op, |a: Lane, b: Lane| [a[0] ^ b[0], a[1] ^ b[1]])
        }
        _ => return None,
    })
}
