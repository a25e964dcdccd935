//! The enclave in which ENCLU leaves are tried, and the ways in which one of its pages can be
//! unfit for them.

use std::sync::Mutex;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, SigStruct};
use cloister_sgx::processor::RAX;
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, PageType, PlatformConfig, PlatformIdentity,
    SgxFeatures, SgxStatus, Stop,
};
use cloister_x86::{Exception, PageFaultCode};

pub(crate) use crate::enclave::BASE;
use crate::enclave::{PAGEINFO, Page, SECINFO, Spec, tcs};
use crate::machine::{GP, Machine, Mapping, epcm_fault};
use crate::order::{Condition, Outcome};
use crate::signer::Signer;

/// Threads: pages 0 and 1 of the enclave, EPC pages 1 and 2.
pub(crate) const TCS: u64 = BASE;
pub(crate) const TCS_2: u64 = BASE + 0x1000;
/// Code: EPC page 3. The entry point is 10H bytes into it.
pub(crate) const CODE: u64 = BASE + 0x2000;
/// Frames of two pages, two for each thread: EPC pages 5 to 12.
pub(crate) const SSA: u64 = BASE + 0x4000;
/// Data pages: EPC pages 13 to 16.
pub(crate) const ONE: u64 = BASE + 0xc000;
pub(crate) const TWO: u64 = BASE + 0xd000;
pub(crate) const THREE: u64 = BASE + 0xe000;
pub(crate) const FOUR: u64 = BASE + 0xf000;
/// The first address beyond ELRANGE. From [`FOUR`] on there is room for pages that EAUG adds.
pub(crate) const END: u64 = BASE + 0x2_0000;
pub(crate) const AEP: u64 = 0x40_2000;

/// An EPC page that becomes a version array.
pub(crate) const VA: u32 = 158;
/// An EPC page that stays unused.
pub(crate) const UNUSED: u32 = 159;
/// EPC pages that, together with the number of the page that is made unfit, become a pending page
/// in its place, and the SECS and page of another enclave.
const PENDING: u32 = 40;
const STRANGER_SECS: u32 = 80;
const STRANGER: u32 = 120;

/// The EPC page of an enclave page.
pub(crate) const fn epc(la: u64) -> u32 {
    1 + ((la - BASE) / 4096) as u32
}

/// The enclave at `base`, which must be a multiple of its size.
pub(crate) fn spec_at(base: u64, flags: AttributeFlags, xfrm: u64) -> Spec {
    let rw = SecInfoFlags::R | SecInfoFlags::W;
    let mut pages = vec![
        Page::tcs(0, tcs(0x4000, 2, 0x2010)),
        Page::tcs(0x1000, tcs(0x8000, 2, 0x2010)),
        Page::reg(0x2000, SecInfoFlags::R | SecInfoFlags::X, [0x90; 4096]),
    ];
    pages.extend((3..16).map(|page| Page::reg(page * 4096, rw, [0; 4096])));
    for page in &mut pages {
        page.measured = 0;
    }
    Spec {
        base,
        size: 0x2_0000,
        ssaframesize: 2,
        attributes: Attributes::new(flags, xfrm),
        pages,
        ..Spec::simple()
    }
}

/// The enclave for 64-bit mode with these further attributes.
pub(crate) fn spec(flags: AttributeFlags) -> Spec {
    spec_at(BASE, flags | AttributeFlags::MODE64BIT | AttributeFlags::DEBUG, 3)
}

/// A machine whose platform announces all that the model can do.
pub(crate) fn machine() -> Machine {
    let mut config = PlatformConfig::single(160, PlatformIdentity::from_seed(&[7; 32]));
    let default = Capabilities::default();
    config.capabilities = Capabilities {
        attributes: default.attributes | AttributeFlags::AEXNOTIFY,
        features: default.features | SgxFeatures::EDECCSSA,
        xfrm: 7,
        ..default
    };
    Machine::with(config)
}

