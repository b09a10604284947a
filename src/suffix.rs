//! Public suffixes, shared hosts and registered domains.
//!
//! The Public Suffix List (private section included) comes with the `psl` crate, compiled in; hosts under which
//! customers' own names stand and which that list lacks are in `shared-hosts.txt`. [`SNAPSHOT`] names both: a model
//! remembers the snapshot that it was trained with, because the encoder cuts names by it.

use once_cell::sync::Lazy;
use std::collections::HashSet;

/// The version of the suffix data. A test keeps it equal to what is compiled in.
pub const SNAPSHOT: &str = "psl-2.1.247+shared-hosts-1";

static SHARED_HOSTS: Lazy<HashSet<&'static [u8], ahash::RandomState>> = Lazy::new(|| {
    let lines = include_str!("shared-hosts.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::as_bytes).collect()
});

/// Where the public suffix of a dotted lower-case name begins; the whole name may be a suffix (0).
/// A name without a known suffix ends in an unknown one of one label.
pub fn suffix_start(dotted: &[u8]) -> usize {
    let listed = psl::suffix(dotted).map_or(0, |suffix| dotted.len() - suffix.as_bytes().len());
    let host = previous_label(dotted, listed);
    match dotted.get(host..) {
        Some(tail) if host < listed && SHARED_HOSTS.contains(tail) => host,
        _ => listed,
    }
}

/// The registered domain of a dotted lower-case name: its public suffix and one label more.
/// `None` for a public suffix or a shared host itself.
pub fn registered_domain(dotted: &[u8]) -> Option<&[u8]> {
    dotted.get(registered_start(dotted, suffix_start(dotted))?..)
}

/// Where the registered domain of a name begins whose public suffix begins at `suffix`.
pub fn registered_start(dotted: &[u8], suffix: usize) -> Option<usize> {
    (suffix > 0).then(|| previous_label(dotted, suffix))
}

/// Where the label before position `at` (the first byte of a label) begins; 0 when there is none before.
fn previous_label(dotted: &[u8], at: usize) -> usize {
    let before = dotted.get(..at.saturating_sub(1)).unwrap_or(&[]);
    before.iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(name: &str) -> Option<&str> {
        registered_domain(name.as_bytes()).map(|bytes| std::str::from_utf8(bytes).unwrap())
    }

    #[test]
    fn registered_domains() {
        for (name, expected) in [
            ("www.example.co.uk", Some("example.co.uk")),
            ("example.com", Some("example.com")),
            ("a.b.shop.weebly.com", Some("shop.weebly.com")),
            ("weebly.com", None),
            ("co.uk", None),
            ("com", None),
            ("x.vercel.app", Some("x.vercel.app")),
            ("host.nosuchtld", Some("host.nosuchtld")),
            ("", None),
        ] {
            assert_eq!(registered(name), expected, "{name}");
        }
    }

    #[test]
    fn odd_bytes_are_read_without_a_panic() {
        for name in [&b"."[..], b"..", b"a..b", b"\xff\xfe.com", b".com", b"com."] {
            let _ = registered_domain(name);
        }
    }

    #[test]
    fn snapshot_names_what_is_compiled_in() {
        let lock = include_str!("../Cargo.lock");
        let version = lock
            .split("name = \"psl\"\nversion = \"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        assert_eq!(SNAPSHOT, format!("psl-{version}+shared-hosts-1"));
    }
}
