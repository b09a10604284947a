//! The encoder `ngram-fields` joined with an engine: the fused one, or tract.
//!
//! At load the stored golden scores of the manifest are computed with the fused engine; if one is off by more than
//! 1e-5, or the network's graph is another one than the fused engine knows, tract takes over and
//! [`super::Model::notice`] says why. tract's plan is only built when it is used: parsing and optimising the graph costs
//! several milliseconds that no host needs to wait for.

use super::files::{DICTIONARY, Files, NETWORK};
use super::fused::Fused;
use super::manifest::NgramFieldsSpec;
use super::ngram::{self, DENSE, Dictionary, MAX_ROWS, POOLS, Parts};
use super::tract::{Input, InputType, Network};
use super::{Built, EngineChoice, Explanation, Failure, Scorer, explain, kernel, onnx};
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
        let score = fused_score(fused, &name);
        let near = (score - expected).abs() <= TOLERANCE;
        if !near {
            return Err(format!("the fused engine gives {score} for {text}, not {expected}"));
        }
    }
    Ok(())
}

fn fused_score(fused: &Fused, name: &Name) -> f32 {
    let mut buffer = [0; MAX_WIRE];
    kernel::sigmoid(fused.logit(name.dotted(&mut buffer)))
}

struct FusedScorer {
    fused: Fused,
}

impl Scorer for FusedScorer {
    fn raw_score(&self, name: &Name) -> std::result::Result<f32, Failure> {
        Ok(fused_score(&self.fused, name))
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
    fn raw_score(&self, name: &Name) -> std::result::Result<f32, Failure> {
        const LONGEST: usize = 128;
        const { assert!(MAX_ROWS[0] <= LONGEST && MAX_ROWS[1] <= LONGEST && MAX_ROWS[2] <= LONGEST) };
        let mut buffer = [0; MAX_WIRE];
        let parts = Parts::of(name.dotted(&mut buffer));
        let mut lists = [[0_i64; LONGEST]; POOLS];
        let mut counts = [0_usize; POOLS];
        ngram::visit(&parts, &mut |pool: usize, key: u64, _: usize, _: usize| {
            let row = self.dictionary.row(ngram::hash(key));
            let (Some(list), Some(count), Some(&most)) =
                (lists.get_mut(pool), counts.get_mut(pool), MAX_ROWS.get(pool))
            else {
                return;
            };
            if row == 0 || *count == most {
                return;
            }
            if let Some(slot) = list.get_mut(*count) {
                *slot = i64::from(row);
                *count += 1;
            }
        });
        let inverse = counts.map(|count| 1.0 / count.max(1) as f32);
        let dense = ngram::dense(&parts);
        let [core, sub, word] = &lists;
        let [_, _, words] = MAX_ROWS;
        let inputs = [
            Input::I64(core),
            Input::I64(sub),
            Input::I64(word.get(..words).unwrap_or(&[])),
            Input::F32(&inverse),
            Input::F32(&dense),
        ];
        self.network.run(0, &inputs)
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}
