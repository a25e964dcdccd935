//! Two processors, one of them in the middle of a leaf: it holds what the leaf holds while the
//! other one acts.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::machine::Machine;

/// The turn of another processor at the moment when a leaf reaches a page.
pub(crate) struct Turn {
    /// Linear address of the page.
    pub(crate) page: u64,
    reached: Sender<()>,
    taken: Receiver<()>,
}

impl Turn {
    /// Lets the other processor act, and waits for it.
    pub(crate) fn pass(self) {
        // One that gave up shows in the outcome of its thread.
        if self.reached.send(()).is_ok() {
            let _ = self.taken.recv();
        }
    }
}

/// A processor for whose leaf another one waits; it waits no longer than the leaf lasts.
struct Awaited<'a>(&'a mut Machine);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.memory.turn = None;
    }
}

/// The outcome of `leaf` on `machine`, and that of `act`, which another processor does when the
/// leaf first reaches `page`.
pub(crate) fn meanwhile<L, A: Send>(
    machine: &mut Machine,
    page: u64,
    leaf: impl FnOnce(&mut Machine) -> L,
    act: impl FnOnce() -> A + Send,
) -> (L, A) {
    let (reached, awaited) = channel();
    let (done, taken) = channel();
    machine.memory.turn = Some(Turn { page, reached, taken });
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            awaited.recv().expect("the leaf reaches the page");
            let outcome = act();
            done.send(()).expect("the leaf waits");
            outcome
        });
        let outcome = leaf(Awaited(machine).0);
        (outcome, other.join().expect("the other processor acts"))
    })
}
