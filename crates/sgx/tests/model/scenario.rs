//! The enclave in which ENCLU and the leaves of SGX2 are tried.

use std::sync::Mutex;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, SigStruct};
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, PageType, PlatformConfig, PlatformIdentity,
    SgxFeatures, SgxStatus, Stop,
};
use cloister_x86::Gpr;

pub(crate) use crate::enclave::BASE;
use crate::enclave::{PAGEINFO, Page, SECINFO, Spec, tcs};
use crate::machine::{Machine, Mapping};
use crate::order::Outcome;
use crate::signer::Signer;
use crate::unfit::Register;

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
        Ok(self.machine.cpu.gpr[Gpr::Rax])
    }

    /// Executes ENCLS leaf `number`.
    pub(crate) fn encls(&mut self, number: u32) -> Outcome {
        let outcome = self.machine.encls(number, self.rbx, self.rcx, self.rdx)?;
        Ok(outcome.status.map_or(0, SgxStatus::rax))
    }

    /// The register that holds an operand.
    pub(crate) fn register(&mut self, register: Register) -> &mut u64 {
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

/// EPA of the EPC page that is to be a version array.
pub(crate) fn make_va(machine: &mut Machine) {
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
}
