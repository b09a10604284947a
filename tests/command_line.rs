//! The command line as a process: what it reads and prints, and how it ends.
#![cfg(feature = "cli")]

use std::fs::File;
use std::process::{Command, Stdio};

fn mlbridge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mlbridge"))
}

#[test]
fn the_rest_of_an_overlong_line_is_no_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = "x".repeat(1 << 16);
    std::fs::write(file.path(), format!("{line}tail.example.com\nnext.example.com\n")).unwrap();
    let output = mlbridge().arg("classify").arg("--file").arg(file.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last_words = text.lines().map(|line| line.rsplit('\t').next().unwrap());
    assert_eq!(last_words.collect::<Vec<_>>(), ["not a domain name: too long", "next.example.com"]);
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output =
        mlbridge().args(["classify", "example.com"]).stdout(full).stderr(Stdio::piped()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("standard output"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = mlbridge().args(["classify", "example.com"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn a_settings_file_is_named_with_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mlbridge.toml");
    for (text, expected) in [
        ("block.action = \"sinkhole\"\n", "block.action: "),
        ("metrics.file = \"nowhere/metrics.prom\"\n", "metrics.file: "),
        ("lists.block = [\"nowhere\"]\n", "lists.block: "),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = mlbridge().args(["config", "check"]).arg(&file).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("{}: {expected}", file.display())), "{told}");
    }
}

#[test]
fn verdicts_on_a_file_depend_on_nothing_but_the_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let names: String = (0..3_000).map(|number| format!("name{number}.example\n")).collect();
    std::fs::write(file.path(), names).unwrap();
    // Every name is blocked: a server's breaker would open.
    let thresholds = ["--set", "threshold.vet=0", "--set", "threshold.block=0"];
    let classify = |jobs: &str| {
        let mut command = mlbridge();
        command.arg("classify").args(thresholds).args(["--jobs", jobs]).arg("--file");
        String::from_utf8(command.arg(file.path()).output().unwrap().stdout).unwrap()
    };
    let verdicts = classify("1");
    assert_eq!(verdicts.lines().filter(|line| line.contains("\tnxdomain\t")).count(), 3_000);
    assert_eq!(classify("0"), verdicts);
}

#[test]
fn decisions_become_labels_once_a_name_and_only_those_for_all() {
    use mlbridge::elastic::{Cursor, Decided, Ruling};
    use mlbridge::policy::overrides::Class;
    use mlbridge::store::sqlite::Database;

    let folder = tempfile::tempdir().unwrap();
    let mut store = Database::open(folder.path()).unwrap();
    let ruling = Ruling {
        class: Class::Malicious,
        author: "them".to_owned(),
        note: String::new(),
        scope: String::new(),
        at_ms: i64::MAX / 2,
        expires_ms: None,
    };
    let decided = ["a.example", "c.example"]
        .map(|name| Decided { name: name.to_owned(), ruling: Some(ruling.clone()) });
    store.put_decided(&decided, &Cursor::default()).unwrap();
    drop(store);
    let vet = |arguments: &[&str]| {
        let mut command = mlbridge();
        command.arg("vet").args(arguments).arg("--state-dir").arg(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    };
    vet(&["add", "a.example", "--as", "benign"]);
    vet(&["add", "b.example", "--as", "honeypot"]);
    vet(&["add", "d.example", "--as", "malicious", "--scope", "group:guests"]);
    let output = vet(&["export"]);
    let labels = String::from_utf8(output.stdout).unwrap();
    assert_eq!(labels, "a.example\tbenign\nb.example\tmalicious\nc.example\tmalicious\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("left out: 1 for some clients only"), "{told}");
}

#[cfg(feature = "train")]
#[path = "support/learnable.rs"]
mod learnable;

#[cfg(feature = "train")]
mod models {
    use super::*;

    const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/default");

    fn labelled(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn figures_that_nobody_reads_are_no_panic() {
        let names = labelled("domain\tlabel\na.example.com\t0\nqxzkjvwp.info\t1\n");
        for json in [false, true] {
            let mut command = mlbridge();
            command.args(["evaluate", DEFAULT]).arg(names.path());
            if json {
                command.arg("--json");
            }
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let output = command.stdout(writer).output().unwrap();
            assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = command.stdout(full).output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert!(String::from_utf8(output.stderr).unwrap().contains("standard output"));
        }
    }

    #[test]
    fn a_class_of_both_labels_is_told_by_label() {
        let names = labelled(
            "domain\tlabel\tclass\na.example.com\t0\tmail\nqxzkjvwp.info\t1\tmail\nb..c\t1\tmail\n",
        );
        let output =
            mlbridge().args(["evaluate", DEFAULT, "--json"]).arg(names.path()).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let groups: Vec<(bool, u64)> = found["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| (group["auc"].is_null(), group["names"].as_u64().unwrap()))
            .collect();
        assert_eq!(groups, [(true, 1), (false, 1)]);
        assert!(String::from_utf8(output.stderr).unwrap().contains("1 lines without a name"));
    }

    /// Names whose label can be learnt, `take` of each; a share of the labels is wrong.
    fn lists(take: usize, wrong: usize) -> [tempfile::NamedTempFile; 2] {
        let mut random = learnable::random();
        let mut texts = [String::new(), String::new()];
        for place in 0..2 * take {
            let core = learnable::core(place % 2 == 1, 1_000_000, &mut random);
            let label = (place % 2) ^ usize::from(random(100) < wrong);
            texts[label] += &format!("{core}.com\n");
        }
        texts.map(|text| labelled(&text))
    }

    fn train(lists: &[tempfile::NamedTempFile; 2], out: &std::path::Path) -> Command {
        let mut command = mlbridge();
        command.args(["train", "--min-count", "20", "--benign"]).arg(lists[0].path());
        command.arg("--malicious").arg(lists[1].path()).arg("--out").arg(out);
        command
    }

    fn told(command: &mut Command) -> (bool, String) {
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_model_is_replaced_by_one_of_the_same_names_and_not_by_a_worse_one() {
        let dir = tempfile::tempdir().unwrap();
        let good = lists(2_000, 10);
        let (done, text) = told(&mut train(&good, dir.path()));
        assert!(done, "an empty directory is a place for a model: {text}");
        assert!(text.contains("threshold.vet") && text.contains("threshold.block"), "{text}");
        let (done, text) = told(train(&good, dir.path()).args(["--seed", "2"]));
        assert!(done && text.contains("by its manifest"), "{text}");
        let before = std::fs::read(dir.path().join("manifest.json")).unwrap();
        let bad = lists(2_000, 40);
        let (done, text) = told(&mut train(&bad, dir.path()));
        assert!(!done && text.contains("worse") && text.contains("--force"), "{text}");
        assert_eq!(std::fs::read(dir.path().join("manifest.json")).unwrap(), before);
        let (done, text) = told(train(&bad, dir.path()).arg("--force"));
        assert!(done, "{text}");
        assert_ne!(std::fs::read(dir.path().join("manifest.json")).unwrap(), before);
    }

    #[test]
    fn what_is_no_model_is_never_replaced_and_told_before_the_work() {
        let lists = lists(50, 0);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("home/photos")).unwrap();
        std::fs::create_dir(path("texts")).unwrap();
        std::fs::write(path("texts/letter"), "").unwrap();
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("nothing", path("link")).unwrap();
        for name in ["home", "texts", "file", "link"] {
            let (done, text) = told(train(&lists, &path(name)).arg("--force"));
            assert!(!done && text.contains(name) && !text.contains("select"), "{name}: {text}");
        }
        let (done, text) =
            told(train(&lists, std::path::Path::new("..")).current_dir(path("home")));
        assert!(!done && !text.contains("select"), "{text}");
        assert!(path("home/photos").is_dir() && path("texts/letter").is_file());
        let (done, text) = told(train(&lists, &path("new")).args(["--name", &"x".repeat(65)]));
        assert!(!done && text.contains("64 bytes") && !path("new").exists(), "{text}");
    }

    #[test]
    fn what_administrators_decide_weighs_in() {
        let dir = tempfile::tempdir().unwrap();
        let lists = lists(1_000, 0);
        let labels: String =
            (0..60).map(|number| format!("greengarden{number}.com\tmalicious\n")).collect();
        let labels = labelled(&labels);
        let score = |model: &std::path::Path| -> f64 {
            let set = format!("model.path={}", model.display());
            let output =
                mlbridge().args(["classify", "--set", &set, "greengarden77.com"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split('\t').next().unwrap().parse().unwrap()
        };
        let [plain, vetted] = ["plain", "vetted"].map(|name| dir.path().join(name));
        assert!(told(&mut train(&lists, &plain)).0);
        assert!(told(train(&lists, &vetted).arg("--labels").arg(labels.path())).0);
        assert!(score(&plain) < 0.2 && score(&vetted) > 0.5);
    }
}
