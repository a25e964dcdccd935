//! Bitwise logic, for integers and for floating-point values.

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::packed;
use crate::exec::vector::lane::Lane;

vector_rows! {
    Pand | Andps | Andpd | Vpand | Vandps | Vandpd => {
        choose(packed!(|a: Lane, b: Lane| [a[0] & b[0], a[1] & b[1]]))
    },
    Pandn | Andnps | Andnpd | Vpandn | Vandnps | Vandnpd => {
        choose(packed!(|a: Lane, b: Lane| [!a[0] & b[0], !a[1] & b[1]]))
    },
    Por | Orps | Orpd | Vpor | Vorps | Vorpd => {
        choose(packed!(|a: Lane, b: Lane| [a[0] | b[0], a[1] | b[1]]))
    },
    Pxor | Xorps | Xorpd | Vpxor | Vxorps | Vxorpd => {
        choose(packed!(|a: Lane, b: Lane| [a[0] ^ b[0], a[1] ^ b[1]]))
    },
}
