//! Enclaves: their pages, and the leaves that build them, look into them and end them.

use crate::leaves::{Attempts, Outcome, encls};
use crate::numbers::Numbers;

pub(crate) const PAGE: u64 = 4096;
/// Pages of ELRANGE; xtask/src/enclave.rs says the same, and which pages there are.
pub(crate) const PAGES: u64 = 32;
/// Pages of the layout: TCS, two SSA frames, code, data, constants, and where keys and REPORTs go.
pub(crate) const TCS: u64 = 0;
pub(crate) const SSA: u64 = 1;
pub(crate) const CODE: u64 = 4;
pub(crate) const DATA: u64 = 8;
pub(crate) const CONSTANTS: u64 = 10;
pub(crate) const SPARE: u64 = 12;
/// Where EAUG puts pages.
pub(crate) const DYNAMIC: u64 = 14;
/// A second thread, its SSA frame, and its code, which looks at the other pages.
pub(crate) const AUDITOR: u64 = 20;
pub(crate) const AUDIT: u64 = 22;
pub(crate) const SECRETS: u64 = 28;
/// The pages that are there from the beginning, with their SECINFO.FLAGS.
pub(crate) const LAYOUT: [(u64, u64); 12] = [
    (TCS, 0x100),
    (SSA, 0x203),
    (SSA + 1, 0x203),
    (CODE, 0x207),
    (DATA, 0x203),
    (DATA + 1, 0x203),
    (CONSTANTS, 0x201),
    (SPARE, 0x203),
    (AUDITOR, 0x100),
    (AUDITOR + 1, 0x203),
    (AUDIT, 0x205),
    (SECRETS, 0x203),
];
/// Where GPRSGX begins in an SSA frame of a page, and RIP in it (SDM Vol. 3D, 35.9).
pub(crate) const GPRSGX: u64 = PAGE - 184;
pub(crate) const GPRSGX_RIP: u64 = GPRSGX + 136;

#[repr(C, align(4096))]
struct Page([u8; PAGE as usize]);

/// Structures that leaves are given the addresses of.
#[repr(C, align(4096))]
pub(crate) struct Operands {
    contents: Page,
    sigstruct: Page,
    /// 128-byte aligned PCMD, then a SECINFO, a PAGEINFO and an EINITTOKEN.
    pcmd: [u64; 16],
    secinfo: [u64; 8],
    info: [u64; 4],
    pad: [u64; 36],
    token: [u64; 64],
}

impl Operands {
    pub(crate) const fn new() -> Self {
        Self {
            contents: Page([0; PAGE as usize]),
            sigstruct: Page([0; PAGE as usize]),
            pcmd: [0; 16],
            secinfo: [0; 8],
            info: [0; 4],
            pad: [0; 36],
            token: [0; 64],
        }
    }

    /// Keeps a SIGSTRUCT.
    pub(crate) fn set_sigstruct(&mut self, sigstruct: &[u8]) {
        let length = sigstruct.len().min(self.sigstruct.0.len());
        self.sigstruct.0[..length].copy_from_slice(&sigstruct[..length]);
    }

    /// The signer's modulus.
    pub(crate) fn modulus(&self) -> &[u8] {
        &self.sigstruct.0[128..512]
    }

    /// PAGEINFO with the page and SECINFO kept here.
    pub(crate) fn page_info(&mut self, linaddr: u64, flags: u64, secs: u64) -> u64 {
        self.secinfo = [flags, 0, 0, 0, 0, 0, 0, 0];
        self.info = [linaddr, address(&self.contents), address(&self.secinfo), secs];
        address(&self.info)
    }

    /// The same with PCMD in the place of SECINFO, for what is written back and loaded.
    fn page_info_of_pcmd(&mut self, linaddr: u64, secs: u64) -> u64 {
        self.info = [linaddr, address(&self.contents), address(&self.pcmd), secs];
        address(&self.info)
    }

    /// The PAGEINFO that was made last, without a source, as EAUG wants it.
    pub(crate) fn without_source(&mut self, info: u64) -> u64 {
        (self.info[1], self.info[2]) = (0, 0);
        info
    }

    /// SECINFO alone.
    pub(crate) fn secinfo(&mut self, flags: u64) -> u64 {
        self.secinfo = [flags, 0, 0, 0, 0, 0, 0, 0];
        address(&self.secinfo)
    }

    /// SECINFO of the page that was written back last.
    pub(crate) fn flags_of_pcmd(&self) -> u64 {
        self.pcmd[0]
    }

    pub(crate) fn contents(&mut self) -> &mut [u8; PAGE as usize] {
        &mut self.contents.0
    }
}

fn address<T>(operand: &T) -> u64 {
    core::ptr::from_ref(operand) as u64
}

/// Where an enclave is: its pages are mapped to themselves.
#[derive(Clone, Copy)]
pub(crate) struct Enclave {
    /// Of ELRANGE, and of the page of its SECS and of a version array.
    pub(crate) base: u64,
    pub(crate) secs: u64,
    pub(crate) versions: u64,
}

impl Enclave {
    /// The place number `index` of an EPC section.
    pub(crate) const fn place(section: u64, index: u64) -> Self {
        let size = PAGES * PAGE;
        let base = section.div_ceil(size) * size + 2 * index * size;
        Self { base, secs: base + size, versions: base + size + PAGE }
    }