/// A signature on the enclave that leaves its attributes open. Signing takes long, so each is
/// made once.
fn signed(spec: &Spec) -> SigStruct {
    static SIGNED: Mutex<Vec<(Spec, SigStruct)>> = Mutex::new(Vec::new());
    let mut signed = SIGNED.lock().expect("no test panics while it signs");
    if let Some((_, sigstruct)) = signed.iter().find(|(known, _)| known == spec) {
        return sigstruct.clone();
    }
    let sigstruct = spec.sigstruct_with_mask(Signer::a(), 0);
    signed.push((spec.clone(), sigstruct.clone()));
    sigstruct
}

/// Builds and initializes `spec` with its SECS in EPC page 0.
pub(crate) fn start(machine: &mut Machine, spec: &Spec) {
    machine.memory.le_hash = Signer::a().mrsigner();
    spec.load(machine, 0).expect("the enclave can be built");
    let status = spec.einit(machine, 0, &signed(spec), &EinitToken::none());
    assert_eq!(status, Ok(SgxStatus::Success));
}

/// A machine outside the enclave.
pub(crate) fn outside(flags: AttributeFlags) -> Machine {
    let mut machine = machine();
    start(&mut machine, &spec(flags));
    machine
}

pub(crate) fn enter(machine: &mut Machine) {
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
}

pub(crate) fn exit(machine: &mut Machine) {
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
}

/// A processor and the operands of its leaf.
pub(crate) struct Scenario {
    pub(crate) machine: Machine,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
}

impl Scenario {
    /// Inside the enclave.
    pub(crate) fn inside(flags: AttributeFlags, rbx: u64, rcx: u64, rdx: u64) -> Self {
        let mut machine = outside(flags);
        enter(&mut machine);
        Self { machine, rbx, rcx, rdx }
    }

    /// Executes ENCLU leaf `number`.
    pub(crate) fn enclu(&mut self, number: u32) -> Outcome {
        self.machine.enclu(number, self.rbx, self.rcx, self.rdx)?;
        Ok(self.machine.cpu.gpr[RAX])
    }

    /// Executes ENCLS leaf `number`.
    pub(crate) fn encls(&mut self, number: u32) -> Outcome {
        let outcome = self.machine.encls(number, self.rbx, self.rcx, self.rdx)?;
        Ok(outcome.status.map_or(0, SgxStatus::rax))
    }

    /// The register that holds an operand.
    fn register(&mut self, register: Register) -> &mut u64 {
        match register {
            Register::Rbx => &mut self.rbx,
            Register::Rcx => &mut self.rcx,
            Register::Rdx => &mut self.rdx,
        }
    }
}

pub(crate) fn map(machine: &mut Machine, la: u64, page: u32) {
    let mapping = Mapping::Epc { index: EpcIndex(page), writable: true };
    machine.memory.mappings.insert(la & !0xfff, mapping);
}

/// EAUG of EPC page `page` at `la`.
pub(crate) fn eaug(machine: &mut Machine, page: u32, la: u64) -> Result<(), Stop> {
    let pageinfo =
        PageInfo { linaddr: la.into(), secs: Machine::window(0).into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::EAUG, PAGEINFO, Machine::window(page), 0).map(drop)
}

/// EMODPR or EMODT of EPC page `page`.
pub(crate) fn modify(
    machine: &mut Machine,
    number: u32,
    page: u32,
    flags: SecInfoFlags,
    page_type: PageType,
) -> SgxStatus {
    machine.operand(SECINFO, &SecInfo::new(flags, page_type));
    machine.status(number, SECINFO, Machine::window(page), 0)
}

pub(crate) fn track(machine: &mut Machine) -> SgxStatus {
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0)
}

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

/// EPA of the EPC page that [`KernelOperand::replaced`] shows as a version array.
pub(crate) fn make_va(machine: &mut Machine) {
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
}

/// The SECS of the enclave is not initialized.
pub(crate) fn uninitialized(outcome: Outcome) -> Condition<Scenario> {
    Condition::new("not initialized", "ATTRIBUTES.INIT", outcome, |scenario: &mut Scenario| {
        let secs = scenario.machine.platform.page(EpcIndex(0));
        secs.store(48, secs.load(48) & !1);
    })
}
