//! One platform, its logical processors, and what their operating system remembers.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{Secs, SigStruct};
use cloister_sgx::{
    AttributeFlags, Attributes, EpcIndex, EpcmView, PageType, Platform, PlatformConfig,
    PlatformIdentity, SgxFeatures, SgxStatus,
};
use sgxs::crypto::SgxHashOps as _;
use sgxs::sgxs::{Meas, MeasECreate, SgxsWrite as _};

use crate::choices::Choices;
use crate::enclave::{BASE, Spec};
use crate::machine::Machine;
use crate::signer::{Hasher, Signer};

use super::invariants::Invariants;
use super::tally::{Outcome, Tally};
use super::turn::Turn;
use super::{Effect, LEAVES};

/// Pages of the EPC.
pub(crate) const EPC: u32 = 48;
/// The first pages of an enclave, which EADD adds; those after it are added by EAUG.
pub(crate) const ADDED: usize = 8;

/// The kinds of enclaves that are built: what differs is what their attributes allow, and where
/// they lie. The first and the second lie at the same addresses.
pub(crate) static KINDS: LazyLock<[Spec; 4]> = LazyLock::new(|| {
    let mode64 = AttributeFlags::MODE64BIT;
    let kinds = [
        (0, mode64 | AttributeFlags::DEBUG),
        (0, mode64 | AttributeFlags::PROVISIONKEY),
        (1, mode64 | AttributeFlags::DEBUG | AttributeFlags::KSS),
        (2, mode64 | AttributeFlags::EINITTOKEN_KEY),
    ];
    kinds.map(|(place, flags)| {
        let mut spec = Spec::simple();
        spec.base = BASE + place * 0x10_0000;
        spec.attributes = Attributes::new(flags, 3);
        for page in &mut spec.pages {
            page.measured = 1;
        }
        spec
    })
});

/// SIGSTRUCTs by kind and MRENCLAVE, as signing takes long.
type Signed = HashMap<(usize, [u8; 32]), Arc<SigStruct>>;
static SIGNED: LazyLock<Mutex<Signed>> = LazyLock::new(Mutex::default);

/// The SIGSTRUCT for an enclave of this kind and MRENCLAVE.
pub(crate) fn sigstruct(kind: usize, mrenclave: [u8; 32]) -> Arc<SigStruct> {
    let mut signed = lock(&SIGNED);
    if signed.len() > 4096 {
        signed.clear();
    }
    let new = || Arc::new(KINDS[kind].sigstruct_of(mrenclave, Signer::a(), !2));
    signed.entry((kind, mrenclave)).or_insert_with(new).clone()
}

/// A page that was evicted.
pub(crate) struct Evicted {
    /// What EWB wrote.
    pub(crate) contents: Vec<u8>,
    pub(crate) pcmd: Vec<u8>,
    pub(crate) linaddr: u64,
    /// What it put into the slot.
    pub(crate) version: u64,
    /// What the page held, if nobody else can have written to it.
    pub(crate) plain: Option<[u8; 4096]>,
    /// Whether it has been loaded again.
    pub(crate) loaded: AtomicBool,
}

/// An enclave under construction: its kind, and what was measured so far as a `.sgxs` stream.
pub(crate) struct Built {
    pub(crate) kind: usize,
    pub(crate) stream: Vec<u8>,
}

impl Built {
    /// After ECREATE.
    pub(crate) fn new(kind: usize) -> Self {
        let spec = &KINDS[kind];
        let create = MeasECreate { ssaframesize: spec.ssaframesize, size: spec.size };
        let mut built = Self { kind, stream: Vec::new() };
        built.measure(&Meas::ECreate(create));
        built
    }

    /// One more measured thing.
    pub(crate) fn measure(&mut self, what: &Meas) {
        self.stream.write_meas(what).expect("a Vec can be written");
    }

    /// Blocks of 64 bytes that were measured.
    pub(crate) fn blocks(&self) -> u64 {
        self.stream.len() as u64 / 64
    }

    /// MRENCLAVE by `sgxs` and SHA-256.
    pub(crate) fn mrenclave(&self) -> [u8; 32] {
        let mut hasher = Hasher::new();
        hasher.update(&self.stream);
        hasher.finish()
    }
}

/// What the operating system knows beyond the EPCM.
pub(crate) struct Shared {
    pub(crate) platform: Arc<Platform>,
    /// Whether one processor at a time executes, so that nothing changes under its leaf.
    pub(crate) alone: bool,
    evicted: Mutex<Vec<Arc<Evicted>>>,
    built: Mutex<HashMap<u64, Built>>,
}

