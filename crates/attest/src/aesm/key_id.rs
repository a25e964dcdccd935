//! Names of attestation keys (`sgx_att_key_id_ext_t`).

use crate::quoting_enclave as qe;

/// Bytes of a name.
pub(super) const SIZE: usize = 256;
/// Bytes of what is compared: all but what belongs to EPID.
const COMPARED: usize = 158;
/// ECDSA-256 with curve P-256 (`SGX_QL_ALG_ECDSA_P256`).
const ALGORITHM: u32 = 2;
/// MRSIGNER of Intel's quoting enclave QE3, which clients such as Gramine name as a constant.
const QE3_MRSIGNER: [u8; 32] = [
    0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82, 0x9a,
    0x00, 0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5, 0x7b, 0xff,
];
/// The head of a list of names (`sgx_ql_att_key_id_list_header_t`): identifier, version, number.
const LIST_HEADER: usize = 8;
/// Names in a list at most (`SGX_MAX_ATT_KEY_IDS`).
const LIST_NAMES: usize = 10;

/// The name of the platform's attestation key.
pub(super) fn own() -> [u8; SIZE] {
    of(&qe::mrsigner())
}

fn of(mrsigner: &[u8; 32]) -> [u8; SIZE] {
    let mut name = [0; SIZE];
    // After identifier and version: the bytes of MRSIGNER that count, and MRSIGNER with room for 48.
    name[4..6].copy_from_slice(&32_u16.to_le_bytes());
    name[6..38].copy_from_slice(mrsigner);
    name[54..58].copy_from_slice(&u32::from(qe::ISVPRODID).to_le_bytes());
    // After the extended product ID, CONFIGID and the family ID, all zero.
    name[154..COMPARED].copy_from_slice(&ALGORITHM.to_le_bytes());
    name
}

/// Whether the name is the key's, or that of QE3's, for which this one stands.
pub(super) fn is_known(name: &[u8; SIZE]) -> bool {
    [own(), of(&QE3_MRSIGNER)].iter().any(|known| known[..COMPARED] == name[..COMPARED])
}

/// Why no name was chosen from a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unselected {
    /// It is not a list.
    Malformed,
    /// None of its names is known.
    Unknown,
}

/// The first name of a list that is known.
pub(super) fn select(list: &[u8]) -> Result<[u8; SIZE], Unselected> {
    let (header, names) = list.split_first_chunk::<LIST_HEADER>().ok_or(Unselected::Malformed)?;
    let (names, rest) = names.as_chunks::<SIZE>();
    let [0, 0, 0, 0, number @ ..] = *header else { return Err(Unselected::Malformed) };
    let number = usize::try_from(u32::from_le_bytes(number)).unwrap_or(usize::MAX);
    if number != names.len() || !(1..=LIST_NAMES).contains(&number) || !rest.is_empty() {
        return Err(Unselected::Malformed);
    }
    names.iter().find(|name| is_known(name)).copied().ok_or(Unselected::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[[u8; SIZE]]) -> Vec<u8> {
        let number = u32::try_from(names.len()).unwrap().to_le_bytes();
        [&[0; 4], &number, names.as_flattened()].concat()
    }

    #[test]
    fn the_first_known_name_of_a_list_is_chosen() {
        let stranger = of(&[9; 32]);
        let mut qe3 = of(&QE3_MRSIGNER);
        // What is EPID's is not looked at, and given back as it was.
        qe3[200] = 1;

        assert_eq!(select(&list(&[stranger, qe3, own()])), Ok(qe3));
        assert_eq!(select(&list(&[own()])), Ok(own()));
        assert_eq!(select(&list(&[stranger])), Err(Unselected::Unknown));
    }

    #[test]
    fn a_list_of_another_length_or_version_is_refused() {
        let good = list(&[own(), own()]);
        let mut version = good.clone();
        version[2] = 1;
        let mut more = good.clone();
        more[4] = 3;
        let longest = list(&[own(); LIST_NAMES + 1]);

        for wrong in [&good[..good.len() - 1], &good[..7], &[], &version, &more, &longest, &[0; 8]]
        {
            assert_eq!(select(wrong), Err(Unselected::Malformed), "{} bytes", wrong.len());
        }
    }
}
