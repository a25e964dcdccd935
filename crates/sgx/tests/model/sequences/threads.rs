//! Entering and leaving enclaves, and what their threads ask of the processor.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{KeyRequest, TargetInfo};
use cloister_sgx::{EncluOutcome, EpcmFlags, ExitingEvent, PageType, Stop};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::enclave::BASE;

use super::dynamic::reported;
use super::tally::Outcome;
use super::turn::Turn;

/// Where the operating system continues after an asynchronous exit.
const AEP: u64 = 0x40_2000;

fn completed(result: Result<EncluOutcome, Stop>) -> Outcome {
    match result {
        Ok(_) => Outcome::Completed,
        Err(stop) => stop.into(),
    }
}

pub(crate) fn eenter(turn: &mut Turn<'_, '_>) -> Outcome {
    // Now and then a thread that has been interrupted, as for a handler.
    let cssa = u32::from(turn.choices.one_in(3));
    enter(turn, user::EENTER, |free| free == cssa)
}

pub(crate) fn eresume(turn: &mut Turn<'_, '_>) -> Outcome {
    enter(turn, user::ERESUME, |cssa| cssa != 0)
}

/// Enters on some TCS that is free, preferably one whose CSSA is `wanted`.
fn enter(turn: &mut Turn<'_, '_>, number: u32, wanted: impl Fn(u32) -> bool) -> Outcome {
    let shared = turn.shared;
    let usable = |page: u32, view: &cloister_sgx::EpcmView| {
        view.is(PageType::Tcs)
            && !view.flags.intersects(EpcmFlags::MODIFIED | EpcmFlags::BLOCKED)
            && shared.initialized(view.secs.0)
            && shared.word(page, 0) == 0
    };
    let best =
        shared.pages(|page, view| usable(page, view) && wanted(shared.word(page, 24) as u32));
    let page = match turn.choices.of(&best) {
        Some(page) => page,
        None if turn.choices.one_in(4) => turn.page(|_, view| view.is(PageType::Tcs)),
        None => turn.page(usable),
    };
    let view = shared.view(page);
    turn.map(view.secs);
    completed(turn.enclu(number, view.address, AEP, 0))
}

pub(crate) fn eexit(turn: &mut Turn<'_, '_>) -> Outcome {
    completed(turn.enclu(user::EEXIT, 0x40_3000, 0, 0))
}

/// Not a leaf: an asynchronous exit.
pub(crate) fn aex(turn: &mut Turn<'_, '_>) -> Outcome {
    match turn.machine.aex(ExitingEvent::Interrupt) {
        Some(_) => Outcome::Completed,
        None => Outcome::Again,
    }
}

pub(crate) fn edeccssa(turn: &mut Turn<'_, '_>) -> Outcome {
    completed(turn.enclu(user::EDECCSSA, 0, 0, 0))
}

/// Writes `bytes` to a page of the enclave; the page's address.
fn own_operand(turn: &mut Turn<'_, '_>, bytes: &[u8]) -> u64 {
    match turn.data() {
        Some((page, address)) => {
            turn.shared.platform.page(page).write(0, bytes);
            address
        }
        None => BASE,
    }
}

pub(crate) fn ereport(turn: &mut Turn<'_, '_>) -> Outcome {
    let mut target = TargetInfo::new_zeroed();
    target.measurement = [turn.choices.below(256) as u8; 32];
    let address = own_operand(turn, target.as_bytes());
    completed(turn.enclu(user::EREPORT, address, address + 0x200, address + 0x400))
}

pub(crate) fn egetkey(turn: &mut Turn<'_, '_>) -> Outcome {
    let mut request = KeyRequest::new_zeroed();
    request.keyname = (turn.choices.below(6) as u16).into();
    request.keypolicy = (turn.choices.below(4) as u16).into();
    request.isvsvn = (turn.choices.below(6) as u16).into();
    let address = own_operand(turn, request.as_bytes());
    let result = turn.enclu(user::EGETKEY, address, address + 0x200, 0);
    reported(turn, result)
}
