//! The words of an answer: label, decision, action, source, and the verdict that holds them together.
//!
//! The numbers are those of the C ABI; they never change.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Declares an enum with the C ABI's numbers, and the words that configuration, records and documents use for it.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $number),+ }

        impl $name {
            /// Every value, in the order of its number.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word used in settings, records and documents.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The value of a word, if it is one.
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }

            /// The value of a number of the C ABI, if it is one.
            pub fn from_number(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What the model holds the name for: malicious from a score of 0.5 on (the rule of the 2020 suite).
    Label {
        /// Below 0.5, or the model did not run.
        #[default]
        Benign = 0 "benign",
        /// 0.5 or above.
        Malicious = 1 "malicious",
    }
}

words! {
    /// What was decided about the name.
    Decision {
        /// Answer as always.
        #[default]
        Allow = 0 "allow",
        /// Answer as `vet.action` says (default: as always) and ask an administrator.
        Vet = 1 "vet",
        /// Answer as `block.action` says.
        Block = 2 "block",
    }
}

words! {
    /// What the server should answer.
    Action {
        /// As if the library were not there.
        #[default]
        Pass = 0 "pass",
        /// The name does not exist.
        Nxdomain = 1 "nxdomain",
        /// The name exists and has nothing of the type asked for.
        Nodata = 2 "nodata",
        /// The query is refused.
        Refused = 3 "refused",
        /// The verdict's addresses for A and AAAA, no data for every other type.
        Sinkhole = 4 "sinkhole",
        /// No answer at all.
        Drop = 5 "drop",
    }
}

words! {
    /// What decided.
    Source {
        /// The model's score against the thresholds.
        #[default]
        Model = 0 "model",
        /// An administrator's override.
        Override = 1 "override",
        /// A block list.
        Blocklist = 2 "blocklist",
        /// An allow list.
        Allowlist = 3 "allowlist",
        /// The list of popular registered domains.
        Popular = 4 "popular",
        /// The name is of a kind that is never scored.
        Skipped = 5 "skipped",
    }
}

/// The score came from the cache.
pub const FLAG_CACHED: u32 = 1;
/// Observe mode kept the action at pass.
pub const FLAG_OBSERVED: u32 = 2;
/// Something inside failed, and the name was let through.
pub const FLAG_FAIL_OPEN: u32 = 4;
/// The breaker kept the action at pass: the model was blocking too much.
pub const FLAG_BREAKER: u32 = 8;
/// The event of this verdict was lost; the loss is counted.
pub const FLAG_DROPPED: u32 = 16;
/// A message for the host's log waits.
pub const FLAG_MESSAGE: u32 = 32;

/// Score, label, decision, source and action of one name, and what an answer made up by the host needs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// The model's number, 0 to 1; 0 when the model did not run.
    pub score: f32,
    /// What the model holds the name for.
    pub label: Label,
    /// What was decided.
    pub decision: Decision,
    /// What the server should answer.
    pub action: Action,
    /// What decided.
    pub source: Source,
    /// `FLAG_*` bits.
    pub flags: u32,
    /// Time to live, in seconds, of an answer that the host makes up.
    pub ttl: u32,
    /// Address for A questions when the action is sinkhole.
    pub sinkhole4: Option<Ipv4Addr>,
    /// Address for AAAA questions when the action is sinkhole.
    pub sinkhole6: Option<Ipv6Addr>,
    /// Share of benign names expected at or above this score, by the model's manifest; 0 if unknown or not scored.
    pub fpr: f32,
    /// The first eight bytes of the model's SHA-256, big endian.
    pub model: u64,
}
