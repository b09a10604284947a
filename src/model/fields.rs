//! The encoder `ngram-fields` joined with an engine: the fused one, or tract.
//!
//! At load the stored golden scores of the manifest are computed with the fused engine; if one is off by more than
//! 1e-5, or the network's graph is another one than the fused engine knows, tract takes over and
//! [`super::Model::notice`] says why. tract's plan is only built when it is used: parsing and optimising the graph costs
//! several milliseconds that no host needs to wait for.

use super::files::{DICTIONARY, Files, NETWORK};
use super::fused::Fused;
use super::manifest::NgramFieldsSpec;
use super::ngram::{DENSE, Dictionary, Inputs, MAX_ROWS, POOLS, Parts};
use super::tract::{Input, InputType, Network};
use super::{Built, EngineChoice, Explanation, Failure, Scorer, explain, kernel, onnx, suffix_of};
use crate::error::{Error, Result};
use crate::name::{MAX_WIRE, Name};
use crate::suffix;

/// How far scores of two engines may differ.
const TOLERANCE: f32 = 1e-5;

/// A scorer for the model, and what its user should know about it, if anything.
pub(super) fn load(spec: &NgramFieldsSpec, files: &Files, choice: EngineChoice) -> Result<Built> {
    let name = &files.manifest.name;
    let dictionary = Dictionary::parse(files.get(DICTIONARY)?)
        .map_err(|reason| files.error(DICTIONARY, reason))?;
    if choice == EngineChoice::Tract {
        return Ok((Box::new(TractScorer::load(dictionary, files)?), suffix_notice(spec, name)));
    }
    match load_fused(&dictionary, files) {
        Ok(fused) => Ok((Box::new(FusedScorer { fused }), suffix_notice(spec, name))),
        Err(reason) if choice == EngineChoice::Fused => {
            let text = format!("cannot run model {name}: {reason}; use auto");
            Err(Error::setting("model.engine", choice.as_str(), text))
        }
        Err(reason) => {
            let notice = format!("model {name}: tract runs it, slowly, because {reason}");
            Ok((Box::new(TractScorer::load(dictionary, files)?), Some(notice)))
        }
    }
}

/// The fused engine of a model, checked; or why there is none.
fn load_fused(dictionary: &Dictionary, files: &Files) -> std::result::Result<Fused, String> {
    let network = files.get(NETWORK).map_err(|error| error.to_string())?;
    let weights = onnx::read(network).map_err(|reason| format!("{NETWORK}: {reason}"))?;
    let fused = Fused::new(dictionary.clone(), weights)?;
    check_golden(&fused, &files.manifest.golden)?;
    Ok(fused)
}

/// Says when names are cut by another suffix list than in training.
fn suffix_notice(spec: &NgramFieldsSpec, name: &str) -> Option<String> {
    let trained = spec.suffixes.as_str();
    (trained != suffix::SNAPSHOT).then(|| {
        format!(
            "model {name}: trained with the suffix list {trained}, scored with {}; train it again",
            suffix::SNAPSHOT
        )
    })
}

/// Compares the engine with the manifest's golden scores.
fn check_golden(fused: &Fused, golden: &[(String, f32)]) -> std::result::Result<(), String> {
    for (text, expected) in golden {
        let Ok(name) = Name::from_text(text.as_bytes()) else {
            return Err(format!("the golden name {text:?} is no domain name"));
        };
        let score = fused_score(fused, &name, suffix_of(&name));
        let near = (score - expected).abs() <= TOLERANCE;
        if !near {
            return Err(format!("the fused engine gives {score} for {text}, not {expected}"));
        }
    }
    Ok(())
}

fn fused_score(fused: &Fused, name: &Name, suffix: usize) -> f32 {
    let mut buffer = [0; MAX_WIRE];
    kernel::sigmoid(fused.logit(&Parts::with_suffix(name.dotted(&mut buffer), suffix)))
}

struct FusedScorer {
    fused: Fused,
}

impl Scorer for FusedScorer {
    fn raw_score(&self, name: &Name, suffix: usize) -> std::result::Result<f32, Failure> {
        Ok(fused_score(&self.fused, name, suffix))
    }

    fn engine(&self) -> &'static str {
        "fused"
    }

    fn explain(&self, name: &Name) -> std::result::Result<Explanation, Failure> {
        let mut buffer = [0; MAX_WIRE];
        Ok(explain::explain(&self.fused, name.dotted(&mut buffer)))
    }
}

struct TractScorer {
    dictionary: Dictionary,
    network: Network,
}

