//! The leaves that page enclaves out and in.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloister_sgx::encls::leaf;
use cloister_sgx::enclv::leaf as hypervisor;
use cloister_sgx::layout::{PageInfo, Pcmd, Secs};
use cloister_sgx::{EpcIndex, EpcmFlags, EpcmView, PageType, SgxStatus};
use zerocopy::FromBytes as _;

use crate::enclave::PAGEINFO;
use crate::machine::{Machine, OPERANDS};

use super::tally::Outcome;
use super::turn::Turn;
use super::world::{Evicted, Shared};

/// Where evicted pages and their PCMD lie.
const CONTENTS: u64 = OPERANDS + 0x8000;
const PCMD: u64 = OPERANDS + 0x1_0000;
/// Where ERDINFO puts its RDINFO.
const RDINFO: u64 = OPERANDS + 0x2_0000;
/// Evicted pages that are remembered.
const KEPT: usize = 24;

pub(crate) fn epa(turn: &mut Turn<'_, '_>) -> Outcome {
    let arrays = turn.shared.pages(|_, view| view.is(PageType::Va)).len();
    let page = if arrays < 3 { turn.unused() } else { turn.page(|_, view| view.valid()) };
    turn.encls(leaf::EPA, PageType::Va as u64, Machine::window(page), 0).into()
}

pub(crate) fn eblock(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|page, view| view.valid() && view.secs.0 != page);
    turn.encls(leaf::EBLOCK, 0, Machine::window(page), 0).into()
}

pub(crate) fn etrack(turn: &mut Turn<'_, '_>) -> Outcome {
    let shared = turn.shared;
    // Preferably where a page waits for it.
    let blocked = EpcmFlags::BLOCKED | EpcmFlags::MODIFIED | EpcmFlags::PR;
    let waiting = shared.pages(|_, view| view.valid() && view.flags.intersects(blocked));
    let secs = match turn.choices.of(&waiting) {
        Some(page) => shared.view(page).secs.0,
        None => turn.page(|_, view| view.is(PageType::Secs)),
    };
    turn.encls(leaf::ETRACK, 0, Machine::window(secs), 0).into()
}

pub(crate) fn ewb(turn: &mut Turn<'_, '_>) -> Outcome {
    let shared = turn.shared;
    let page = if turn.choices.one_in(4) {
        turn.page(|page, view| {
            view.valid() && view.secs.0 == page && shared.children(page).is_empty()
        })
    } else {
        turn.page(|_, view| view.valid() && view.flags.contains(EpcmFlags::BLOCKED))
    };
    let array = turn.page(|other, view| view.is(PageType::Va) && other != page);
    let slots = [0; 4].map(|_| turn.choices.below(512));
    let slot = slots.into_iter().find(|&slot| shared.word(array, slot * 8) == 0);
    let slot = slot.unwrap_or(slots[0]);
    let pageinfo =
        PageInfo { srcpge: CONTENTS.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    turn.machine.operand(PAGEINFO, &pageinfo);
    turn.machine.memory.put(CONTENTS, &[0; 4096]);
    turn.machine.memory.put(PCMD, &[0; 128]);
    let plain = (shared.alone && shared.view(page).valid())
        .then(|| shared.platform.page(EpcIndex(page)).to_bytes());
    let at = Machine::window(array) + slot as u64 * 8;
    let outcome = turn.encls(leaf::EWB, PAGEINFO, Machine::window(page), at).into();
    let occupied = Outcome::Reported(SgxStatus::VaSlotOccupied.rax());
    if !turn.hostile && (outcome == Outcome::Completed || outcome == occupied) {
        let memory = &turn.machine.memory;
        let linaddr = memory.get(PAGEINFO, 8).try_into().expect("8 bytes");
        let mut evicted = shared.evicted();
        if evicted.len() == KEPT {
            evicted.remove(0);
        }
        evicted.push(Arc::new(Evicted {
            contents: memory.get(CONTENTS, 4096),
            pcmd: memory.get(PCMD, 128),
            linaddr: u64::from_le_bytes(linaddr),
            version: shared.word(array, slot * 8),
            plain,
            loaded: AtomicBool::new(false),
        }));
    }
    outcome
}

pub(crate) fn eldb(turn: &mut Turn<'_, '_>) -> Outcome {
    load(turn, leaf::ELDB)
}

pub(crate) fn eldu(turn: &mut Turn<'_, '_>) -> Outcome {
    load(turn, leaf::ELDU)
}

pub(crate) fn eldbc(turn: &mut Turn<'_, '_>) -> Outcome {
    load(turn, leaf::ELDBC)
}

pub(crate) fn elduc(turn: &mut Turn<'_, '_>) -> Outcome {
    load(turn, leaf::ELDUC)
}

pub(crate) fn erdinfo(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|_, view| view.valid());
    turn.machine.memory.put(RDINFO, &[0; 32]);
    turn.encls(leaf::ERDINFO, RDINFO, Machine::window(page), 0).into()
}

pub(crate) fn etrackc(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|page, view| view.valid() && view.secs.0 != page);
    turn.encls(leaf::ETRACKC, 0, Machine::window(page), 0).into()
}

pub(crate) fn edecvirtchild(turn: &mut Turn<'_, '_>) -> Outcome {
    virtual_child(turn, hypervisor::EDECVIRTCHILD)
}

