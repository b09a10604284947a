//! Policy: from a name, a client and a score to a decision and an action.
//!
//! The order of decision is override, lists, skipped kinds, popular names, model; observe mode and the breaker then keep
//! the decision and turn its action into pass. Everything here is a pure function of its arguments and of what was read
//! at construction; the verdict never depends on the query type.

pub mod breaker;
pub mod lists;
pub mod overrides;

use crate::config::{Config, Mode};
use crate::error::Result;
use crate::name::Name;
use crate::verdict::{Action, Decision, FLAG_BREAKER, FLAG_OBSERVED, Label, Source, Verdict};
use ipnet::IpNet;
use lists::{Listed, Lists, Popular};
use overrides::{Class, Overrides};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// Two addresses to answer with; a missing family is answered with no data.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// What counts for one group of clients, or for all others.
#[derive(Debug)]
pub struct Rules {
    /// The group's name; `None` for clients of no group.
    pub group: Option<Arc<str>>,
    mode: Mode,
    /// Score from which a name is to be vetted; above 1: never.
    pub vet: f32,
    /// Score from which a name is blocked; above 1: never.
    pub block: f32,
    block_action: Action,
    lists: Arc<Lists>,
}

/// A score that no name reaches: the threshold of what never happens.
pub const NEVER: f32 = 2.0;

/// The threshold, unless it is [`NEVER`].
pub fn set(threshold: f32) -> Option<f32> {
    (threshold < NEVER).then_some(threshold)
}

/// Lists read from files, shared between policies made of the same files.
#[derive(Debug, Clone)]
pub struct ReadLists {
    global: Arc<Lists>,
    groups: Vec<Arc<Lists>>,
    popular: Arc<Popular>,
}

impl ReadLists {
    /// Reads all lists that the settings name.
    ///
    /// # Errors
    /// [`crate::Error::Io`] that names the file.
    pub fn read(config: &Config) -> Result<ReadLists> {
        let groups: Result<Vec<Arc<Lists>>> = config
            .groups
            .iter()
            .map(|(name, group)| {
                let lists = Lists::read(&group.lists_allow, &group.lists_block);
                lists.map(Arc::new).map_err(|error| error.under(&format!("groups.{name}.")))
            })
            .collect();
        Ok(ReadLists {
            global: Arc::new(Lists::read(&config.lists_allow, &config.lists_block)?),
            groups: groups?,
            popular: Arc::new(Popular::read(&config.lists_popular)?),
        })
    }

    /// Every file that the settings name as a list.
    pub fn files(config: &Config) -> impl Iterator<Item = &PathBuf> {
        let groups = config
            .groups
            .values()
            .flat_map(|group| group.lists_allow.iter().chain(&group.lists_block));
        config
            .lists_allow
            .iter()
            .chain(&config.lists_block)
            .chain(&config.lists_popular)
            .chain(groups)
    }

    /// Lines of all lists that said nothing about a name.
    pub fn ignored(&self) -> usize {
        self.global.ignored + self.groups.iter().map(|lists| lists.ignored).sum::<usize>()
    }
}

/// All that decides, beside the model. Immutable; shared by all threads.
#[derive(Debug)]
pub struct Policy {
    default: Rules,
    groups: Vec<Rules>,
    /// Networks of the groups, longest prefix first, with the index of the group.
    networks: Vec<(IpNet, usize)>,
    lists: Arc<Lists>,
    popular: Arc<Popular>,
    overrides: Arc<Overrides>,
    own_zones: HashSet<Box<[u8]>, ahash::RandomState>,
    protected: HashSet<Box<[u8]>, ahash::RandomState>,
    vet_action: Action,
    sinkhole: Addresses,
    honeypot: Addresses,
    ttl: u32,
}

/// Zones whose names are never scored, in wire form (`home.arpa` is below the first).
const LOCAL_ZONES: [&[u8]; 4] =
    [b"\x04arpa\0", b"\x05local\0", b"\x09localhost\0", b"\x08internal\0"];

