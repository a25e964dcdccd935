//! The end of a machine that is told to end: nothing that its guest or its host does holds it up.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::control::Control;
use super::error::RunError;
use super::event::ShutdownCause;
use super::{Machine, Outcome};
use crate::sandbox::Sandbox;

/// How long a machine that is to end is waited for. Its processors leave between two instructions or
/// two pieces of a device's work, unless the host holds up a piece.
const PATIENCE: Duration = Duration::from_millis(500);

/// Bytes of the machine's stack: as many as those of the process's first thread, which read the disk's
/// boot loader configuration before the first boot.
const STACK: usize = 8 << 20;

/// What the thread that waits is told.
enum Notice {
    /// The machine is to end.
    Asked,
    /// It has ended.
    Ended(Result<Outcome, RunError>),
}

impl Machine {
    /// As [`Machine::run`], on a thread of its own that is not waited for beyond half a second once
    /// [`Control::quit`] was called: then the machine counts as ended, and the process is to end
    /// without what its threads hold.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run_supervised(
        self: &Arc<Self>,
        control: &Control,
        sandbox: &Sandbox,
    ) -> Result<Outcome, RunError> {
        let (tell, notices) = mpsc::channel();
        control.on_quit({
            let tell = tell.clone();
            // Err: it has ended already.
            move || drop(tell.send(Notice::Asked))
        });
        let (machine, handle, confinement) = (self.clone(), control.clone(), sandbox.clone());
        let run = move || {
            let run = AssertUnwindSafe(|| machine.run(&handle, &confinement));
            let ended = panic::catch_unwind(run).unwrap_or(Err(RunError::Unexpected));
            drop(tell.send(Notice::Ended(ended)));
        };
        let builder = thread::Builder::new().name("machine".into()).stack_size(STACK);
        let thread = builder.spawn(run);
        let unsupervised = |source: io::Error| RunError::MachineThread { source };
        let thread = thread.map_err(unsupervised)?;
        let ended = match notices.recv() {
            Ok(Notice::Ended(ended)) => ended,
            _ => match end_before(&notices, Instant::now() + PATIENCE) {
                Some(ended) => ended,
                None => {
                    tracing::debug!("a thread is held up by the host and left behind");
                    control.has_ended(control.quit_cause().unwrap_or(ShutdownCause::HostError));
                    return Ok(Outcome::Quit);
                }
            },
        };
        // It has nothing left to do.
        let _ = thread.join();
        ended
    }
}

/// How the machine ended, if it has before `deadline`.
fn end_before(notices: &Receiver<Notice>, deadline: Instant) -> Option<Result<Outcome, RunError>> {
    loop {
        match notices.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Notice::Ended(ended)) => return Some(ended),
            // Said twice, if it was asked while the supervisor began to listen.
            Ok(Notice::Asked) => {}
            Err(_) => return None,
        }
    }
}
