//! Tests of whole models: what is shipped, what is loaded from a directory, what goes wrong.

use super::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seed2020")
}

/// A small model of `tests/models`.
fn small(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(model)
}

fn load(dir: &Path) -> Result<Model> {
    Model::load(dir, EngineChoice::Auto)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The names and scores of a directory's `golden.tsv`.
fn golden(dir: &Path) -> Vec<(Name, f32)> {
    let text = fs::read_to_string(dir.join("golden.tsv")).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split_once('\t').unwrap());
    rows.map(|(text, score)| (name(text), score.parse().unwrap())).collect()
}

fn assert_golden(model: &Model, golden: &[(Name, f32)]) {
    for (name, expected) in golden {
        let score = model.score(name).unwrap();
        assert!((score - expected).abs() <= 1e-5, "{model:?}: {name}: {score}, golden {expected}");
    }
}

/// A copy of a model with its network and its manifest changed, and the hash in the manifest made right again.
fn changed(
    dir: &Path,
    network: impl FnOnce(&mut Vec<u8>),
    manifest: impl FnOnce(&mut Value),
) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut onnx = fs::read(dir.join("model.onnx")).unwrap();
    network(&mut onnx);
    let mut json: Value =
        serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let hash: String = Sha256::digest(&onnx).iter().map(|byte| format!("{byte:02x}")).collect();
    json["files"]["model.onnx"] = json!(hash);
    manifest(&mut json);
    fs::write(copy.path().join("model.onnx"), onnx).unwrap();
    fs::write(copy.path().join("manifest.json"), json.to_string()).unwrap();
    copy
}

/// Asserts that a directory cannot be loaded, and that the error names the file and the reason.
fn assert_refused(dir: &Path, file: &str, reason: &str) -> Error {
    let error = load(dir).expect_err(reason);
    let text = error.to_string();
    let path = dir.join(file).display().to_string();
    assert!(
        text.starts_with(&path) && text.contains(reason),
        "{text:?} lacks {path:?} or {reason:?}"
    );
    error
}

#[test]
fn golden_scores_hold() {
    let seed2020 = golden(&shipped());
    assert!(seed2020.len() >= 200);
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/default");
    assert_golden(&Model::embedded(EngineChoice::Auto).unwrap(), &golden(&default));
    assert_golden(&Model::load(&shipped(), EngineChoice::Tract).unwrap(), &seed2020);
    for model in ["chars-i64", "chars-f32"] {
        let golden = golden(&small(model));
        assert!(golden.len() >= 10);
        assert_golden(&load(&small(model)).unwrap(), &golden);
    }
}

#[test]
fn a_model_tells_what_it_is() {
    let embedded = Model::embedded(EngineChoice::Auto).unwrap();
    assert_eq!((embedded.name(), embedded.engine(), embedded.notice()), ("default", "fused", None));
    let vet = embedded.vet_threshold().unwrap();
    let block = embedded.block_threshold().unwrap();
    assert!(0.5 < vet && vet < block && block < 1.0);
    // The manifest states these scores with eight digits.
    assert!((embedded.fpr(vet) / 1e-3 - 1.0).abs() < 1e-2, "{}", embedded.fpr(vet));
    assert!((embedded.fpr(block) / 1e-4 - 1.0).abs() < 1e-2, "{}", embedded.fpr(block));

    let model = load(&shipped()).unwrap();
    assert_eq!((model.name(), model.engine()), ("seed2020", "tract"));
    assert!(!model.version().is_empty());
    let manifest = Sha256::digest(fs::read(shipped().join("manifest.json")).unwrap());
    assert_eq!(model.sha256()[..], manifest[..]);
    assert_eq!(model.id().to_be_bytes(), manifest[..8]);
    assert_eq!(model.id(), load(&shipped()).unwrap().id());
    // The 2020 model never vets or blocks by itself.
    assert_eq!(
        (model.vet_threshold(), model.block_threshold(), model.fpr(0.99)),
        (None, None, 0.0)
    );

    let dir = changed(
        &shipped(),
        |_| (),
        |manifest| {
            manifest["thresholds"] = json!({"vet": 0.9, "block": 0.99});
            manifest["fpr"] = json!([[-10.0, 1.0], [0.0, 0.01], [10.0, 1e-6]]);
        },
    );
    let other = load(dir.path()).unwrap();
    assert_ne!(other.id(), model.id());
    assert_eq!((other.vet_threshold(), other.block_threshold()), (Some(0.9), Some(0.99)));
    assert!((other.fpr(0.5) - 0.01).abs() < 1e-6);
}