/// The last four letters of each.
const LOCAL_ENDS: [[u8; 4]; 4] = [*b"arpa", *b"ocal", *b"host", *b"rnal"];

/// The thresholds vet and block of a group: the settings', or the manifest's where there is none. Where the two of them
/// would cross, the manifest's one gives way; two settings that cross are an error.
fn bands(
    group: Option<&str>,
    set: (Option<f32>, Option<f32>),
    manifest: (Option<f32>, Option<f32>),
) -> Result<(f32, f32)> {
    let vet = set.0.or(manifest.0).unwrap_or(NEVER);
    let block = set.1.or(manifest.1).unwrap_or(NEVER);
    match set {
        (Some(vet), Some(block)) if vet > block => {
            let prefix = group.map(|name| format!("groups.{name}.")).unwrap_or_default();
            Err(crate::Error::Config(format!(
                "{prefix}threshold.vet: \"{vet}\" lies above {prefix}threshold.block \"{block}\""
            )))
        }
        (Some(_), _) => Ok((vet, block.max(vet))),
        (None, _) => Ok((vet.min(block), block)),
    }
}

impl Policy {
    /// Puts a policy together. `thresholds` are the manifest's (vet, block); they give way to the settings'.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if a vet threshold lies above its block threshold.
    pub fn new(
        config: &Config,
        thresholds: (Option<f32>, Option<f32>),
        lists: &ReadLists,
        overrides: Arc<Overrides>,
    ) -> Result<Policy> {
        let rules = |group: Option<&str>,
                     mode,
                     vet: Option<f32>,
                     block: Option<f32>,
                     block_action,
                     lists: &Arc<Lists>| {
            let (vet, block) = bands(group, (vet, block), thresholds)?;
            Ok(Rules {
                group: group.map(Arc::from),
                mode,
                vet,
                block,
                block_action,
                lists: Arc::clone(lists),
            })
        };
        let nothing = Arc::new(Lists::default());
        let (vet, block) = (config.threshold_vet, config.threshold_block);
        let default = rules(None, config.mode, vet, block, config.block_action, &nothing)?;
        let mut groups = Vec::new();
        let mut networks = Vec::new();
        for ((name, group), own) in config.groups.iter().zip(&lists.groups) {
            networks.extend(group.cidr.iter().map(|network| (*network, groups.len())));
            groups.push(rules(
                Some(name),
                group.mode.unwrap_or(config.mode),
                group.threshold_vet.or(vet),
                group.threshold_block.or(block),
                group.block_action.unwrap_or(config.block_action),
                own,
            )?);
        }
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        let hosts = config.elasticsearch.hosts().filter_map(|host| host.parse::<Name>().ok());
        Ok(Policy {
            default,
            groups,
            networks,
            lists: Arc::clone(&lists.global),
            popular: Arc::clone(&lists.popular),
            overrides,
            own_zones: config.zones_own.iter().map(|zone| zone.wire().into()).collect(),
            protected: hosts
                .filter(|name| name.labels() > 0)
                .map(|name| name.wire().into())
                .collect(),
            vet_action: config.vet_action,
            sinkhole: Addresses { v4: config.sinkhole_ipv4, v6: config.sinkhole_ipv6 },
            honeypot: Addresses { v4: config.honeypot_ipv4, v6: config.honeypot_ipv6 },
            ttl: config.block_ttl,
        })
    }

    /// The rules of a client: those of its group, or the general ones.
    pub fn rules(&self, client: Option<IpAddr>) -> &Rules {
        let group = client.and_then(|address| {
            self.networks.iter().find(|(network, _)| network.contains(&address))
        });
        group.and_then(|&(_, index)| self.groups.get(index)).unwrap_or(&self.default)
    }

