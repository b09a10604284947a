//! Documents, templates and dashboards fit together: each field that is written is mapped, each field that a panel names
//! is in the template with a type that the panel can use.

mod support;

use mlbridge::Decision;
use mlbridge::elastic::document::{self, SummaryRecord};
use mlbridge::elastic::setup::{self, Kind, Product, Server};
use mlbridge::elastic::{Ruling, ToVet, VetState};
use mlbridge::policy::overrides::Class;
use serde_json::Value;
use std::collections::BTreeMap;
use support::dashboards;

fn server(product: Product, version: (u32, u32), serverless: bool) -> Server {
    Server { product, version, serverless }
}

/// The types of a mapping's fields, by path.
fn fields(mapping: &Value) -> BTreeMap<String, String> {
    fn walk(properties: &Value, prefix: &str, out: &mut BTreeMap<String, String>) {
        for (name, field) in properties.as_object().unwrap() {
            let path = format!("{prefix}{name}");
            match field.get("properties") {
                Some(inner) => walk(inner, &format!("{path}."), out),
                None => {
                    out.insert(path, field["type"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&mapping["properties"], "", &mut out);
    out
}

fn template_fields(kind: Kind) -> BTreeMap<String, String> {
    let template = setup::template(kind, &server(Product::Unknown, (0, 0), false), false);
    fields(&template["template"]["mappings"])
}

fn vetting_fields() -> BTreeMap<String, String> {
    let body: Value =
        serde_json::from_str(include_str!("../src/elastic/assets/vetting-index.json")).unwrap();
    fields(&body["mappings"])
}

/// The paths of a document's values.
fn paths(document: &Value) -> Vec<String> {
    fn walk(value: &Value, prefix: &str, out: &mut Vec<String>) {
        match value.as_object() {
            Some(object) => {
                for (name, inner) in object {
                    let path =
                        if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    walk(inner, &path, out);
                }
            }
            None => out.push(prefix.to_owned()),
        }
    }
    let mut out = Vec::new();
    walk(document, "", &mut out);
    out
}

fn all_mapped(document: &Value, mapped: &BTreeMap<String, String>) {
    for path in paths(document) {
        assert!(mapped.contains_key(&path), "{path} is written, but not mapped");
    }
}

#[test]
fn every_field_that_is_written_is_mapped() {
    let source =
        support::outbox::verdict_source("id", 1, "x.example.com", "2001:db8::", Decision::Block);
    all_mapped(&serde_json::from_slice(&source).unwrap(), &template_fields(Kind::Verdict));

    let mut summary = Vec::new();
    let words = ["queue", "store", "forked", "evicted", "sampled_out", "not_recorded"];
    let now = SummaryRecord {
        losses: words.map(|word| (word, 1)).to_vec(),
        latency: std::array::from_fn(|_| 1),
        oldest_to_vet_ms: Some(1),
        model: Some(("m".to_owned(), "1".to_owned())),
        shadow: Some((1, 1)),
        ..SummaryRecord::default()
    };
    let identity = support::identity();
    document::summary(&mut summary, "id", &now, &SummaryRecord::default(), &identity, "default");
    all_mapped(&serde_json::from_slice(&summary).unwrap(), &template_fields(Kind::Summary));

    let ruling = Ruling {
        class: Class::Benign,
        author: "a".to_owned(),
        note: "n".to_owned(),
        scope: "s".to_owned(),
        at_ms: 1,
        expires_ms: Some(2),
    };
    let pending =
        VetState::Pending { example: "x".to_owned(), score: 0.5, first_seen_ms: 1, count: 1 };
    for state in [pending, VetState::Decided(ruling)] {
        let mut out = Vec::new();
        document::vetting(&mut out, &ToVet { key: 1, name: "n".to_owned(), state }, &identity);
        all_mapped(&serde_json::from_slice(&out).unwrap(), &vetting_fields());
    }
}

#[test]
fn every_keyword_is_bounded() {
    for kind in [Kind::Verdict, Kind::Summary] {
        let template =
            setup::template(kind, &server(Product::Unknown, (0, 0), false), false).to_string();
        assert_eq!(
            template.matches("\"keyword\"").count(),
            template.matches("\"ignore_above\"").count()
        );
        assert!(!template.contains("constant_keyword"));
    }
}

#[test]
fn templates_are_made_for_the_server() {
    let at = |template: &Value, pointer: &str| template.pointer(pointer).cloned();
    let (name, settings) =
        ("/template/settings/index/lifecycle/name", "/template/settings/index/number_of_shards");
    for (server, ilm, named, shards, retention) in [
        (server(Product::Elasticsearch, (8, 19), false), true, true, true, false),
        (server(Product::Elasticsearch, (8, 19), false), false, false, true, false),
        (server(Product::OpenSearch, (2, 19), false), false, false, true, false),
        (server(Product::Elasticsearch, (9, 0), true), false, false, false, true),
    ] {
        for kind in [Kind::Verdict, Kind::Summary] {
            let template = setup::template(kind, &server, ilm);
            assert_eq!(at(&template, name).is_some(), named, "{server}");
            assert_eq!(at(&template, settings).is_some(), shards, "{server}");
            assert_eq!(at(&template, "/template/lifecycle").is_some(), retention, "{server}");
            assert_eq!(template["version"], 1);
            assert!(
                template["priority"].as_u64().unwrap() > 100,
                "Elasticsearch has its own at 100"
            );
            assert_eq!(template["template"]["mappings"]["dynamic"], false);
        }
    }
}

#[test]
fn policies_are_json() {
    for text in [
        include_str!("../src/elastic/assets/ilm-policy.json"),
        include_str!("../src/elastic/assets/ism-policy.json"),
    ] {
        let policy: Value = serde_json::from_str(text).unwrap();
        assert!(policy["policy"].is_object());
        // Known by every release since 7.0 and 1.0; max_primary_shard_size is not.
        assert!(!text.contains("primary_shard_size"));
    }
}

#[test]
fn dashboards_are_whole() {
    let objects = dashboards::objects();
    let levels = [("index-pattern", "7.6.0"), ("visualization", "7.10.0"), ("dashboard", "7.9.3")];
    let mut ids = Vec::new();
    for object in &objects {
        let kind = object["type"].as_str().unwrap();
        let level = levels.iter().find(|level| level.0 == kind).unwrap();
        assert_eq!(
            object["migrationVersion"][kind], level.1,
            "later ones fail on OpenSearch Dashboards"
        );
        ids.push((kind.to_owned(), object["id"].as_str().unwrap().to_owned()));
        for reference in object["references"].as_array().unwrap() {
            let wanted = (&reference["type"], &reference["id"]);
            assert!(objects.iter().any(|o| (&o["type"], &o["id"]) == wanted), "{reference}");
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id stands twice");
    let dashboard = objects.iter().find(|object| object["type"] == "dashboard").unwrap();
    let panels = dashboards::inner(dashboard, "/attributes/panelsJSON");
    assert_eq!(panels.as_array().unwrap().len(), 10);
    for panel in panels.as_array().unwrap() {
        let named = |reference: &&Value| reference["name"] == panel["panelRefName"];
        assert!(dashboard["references"].as_array().unwrap().iter().any(|r| named(&r)));
    }
}

#[test]
fn every_field_of_a_panel_is_in_its_template() {
    let mut checked = 0;
    for (pattern, mapped) in [
        ("logs-mlbridge.verdict-*", template_fields(Kind::Verdict)),
        ("metrics-mlbridge.summary-*", template_fields(Kind::Summary)),
        ("mlbridge-vetting", vetting_fields()),
    ] {
        for (field, numeric) in dashboards::fields(pattern) {
            let kind = mapped.get(&field).unwrap_or_else(|| panic!("{pattern}: {field}"));
            let fits = match numeric {
                true => ["long", "float", "date"].contains(&kind.as_str()),
                false => ["keyword", "ip", "long", "float"].contains(&kind.as_str()),
            };
            assert!(fits, "{pattern}: {field} is a {kind}");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} fields");
}
