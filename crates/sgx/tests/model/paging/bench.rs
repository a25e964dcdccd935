//! Tables of conditions: each is a change to a good set of operands that makes exactly one check
//! of a leaf fail.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{EpcIndex, LeafOutcome, PageType, SgxStatus, Stop, enclv};
use cloister_x86::{Exception, PageFaultCode};

use super::store::{EVICTED, PCMD, add_va, oversubscribed, slot};
use crate::enclave::{PAGEINFO, Page, SECINFO, SOURCE, Spec};
use crate::machine::{GP, Machine, OPERANDS};
use crate::meanwhile::meanwhile;

/// The enclave of the good operands: its SECS and three pages.
pub(super) const SECS: u32 = 0;
pub(super) const PAGES: [u32; 3] = [1, 2, 3];
/// An SECS without pages.
pub(super) const LONELY: u32 = 10;
/// A version array for what other processors evict meanwhile.
const OTHER_VA: u32 = 21;
/// Unused EPC pages.
pub(super) const FREE: u32 = 30;
/// Ordinary memory.
pub(super) const RAM: u64 = OPERANDS + 0x2_0000;
/// Where RDINFO and the context of ESETCONTEXT lie.
pub(super) const DATA: u64 = OPERANDS + 0x3_0000;
/// Operands of other processors.
const OUTPUT: u64 = OPERANDS + 0x4_0000;

/// An operand of the leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    Rbx,
    Rcx,
    Rdx,
    /// PAGEINFO.SECS.
    Secs,
}

/// What another processor does while the leaf executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Other {
    /// It creates or evicts the page that this operand names.
    Uses(Operand),
    /// It evicts this page of the enclave, and so uses the tracking facility of its SECS.
    Evicts(u32),
}

/// A leaf about to be executed.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) number: u32,
    pub(super) is_enclv: bool,
    pub(super) rbx: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) pageinfo: PageInfo,
    pub(super) other: Option<Other>,
    /// Pages that cannot be reached, or, if false, not be written.
    pub(super) forbidden: Vec<(u64, bool)>,
    /// Processors inside the enclave.
    pub(super) threads: Vec<Machine>,
}

impl Bench {
    /// ENCLS leaf `number` on `machine`, whose enclave has its SECS in page 0.
    pub(super) fn on(mut machine: Machine, number: u32) -> Self {
        machine.encls(leaf::EPA, 3, Machine::window(OTHER_VA), 0).expect("EPA completes");
        machine.memory.put(RAM, &[0; 4096]);
        machine.memory.put(DATA, &[0; 4096]);
        Self {
            machine,
            number,
            is_enclv: false,
            rbx: PAGEINFO,
            rcx: 0,
            rdx: slot(0),
            pageinfo: PageInfo {
                srcpge: EVICTED.into(),
                secinfo: PCMD.into(),
                ..PageInfo::default()
            },
            other: None,
            forbidden: Vec::new(),
            threads: Vec::new(),
        }
    }

    /// The same on a machine with the enclave and the SECS above, neither of them initialized.
    pub(super) fn new(number: u32) -> Self {
        let mut machine = Machine::with(oversubscribed());
        add_va(&mut machine);
        let spec = Spec::simple();
        spec.ecreate(&mut machine, SECS).expect("ECREATE completes");
        for page in PAGES {
            let flags = SecInfoFlags::R | SecInfoFlags::W;
            let page_of_enclave = Page::reg(u64::from(page) * 4096, flags, [page as u8; 4096]);
            spec.eadd(&mut machine, SECS, page, &page_of_enclave).expect("EADD completes");
        }
        spec.ecreate(&mut machine, LONELY).expect("ECREATE completes");
        Self::on(machine, number)
    }