    /// What is decided without the model, if anything is: overrides, lists, skipped kinds of names.
    /// `now` gives milliseconds since 1970; it is asked only if an override expires.
    #[inline]
    pub fn before_model(
        &self,
        rules: &Rules,
        name: &Name,
        client: Option<IpAddr>,
        now: impl Fn() -> i64,
    ) -> Option<Verdict> {
        if self.protected.contains(name.wire()) {
            return Some(self.verdict(rules, Decision::Allow, Source::Skipped));
        }
        if let Some(found) = self.overrides.find(name, client, rules.group.as_deref(), now) {
            return Some(match found.class {
                Class::Benign => self.verdict(rules, Decision::Allow, Source::Override),
                Class::Malicious => self.verdict(rules, Decision::Block, Source::Override),
                Class::Honeypot => self.honeypot(rules),
            });
        }
        let listed = |lists: &Lists| if lists.is_empty() { None } else { lists.find(name) };
        match listed(&rules.lists).or_else(|| listed(&self.lists)) {
            Some(Listed::Allow) => {
                return Some(self.verdict(rules, Decision::Allow, Source::Allowlist));
            }
            Some(Listed::Block) => {
                return Some(self.verdict(rules, Decision::Block, Source::Blocklist));
            }
            None => {}
        }
        self.is_skipped(name).then(|| self.verdict(rules, Decision::Allow, Source::Skipped))
    }

    /// What the model's score decides.
    #[inline]
    pub fn after_model(
        &self,
        rules: &Rules,
        name: &Name,
        score: f32,
        breaker_open: bool,
    ) -> Verdict {
        let label = if score < 0.5 { Label::Benign } else { Label::Malicious };
        let reached = if score >= rules.block {
            Decision::Block
        } else if score >= rules.vet {
            Decision::Vet
        } else {
            Decision::Allow
        };
        // Asked for last: most names are allowed anyway, and the look-up costs as much as the rest.
        let popular = !self.popular.is_empty() && self.popular.covers(name);
        let mut verdict = if popular {
            self.verdict(rules, Decision::Allow, Source::Popular)
        } else {
            self.verdict(rules, reached, Source::Model)
        };
        if breaker_open && verdict.decision == Decision::Block && verdict.action != Action::Pass {
            verdict.action = Action::Pass;
            verdict.flags |= FLAG_BREAKER;
        }
        Verdict { score, label, ..verdict }
    }

    fn verdict(&self, rules: &Rules, decision: Decision, source: Source) -> Verdict {
        let wanted = match decision {
            Decision::Allow => Action::Pass,
            Decision::Vet => self.vet_action,
            Decision::Block => rules.block_action,
        };
        self.carry_out(rules, decision, source, wanted, self.sinkhole)
    }

    fn honeypot(&self, rules: &Rules) -> Verdict {
        // Without an address there is nothing to lure into: block as any other name.
        if self.honeypot == Addresses::default() {
            return self.verdict(rules, Decision::Block, Source::Override);
        }
        self.carry_out(rules, Decision::Block, Source::Override, Action::Sinkhole, self.honeypot)
    }

    fn carry_out(
        &self,
        rules: &Rules,
        decision: Decision,
        source: Source,
        wanted: Action,
        addresses: Addresses,
    ) -> Verdict {
        let observed = rules.mode == Mode::Observe && wanted != Action::Pass;
        let action = if observed { Action::Pass } else { wanted };
        let addresses = if action == Action::Sinkhole { addresses } else { Addresses::default() };
        Verdict {
            decision,
            action,
            source,
            flags: if observed { FLAG_OBSERVED } else { 0 },
            ttl: self.ttl,
            sinkhole4: addresses.v4,
            sinkhole6: addresses.v6,
            ..Verdict::default()
        }
    }

