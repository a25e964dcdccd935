//! A guest: RAM and virtual EPC behind simple page tables, and one processor stopped at an ENCLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cloister_sgx::{
    Capabilities, EnclsRegs, EpcAccess, EpcIndex, LeafOutcome, LeafPort, SgxStatus, Stop,
    encls as native,
};
use cloister_virt::encls::Action;
use cloister_virt::{Backing, SgxVcpu, SgxVm, WrmsrOutcome};
use cloister_x86::addr::is_canonical;
use cloister_x86::msr::SGXLEPUBKEYHASH0;
use cloister_x86::{Exception, Gpa, La, PAGE_SIZE, PageFaultCode};
use zerocopy::{Immutable, IntoBytes};

use crate::signer::Signer;

/// Where the guest's kernel sees RAM, whose first address is 0.
const RAM: u64 = 0xffff_8880_0000_0000;
/// Where it sees the EPC sections, one after the other.
const EPC: u64 = 0xffff_9000_0000_0000;
const RAM_PAGES: u64 = 8;

/// Places of operands, each structure but SECINFO in a page of its own.
pub(crate) const PAGEINFO: u64 = RAM + 0x1000;
pub(crate) const SECINFO: u64 = RAM + 0x5000;
pub(crate) const SOURCE: u64 = RAM + 0x2000;
pub(crate) const SIGSTRUCT: u64 = RAM + 0x3000;
pub(crate) const TOKEN: u64 = RAM + 0x4000;
/// A page of RAM that holds no operand.
pub(crate) const SPARE: u64 = RAM + 0x6000;
/// A canonical address that nothing is mapped at.
pub(crate) const NOWHERE: u64 = 0x5000_0000;

/// The address at which the kernel sees page `page` of the EPC.
pub(crate) const fn epc(page: u64) -> u64 {
    EPC + page * PAGE_SIZE
}

/// Guest RAM, which any thread may write at any time.
pub(crate) struct Ram(Vec<AtomicU8>);

impl Ram {
    /// Writes at the address where the kernel sees this RAM.
    pub(crate) fn write(&self, gva: u64, bytes: &[u8]) {
        for (cell, byte) in self.0[(gva - RAM) as usize..].iter().zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
    }

    /// Reads within a page. What is not RAM is EPC, and reads as ones.
    fn read(&self, gpa: Gpa, out: &mut [u8]) {
        let cells = self.0.get(gpa.0 as usize..).unwrap_or_default();
        for (n, byte) in out.iter_mut().enumerate() {
            *byte = cells.get(n).map_or(0xff, |cell| cell.load(Ordering::Relaxed));
        }
    }
}

/// A page table entry.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    pub(crate) gpa: Gpa,
    pub(crate) writable: bool,
}

type AfterRead = Box<dyn FnMut(&Ram, u64)>;

pub(crate) struct Guest {
    pub(crate) vm: Arc<SgxVm>,
    pub(crate) vcpu: SgxVcpu,
    pub(crate) ram: Arc<Ram>,
    /// By the address of the page.
    pub(crate) page_table: BTreeMap<u64, Mapping>,
    /// CR0.PG.
    pub(crate) paging: bool,
    /// Whether an event is pending.
    pub(crate) event: bool,
    /// Whether the host cannot tell now what memory holds.
    pub(crate) retry: bool,
    /// Reads of guest memory: address and length.
    pub(crate) reads: Vec<(u64, usize)>,
    /// What another processor does right after a read.
    pub(crate) after_read: Option<AfterRead>,
}

impl Guest {
    pub(crate) fn new(vm: Arc<SgxVm>) -> Self {
        let ram = (0..RAM_PAGES).map(|page| (RAM + page * PAGE_SIZE, Gpa(page * PAGE_SIZE)));
        let epc_pages = vm.sections().iter().flat_map(|section| {
            let base = section.base();
            (0..section.pages() as u64).map(move |page| base.wrapping_add(page * PAGE_SIZE))
        });
        let epc_pages = epc_pages.enumerate().map(|(page, gpa)| (epc(page as u64), gpa));
        let page_table =
            ram.chain(epc_pages).map(|(gva, gpa)| (gva, Mapping { gpa, writable: true })).collect();
        let bytes = (0..RAM_PAGES * PAGE_SIZE).map(|_| AtomicU8::new(0)).collect();
        Self {
            vcpu: vm.new_vcpu(),
            vm,
            ram: Arc::new(Ram(bytes)),
            page_table,
            paging: true,
            event: false,
            retry: false,
            reads: Vec::new(),
            after_read: None,
        }
    }

    /// Another processor of the same guest.
    pub(crate) fn sibling(&self) -> Self {
        Self {
            ram: self.ram.clone(),
            page_table: self.page_table.clone(),
            ..Self::new(self.vm.clone())
        }
    }

    /// Unmaps a page.
    pub(crate) fn unmap(&mut self, gva: u64) {
        self.page_table.remove(&gva).expect("mapped");
    }

