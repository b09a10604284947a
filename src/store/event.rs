//! An event: a verdict on its way to the store.
//!
//! It has a fixed size and owns no heap memory but its group's shared name, so that handing it over allocates nothing.
//! What may be kept of the client is settled here, before the event is queued.

use crate::config::{Config, RecordClient};
use crate::error::{Error, Result};
use crate::name::Name;
use crate::verdict::Verdict;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is kept of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Nothing.
    Unknown,
    /// An address, whole or of its network.
    Address(IpAddr),
    /// The first half of the keyed hash of an address.
    Hashed([u8; 16]),
}

/// A verdict and its circumstances.
#[derive(Debug, Clone)]
pub struct Event {
    /// When the name was asked for, in milliseconds since 1970 (UTC).
    pub time: i64,
    /// The name.
    pub name: Name,
    /// Who asked, as far as it may be kept.
    pub client: Client,
    /// How much of the client was to be kept.
    pub client_mode: RecordClient,
    /// Question type, the number of the DNS.
    pub qtype: u16,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether the model ran.
    pub scored: bool,
    /// The thresholds vet and block that counted.
    pub thresholds: (f32, f32),
    /// The client's group.
    pub group: Option<Arc<str>>,
}

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Decides what is kept of clients' addresses.
#[derive(Debug)]
pub struct Privacy {
    mode: RecordClient,
    key: Option<Hmac<Sha256>>,
}

impl Privacy {
    /// Reads the key, if one is needed.
    ///
    /// # Errors
    /// [`Error::Io`] if the key's file cannot be read or others may write to it, [`Error::Config`] if the key is short.
    pub fn new(config: &Config) -> Result<Privacy> {
        let key =
            match (config.record_client, &config.record_hmac_key_file) {
                (RecordClient::Hmac, Some(path)) => {
                    let bytes = crate::sys::read_trusted_file(path, 4096)
                        .map_err(|error| error.under("record.hmac_key_file: "))?;
                    let key = bytes.trim_ascii();
                    if key.len() < 16 {
                        let reason = "holds fewer than 16 bytes";
                        return Err(Error::setting(
                            "record.hmac_key_file",
                            &path.to_string_lossy(),
                            reason,
                        ));
                    }
                    let key = Hmac::new_from_slice(key);
                    Some(key.map_err(|_| {
                        Error::Config("record.hmac_key_file: unusable key".to_owned())
                    })?)
                }
                _ => None,
            };
        Ok(Privacy { mode: config.record_client, key })
    }

    /// What is kept of a client's address.
    pub fn keep(&self, address: Option<IpAddr>) -> Client {
        let Some(address) = address else { return Client::Unknown };
        match (self.mode, &self.key) {
            (RecordClient::Full, _) => Client::Address(address),
            (RecordClient::Truncate, _) => Client::Address(network_of(address)),
            (RecordClient::Hmac, Some(key)) => {
                let mut mac = key.clone();
                match address {
                    IpAddr::V4(v4) => mac.update(&v4.octets()),
                    IpAddr::V6(v6) => mac.update(&v6.octets()),
                }
                let digest = mac.finalize().into_bytes();
                let mut half = [0; 16];
                half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
                Client::Hashed(half)
            }
            (RecordClient::Hmac | RecordClient::None, _) => Client::Unknown,
        }
    }

    /// How much is kept.
    pub fn mode(&self) -> RecordClient {
        self.mode
    }
}

/// The /24 or /48 that an address is in.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4) & (u32::MAX << 8))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 80))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(mode: &str, address: &str, key: Option<&str>) -> Client {
        let mut config = Config::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        config.set("record.client", mode).unwrap();
        if let Some(key) = key {
            std::fs::write(file.path(), key).unwrap();
            config.set("record.hmac_key_file", file.path().to_str().unwrap()).unwrap();
        }
        Privacy::new(&config).unwrap().keep(Some(address.parse().unwrap()))
    }

    #[test]
    fn addresses_are_cut_before_they_are_kept() {
        assert_eq!(
            keep("full", "192.0.2.77", None),
            Client::Address("192.0.2.77".parse().unwrap())
        );
        assert_eq!(
            keep("truncate", "192.0.2.77", None),
            Client::Address("192.0.2.0".parse().unwrap())
        );
        assert_eq!(
            keep("truncate", "2001:db8:1:2::3", None),
            Client::Address("2001:db8:1::".parse().unwrap())
        );
        assert_eq!(keep("none", "192.0.2.77", None), Client::Unknown);
    }

    #[test]
    fn hashes_depend_on_the_key() {
        let one = keep("hmac", "192.0.2.77", Some("0123456789abcdef\n"));
        assert_eq!(one, keep("hmac", "192.0.2.77", Some("0123456789abcdef")));
        assert_ne!(one, keep("hmac", "192.0.2.78", Some("0123456789abcdef")));
        assert_ne!(one, keep("hmac", "192.0.2.77", Some("another key, longer")));
    }

    #[test]
    fn a_short_key_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short").unwrap();
        let mut config = Config::default();
        config.set("record.client", "hmac").unwrap();
        config.set("record.hmac_key_file", file.path().to_str().unwrap()).unwrap();
        assert!(Privacy::new(&config).is_err());
    }
}
