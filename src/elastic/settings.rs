//! The settings of delivery, checked: `elasticsearch.*`.

use crate::error::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

/// The settings `elasticsearch.*`. Equal settings share one forwarder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Base addresses of the nodes, `http` or `https`, with a path if a proxy wants one. Any of them may get a request.
    pub urls: Vec<Url>,
    /// File with `id:key` or its base64 form. Read again when the server refuses the credentials.
    pub api_key_file: Option<PathBuf>,
    /// User name for basic authentication.
    pub username: Option<String>,
    /// File with the password. Read again when the server refuses the credentials.
    pub password_file: Option<PathBuf>,
    /// PEM file with the authorities to trust instead of the compiled-in ones.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate chain.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub client_key: Option<PathBuf>,
    /// Last part of the data streams' names.
    pub namespace: String,
    /// Install the template, the lifecycle policy and the data streams if they are absent or older.
    pub setup: bool,
    /// Take administrators' decisions from the vetting index.
    pub overrides: bool,
    /// Time between two looks at the vetting index.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            urls: Vec::new(),
            api_key_file: None,
            username: None,
            password_file: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            namespace: "default".to_owned(),
            setup: true,
            overrides: false,
            poll: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Checks what single values cannot show: pairs that belong together, and contradictions.
    ///
    /// # Errors
    /// [`Error::Config`] that names the settings.
    pub fn check(&self) -> Result<()> {
        let pair = |a: bool, b: bool, text: &str| if a == b { Ok(()) } else { config(text) };
        pair(
            self.username.is_some(),
            self.password_file.is_some(),
            "elasticsearch.username and elasticsearch.password_file belong together: set both or neither",
        )?;
        pair(
            self.client_cert.is_some(),
            self.client_key.is_some(),
            "elasticsearch.client_cert and elasticsearch.client_key belong together: set both or neither",
        )?;
        if self.username.is_some() && self.api_key_file.is_some() {
            return config(
                "elasticsearch.api_key_file and elasticsearch.username exclude each other: unset one",
            );
        }
        check_namespace(&self.namespace)
    }

    /// Reads the files that the settings name, as the forwarder will, and forgets them. Makes no connection.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Config`], naming the setting and the file.
    pub fn check_files(&self) -> Result<()> {
        super::http::Client::new(self, super::http::Limits::default()).map(drop)
    }

    /// Host names of the nodes, lower case: names that the library must never block.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().map(|url| url.host.as_str())
    }
}

/// Checks the namespace of a data stream.
///
/// # Errors
/// [`Error::Config`] unless it has 1 to 100 bytes, lower case, without the characters that Elasticsearch forbids.
pub fn check_namespace(namespace: &str) -> Result<()> {
    let fits = (1..=100).contains(&namespace.len());
    let clean = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
    if fits && namespace.chars().all(clean) {
        return Ok(());
    }
    Err(Error::setting(
        "elasticsearch.namespace",
        namespace,
        "is not a data stream namespace: 1 to 100 of a-z, 0-9, _ and . are allowed",
    ))
}

fn config(text: &str) -> Result<()> {
    Err(Error::Config(text.to_owned()))
}

