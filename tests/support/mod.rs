//! For the tests of delivery: a strict server, an outbox in memory, and a forwarder between them.

#![allow(dead_code)] // each test binary uses a part

pub mod dashboards;
pub mod node;
pub mod outbox;
pub mod server;
pub mod tls;

use mlbridge::elastic::http::Limits;
use mlbridge::elastic::settings::{Settings, Url};
use mlbridge::elastic::{Control, Forwarder, Identity};
use outbox::Memory;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for something that must happen. Only a broken forwarder reaches it.
pub const PATIENCE: Duration = Duration::from_secs(50);

/// Waits until a condition holds.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Settings for these nodes, with everything else as it is by default.
pub fn settings(urls: &[&str]) -> Settings {
    let urls = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
    Settings { urls, ..Settings::default() }
}

/// Who sends, in the tests.
pub fn identity() -> Identity {
    Identity { host: "ns1.test".to_owned(), store: "store-1".to_owned() }
}

/// A forwarder that runs in its thread.
pub struct Running {
    pub control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(settings: Settings, outbox: &Memory) -> Running {
        Running::with_limits(settings, outbox, Limits::default())
    }

    pub fn with_limits(settings: Settings, outbox: &Memory, limits: Limits) -> Running {
        Running::of(Forwarder::new(settings, identity()).unwrap().with_limits(limits), outbox)
    }

    pub fn of(forwarder: Forwarder, outbox: &Memory) -> Running {
        Running::with(forwarder, outbox, Control::new())
    }

    pub fn with(forwarder: Forwarder, outbox: &Memory, control: Control) -> Running {
        let control = Arc::new(control);
        let (mut outbox, for_thread) = (outbox.clone(), Arc::clone(&control));
        let thread = std::thread::spawn(move || forwarder.run(&mut outbox, &for_thread));
        Running { control, thread: Some(thread) }
    }

    pub fn error(&self) -> String {
        self.control.status().error
    }

    /// Waits until the error text holds these words.
    pub fn until_error(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.error().contains(words) {
            assert!(Instant::now() < end, "the error is \"{}\", not \"{words}\"", self.error());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything is delivered or given up.
    pub fn until_empty(&self, outbox: &Memory) {
        let end = Instant::now() + PATIENCE;
        while !outbox.state().pending.is_empty() {
            assert!(Instant::now() < end, "{:?}, {:?}", outbox.ledger(), self.control.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it the way the library does, and sees that it ends.
    pub fn end(mut self) {
        self.control.close(Duration::from_millis(200));
        if !self.control.wait_ended(Duration::from_millis(400)) {
            self.control.interrupt();
        }
        assert!(self.control.wait_ended(PATIENCE), "the forwarder does not end");
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.interrupt();
    }
}
