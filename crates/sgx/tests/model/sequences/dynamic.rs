//! The leaves of SGX2: the operating system's half and the enclave's.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{EncluOutcome, EpcmFlags, EpcmView, PageType, Stop};
use cloister_x86::Gpr;
use zerocopy::IntoBytes as _;

use super::tally::Outcome;
use super::turn::Turn;
use super::world::{ADDED, KINDS};
use crate::enclave::{PAGEINFO, SECINFO, tcs};
use crate::machine::Machine;

const CHANGING: EpcmFlags = EpcmFlags::PENDING.union(EpcmFlags::MODIFIED).union(EpcmFlags::PR);

pub(crate) fn eaug(turn: &mut Turn<'_, '_>) -> Outcome {
    let secs = turn.secs(true);
    let shared = turn.shared;
    let base = shared.word(secs, std::mem::offset_of!(cloister_sgx::layout::Secs, baseaddr));
    let place = ADDED + turn.choices.below(6);
    let linaddr = base.wrapping_add(place as u64 * 4096);
    let pageinfo = PageInfo {
        linaddr: linaddr.into(),
        secs: Machine::window(secs).into(),
        ..PageInfo::default()
    };
    turn.machine.operand(PAGEINFO, &pageinfo);
    let target = turn.unused();
    turn.encls(leaf::EAUG, PAGEINFO, Machine::window(target), 0).into()
}

/// A page that EAUG added to any enclave, which the enclave accepted.
fn added_later(view: &EpcmView) -> bool {
    let augmented = |base: u64| {
        let place = view.address.wrapping_sub(base) / 4096;
        (ADDED as u64..16).contains(&place)
    };
    view.is(PageType::Reg)
        && !view.flags.intersects(CHANGING)
        && KINDS.iter().any(|spec| augmented(spec.base))
}

pub(crate) fn emodpr(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|_, view| added_later(view));
    let flags = [SecInfoFlags::R, SecInfoFlags::empty(), SecInfoFlags::R | SecInfoFlags::W];
    let flags = flags[turn.choices.below(3)];
    turn.secinfo(&SecInfo::new(flags, PageType::Reg));
    turn.encls(leaf::EMODPR, SECINFO, Machine::window(page), 0).into()
}

pub(crate) fn emodt(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.page(|_, view| added_later(view));
    let page_type = [PageType::Tcs, PageType::Trim][turn.choices.below(2)];
    turn.secinfo(&SecInfo::new(SecInfoFlags::empty(), page_type));
    turn.encls(leaf::EMODT, SECINFO, Machine::window(page), 0).into()
}

/// A leaf that reports in RAX.
pub(crate) fn reported(turn: &Turn<'_, '_>, result: Result<EncluOutcome, Stop>) -> Outcome {
    match result {
        Ok(_) if turn.machine.cpu.gpr[Gpr::Rax] == 0 => Outcome::Completed,
        Ok(_) => Outcome::Reported(turn.machine.cpu.gpr[Gpr::Rax]),
        Err(stop) => stop.into(),
    }
}

/// Writes SECINFO to a page of the enclave; its address.
fn own_secinfo(turn: &mut Turn<'_, '_>, secinfo: &SecInfo) -> u64 {
    match turn.data() {
        Some((page, address)) => {
            turn.shared.platform.page(page).write(0x100, secinfo.as_bytes());
            address + 0x100
        }
        None => SECINFO,
    }
}

pub(crate) fn eaccept(turn: &mut Turn<'_, '_>) -> Outcome {
    let Some(page) = turn.own(|view| view.flags.intersects(CHANGING)) else {
        return reported_at(turn, user::EACCEPT, SECINFO, KINDS[0].base);
    };
    let view = turn.shared.view(page);
    let flags = SecInfoFlags::from_bits_truncate(u64::from(view.flags.bits() & 0x3f));
    let rbx = own_secinfo(turn, &SecInfo::new(flags, view.page_type));
    reported_at(turn, user::EACCEPT, rbx, view.address)
}

fn reported_at(turn: &mut Turn<'_, '_>, number: u32, rbx: u64, rcx: u64) -> Outcome {
    let result = turn.enclu(number, rbx, rcx, 0);
    reported(turn, result)
}

pub(crate) fn emodpe(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.own(|view| view.is(PageType::Reg));
    let address = page.map_or(0, |page| turn.shared.view(page).address);
    let flags = [SecInfoFlags::R, SecInfoFlags::R | SecInfoFlags::W, SecInfoFlags::all()];
    let flags = flags[turn.choices.below(2)];
    let rbx = own_secinfo(turn, &SecInfo::new(flags, PageType::Reg));
    match turn.enclu(user::EMODPE, rbx, address, 0) {
        Ok(_) => Outcome::Completed,
        Err(stop) => stop.into(),
    }
}

pub(crate) fn eacceptcopy(turn: &mut Turn<'_, '_>) -> Outcome {
    let page = turn.own(|view| view.flags.contains(EpcmFlags::PENDING));
    let address = page.map_or(0, |page| turn.shared.view(page).address);
    let source = turn.data().map_or(0, |(_, address)| address);
    let flags = SecInfoFlags::R | SecInfoFlags::W;
    let rbx = own_secinfo(turn, &SecInfo::new(flags, PageType::Reg));
    let result = turn.enclu(user::EACCEPTCOPY, rbx, address, source);
    reported(turn, result)
}

/// Not a leaf: the enclave's software writes a TCS into a page that it added later, so that it
/// can become one.
pub(crate) fn write_tcs(turn: &mut Turn<'_, '_>) -> Outcome {
    let whole = EpcmFlags::R | EpcmFlags::W;
    let page = turn.own(|view| added_later(view) && view.flags == EpcmFlags::VALID | whole);
    if let Some(page) = page {
        let contents = tcs(0x4000 + turn.choices.below(2) as u64 * 0x2000, 2, 0x2010);
        turn.shared.platform.page(cloister_sgx::EpcIndex(page)).write(0, &contents);
    }
    Outcome::Completed
}
