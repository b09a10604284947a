//! What one name costs in the default model: `cargo bench --bench model`.
//!
//! `fused` and `tract` are the two engines on the names of `models/default/golden.tsv`, one after the other, as text
//! already parsed; `median` is one name of the median length.

use criterion::{Criterion, criterion_group, criterion_main};
use mlbridge::model::{EngineChoice, Model};
use mlbridge::name::Name;
use std::hint::black_box;
use std::path::Path;

fn names() -> Vec<Name> {
    let golden = include_str!("../models/default/golden.tsv");
    let texts = golden.lines().skip(1).filter_map(|line| line.split('\t').next());
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn score(criterion: &mut Criterion) {
    let default = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/default"));
    let names = names();
    let median: Name = "www.example-shop.com".parse().expect("a name");
    for choice in [EngineChoice::Fused, EngineChoice::Tract] {
        let model = Model::load(default, choice).expect("the default model loads");
        let mut next = names.iter().cycle();
        criterion.bench_function(&format!("{}/mixed", choice.as_str()), |bencher| {
            bencher.iter(|| model.score(black_box(next.next().expect("names never end"))));
        });
        criterion.bench_function(&format!("{}/median", choice.as_str()), |bencher| {
            bencher.iter(|| model.score(black_box(&median)));
        });
    }
    criterion.bench_function("load/embedded", |bencher| {
        bencher.iter(|| Model::embedded(EngineChoice::Auto).expect("the embedded model loads"));
    });
}

criterion_group!(benches, score);
criterion_main!(benches);