    #[inline]
    fn is_skipped(&self, name: &Name) -> bool {
        if name.labels() < 2 {
            return true;
        }
        let wire = name.wire();
        // The cheap look first: few names end in one of these, and only those are cut into labels.
        let end = wire.strip_suffix(b"\0").and_then(|wire| wire.last_chunk());
        let local = end.is_some_and(|end| LOCAL_ENDS.contains(end))
            && LOCAL_ZONES.iter().any(|zone| name.is_at_or_below(zone));
        local
            || (!self.own_zones.is_empty()
                && name.suffixes().any(|suffix| self.own_zones.contains(suffix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::overrides::{Override, Scope};

    struct Setup {
        config: Config,
        overrides: Vec<Override>,
        _files: Vec<tempfile::NamedTempFile>,
    }

    impl Setup {
        fn new(settings: &[(&str, &str)]) -> Setup {
            let mut config = Config::default();
            for (key, value) in settings {
                config.set(key, value).unwrap();
            }
            Setup { config, overrides: Vec::new(), _files: Vec::new() }
        }

        fn list(mut self, key: &str, text: &str) -> Setup {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            self.config.set(key, file.path().to_str().unwrap()).unwrap();
            self._files.push(file);
            self
        }

        fn with_override(mut self, name: &str, class: Class) -> Setup {
            let (author, note, name) = ("a".to_owned(), String::new(), name.parse().unwrap());
            self.overrides.push(Override {
                name,
                class,
                author,
                note,
                scope: Scope::All,
                created: 1,
                expires: None,
                from_index: false,
            });
            self
        }

        fn policy(&self) -> Result<Policy> {
            let lists = ReadLists::read(&self.config).unwrap();
            Policy::new(
                &self.config,
                (None, None),
                &lists,
                Arc::new(Overrides::new(self.overrides.clone())),
            )
        }

        fn decide(&self, name: &str, client: Option<&str>, score: f32) -> Verdict {
            let policy = self.policy().unwrap();
            let client = client.map(|text| text.parse().unwrap());
            let (rules, name) = (policy.rules(client), name.parse().unwrap());
            policy
                .before_model(rules, &name, client, || 5)
                .unwrap_or_else(|| policy.after_model(rules, &name, score, false))
        }
    }

    fn outcome(verdict: Verdict) -> (Decision, Source, Action) {
        (verdict.decision, verdict.source, verdict.action)
    }

    #[test]
    fn the_order_of_decision() {
        let setup = Setup::new(&[("threshold.vet", "0.5"), ("threshold.block", "0.9")])
            .list("lists.allow", "allowed.example\nover.example\n")
            .list("lists.block", "blocked.example\npopular.example\nprinter.local\n")
            .list("lists.popular", "1,popular.example\n2,known.example\n")
            .with_override("over.example", Class::Malicious)
            .with_override("host.internal", Class::Malicious);
        use {Action::*, Decision::*, Source::*};
        for (name, score, expected) in [
            ("over.example", 0.0, (Block, Override, Nxdomain)),
            ("x.over.example", 0.0, (Block, Override, Nxdomain)),
            ("host.internal", 0.0, (Block, Override, Nxdomain)),
            ("allowed.example", 0.99, (Allow, Allowlist, Pass)),
            ("blocked.example", 0.0, (Block, Blocklist, Nxdomain)),
            ("popular.example", 0.0, (Block, Blocklist, Nxdomain)),
            ("printer.local", 0.0, (Block, Blocklist, Nxdomain)),
            ("www.known.example", 0.99, (Allow, Popular, Pass)),
            ("other.local", 0.99, (Allow, Skipped, Pass)),
            ("4.3.2.1.in-addr.arpa", 0.99, (Allow, Skipped, Pass)),
            ("single", 0.99, (Allow, Skipped, Pass)),
            ("a.example", 0.95, (Block, Model, Nxdomain)),
            ("a.example", 0.9, (Block, Model, Nxdomain)),
            ("a.example", 0.5, (Vet, Model, Pass)),
            ("a.example", 0.1, (Allow, Model, Pass)),
        ] {
            assert_eq!(outcome(setup.decide(name, None, score)), expected, "{name} {score}");
        }
        let popular = setup.decide("www.known.example", None, 0.75);
        assert_eq!((popular.score, popular.label), (0.75, Label::Malicious));
    }

    #[test]
    fn a_model_without_thresholds_decides_nothing() {
        let verdict = Setup::new(&[]).decide("a.example", None, 1.0);
        assert_eq!(outcome(verdict), (Decision::Allow, Source::Model, Action::Pass));
        assert_eq!(verdict.label, Label::Malicious);
    }

    #[test]
    fn observe_mode_and_the_breaker_keep_the_decision() {
        let setup = Setup::new(&[("mode", "observe"), ("threshold.block", "0.9")]);
        let verdict = setup.decide("a.example", None, 1.0);
        assert_eq!(outcome(verdict), (Decision::Block, Source::Model, Action::Pass));
        assert_eq!(verdict.flags, FLAG_OBSERVED);

        let policy = Setup::new(&[("threshold.block", "0.9")]).policy().unwrap();
        let verdict =
            policy.after_model(policy.rules(None), &"a.example".parse().unwrap(), 1.0, true);
        assert_eq!(outcome(verdict), (Decision::Block, Source::Model, Action::Pass));
        assert_eq!(verdict.flags, FLAG_BREAKER);
    }

    #[test]
    fn groups_have_rules_of_their_own() {
        let setup = Setup::new(&[
            ("threshold.block", "0.9"),
            ("groups.guests.cidr", "10.0.0.0/8"),
            ("groups.guests.threshold.block", "0.5"),
            ("groups.guests.block.action", "refused"),
            ("groups.lab.cidr", "10.1.0.0/16"),
            ("groups.lab.mode", "observe"),
        ])
        .list("groups.guests.lists.allow", "ok.example\n")
        .list("lists.block", "ok.example\n");
        let outcome =
            |name: &str, client: &str, score| outcome(setup.decide(name, Some(client), score));
        assert_eq!(
            outcome("a.example", "10.9.9.9", 0.6),
            (Decision::Block, Source::Model, Action::Refused)
        );
        assert_eq!(outcome("a.example", "192.0.2.1", 0.6).0, Decision::Allow);
        assert_eq!(
            outcome("a.example", "10.1.9.9", 0.95),
            (Decision::Block, Source::Model, Action::Pass)
        );
        assert_eq!(outcome("ok.example", "10.9.9.9", 0.0).1, Source::Allowlist);
        assert_eq!(outcome("ok.example", "192.0.2.1", 0.0).1, Source::Blocklist);
    }

    #[test]
    fn honeypots_and_sinkholes_bring_their_addresses() {
        let setup = Setup::new(&[
            ("block.action", "sinkhole"),
            ("sinkhole.ipv4", "192.0.2.1"),
            ("honeypot.ipv6", "2001:db8::1"),
        ])
        .with_override("lure.example", Class::Honeypot)
        .with_override("bad.example", Class::Malicious);
        let lure = setup.decide("lure.example", None, 0.0);
        assert_eq!((lure.action, lure.sinkhole4), (Action::Sinkhole, None));
        assert_eq!(lure.sinkhole6, Some("2001:db8::1".parse().unwrap()));
        let bad = setup.decide("bad.example", None, 0.0);
        assert_eq!((bad.sinkhole4, bad.sinkhole6), (Some("192.0.2.1".parse().unwrap()), None));
    }

    #[test]
    fn vet_above_block_is_an_error() {
        let error = Setup::new(&[("threshold.vet", "0.9"), ("threshold.block", "0.5")])
            .policy()
            .unwrap_err();
        assert_eq!(error.to_string(), "threshold.vet: \"0.9\" lies above threshold.block \"0.5\"");
    }

    #[test]
    fn the_manifest_s_thresholds_give_way_to_the_settings() {
        let manifest = (Some(0.8), Some(0.9));
        assert_eq!(bands(None, (None, None), manifest).unwrap(), (0.8, 0.9));
        assert_eq!(bands(None, (None, Some(0.5)), manifest).unwrap(), (0.5, 0.5));
        assert_eq!(bands(None, (Some(0.95), None), manifest).unwrap(), (0.95, 0.95));
        assert_eq!(bands(None, (Some(0.5), None), (None, None)).unwrap(), (0.5, NEVER));
    }

    #[test]
    fn the_cluster_s_own_host_is_never_blocked() {
        let setup = Setup::new(&[
            ("elasticsearch.urls", "https://es.example:9200"),
            ("threshold.block", "0"),
        ])
        .with_override("es.example", Class::Malicious);
        assert_eq!(setup.decide("es.example", None, 1.0).source, Source::Skipped);
    }
}
