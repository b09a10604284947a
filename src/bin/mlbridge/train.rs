//! `mlbridge train`: from lists of names to a model's directory.

use clap::Args;
use mlbridge::error::{Error, Result};
use mlbridge::model::EngineChoice;
use mlbridge::model::manifest::check_short_text;
use mlbridge::train::calibrate::{BLOCK_RATE, VET_RATE, names_for};
use mlbridge::train::compare::{self, Figures};
use mlbridge::train::evaluate;
use mlbridge::train::names::{Kind, Names};
use mlbridge::train::run::{self, Event, Options};
use mlbridge::train::write::{self, About};
use mlbridge::{Model, Name};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How much an administrator's label weighs against a name of a list.
const LABEL_WEIGHT: f32 = 10.0;
/// How many golden scores a model gets besides those of the odd names.
const GOLDEN: usize = 200;

/// Trains a model on lists of benign and malicious names.
///
/// Files are plain lists, CSV with ranks (Tranco), hosts files, block lists or URLs, or tables with a header line; each may
/// be gzip-compressed. Four per cent of the registered domains are kept to validate with, unless a table or --val says
/// which. The same names, options and kind of processor give the same model to the bit.
#[derive(Debug, Args)]
pub struct Train {
    /// Files of benign names.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    benign: Vec<PathBuf>,
    /// Files of malicious names.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    malicious: Vec<PathBuf>,
    /// Files with a header line whose columns say what a name is (domain, label, class, family, source, split).
    #[arg(long, num_args = 1.., value_name = "TSV")]
    corpus: Vec<PathBuf>,
    /// A file with such columns whose names are all kept to validate with, also where other files have them.
    #[arg(long, value_name = "TSV")]
    val: Option<PathBuf>,
    /// Labels that administrators gave, as `mlbridge vet export` writes them: lines "name,as" (comma or tab) or JSON lines
    /// with "name" and "as" (benign, malicious, honeypot). They win against lists, and each weighs as much as ten names.
    #[arg(long, value_name = "EXPORT")]
    labels: Vec<PathBuf>,
    /// First trains several nets and lets the model learn from them too: better, and some four times slower.
    #[arg(long)]
    teachers: bool,
    /// The directory to write; one that exists is replaced if the new model is not worse.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replaces an existing model even by a worse one.
    #[arg(long)]
    force: bool,
    /// The model's name.
    #[arg(long, default_value = "custom", value_parser = short_text)]
    name: String,
    /// The model's version.
    #[arg(long, default_value = "1", value_parser = short_text)]
    version: String,
    /// What the model is, in a sentence.
    #[arg(long, default_value = "Trained by mlbridge train.")]
    description: String,
    /// How often an n-gram or a word must be met to be known.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..))]
    min_count: u32,
    /// Where randomness starts.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Nets trained at once; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        train(&self)
    }
}

