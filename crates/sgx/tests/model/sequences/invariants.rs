//! What holds after each leaf, whoever executes it with whatever operands.

use std::collections::{HashMap, HashSet};
use std::mem::offset_of;

use cloister_sgx::layout::Secs;
use cloister_sgx::{EpcIndex, EpcmFlags, EpcmView, PageType, SgxStatus};

use super::Effect;
use super::tally::Outcome;
use super::world::{EPC, Shared};

/// The EPCM at one moment.
pub(crate) type Snapshot = Vec<EpcmView>;

/// What is remembered from one check to the next.
pub(crate) struct Invariants {
    /// MRENCLAVE by EID, and whether the enclave was initialized. Evicted enclaves stay.
    measured: HashMap<u64, ([u8; 32], bool)>,
}

impl Invariants {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { measured: measurements(shared).collect() }
    }

    pub(crate) fn snapshot(&self, shared: &Shared) -> Snapshot {
        (0..EPC).map(|page| shared.view(page)).collect()
    }

    /// What one leaf may have done to the EPCM and to the measurements, while no other ran.
    pub(crate) fn after_leaf(
        &mut self,
        shared: &Shared,
        before: &Snapshot,
        name: &str,
        effect: Effect,
        outcome: Outcome,
    ) {
        let after = self.snapshot(shared);
        // EWB to a slot that was in use says so, and evicts.
        let occupied = Outcome::Reported(SgxStatus::VaSlotOccupied.rax());
        let completed =
            outcome == Outcome::Completed || (effect == Effect::Evicts && outcome == occupied);
        if !completed {
            assert_eq!(before, &after, "{name} did not complete ({outcome}), but did something");
        }
        let count = |all: &Snapshot| all.iter().filter(|view| view.valid()).count();
        let (had, has) = (count(before), count(&after));
        let conserved = match effect {
            Effect::Adds | Effect::Loads => has == had + usize::from(completed),
            Effect::Evicts => has + usize::from(completed) == had,
            Effect::Removes => has == had || (completed && has + 1 == had),
            Effect::Measures | Effect::Nothing => has == had,
        };
        assert!(conserved, "{name} ({outcome}) made {has} pages of {had}");
        let measures = matches!(effect, Effect::Adds | Effect::Measures);
        for (eid, now) in measurements(shared) {
            let known = self.measured.entry(eid).or_insert(now);
            assert!(measures || *known == now, "{name} changed a measurement");
            assert!(!known.1 || *known == now, "{name} changed an initialized enclave");
            *known = now;
        }
    }

    /// What may have happened to measurements while several processors ran.
    pub(crate) fn at_rest(&mut self, shared: &Shared) {
        for (eid, now) in measurements(shared) {
            let known = self.measured.entry(eid).or_insert(now);
            assert!(!known.1 || *known == now, "an initialized enclave changed");
            *known = now;
        }
    }

    /// What must hold at any time at which no leaf is being executed; `inside` processors are in
    /// enclave mode.
    pub(crate) fn check(&self, shared: &Shared, inside: usize) {
        let mut active = 0;
        let mut enclaves = HashSet::new();
        let mut versions = HashSet::new();
        for page in 0..EPC {
            let view = shared.view(page);
            if !view.valid() {
                continue;
            }
            match view.page_type {
                PageType::Secs | PageType::Va => {
                    assert_eq!(view.secs, EpcIndex(page), "page {page} has one owner, itself");
                    let flags = view.flags.difference(EpcmFlags::VALID);
                    assert!(flags.is_empty(), "page {page} is {flags:?}");
                }
                _ => {
                    let owner = shared.view(view.secs.0);
                    assert!(owner.is(PageType::Secs), "page {page} has no SECS");
                    let base = shared.word(view.secs.0, offset_of!(Secs, baseaddr));
                    let size = shared.word(view.secs.0, offset_of!(Secs, size));
                    let offset = view.address.wrapping_sub(base);
                    assert!(offset < size, "page {page} is outside ELRANGE");
                }
            }
            match view.page_type {
                PageType::Secs => {
                    assert!(enclaves.insert(shared.eid(page)), "two SECSs have one EID");
                }
                PageType::Va => {
                    let slots = (0..512).map(|slot| shared.word(page, slot * 8));
                    for version in slots.filter(|&version| version != 0) {
                        assert!(versions.insert(version), "two slots hold version {version}");
                    }
                }
                // A regular page that is becoming a TCS holds what software wrote.
                PageType::Tcs if !view.flags.contains(EpcmFlags::MODIFIED) => {
                    active += usize::from(shared.word(page, 0) == 1);
                }
                _ => {}
            }
        }
        assert!(active <= inside, "{active} threads on {inside} processors");
    }
}

/// EID, MRENCLAVE and INIT of every enclave whose SECS is in the EPC.
fn measurements(shared: &Shared) -> impl Iterator<Item = (u64, ([u8; 32], bool))> {
    shared.pages(|_, view| view.is(PageType::Secs)).into_iter().map(|page| {
        let mut hash = [0; 32];
        shared.platform.page(EpcIndex(page)).read(offset_of!(Secs, mrenclave), &mut hash);
        (shared.eid(page), (hash, shared.initialized(page)))
    })
}
