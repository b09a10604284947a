//! The dashboards' saved objects, read for the tests.

use mlbridge::elastic::setup::DASHBOARDS;
use serde_json::Value;

/// The saved objects, one a line.
pub fn objects() -> Vec<Value> {
    DASHBOARDS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// JSON inside a string attribute of an object.
pub fn inner(object: &Value, pointer: &str) -> Value {
    let text = object.pointer(pointer).and_then(Value::as_str);
    serde_json::from_str(text.unwrap_or_else(|| panic!("{pointer} in {object}"))).unwrap()
}

/// The index pattern that a visualisation or search refers to, by its title.
pub fn pattern_of(object: &Value, objects: &[Value]) -> Option<String> {
    let reference =
        object["references"].as_array()?.iter().find(|r| r["type"] == "index-pattern")?;
    let pattern =
        objects.iter().find(|o| o["type"] == "index-pattern" && o["id"] == reference["id"])?;
    Some(pattern["attributes"]["title"].as_str()?.to_owned())
}

/// The fields that visualisations of an index pattern aggregate on, and whether they have to be numbers or times.
pub fn fields(pattern: &str) -> Vec<(String, bool)> {
    let objects = objects();
    let mut found = Vec::new();
    for object in objects.iter().filter(|object| object["type"] == "visualization") {
        if pattern_of(object, &objects).as_deref() != Some(pattern) {
            continue;
        }
        let state = inner(object, "/attributes/visState");
        for aggregation in state["aggs"].as_array().into_iter().flatten() {
            let Some(field) = aggregation["params"]["field"].as_str() else { continue };
            let kind = aggregation["type"].as_str().unwrap();
            let numeric = !matches!(kind, "terms" | "cardinality");
            found.push((field.to_owned(), numeric));
        }
    }
    found
}