pub(crate) fn eincvirtchild(turn: &mut Turn<'_, '_>) -> Outcome {
    virtual_child(turn, hypervisor::EINCVIRTCHILD)
}

fn virtual_child(turn: &mut Turn<'_, '_>, number: u32) -> Outcome {
    let page = turn.page(|page, view| view.valid() && view.secs.0 != page);
    let secs = turn.shared.view(page).secs.0;
    turn.enclv(number, Machine::window(page), Machine::window(secs), 0).into()
}

pub(crate) fn esetcontext(turn: &mut Turn<'_, '_>) -> Outcome {
    let secs = turn.page(|_, view| view.is(PageType::Secs));
    let context = turn.choices.word().to_le_bytes();
    turn.machine.memory.put(RDINFO, &context);
    turn.enclv(hypervisor::ESETCONTEXT, 0, Machine::window(secs), RDINFO).into()
}

/// Loads a page that was evicted, perhaps once more, perhaps changed meanwhile.
fn load(turn: &mut Turn<'_, '_>, number: u32) -> Outcome {
    let shared = turn.shared;
    let all: Vec<Arc<Evicted>> = shared.evicted().clone();
    let waiting: Vec<usize> = (0..all.len()).filter(|&n| loadable(shared, &all[n])).collect();
    let again: Vec<usize> = (0..all.len()).collect();
    let from = if waiting.is_empty() || turn.choices.one_in(8) { &again } else { &waiting };
    let Some(number_of) = turn.choices.of(from) else {
        // Nothing was evicted so far: the leaf finds zeros.
        turn.machine.memory.put(CONTENTS, &[0; 4096]);
        turn.machine.memory.put(PCMD, &[0; 128]);
        turn.pageinfo(0, None);
        let page = turn.unused();
        return turn.encls(number, PAGEINFO, Machine::window(page), Machine::window(0)).into();
    };
    let evicted = &all[number_of];
    let (mut contents, mut pcmd) = (evicted.contents.clone(), evicted.pcmd.clone());
    // A change of what is not secret is found as well.
    let tampered = turn.choices.one_in(16);
    if tampered {
        let bit = turn.choices.below(8);
        let place = turn.choices.below(4096 + 16);
        match place.checked_sub(4096) {
            None => contents[place] ^= 1 << bit,
            Some(place) => pcmd[offset_of!(Pcmd, mac) + place] ^= 1 << bit,
        }
    }
    let Metadata { page_type, child, eid } = evicted.metadata();
    let secs = turn.page(|page, view| view.is(PageType::Secs) && shared.eid(page) == eid);
    let (array, slot) = slot_of(shared, evicted.version).unwrap_or((0, 0));
    let pageinfo = PageInfo {
        linaddr: evicted.linaddr.into(),
        srcpge: CONTENTS.into(),
        secinfo: PCMD.into(),
        secs: if child { Machine::window(secs) } else { 0 }.into(),
    };
    turn.machine.operand(PAGEINFO, &pageinfo);
    turn.machine.memory.put(CONTENTS, &contents);
    turn.machine.memory.put(PCMD, &pcmd);
    let target = turn.unused();
    let at = Machine::window(array) + slot as u64 * 8;
    let outcome = turn.encls(number, PAGEINFO, Machine::window(target), at).into();
    if outcome == Outcome::Completed {
        assert!(!tampered, "a changed page was loaded");
        let before = evicted.loaded.swap(true, Ordering::AcqRel);
        assert!(!before, "version {} was used twice", evicted.version);
        if let Some(plain) = evicted.plain.filter(|_| !turn.hostile) {
            let mut loaded = shared.platform.page(EpcIndex(target)).to_bytes();
            if page_type == Some(PageType::Secs) {
                // Where the SECS lies now.
                let context = offset_of!(Secs, enclavecontext)..offset_of!(Secs, padding);
                loaded[context.clone()].copy_from_slice(&plain[context]);
            }
            assert!(loaded == plain, "what is loaded is what was evicted");
        }
    }
    outcome
}

/// What the PCMD of an evicted page says of it.
struct Metadata {
    page_type: Option<PageType>,
    /// Whether it is to have an SECS.
    child: bool,
    eid: u64,
}

impl Evicted {
    fn metadata(&self) -> Metadata {
        let pcmd = Pcmd::read_from_bytes(&self.pcmd[..]).expect("a PCMD");
        let page_type = pcmd.secinfo.page_type();
        let child = !matches!(page_type, Some(PageType::Secs | PageType::Va));
        Metadata { page_type, child, eid: pcmd.enclaveid.get() }
    }
}

/// The version array and the slot in it that hold `version`: a version array may have moved.
fn slot_of(shared: &Shared, version: u64) -> Option<(u32, usize)> {
    shared
        .pages(|_, view| view.is(PageType::Va))
        .into_iter()
        .flat_map(|page| (0..512).map(move |slot| (page, slot)))
        .find(|&(page, slot)| shared.word(page, slot * 8) == version)
}

/// Whether an evicted page's version and its SECS are still in the EPC.
fn loadable(shared: &Shared, evicted: &Evicted) -> bool {
    let Metadata { child, eid, .. } = evicted.metadata();
    let parent = |page: u32, view: &EpcmView| view.is(PageType::Secs) && shared.eid(page) == eid;
    !evicted.loaded.load(Ordering::Relaxed)
        && (!child || !shared.pages(parent).is_empty())
        && slot_of(shared, evicted.version).is_some()
}
