//! Verdicts on any bytes: no panic, and a score from 0 to 1.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlbridge::{Config, Engine, Name, engine};
use std::sync::{Arc, LazyLock};

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| engine::open(&Config::default()).expect("the embedded model loads"));

fuzz_target!(|bytes: &[u8]| {
    if let Ok(name) = Name::from_text(bytes) {
        assert!((0.0..=1.0).contains(&ENGINE.classify(&name, None, 1).score));
    }
});
