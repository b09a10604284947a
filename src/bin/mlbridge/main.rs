//! `mlbridge`: asks the engine about names, reads a store, keeps overrides, checks settings.
//!
//! It never makes a store: that is the DNS server's. As root it becomes the owner of the state directory before it
//! writes there, so that it leaves no file that the server could not write.

mod classify;
#[cfg(feature = "train")]
mod evaluate;
mod history;
mod output;
mod setup;
#[cfg(feature = "train")]
mod train;
mod vet;

use clap::{Args, Parser, Subcommand};
use mlbridge::config::Config;
use mlbridge::engine;
use mlbridge::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Machine-learning verdicts on domain names, inside the DNS server.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// Where the settings come from.
#[derive(Args)]
pub struct Settings {
    /// The DNS server's settings file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting more, which replaces the file's; may be given several times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Short for --set state_dir=DIR
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Give the verdict on names: from the command line, a file, or standard input
    Classify(classify::Classify),
    /// Give the verdict on one name with its reasons, as JSON
    Explain {
        /// The name
        name: String,
    },
    /// Show what the store holds, the newest first
    History(history::History),
    /// Show what the store holds in numbers
    Status(history::Status),
    /// Keep administrators' decisions on names
    #[command(subcommand)]
    Vet(vet::Vet),
    /// Put dead letters back into the outbox, after the cluster was mended
    Replay,
    /// Set a cluster up
    #[command(subcommand)]
    Setup(setup::Setup),
    /// Check settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Train a model on lists of benign and malicious names
    #[cfg(feature = "train")]
    Train(train::Train),
    /// Measure a model on names whose labels are known
    #[cfg(feature = "train")]
    Evaluate(evaluate::Evaluate),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a settings file: every key, every value, every file it names; nothing is written
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every setting with its default and meaning, as a Markdown table
    Reference,
}

impl Settings {
    /// The settings, read and checked.
    fn read(&self) -> Result<Config> {
        let mut config = Config::default();
        if let Some(path) = &self.config {
            config.load(path)?;
        }
        for pair in &self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::Invalid(format!("--set: \"{pair}\" is not KEY=VALUE")))?;
            config.set(key.trim(), value)?;
        }
        if let Some(directory) = &self.state_dir {
            config.set("state_dir", &directory.to_string_lossy())?;
        }
        Ok(config)
    }

    /// The state directory; commands about a store cannot do without.
    fn store(&self) -> Result<PathBuf> {
        self.read()?.state_dir.ok_or_else(|| {
            Error::Config("state_dir: unset; give --state-dir DIR or --config FILE".to_owned())
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = &arguments.settings;
    let outcome = match arguments.command {
        Command::Classify(command) => command.run(settings),
        Command::Explain { name } => explain(settings, &name),
        Command::History(command) => command.run(settings),
        Command::Status(command) => command.run(settings),
        Command::Vet(command) => command.run(settings),
        #[cfg(feature = "train")]
        Command::Train(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Evaluate(command) => command.run(),
        Command::Replay => history::replay(settings),
        Command::Setup(command) => command.run(settings),
        Command::Config(ConfigCommand::Check { file }) => check(&file),
        Command::Config(ConfigCommand::Reference) => {
            output::print(&mlbridge::config::reference());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mlbridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn explain(settings: &Settings, name: &str) -> Result<()> {
    let engine = engine::open_unrecorded(&settings.read()?)?;
    let json = engine.explain(&name.parse()?)?;
    let value: serde_json::Value =
        serde_json::from_str(&json).map_err(|error| Error::Invalid(error.to_string()))?;
    output::json(&value)
}

fn check(file: &Path) -> Result<()> {
    let mut config = Config::default();
    config.load(file)?;
    let in_file = |error: Error| error.under(&format!("{}: ", file.display()));
    config.elasticsearch.check_files().map_err(in_file)?;
    if let Some(folder) = config.metrics_file.as_deref().and_then(Path::parent)
        && !folder.is_dir()
    {
        let text = format!("metrics.file: {}: no such directory", folder.display());
        return Err(in_file(Error::Io(text)));
    }
    let engine = engine::open_unrecorded(&config).map_err(in_file)?;
    let model = engine.model();
    output::print(&format!(
        "{}: in order; model {} {} ({}), run by {}\n",
        file.display(),
        model.name(),
        model.version(),
        format_args!("{:016x}", model.id()),
        model.engine()
    ));
    Ok(())
}
