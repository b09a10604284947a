//! Overrides: an administrator's decision on a name and what is below it.

use crate::error::{Error, Result};
use crate::name::Name;
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// What an administrator holds a name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Allow it.
    Benign,
    /// Block it.
    Malicious,
    /// Block it and answer with the honeypot's address.
    Honeypot,
}

impl Class {
    /// The word used in settings and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Benign => "benign",
            Class::Malicious => "malicious",
            Class::Honeypot => "honeypot",
        }
    }

    /// The class of a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the word.
    pub fn parse(word: &str) -> Result<Class> {
        match word {
            "benign" => Ok(Class::Benign),
            "malicious" => Ok(Class::Malicious),
            "honeypot" => Ok(Class::Honeypot),
            _ => Err(Error::Invalid(format!("\"{word}\" is not benign, malicious or honeypot"))),
        }
    }
}

/// Whose queries an override is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everybody's.
    #[default]
    All,
    /// Those of a group's clients.
    Group(String),
    /// Those of a network's clients.
    Network(IpNet),
}

impl Scope {
    /// Reads `all`, `group:NAME` or a network.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the text.
    pub fn parse(text: &str) -> Result<Scope> {
        if text.is_empty() || text == "all" {
            return Ok(Scope::All);
        }
        if let Some(name) = text.strip_prefix("group:").filter(|name| !name.is_empty()) {
            return Ok(Scope::Group(name.to_owned()));
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => Ok(Scope::Network(network.trunc())),
            Err(_) => Err(Error::Invalid(format!(
                "scope: \"{text}\" is not all, group:NAME or a network"
            ))),
        }
    }

    fn fits(&self, client: Option<IpAddr>, group: Option<&str>) -> bool {
        match self {
            Scope::All => true,
            Scope::Group(name) => group == Some(name),
            Scope::Network(network) => client.is_some_and(|address| network.contains(&address)),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => f.write_str("all"),
            Scope::Group(name) => write!(f, "group:{name}"),
            Scope::Network(network) => network.fmt(f),
        }
    }
}

/// An administrator's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The name; what is below it is covered too.
    pub name: Name,
    /// What it is held for.
    pub class: Class,
    /// Who decided.
    pub author: String,
    /// Why, in the author's words; may be empty.
    pub note: String,
    /// Whose queries it is for.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970 (UTC).
    pub created: i64,
    /// When it ends, likewise; `None`: never.
    pub expires: Option<i64>,
    /// Whether it came from the cluster's vetting index; such a one never beats a local one.
    pub from_index: bool,
}

/// All overrides, ready for look-ups.
#[derive(Debug, Default)]
pub struct Overrides {
    by_name: HashMap<Box<[u8]>, Vec<Override>, ahash::RandomState>,
}

impl Overrides {
    /// Prepares overrides for look-ups.
    pub fn new(all: Vec<Override>) -> Overrides {
        let mut by_name: HashMap<Box<[u8]>, Vec<Override>, ahash::RandomState> = HashMap::default();
        for one in all {
            by_name.entry(one.name.wire().into()).or_default().push(one);
        }
        for same_name in by_name.values_mut() {
            same_name.sort_by_key(|one| std::cmp::Reverse(one.created));
        }
        Overrides { by_name }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The override that decides on a name: local before the index's, then the most specific, then the newest, of
    /// those whose scope fits and that have not expired at `now()` (milliseconds since 1970).
    pub fn find(
        &self,
        name: &Name,
        client: Option<IpAddr>,
        group: Option<&str>,
        now: impl Fn() -> i64,
    ) -> Option<&Override> {
        if self.by_name.is_empty() {
            return None;
        }
        let mut from_index = None;
        for suffix in name.suffixes() {
            for one in self.by_name.get(suffix).into_iter().flatten() {
                let counts = one.scope.fits(client, group)
                    && one.expires.is_none_or(|expires| expires > now());
                if !counts {
                    continue;
                }
                if !one.from_index {
                    return Some(one);
                }
                from_index = from_index.or(Some(one));
            }
        }
        from_index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, class: Class, created: i64) -> Override {
        let (author, note) = ("admin".to_owned(), String::new());
        Override {
            name: name.parse().unwrap(),
            class,
            author,
            note,
            scope: Scope::All,
            created,
            expires: None,
            from_index: false,
        }
    }

    fn class(overrides: &Overrides, name: &str, client: Option<&str>) -> Option<Class> {
        let client = client.map(|text| text.parse().unwrap());
        overrides.find(&name.parse().unwrap(), client, None, || 1000).map(|one| one.class)
    }

    #[test]
    fn the_most_specific_then_the_newest() {
        let overrides = Overrides::new(vec![
            made("example.com", Class::Malicious, 1),
            made("good.example.com", Class::Benign, 1),
            made("example.com", Class::Honeypot, 2),
        ]);
        assert_eq!(class(&overrides, "example.com", None), Some(Class::Honeypot));
        assert_eq!(class(&overrides, "x.example.com", None), Some(Class::Honeypot));
        assert_eq!(class(&overrides, "x.good.example.com", None), Some(Class::Benign));
        assert_eq!(class(&overrides, "example.org", None), None);
    }

    #[test]
    fn expiry_and_scope_are_kept() {
        let mut old = made("old.example", Class::Malicious, 1);
        old.expires = Some(1000);
        let mut net = made("net.example", Class::Malicious, 1);
        net.scope = Scope::parse("192.0.2.0/24").unwrap();
        let overrides = Overrides::new(vec![old, net]);
        assert_eq!(class(&overrides, "old.example", None), None);
        assert_eq!(class(&overrides, "net.example", Some("192.0.2.7")), Some(Class::Malicious));
        assert_eq!(class(&overrides, "net.example", Some("198.51.100.7")), None);
        assert_eq!(class(&overrides, "net.example", None), None);
    }

    #[test]
    fn an_override_of_the_index_never_beats_a_local_one() {
        let mut index = made("bad.example.com", Class::Malicious, 9);
        index.from_index = true;
        let overrides = Overrides::new(vec![index, made("example.com", Class::Benign, 1)]);
        assert_eq!(class(&overrides, "bad.example.com", None), Some(Class::Benign));
    }

    #[test]
    fn scopes_are_read_and_written() {
        for text in ["all", "group:guests", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        assert!(Scope::parse("everyone").is_err());
    }
}