/// Trains, compares and writes.
fn train(args: &Train) -> Result<()> {
    let begin = Instant::now();
    let say = |text: &str| eprintln!("[{:6.1} s] {text}", begin.elapsed().as_secs_f64());
    let out = write::prepare(&args.out)?;
    let old = old_model(&out, args.force, &say)?;
    let names = read(args, &say)?;
    let stop = stop_on_signal()?;
    let bad = names.about.iter().filter(|about| about.malicious).count();
    say(&format!("{} benign and {bad} malicious names", names.len() - bad));
    if names.unreadable + names.contradictory > 0 {
        say(&format!(
            "left out: {} lines without a name, {} names of both labels",
            names.unreadable, names.contradictory
        ));
    }
    let threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let options = Options {
        teachers: args.teachers,
        min_count: args.min_count,
        seed: u64::from(args.seed),
        threads,
    };
    let outcome = run::run(&names, &options, &stop, &|event| report(&event, &say))?;
    let model = write::selected(&outcome)?;
    let scores = evaluate::scores(&model, &names, &outcome.validation)?;
    let metrics = evaluate::evaluate(&model, &names, &outcome.validation, &scores)?;
    say(&format!("validation, by the model without those names: {}", figures(&(&metrics).into())));
    for (rate, key) in [(VET_RATE, "vet"), (BLOCK_RATE, "block")] {
        if outcome.calibration.logit(rate).is_none() {
            say(&format!(
                "{} benign names are too few to measure a false-positive rate of {rate:e} ({} are needed): the model will {key} nothing unless the setting threshold.{key} gives a score",
                outcome.calibration.names,
                names_for(rate)
            ));
        }
    }
    let sample = compare::sample(&names, &outcome.validation);
    if let Some(old) = &old {
        let old = match compare::stated(&old.manifest, &sample) {
            Some(stated) => {
                say(&format!("the old model without them, by its manifest: {}", figures(&stated)));
                stated
            }
            None => {
                // It may have learnt some of these names, which flatters it.
                let scores = evaluate::scores(&old.model, &names, &outcome.validation)?;
                let found = evaluate::evaluate(&old.model, &names, &outcome.validation, &scores)?;
                say(&format!("the old model on the same names: {}", figures(&(&found).into())));
                Figures::from(&found)
            }
        };
        if !args.force
            && compare::is_worse(&(&metrics).into(), &old, metrics.benign, metrics.malicious)
        {
            return Err(Error::Invalid(format!(
                "{}: the new model is worse than the one there, which stays; --force replaces it all the same, another --out keeps both",
                args.out.display()
            )));
        }
    }
    let training = json!({
        "names": outcome.trained,
        "malicious": bad,
        "validation_names": outcome.validation.len(),
        compare::KEY: sample,
        "keys_taken_for_another": outcome.collisions,
        "files": files(args),
        "teachers": args.teachers,
        "min_count": args.min_count,
        "seed": args.seed,
        "command": "mlbridge train",
        "program": env!("CARGO_PKG_VERSION"),
    });
    let about = About {
        name: &args.name,
        version: &args.version,
        description: &args.description,
        training,
        golden: &golden(&names),
    };
    let files = write::files(&outcome, &about, &metrics);
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Busy("stopped before the end; nothing was written".to_owned()));
    }
    let written = write::replace(&out, &files)?;
    if let Some(notice) = written.notice() {
        say(notice);
    }
    say(&format!("wrote {} ({})", args.out.display(), written.engine()));
    Ok(())
}

/// The model that is to be replaced.
struct Old {
    model: Model,
    manifest: Value,
}

/// The model in a directory that exists and is not empty; one that cannot be loaded may only be replaced by force.
fn old_model(out: &Path, force: bool, say: &dyn Fn(&str)) -> Result<Option<Old>> {
    let path = out.join("manifest.json");
    if !path.exists() {
        return Ok(None);
    }
    match Model::load(out, EngineChoice::Auto) {
        Ok(model) => {
            let manifest = std::fs::read(&path).map_err(|reason| Error::file(&path, reason))?;
            let manifest = serde_json::from_slice(&manifest).unwrap_or_default();
            Ok(Some(Old { model, manifest }))
        }
        Err(reason) if force => {
            say(&format!("the old model cannot be loaded: {reason}"));
            Ok(None)
        }
        Err(reason) => Err(reason),
    }
}

/// A name or a version that a manifest may have.
fn short_text(text: &str) -> std::result::Result<String, &'static str> {
    check_short_text(text).map(|()| text.to_owned())
}

/// A flag that Ctrl-C sets; the second Ctrl-C ends the program at once. (So does any other signal, and the first one
/// while files are read: only [`write::replace`] changes anything, at the very end.)
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let on_signal = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping; once more ends at once");
    };
    ctrlc::set_handler(on_signal)
        .map_err(|reason| Error::Invalid(format!("cannot listen for Ctrl-C: {reason}")))?;
    Ok(stop)
}