#[test]
fn an_explanation_says_that_there_is_none() {
    let model = load(&shipped()).unwrap();
    let explanation = model.explain(&name("example.org")).unwrap();
    assert_eq!(explanation.score, model.score(&name("example.org")).unwrap());
    assert_eq!((explanation.method, explanation.spans.len()), ("none", 0));
    assert!(serde_json::to_string(&explanation).unwrap().contains("\"method\":\"none\""));
}

#[test]
fn a_fused_engine_is_not_pretended() {
    for dir in [shipped(), small("chars-i64")] {
        let error = Model::load(&dir, EngineChoice::Fused).unwrap_err();
        assert!(
            matches!(&error, Error::Config(text) if text.starts_with("model.engine: \"fused\"")),
            "{error}"
        );
    }
    for choice in [EngineChoice::Auto, EngineChoice::Fused, EngineChoice::Tract] {
        assert_eq!(EngineChoice::parse(choice.as_str()), Some(choice));
    }
    assert_eq!(EngineChoice::parse("onnx"), None);
}

#[test]
fn all_threads_get_the_same_bits() {
    let model = load(&small("chars-i64")).unwrap();
    let golden = golden(&small("chars-i64"));
    let bits = || -> Vec<u32> {
        let scores = golden.iter().cycle().take(500).map(|(name, _)| model.score(name).unwrap());
        scores.map(f32::to_bits).collect()
    };
    let expected = bits();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(bits)).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), expected));
    });
}

#[test]
fn threads_that_scored_end_in_peace() {
    let model = Model::embedded(EngineChoice::Auto).unwrap();
    for _ in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| model.score(&name("example.org")).unwrap());
        });
    }
}

#[test]
fn a_thread_with_a_small_stack_can_load_and_score() {
    for dir in [shipped(), small("chars-i64"), small("chars-f32")] {
        let work = move || load(&dir).unwrap().score(&name("www.example.org")).unwrap();
        let expected = work();
        let thread = std::thread::Builder::new().stack_size(80 << 10).spawn(work).unwrap();
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn missing_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(assert_refused(empty.path(), "manifest.json", "No such file"), Error::Io(_)));

    let dir = changed(&shipped(), |_| (), |_| ());
    fs::remove_file(dir.path().join("model.onnx")).unwrap();
    assert!(matches!(assert_refused(dir.path(), "model.onnx", "No such file"), Error::Io(_)));
    fs::create_dir(dir.path().join("model.onnx")).unwrap();
    assert_refused(dir.path(), "model.onnx", "not a regular file");

    let dir = changed(&shipped(), |_| (), |manifest| manifest["files"] = json!({}));
    assert_refused(dir.path(), "manifest.json", "lacks model.onnx");
}

#[test]
fn huge_files_are_not_read() {
    for (file, size) in [("model.onnx", (64 << 20) + 1), ("manifest.json", (1 << 20) + 1)] {
        let dir = changed(&shipped(), |_| (), |_| ());
        fs::File::options().write(true).open(dir.path().join(file)).unwrap().set_len(size).unwrap();
        assert!(matches!(
            assert_refused(dir.path(), file, "the most such a file may have"),
            Error::Io(_)
        ));
    }
}

#[test]
fn other_content_than_the_manifest_says_is_refused() {
    let dir = changed(&shipped(), |_| (), |_| ());
    let path = dir.path().join("model.onnx");
    let mut content = fs::read(&path).unwrap();
    content[4000] ^= 1;
    fs::write(&path, content).unwrap();
    assert!(matches!(assert_refused(dir.path(), "model.onnx", "SHA-256"), Error::Model(_)));
}

