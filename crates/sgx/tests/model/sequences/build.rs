//! The leaves that build, initialize, inspect and remove enclaves.

use std::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{EpcIndex, PageType};
use sgxs::sgxs::{Meas, MeasEAdd, MeasEExtend, SecinfoTruncated};

use crate::enclave::{PAGEINFO, SIGSTRUCT, SOURCE, TOKEN};
use crate::machine::Machine;

use super::tally::Outcome;
use super::turn::{Turn, holds_frames};
use super::world::{ADDED, Built, EPC, KINDS, sigstruct};

pub(crate) fn ecreate(turn: &mut Turn<'_, '_>) -> Outcome {
    let enclaves = turn.shared.pages(|_, view| view.is(PageType::Secs)).len();
    let page = if enclaves < 4 { turn.unused() } else { turn.choices.below(EPC as usize) as u32 };
    let kind = turn.choices.below(KINDS.len());
    turn.machine.operand(SOURCE, &KINDS[kind].secs());
    turn.secinfo(&SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
    turn.pageinfo(0, None);
    let outcome = turn.encls(leaf::ECREATE, PAGEINFO, Machine::window(page), 0).into();
    if outcome == Outcome::Completed && !turn.hostile {
        let eid = turn.shared.eid(page);
        turn.shared.built().insert(eid, Built::new(kind));
    }
    outcome
}

pub(crate) fn eadd(turn: &mut Turn<'_, '_>) -> Outcome {
    let secs = turn.secs(false);
    let eid = turn.shared.eid(secs);
    let kind = turn.shared.built().get(&eid).map_or(0, |built| built.kind);
    let spec = &KINDS[kind];
    // Mostly what is still missing.
    let present = turn.shared.pages(|_, view| view.valid() && view.secs.0 == secs);
    let addresses: Vec<u64> = present.iter().map(|&page| turn.shared.view(page).address).collect();
    let missing: Vec<usize> =
        (0..ADDED).filter(|&n| !addresses.contains(&(spec.base + spec.pages[n].offset))).collect();
    let any = turn.choices.below(ADDED);
    let place = if turn.choices.one_in(16) { any } else { *missing.first().unwrap_or(&any) };
    let added = &spec.pages[place];
    let target = turn.unused();
    turn.machine.memory.put(SOURCE, &added.contents[..]);
    turn.secinfo(&added.secinfo);
    turn.pageinfo(spec.base + added.offset, Some(secs));
    let outcome = turn.encls(leaf::EADD, PAGEINFO, Machine::window(target), 0).into();
    let secinfo = SecinfoTruncated {
        flags: sgx_isa::SecinfoFlags::from_bits_truncate(added.secinfo.flags.get()),
    };
    measured(turn, outcome, eid, &Meas::EAdd(MeasEAdd { offset: added.offset, secinfo }));
    outcome
}

pub(crate) fn eextend(turn: &mut Turn<'_, '_>) -> Outcome {
    let shared = turn.shared;
    let target = turn
        .page(|page, view| view.valid() && page != view.secs.0 && !shared.initialized(view.secs.0));
    let view = shared.view(target);
    let chunk = turn.choices.below(16);
    let mut data = [0; 256];
    shared.platform.page(EpcIndex(target)).read(chunk * 256, &mut data);
    let eid = shared.eid(view.secs.0);
    let base = shared.built().get(&eid).map_or(0, |built| KINDS[built.kind].base);
    let offset = view.address.wrapping_sub(base) + chunk as u64 * 256;
    let rcx = Machine::window(target) + chunk as u64 * 256;
    let outcome = turn.encls(leaf::EEXTEND, Machine::window(view.secs.0), rcx, 0).into();
    measured(turn, outcome, eid, &Meas::EExtend { header: MeasEExtend { offset }, data });
    outcome
}

/// Notes what was measured. A leaf with spoiled operands may have measured something else, or
/// another enclave: what is known of that one is no longer true.
fn measured(turn: &mut Turn<'_, '_>, outcome: Outcome, eid: u64, what: &Meas) {
    if outcome != Outcome::Completed {
        return;
    }
    let shared = turn.shared;
    let mut all = shared.built();
    if turn.hostile {
        all.remove(&eid);
        let counter = offset_of!(Secs, measured_blocks);
        for page in shared.pages(|_, view| view.is(PageType::Secs)) {
            let blocks = shared.word(page, counter);
            if all.get(&shared.eid(page)).is_some_and(|built| built.blocks() != blocks) {
                all.remove(&shared.eid(page));
            }
        }
    } else if let Some(built) = all.get_mut(&eid) {
        built.measure(what);
    }
}

pub(crate) fn einit(turn: &mut Turn<'_, '_>) -> Outcome {
    let shared = turn.shared;
    // Preferably an enclave that can be entered.
    let complete = turn.shared.pages(|page, view| {
        view.is(PageType::Secs)
            && !shared.initialized(page)
            && shared.known(page)
            && shared.children(page).len() >= ADDED
    });
    let secs = match turn.choices.of(&complete) {
        Some(secs) => secs,
        None => turn.page(|page, view| {
            view.is(PageType::Secs) && !shared.initialized(page) && shared.known(page)
        }),
    };
    let eid = shared.eid(secs);
    let known = shared.built().get(&eid).map(|built| (built.kind, built.mrenclave()));
    let (kind, hash) = known.unwrap_or((0, KINDS[0].mrenclave()));
    // Sometimes another enclave's.
    let kind = if turn.choices.one_in(16) { (kind + 1) % KINDS.len() } else { kind };
    let right = known.is_some_and(|(right, _)| right == kind);
    turn.machine.operand(SIGSTRUCT, &*sigstruct(kind, hash));
    turn.machine.operand(TOKEN, &EinitToken::none());
    let initialized = shared.initialized(secs);
    let outcome = turn.encls(leaf::EINIT, SIGSTRUCT, Machine::window(secs), TOKEN).into();
    if shared.alone
        && !turn.hostile
        && right
        && !initialized
        && shared.view(secs).is(PageType::Secs)
    {
        assert_eq!(outcome, Outcome::Completed, "an enclave measures as sgxs says");
    }
    outcome
}

pub(crate) fn eremove(turn: &mut Turn<'_, '_>) -> Outcome {
    let shared = turn.shared;
    let full = shared.pages(|_, view| !view.valid()).len() < 10;
    let page = if full {
        // Make room: the pages of an enclave that cannot be initialized, or else of the oldest
        // one; the SECS last.
        let all = shared.pages(|_, view| view.is(PageType::Secs));
        let lost = all.iter().find(|&&page| !shared.initialized(page) && !shared.known(page));
        let oldest = all.iter().min_by_key(|&&page| shared.eid(page));
        let secs = *lost.or(oldest).unwrap_or(&0);
        shared.children(secs).first().copied().unwrap_or(secs)
    } else if turn.choices.one_in(8) {
        turn.choices.below(EPC as usize) as u32
    } else {
        turn.page(|_, view| view.is(PageType::Trim) || !view.valid())
    };
    turn.encls(leaf::EREMOVE, 0, Machine::window(page), 0).into()
}

pub(crate) fn edbgrd(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|page, view| view.valid() && view.secs.0 != page);
    let at = turn.choices.below(512) as u64 * 8;
    turn.encls(leaf::EDBGRD, 0, Machine::window(page) + at, 0).into()
}

pub(crate) fn edbgwr(turn: &mut Turn<'_, '_>) -> Outcome {
    // Mostly not what is to be restored.
    let frames = turn.choices.one_in(8);
    let page = turn
        .page(|page, view| view.valid() && view.secs.0 != page && (frames || !holds_frames(view)));
    let at = turn.choices.below(512) as u64 * 8;
    let value = turn.choices.word();
    // FLAGS of a TCS stay legal, or nobody could enter.
    let (at, value) =
        if turn.shared.view(page).is(PageType::Tcs) { (8, value & 1) } else { (at, value) };
    turn.encls(leaf::EDBGWR, value, Machine::window(page) + at, 0).into()
}