impl TractScorer {
    fn load(dictionary: Dictionary, files: &Files) -> Result<TractScorer> {
        let [core, sub, word] = MAX_ROWS;
        let expected = [
            (InputType::I64, core),
            (InputType::I64, sub),
            (InputType::I64, word),
            (InputType::F32, POOLS),
            (InputType::F32, DENSE),
        ];
        let network = Network::load(files.get(NETWORK)?, &[])
            .and_then(|network| network.expect(0, &expected).map(|()| network))
            .map_err(|reason| files.error(NETWORK, reason))?;
        Ok(TractScorer { dictionary, network })
    }
}

impl Scorer for TractScorer {
    fn raw_score(&self, name: &Name, _suffix: usize) -> std::result::Result<f32, Failure> {
        let mut buffer = [0; MAX_WIRE];
        let Inputs { core, sub, word, inverse, dense } =
            Inputs::of(&self.dictionary, name.dotted(&mut buffer));
        let inputs = [
            Input::I64(&core),
            Input::I64(&sub),
            Input::I64(&word),
            Input::F32(&inverse),
            Input::F32(&dense),
        ];
        self.network.run(0, &inputs)
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::super::{EngineChoice, Model};
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;
    use std::fs;
    use std::path::Path;

    const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/default");
    /// Real names: those of the golden scores, and the 1,000 that the 2020 network learnt from.
    const GOLDEN: &str = include_str!("../../models/default/golden.tsv");
    const SEED_NAMES: &str = include_str!("../../models/seed2020/names.tsv");

    fn real_names() -> Vec<Name> {
        let lines = GOLDEN.lines().chain(SEED_NAMES.lines()).skip(1);
        let texts = lines.flat_map(|line| line.split('\t'));
        texts.filter(|text| text.contains('.')).filter_map(|text| text.parse().ok()).collect()
    }

    /// Names of every length and kind, and real ones with a change or a sub-domain: always the same.
    fn drawn_names(count: usize) -> Vec<Name> {
        let mut random = Pcg64::seed_from_u64(4);
        let real = real_names();
        let suffixes = ["com", "co.uk", "weebly.com", "vercel.app", "xyz", "nosuchtld", "xn--p1ai"];
        let alphabets: [&[u8]; 4] =
            [b"abcdefghijklmnopqrstuvwxyz", b"0123456789abcdef", b"a-e1i.o^$", b"\xff\x00 .A_"];
        let mut names = Vec::new();
        while names.len() < count {
            let mut wire = Vec::new();
            let mut push = |label: &[u8]| {
                wire.push(label.len() as u8);
                wire.extend_from_slice(label);
            };
            for _ in 0..random.random_range(0..6) {
                let alphabet = alphabets[random.random_range(0..alphabets.len())];
                let length = random.random_range(1..64);
                let label: Vec<u8> =
                    (0..length).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
                push(&label);
            }
            let end = if random.random_bool(0.5) {
                real[random.random_range(0..real.len())].wire().to_vec()
            } else {
                let suffix: Name =
                    suffixes[random.random_range(0..suffixes.len())].parse().unwrap();
                suffix.wire().to_vec()
            };
            wire.extend_from_slice(&end);
            names.extend(Name::from_wire(&wire));
        }
        names
    }

    #[test]
    fn every_engine_gives_the_golden_scores() {
        for choice in [EngineChoice::Auto, EngineChoice::Fused, EngineChoice::Tract] {
            let model = Model::load(Path::new(DEFAULT), choice).unwrap();
            assert_eq!(model.notice(), None);
            assert_eq!(
                model.engine(),
                if choice == EngineChoice::Tract { "tract" } else { "fused" }
            );
            let mut checked = 0;
            for line in GOLDEN.lines().skip(1) {
                let (text, expected) = line.split_once('\t').unwrap();
                let score = model.score(&text.parse().unwrap()).unwrap();
                let expected: f32 = expected.parse().unwrap();
                assert!(
                    (score - expected).abs() <= TOLERANCE,
                    "{text}: {score}, golden {expected}"
                );
                checked += 1;
            }
            assert!(checked >= 200);
        }
    }

    #[test]
    fn fused_and_tract_agree_on_a_hundred_thousand_names() {
        let fused = Model::load(Path::new(DEFAULT), EngineChoice::Fused).unwrap();
        let tract = Model::load(Path::new(DEFAULT), EngineChoice::Tract).unwrap();
        let mut names = real_names();
        names.extend(drawn_names(100_000 - names.len()));
        assert_eq!(names.len(), 100_000);
        let mut most = 0.0_f32;
        for name in &names {
            let (one, other) = (fused.score(name).unwrap(), tract.score(name).unwrap());
            most = most.max((one - other).abs());
            assert!((one - other).abs() <= TOLERANCE, "{name}: fused {one}, tract {other}");
        }
        assert!(most > 0.0, "two engines that never differ are one engine");
    }

    #[test]
    fn a_processor_without_vectors_gives_the_same_scores() {
        let files = Files::read(Path::new(DEFAULT)).unwrap();
        let dictionary = Dictionary::parse(files.get(DICTIONARY).unwrap()).unwrap();
        let fused = load_fused(&dictionary, &files).unwrap();
        let mut buffer = [0; MAX_WIRE];
        for name in drawn_names(5_000) {
            let dotted = name.dotted(&mut buffer);
            let parts = Parts::of(dotted);
            let scores = [fused.logit(&parts), fused.portable_logit(&parts)].map(kernel::sigmoid);
            assert!((scores[0] - scores[1]).abs() <= TOLERANCE, "{name}: {scores:?}");
        }
    }

    /// A copy of the default model with a change in its manifest.
    fn changed(from: &str, to: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["model.onnx", "dictionary.bin"] {
            fs::copy(Path::new(DEFAULT).join(file), dir.path().join(file)).unwrap();
        }
        let manifest = fs::read_to_string(Path::new(DEFAULT).join("manifest.json")).unwrap();
        assert!(manifest.contains(from));
        fs::write(dir.path().join("manifest.json"), manifest.replacen(from, to, 1)).unwrap();
        dir
    }

    #[test]
    fn a_failed_self_check_leaves_the_work_to_tract_and_says_so() {
        let dir = changed("\"golden\": [", "\"golden\": [[\"example.com\", 0.77],");
        let model = Model::load(dir.path(), EngineChoice::Auto).unwrap();
        assert_eq!(model.engine(), "tract");
        let notice = model.notice().unwrap();
        assert!(notice.contains("example.com") && notice.contains("0.77"), "{notice}");
        let error = Model::load(dir.path(), EngineChoice::Fused).unwrap_err().to_string();
        assert!(error.contains("model.engine") && error.contains("example.com"), "{error}");
    }

    #[test]
    fn another_suffix_list_is_told() {
        let dir = changed(suffix::SNAPSHOT, "psl-1");
        let model = Model::load(dir.path(), EngineChoice::Auto).unwrap();
        assert!(model.notice().unwrap().contains("psl-1"));
        assert_eq!(model.engine(), "fused");
    }

    #[test]
    fn a_bad_dictionary_is_refused_by_name() {
        let dir = changed("format", "format");
        let dictionary = fs::read(Path::new(DEFAULT).join(DICTIONARY)).unwrap();
        let files = Files::read(dir.path()).unwrap();
        let mut short = Dictionary::parse(&dictionary).unwrap();
        assert!(load_fused(&short, &files).is_ok());
        // One of another model: it numbers other rows.
        let mut builder = super::super::ngram::Builder::default();
        builder.add(1);
        short = builder.build().unwrap().0;
        assert!(load_fused(&short, &files).err().unwrap().contains("rows"));
    }

    #[test]
    fn contributions_add_up_to_the_logit() {
        let model = Model::load(Path::new(DEFAULT), EngineChoice::Auto).unwrap();
        let told = |text: &str| model.explain(&text.parse().unwrap()).unwrap();
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for text in [
            "www.paypal-login.secure-bank.xyz",
            "example.com.",
            "b\u{fc}cher.de",
            "a\\.b.c\\255.example.com",
            "co.uk",
            "a.b.shop.weebly.com",
            "qwzxkjvh.info",
            &long,
        ] {
            let explanation = told(text);
            let (logit, base) = (explanation.logit.unwrap(), explanation.base.unwrap());
            assert!((kernel::sigmoid(logit) - explanation.score).abs() <= TOLERANCE, "{text}");
            let parts = explanation.spans.iter().filter(|span| span.kind != "n-gram");
            let sum = base + parts.map(|span| span.contribution).sum::<f32>();
            assert!((sum - logit).abs() < 0.1, "{text}: {sum}, not {logit}");
            let name: Name = text.parse().unwrap();
            let mut buffer = [0; MAX_WIRE];
            let dotted = name.dotted(&mut buffer);
            for span in &explanation.spans {
                let bytes = &dotted[span.start..span.end];
                assert_eq!(span.text, String::from_utf8_lossy(bytes), "{text}");
            }
        }
        let spans = told("www.paypal-login.secure-bank.xyz").spans;
        for kind in ["core", "sub-domain", "suffix", "shape", "n-gram"] {
            assert!(spans.iter().any(|span| span.kind == kind), "{kind}");
        }
        let suffix = spans.iter().find(|span| span.kind == "suffix" && span.text == "xyz").unwrap();
        assert!(suffix.contribution > 0.0);
    }
}
