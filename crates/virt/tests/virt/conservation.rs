//! Random operations by several machines on one pool: pages are conserved exactly.
//!
//! `CLOISTER_SEED` repeats a run, `CLOISTER_CASES` sets the number of sequences.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use cloister_sgx::{EpcIndex, PageType, SgxStatus};
use cloister_virt::{Backing, EpcAccount, EpcExhausted, EpcLimits, EpcPool, VirtualEpc};
use cloister_x86::{Gpa, PAGE_SIZE};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::host;
use crate::kernel::Kernel;

/// Host sections: pages and node.
const HOST: [(u32, u32); 2] = [(24, 0), (16, 1)];
const TOTAL: usize = 40;
/// Three machines with two sections each.
const SLOTS: usize = 6;
const LIMITS: [EpcLimits; SLOTS / 2] = [
    EpcLimits { reservation: 9, quota: 22 },
    EpcLimits::NONE,
    EpcLimits { reservation: 0, quota: 12 },
];
const PAGES: usize = 14;

/// A page: section and number.
type Place = (usize, usize);

#[derive(Clone, Debug)]
enum Operation {
    /// A section is made, unless it is there.
    Open {
        slot: usize,
        node: u32,
        preallocate: bool,
    },
    /// A section goes, a thread of its machine being killed in the middle of anything.
    Close {
        slot: usize,
    },
    /// The same, while a leaf holds a page of it that is not in use.
    CloseHeld {
        place: Place,
    },
    Touch {
        place: Place,
    },
    Create {
        place: Place,
    },
    Add {
        secs: Place,
        place: Place,
    },
    VersionArray {
        place: Place,
    },
    Remove {
        place: Place,
    },
    /// The machine resets.
    Reset {
        slot: usize,
    },
}

fn place() -> impl Strategy<Value = Place> {
    (0..SLOTS, 0..PAGES)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..SLOTS, 0..3_u32, prop::bool::weighted(0.1))
            .prop_map(|(slot, node, preallocate)| Operation::Open { slot, node, preallocate }),
        2 => (0..SLOTS).prop_map(|slot| Operation::Close { slot }),
        1 => place().prop_map(|place| Operation::CloseHeld { place }),
        4 => place().prop_map(|place| Operation::Touch { place }),
        6 => place().prop_map(|place| Operation::Create { place }),
        12 => (place(), place(), any::<bool>()).prop_map(|(secs, mut place, same)| {
            // Enclaves are made of pages of one machine, half of them across its sections.
            place.0 = if same { secs.0 } else { secs.0 ^ 1 };
            Operation::Add { secs, place }
        }),
        2 => place().prop_map(|place| Operation::VersionArray { place }),
        4 => place().prop_map(|place| Operation::Remove { place }),
        1 => (0..SLOTS).prop_map(|slot| Operation::Reset { slot }),
    ]
}

/// What a page of the host's EPC is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Secs,
    Child(EpcIndex),
    VersionArray,
}

struct World {
    pool: Arc<EpcPool>,
    kernel: Kernel,
    accounts: [Arc<EpcAccount>; SLOTS / 2],
    sections: [Option<VirtualEpc>; SLOTS],
    /// What each section should have behind its pages.
    backed: [BTreeMap<usize, EpcIndex>; SLOTS],
    uses: BTreeMap<EpcIndex, Use>,
    /// With the machine that they are of.
    zombies: BTreeMap<EpcIndex, usize>,
    leaked: BTreeMap<EpcIndex, usize>,
}

const fn gpa(page: usize) -> Gpa {
    Gpa(host::EPC_GPA + page as u64 * PAGE_SIZE)
}

impl World {
    fn new() -> Self {
        let pool = host::pool_of(&HOST);
        Self {
            kernel: Kernel::new(pool.store().clone()),
            accounts: LIMITS.map(|limits| pool.open("vm", limits).expect("enough")),
            pool,
            sections: std::array::from_fn(|_| None),
            backed: std::array::from_fn(|_| BTreeMap::new()),
            uses: BTreeMap::new(),
            zombies: BTreeMap::new(),
            leaked: BTreeMap::new(),
        }
    }

    fn used_by(&self, machine: usize) -> usize {
        let backed = &self.backed[2 * machine..2 * machine + 2];
        let lost = self.zombies.values().chain(self.leaked.values());
        backed.iter().map(BTreeMap::len).sum::<usize>() + lost.filter(|&&of| of == machine).count()
    }

