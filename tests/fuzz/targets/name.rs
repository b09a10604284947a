//! Names from any bytes: no panic, and text and wire form stay two forms of one name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlbridge::Name;

fuzz_target!(|bytes: &[u8]| {
    for name in [Name::from_text(bytes), Name::from_wire(bytes)].into_iter().flatten() {
        assert_eq!(Name::from_wire(name.wire()), Ok(name));
        assert_eq!(Name::from_text(name.to_text().as_bytes()), Ok(name));
        assert!(name.suffixes().count() == name.labels() + 1);
        let mut buffer = [0; mlbridge::name::MAX_WIRE];
        let _ = mlbridge::suffix::registered_domain(name.dotted(&mut buffer));
    }
});
