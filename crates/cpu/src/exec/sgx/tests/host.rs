//! A kernel with EPC, and enclaves in it.

use std::sync::Arc;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs, gprsgx, tcs};
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, PageType, Platform, PlatformConfig,
    PlatformIdentity, enclu,
};
use cloister_x86::Gpr;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use sha2::{Digest as _, Sha256};
use zerocopy::{FromZeros as _, IntoBytes};

use super::signature::sign;
use crate::exec::system::tests::kernel::{Frame, Kernel};
use crate::testing::{Guest, RAM_SIZE, STACK, Start};
use crate::{Exit, Vcpu};

const PD: u64 = 0x3000;
const TABLES: u64 = 0x20_0000;
/// Where the kernel sees the EPC.
pub(super) const WINDOW: u64 = RAM_SIZE;
/// ELRANGE: base and size in bytes.
pub(super) const BASE: u64 = 0x60_0000;
pub(super) const SIZE: u64 = 0x1_0000;
/// Threads of an enclave: each has a TCS, the first pages of it.
pub(super) const THREADS: u64 = 4;
/// A page of the enclave that can be read and executed, where it is entered.
pub(super) const CODE: u64 = BASE + THREADS * 0x1000;
/// A page that can be read and written.
pub(super) const DATA: u64 = CODE + 0x1000;
/// A page that can only be read.
pub(super) const READ_ONLY: u64 = CODE + 0x2000;
/// Two SSA frames for each thread.
pub(super) const SSA: u64 = CODE + 0x3000;
/// A page of ELRANGE that the enclave does not have.
pub(super) const HOLE: u64 = BASE + SIZE - 0x1000;

/// Operands of ENCLS.
pub(super) const PAGEINFO: u64 = 0x21_0000;
pub(super) const SECINFO: u64 = PAGEINFO + 0x40;
pub(super) const SOURCE: u64 = 0x21_1000;
pub(super) const SIGSTRUCT: u64 = 0x21_2000;
pub(super) const TOKEN: u64 = 0x21_3000;
/// The kernel's ENCLS, followed by HLT.
pub(super) const STUB: u64 = 0x21_4000;
/// The user's ENCLU, followed by UD2.
pub(super) const APP: u64 = 0x22_0000;
/// Where enclaves exit to: UD2.
pub(super) const EXITED: u64 = 0x22_0100;
/// ERESUME, for the registers that an AEX leaves, and UD2.
pub(super) const AEP: u64 = 0x22_0200;
/// A page of RAM that nothing else uses.
pub(super) const SHARED: u64 = 0x23_0000;

/// EPC pages.
pub(super) const EPC_PAGES: u32 = 32;
/// EPC page of the SECS; the enclave's pages follow in the order of their addresses.
pub(super) const SECS: u32 = 0;

/// All that the tests' platforms can do by default.
pub(super) fn capabilities() -> Capabilities {
    Capabilities::default()
}

/// A kernel at CPL 0 with EPC, with SGX enabled.
pub(super) struct Host {
    pub(super) kernel: Kernel,
    pub(super) platform: Arc<Platform>,
    /// Permissions of the pages that are neither code nor [`READ_ONLY`].
    pub(super) data: SecInfoFlags,
}

/// What an ENCLS leaf left in RAX, RBX and the flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retired {
    pub(super) rax: u64,
    pub(super) rbx: u64,
    pub(super) rflags: u64,
}

/// The address at which the kernel sees an EPC page.
pub(super) const fn window(page: u32) -> u64 {
    WINDOW + page as u64 * 0x1000
}

/// EPC page of a page of the enclave.
pub(super) const fn epc_page(la: u64) -> u32 {
    SECS + 1 + ((la - BASE) >> 12) as u32
}

/// Address of thread `n`'s TCS.
pub(super) const fn tcs_of(n: u64) -> u64 {
    BASE + n * 0x1000
}