fn read(args: &Train, say: &dyn Fn(&str)) -> Result<Names> {
    let mut names = Names::new();
    let told = |file: &Path, count: usize| say(&format!("{}: {count} names", file.display()));
    let lists = args
        .benign
        .iter()
        .map(|file| (file, false))
        .chain(args.malicious.iter().map(|file| (file, true)));
    for (file, malicious) in lists {
        let before = names.len();
        names.read(file, Kind { malicious, validation: false })?;
        told(file, names.len() - before);
    }
    let corpus = args
        .corpus
        .iter()
        .map(|file| (file, false))
        .chain(args.val.iter().map(|file| (file, true)));
    for (file, validation) in corpus {
        let before = names.len();
        if !names.read(file, Kind { malicious: false, validation })? {
            return Err(Error::file(file, "no header line with the columns domain and label"));
        }
        told(file, names.len() - before);
    }
    for file in &args.labels {
        let before = names.len();
        names.read_labels(file, LABEL_WEIGHT)?;
        told(file, names.len() - before);
    }
    names.settle();
    Ok(names)
}

fn report(event: &Event, say: &dyn Fn(&str)) {
    match event {
        Event::Note(text) => say(text),
        Event::Progress { net, epoch, done, loss } => {
            if std::io::stderr().is_terminal() {
                eprint!("\r{net}: epoch {}, {:.0} %, loss {loss:.4}   \r", epoch + 1, done * 100.0);
                // A progress line that cannot be written is no reason to stop.
                let _ = std::io::stderr().flush();
            }
        }
        Event::Epoch(record) => {
            let mut text =
                format!("{}: epoch {}, loss {:.4}", record.net, record.epoch, record.loss);
            if let (Some(auc), Some([first, second, third])) = (record.auc, record.recall) {
                text += &format!(
                    "; validation AUC {auc:.4}, recall {:.1} / {:.1} / {:.1} %",
                    first * 100.0,
                    second * 100.0,
                    third * 100.0
                );
            }
            say(&text);
        }
    }
}

fn figures(metrics: &Figures) -> String {
    let [first, second, third] = metrics.recall.map(|share| share * 100.0);
    format!(
        "AUC {:.4}, recall {first:.1} / {second:.1} / {third:.1} % at false-positive rates of 1e-2 / 1e-3 / 1e-4",
        metrics.auc
    )
}

/// The plain names of the files trained on.
fn files(args: &Train) -> Vec<String> {
    let all = args
        .benign
        .iter()
        .chain(&args.malicious)
        .chain(&args.corpus)
        .chain(&args.val)
        .chain(&args.labels);
    let plain = |path: &PathBuf| {
        Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned())
    };
    all.filter_map(plain).collect()
}

/// Names for golden scores: odd ones that every implementation must get right, and some that were trained on.
fn golden(names: &Names) -> Vec<Name> {
    let long = format!(
        "{}.{}.{}.{}.example.com",
        "a1-".repeat(20) + "z",
        "b".repeat(60),
        "c0d".repeat(20),
        "xyz".repeat(15)
    );
    let odd = [
        "com",
        "example.com",
        "WWW.Example.Com",
        "co.uk",
        "bbc.co.uk",
        "www.bbc.co.uk",
        "a.b",
        "_dmarc.example.org",
        "xn--bcher-kva.example",
        "r4---sn-x.googlevideo.com",
        "shop.weebly.com",
        "x.y.z.vercel.app",
        "localhost",
        "1.2.3.4",
        "a.b.c.d.e.f.g.h.i.j.k.l.m.n.example.net",
        "a\\.b.c",
        "\\255\\254.c",
        "^.$.com",
        "--.com",
        &long,
    ];
    let mut all: Vec<Name> = odd.iter().filter_map(|text| text.parse().ok()).collect();
    let step = (names.len() / GOLDEN).max(1);
    let plain =
        |text: &[u8]| text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    let drawn =
        (0..names.len()).step_by(step).map(|index| names.get(index)).filter(|text| plain(text));
    all.extend(drawn.filter_map(|text| Name::from_text(text).ok()));
    all
}
