//! The encryption of evicted pages, as EWB makes it and ELDB and ELDU undo it (SDM Vol. 3D,
//! 36.5.3 and EWB): AES-128-GCM with a key of this boot and a version that is used once.

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes128Gcm, KeyInit as _, Nonce, Tag};
use zerocopy::little_endian::U64;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::epc::EPC_PAGE_SIZE;
use crate::epcm::{EpcmFlags, EpcmView};
use crate::layout::{SecInfo, SecInfoFlags};
use crate::platform::Platform;

/// TMP_HEADER: what is authenticated besides the page.
#[derive(Clone, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct MacHeader {
    pub(crate) secinfo: SecInfo,
    pub(crate) eid: U64,
    pub(crate) linaddr: U64,
    pub(crate) rsvd: [u8; 40],
    pub(crate) zero: [u8; 8],
}

const _: () = assert!(size_of::<MacHeader>() == 128);

/// Encrypts `page` in place and returns its MAC.
pub(crate) fn seal(
    platform: &Platform,
    version: u64,
    header: &MacHeader,
    page: &mut [u8; EPC_PAGE_SIZE],
) -> [u8; 16] {
    let cipher = Aes128Gcm::new(&platform.identity().paging_key.into());
    match cipher.encrypt_inout_detached(
        &nonce(version),
        header.as_bytes(),
        page.as_mut_slice().into(),
    ) {
        Ok(tag) => tag.into(),
        // GCM refuses only messages of 64 GiB and more.
        Err(aes_gcm::Error) => unreachable!("a page of 4 KiB is too long for GCM"),
    }
}

/// Decrypts `page` in place; false, and the page is garbage, if `mac` does not authenticate it.
pub(crate) fn open(
    platform: &Platform,
    version: u64,
    header: &MacHeader,
    page: &mut [u8; EPC_PAGE_SIZE],
    mac: &[u8; 16],
) -> bool {
    let cipher = Aes128Gcm::new(&platform.identity().paging_key.into());
    let tag: Tag = (*mac).into();
    cipher
        .decrypt_inout_detached(
            &nonce(version),
            header.as_bytes(),
            page.as_mut_slice().into(),
            &tag,
        )
        .is_ok()
}

/// TMP_VER << 32, as a 96-bit counter.
fn nonce(version: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&version.to_le_bytes());
    nonce.into()
}

/// The SECINFO that describes a page with this EPCM entry.
pub(crate) fn secinfo_of(view: &EpcmView) -> SecInfo {
    let mut flags = SecInfoFlags::empty();
    for (epcm, secinfo) in [
        (EpcmFlags::R, SecInfoFlags::R),
        (EpcmFlags::W, SecInfoFlags::W),
        (EpcmFlags::X, SecInfoFlags::X),
        (EpcmFlags::PENDING, SecInfoFlags::PENDING),
        (EpcmFlags::MODIFIED, SecInfoFlags::MODIFIED),
        (EpcmFlags::PR, SecInfoFlags::PR),
    ] {
        flags.set(secinfo, view.flags.contains(epcm));
    }
    SecInfo::new(flags, view.page_type)
}