    /// Takes write permission from a page.
    pub(crate) fn protect(&mut self, gva: u64) {
        self.page_table.get_mut(&gva).expect("mapped").writable = false;
    }

    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, gva: u64, value: &T) {
        self.ram.write(gva, value.as_bytes());
    }

    /// Writes IA32_SGXLEPUBKEYHASH0-3.
    pub(crate) fn trust(&mut self, author: &Signer) {
        for (n, value) in (0..).zip(author.hash_msrs()) {
            let outcome = self.vcpu.wrmsr(SGXLEPUBKEYHASH0 + n, value);
            assert_eq!(outcome, WrmsrOutcome::Handled);
        }
    }

    /// The host's page behind page `page` of the guest's EPC.
    pub(crate) fn backing(&self, page: u64) -> Option<EpcIndex> {
        match self.vm.backing(self.page_table[&epc(page)].gpa).expect("EPC") {
            Backing::Page(index) => Some(index),
            Backing::None => None,
        }
    }

    /// Stops at an ENCLS leaf that exits.
    pub(crate) fn exit(&mut self, leaf: u32, rbx: u64, rcx: u64, rdx: u64) -> Action {
        let regs = EnclsRegs { eax: leaf, rbx, rcx, rdx, mode64: true };
        self.vcpu.clone().handle_encls(self, &regs)
    }

    /// Executes an ENCLS leaf, which exits or not as the ENCLS-exiting bitmap says.
    pub(crate) fn encls(&mut self, leaf: u32, rbx: u64, rcx: u64, rdx: u64) -> Action {
        if self.vcpu.encls_exiting() & 1 << leaf.min(63) != 0 {
            return self.exit(leaf, rbx, rcx, rdx);
        }
        let regs = EnclsRegs { eax: leaf, rbx, rcx, rdx, mode64: true };
        let vm = self.vm.clone();
        loop {
            match native::execute(vm.platform(), self, &regs) {
                Ok(outcome) => return Action::Retire(outcome),
                Err(Stop::Fault(exception)) => return Action::Inject(exception),
                Err(Stop::Retry | Stop::Conflict(_)) => return Action::Retry,
                Err(Stop::EpcMiss { gpa }) => match vm.populate(gpa).expect("EPC") {
                    Ok(_) => {}
                    Err(reason) => return Action::Exhausted(gpa, reason),
                },
            }
        }
    }

    fn walk(&self, gva: u64, write: bool) -> Result<Gpa, Exception> {
        let mut code = PageFaultCode::empty();
        code.set(PageFaultCode::WRITE, write);
        let mapping = self.page_table.get(&(gva & !(PAGE_SIZE - 1)));
        let Some(mapping) = mapping else { return Err(Exception::pf(gva, code)) };
        if write && !mapping.writable {
            return Err(Exception::pf(gva, code | PageFaultCode::PRESENT));
        }
        Ok(Gpa(mapping.gpa.0 | (gva % PAGE_SIZE)))
    }
}

impl LeafPort for Guest {
    fn linear(&mut self, ea: u64, _len: u64) -> Result<La, Stop> {
        if self.paging && is_canonical(ea) {
            Ok(La(ea))
        } else {
            Err(Stop::Fault(Exception::gp(0)))
        }
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        if self.retry {
            return Err(Stop::Retry);
        }
        self.reads.push((la.0, buf.len()));
        // Aligned structures of at most a page.
        let gpa = self.walk(la.0, false)?;
        self.ram.read(gpa, buf);
        if let Some(after_read) = &mut self.after_read {
            after_read(&self.ram, la.0);
        }
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.walk(la.0, true)?;
        self.ram.write(la.0, bytes);
        Ok(())
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        let gpa = self.walk(la.0, access == EpcAccess::Write)?;
        match self.vm.backing(gpa) {
            Some(Backing::Page(index)) => Ok(Some(index)),
            Some(Backing::None) => Err(Stop::EpcMiss { gpa: gpa.page() }),
            None => Ok(None),
        }
    }

    fn event_pending(&mut self) -> bool {
        self.event
    }

    // As a processor without virtualization has them: policy has to put the guest's in their place.

    fn capabilities(&self) -> Capabilities {
        *self.vm.platform().capabilities()
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        *self.vm.platform().default_le_hash()
    }
}

/// A leaf that completed and returns nothing.
pub(crate) const DONE: Action =
    Action::Retire(LeafOutcome { status: None, rbx: None, information: false });

/// #GP(0).
pub(crate) const GP: Action = Action::Inject(Exception::gp(0));

/// A leaf that completed and reports `status`.
pub(crate) const fn reported(status: SgxStatus) -> Action {
    Action::Retire(LeafOutcome { status: Some(status), rbx: None, information: false })
}

/// The page fault of the guest's own page tables at an operand that is read.
pub(crate) const fn not_mapped(gva: u64) -> Action {
    Action::Inject(Exception::pf(gva, PageFaultCode::empty()))
}

/// The page fault that SGX raises at an EPC operand.
pub(crate) const fn sgx_fault(gva: u64) -> Action {
    let code = PageFaultCode::PRESENT.union(PageFaultCode::WRITE).union(PageFaultCode::SGX);
    Action::Inject(Exception::pf(gva, code))
}
