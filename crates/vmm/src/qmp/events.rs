//! What happens to the machine, on its way to the client.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::machine::{MachineEvent, ShutdownCause};

/// Events that wait for a client to read. Where there are more, the oldest is lost: a client that does
/// not read never holds up the machine.
const MAX_WAITING: usize = 1024;

/// An event and when it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Event {
    event: MachineEvent,
    time: SystemTime,
}

impl Event {
    /// Its form on the wire.
    pub(super) fn message(&self) -> Value {
        let (name, data) = match self.event {
            MachineEvent::Stop => ("STOP", None),
            MachineEvent::Resume => ("RESUME", None),
            MachineEvent::Powerdown => ("POWERDOWN", None),
            MachineEvent::Reset(cause) => ("RESET", Some(cause)),
            MachineEvent::Shutdown(cause) => ("SHUTDOWN", Some(cause)),
        };
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp =
            json!({ "seconds": since.as_secs(), "microseconds": since.subsec_micros() });
        let mut message = json!({ "event": name, "timestamp": timestamp });
        if let Some(cause) = data {
            message["data"] = cause_data(cause);
        }
        message
    }
}

fn cause_data(cause: ShutdownCause) -> Value {
    json!({ "guest": cause.is_guest(), "reason": cause })
}

/// The events that were not yet sent.
#[derive(Debug, Default)]
pub(super) struct EventQueue(Mutex<VecDeque<Event>>);

impl EventQueue {
    /// Adds what happens now.
    pub(super) fn push(&self, event: MachineEvent) {
        let mut waiting = self.lock();
        if waiting.len() == MAX_WAITING {
            waiting.pop_front();
            tracing::warn!("the QMP client does not read: an event is lost");
        }
        waiting.push_back(Event { event, time: SystemTime::now() });
    }

    /// The oldest event.
    pub(super) fn pop(&self) -> Option<Event> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_event_has_a_time_and_a_reset_its_cause() {
        let time = UNIX_EPOCH + Duration::from_micros(5_000_007);
        let timestamp = json!({ "seconds": 5, "microseconds": 7 });

        let reset = Event { event: MachineEvent::Reset(ShutdownCause::HostQmpSystemReset), time };
        let stop = Event { event: MachineEvent::Stop, time };

        assert_eq!(
            reset.message(),
            json!({ "event": "RESET", "timestamp": timestamp,
                "data": { "guest": false, "reason": "host-qmp-system-reset" } })
        );
        assert_eq!(stop.message(), json!({ "event": "STOP", "timestamp": timestamp }));
    }

    #[test]
    fn causes_have_qemus_names() {
        let names: Vec<Value> = [
            ShutdownCause::HostError,
            ShutdownCause::HostQmpQuit,
            ShutdownCause::HostSignal,
            ShutdownCause::HostUi,
            ShutdownCause::GuestShutdown,
            ShutdownCause::GuestReset,
        ]
        .map(cause_data)
        .to_vec();

        let expected = [
            (false, "host-error"),
            (false, "host-qmp-quit"),
            (false, "host-signal"),
            (false, "host-ui"),
            (true, "guest-shutdown"),
            (true, "guest-reset"),
        ];
        assert_eq!(
            names,
            expected.map(|(guest, reason)| json!({"guest": guest, "reason": reason}))
        );
    }

    #[test]
    fn the_oldest_events_are_lost_when_nobody_reads() {
        let queue = EventQueue::default();
        queue.push(MachineEvent::Powerdown);

        for _ in 0..MAX_WAITING {
            queue.push(MachineEvent::Stop);
        }

        let kept: Vec<Event> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(kept.len(), MAX_WAITING);
        assert_eq!(kept[0].event, MachineEvent::Stop);
    }
}
