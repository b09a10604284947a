//! A whole run: from names to a model.
//!
//! 1. *Select*: nets trained without the validation names, scored on them. Those figures go into the manifest.
//! 2. *Final*: the same recipe on all names; this model is written.
//! 3. *Calibrate*: four more students, each without the names of a quarter of the registered domains, score the benign names
//!    they have not seen ([`super::calibrate`]).
//!
//! With teachers, a stage first trains several bags and a convolution net; the student then learns the labels and the
//! mean of their logits. Most bags see only some of the lists: what a list alone teaches (its region, its years, its habits
//! of collecting) then counts less in the mean than what many lists agree on, and names of lists that nobody has seen
//! are told apart better (`models/default/EXPERIMENTS.md`).

use super::bag::{self, Lesson};
use super::calibrate;
use super::encode;
use super::names::{About, Names};
use super::{conv, metrics};
use crate::error::{Error, Result};
use crate::model::ngram::net::Weights;
use crate::model::ngram::{Dictionary, hash};
use crate::suffix::registered_domain;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Teachers' logits count no further than this.
const LOGIT_LIMIT: f32 = 15.0;
/// Folds of the calibration.
const FOLDS: u64 = 4;
/// One registered domain in so many is kept to validate with, where the names say nothing about it.
const VALIDATION_SHARE: u64 = 25;
/// Bags among the teachers that see all lists.
const FULL_BAGS: u64 = 2;
/// Bags among the teachers that see some lists each.
const SUBSET_BAGS: u64 = 6;
/// How many per cent of the lists such a bag sees.
const SUBSET_SHARE: u64 = 60;
/// With fewer lists of one label than this, bags differ by registered domain.
const FEW_LISTS: usize = 8;
/// The stages: without the validation names, to choose and calibrate; with all names, to ship.
const SELECT: &str = "select";
const FINAL: &str = "final";
const BAG_EPOCHS: u32 = 2;
const CONV_EPOCHS: u32 = 3;
/// Rows at most, so that table and dictionary stay within 2.5 MiB.
const MAX_ROWS: usize = 120_000;

/// What can be chosen about a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Train teachers first.
    pub teachers: bool,
    /// How often an n-gram or word must be met to get a row.
    pub min_count: u32,
    /// Where randomness starts: the same seed, names and processor features give the same bits.
    pub seed: u64,
    /// Nets trained at once.
    pub threads: usize,
}

/// What a run tells while it works.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step of the run begins or ended.
    Note(String),
    /// How far a net is.
    Progress {
        /// The net's name.
        net: String,
        /// The epoch, from 0.
        epoch: u32,
        /// The share of the epoch done, 0 to 1.
        done: f64,
        /// The mean loss so far.
        loss: f64,
    },
    /// A net has seen all its names once more.
    Epoch(Epoch),
}

/// A net after an epoch.
#[derive(Debug, Clone, Serialize)]
pub struct Epoch {
    /// The net's name.
    pub net: String,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The mean logistic loss of the epoch, by name, on names just before they were learnt.
    pub loss: f64,
    /// Area under the curve on the validation names; none without.
    pub auc: Option<f64>,
    /// Recall at the rates of [`metrics::RATES`] on the validation names.
    pub recall: Option<[f64; 3]>,
    /// Accuracy at a score of 0.5 on the validation names.
    pub accuracy: Option<f64>,
}

/// A finished model and what is known about it.
pub struct Outcome {
    /// The dictionary.
    pub dictionary: Dictionary,
    /// The key of each row, from row 1.
    pub keys: Vec<u64>,
    /// The weights.
    pub weights: Weights,
    /// The same recipe without the validation names: dictionary and weights.
    pub selected: (Dictionary, Weights),
    /// Keys of the names that were taken for another key.
    pub collisions: u64,
    /// False-positive rates by logit.
    pub calibration: calibrate::Table,
    /// How the nets learnt, by stage, net and epoch.
    pub history: Vec<Epoch>,
    /// Names trained on.
    pub trained: usize,
    /// The names kept to validate with in the first stage.
    pub validation: Vec<u32>,
}

/// Watches one net's training.
pub struct Watch<'a> {
    net: &'a str,
    stop: &'a AtomicBool,
    report: &'a (dyn Fn(Event) + Sync),
    validation: &'a [u32],
    labels: &'a [f32],
    history: &'a Mutex<Vec<Epoch>>,
}