fn write_struct(guest: &mut Guest, address: u64, value: &(impl IntoBytes + zerocopy::Immutable)) {
    guest.write(address, value.as_bytes());
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(capabilities(), 1)
    }

    pub(super) fn with(capabilities: Capabilities, cpus: usize) -> Self {
        let identity = PlatformIdentity::from_seed(&[5; 32]);
        let config = PlatformConfig::single(EPC_PAGES, identity);
        let platform = Platform::new(PlatformConfig { capabilities, ..config });
        let platform = Arc::new(platform.expect("a valid platform"));
        let guest = Guest::on_platform(Start::Kernel64, cpus, Some(platform.clone()));
        let data = SecInfoFlags::R | SecInfoFlags::W;
        let mut host = Self { kernel: Kernel::on(guest), platform, data };
        host.kernel.vcpu().cpu.ctl.sgx_enabled = true;
        let guest = &mut host.kernel.guest;
        for n in 0..2 {
            guest.write_u64(PD + (2 + n) * 8, (TABLES + n * 0x1000) | 7);
        }
        for page in 0..EPC_PAGES {
            host.map(window(page), Some(page), 7);
        }
        let guest = &mut host.kernel.guest;
        guest.assemble_at(STUB, 64, |a| {
            a.encls()?;
            a.hlt()
        });
        for place in [APP, AEP] {
            guest.assemble_at(place, 64, |a| {
                a.enclu()?;
                a.ud2()
            });
        }
        guest.assemble_at(EXITED, 64, |a| a.ud2());
        host
    }

    /// Maps the page at `la` (of the window or ELRANGE) to an EPC page, or to [`SHARED`], with
    /// these flags.
    pub(super) fn map(&mut self, la: u64, page: Option<u32>, flags: u64) {
        let gpa = page.map_or(SHARED, |page| crate::testing::EPC + u64::from(page) * 0x1000);
        self.kernel.guest.write_u64(Self::entry(la), gpa | flags);
        self.kernel.vcpu().cpu.run.tlb.flush_all();
    }

    /// Where the entry of the page tables is that maps `la`, of the window or ELRANGE.
    pub(super) const fn entry(la: u64) -> u64 {
        TABLES + ((la - WINDOW) >> 12) * 8
    }

    /// Executes an ENCLS leaf at CPL 0.
    pub(super) fn encls(&mut self, number: u32, operands: [u64; 3]) -> Result<Retired, Frame> {
        self.kernel.wake();
        self.kernel.set_level(0);
        let cpu = &mut self.kernel.vcpu().cpu;
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rsp]) = (STUB, STACK);
        (
            cpu.arch.gpr[Gpr::Rax],
            cpu.arch.gpr[Gpr::Rbx],
            cpu.arch.gpr[Gpr::Rcx],
            cpu.arch.gpr[Gpr::Rdx],
        ) = (u64::from(number), operands[0], operands[1], operands[2]);
        let exit = self.kernel.vcpu().run();
        assert_eq!(exit, Exit::Hlt);
        let cpu = &self.kernel.vcpu().cpu;
        if cpu.arch.rip == STUB + 4 {
            let retired = Retired {
                rax: cpu.arch.gpr[Gpr::Rax],
                rbx: cpu.arch.gpr[Gpr::Rbx],
                rflags: cpu.rflags(),
            };
            self.kernel.wake();
            return Ok(retired);
        }
        Err(self.kernel.frame())
    }

    /// As [`Host::encls`], of a leaf that must complete without an error.
    pub(super) fn encls_ok(&mut self, number: u32, operands: [u64; 3]) -> Retired {
        let retired = self.encls(number, operands).expect("the leaf completes");
        assert!(retired.rax == 0 || retired.rax == u64::from(number), "{retired:x?}");
        retired
    }

    /// Builds and initializes an enclave that runs `code` on each of its threads.
    pub(super) fn load(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        let attributes = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
        self.load_with(Attributes::new(attributes, 3), code);
    }

    pub(super) fn load_with(
        &mut self,
        attributes: Attributes,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        let mut assembler = CodeAssembler::new(64).expect("64-bit code");
        code(&mut assembler).expect("code");
        let code = assembler.assemble(CODE).expect("assembles");

        let mut secs = Secs::new_zeroed();
        (secs.size, secs.baseaddr) = (SIZE.into(), BASE.into());
        secs.ssaframesize = 1.into();
        secs.attributes = attributes;
        let mut measured = Sha256::new();
        measured.update([&b"ECREATE\0\x01\0\0\0"[..], &SIZE.to_le_bytes(), &[0; 44]].concat());
        let guest = &mut self.kernel.guest;
        write_struct(guest, SOURCE, &secs);
        write_struct(guest, SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
        let pageinfo =
            PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
        write_struct(guest, PAGEINFO, &pageinfo);
        self.encls_ok(leaf::ECREATE, [PAGEINFO, window(SECS), 0]);

        let (r, x) = (SecInfoFlags::R, SecInfoFlags::X);
        for la in (BASE..HOLE).step_by(0x1000) {
            let mut page = vec![0; 4096];
            let secinfo = match la {
                _ if la < CODE => {
                    let ossa = SSA + (la - BASE) * 2 - BASE;
                    page[16..24].copy_from_slice(&ossa.to_le_bytes());
                    page[28] = 2;
                    page[32..40].copy_from_slice(&(CODE - BASE).to_le_bytes());
                    // FSLIMIT and GSLIMIT.
                    page[64..72].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
                    SecInfo::new(SecInfoFlags::empty(), PageType::Tcs)
                }
                CODE => {
                    page[..code.len()].copy_from_slice(&code);
                    SecInfo::new(r | x, PageType::Reg)
                }
                READ_ONLY => {
                    page.fill(0x77);
                    SecInfo::new(r, PageType::Reg)
                }
                _ => SecInfo::new(self.data, PageType::Reg),
            };
            let guest = &mut self.kernel.guest;
            guest.write(SOURCE, &page);
            write_struct(guest, SECINFO, &secinfo);
            let secs = window(SECS).into();
            write_struct(guest, PAGEINFO, &PageInfo { linaddr: la.into(), secs, ..pageinfo });
            self.encls_ok(leaf::EADD, [PAGEINFO, window(epc_page(la)), 0]);
            let offset = (la - BASE).to_le_bytes();
            measured.update([b"EADD\0\0\0\0", &offset, &secinfo.as_bytes()[..48]].concat());
            self.map(la, Some(epc_page(la)), 7);
        }
        let (sigstruct, mrsigner) = sign(measured.finalize().into(), attributes);
        let guest = &mut self.kernel.guest;
        write_struct(guest, SIGSTRUCT, &*sigstruct);
        write_struct(guest, TOKEN, &EinitToken::none());
        self.kernel.vcpu().cpu.ctl.le_pubkey_hash = mrsigner;
        self.encls_ok(leaf::EINIT, [SIGSTRUCT, window(SECS), TOKEN]);
    }

    /// Sets TCS.FLAGS.DBGOPTIN of the first thread, as a debugger does.
    pub(super) fn opt_in(&mut self) {
        let flags = window(epc_page(tcs_of(0))) + tcs::FLAGS as u64;
        self.encls(leaf::EDBGWR, [1, flags, 0]).expect("EDBGWR completes");
    }

    /// Lets the user enter thread 0 next.
    pub(super) fn enter(&mut self) {
        self.kernel.wake();
        self.kernel.set_level(3);
        enter(self.kernel.vcpu(), 0);
    }

    /// Lets the user enter thread 0, and runs until a handler halts.
    pub(super) fn enter_and_run(&mut self) -> Frame {
        self.enter();
        self.kernel.run_to_handler()
    }

    /// Returns from the handler that has halted to the frame that it found at the AEP, with the
    /// registers that the AEX left.
    pub(super) fn return_from(&mut self, frame: &Frame) {
        assert_eq!(frame.rip, AEP);
        self.enter();
        let cpu = &mut self.kernel.vcpu().cpu;
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rsp]) =
            (AEP, u64::from(enclu::leaf::ERESUME), frame.rsp);
        cpu.set_rflags(frame.rflags);
    }

    /// As [`Host::return_from`], and runs until a handler halts.
    pub(super) fn return_and_run(&mut self, frame: &Frame) -> Frame {
        self.return_from(frame);
        self.kernel.run_to_handler()
    }

    /// Another processor in the state of the first, at CPL 0. Exceptions stop it undelivered.
    pub(super) fn processor(&mut self, id: u32) -> Vcpu {
        self.kernel.set_level(0);
        let mut vcpu = self.kernel.guest.processor(id);
        vcpu.catch_exceptions(true);
        let (cpu, first) = (&mut vcpu.cpu, &self.kernel.guest.vcpu.cpu);
        (cpu.arch.cr0, cpu.arch.cr3, cpu.arch.cr4) =
            (first.arch.cr0, first.arch.cr3, first.arch.cr4);
        (cpu.arch.efer, cpu.arch.xcr0, cpu.arch.segs) =
            (first.arch.efer, first.arch.xcr0, first.arch.segs);
        (cpu.arch.gdtr, cpu.arch.idtr, cpu.arch.cpl) =
            (first.arch.gdtr, first.arch.idtr, first.arch.cpl);
        (cpu.ctl.sgx_enabled, cpu.run.attention) = (true, 0);
        cpu.update_mode();
        vcpu
    }

    /// A quadword of an EPC page of the enclave.
    pub(super) fn epc(&self, la: u64) -> u64 {
        self.platform.page(EpcIndex(epc_page(la))).load((la & 0xfff) as usize)
    }

    /// A quadword of the GPRSGX region of thread 0's SSA frame 0.
    pub(super) fn saved(&self, offset: usize) -> u64 {
        self.epc(SSA + (gprsgx::OFFSET + offset) as u64)
    }

    /// Replaces such a quadword, as a debugger does.
    pub(super) fn set_saved(&mut self, offset: usize, value: u64) {
        let at = window(epc_page(SSA)) + (gprsgx::OFFSET + offset) as u64;
        self.encls(leaf::EDBGWR, [value, at, 0]).expect("EDBGWR completes");
    }
}

/// Sets a processor at CPL 3 to enter thread `n`.
pub(super) fn enter(vcpu: &mut Vcpu, n: u64) {
    let cpu = &mut vcpu.cpu;
    cpu.arch.rip = APP;
    cpu.arch.gpr[Gpr::Rax] = u64::from(enclu::leaf::EENTER);
    cpu.arch.gpr[Gpr::Rbx] = tcs_of(n);
    cpu.arch.gpr[Gpr::Rcx] = AEP;
    cpu.arch.gpr[Gpr::Rsp] = STACK;
}

/// Enclave code that exits to [`EXITED`]. RAX and RBX are its own.
pub(super) fn exit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, enclu::leaf::EEXIT)?;
    a.mov(rbx, EXITED)?;
    a.enclu()
}
