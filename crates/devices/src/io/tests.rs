//! The I/O thread: its turns, its pauses and its end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells when it had a turn.
struct Turns(Mutex<mpsc::Sender<()>>);

impl IoWork for Turns {
    fn work(&self) {
        let _ = self.0.lock().unwrap().send(());
    }
}

fn turns() -> (IoLoop, mpsc::Receiver<()>) {
    let (sender, had) = mpsc::channel();
    let mut io = IoLoop::new().unwrap();
    io.add(Arc::new(Turns(Mutex::new(sender))));
    (io, had)
}

/// Ends an I/O thread, also where a test fails.
struct Ending<'a>(&'a AtomicBool, &'a IoHandle);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.look_again();
    }
}

/// Runs `io` on a thread of its own while `test` runs.
pub(crate) fn with_thread(io: &IoLoop, test: impl FnOnce(&IoHandle)) {
    let ending = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ending(&ending, io.handle());
        scope.spawn(|| io.run(|| ending.load(Ordering::SeqCst)));
        test(io.handle());
    });
}

#[test]
fn each_device_has_a_turn_when_the_thread_is_woken() {
    let (io, had) = turns();

    io.handle().wake();
    with_thread(&io, |handle| {
        had.recv_timeout(PATIENCE).unwrap();
        for _ in 0..100 {
            handle.wake();
        }
        had.recv_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_paused_thread_does_nothing_until_it_goes_on() {
    let (io, had) = turns();
    with_thread(&io, |handle| {
        had.recv_timeout(PATIENCE).unwrap();

        assert!(handle.pause(PATIENCE, || false));
        while had.try_recv().is_ok() {}
        handle.wake();
        thread::sleep(Duration::from_millis(20));
        assert!(had.try_recv().is_err());
        handle.resume();

        had.recv_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn a_pause_waits_for_no_thread_that_is_not_there() {
    let (io, had) = turns();

    assert!(io.handle().pause(PATIENCE, || false));
    with_thread(&io, |handle| {
        assert!(handle.pause(PATIENCE, || false));
        assert!(had.try_recv().is_err(), "it has worked");
    });
    assert!(io.handle().pause(PATIENCE, || false));
}

#[test]
fn a_pause_gives_up_on_work_that_takes_longer_or_at_the_end() {
    struct Stuck(Mutex<mpsc::Receiver<()>>, AtomicUsize);
    impl IoWork for Stuck {
        fn work(&self) {
            self.1.fetch_add(1, Ordering::SeqCst);
            let _ = self.0.lock().unwrap().recv();
        }
    }
    let (release, held) = mpsc::channel::<()>();
    let stuck = Arc::new(Stuck(Mutex::new(held), AtomicUsize::new(0)));
    let mut io = IoLoop::new().unwrap();
    io.add(stuck.clone());
    with_thread(&io, |handle| {
        while stuck.1.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }

        assert!(!handle.pause(Duration::from_millis(20), || false));
        assert!(!handle.pause(PATIENCE, || true));
        release.send(()).unwrap();
        assert!(handle.pause(PATIENCE, || false));

        assert_eq!(stuck.1.load(Ordering::SeqCst), 1);
        drop(release);
    });
}

#[test]
fn pauses_and_goings_on_in_any_order_lose_no_turn() {
    let (io, had) = turns();
    with_thread(&io, |handle| {
        for _ in 0..2_000 {
            assert!(handle.pause(PATIENCE, || false));
            while had.try_recv().is_ok() {}
            handle.wake();
            handle.resume();
            had.recv_timeout(PATIENCE).unwrap();
        }
    });
}
