//! A kernel that sees EPC pages by their index: for tests of the host's side, where sections are
//! taken apart under the enclaves in them.

use std::collections::HashMap;
use std::sync::Arc;

use cloister_sgx::encls::{self, leaf};
use cloister_sgx::enclu::{self, leaf as user};
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{
    AttributeFlags, Capabilities, EnclaveState, EnclsRegs, EpcAccess, EpcIndex, LeafPort, PageType,
    Platform, ProcessorState, SgxStatus, Stop, XsaveArea,
};
use cloister_x86::{Gpr, La, PAGE_SIZE};
use zerocopy::IntoBytes as _;

use crate::enclave::{BASE, secs};

const WINDOW: u64 = 0xffff_a000_0000_0000;
const OPERANDS: u64 = 0x10_0000;
const PAGEINFO: u64 = OPERANDS;
const SECINFO: u64 = OPERANDS + 64;
const SOURCE: u64 = OPERANDS + PAGE_SIZE;

const fn window(index: EpcIndex) -> u64 {
    WINDOW + index.0 as u64 * PAGE_SIZE
}

pub(crate) struct Kernel {
    platform: Arc<Platform>,
    operands: Vec<u8>,
    /// Pages of enclaves by linear address.
    enclave: HashMap<u64, EpcIndex>,
}

impl Kernel {
    pub(crate) fn new(platform: Arc<Platform>) -> Self {
        Self { platform, operands: vec![0; 2 * PAGE_SIZE as usize], enclave: HashMap::new() }
    }

    fn put(&mut self, la: u64, bytes: &[u8]) {
        let at = (la - OPERANDS) as usize;
        self.operands[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn encls(&mut self, number: u32, rbx: u64, rcx: u64) -> Result<Option<SgxStatus>, Stop> {
        let regs = EnclsRegs { eax: number, rbx, rcx, rdx: 0, mode64: true };
        let platform = self.platform.clone();
        encls::execute(&platform, self, &regs).map(|outcome| outcome.status)
    }

    /// ECREATE.
    pub(crate) fn create(&mut self, target: EpcIndex) -> Result<(), Stop> {
        let source: Secs = secs();
        let operands =
            PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
        self.put(SOURCE, source.as_bytes());
        self.put(SECINFO, SecInfo::new(SecInfoFlags::empty(), PageType::Secs).as_bytes());
        self.put(PAGEINFO, operands.as_bytes());
        self.encls(leaf::ECREATE, PAGEINFO, window(target)).map(drop)
    }

    /// EADD of a page of zeros, or a TCS, as page `number` of the enclave.
    pub(crate) fn add(
        &mut self,
        secs: EpcIndex,
        target: EpcIndex,
        number: u64,
        page_type: PageType,
    ) -> Result<(), Stop> {
        let flags = match page_type {
            PageType::Tcs => SecInfoFlags::empty(),
            _ => SecInfoFlags::R | SecInfoFlags::W,
        };
        let linaddr = BASE + number * PAGE_SIZE;
        let operands = PageInfo {
            linaddr: linaddr.into(),
            srcpge: SOURCE.into(),
            secinfo: SECINFO.into(),
            secs: window(secs).into(),
        };
        let mut contents = [0; PAGE_SIZE as usize];
        if page_type == PageType::Tcs {
            // SSA in page 1, one frame; entry at page 0; limits of 64 KiB.
            contents[16..24].copy_from_slice(&PAGE_SIZE.to_le_bytes());
            contents[28] = 1;
            contents[64..66].fill(0xff);
            contents[68..70].fill(0xff);
        }
        self.put(SOURCE, &contents);
        self.put(SECINFO, SecInfo::new(flags, page_type).as_bytes());
        self.put(PAGEINFO, operands.as_bytes());
        self.encls(leaf::EADD, PAGEINFO, window(target))?;
        self.enclave.insert(linaddr, target);
        Ok(())
    }

    /// EPA.
    pub(crate) fn version_array(&mut self, target: EpcIndex) -> Result<(), Stop> {
        self.encls(leaf::EPA, 3, window(target)).map(drop)
    }

    /// EREMOVE.
    pub(crate) fn remove(&mut self, target: EpcIndex) -> Result<SgxStatus, Stop> {
        self.encls(leaf::EREMOVE, 0, window(target)).map(|status| status.expect("a status"))
    }

    /// EBLOCK.
    pub(crate) fn block(&mut self, target: EpcIndex) -> Result<SgxStatus, Stop> {
        self.encls(leaf::EBLOCK, 0, window(target)).map(|status| status.expect("a status"))
    }

    /// An enclave of a TCS and its SSA frame, as good as initialized.
    pub(crate) fn threaded(&mut self, secs: EpcIndex, tcs: EpcIndex, ssa: EpcIndex) {
        self.create(secs).expect("ECREATE");
        self.add(secs, tcs, 0, PageType::Tcs).expect("EADD of the TCS");
        self.add(secs, ssa, 1, PageType::Reg).expect("EADD of the SSA frame");
        // EINIT is tested elsewhere.
        let page = self.platform.page(secs);
        let attributes = core::mem::offset_of!(Secs, attributes);
        page.store(attributes, page.load(attributes) | AttributeFlags::INIT.bits());
    }

    /// EENTER by the TCS that is page 0 of the enclave.
    pub(crate) fn enter(&mut self) -> (EnclaveState, ProcessorState) {
        let mut state = EnclaveState::new();
        let mut cpu = ProcessorState {
            rip: 0x40_1000,
            rflags: 0x202,
            xcr0: 3,
            mode64: true,
            osfxsr: true,
            osxsave: true,
            ..ProcessorState::default()
        };
        cpu.gpr[Gpr::Rax] = user::EENTER.into();
        cpu.gpr[Gpr::Rbx] = BASE;
        cpu.gpr[Gpr::Rcx] = 0x40_2000;
        let platform = self.platform.clone();
        enclu::execute(&platform, &mut state, self, &mut cpu, &mut XsaveArea::default())
            .expect("EENTER");
        (state, cpu)
    }

    /// EEXIT.
    pub(crate) fn exit(&mut self, (mut state, mut cpu): (EnclaveState, ProcessorState)) {
        cpu.gpr[Gpr::Rax] = user::EEXIT.into();
        cpu.gpr[Gpr::Rbx] = 0x40_3000;
        let platform = self.platform.clone();
        enclu::execute(&platform, &mut state, self, &mut cpu, &mut XsaveArea::default())
            .expect("EEXIT");
    }
}

impl LeafPort for Kernel {
    fn linear(&mut self, ea: u64, _len: u64) -> Result<La, Stop> {
        Ok(La(ea))
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        let at = (la.0 - OPERANDS) as usize;
        buf.copy_from_slice(&self.operands[at..at + buf.len()]);
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.put(la.0, bytes);
        Ok(())
    }

    fn resolve_epc(&mut self, la: La, _access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        if let Some(&index) = self.enclave.get(&la.page().0) {
            return Ok(Some(index));
        }
        Ok(la.0.checked_sub(WINDOW).map(|offset| EpcIndex((offset / PAGE_SIZE) as u32)))
    }

    fn event_pending(&mut self) -> bool {
        false
    }

    fn capabilities(&self) -> Capabilities {
        *self.platform.capabilities()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        [0; 32]
    }
}
