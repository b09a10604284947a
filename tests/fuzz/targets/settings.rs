//! Settings from any text: no panic, and a refused setting changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlbridge::Config;

fuzz_target!(|pairs: Vec<(String, String)>| {
    let mut config = Config::default();
    for (key, value) in pairs {
        let before = config.clone();
        if config.set(&key, &value).is_err() {
            assert!(config == before);
        }
    }
    let _ = config.check();
});