#[test]
fn manifests_that_cannot_be_followed_are_refused() {
    let unknown = changed(&shipped(), |_| (), |m| m["encoder"]["name"] = json!("codepoints-32x8"));
    assert!(matches!(
        assert_refused(unknown.path(), "manifest.json", "codepoints-32x8"),
        Error::Model(_)
    ));
    let newer = changed(&shipped(), |_| (), |manifest| manifest["format"] = json!(2));
    assert_refused(newer.path(), "manifest.json", "format: 2");
    let broken = changed(&shipped(), |_| (), |_| ());
    fs::write(broken.path().join("manifest.json"), "{\"format\": 1,").unwrap();
    assert_refused(broken.path(), "manifest.json", "EOF");
}

#[test]
fn networks_that_do_not_fit_the_encoder_are_refused() {
    let chars: Value =
        serde_json::from_slice(&fs::read(small("chars-i64").join("manifest.json")).unwrap())
            .unwrap();
    let encoder = chars["encoder"].clone();
    let as_codepoints = changed(
        &small("chars-f32"),
        |_| (),
        |m| m["encoder"] = json!({"name": "codepoints-16x16"}),
    );
    assert_refused(as_codepoints.path(), "model.onnx", "takes as inputs [(F32, 24)]");
    let as_chars = changed(&shipped(), |_| (), |manifest| manifest["encoder"] = encoder.clone());
    assert_refused(as_chars.path(), "model.onnx", "fixed size");
    let open = changed(
        &small("chars-i64"),
        |_| (),
        |m| m["encoder"] = json!({"name": "codepoints-16x16"}),
    );
    assert_refused(open.path(), "model.onnx", "no fixed size");
    let longer = changed(
        &small("chars-f32"),
        |_| (),
        |manifest| manifest["encoder"]["lengths"] = json!([25]),
    );
    assert_refused(longer.path(), "model.onnx", "the encoder makes [(F32, 25)]");
}

#[test]
fn a_number_without_an_embedding_is_found_at_load() {
    let dir =
        changed(&small("chars-i64"), |_| (), |manifest| manifest["encoder"]["first"] = json!(3));
    assert_refused(dir.path(), "model.onnx", "");
}

#[test]
fn only_scores_from_0_to_1_get_out() {
    let at_once = "its output is NaN, not a number from 0 to 1";
    assert_refused(&small("unsound-at-once"), "model.onnx", at_once);

    let model = load(&small("unsound")).unwrap();
    assert!((model.score(&name("b.example")).unwrap() - 0.015_f32.sqrt()).abs() < 1e-5);
    for (bad, output) in [("0.example", "NaN"), ("\\255.example", "1.258")] {
        for error in [model.score(&name(bad)).unwrap_err(), model.explain(&name(bad)).unwrap_err()]
        {
            let expected = format!("model test-unsound: its output is {output}");
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert!(matches!(error, Error::Model(_)));
        }
    }
}

#[test]
fn a_run_that_fails_harms_no_other() {
    let model = load(&small("fails-above-127")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let error = model.score(&name("\\200.example")).unwrap_err();
                    assert!(
                        error.to_string().starts_with("model test-fails-above-127: "),
                        "{error}"
                    );
                    let score = model.score(&name("b.example")).unwrap();
                    assert!((score - 0.098).abs() < 1e-6, "{score}");
                }
            });
        }
    });
}

#[test]
fn cut_and_damaged_networks_never_panic() {
    let whole = fs::read(shipped().join("model.onnx")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        let dir = changed(&shipped(), |onnx| onnx.truncate(length), |_| ());
        assert_refused(dir.path(), "model.onnx", "");
    }
    // Xorshift, so that every run damages the same bits.
    let mut dice = 2020_u64;
    let mut roll = |sides: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice as usize % sides
    };
    for model in [shipped(), small("chars-i64"), small("chars-f32")] {
        for _ in 0..150 {
            let dir = changed(
                &model,
                |onnx| {
                    let at = roll(onnx.len());
                    onnx[at] ^= 1 << roll(8);
                },
                |_| (),
            );
            // Most damage only changes a weight; then the model loads, and its scores are checked as always.
            if let Ok(model) = load(dir.path()) {
                let _ = model.score(&name("example.org"));
            }
        }
    }
}
