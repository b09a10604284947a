//! Tests of whole models: what is shipped, what is loaded from a directory, what goes wrong.

use super::*;
use std::fs;

const SEED2020: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seed2020");

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The names and scores of a `golden.tsv`.
fn golden(dir: &str) -> Vec<(Name, f32)> {
    let text = fs::read_to_string(Path::new(dir).join("golden.tsv")).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split_once('\t').unwrap());
    rows.map(|(text, score)| (name(text), score.parse().unwrap())).collect()
}

#[test]
fn seed2020_gives_its_golden_scores() {
    for model in [
        Model::embedded(EngineChoice::Auto).unwrap(),
        Model::load(Path::new(SEED2020), EngineChoice::Tract).unwrap(),
    ] {
        let golden = golden(SEED2020);
        assert!(golden.len() >= 200);
        for (name, expected) in golden {
            let score = model.score(&name).unwrap();
            assert!((score - expected).abs() <= 1e-5, "{name}: {score}, golden {expected}");
        }
    }
}
