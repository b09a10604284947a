//! Texts of servers, made fit to be shown and kept: short, on one line, without clients' addresses.
//!
//! A server's reason may quote a value, or the whole document.

use std::net::{IpAddr, SocketAddr};

/// Longest text kept, in characters.
const LONGEST: usize = 300;

/// The text, cut before a quoted document, with addresses replaced and control characters as spaces.
pub fn redact(text: &str) -> String {
    let before_document = text.find("{\"").map_or(text, |at| text.get(..at).unwrap_or(text));
    let mut out = String::new();
    let mut rest = before_document;
    while !rest.is_empty() && out.chars().count() < LONGEST {
        let is_part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        out.push_str(if is_address(token) { "[address]" } else { token });
        let mut characters = after.chars();
        out.extend(characters.next().map(|c| if c.is_control() { ' ' } else { c }));
        rest = characters.as_str();
    }
    if out.chars().count() > LONGEST || before_document.len() < text.len() || !rest.is_empty() {
        out = out.chars().take(LONGEST).collect();
        out.push_str("...");
    }
    out
}

fn is_address(token: &str) -> bool {
    let bare = token.trim_matches(['.', ':']);
    // The colons at an end may belong to an IPv6 address.
    [token, token.trim_end_matches('.'), bare, bare.trim_end_matches(':')]
        .iter()
        .any(|text| text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_documents_do_not_pass() {
        for (text, shown) in [
            ("plain", "plain"),
            ("'192.0.2.7' is not", "'[address]' is not"),
            ("from 192.0.2.7.", "from [address]"),
            ("at [2001:db8::7]:", "at [[address]]:"),
            ("at 2001:db8::.", "at [address]"),
            ("node 127.0.0.1:9300 left", "node [address] left"),
            ("version 8.19.21 of 12:30:01", "version 8.19.21 of 12:30:01"),
            ("a\nb", "a b"),
            ("refused source[{\"source\":{\"ip\":\"192.0.2.7\"}}]", "refused source[..."),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let shown = redact(&"\u{e4} ".repeat(5000));
        assert_eq!(shown.chars().count(), LONGEST + 3);
        assert!(redact(&"f".repeat(1 << 20)).len() <= LONGEST + 3);
    }
}