    /// The linear address of an EPC operand.
    pub(super) fn address(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Rbx => self.rbx,
            Operand::Rcx => self.rcx,
            Operand::Rdx => self.rdx,
            Operand::Secs => self.pageinfo.secs.get(),
        }
    }

    /// Executes the leaf, and says what it returned ([`SgxStatus::Success`] if it does not report).
    pub(super) fn run(&mut self) -> Result<SgxStatus, Stop> {
        self.outcome().map(|outcome| outcome.status.unwrap_or(SgxStatus::Success))
    }

    /// Executes the leaf.
    pub(super) fn outcome(&mut self) -> Result<LeafOutcome, Stop> {
        self.machine.operand(PAGEINFO, &self.pageinfo);
        for &(page, unmapped) in &self.forbidden {
            if unmapped {
                self.machine.memory.mappings.remove(&page);
            } else {
                let read_only = crate::machine::Mapping::Ram { writable: false };
                self.machine.memory.mappings.insert(page, read_only);
            }
        }
        match self.other {
            None => self.execute(),
            Some(Other::Evicts(page)) => self.execute_while_evicting(page),
            Some(Other::Uses(operand)) => {
                let page = (self.address(operand) - Machine::window(0)) / 4096;
                if self.machine.platform.epcm(EpcIndex(page as u32)).valid() {
                    self.execute_while_evicting(page as u32)
                } else {
                    self.execute_while_creating(page as u32)
                }
            }
        }
    }

    fn execute(&mut self) -> Result<LeafOutcome, Stop> {
        let execute = if self.is_enclv { Machine::enclv } else { Machine::encls };
        execute(&mut self.machine, self.number, self.rbx, self.rcx, self.rdx)
    }

    /// Another processor executes ECREATE on unused page `page`.
    fn execute_while_creating(&mut self, page: u32) -> Result<LeafOutcome, Stop> {
        let mut other = Machine::on(self.machine.platform.clone());
        other.operand(SOURCE, &Spec::simple().secs());
        other.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
        let pageinfo =
            PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
        other.operand(PAGEINFO, &pageinfo);
        self.execute_within(other, leaf::ECREATE, page, 0, SOURCE)
    }

    /// Another processor executes EWB on page `page`.
    fn execute_while_evicting(&mut self, page: u32) -> Result<LeafOutcome, Stop> {
        let mut other = Machine::on(self.machine.platform.clone());
        let secs = other.platform.epcm(EpcIndex(page)).secs;
        if secs != EpcIndex(page) {
            other.status(leaf::EBLOCK, 0, Machine::window(page), 0);
            other.status(leaf::ETRACK, 0, Machine::window(secs.0), 0);
        }
        other.memory.put(OUTPUT, &[0; 4096]);
        other.memory.put(PCMD, &[0; 128]);
        let pageinfo =
            PageInfo { srcpge: OUTPUT.into(), secinfo: PCMD.into(), ..PageInfo::default() };
        other.operand(PAGEINFO, &pageinfo);
        self.execute_within(other, leaf::EWB, page, Machine::window(OTHER_VA), OUTPUT)
    }

    /// Executes the leaf while `other` is in the middle of leaf `number`.
    fn execute_within(
        &mut self,
        mut other: Machine,
        number: u32,
        page: u32,
        rdx: u64,
        at: u64,
    ) -> Result<LeafOutcome, Stop> {
        let (held, outcome) = meanwhile(
            &mut other,
            at,
            |other| other.encls(number, PAGEINFO, Machine::window(page), rdx),
            || self.execute(),
        );
        held.expect("the other processor's leaf completes");
        outcome
    }

    /// Executes the leaf and applies what it returns to registers full of ones: RAX and RFLAGS.
    pub(super) fn registers(&mut self) -> (u64, u64) {
        let outcome = self.outcome().expect("the leaf completes");
        let (mut rax, mut rbx, mut rflags) = (u64::from(self.number), self.rbx, 0x8d7);
        outcome.apply(&mut rax, &mut rbx, &mut rflags);
        (rax, rflags)
    }
}

/// An [`enclv`] leaf on the enclave of [`Bench::new`].
pub(super) fn enclv_bench(number: u32) -> Bench {
    assert!(number <= enclv::leaf::ESETCONTEXT);
    Bench { is_enclv: true, ..Bench::new(number) }
}

/// What a condition leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// #GP(0).
    Gp,
    /// The #PF of SGX at an operand that is to be written.
    Pf(Operand),
    /// The same at an operand that is to be read.
    PfRead(Operand),
    /// The #PF of the page tables at an address that is not mapped, on a read.
    Unreadable(u64),
    /// The #PF of the page tables at an address that must not be written.
    Unwritable(u64),
    /// What the leaf reports.
    Status(SgxStatus),
}

impl Outcome {
    fn of(self, bench: &Bench) -> Result<SgxStatus, Stop> {
        let fault = |la: u64, code: PageFaultCode| Err(Stop::Fault(Exception::pf(la, code)));
        let sgx = PageFaultCode::PRESENT | PageFaultCode::SGX;
        match self {
            Self::Gp => Err(GP),
            Self::Pf(operand) => fault(bench.address(operand), sgx | PageFaultCode::WRITE),
            Self::PfRead(operand) => fault(bench.address(operand), sgx),
            Self::Unreadable(la) => fault(la, PageFaultCode::empty()),
            Self::Unwritable(la) => fault(la, PageFaultCode::PRESENT | PageFaultCode::WRITE),
            Self::Status(status) => Ok(status),
        }
    }
}

/// One check of a leaf, in the SDM's order within a table.
pub(super) struct Condition {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    /// Makes the check fail.
    pub(super) arrange: fn(&mut Bench),
    /// Conditions of the table that cannot hold at the same time.
    pub(super) excludes: &'static [&'static str],
}

/// A row of a table.
pub(super) const fn condition(
    name: &'static str,
    outcome: Outcome,
    arrange: fn(&mut Bench),
    excludes: &'static [&'static str],
) -> Condition {
    Condition { name, outcome, arrange, excludes }
}

/// Which conditions of `table`, each alone, do not have their outcome.
pub(super) fn wrong_alone(good: impl Fn() -> Bench, table: &[Condition]) -> Vec<String> {
    let mut wrong = Vec::new();
    for condition in table {
        let mut bench = good();
        (condition.arrange)(&mut bench);
        let expected = condition.outcome.of(&bench);
        let outcome = bench.run();
        if outcome != expected {
            wrong.push(format!("{}: {outcome:?} instead of {expected:?}", condition.name));
        }
    }
    wrong
}

/// For which pairs of conditions of `table` whose outcomes can be told apart the first does not
/// win; and how many pairs there are.
pub(super) fn wrong_pairs(good: impl Fn() -> Bench, table: &[Condition]) -> (usize, Vec<String>) {
    let mut pairs = 0;
    let mut wrong = Vec::new();
    for (at, first) in table.iter().enumerate() {
        for second in &table[at + 1..] {
            if first.excludes.contains(&second.name) || second.excludes.contains(&first.name) {
                continue;
            }
            let mut bench = good();
            (second.arrange)(&mut bench);
            (first.arrange)(&mut bench);
            let expected = first.outcome.of(&bench);
            if expected == second.outcome.of(&bench) {
                continue;
            }
            pairs += 1;
            let outcome = bench.run();
            if outcome != expected {
                wrong.push(format!(
                    "{} before {}: {outcome:?} instead of {expected:?}",
                    first.name, second.name
                ));
            }
        }
    }
    (pairs, wrong)
}
