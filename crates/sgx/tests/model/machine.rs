//! A logical processor for tests: page tables and memory in maps, registers in structures.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use cloister_sgx::encls::{self, leaf};
use cloister_sgx::{
    Capabilities, DEFAULT_LE_HASH, EnclaveState, EnclsRegs, EncluOutcome, EpcAccess, EpcIndex,
    ExitingEvent, LeafOutcome, LeafPort, Platform, PlatformConfig, PlatformIdentity,
    ProcessorState, SgxStatus, Stop, SyntheticState, XsaveArea, enclu, enclv,
};
use cloister_x86::addr::is_canonical;
use cloister_x86::{Exception, Gpa, Gpr, La, PageFaultCode, Rights, Segment};
use zerocopy::{Immutable, IntoBytes};

use crate::meanwhile::Turn;

/// Where the test's "kernel" maps the whole EPC, page by page.
pub(crate) const EPC_WINDOW: u64 = 0xffff_8000_0000_0000;
/// Where it keeps operands: PAGEINFO, SECINFO, source page, SIGSTRUCT, token.
pub(crate) const OPERANDS: u64 = 0x10_0000;

/// What a page of linear addresses leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    /// Ordinary memory.
    Ram { writable: bool },
    /// A page of the EPC.
    Epc { index: EpcIndex, writable: bool },
    /// A page of a virtual EPC without backing.
    Unbacked { gpa: Gpa },
}

/// Memory and event lines.
pub(crate) struct Memory {
    pub(crate) mappings: HashMap<u64, Mapping>,
    pub(crate) ram: HashMap<u64, Box<[u8; 4096]>>,
    pub(crate) event: bool,
    /// Whether the processor is a guest's with EPC virtualization extensions.
    pub(crate) epc_virtualization: bool,
    /// What its CPUID announces: all that the platform can do.
    pub(crate) capabilities: Capabilities,
    pub(crate) le_hash: [u8; 32],
    pub(crate) user: bool,
    pub(crate) mode64: bool,
    /// The bytes of EPC pages that ordinary accesses saw; they see ones.
    pub(crate) aborted_reads: usize,
    /// Limit of DS outside 64-bit mode; its base is 0.
    pub(crate) ds_limit: u32,
    /// Another logical processor's turn in the middle of this one's leaf.
    pub(crate) turn: Option<Turn>,
}

impl Memory {
    /// A leaf is about to access `la`.
    fn reach(&mut self, la: La) {
        if let Some(turn) = self.turn.take_if(|turn| turn.page == la.page().0) {
            turn.pass();
        }
    }

    fn fault(&self, la: u64, present: bool, write: bool) -> Stop {
        let mut code = PageFaultCode::empty();
        code.set(PageFaultCode::PRESENT, present);
        code.set(PageFaultCode::WRITE, write);
        code.set(PageFaultCode::USER, self.user);
        Stop::Fault(Exception::pf(la, code))
    }

