//! A logical processor whose memory is one piece, so that what is measured is the leaves.
#![expect(unsafe_code, reason = "reads the time-stamp counter")]

use std::sync::Arc;

use cloister_sgx::{
    Capabilities, DEFAULT_LE_HASH, EnclaveState, EnclsRegs, EpcAccess, EpcIndex, ExitingEvent,
    LeafPort, Platform, ProcessorState, SgxStatus, Stop, XsaveArea, encls, enclu,
};
use cloister_x86::addr::is_canonical;
use cloister_x86::{Exception, Gpr, La, PageFaultCode, Rights, Segment};
use zerocopy::{Immutable, IntoBytes};

/// Where the kernel sees the EPC.
pub(crate) const EPC_WINDOW: u64 = 0xffff_8000_0000_0000;
/// RBX of EPA: PT_VA.
pub(crate) const PT_VA: u64 = 3;
/// Bytes of ordinary memory, from address 0.
const RAM: usize = 4 << 20;

/// Memory as the leaves see it.
struct Flat {
    ram: Vec<u8>,
    /// EPC pages by page offset in the enclave; 0 for none.
    enclave: Vec<u32>,
    base: u64,
    pages: u64,
    capabilities: Capabilities,
    le_hash: [u8; 32],
}

fn fault(la: u64) -> Stop {
    Stop::Fault(Exception::pf(la, PageFaultCode::empty()))
}

impl LeafPort for Flat {
    fn linear(&mut self, ea: u64, _len: u64) -> Result<La, Stop> {
        if is_canonical(ea) { Ok(La(ea)) } else { Err(Stop::Fault(Exception::gp(0))) }
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        let at = usize::try_from(la.0).map_err(|_| fault(la.0))?;
        buf.copy_from_slice(self.ram.get(at..at + buf.len()).ok_or(fault(la.0))?);
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        let at = usize::try_from(la.0).map_err(|_| fault(la.0))?;
        self.ram.get_mut(at..at + bytes.len()).ok_or(fault(la.0))?.copy_from_slice(bytes);
        Ok(())
    }

    fn resolve_epc(&mut self, la: La, _access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        let page = la.0.wrapping_sub(EPC_WINDOW) >> 12;
        if page < self.pages {
            return Ok(Some(EpcIndex(page as u32)));
        }
        match self.enclave.get((la.0.wrapping_sub(self.base) >> 12) as usize) {
            Some(&index) if index != 0 => Ok(Some(EpcIndex(index))),
            _ => Err(fault(la.0)),
        }
    }

    fn event_pending(&mut self) -> bool {
        false
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.le_hash
    }
}

/// A processor with one enclave.
pub(crate) struct Processor {
    platform: Arc<Platform>,
    memory: Flat,
    state: EnclaveState,
    cpu: ProcessorState,
    xsave: XsaveArea,
}

impl Processor {
    pub(crate) fn new(platform: Arc<Platform>, base: u64) -> Self {
        let flat = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: Rights(0xc0f3) };
        let pages = platform.pages() as u64;
        let capabilities = *platform.capabilities();
        Self {
            platform,
            memory: Flat {
                ram: vec![0; RAM],
                enclave: Vec::new(),
                base,
                pages,
                capabilities,
                le_hash: DEFAULT_LE_HASH,
            },
            state: EnclaveState::new(),
            cpu: ProcessorState {
                rip: 0x40_1000,
                rflags: 0x202,
                cs: Segment { selector: 0x33, rights: Rights(0xa0fb), ..flat },
                ss: flat,
                ds: flat,
                es: flat,
                fs: flat,
                gs: flat,
                xcr0: 3,
                mode64: true,
                osfxsr: true,
                osxsave: true,
                ..ProcessorState::default()
            },
            xsave: XsaveArea::default(),
        }
    }

    /// Writes an operand.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, la: u64, value: &T) {
        let bytes = value.as_bytes();
        self.memory.ram[la as usize..la as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// Clears operand memory.
    pub(crate) fn put_empty(&mut self, la: u64, len: usize) {
        self.memory.ram[la as usize..la as usize + len].fill(0);
    }

    /// Maps an EPC page at an offset in the enclave.
    pub(crate) fn map(&mut self, offset: u64, page: u32) {
        let slot = (offset >> 12) as usize;
        if self.memory.enclave.len() <= slot {
            self.memory.enclave.resize(slot + 1, 0);
        }
        self.memory.enclave[slot] = page;
    }

    /// IA32_SGXLEPUBKEYHASH0-3.
    pub(crate) fn trust(&mut self, hash: [u8; 32]) {
        self.memory.le_hash = hash;
    }

    /// Writes into an EPC page as the enclave would.
    pub(crate) fn write_epc<T: IntoBytes + Immutable>(&mut self, page: EpcIndex, value: &T) {
        self.platform.page(page).write(0, value.as_bytes());
    }

    /// Executes an ENCLS leaf that completes.
    pub(crate) fn encls(&mut self, number: u32, rbx: u64, rcx: u64, rdx: u64) -> Option<SgxStatus> {
        let regs = EnclsRegs { eax: number, rbx, rcx, rdx, mode64: true };
        encls::execute(&self.platform, &mut self.memory, &regs).expect("the leaf completes").status
    }

    /// Executes an ENCLU leaf that completes.
    pub(crate) fn enclu(&mut self, number: u32, rbx: u64, rcx: u64, rdx: u64) {
        self.cpu.gpr[Gpr::Rax] = number.into();
        self.cpu.gpr[Gpr::Rbx] = rbx;
        self.cpu.gpr[Gpr::Rcx] = rcx;
        self.cpu.gpr[Gpr::Rdx] = rdx;
        enclu::execute(
            &self.platform,
            &mut self.state,
            &mut self.memory,
            &mut self.cpu,
            &mut self.xsave,
        )
        .expect("the leaf completes");
    }

    /// Leaves the enclave asynchronously.
    pub(crate) fn aex(&mut self, event: ExitingEvent) {
        cloister_sgx::aex(&self.platform, &mut self.state, &mut self.cpu, event, &mut self.xsave)
            .expect("inside an enclave");
    }

    /// An XSAVE image in its initial configuration that can be loaded again.
    pub(crate) fn initialize_xsave(&mut self) {
        let image = self.xsave.image_mut(3);
        image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    }

    pub(crate) fn rax(&self) -> u64 {
        self.cpu.gpr[Gpr::Rax]
    }

    /// Host memory that is not the platform's.
    pub(crate) fn own_bytes(&self) -> u64 {
        (self.memory.enclave.capacity() * size_of::<u32>() + RAM) as u64
    }
}

/// The time-stamp counter; 0 on hosts without one.
pub(crate) fn time_stamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is always there in 64-bit mode and reads nothing but a counter.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Resident memory of this process in bytes (Linux `/proc/self/statm`).
pub(crate) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}