impl Watch<'_> {
    /// Tells how far an epoch is; nothing if the run is to stop.
    #[inline(never)]
    pub fn progress(&self, epoch: u32, done: usize, all: usize, loss: f64) -> Option<()> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        if done > 0 && done.is_multiple_of(1 << 16) {
            let net = self.net.to_owned();
            let (share, loss) = (done as f64 / all as f64, loss / done as f64);
            (self.report)(Event::Progress { net, epoch, done: share, loss });
        }
        Some(())
    }

    /// Tells what an epoch has brought; `logits` scores names of the run.
    #[inline(never)]
    pub fn epoch(&self, epoch: u32, loss: f64, logits: impl FnOnce(&[u32]) -> Vec<f32>) {
        let mut record = Epoch {
            net: self.net.to_owned(),
            epoch: epoch + 1,
            loss,
            auc: None,
            recall: None,
            accuracy: None,
        };
        if !self.validation.is_empty() {
            let logits = logits(self.validation);
            let of = |label: f32| {
                let all = self.validation.iter().zip(&logits);
                all.filter(move |(name, _)| self.labels[**name as usize] == label)
                    .map(|pair| *pair.1)
            };
            let benign = metrics::sorted(of(0.0));
            let malicious = metrics::sorted(of(1.0));
            if !benign.is_empty() && !malicious.is_empty() {
                let recall = |rate| {
                    metrics::share_above(
                        malicious.iter().copied(),
                        metrics::threshold(&benign, rate),
                    )
                };
                let right = benign.partition_point(|&logit| logit < 0.0) + malicious.len()
                    - malicious.partition_point(|&logit| logit < 0.0);
                record.auc = Some(metrics::auc(&benign, &malicious));
                record.recall = Some(metrics::RATES.map(recall));
                record.accuracy = Some(right as f64 / logits.len() as f64);
            }
        }
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        (self.report)(Event::Epoch(record));
    }
}

/// Trains a model on names.
///
/// # Errors
/// [`Error::Invalid`] if a label is missing among the names, [`Error::Busy`] if `stop` was set.
pub fn run(
    names: &Names,
    options: &Options,
    stop: &AtomicBool,
    report: &(dyn Fn(Event) + Sync),
) -> Result<Outcome> {
    let domains: Vec<u64> = (0..names.len()).map(|index| domain_hash(names.get(index))).collect();
    let labels: Vec<f32> = names.about.iter().map(|about| f32::from(about.malicious)).collect();
    let weights: Vec<f32> = names.about.iter().map(|about| about.weight).collect();
    let given = names.about.iter().any(|about| about.validation);
    let is_validation = |index: u32| {
        let about = &names.about[index as usize];
        let drawn = !given && domains[index as usize].is_multiple_of(VALIDATION_SHARE);
        (about.validation || drawn) && about.weight == 1.0
    };
    let all: Vec<u32> = (0..names.len() as u32).collect();
    let (validation, training): (Vec<u32>, Vec<u32>) =
        all.iter().partition(|&&index| is_validation(index));
    for (label, word) in [(0.0, "benign"), (1.0, "malicious")] {
        if !training.iter().any(|&index| labels[index as usize] == label) {
            return Err(Error::Invalid(format!(
                "there are no {word} names to train on (those kept to validate with do not count); give a file of them"
            )));
        }
    }
    let benign = all.iter().filter(|&&index| is_plain_benign(names, index)).count();
    if benign < calibrate::least_names() {
        return Err(Error::Invalid(format!(
            "{benign} benign names are too few to measure a false-positive rate; {} are the least",
            calibrate::least_names()
        )));
    }
    for (label, word) in [(0.0, "benign"), (1.0, "malicious")] {
        if !validation.iter().any(|&index| labels[index as usize] == label) {
            return Err(Error::Invalid(format!(
                "there are no {word} names to validate with; {}",
                if given {
                    "those kept to validate with need both labels"
                } else {
                    "give more names"
                }
            )));
        }
    }
    let setting = Setting {
        names,
        labels: &labels,
        weights: &weights,
        domains: &domains,
        options,
        stop,
        report,
        history: Mutex::default(),
    };

    let first = setting.stage(SELECT, &training, &validation, false)?;
    let last = setting.stage(FINAL, &all, &[], true)?;
    // Threads end in any order; the same run is to give the same manifest.
    let mut history = setting.history.into_inner().unwrap_or_else(PoisonError::into_inner);
    history.sort_by_key(|epoch| (epoch.net.starts_with(FINAL), epoch.net.clone(), epoch.epoch));
    let table = calibrate::Table::new(&metrics::sorted(last.unseen.iter().copied()))?;
    Ok(Outcome {
        dictionary: last.dictionary,
        keys: last.keys,
        weights: last.weights,
        selected: (first.dictionary, first.weights),
        collisions: last.collisions,
        calibration: table,
        history,
        trained: all.len(),
        validation,
    })
}