    fn used(&self) -> usize {
        (0..LIMITS.len()).map(|machine| self.used_by(machine)).sum()
    }

    /// Pages that are kept for the machines other than `machine`.
    fn kept_from(&self, machine: usize) -> usize {
        let others = (0..LIMITS.len()).filter(|&other| other != machine);
        others.map(|other| LIMITS[other].reservation.saturating_sub(self.used_by(other))).sum()
    }

    /// Why the machine of a section cannot have `more` pages.
    fn refusal(&self, slot: usize, more: usize) -> Option<EpcExhausted> {
        let machine = slot / 2;
        if self.used_by(machine) + more > LIMITS[machine].quota {
            return Some(EpcExhausted::Quota);
        }
        let enough = self.used() + self.kept_from(machine) + more <= TOTAL;
        (!enough).then_some(EpcExhausted::Host)
    }

    fn children(&self, secs: EpcIndex) -> usize {
        self.uses.values().filter(|&&used| used == Use::Child(secs)).count()
    }

    /// First touch. `None` without such a section or without pages.
    fn touch(&mut self, (slot, page): Place) -> Option<EpcIndex> {
        let section = self.sections[slot].as_ref()?;
        let fresh = !self.backed[slot].contains_key(&page);
        let refusal = if fresh { self.refusal(slot, 1) } else { None };
        let outcome = section.populate(gpa(page)).expect("in the section");
        assert_eq!(outcome.err(), refusal);
        let index = outcome.ok()?;
        let before = self.backed[slot].insert(page, index);
        assert!(fresh || before == Some(index));
        Some(index)
    }

    /// What EREMOVE does and says.
    fn removal(&mut self, index: EpcIndex) -> SgxStatus {
        if self.uses.get(&index) == Some(&Use::Secs) && self.children(index) != 0 {
            return SgxStatus::ChildPresent;
        }
        self.uses.remove(&index);
        SgxStatus::Success
    }

    fn open(&mut self, slot: usize, node: u32, preallocate: bool) {
        if self.sections[slot].is_some() {
            return;
        }
        let base = Gpa(host::EPC_GPA);
        let section = VirtualEpc::new(self.accounts[slot / 2].clone(), base, PAGES, node);
        if preallocate {
            let refusal = self.refusal(slot, PAGES);
            assert_eq!(section.preallocate().err(), refusal);
            if refusal.is_some() {
                return;
            }
            for page in 0..PAGES {
                let Some(Backing::Page(index)) = section.backing(gpa(page)) else {
                    panic!("page {page} is not backed");
                };
                self.backed[slot].insert(page, index);
            }
        }
        self.sections[slot] = Some(section);
    }

    fn close(&mut self, slot: usize, held: Option<EpcIndex>) {
        let Some(section) = self.sections[slot].take() else { return };
        let platform = self.pool.store().clone();
        let guard = held.map(|index| platform.hold(index).expect("a page that no leaf has"));
        drop(section);
        drop(guard);
        let pages: Vec<EpcIndex> = std::mem::take(&mut self.backed[slot]).into_values().collect();
        let machine = slot / 2;
        self.leaked.extend(held.map(|index| (index, machine)));
        for pass in 1..=2 {
            for &index in pages.iter().filter(|&&index| held != Some(index)) {
                if self.removal(index) == SgxStatus::ChildPresent && pass == 2 {
                    self.zombies.insert(index, machine);
                }
            }
        }
        for (secs, of) in self.zombies.clone() {
            if of == machine && self.removal(secs) == SgxStatus::Success {
                self.zombies.remove(&secs);
            }
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open { slot, node, preallocate } => self.open(slot, node, preallocate),
            Operation::Close { slot } => self.close(slot, None),
            Operation::CloseHeld { place } => {
                let held = self.touch(place).filter(|index| !self.uses.contains_key(index));
                self.close(place.0, held);
            }
            Operation::Touch { place } => drop(self.touch(place)),
            Operation::Create { place } => {
                let Some(index) = self.touch(place) else { return };
                let free = !self.uses.contains_key(&index);
                assert_eq!(self.kernel.create(index).is_ok(), free);
                self.uses.entry(index).or_insert(Use::Secs);
            }
            Operation::Add { secs, place } => {
                let (Some(secs), Some(index)) = (self.touch(secs), self.touch(place)) else {
                    return;
                };
                let fits =
                    self.uses.get(&secs) == Some(&Use::Secs) && !self.uses.contains_key(&index);
                let number = place.1 as u64;
                let added = self.kernel.add(secs, index, number, PageType::Reg);
                assert_eq!(added.is_ok(), fits);
                if fits {
                    self.uses.insert(index, Use::Child(secs));
                }
            }
            Operation::VersionArray { place } => {
                let Some(index) = self.touch(place) else { return };
                let free = !self.uses.contains_key(&index);
                assert_eq!(self.kernel.version_array(index).is_ok(), free);
                self.uses.entry(index).or_insert(Use::VersionArray);
            }
            Operation::Remove { place } => {
                let Some(&index) = self.backed[place.0].get(&place.1) else { return };
                let expected = self.removal(index);
                assert_eq!(self.kernel.remove(index), Ok(expected));
            }
            Operation::Reset { slot } => {
                let machine = [slot & !1, slot | 1];
                for _pass in 0..2 {
                    for slot in machine {
                        let Some(section) = &self.sections[slot] else { continue };
                        let removed = section.remove_all();
                        let pages: Vec<_> = self.backed[slot].values().copied().collect();
                        let left = pages
                            .into_iter()
                            .filter(|&index| self.removal(index) == SgxStatus::ChildPresent)
                            .count();
                        assert_eq!(removed, Ok(left));
                    }
                }
            }
        }
    }