    /// The address of one of its pages.
    pub(crate) const fn page(self, index: u64) -> u64 {
        self.base + index * PAGE
    }

    /// ECREATE.
    pub(crate) fn create(
        self,
        attempts: &mut Attempts,
        operands: &mut Operands,
        attributes: u64,
        xfrm: u64,
    ) -> Outcome {
        let secs = operands.contents();
        secs.fill(0);
        for (at, value) in [
            (0, PAGES * PAGE),
            (8, self.base),
            // SSAFRAMESIZE, and MISCSELECT.EXINFO.
            (16, 1 | 1 << 32),
            (48, attributes),
            (56, xfrm),
        ] {
            secs[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        let info = operands.page_info(0, 0, 0);
        attempts.encls(encls::ECREATE, info, self.secs, 0)
    }

    /// EADD of a page with the contents in `operands`.
    pub(crate) fn add(
        self,
        attempts: &mut Attempts,
        operands: &mut Operands,
        index: u64,
        flags: u64,
    ) -> Outcome {
        let info = operands.page_info(self.page(index), flags, self.secs);
        attempts.encls(encls::EADD, info, self.page(index), 0)
    }

    /// EINIT by the SIGSTRUCT in `operands`.
    pub(crate) fn init(self, attempts: &mut Attempts, operands: &mut Operands) -> Outcome {
        let (sigstruct, token) = (address(&operands.sigstruct), address(&operands.token));
        attempts.encls(encls::EINIT, sigstruct, self.secs, token)
    }

    /// A quadword of its memory, by EDBGRD.
    pub(crate) fn peek(self, attempts: &mut Attempts, page: u64, at: u64) -> Outcome {
        attempts.encls(encls::EDBGRD, 0, self.page(page) + at, 0)
    }

    /// EBLOCK, ETRACK and EWB of a page into `operands`; each outcome.
    pub(crate) fn write_back(
        self,
        attempts: &mut Attempts,
        operands: &mut Operands,
        page: u64,
    ) -> [Outcome; 3] {
        let page = self.page(page);
        let blocked = attempts.encls(encls::EBLOCK, 0, page, 0);
        let tracked = attempts.encls(encls::ETRACK, 0, self.secs, 0);
        operands.pcmd = [0; 16];
        let info = operands.page_info_of_pcmd(0, 0);
        [blocked, tracked, attempts.encls(encls::EWB, info, page, self.versions)]
    }

    /// ELDU of the page that was written back last.
    pub(crate) fn load_back(
        self,
        attempts: &mut Attempts,
        operands: &mut Operands,
        page: u64,
    ) -> Outcome {
        let info = operands.page_info_of_pcmd(self.page(page), self.secs);
        attempts.encls(encls::ELDU, info, self.page(page), self.versions)
    }

    /// Makes all of its pages unused, whatever they are.
    pub(crate) fn remove(self, attempts: &mut Attempts) -> Outcome {
        for page in 0..PAGES {
            attempts.encls(encls::EREMOVE, 0, self.page(page), 0);
        }
        attempts.encls(encls::EREMOVE, 0, self.versions, 0);
        attempts.encls(encls::EREMOVE, 0, self.secs, 0)
    }
}

/// Random contents of a page of the layout.
pub(crate) fn contents(page: u64, numbers: &mut Numbers, bytes: &mut [u8; PAGE as usize]) {
    bytes.fill(0);
    match page {
        TCS => tcs(bytes, SSA, 2, CODE),
        AUDITOR => tcs(bytes, AUDITOR + 1, 1, AUDIT),
        AUDIT => bytes[..AUDIT_CODE.len()].copy_from_slice(&AUDIT_CODE),
        CODE => crate::code::fill(bytes, numbers),
        DATA..=SPARE => numbers.fill(bytes),
        _ => {}
    }
}

/// A TCS: SSA frames from a page on, how many, and the page of the entry.
fn tcs(bytes: &mut [u8; PAGE as usize], ssa: u64, frames: u64, entry: u64) {
    for (at, value) in
        [(16, ssa * PAGE), (24, frames << 32), (32, entry * PAGE), (64, 0xfff_0000_0fff)]
    {
        bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
}

/// Where it comes out.
pub(crate) const AUDIT_END: u64 = 23;
/// Goes through the quadwords from RSI to R8, makes RDX of them and R9, and comes out at R10.
const AUDIT_CODE: [u8; 34] = [
    0x48, 0x8b, 0x06, // mov rax, [rsi]
    0x48, 0x31, 0xc2, // xor rdx, rax
    0x49, 0x0f, 0xaf, 0xd1, // imul rdx, r9
    0x48, 0xc1, 0xc2, 0x17, // rol rdx, 23
    0x48, 0x83, 0xc6, 0x08, // add rsi, 8
    0x4c, 0x39, 0xc6, // cmp rsi, r8
    0x75, 0xe9, // jne to the beginning
    0x4c, 0x89, 0xd3, // mov rbx, r10
    0xb8, 0x04, 0x00, 0x00, 0x00, // mov eax, EEXIT
    0x0f, 0x01, 0xd7, // enclu
];
