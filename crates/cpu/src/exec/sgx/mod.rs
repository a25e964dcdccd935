//! ENCLS, ENCLU, ENCLV and enclave mode (SDM Vol. 3D, chapters 34 to 40), on the model of
//! [`cloister_sgx`].

pub(crate) mod encls;
pub(crate) mod enclu;
pub(crate) mod enclv;
pub(crate) mod port;

use crate::exec::table::{always, rows};

#[cfg(test)]
mod tests;

rows! {
    Encls => always(encls::encls).ends_block(),
    Enclu => always(enclu::enclu).leaves(),
    Enclv => always(enclv::enclv).ends_block(),
}
