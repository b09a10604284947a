//! What other threads may ask of the forwarder, and what they see of it.
//!
//! All of it is off the query path: a mutex is fine here. No call waits for the network.

use super::SummaryRecord;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared between the forwarder and everybody else; one for each call of [`super::Forwarder::run`].
#[derive(Default)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Set by `close`: when the forwarder has to be gone.
    deadline: Option<Instant>,
    hurry: bool,
    ended: bool,
    status: Status,
    /// The counters of the last summary that arrived.
    summarized: SummaryRecord,
    interrupt: Option<Box<dyn FnMut() + Send>>,
}

/// What the forwarder has done and what hinders it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What keeps events from arriving, in words that an operator can act on; empty while they arrive. Never holds a
    /// secret or a client's address.
    pub error: String,
    /// Numbers since the first forwarder began.
    pub counters: Counters,
}

/// Numbers that only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bulk requests sent, whatever came back.
    pub requests: u64,
    /// Bulk requests that settled no document: no answer, or refused as a whole.
    pub failed_requests: u64,
    /// Documents in all bulk requests sent: more than `created`, because some are sent again.
    pub sent: u64,
    /// Documents that a node took.
    pub created: u64,
    /// Documents that were there already: an earlier attempt had arrived.
    pub duplicates: u64,
    /// Documents refused for good.
    pub dead: u64,
    /// Documents taken, but parked by the server in its failure store.
    pub misrouted: u64,
    /// Bytes of all bulk bodies before compression.
    pub bytes: u64,
    /// Bytes of all bulk bodies on the wire.
    pub bytes_sent: u64,
    /// Summary documents that a node took.
    pub summaries: u64,
    /// Documents written to the vetting index.
    pub vetting_written: u64,
    /// Decisions read from the vetting index.
    pub decisions_read: u64,
    /// Decisions in the vetting index that were refused (public suffix, no name, unknown class).
    pub decisions_refused: u64,
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    /// It was waited out.
    Over,
    /// Somebody waits for delivery: [`Control::hurry`].
    Hurried,
    /// The forwarder is to end.
    Closing,
}

impl Control {
    /// A control for one forwarder.
    pub fn new() -> Control {
        Control::default()
    }

    /// A control for a forwarder that takes over: its numbers go on, and its first summary begins where the last ended.
    pub fn following(earlier: &Control) -> Control {
        let earlier = earlier.lock();
        let status = Status { error: String::new(), counters: earlier.status.counters };
        let state = State { status, summarized: earlier.summarized.clone(), ..State::default() };
        Control { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Asks the forwarder to end: what can be delivered within the time is, if the outbox gives it; then, or at the
    /// first failure, `run` returns. Does not wait. A request that hangs ends by [`Control::interrupt`].
    pub fn close(&self, within: Duration) {
        let mut state = self.lock();
        state.deadline = Some(Instant::now() + within);
        self.changed.notify_all();
    }

    /// Cuts the connections of the request in flight, if any; later requests fail at once. Only a name look-up or a
    /// connection attempt (2 seconds each at most) goes on.
    pub fn interrupt(&self) {
        let mut state = self.lock();
        state.deadline = Some(Instant::now());
        if let Some(cut) = state.interrupt.as_mut() {
            cut();
        }
        self.changed.notify_all();
    }

    /// Ends a wait for more documents or after an unreachable node, once: somebody waits for delivery.
    pub fn hurry(&self) {
        self.lock().hurry = true;
        self.changed.notify_all();
    }

    /// Waits until `run` has returned; `false` if it has not within the time.
    pub fn wait_ended(&self, within: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, within, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// What the forwarder has done until now, and what hinders it.
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// Time left until the forwarder has to be gone; `None` if nobody asked it to end.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.lock().deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    pub(super) fn closing(&self) -> bool {
        self.lock().deadline.is_some()
    }

    /// Waits, unless the forwarder is to end. Only some waits may be cut short by [`Control::hurry`]: a server that
    /// asked for a pause gets it.
    pub(super) fn pause(&self, time: Duration, may_hurry: bool) -> Paused {
        let waiting = |state: &mut State| state.deadline.is_none() && !(may_hurry && state.hurry);
        let waited = self.changed.wait_timeout_while(self.lock(), time, waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.deadline.is_some() {
            return Paused::Closing;
        }
        if may_hurry && std::mem::take(&mut state.hurry) {
            return Paused::Hurried;
        }
        Paused::Over
    }

    pub(super) fn set_error(&self, text: &str) {
        text.clone_into(&mut self.lock().status.error);
    }

    pub(super) fn summarized(&self) -> SummaryRecord {
        self.lock().summarized.clone()
    }

    pub(super) fn set_summarized(&self, record: SummaryRecord) {
        self.lock().summarized = record;
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock().status.counters);
    }

    /// Remembers how to cut the connections of the request in flight.
    pub(super) fn on_interrupt(&self, cut: impl FnMut() + Send + 'static) {
        self.lock().interrupt = Some(Box::new(cut));
    }

    pub(super) fn set_ended(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.interrupt = None;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves whole values behind: each is set in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn pauses_end_early_when_they_should() {
        let control = Arc::new(Control::new());
        assert_eq!(control.pause(Duration::ZERO, true), Paused::Over);
        control.hurry();
        assert_eq!(control.pause(Duration::ZERO, false), Paused::Over);
        assert_eq!(control.pause(LONG, true), Paused::Hurried);
        let other = Arc::clone(&control);
        let closer = std::thread::spawn(move || other.close(LONG));
        assert_eq!(control.pause(LONG, false), Paused::Closing);
        closer.join().unwrap();
        assert!(control.closing());
    }

    #[test]
    fn the_end_is_seen() {
        let control = Control::new();
        assert!(!control.wait_ended(Duration::ZERO));
        control.set_ended();
        assert!(control.wait_ended(LONG));
    }
}