/// Locks, and lets a panic elsewhere be the only one that is reported.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    /// The newest evicted pages.
    pub(crate) fn evicted(&self) -> MutexGuard<'_, Vec<Arc<Evicted>>> {
        lock(&self.evicted)
    }

    /// The enclaves under construction, by EID.
    pub(crate) fn built(&self) -> MutexGuard<'_, HashMap<u64, Built>> {
        lock(&self.built)
    }

    /// The EPCM entry of a page.
    pub(crate) fn view(&self, page: u32) -> EpcmView {
        self.platform.epcm(EpcIndex(page))
    }

    /// The pages whose EPCM entry satisfies `wanted`.
    pub(crate) fn pages(&self, wanted: impl Fn(u32, &EpcmView) -> bool) -> Vec<u32> {
        (0..EPC).filter(|&page| wanted(page, &self.view(page))).collect()
    }

    /// A quadword of an EPC page.
    pub(crate) fn word(&self, page: u32, offset: usize) -> u64 {
        self.platform.page(EpcIndex(page)).load(offset)
    }

    /// Whether it is known what the enclave of the SECS in `page` measures.
    pub(crate) fn known(&self, page: u32) -> bool {
        self.built().contains_key(&self.eid(page))
    }

    /// The pages of the enclave whose SECS is in page `secs`.
    pub(crate) fn children(&self, secs: u32) -> Vec<u32> {
        self.pages(|page, view| view.valid() && view.secs.0 == secs && page != secs)
    }

    /// Whether the SECS in `page` was initialized.
    pub(crate) fn initialized(&self, page: u32) -> bool {
        self.word(page, offset_of!(Secs, attributes)) & AttributeFlags::INIT.bits() != 0
    }

    /// EID of the SECS in `page`.
    pub(crate) fn eid(&self, page: u32) -> u64 {
        self.word(page, offset_of!(Secs, eid))
    }
}

/// A platform with its processors.
pub(crate) struct World {
    processors: Vec<Machine>,
    shared: Shared,
    invariants: Invariants,
}

impl World {
    /// `processors` processors on a platform with one running enclave and a version array.
    /// `alone`: they execute one after the other.
    pub(crate) fn new(processors: usize, alone: bool) -> Self {
        let mut config = PlatformConfig::single(EPC, PlatformIdentity::from_seed(&[7; 32]));
        config.capabilities.features |=
            SgxFeatures::EDECCSSA | SgxFeatures::OVERSUB_ENCLS | SgxFeatures::OVERSUB_ENCLV;
        let first = Machine::with(config);
        let platform = first.platform.clone();
        let mut all = vec![first];
        all.extend((1..processors).map(|_| Machine::on(platform.clone())));
        let shared = Shared { platform, alone, evicted: Mutex::default(), built: Mutex::default() };
        for machine in &mut all {
            machine.memory.le_hash = Signer::a().mrsigner();
            machine.xsave.image_mut(3).fill(0);
        }
        let spec = &KINDS[0];
        spec.load(&mut all[0], 0).expect("the enclave can be built");
        let signed = sigstruct(0, spec.mrenclave());
        let none = cloister_sgx::layout::EinitToken::none();
        let status = spec.einit(&mut all[0], 0, &signed, &none);
        assert_eq!(status, Ok(SgxStatus::Success));
        all[0].encls(leaf::EPA, 3, Machine::window(EPC - 1), 0).expect("EPA completes");
        let invariants = Invariants::new(&shared);
        Self { processors: all, shared, invariants }
    }

    /// One leaf of one processor, and what must hold after it.
    pub(crate) fn step(&mut self, choices: &mut Choices<'_>, tally: &mut Tally) {
        let processor = choices.below(self.processors.len());
        let before = self.invariants.snapshot(&self.shared);
        let machine = &mut self.processors[processor];
        let (name, effect, outcome) = execute(machine, &self.shared, choices);
        tally.count(name, outcome);
        self.invariants.after_leaf(&self.shared, &before, name, effect, outcome);
        self.invariants.check(&self.shared, self.inside());
    }

    /// `leaves` leaves of each processor, all processors at once, and what must hold when they
    /// have come to rest.
    pub(crate) fn round(&mut self, leaves: usize, choices: &mut Choices<'_>) -> Tally {
        let shared = &self.shared;
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .processors
                .iter_mut()
                .map(|machine| {
                    let mut choices = Choices::Seed(choices.word());
                    scope.spawn(move || {
                        let mut tally = Tally::default();
                        for _ in 0..leaves {
                            let (name, _, outcome) = execute(machine, shared, &mut choices);
                            tally.count(name, outcome);
                        }
                        tally
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        self.invariants.at_rest(&self.shared);
        self.invariants.check(&self.shared, self.inside());
        let mut tally = Tally::default();
        for other in tallies {
            tally.add(other);
        }
        tally
    }

    fn inside(&self) -> usize {
        self.processors.iter().filter(|machine| machine.state.in_enclave()).count()
    }

    /// Nothing is lost: once everyone has left, every page can be taken back.
    pub(crate) fn end(mut self) {
        for processor in &mut self.processors {
            processor.state.reset(&processor.platform.clone());
        }
        let children = self.shared.pages(|_, view| view.page_type != PageType::Secs);
        let others = self.shared.pages(|_, view| view.page_type == PageType::Secs);
        for page in children.into_iter().chain(others) {
            let status = self.shared.platform.eremove(EpcIndex(page));
            assert_eq!(status, Ok(SgxStatus::Success), "page {page} is lost");
        }
        assert_eq!(self.shared.pages(|_, view| view.valid()), [0_u32; 0]);
    }
}

/// A leaf that `choices` chose, with operands that it chose.
fn execute(
    machine: &mut Machine,
    shared: &Shared,
    choices: &mut Choices<'_>,
) -> (&'static str, Effect, Outcome) {
    let inside = machine.state.in_enclave();
    let weight = |row: &super::Row| if inside { row.inside } else { row.outside };
    let mut chosen = choices.below(LEAVES.iter().map(weight).sum());
    for row in LEAVES {
        if chosen < weight(row) {
            let hostile = choices.one_in(8);
            let outcome = (row.leaf)(&mut Turn { machine, shared, choices, hostile });
            return (row.name, row.effect, outcome);
        }
        chosen -= weight(row);
    }
    unreachable!("the weights add up")
}