/// A number from 0 to 99 for a list, a family or a registered domain and a bag.
fn draw(unit: u64, bag: u64) -> u64 {
    (hash(hash(unit) ^ (bag + 1)) >> 40) % 100
}

/// Benign by a list, not by an administrator.
fn is_plain_benign(names: &Names, index: u32) -> bool {
    let About { malicious, weight, .. } = names.about[index as usize];
    !malicious && weight == 1.0
}

/// A number of a name's registered domain, the same for all names below it.
fn domain_hash(name: &[u8]) -> u64 {
    text_hash(registered_domain(name).unwrap_or(name)) >> 16
}

/// A number of a text.
pub(super) fn text_hash(text: &[u8]) -> u64 {
    let fnv = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash(fnv)
}

/// What all stages share.
struct Setting<'a> {
    names: &'a Names,
    labels: &'a [f32],
    weights: &'a [f32],
    domains: &'a [u64],
    options: &'a Options,
    stop: &'a AtomicBool,
    report: &'a (dyn Fn(Event) + Sync),
    history: Mutex<Vec<Epoch>>,
}

/// What a stage gives.
struct Stage {
    dictionary: Dictionary,
    keys: Vec<u64>,
    collisions: u64,
    weights: Weights,
    /// Logits of benign names by students that have not seen their registered domain.
    unseen: Vec<f32>,
}

/// What one thread trains.
enum Job {
    Bag { name: String, chosen: Vec<u32>, seed: u64 },
    Conv { name: String, seed: u64 },
}