    /// Puts bytes into ordinary memory, mapping it.
    pub(crate) fn put(&mut self, la: u64, bytes: &[u8]) {
        for (at, range) in chunks(la, bytes.len()) {
            self.mappings.entry(at & !0xfff).or_insert(Mapping::Ram { writable: true });
            let page = self.ram.entry(at & !0xfff).or_insert_with(|| Box::new([0; 4096]));
            let start = (at & 0xfff) as usize;
            page[start..start + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// Bytes of ordinary memory.
    pub(crate) fn get(&self, la: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (at, range) in chunks(la, len) {
            if let Some(page) = self.ram.get(&(at & !0xfff)) {
                let start = (at & 0xfff) as usize;
                bytes[range.clone()].copy_from_slice(&page[start..start + range.len()]);
            }
        }
        bytes
    }
}

/// The parts of `len` bytes at `la` that lie in one page each: their addresses and their places
/// among the bytes.
fn chunks(la: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = la.wrapping_add(done as u64);
        let size = (4096 - (at & 0xfff) as usize).min(len - done);
        let range = done..done + size;
        done += size;
        (size != 0).then_some((at, range))
    })
}

impl LeafPort for Memory {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop> {
        if !self.mode64 {
            let offset = ea & 0xffff_ffff;
            let within = offset + (len - 1) <= u64::from(self.ds_limit);
            return if within { Ok(La(offset)) } else { Err(Stop::Fault(Exception::gp(0))) };
        }
        if is_canonical(ea) { Ok(La(ea)) } else { Err(Stop::Fault(Exception::gp(0))) }
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        self.reach(la);
        for (at, range) in chunks(la.0, buf.len()) {
            let start = (at & 0xfff) as usize;
            let end = start + range.len();
            match self.mappings.get(&(at & !0xfff)) {
                None => return Err(self.fault(at, false, false)),
                Some(Mapping::Ram { .. }) => match self.ram.get(&(at & !0xfff)) {
                    Some(page) => buf[range].copy_from_slice(&page[start..end]),
                    None => buf[range].fill(0),
                },
                Some(_) => {
                    self.aborted_reads += range.len();
                    buf[range].fill(0xff);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.reach(la);
        for (at, _) in chunks(la.0, bytes.len()) {
            match self.mappings.get(&(at & !0xfff)) {
                None => return Err(self.fault(at, false, true)),
                Some(Mapping::Ram { writable: false }) => return Err(self.fault(at, true, true)),
                Some(_) => {}
            }
        }
        for (at, range) in chunks(la.0, bytes.len()) {
            if let Some(Mapping::Ram { .. }) = self.mappings.get(&(at & !0xfff)) {
                let page = self.ram.entry(at & !0xfff).or_insert_with(|| Box::new([0; 4096]));
                let start = (at & 0xfff) as usize;
                page[start..start + range.len()].copy_from_slice(&bytes[range]);
            }
        }
        Ok(())
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        self.reach(la);
        let write = access == EpcAccess::Write;
        match self.mappings.get(&la.page().0) {
            None => Err(self.fault(la.0, false, write)),
            Some(Mapping::Ram { .. }) => Ok(None),
            Some(Mapping::Epc { writable: false, .. }) if write => {
                Err(self.fault(la.0, true, true))
            }
            Some(&Mapping::Epc { index, .. }) => Ok(Some(index)),
            Some(&Mapping::Unbacked { gpa }) => Err(Stop::EpcMiss { gpa }),
        }
    }

    fn event_pending(&mut self) -> bool {
        self.event
    }

    fn epc_virtualization(&self) -> bool {
        self.epc_virtualization
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.le_hash
    }
}

/// A logical processor.
pub(crate) struct Machine {
    pub(crate) platform: Arc<Platform>,
    pub(crate) memory: Memory,
    pub(crate) state: EnclaveState,
    pub(crate) cpu: ProcessorState,
    pub(crate) xsave: XsaveArea,
}

/// What an ENCLS leaf returned in RAX, RBX and RFLAGS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Returned {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rflags: u64,
}

impl Machine {
    /// A machine with a platform of `pages` EPC pages, all mapped at [`EPC_WINDOW`].
    pub(crate) fn new(pages: u32) -> Self {
        Self::with(PlatformConfig::single(pages, PlatformIdentity::from_seed(&[7; 32])))
    }

    pub(crate) fn with(config: PlatformConfig) -> Self {
        Self::on(Arc::new(Platform::new(config).expect("a valid platform")))
    }

    /// One more processor on a platform.
    pub(crate) fn on(platform: Arc<Platform>) -> Self {
        let mappings = (0..platform.pages() as u32)
            .map(|page| {
                let mapping = Mapping::Epc { index: EpcIndex(page), writable: true };
                (EPC_WINDOW + u64::from(page) * 4096, mapping)
            })
            .collect();
        let flat = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: Rights(0xc0f3) };
        let capabilities = *platform.capabilities();
        Self {
            platform,
            memory: Memory {
                mappings,
                ram: HashMap::new(),
                event: false,
                epc_virtualization: false,
                capabilities,
                le_hash: DEFAULT_LE_HASH,
                user: false,
                mode64: true,
                aborted_reads: 0,
                ds_limit: u32::MAX,
                turn: None,
            },
            state: EnclaveState::new(),
            cpu: ProcessorState {
                rip: 0x40_1000,
                rflags: 0x202,
                cs: Segment { selector: 0x33, base: 0, limit: u32::MAX, rights: Rights(0xa0fb) },
                ss: flat,
                ds: flat,
                es: flat,
                fs: Segment { base: 0x7f00_0000_1000, ..flat },
                gs: Segment { base: 0x7f00_0000_2000, ..flat },
                xcr0: 7,
                mode64: true,
                osfxsr: true,
                osxsave: true,
                ..ProcessorState::default()
            },
            xsave: XsaveArea::default(),
        }
    }

