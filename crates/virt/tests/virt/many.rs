//! A host with many machines that come, work, reset and are killed at any moment, several at once:
//! pages are conserved exactly.
//!
//! `CLOISTER_SEED` repeats the machines' decisions, `CLOISTER_MACHINES` sets their number.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::thread;

use cloister_sgx::{EpcIndex, PageType, SgxStatus};
use cloister_virt::{EpcLimits, EpcPool, PoolStatistics, SgxVm};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::host::{self, EPC_GPA};
use crate::kernel::Kernel;

/// Pages of each of a machine's two sections.
const PAGES: u64 = 10;
/// Machines that a thread of the host runs side by side.
const ALIVE: usize = 4;
const THREADS: usize = 4;
/// Every so many machines one is killed inside an enclave, and one while a leaf holds a page.
const RARE: usize = 20;
/// What a machine leaves behind that is killed inside an enclave: TCS, SSA frame, and the SECS, whose
/// children they are.
const LEFT_INSIDE: usize = 3;

/// Decisions (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % sides as u64) as usize
    }

    fn one_of(&mut self, pages: &[EpcIndex]) -> Option<EpcIndex> {
        (!pages.is_empty()).then(|| pages[self.next(pages.len())])
    }
}

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Secs,
    Child(EpcIndex),
    VersionArray,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Between two leaves.
    Killed,
    /// After a reset.
    Reset,
    /// With a processor inside an enclave.
    Inside,
    /// While a leaf holds a page.
    Held,
}

struct Machine {
    vm: SgxVm,
    kernel: Kernel,
    backed: BTreeMap<Gpa, EpcIndex>,
    uses: BTreeMap<EpcIndex, Use>,
    /// Touches that no page was left for.
    refused: u64,
    death: Death,
    operations_left: usize,
}

impl Machine {
    fn new(pool: &Arc<EpcPool>, number: usize, dice: &mut Dice) -> Self {
        let name = format!("vm {number}");
        let limits = EpcLimits { reservation: dice.next(4), quota: 8 + dice.next(20) };
        let account = pool.open(name.as_str(), limits).unwrap_or_else(|_| pool.unlimited(name));
        let sections = [EPC_GPA, EPC_GPA + (1 << 20)].map(|base| host::section(base, PAGES));
        let vm = SgxVm::new(account, &sections, host::everything()).expect("a valid machine");
        Self {
            vm,
            kernel: Kernel::new(pool.store().clone()),
            backed: BTreeMap::new(),
            uses: BTreeMap::new(),
            refused: 0,
            death: match number % RARE {
                0 => Death::Inside,
                1 => Death::Held,
                n if n % 2 == 0 => Death::Killed,
                _ => Death::Reset,
            },
            operations_left: 20 + dice.next(40),
        }
    }

    fn touch(&mut self, dice: &mut Dice) {
        let page = dice.next(2 * PAGES as usize) as u64;
        let gpa = Gpa(EPC_GPA + ((page / PAGES) << 20) + page % PAGES * PAGE_SIZE);
        let used = self.vm.account().statistics().used;
        if let Ok(index) = self.vm.populate(gpa).expect("EPC") {
            let before = self.backed.insert(gpa, index);
            assert!(before.is_none_or(|before| before == index));
        } else {
            assert!(used >= self.vm.account().limits().reservation);
            self.refused += 1;
        }
    }

    fn free(&self) -> Vec<EpcIndex> {
        let free = self.backed.values().filter(|index| !self.uses.contains_key(index));
        free.copied().collect()
    }

    fn children(&self, secs: EpcIndex) -> usize {
        self.uses.values().filter(|&&used| used == Use::Child(secs)).count()
    }