impl Setting<'_> {
    /// Dictionary, teachers and student of the names at `chosen`; with `folds` the students of the calibration too.
    fn stage(&self, stage: &str, chosen: &[u32], validation: &[u32], folds: bool) -> Result<Stage> {
        let note = |text: String| (self.report)(Event::Note(format!("{stage}: {text}")));
        note(format!("counting the n-grams of {} names", chosen.len()));
        let min_count = self.options.min_count;
        let (dictionary, keys) = encode::dictionary(self.names, chosen, min_count, MAX_ROWS)?;
        let encoded = encode::encode(self.names, &dictionary, &keys, self.options.threads);
        note(format!("{} rows; {} keys taken for another", dictionary.len(), encoded.collisions));
        if dictionary.is_empty() {
            note(format!("no n-gram is met {min_count} times: give more names or a lower minimum"));
        }
        self.stopped()?;
        let seed = self.options.seed;
        let rows = dictionary.len();
        let lesson = Lesson {
            encoded: &encoded,
            chosen,
            labels: self.labels,
            weights: self.weights,
            teacher: None,
            rows,
            epochs: BAG_EPOCHS,
            seed,
        };
        let teacher = if self.options.teachers {
            Some(self.teach(stage, &lesson, validation)?)
        } else {
            None
        };
        let lesson = Lesson { teacher: teacher.as_deref(), seed: seed + 100, ..lesson };
        let student = |lesson: &Lesson<'_>, net: &str, names: &[u32]| {
            let bag = bag::train(lesson, &self.watch(net, names)).ok_or_else(stopped)?;
            Ok::<_, Error>(bag.quantise())
        };
        if !folds {
            let weights = student(&lesson, &format!("{stage} student"), validation)?;
            return Ok(Stage {
                dictionary,
                keys,
                collisions: encoded.collisions,
                weights,
                unseen: vec![],
            });
        }
        let jobs: Vec<Option<u64>> = std::iter::once(None).chain((0..FOLDS).map(Some)).collect();
        let results = self.parallel(&jobs, |job| {
            let Some(fold) = *job else {
                let weights = student(&lesson, &format!("{stage} student"), validation)?;
                return Ok((Some(weights), Vec::new()));
            };
            let inside = |index: &u32| self.domains[*index as usize] % FOLDS == fold;
            let seen: Vec<u32> = chosen.iter().copied().filter(|index| !inside(index)).collect();
            let held: Vec<u32> = chosen
                .iter()
                .copied()
                .filter(inside)
                .filter(|&index| is_plain_benign(self.names, index))
                .collect();
            let lesson = Lesson { chosen: &seen, seed: lesson.seed + 1 + fold, ..lesson };
            let weights = student(&lesson, &format!("{stage} fold {}", fold + 1), &[])?;
            Ok((None, bag::logits(&weights, &encoded, &held)))
        })?;
        let mut weights = None;
        let mut unseen = Vec::new();
        for (student, logits) in results {
            weights = weights.or(student);
            unseen.extend(logits);
        }
        let weights = weights.expect("the first job is the student");
        Ok(Stage { dictionary, keys, collisions: encoded.collisions, weights, unseen })
    }

    fn watch<'a>(&'a self, net: &'a str, validation: &'a [u32]) -> Watch<'a> {
        let Setting { stop, report, labels, history, .. } = self;
        Watch { net, stop, report, validation, labels, history }
    }

    fn stopped(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(()) }
    }

    /// The mean logit of several nets for every name.
    fn teach(&self, stage: &str, lesson: &Lesson<'_>, validation: &[u32]) -> Result<Vec<f32>> {
        let seed = lesson.seed;
        let everything: Vec<u32> = (0..self.names.len() as u32).collect();
        let mut jobs = vec![Job::Conv { name: format!("{stage} convolution"), seed: seed + 10 }];
        for copy in 0..FULL_BAGS {
            let name = format!("{stage} bag {}", copy + 1);
            jobs.push(Job::Bag { name, chosen: lesson.chosen.to_vec(), seed: seed + copy });
        }
        for (bag, chosen) in (0..).zip(self.subsets(lesson.chosen)) {
            let name = format!("{stage} bag of some lists {}", bag + 1);
            jobs.push(Job::Bag { name, chosen, seed: seed + 40 + bag });
        }
        let all = self.parallel(&jobs, |job| match job {
            Job::Conv { name, seed } => {
                let lesson = Lesson { epochs: CONV_EPOCHS, seed: *seed, ..*lesson };
                let watch = self.watch(name, validation);
                let net = conv::train(self.names, &lesson, &watch).ok_or_else(stopped)?;
                Ok(net.logits(self.names, &everything))
            }
            Job::Bag { name, chosen, seed } => {
                let lesson = Lesson { chosen, seed: *seed, ..*lesson };
                let watch = self.watch(name, validation);
                let net = bag::train(&lesson, &watch).ok_or_else(stopped)?;
                Ok(bag::logits(&net.quantise(), lesson.encoded, &everything))
            }
        })?;
        let share = 1.0 / all.len() as f32;
        let mut mean = vec![0.0_f32; self.names.len()];
        for logits in &all {
            for (sum, &logit) in mean.iter_mut().zip(logits) {
                *sum += logit.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) * share;
            }
        }
        Ok(mean)
    }

    /// The names that each of the teachers' bags of some lists learns from: those of some six of ten lists; names of the
    /// class `dga`, which come from few lists, of some six of ten families. Of a list that has most of its class some six of
    /// ten registered domains are taken, for without it the class would be missing. The first bag has all DGA families and
    /// no such list. Where there are few lists, they count by registered domain.
    fn subsets(&self, chosen: &[u32]) -> Vec<Vec<u32>> {
        let about = |index: u32| &self.names.about[index as usize];
        let mut sizes: HashMap<(u32, u32), usize> = HashMap::new();
        let mut classes: HashMap<u32, usize> = HashMap::new();
        let mut lists: [BTreeSet<u32>; 2] = Default::default();
        for &index in chosen {
            let About { class, source, malicious, .. } = *about(index);
            *sizes.entry((class, source)).or_default() += 1;
            *classes.entry(class).or_default() += 1;
            lists[usize::from(malicious)].insert(source);
        }
        let by_list = lists.iter().all(|lists| lists.len() >= FEW_LISTS);
        let is_in = |index: u32, bag: u64| {
            let About { class, family, source, .. } = *about(index);
            let has_most = 2 * sizes[&(class, source)] > classes[&class];
            if !by_list {
                return draw(self.domains[index as usize], bag) < SUBSET_SHARE;
            }
            if self.names.word(class) == "dga" {
                return bag == 0 || draw(u64::from(family), bag) < SUBSET_SHARE;
            }
            match (has_most, bag) {
                (true, 0) => false,
                (true, _) => draw(self.domains[index as usize], bag) < SUBSET_SHARE,
                (false, _) => draw(u64::from(source), bag) < SUBSET_SHARE,
            }
        };
        let of_bag = |bag| chosen.iter().copied().filter(|&index| is_in(index, bag)).collect();
        (0..SUBSET_BAGS).map(of_bag).collect()
    }

    /// Does jobs on as many threads as the run may use; the results stand in the jobs' order.
    fn parallel<J: Sync, T: Send>(
        &self,
        jobs: &[J],
        work: impl Fn(&J) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<T>>>> =
            Mutex::new(jobs.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.options.threads.clamp(1, jobs.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(place) else { break };
                        let result = work(job);
                        results.lock().unwrap_or_else(PoisonError::into_inner)[place] =
                            Some(result);
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.into_iter().map(|result| result.expect("every job was done")).collect()
    }
}

fn stopped() -> Error {
    Error::Busy("stopped before the end; nothing was written".to_owned())
}

#[cfg(test)]
#[path = "../../tests/support/learnable.rs"]
mod learnable;

#[cfg(test)]
mod tests {
    use super::super::evaluate;
    use super::super::names::Kind;
    use super::super::write::{self, About as Told};
    use super::*;
    use crate::model::{EngineChoice, Model};
    use crate::name::Name;
    use std::io::Write;

    fn names(count: usize) -> Names {
        let mut random = learnable::random();
        let mut text = "domain\tlabel\tclass\n".to_owned();
        for place in 0..count {
            let core = learnable::core(place % 2 == 1, 1000, &mut random);
            text += &format!(
                "{core}.com\t{}\t{}\n",
                place % 2,
                if place % 2 == 0 { "benign" } else { "dga" }
            );
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut names = Names::new();
        names.read(file.path(), Kind { malicious: false, validation: false }).unwrap();
        names.settle();
        names
    }

    fn options(teachers: bool) -> Options {
        Options { teachers, min_count: 20, seed: 1, threads: 2 }
    }

    #[test]
    fn what_can_be_learnt_is_learnt_written_and_read() {
        let names = names(6_000);
        let never = AtomicBool::new(false);
        let outcome = run(&names, &options(true), &never, &|_| ()).unwrap();
        assert!(outcome.dictionary.len() > 100);
        let model = write::selected(&outcome).unwrap();
        assert_eq!(model.engine(), "fused");
        let scores = evaluate::scores(&model, &names, &outcome.validation).unwrap();
        let found = evaluate::evaluate(&model, &names, &outcome.validation, &scores).unwrap();
        assert!(found.auc > 0.99, "{}", found.auc);
        let name = |text: &str| text.parse::<Name>().unwrap();
        let golden = [name("gardenriver12.com"), name("www.qxzjkvwpyb.co.uk"), name("com")];
        let told = Told {
            name: "small",
            version: "1",
            description: "",
            training: serde_json::json!({}),
            golden: &golden,
        };
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("model");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("README.md"), "kept").unwrap();
        write::replace(&place, &write::files(&outcome, &told, &found)).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(std::fs::read(place.join("README.md")).unwrap(), b"kept");
        for choice in [EngineChoice::Fused, EngineChoice::Tract] {
            let model = Model::load(&place, choice).unwrap();
            assert_eq!(model.notice(), None);
            assert!(model.score(&name("schoolbook7.com")).unwrap() < 0.5);
            assert!(model.score(&name("zjkvqxwpybdfgh.com")).unwrap() > 0.5);
        }
    }

    #[test]
    fn the_same_names_and_seed_give_the_same_bits() {
        let names = names(1_500);
        let never = AtomicBool::new(false);
        let one = run(&names, &options(true), &never, &|_| ()).unwrap();
        let other = run(&names, &Options { threads: 1, ..options(true) }, &never, &|_| ()).unwrap();
        assert!(one.weights == other.weights && one.calibration == other.calibration);
        let seeded = run(&names, &Options { seed: 2, ..options(true) }, &never, &|_| ()).unwrap();
        assert!(one.weights != seeded.weights);
    }

    #[test]
    fn a_stop_ends_the_run_with_an_error() {
        let stop = AtomicBool::new(false);
        let seen_epochs = AtomicUsize::new(0);
        let result = run(&names(1_500), &options(false), &stop, &|event| {
            if matches!(event, Event::Epoch(_)) {
                seen_epochs.fetch_add(1, Ordering::Relaxed);
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert!(matches!(result, Err(Error::Busy(_))));
        assert_eq!(seen_epochs.into_inner(), 1);
    }

    #[test]
    fn what_cannot_be_measured_is_told_before_the_work() {
        let reason = |names: &Names| {
            let report = |_| panic!("nothing was to be done");
            match run(names, &options(false), &AtomicBool::new(false), &report) {
                Err(Error::Invalid(text)) => text,
                _ => String::new(),
            }
        };
        assert!(reason(&names(60)).contains("benign names are too few"));
        let mut one_label = names(600);
        one_label.about.iter_mut().take(200).for_each(|about| about.validation = !about.malicious);
        assert!(reason(&one_label).contains("no malicious names to validate with"));
    }

    #[test]
    fn names_of_one_label_cannot_be_trained_on() {
        let mut names = names(100);
        names.about.iter_mut().for_each(|about| about.malicious = true);
        let result = run(&names, &options(false), &AtomicBool::new(false), &|_| ());
        assert!(matches!(result, Err(Error::Invalid(text)) if text.contains("benign")));
    }
}
