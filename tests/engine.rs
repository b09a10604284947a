//! Engines as a Rust host sees them: store, overrides, lists that change, reloads, the breaker, sampling.

use mlbridge::engine;
use mlbridge::policy::overrides::{Class, Override, Scope};
use mlbridge::store::event::now_ms;
use mlbridge::store::sqlite::Reader;
use mlbridge::{Action, Config, Decision, Engine, Source, Verdict};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    config
}

fn recording(directory: &Path, settings: &[(&str, &str)]) -> Arc<Engine> {
    let directory = directory.to_str().unwrap();
    let all = [("state_dir", directory), ("record.allow", "all"), ("store.flush_ms", "50")];
    engine::open(&config(&[&all, settings].concat())).unwrap()
}

fn ask(engine: &Engine, name: &str) -> Verdict {
    engine.classify(&name.parse().unwrap(), None, 1)
}

/// Waits until something holds; how long is the machine's affair.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_override_reaches_the_running_engine_and_survives_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let running = recording(&state, &[]);
    assert_eq!(ask(&running, "bad.example").source, Source::Model);
    running.flush(PATIENCE).unwrap();
    let one = Override {
        name: "bad.example".parse().unwrap(),
        class: Class::Malicious,
        author: "test".to_owned(),
        note: String::new(),
        scope: Scope::All,
        created: now_ms(),
        expires: None,
        from_index: false,
    };
    Reader::open(&state).unwrap().add_override(&one).unwrap();
    until("the override is in force", || {
        ask(&running, "www.bad.example").action == Action::Nxdomain
    });
    // A newcomer to the open store has it at once; so has the next process's engine before its first event.
    let newcomer = recording(&state, &[("mode", "observe")]);
    assert_eq!(ask(&newcomer, "bad.example").source, Source::Override);
    engine::release(&newcomer);
    engine::release(&running);
    let next = recording(&state, &[]);
    assert_eq!(ask(&next, "bad.example").source, Source::Override);
    engine::release(&next);
}

#[test]
fn lists_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("block.txt");
    std::fs::write(&list, "one.example\n").unwrap();
    let engine = engine::open(&config(&[("lists.block", list.to_str().unwrap())])).unwrap();
    assert_eq!(ask(&engine, "one.example").source, Source::Blocklist);
    std::fs::write(&list, "two.example\nthree.example\n").unwrap();
    until("the new list is in force", || ask(&engine, "two.example").source == Source::Blocklist);
    assert_eq!(ask(&engine, "one.example").source, Source::Model);
    std::fs::remove_file(&list).unwrap();
    until("the loss is told", || {
        engine.hub().message().is_some_and(|(_, text)| text.contains("old ones stay"))
    });
    assert_eq!(ask(&engine, "two.example").source, Source::Blocklist);
    engine::release(&engine);
}

#[test]
fn a_reload_is_whole_or_not_at_all() {
    let engine = engine::open(&config(&[("threshold.block", "0")])).unwrap();
    assert_eq!(ask(&engine, "a.example").decision, Decision::Block);
    let error = engine.reload(&config(&[("model.path", "/nowhere")])).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
    assert_eq!(ask(&engine, "a.example").decision, Decision::Block);
    assert!(engine.reload(&config(&[("instance", "other")])).is_err());
    engine.reload(&config(&[("block.action", "refused"), ("threshold.block", "0")])).unwrap();
    assert_eq!(ask(&engine, "a.example").action, Action::Refused);
    assert_eq!(engine.stats().reloads, 1);
    engine::release(&engine);
}

#[test]
fn the_breaker_opens_on_a_model_that_blocks_everything() {
    let settings = [("threshold.block", "0"), ("breaker.min_queries", "100")];
    let engine = engine::open(&config(&settings)).unwrap();
    let actions: Vec<Action> =
        (0..300).map(|n| ask(&engine, &format!("name{n}.example{n}.com")).action).collect();
    assert_eq!(actions[0], Action::Nxdomain);
    assert_eq!(actions[299], Action::Pass);
    let last = ask(&engine, "another.example");
    assert_eq!(
        (last.decision, last.flags & mlbridge::verdict::FLAG_BREAKER != 0),
        (Decision::Block, true)
    );
    assert!(engine.hub().message().is_some_and(|(_, text)| text.contains("breaker")));
    engine::release(&engine);
    // One bot that asks for many names of one domain opens nothing.
    let engine = engine::open(&config(&settings)).unwrap();
    assert!(
        (0..300).all(|n| ask(&engine, &format!("name{n}.example.com")).action == Action::Nxdomain)
    );
    engine::release(&engine);
}

#[test]
fn what_is_recorded_follows_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    for (setting, low, high) in [("none", 0, 0), ("sample:10", 100, 900), ("all", 3000, 3000)] {
        let state = folder.path().join(setting);
        let engine = recording(&state, &[("record.allow", setting)]);
        for n in 0..3000 {
            ask(&engine, &format!("name{n}.example.com"));
        }
        engine.flush(PATIENCE).unwrap();
        let stats = engine.stats();
        assert!((low..=high).contains(&stats.stored), "{setting}: {} stored", stats.stored);
        assert!(stats.adds_up(), "{stats:?}");
        assert_eq!((stats.classified, stats.queued), (3000, 0));
        engine::release(&engine);
    }
}

#[test]
fn explanations_record_and_count_nothing() {
    let engine = engine::open(&Config::default()).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&engine.explain(&"a.example".parse().unwrap()).unwrap()).unwrap();
    assert_eq!(json["name"], "a.example");
    assert_eq!(json["decision"], "allow");
    assert!(json["explanation"]["score"].is_number());
    assert_eq!(engine.stats().classified, 0);
    engine::release(&engine);
}

#[test]
fn a_file_that_is_missing_is_named_with_its_setting() {
    for key in [
        "lists.allow",
        "lists.block",
        "lists.popular",
        "groups.guests.lists.block",
        "model.path",
        "record.hmac_key_file",
    ] {
        let mut settings = vec![(key, "/nowhere/x"), ("groups.guests.cidr", "10.0.0.0/8")];
        if key == "record.hmac_key_file" {
            settings.push(("record.client", "hmac"));
        }
        let error = engine::open(&config(&settings)).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{key}: /nowhere/x")), "{error}");
    }
}
