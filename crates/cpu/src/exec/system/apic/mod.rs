//! The local APIC (SDM Vol. 3A, chapter 10).

mod bits;
mod deliver;
mod inbox;
mod local;
mod message;
mod registers;
mod timer;

pub use deliver::{deliver_interrupt, take_inbox};
pub use inbox::Inbox;
pub use local::LocalApic;
pub use timer::{APIC_TIMER_HZ, poll_timer, time_to_timer};