/// The base address of a node. Shown without a user part: it cannot have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// `http://host:port/path`, without a final slash.
    text: String,
    host: String,
    tls: bool,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// [`Error::Config`] for another scheme than http and https, a missing host, a bad port, a user part, a query or a
    /// fragment. The text never repeats a user part.
    pub fn parse(text: &str) -> Result<Url> {
        let shown = without_secrets(text);
        let refuse = |reason: &str| Error::setting("elasticsearch.urls", &shown, reason);
        let (scheme, rest) =
            text.trim().split_once("://").ok_or_else(|| refuse("is not an http(s) address"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(refuse("is not an http(s) address")),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(refuse(
                "holds a user part: use elasticsearch.username and elasticsearch.password_file",
            ));
        }
        if path.contains(['?', '#']) {
            return Err(refuse("holds a query or a fragment"));
        }
        let visible = |c: char| c.is_ascii_graphic();
        if !authority.chars().all(visible) || !path.chars().all(visible) {
            return Err(refuse("holds a character that is no part of an address"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| refuse("has a bad port"))?;
        let host = host.to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() || host.starts_with('[') != host.ends_with(']') {
            return Err(refuse("has no host"));
        }
        if host.starts_with('[') && bare.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(refuse("has a bad IPv6 address"));
        }
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let scheme = if tls { "https" } else { "http" };
        let text = format!("{scheme}://{host}:{port}{}", path.trim_end_matches('/'));
        Ok(Url { text, host: bare.to_owned(), tls })
    }

    /// `http://host:port/path`, without a final slash: for requests, and for operators' eyes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it begins with https.
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for a port that is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let tail = authority.get(after_bracket..)?;
    let Some(colon) = tail.find(':') else {
        return Some((authority, None)).filter(|_| tail.is_empty() || after_bracket == 0);
    };
    if after_bracket > 0 && colon > 0 {
        return None;
    }
    let (host, port) = authority.split_at(after_bracket + colon);
    let port: u16 = port.strip_prefix(':')?.parse().ok()?;
    (port > 0).then_some((host, Some(port)))
}

/// The text without what may be a secret: a user part, a query, a fragment.
fn without_secrets(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (head, rest) = text.split_at(start);
    // A password may hold a slash or a question mark: whatever stands before the last @ is taken for a user part.
    let (user, rest) = match rest.rfind('@') {
        Some(at) => ("...@", rest.get(at + 1..).unwrap_or_default()),
        None => ("", rest),
    };
    match rest.find(['?', '#']).and_then(|at| rest.get(..=at)) {
        Some(place) => format!("{head}{user}{place}..."),
        None => format!("{head}{user}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_into_one_form() {
        for (text, shown, host) in [
            ("http://localhost:9200", "http://localhost:9200", "localhost"),
            ("HTTPS://ES1.Example.ORG:9200/", "https://es1.example.org:9200", "es1.example.org"),
            ("https://es1/prefix/", "https://es1:443/prefix", "es1"),
            ("http://[::1]:9200", "http://[::1]:9200", "::1"),
            ("http://[::1]", "http://[::1]:80", "::1"),
            ("http://192.0.2.1", "http://192.0.2.1:80", "192.0.2.1"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.as_str(), url.host.as_str()), (shown, host), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "",
            "es1:9200",
            "htp://x",
            "ftp://x",
            "http://",
            "http:///x",
            "http://h:0",
            "http://h:99999",
            "http://h:port",
            "http://h/?q=1",
            "http://h/#f",
            "http://a b/",
            "http://[::1",
            "http://[x]/",
            "http://[::1]x:9200",
        ] {
            let error = Url::parse(text).expect_err(text).to_string();
            assert!(error.starts_with("elasticsearch.urls: "), "{error}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_refused_and_never_shown() {
        for text in [
            "https://elastic:s3cret@es1:9200",
            "https://elastic:s3c/ret@es1",
            "elastic:s3cret@es1",
            "https://es1/?apikey=s3cret@es1",
            "https://es1#s3cret",
        ] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(!error.contains("s3c") && !error.contains("ret@"), "{error}");
        }
    }

    #[test]
    fn settings_that_belong_together() {
        let whole = Settings::default();
        assert!(whole.check().is_ok());
        let user = Some("u".to_owned());
        let file = Some(PathBuf::from("/f"));
        for (broken, key) in [
            (Settings { username: user.clone(), ..whole.clone() }, "password_file"),
            (Settings { password_file: file.clone(), ..whole.clone() }, "username"),
            (Settings { client_cert: file.clone(), ..whole.clone() }, "client_key"),
            (
                Settings {
                    username: user,
                    password_file: file.clone(),
                    api_key_file: file,
                    ..whole.clone()
                },
                "api_key_file",
            ),
            (Settings { namespace: "Upper".to_owned(), ..whole.clone() }, "namespace"),
            (Settings { namespace: String::new(), ..whole.clone() }, "namespace"),
            (Settings { namespace: "a-b".to_owned(), ..whole.clone() }, "namespace"),
        ] {
            let error = broken.check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
