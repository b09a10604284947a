//! `mlbridge setup`: what a cluster needs before the first document.

use crate::{Settings, output};
use clap::Subcommand;
use mlbridge::elastic::setup::{self, Mode, Outcome, Step};
use mlbridge::error::{Error, Result};

/// What to set up.
#[derive(Subcommand)]
pub enum Setup {
    /// Install index templates, lifecycle policies, data streams and the vetting index of elasticsearch.urls; what is
    /// there in this version or a newer one is left alone
    Elasticsearch {
        /// Only print what would be installed
        #[arg(long)]
        dry_run: bool,
        /// Also import the dashboards into Kibana or OpenSearch Dashboards at this address, with the same credentials
        #[arg(long, value_name = "URL")]
        kibana: Option<String>,
    },
    /// Print the dashboards as saved objects (NDJSON), to be imported under Management, Saved objects
    Dashboards,
}

impl Setup {
    /// Runs the command.
    pub fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Setup::Dashboards => {
                output::print(setup::DASHBOARDS);
                Ok(())
            }
            Setup::Elasticsearch { dry_run, kibana } => {
                let config = settings.read()?;
                if config.elasticsearch.urls.is_empty() {
                    let text = "elasticsearch.urls: unset; give --config FILE or --set elasticsearch.urls=URL";
                    return Err(Error::Config(text.to_owned()));
                }
                let mode = if dry_run { Mode::Plan } else { Mode::Install };
                let server = setup::run(&config.elasticsearch, mode, &mut |step| {
                    output::print(&line(&step))
                })?;
                output::print(&format!(
                    "{server}: {}\n",
                    if dry_run { "nothing was changed" } else { "ready" }
                ));
                match kibana {
                    Some(url) if dry_run => {
                        output::print(&format!("dashboards: would be imported into {url}\n"));
                        Ok(())
                    }
                    Some(url) => {
                        let count = setup::import_dashboards(&config.elasticsearch, &url)?;
                        output::print(&format!("dashboards: {count} objects imported\n"));
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

/// One step, for people.
fn line(step: &Step) -> String {
    let what = &step.what;
    match &step.outcome {
        Outcome::Present => format!("{what}: there already\n"),
        Outcome::Installed => format!("{what}: installed\n"),
        Outcome::Planned(request) => format!("{what}: would be installed:\n{request}\n"),
        Outcome::Skipped(why) => format!("{what}: left out ({why})\n"),
    }
}
