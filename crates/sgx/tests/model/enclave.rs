//! Building enclaves leaf by leaf, and what `sgxs` says their measurement is.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs, SigStruct};
use cloister_sgx::{
    AttributeFlags, Attributes, EpcIndex, LeafOutcome, MISCSELECT_EXINFO, PageType, SgxStatus, Stop,
};
use sgxs::sgxs::{Meas, MeasEAdd, MeasECreate, MeasEExtend, SecinfoTruncated, SgxsWrite as _};
use sgxs::sigstruct::EnclaveHash;
use zerocopy::FromZeros as _;

use crate::machine::{Machine, Mapping, OPERANDS};
use crate::signer::{Hasher, Signer};

/// Operand addresses.
pub(crate) const PAGEINFO: u64 = OPERANDS;
pub(crate) const SECINFO: u64 = OPERANDS + 0x40;
pub(crate) const SOURCE: u64 = OPERANDS + 0x1000;
pub(crate) const SIGSTRUCT: u64 = OPERANDS + 0x2000;
pub(crate) const TOKEN: u64 = OPERANDS + 0x3000;

/// A page of an enclave.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Page {
    pub(crate) offset: u64,
    pub(crate) secinfo: SecInfo,
    pub(crate) contents: Box<[u8; 4096]>,
    /// Which of the 16 chunks are measured.
    pub(crate) measured: u16,
}

impl Page {
    pub(crate) fn reg(offset: u64, flags: SecInfoFlags, contents: [u8; 4096]) -> Self {
        Self {
            offset,
            secinfo: SecInfo::new(flags, PageType::Reg),
            contents: Box::new(contents),
            measured: 0xffff,
        }
    }

    pub(crate) fn tcs(offset: u64, contents: [u8; 4096]) -> Self {
        Self {
            offset,
            secinfo: SecInfo::new(SecInfoFlags::empty(), PageType::Tcs),
            contents: Box::new(contents),
            measured: 0xffff,
        }
    }
}

/// TCS contents: SSA at `ossa` with `nssa` frames, entry at `oentry`.
pub(crate) fn tcs(ossa: u64, nssa: u32, oentry: u64) -> [u8; 4096] {
    let mut page = [0; 4096];
    page[16..24].copy_from_slice(&ossa.to_le_bytes());
    page[28..32].copy_from_slice(&nssa.to_le_bytes());
    page[32..40].copy_from_slice(&oentry.to_le_bytes());
    page[64..68].copy_from_slice(&0xffffu32.to_le_bytes());
    page[68..72].copy_from_slice(&0xffffu32.to_le_bytes());
    page
}

/// What an enclave is to be.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Spec {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) ssaframesize: u32,
    pub(crate) miscselect: u32,
    pub(crate) attributes: Attributes,
    pub(crate) pages: Vec<Page>,
    pub(crate) isvsvn: u16,
    pub(crate) isvprodid: u16,
    pub(crate) debug_mask: bool,
}

pub(crate) const BASE: u64 = 0x7f12_3450_0000;
/// Places in the enclave of [`Spec::simple`].
pub(crate) const TCS: u64 = BASE;
pub(crate) const TCS_2: u64 = BASE + 0x1000;
pub(crate) const CODE: u64 = BASE + 0x2000;
pub(crate) const DATA: u64 = BASE + 0x3000;
pub(crate) const SSA: u64 = BASE + 0x4000;

impl Spec {
    /// Two threads, a code page, a data page and two SSA frames per thread.
    pub(crate) fn simple() -> Self {
        let rw = SecInfoFlags::R | SecInfoFlags::W;
        let mut pages = vec![
            Page::tcs(0, tcs(0x4000, 2, 0x2010)),
            Page::tcs(0x1000, tcs(0x6000, 2, 0x2010)),
            Page::reg(0x2000, SecInfoFlags::R | SecInfoFlags::X, [0x90; 4096]),
            Page::reg(0x3000, rw, [0x5a; 4096]),
        ];
        pages.extend((4..8).map(|page| Page::reg(page * 4096, rw, [0; 4096])));
        Self {
            base: BASE,
            size: 0x10000,
            ssaframesize: 1,
            miscselect: MISCSELECT_EXINFO,
            attributes: Attributes::new(AttributeFlags::MODE64BIT | AttributeFlags::DEBUG, 3),
            pages,
            isvsvn: 4,
            isvprodid: 9,
            debug_mask: false,
        }
    }