    fn operate(&mut self, dice: &mut Dice) {
        self.operations_left -= 1;
        let all: Vec<EpcIndex> = self.backed.values().copied().collect();
        let free = self.free();
        let enclaves: Vec<EpcIndex> =
            all.iter().copied().filter(|index| self.uses.get(index) == Some(&Use::Secs)).collect();
        match dice.next(12) {
            0..4 => self.touch(dice),
            4 | 5 => {
                let Some(secs) = dice.one_of(&free) else { return };
                self.kernel.create(secs).expect("ECREATE");
                self.uses.insert(secs, Use::Secs);
            }
            6..9 => {
                let (Some(secs), Some(page)) = (dice.one_of(&enclaves), dice.one_of(&free)) else {
                    return;
                };
                let number = dice.next(16) as u64;
                self.kernel.add(secs, page, number, PageType::Reg).expect("EADD");
                self.uses.insert(page, Use::Child(secs));
            }
            9 => {
                let Some(page) = dice.one_of(&free) else { return };
                self.kernel.version_array(page).expect("EPA");
                self.uses.insert(page, Use::VersionArray);
            }
            10 => {
                let Some(page) = dice.one_of(&all) else { return };
                let parent = self.uses.get(&page) == Some(&Use::Secs) && self.children(page) != 0;
                let expected = if parent { SgxStatus::ChildPresent } else { SgxStatus::Success };
                assert_eq!(self.kernel.remove(page), Ok(expected));
                if !parent {
                    self.uses.remove(&page);
                }
            }
            _ if dice.next(4) == 0 => self.reset(),
            _ => self.touch(dice),
        }
    }

    fn reset(&mut self) {
        self.vm.reset().expect("no processor is inside");
        self.uses.clear();
    }

    /// What the account says and the EPCM holds is what the machine did.
    fn check(&self) {
        let statistics = self.vm.account().statistics();
        assert_eq!((statistics.used, statistics.refused), (self.backed.len(), self.refused));
        assert_eq!((statistics.zombies, statistics.leaked), (0, 0));
        for &index in self.backed.values() {
            let valid = self.vm.platform().epcm(index).valid();
            assert_eq!(valid, self.uses.contains_key(&index));
        }
    }

    /// Ends. The result is the number of pages that the host loses.
    fn end(mut self) -> usize {
        let platform = self.vm.platform().clone();
        let free = self.free();
        match (self.death, &free[..]) {
            (Death::Inside, &[secs, tcs, ssa, ..]) => {
                self.kernel.threaded(secs, tcs, ssa);
                let inside = self.kernel.enter();
                drop(self.vm);
                self.kernel.exit(inside);
                LEFT_INSIDE
            }
            (Death::Held, &[page, ..]) => {
                let held = platform.hold(page).expect("a page that no leaf has");
                drop(self.vm);
                drop(held);
                1
            }
            (Death::Reset, _) => {
                self.reset();
                0
            }
            _ => 0,
        }
    }
}

/// Runs machines, some of them at a time; returns how many pages the host lost.
fn run(pool: &Arc<EpcPool>, mut numbers: impl Iterator<Item = usize>, mut dice: Dice) -> usize {
    let mut machines: Vec<Machine> = Vec::new();
    let mut lost = 0;
    loop {
        if machines.len() < ALIVE
            && let Some(number) = numbers.next()
        {
            machines.push(Machine::new(pool, number, &mut dice));
        }
        if machines.is_empty() {
            return lost;
        }
        let n = dice.next(machines.len());
        if machines[n].operations_left == 0 {
            lost += machines.swap_remove(n).end();
            continue;
        }
        machines[n].operate(&mut dice);
        machines[n].check();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a failure can be repeated only with its seed")]
fn a_thousand_machines_on_one_pool_return_every_page_but_those_in_use() {
    let set = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seed = set("CLOISTER_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let count = set("CLOISTER_MACHINES").unwrap_or(1000) as usize;
    eprintln!("CLOISTER_SEED={seed}");
    // Less than the machines alive want, besides what the dead leave behind.
    let pages = (count / RARE * (LEFT_INSIDE + 1) + 120) as u32;
    let pool = host::pool_of(&[(pages / 2, 0), (pages - pages / 2, 1)]);

    let lost: usize = thread::scope(|scope| {
        let runs: Vec<_> = (0..THREADS)
            .map(|n| {
                let pool = &pool;
                let dice = Dice(seed ^ ((n as u64) << 56));
                scope.spawn(move || run(pool, (0..count).skip(n).step_by(THREADS), dice))
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("no assertion failed")).sum()
    });

    let total = pages as usize;
    let expected = PoolStatistics { total, used: lost, leaked: lost, ..PoolStatistics::default() };
    assert_eq!(pool.statistics(), expected);
    let (_section, rest) = host::drain(&pool.unlimited("the last"), 0);
    assert_eq!(rest.iter().collect::<BTreeSet<_>>().len(), total - lost);
    assert!(rest.iter().all(|&index| !pool.store().epcm(index).valid()));
}
