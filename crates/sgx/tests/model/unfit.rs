//! The ways in which a page of the enclave can be unfit to be an operand.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::SecInfoFlags;
use cloister_sgx::{AttributeFlags, EpcIndex, PageType, Stop};
use cloister_x86::{Exception, PageFaultCode};

use crate::enclave::Page;
use crate::machine::{GP, Machine, Mapping, epcm_fault};
use crate::order::{Condition, Outcome};
use crate::scenario::{
    BASE, END, FOUR, Scenario, TCS_2, THREE, UNUSED, eaug, epc, map, modify, spec,
};

/// EPC pages that, together with the number of the page that is made unfit, become a pending page
/// in its place, and the SECS and page of another enclave.
const PENDING: u32 = 40;
const STRANGER_SECS: u32 = 80;
const STRANGER: u32 = 120;

/// Why a page cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// The page tables do not map it.
    Unmapped,
    /// The page tables map it read-only.
    ReadOnly,
    /// It is not in the EPC.
    NotEpc,
    /// Its EPCM entry is not VALID.
    NotValid,
    /// It is BLOCKED.
    Blocked,
    /// It belongs to another enclave.
    OtherEnclave,
    /// It is PENDING.
    Pending,
    /// It is MODIFIED, and so PT_TRIM.
    Modified,
    /// It was added at another address.
    OtherAddress,
    /// The EPCM does not allow to read it.
    NoRead,
    /// The EPCM does not allow to write it.
    NoWrite,
}

impl Unfit {
    /// Makes the page at `la`, which is EPC page `page`, unfit, even if the enclave was made
    /// uninitialized before.
    pub(crate) fn make(self, machine: &mut Machine, la: u64, page: u32) {
        let platform = machine.platform.clone();
        let secs = platform.page(EpcIndex(0));
        let flags = secs.load(48);
        secs.store(48, flags | AttributeFlags::INIT.bits());
        self.make_in_initialized(machine, la, page);
        secs.store(48, flags);
    }

    fn make_in_initialized(self, machine: &mut Machine, la: u64, page: u32) {
        let la = la & !0xfff;
        let none = SecInfoFlags::empty();
        match self {
            Self::Unmapped => {
                machine.memory.mappings.remove(&la);
            }
            Self::ReadOnly => {
                let mapping = Mapping::Epc { index: EpcIndex(page), writable: false };
                machine.memory.mappings.insert(la, mapping);
            }
            Self::NotEpc => {
                machine.memory.mappings.insert(la, Mapping::Ram { writable: true });
            }
            Self::NotValid => map(machine, la, UNUSED),
            Self::Blocked => {
                machine.status(leaf::EBLOCK, 0, Machine::window(page), 0);
            }
            Self::OtherEnclave => {
                let mut stranger = spec(AttributeFlags::empty());
                let rw = SecInfoFlags::R | SecInfoFlags::W;
                stranger.pages = vec![Page::reg(la - BASE, rw, [0; 4096])];
                let secs = STRANGER_SECS + page;
                stranger.ecreate(machine, secs).expect("another enclave can be built");
                let added = stranger.eadd(machine, secs, STRANGER + page, &stranger.pages[0]);
                added.expect("the page can be added");
                map(machine, la, STRANGER + page);
            }
            Self::Pending => {
                eaug(machine, PENDING + page, la).expect("EAUG completes");
                map(machine, la, PENDING + page);
            }
            Self::Modified => {
                modify(machine, leaf::EMODT, page, none, PageType::Trim);
            }
            Self::OtherAddress => {
                let other = if la == FOUR { THREE } else { FOUR };
                map(machine, la, epc(other));
            }
            Self::NoRead => {
                modify(machine, leaf::EMODPR, page, none, PageType::Reg);
            }
            Self::NoWrite => {
                modify(machine, leaf::EMODPR, page, SecInfoFlags::R, PageType::Reg);
            }
        }
    }

    /// The fault of an access at `la` with this intent (W or nothing, and USER or nothing).
    pub(crate) fn fault(self, la: u64, access: PageFaultCode) -> Stop {
        match self {
            Self::Unmapped => Stop::Fault(Exception::pf(la, access)),
            Self::ReadOnly => Stop::Fault(Exception::pf(la, access | PageFaultCode::PRESENT)),
            _ => epcm_fault(la, access),
        }
    }
}

/// A register that holds an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Register {
    Rbx,
    Rcx,
    Rdx,
}

/// An operand in a regular page of the enclave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) register: Register,
    pub(crate) la: u64,
    pub(crate) write: bool,
}

impl Operand {
    /// The parts of the operand: its alignment, its place, its page.
    const fn parts(self) -> [&'static str; 3] {
        match self.register {
            Register::Rbx => ["RBX alignment", "RBX", "RBX page"],
            Register::Rcx => ["RCX alignment", "RCX", "RCX page"],
            Register::Rdx => ["RDX alignment", "RDX", "RDX page"],
        }
    }

