//! Enclaves: how a guest builds them, and what `sgxs` says of their measurement and signature.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs, SigStruct};
use cloister_sgx::{AttributeFlags, Attributes, PageType};
use cloister_virt::encls::Action;
use sgxs::sgxs::{Meas, MeasEAdd, MeasECreate, MeasEExtend, SecinfoTruncated, SgxsWrite as _};
use sgxs::sigstruct::EnclaveHash;
use zerocopy::{FromBytes as _, FromZeros as _};

use crate::guest::{DONE, Guest, PAGEINFO, SECINFO, SIGSTRUCT, SOURCE, TOKEN, epc};
use crate::signer::{Hasher, Signer};

pub(crate) const BASE: u64 = 0x7f12_3450_0000;
const SIZE: u64 = 0x1_0000;
pub(crate) const ISVPRODID: u16 = 9;
pub(crate) const ISVSVN: u16 = 4;

/// A 64-bit debug enclave of 64 KiB.
pub(crate) fn secs() -> Secs {
    let mut secs = Secs::new_zeroed();
    secs.size = SIZE.into();
    secs.baseaddr = BASE.into();
    secs.ssaframesize = 1.into();
    secs.attributes = Attributes::new(AttributeFlags::MODE64BIT | AttributeFlags::DEBUG, 3);
    secs
}

/// PAGEINFO of an ECREATE from [`SOURCE`].
pub(crate) fn pageinfo() -> PageInfo {
    PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() }
}

/// SECINFO of an ECREATE.
pub(crate) fn secinfo() -> SecInfo {
    SecInfo::new(SecInfoFlags::empty(), PageType::Secs)
}

/// Puts good operands of an ECREATE of `secs` in place.
pub(crate) fn place(guest: &mut Guest, secs: &Secs) {
    guest.put(PAGEINFO, &pageinfo());
    guest.put(SECINFO, &secinfo());
    guest.put(SOURCE, secs);
}

/// ECREATE of `secs` in EPC page `page`, by way of an exit.
pub(crate) fn create(guest: &mut Guest, secs: &Secs, page: u64) -> Action {
    place(guest, secs);
    guest.exit(leaf::ECREATE, PAGEINFO, epc(page), 0)
}

/// Contents of page `n` of an enclave.
fn contents(n: u64) -> [u8; 4096] {
    std::array::from_fn(|at| (at as u64 * 7 + n) as u8)
}

const PERMISSIONS: SecInfoFlags = SecInfoFlags::R.union(SecInfoFlags::W);

/// EADD and EEXTEND of `count` pages: SECS in EPC page `secs`, the pages in those that follow.
pub(crate) fn fill(guest: &mut Guest, secs: u64, count: u64) {
    for n in 0..count {
        let target = epc(secs + 1 + n);
        guest.put(SOURCE, &contents(n));
        guest.put(SECINFO, &SecInfo::new(PERMISSIONS, PageType::Reg));
        let linaddr = (BASE + n * 4096).into();
        guest.put(PAGEINFO, &PageInfo { linaddr, secs: epc(secs).into(), ..pageinfo() });
        assert_eq!(guest.encls(leaf::EADD, PAGEINFO, target, 0), DONE);
        for chunk in 0..16 {
            let at = target + chunk * 256;
            assert_eq!(guest.encls(leaf::EEXTEND, epc(secs), at, 0), DONE);
        }
    }
}

/// MRENCLAVE according to `sgxs` of an enclave with `count` pages.
pub(crate) fn mrenclave(count: u64) -> [u8; 32] {
    let mut stream = Vec::new();
    let create = MeasECreate { ssaframesize: 1, size: SIZE };
    stream.write_meas(&Meas::ECreate(create)).expect("a Vec can be written");
    for n in 0..count {
        let flags = SecInfo::new(PERMISSIONS, PageType::Reg).flags.get();
        let flags = sgx_isa::SecinfoFlags::from_bits_truncate(flags);
        let add = MeasEAdd { offset: n * 4096, secinfo: SecinfoTruncated { flags } };
        stream.write_meas(&Meas::EAdd(add)).expect("a Vec can be written");
        for (chunk, data) in (0..).zip(contents(n).as_chunks::<256>().0) {
            let header = MeasEExtend { offset: n * 4096 + chunk * 256 };
            let extend = Meas::EExtend { header, data: *data };
            stream.write_meas(&extend).expect("a Vec can be written");
        }
    }
    EnclaveHash::from_stream::<_, Hasher>(&mut &stream[..]).expect("a valid stream").hash()
}

/// A SIGSTRUCT made by `sgxs` for an enclave like `secs` with `count` pages.
pub(crate) fn sigstruct(secs: &Secs, count: u64, author: &Signer) -> SigStruct {
    let mut signer = sgxs::sigstruct::Signer::new(EnclaveHash::new(mrenclave(count)));
    let flags = sgx_isa::AttributesFlags::from_bits_truncate(secs.attributes.flags.get());
    signer
        .attributes_flags(flags, !0)
        .attributes_xfrm(secs.attributes.xfrm.get(), !0)
        .miscselect(sgx_isa::Miscselect::from_bits_truncate(secs.miscselect.get()), !0)
        .isvprodid(ISVPRODID)
        .isvsvn(ISVSVN);
    let signed = signer.sign::<_, Hasher>(author).expect("the key can sign");
    let bytes: &[u8] = signed.as_ref();
    SigStruct::read_from_prefix(bytes).expect("a SIGSTRUCT").0
}

/// EINIT of the SECS in EPC page `page` without a token, by way of an exit.
pub(crate) fn init(guest: &mut Guest, sigstruct: &SigStruct, page: u64) -> Action {
    guest.put(SIGSTRUCT, sigstruct);
    guest.put(TOKEN, &EinitToken::none());
    guest.exit(leaf::EINIT, SIGSTRUCT, epc(page), TOKEN)
}
