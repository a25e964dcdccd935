//! Random sequences of leaves by several processors, and what must hold after each of them.

use std::cell::RefCell;
use std::collections::HashMap;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::processor::RAX;
use cloister_sgx::{
    EpcIndex, EpcmFlags, EpcmView, ExitingEvent, LeafOutcome, PageType, SgxStatus, Stop,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use zerocopy::IntoBytes as _;

use crate::enclave::{PAGEINFO, Page, SECINFO, Spec, tcs};
use crate::machine::{Machine, Mapping, OPERANDS};
use crate::signer::Signer;

const EPC: u32 = 20;
const PROCESSORS: usize = 3;
const EVICTED: u64 = OPERANDS + 0x8000;
const PCMD: u64 = OPERANDS + 0x1_0000;

/// One step: a processor, a leaf and what it is applied to.
#[derive(Clone, Copy, Debug)]
struct Step {
    processor: usize,
    leaf: u8,
    page: u32,
    other: u32,
    place: u64,
    variant: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Most pages of the first enclave lie at the beginning of the EPC.
    let page = || prop_oneof![0..8u32, 0..EPC];
    let leaf = prop_oneof![3 => 0..22u8, 1 => 14..22u8];
    let step = (0..PROCESSORS, leaf, page(), page(), 0..8u64, any::<u8>()).prop_map(
        |(processor, leaf, page, other, place, variant)| Step {
            processor,
            leaf,
            page,
            other,
            place,
            variant,
        },
    );
    proptest::collection::vec(step, 1..400)
}

/// An evicted page: contents, PCMD, linear address, version slot, and what the PCMD says of it.
struct Evicted {
    contents: Vec<u8>,
    pcmd: Vec<u8>,
    linaddr: u64,
    slot: u64,
}

struct World {
    processors: Vec<Machine>,
    spec: Spec,
    evicted: Vec<Evicted>,
}

impl World {
    fn new() -> Self {
        let mut spec = Spec::simple();
        // Every page may become a TCS whose SSA is the page after it.
        spec.pages = (0..8).map(|place| Self::page(place, place)).collect();
        let first = Machine::new(EPC);
        let platform = first.platform.clone();
        let mut processors = vec![first];
        processors.extend((1..PROCESSORS).map(|_| Machine::on(platform.clone())));
        for processor in &mut processors {
            processor.memory.le_hash = Signer::a().mrsigner();
            processor.xsave.image_mut(3).fill(0);
            processor.memory.put(EVICTED, &[0; 4096]);
            processor.memory.put(PCMD, &[0; 128]);
        }
        // An enclave to begin with: two threads, their frames and some data.
        spec.pages = vec![
            Self::page(0, 1),
            Self::page(1, 1),
            Self::page(2, 0),
            Self::page(3, 0),
            Self::page(4, 0),
        ];
        let status = spec.start(&mut processors[0], 0, Signer::a());
        assert_eq!(status, SgxStatus::Success);
        processors[0].encls(leaf::EPA, 3, Machine::window(EPC - 1), 0).expect("EPA completes");
        for processor in &mut processors {
            spec.map(processor, 0);
        }
        Self { processors, spec, evicted: Vec::new() }
    }

    /// A page at `place`: a thread with its SSA two pages on, or data.
    fn page(place: u64, kind: u64) -> Page {
        if kind & 1 != 0 {
            Page::tcs(place << 12, tcs((place + 2) << 12, 1, 0x4010))
        } else {
            Page::reg(place << 12, SecInfoFlags::R | SecInfoFlags::W, [place as u8; 4096])
        }
    }

    fn view(&self, page: u32) -> EpcmView {
        self.processors[0].platform.epcm(EpcIndex(page))
    }

    /// One of the SECS pages, chosen by `number`; any page while there is none.
    fn secs(&self, number: u32) -> u32 {
        let all: Vec<u32> = (0..EPC).filter(|&page| self.view(page).is(PageType::Secs)).collect();
        if all.is_empty() { number } else { all[number as usize % all.len()] }
    }

    /// Runs a step; whether its leaf completed.
    fn run(&mut self, step: Step) -> bool {
        let window = Machine::window;
        let linaddr = self.spec.base + step.place * 4096;
        let platform = self.processors[0].platform.clone();
        // Half of the time the operands fit together.
        let fits = step.variant & 0x80 != 0;
        let secs = if fits { self.secs(step.other) } else { step.other };
        let owner = if fits { self.view(step.page).secs.0 } else { step.other };
        let va = if fits { EPC - 1 } else { step.other };
        let machine = &mut self.processors[step.processor];
        match step.leaf {
            0 => done(self.spec.ecreate(machine, step.page)),
            1 | 2 => {
                let page = Self::page(step.place, step.variant.into());
                done(self.spec.eadd(machine, secs, step.page, &page))
            }
            3 => done(machine.encls(leaf::EEXTEND, window(owner), window(step.page), 0)),
            4 => {
                let sigstruct = self.spec.sigstruct(Signer::a());
                let none = EinitToken::none();
                self.spec.einit(machine, step.page, &sigstruct, &none).is_ok()
            }
            5 => done(machine.encls(leaf::EREMOVE, 0, window(step.page), 0)),
            6 => done(machine.encls(leaf::EPA, 3, window(step.page), 0)),
            7 | 8 => done(machine.encls(leaf::EBLOCK, 0, window(step.page), 0)),
            9 => done(machine.encls(leaf::ETRACK, 0, window(secs), 0)),
            10 | 11 => {
                let slot = window(va) + u64::from(step.variant & 0x7f) * 8;
                machine.operand(
                    PAGEINFO,
                    &PageInfo {
                        srcpge: EVICTED.into(),
                        secinfo: PCMD.into(),
                        ..PageInfo::default()
                    },
                );
                let evicted = done(machine.encls(leaf::EWB, PAGEINFO, window(step.page), slot));
                if evicted {
                    let linaddr = machine.memory.get(PAGEINFO, 8);
                    self.evicted.push(Evicted {
                        contents: machine.memory.get(EVICTED, 4096),
                        pcmd: machine.memory.get(PCMD, 128),
                        linaddr: u64::from_le_bytes(linaddr.try_into().expect("8 bytes")),
                        slot,
                    });
                }
                evicted
            }
            12 | 13 => {
                let Some(evicted) = self.evicted.get(step.place as usize % 8) else { return false };
                let child = evicted.pcmd[1] != 0 && evicted.pcmd[1] != 3;
                machine.memory.put(EVICTED, &evicted.contents);
                machine.memory.put(PCMD, &evicted.pcmd);
                machine.operand(
                    PAGEINFO,
                    &PageInfo {
                        linaddr: evicted.linaddr.into(),
                        srcpge: EVICTED.into(),
                        secinfo: PCMD.into(),
                        secs: if child { window(secs) } else { 0 }.into(),
                    },
                );
                let number = if step.variant & 1 == 0 { leaf::ELDU } else { leaf::ELDB };
                done(machine.encls(number, PAGEINFO, window(step.page), evicted.slot))
            }
            14 => {
                machine.operand(
                    PAGEINFO,
                    &PageInfo {
                        linaddr: linaddr.into(),
                        secs: window(secs).into(),
                        ..PageInfo::default()
                    },
                );
                let added = done(machine.encls(leaf::EAUG, PAGEINFO, window(step.page), 0));
                if added {
                    let index = EpcIndex(step.page);
                    for processor in &mut self.processors {
                        let mapping = Mapping::Epc { index, writable: true };
                        processor.memory.mappings.insert(linaddr, mapping);
                    }
                }
                added
            }
            15 | 16 => {
                let (number, page_type) = match step.variant % 3 {
                    0 => (leaf::EMODPR, PageType::Reg),
                    1 => (leaf::EMODT, PageType::Tcs),
                    _ => (leaf::EMODT, PageType::Trim),
                };
                machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::R, page_type));
                done(machine.encls(number, SECINFO, window(step.page), 0))
            }
            17 | 18 => {
                let number = if step.variant & 3 == 0 { user::ERESUME } else { user::EENTER };
                machine.enclu(number, linaddr & !0x6000, 0x40_2000, 0).is_ok()
            }
            19 => machine.enclu(user::EEXIT, 0x40_3000, 0, 0).is_ok(),
            20 => machine.aex(ExitingEvent::Interrupt).is_some(),
            _ => {
                // The SECINFO of the request, in whatever page lies at place 4.
                let view = platform.epcm(EpcIndex(step.page));
                let flags = SecInfoFlags::from_bits_truncate(u64::from(view.flags.bits() & 0x3f));
                let secinfo = SecInfo::new(flags, view.page_type);
                if let Some(Mapping::Epc { index, .. }) =
                    machine.memory.mappings.get(&(self.spec.base + 0x4000))
                    && platform.epcm(*index).is(PageType::Reg)
                {
                    platform.page(*index).write(0x100, secinfo.as_bytes());
                }
                let number =
                    [user::EACCEPT, user::EMODPE, user::EACCEPTCOPY][usize::from(step.variant % 3)];
                let source = self.spec.base + 0x4000;
                machine.enclu(number, source + 0x100, view.address, source).is_ok()
                    && (number == user::EMODPE || machine.cpu.gpr[RAX] == 0)
            }
        }
    }

    /// What must hold at any time.
    fn check(&self, inside: usize) -> Result<(), TestCaseError> {
        let mut active = 0;
        for page in 0..EPC {
            let view = self.view(page);
            if !view.valid() {
                continue;
            }
            match view.page_type {
                PageType::Secs | PageType::Va => {
                    prop_assert_eq!(view.secs, EpcIndex(page));
                    prop_assert!(!view.flags.intersects(EpcmFlags::R | EpcmFlags::BLOCKED));
                }
                _ => {
                    let owner = self.view(view.secs.0);
                    prop_assert!(owner.is(PageType::Secs), "page {} has no SECS", page);
                    let offset = view.address.wrapping_sub(self.spec.base);
                    prop_assert!(offset < self.spec.size, "outside ELRANGE");
                }
            }
            if view.page_type == PageType::Tcs && !view.flags.contains(EpcmFlags::MODIFIED) {
                let state = self.processors[0].platform.page(EpcIndex(page)).load(0);
                // A regular page that became a TCS holds what software wrote.
                active += usize::from(state == 1);
            }
        }
        prop_assert!(active <= inside, "{} threads on {} processors", active, inside);
        Ok(())
    }

    fn inside(&self) -> usize {
        self.processors.iter().filter(|machine| machine.state.in_enclave()).count()
    }

    /// MRENCLAVE of every SECS, by EID.
    fn measurements(&self) -> HashMap<u64, [u8; 32]> {
        let pages = (0..EPC).filter(|&page| self.view(page).is(PageType::Secs));
        pages
            .map(|page| {
                let page = self.processors[0].platform.page(EpcIndex(page));
                let mut hash = [0; 32];
                page.read(64, &mut hash);
                (page.load(296), hash)
            })
            .collect()
    }
}