    /// It is not aligned.
    pub(crate) fn misaligned(self) -> Condition<Scenario> {
        let Self { register, .. } = self;
        let [alignment, ..] = self.parts();
        Condition::new(
            format!("{register:?} not aligned"),
            alignment,
            Err(GP),
            move |scenario: &mut Scenario| {
                *scenario.register(register) |= 8;
            },
        )
    }

    /// It is outside ELRANGE, or not canonical.
    pub(crate) fn outside(self) -> Vec<Condition<Scenario>> {
        let Self { register, .. } = self;
        let [_, place, _] = self.parts();
        [END, BASE - 0x1000, 1 << 47]
            .into_iter()
            .map(|page| {
                let name = format!("{register:?} = {page:x}, outside ELRANGE");
                Condition::new(name, place, Err(GP), move |scenario: &mut Scenario| {
                    let at = scenario.register(register);
                    *at = page | *at & 0xfff;
                })
            })
            .collect()
    }

    /// It does not resolve within an EPC.
    pub(crate) fn unresolved(self) -> Vec<Condition<Scenario>> {
        let tables: &[Unfit] = if self.write {
            &[Unfit::Unmapped, Unfit::ReadOnly, Unfit::NotEpc]
        } else {
            &[Unfit::Unmapped, Unfit::NotEpc]
        };
        tables.iter().map(|&unfit| self.unfit(unfit)).collect()
    }

    /// Its EPCM entry does not allow the access, by each of the pseudo-code's tests in turn.
    pub(crate) fn inaccessible(self) -> Vec<Condition<Scenario>> {
        let permission = if self.write { Unfit::NoWrite } else { Unfit::NoRead };
        let mut conditions = self.inaccessible_without_permission();
        conditions.push(self.unfit(permission));
        conditions
    }

    /// The same for a leaf that does not look at R and W.
    pub(crate) fn inaccessible_without_permission(self) -> Vec<Condition<Scenario>> {
        let mut conditions: Vec<_> = [
            Unfit::NotValid,
            Unfit::Blocked,
            Unfit::OtherEnclave,
            Unfit::Pending,
            Unfit::Modified,
            Unfit::OtherAddress,
        ]
        .into_iter()
        .map(|unfit| self.unfit(unfit))
        .collect();
        conditions.push(self.thread());
        conditions
    }

    /// The page is not PT_REG.
    fn thread(self) -> Condition<Scenario> {
        let Self { register, la, .. } = self;
        let [_, place, page] = self.parts();
        let at = TCS_2 | la & 0xfff;
        let fault = Err(epcm_fault(at, self.access()));
        let name = format!("{register:?} in a TCS");
        let move_to_thread = move |scenario: &mut Scenario| {
            let at = scenario.register(register);
            *at = TCS_2 | *at & 0xfff;
        };
        Condition::new(name, place, fault, move_to_thread).and(page)
    }

    /// The page is unfit.
    pub(crate) fn unfit(self, unfit: Unfit) -> Condition<Scenario> {
        let Self { register, la, .. } = self;
        let [.., page] = self.parts();
        let fault = Err(unfit.fault(la, self.access()));
        Condition::new(
            format!("{register:?} {unfit:?}"),
            page,
            fault,
            move |scenario: &mut Scenario| {
                unfit.make(&mut scenario.machine, la, epc(la));
            },
        )
    }

    fn access(self) -> PageFaultCode {
        let mut access = PageFaultCode::USER;
        access.set(PageFaultCode::WRITE, self.write);
        access
    }
}

/// A page of the EPC as the operand of an ENCLS leaf, in the kernel's window on the EPC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelOperand {
    pub(crate) la: u64,
    pub(crate) part: &'static str,
}

impl KernelOperand {
    /// The page tables do not map it writable, or not to the EPC.
    pub(crate) fn unresolved(self) -> Vec<Condition<Scenario>> {
        let Self { la, part } = self;
        [Unfit::Unmapped, Unfit::ReadOnly, Unfit::NotEpc]
            .into_iter()
            .map(|unfit| {
                let fault = Err(unfit.fault(la, PageFaultCode::WRITE));
                let name = format!("{part} {unfit:?}");
                Condition::new(name, part, fault, move |scenario: &mut Scenario| {
                    unfit.make(&mut scenario.machine, la, 0);
                })
            })
            .collect()
    }

    /// The window shows EPC page `page` in its place, which the EPCM refuses.
    pub(crate) fn replaced(
        self,
        name: &'static str,
        page: u32,
        prepare: impl Fn(&mut Machine) + 'static,
    ) -> Condition<Scenario> {
        let Self { la, part } = self;
        let fault = Err(epcm_fault(la, PageFaultCode::WRITE));
        Condition::new(format!("{part} {name}"), part, fault, move |scenario: &mut Scenario| {
            prepare(&mut scenario.machine);
            map(&mut scenario.machine, la, page);
        })
    }
}

/// The SECS of the enclave is not initialized.
pub(crate) fn uninitialized(outcome: Outcome) -> Condition<Scenario> {
    Condition::new("not initialized", "ATTRIBUTES.INIT", outcome, |scenario: &mut Scenario| {
        let secs = scenario.machine.platform.page(EpcIndex(0));
        secs.store(48, secs.load(48) & !1);
    })
}