    /// Nothing is lost, nothing belongs to two.
    fn check(&self) {
        let statistics = self.pool.statistics();
        assert_eq!(statistics.total, TOTAL);
        assert_eq!(statistics.used, self.used());
        assert_eq!(statistics.zombies, self.zombies.len());
        assert_eq!(statistics.leaked, self.leaked.len());
        assert_eq!(statistics.reserved, self.kept_from(usize::MAX));
        for (machine, account) in self.accounts.iter().enumerate() {
            assert_eq!(account.statistics().used, self.used_by(machine));
        }
        for (counts, (total, node)) in self.pool.nodes().iter().zip(HOST) {
            assert_eq!((counts.total, counts.node), (total as usize, node));
        }
        let nodes: usize = self.pool.nodes().iter().map(|counts| counts.used).sum();
        assert_eq!(nodes, statistics.used);
        let mut owned = BTreeSet::new();
        for (section, backed) in self.sections.iter().zip(&self.backed) {
            let Some(section) = section else { continue };
            for page in 0..PAGES {
                let expected =
                    backed.get(&page).map_or(Backing::None, |&index| Backing::Page(index));
                assert_eq!(section.backing(gpa(page)), Some(expected));
                if let Backing::Page(index) = expected {
                    assert!(owned.insert(index), "{index:?} backs two pages");
                }
            }
        }
        for index in self.zombies.keys().chain(self.leaked.keys()) {
            assert!(owned.insert(*index), "{index:?} was given out again");
        }
        for page in 0..TOTAL as u32 {
            let index = EpcIndex(page);
            let valid = self.pool.store().epcm(index).valid();
            assert_eq!(valid, self.uses.contains_key(&index), "{index:?}");
            assert!(!valid || owned.contains(&index), "{index:?} is in use by nobody");
        }
    }

    /// Every machine ends; what was not leaked can be given out again.
    fn end(mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot, None));
        self.check();
        assert!(self.zombies.is_empty());
        drop(self.accounts);
        assert_eq!(self.pool.statistics().reserved, 0);
        let (_section, rest) = host::drain(&self.pool.unlimited("another"), 0);
        assert_eq!(rest.len(), TOTAL - self.leaked.len());
        assert!(!rest.iter().any(|index| self.leaked.contains_key(index)));
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a failure can be repeated only with its seed")]
fn pages_are_conserved() {
    let set = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let seed = set("CLOISTER_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("CLOISTER_SEED={seed}");
    let cases = set("CLOISTER_CASES").unwrap_or(300) as u32;
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };

    TestRunner::new(config)
        .run(&prop::collection::vec(operation(), 1..120), |operations| {
            let mut world = World::new();
            for operation in &operations {
                world.apply(operation);
                world.check();
            }
            world.end();
            Ok(())
        })
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}
