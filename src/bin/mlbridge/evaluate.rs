//! `mlbridge evaluate`: what a model does on labelled names.

use crate::output;
use clap::Args;
use mlbridge::Model;
use mlbridge::error::{Error, Result};
use mlbridge::model::EngineChoice;
use mlbridge::train::evaluate::{Evaluation, evaluate as measure, scores as score_all};
use mlbridge::train::names::{Kind, Names};
use mlbridge::train::report;
use std::path::PathBuf;

/// Measures a model on names whose labels are known.
///
/// The file has a header line and columns, at least domain and label (0 or 1); class, family and source make the tables
/// finer. With a column split, only the rows marked val are taken, unless --all is given.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The model's directory.
    dir: PathBuf,
    /// The names: a TSV, gzip-compressed or not.
    file: PathBuf,
    /// Takes the rows of every split.
    #[arg(long)]
    all: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Writes a page with tables and curves, too.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
}

impl Evaluate {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        evaluate(&self)
    }
}

/// Evaluates and prints.
fn evaluate(args: &Evaluate) -> Result<()> {
    let model = Model::load(&args.dir, EngineChoice::Auto)?;
    let mut names = Names::new();
    if !names.read(&args.file, Kind { malicious: false, validation: false })? {
        return Err(Error::file(&args.file, "no header line with the columns domain and label"));
    }
    if names.unreadable > 0 {
        eprintln!("mlbridge: left out: {} lines without a name", names.unreadable);
    }
    let split = names.about.iter().any(|about| about.validation) && !args.all;
    let all = 0..u32::try_from(names.len()).unwrap_or(u32::MAX);
    let chosen: Vec<u32> = all
        .filter(|&index| {
            !split || names.about.get(index as usize).is_some_and(|about| about.validation)
        })
        .collect();
    let scores = score_all(&model, &names, &chosen)?;
    let evaluation = measure(&model, &names, &chosen, &scores)?;
    if let Some(path) = &args.html {
        let manifest = std::fs::read(args.dir.join("manifest.json")).unwrap_or_default();
        let page = report::page(&model, &manifest, &names, &chosen, &scores, &evaluation);
        std::fs::write(path, page).map_err(|reason| Error::file(path, reason))?;
    }
    if args.json {
        output::json(&evaluation)
    } else {
        output::print(&table(&model, &evaluation));
        Ok(())
    }
}

fn table(model: &Model, found: &Evaluation) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    let percent =
        |shares: [f64; 3]| shares.map(|share| format!("{:5.1}", share * 100.0)).join(" / ");
    line(&format!("model {} {} ({})", model.name(), model.version(), model.engine()));
    line(&format!(
        "{} benign and {} malicious names, AUC {:.4}",
        found.benign, found.malicious, found.auc
    ));
    line("recall at false-positive rates of 1e-2 / 1e-3 / 1e-4, in per cent:");
    line(&format!("  {:40} {:>8} {}", "all malicious", found.malicious, percent(found.recall)));
    for group in &found.groups {
        let name = match &group.family {
            Some(family) => format!("  {} {family}", group.class),
            None => group.class.clone(),
        };
        line(&format!("  {name:40} {:>8} {}", group.names, percent(group.above)));
    }
    for at in &found.thresholds {
        line(&format!(
            "{} from {:.6}: false-positive rate stated {:.1e}, found {:.1e}; recall {:.1} %",
            at.decision,
            at.score,
            at.stated,
            at.found,
            at.recall * 100.0
        ));
    }
    line("score   stated   found");
    for rate in &found.rates {
        line(&format!("{:6.4}  {:.1e}  {:.1e}", rate.score, rate.stated, rate.found));
    }
    let [[benign, alarms], [missed, hits]] = found.confusion;
    line(&format!(
        "at 0.5: benign {benign} right, {alarms} wrong; malicious {hits} right, {missed} wrong; accuracy {:.1} %",
        found.accuracy * 100.0
    ));
    line(&format!(
        "calibration error {:.3}, logistic loss {:.4}",
        found.calibration_error, found.loss
    ));
    text
}
