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
}