    pub(crate) fn secs(&self) -> Secs {
        let mut secs = Secs::new_zeroed();
        secs.size = self.size.into();
        secs.baseaddr = self.base.into();
        secs.ssaframesize = self.ssaframesize.into();
        secs.miscselect = self.miscselect.into();
        secs.attributes = self.attributes;
        secs
    }

    /// The `.sgxs` stream of the enclave.
    pub(crate) fn stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        let create = MeasECreate { ssaframesize: self.ssaframesize, size: self.size };
        stream.write_meas(&Meas::ECreate(create)).expect("a Vec can be written");
        for page in &self.pages {
            // The model measures a TCS with its permissions cleared.
            let is_tcs = page.secinfo.page_type() == Some(PageType::Tcs);
            let flags = page.secinfo.flags.get() & if is_tcs { !7 } else { !0 };
            let secinfo =
                SecinfoTruncated { flags: sgx_isa::SecinfoFlags::from_bits_truncate(flags) };
            let add = MeasEAdd { offset: page.offset, secinfo };
            stream.write_meas(&Meas::EAdd(add)).expect("a Vec can be written");
            for chunk in 0..16 {
                if page.measured & 1 << chunk == 0 {
                    continue;
                }
                let mut data = [0; 256];
                data.copy_from_slice(&page.contents[chunk * 256..chunk * 256 + 256]);
                let header = MeasEExtend { offset: page.offset + chunk as u64 * 256 };
                let extend = Meas::EExtend { header, data };
                stream.write_meas(&extend).expect("a Vec can be written");
            }
        }
        stream
    }

    /// MRENCLAVE according to `sgxs`.
    pub(crate) fn mrenclave(&self) -> [u8; 32] {
        let stream = self.stream();
        EnclaveHash::from_stream::<_, Hasher>(&mut &stream[..]).expect("a valid stream").hash()
    }

    /// A SIGSTRUCT made by `sgxs`, which fixes every attribute but DEBUG.
    pub(crate) fn sigstruct(&self, signer: &Signer) -> SigStruct {
        self.sigstruct_with_mask(signer, if self.debug_mask { !0 } else { !2 })
    }

    /// A SIGSTRUCT made by `sgxs` with this ATTRIBUTEMASK.
    pub(crate) fn sigstruct_with_mask(&self, signer: &Signer, mask: u64) -> SigStruct {
        self.sigstruct_of(self.mrenclave(), signer, mask)
    }

    /// The same for another MRENCLAVE.
    pub(crate) fn sigstruct_of(
        &self,
        mrenclave: [u8; 32],
        signer: &Signer,
        mask: u64,
    ) -> SigStruct {
        let mut author = sgxs::sigstruct::Signer::new(EnclaveHash::new(mrenclave));
        let flags = self.attributes.flags.get();
        author
            .attributes_flags(sgx_isa::AttributesFlags::from_bits_truncate(flags), mask)
            .attributes_xfrm(self.attributes.xfrm.get(), !0)
            .miscselect(sgx_isa::Miscselect::from_bits_truncate(self.miscselect), !0)
            .isvsvn(self.isvsvn)
            .isvprodid(self.isvprodid);
        let signed = author.sign::<_, Hasher>(signer).expect("the key can sign");
        let bytes: &[u8] = signed.as_ref();
        zerocopy::FromBytes::read_from_prefix(bytes).expect("a SIGSTRUCT").0
    }

    pub(crate) fn ecreate(&self, machine: &mut Machine, secs: u32) -> Result<LeafOutcome, Stop> {
        self.ecreate_with(machine, secs, &self.secs())
    }

    /// ECREATE with a source SECS that says more than this does.
    fn ecreate_with(
        &self,
        machine: &mut Machine,
        secs: u32,
        source: &Secs,
    ) -> Result<LeafOutcome, Stop> {
        machine.operand(SOURCE, source);
        machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
        machine.operand(
            PAGEINFO,
            &PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() },
        );
        machine.encls(leaf::ECREATE, PAGEINFO, Machine::window(secs), 0)
    }

    pub(crate) fn eadd(
        &self,
        machine: &mut Machine,
        secs: u32,
        target: u32,
        page: &Page,
    ) -> Result<LeafOutcome, Stop> {
        machine.memory.put(SOURCE, &page.contents[..]);
        machine.operand(SECINFO, &page.secinfo);
        machine.operand(
            PAGEINFO,
            &PageInfo {
                linaddr: self.base.wrapping_add(page.offset).into(),
                srcpge: SOURCE.into(),
                secinfo: SECINFO.into(),
                secs: Machine::window(secs).into(),
            },
        );
        machine.encls(leaf::EADD, PAGEINFO, Machine::window(target), 0)
    }

    /// ECREATE and all EADD and EEXTEND: SECS in EPC page `secs`, the pages after it, and each
    /// mapped at its place in the enclave.
    pub(crate) fn load(&self, machine: &mut Machine, secs: u32) -> Result<(), Stop> {
        self.load_with(machine, secs, &self.secs())
    }

    /// The same with a source SECS that says more than this does.
    pub(crate) fn load_with(
        &self,
        machine: &mut Machine,
        secs: u32,
        source: &Secs,
    ) -> Result<(), Stop> {
        self.ecreate_with(machine, secs, source)?;
        for (number, page) in self.pages.iter().enumerate() {
            let target = secs + 1 + number as u32;
            self.eadd(machine, secs, target, page)?;
            for chunk in 0..16u64 {
                if page.measured & 1 << chunk != 0 {
                    machine.encls(
                        leaf::EEXTEND,
                        Machine::window(secs),
                        Machine::window(target) + chunk * 256,
                        0,
                    )?;
                }
            }
        }
        self.map(machine, secs);
        Ok(())
    }

    /// Maps the pages at their places in the enclave.
    pub(crate) fn map(&self, machine: &mut Machine, secs: u32) {
        for (number, page) in self.pages.iter().enumerate() {
            let index = EpcIndex(secs + 1 + number as u32);
            machine
                .memory
                .mappings
                .insert(self.base + page.offset, Mapping::Epc { index, writable: true });
        }
    }

    pub(crate) fn einit(
        &self,
        machine: &mut Machine,
        secs: u32,
        sigstruct: &SigStruct,
        token: &EinitToken,
    ) -> Result<SgxStatus, Stop> {
        machine.operand(SIGSTRUCT, sigstruct);
        machine.operand(TOKEN, token);
        let outcome = machine.encls(leaf::EINIT, SIGSTRUCT, Machine::window(secs), TOKEN)?;
        Ok(outcome.status.expect("EINIT reports"))
    }

    /// The whole enclave, initialized under launch control that trusts `signer`.
    pub(crate) fn start(&self, machine: &mut Machine, secs: u32, signer: &Signer) -> SgxStatus {
        machine.memory.le_hash = signer.mrsigner();
        self.load(machine, secs).expect("the enclave can be built");
        let sigstruct = self.sigstruct(signer);
        self.einit(machine, secs, &sigstruct, &EinitToken::none()).expect("EINIT completes")
    }
}

/// A machine with [`Spec::simple`] started in EPC pages 0 to 8 of 32.
pub(crate) fn started() -> Machine {
    let mut machine = Machine::new(32);
    let status = Spec::simple().start(&mut machine, 0, Signer::a());
    assert_eq!(status, SgxStatus::Success);
    machine
}