    /// The linear address at which the kernel sees EPC page `page`.
    pub(crate) fn window(page: u32) -> u64 {
        EPC_WINDOW + u64::from(page) * 4096
    }

    /// Executes an ENCLS leaf at CPL 0.
    pub(crate) fn encls(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<LeafOutcome, Stop> {
        self.memory.user = false;
        let regs = EnclsRegs { eax: number, rbx, rcx, rdx, mode64: self.memory.mode64 };
        encls::execute(&self.platform, &mut self.memory, &regs)
    }

    /// Executes an ENCLV leaf at CPL 0.
    pub(crate) fn enclv(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<LeafOutcome, Stop> {
        self.memory.user = false;
        let regs = EnclsRegs { eax: number, rbx, rcx, rdx, mode64: self.memory.mode64 };
        enclv::execute(&self.platform, &mut self.memory, &regs)
    }

    /// Executes an ENCLS leaf and applies what it returns to registers full of ones.
    pub(crate) fn encls_registers(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<Returned, Stop> {
        let outcome = self.encls(number, rbx, rcx, rdx)?;
        let mut returned = Returned { rax: u64::from(number), rbx, rflags: 0x8d7 };
        outcome.apply(&mut returned.rax, &mut returned.rbx, &mut returned.rflags);
        Ok(returned)
    }

    /// Executes an ENCLS leaf that reports a status.
    pub(crate) fn status(&mut self, number: u32, rbx: u64, rcx: u64, rdx: u64) -> SgxStatus {
        self.encls(number, rbx, rcx, rdx)
            .expect("the leaf completes")
            .status
            .expect("the leaf reports")
    }

    /// Executes ENCLU leaf `number` at CPL 3 with these operands.
    pub(crate) fn enclu(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<EncluOutcome, Stop> {
        self.memory.user = true;
        self.memory.mode64 = self.cpu.mode64;
        self.memory.ds_limit = self.cpu.ds.limit;
        let mut cpu = self.cpu;
        cpu.gpr[Gpr::Rax] = u64::from(number);
        cpu.gpr[Gpr::Rbx] = rbx;
        cpu.gpr[Gpr::Rcx] = rcx;
        cpu.gpr[Gpr::Rdx] = rdx;
        let outcome = enclu::execute(
            &self.platform,
            &mut self.state,
            &mut self.memory,
            &mut cpu,
            &mut self.xsave,
        )?;
        self.cpu = cpu;
        Ok(outcome)
    }

    /// Leaves the enclave because of `event`.
    pub(crate) fn aex(&mut self, event: ExitingEvent) -> Option<SyntheticState> {
        cloister_sgx::aex(&self.platform, &mut self.state, &mut self.cpu, event, &mut self.xsave)
    }

    /// Writes a structure into operand memory.
    pub(crate) fn operand<T: IntoBytes + Immutable>(&mut self, la: u64, value: &T) {
        self.memory.put(la, value.as_bytes());
    }

    /// Removes an EPC page.
    pub(crate) fn eremove(&mut self, page: u32) -> SgxStatus {
        self.status(leaf::EREMOVE, 0, Self::window(page), 0)
    }
}

/// #GP(0).
pub(crate) const GP: Stop = Stop::Fault(Exception::gp(0));

/// The page fault that SGX raises for a supervisor's write operand.
pub(crate) fn epcm_fault(la: u64, extra: PageFaultCode) -> Stop {
    Stop::Fault(Exception::pf(la, PageFaultCode::PRESENT | PageFaultCode::SGX | extra))
}
