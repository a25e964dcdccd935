//! The local APIC (SDM Vol. 3A, chapter 10).

mod bits;
mod deliver;
mod inbox;
mod local;
mod message;
mod registers;
mod timer;

pub(crate) use deliver::{deliver_interrupt, take_inbox};
pub(crate) use inbox::Inbox;
pub(crate) use local::LocalApic;
pub(crate) use registers::register;
pub(crate) use timer::{poll_timer, time_to_timer};