/// Whether a leaf completed without an error to report.
fn done(outcome: Result<LeafOutcome, Stop>) -> bool {
    outcome.is_ok_and(|outcome| outcome.status.is_none_or(|status| status == SgxStatus::Success))
}

#[test]
fn invariants_hold_under_random_sequences_of_leaves() {
    // The same sequences each time, or as many others as asked for.
    let mut runner = match std::env::var("CLOISTER_SEQUENCES") {
        Ok(cases) => TestRunner::new(Config {
            cases: cases.parse().expect("CLOISTER_SEQUENCES is a number of cases"),
            failure_persistence: None,
            ..Config::default()
        }),
        Err(_) => TestRunner::new_with_rng(
            Config { cases: 100, failure_persistence: None, ..Config::default() },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        ),
    };
    let completed = RefCell::new([0usize; 22]);
    let outcome = runner.run(&steps(), |steps| {
        let mut world = World::new();
        for step in steps {
            let before = world.measurements();
            if world.run(step) {
                completed.borrow_mut()[usize::from(step.leaf)] += 1;
            }
            world.check(world.inside())?;
            // Only EADD, EEXTEND and EINIT change a measurement.
            if !(1..=4).contains(&step.leaf) {
                let after = world.measurements();
                for (eid, hash) in &before {
                    prop_assert!(after.get(eid).is_none_or(|now| now == hash), "{:?}", step);
                }
            }
        }
        // Nothing is lost: once everyone has left, every page can be taken back.
        for processor in &mut world.processors {
            processor.state.reset(&processor.platform.clone());
        }
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses = (0..EPC).map(|page| world.processors[0].eremove(page)).collect();
        }
        prop_assert_eq!(statuses, vec![SgxStatus::Success; EPC as usize]);
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    let completed = completed.into_inner();
    assert!(completed.iter().all(|&times| times > 0), "a leaf never completed: {completed:?}");
}
