//! What kind of server it is, and what it needs before the first document: templates, lifecycle policies, data streams,
//! the vetting index.
//!
//! A stream must never come into being by a bare write: without the template it would be a plain index with guessed
//! mappings, and stay one. What is there in this version or a newer one is left alone, policies of any content too:
//! administrators adapt them. What a server does not have (no lifecycle management, no such API) is left out.

use super::document::{SUMMARY_DATASET, VERDICT_DATASET};
use super::http::{Client, Content, Limits, Method};
use super::redact::redact;
use super::retry::{self, Answer, Decision, Failure};
use super::settings::{Settings, Url};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// The index in which administrators decide about names.
pub const VETTING_INDEX: &str = "mlbridge-vetting";
/// The name of the lifecycle policy, for Elasticsearch and OpenSearch.
pub const POLICY: &str = "mlbridge";
/// Dashboards for Kibana and OpenSearch Dashboards, as saved objects of Kibana 7.10: one JSON object a line.
pub const DASHBOARDS: &str = include_str!("assets/dashboards.ndjson");

const VERDICT_TEMPLATE: &str = include_str!("assets/verdict-template.json");
const SUMMARY_TEMPLATE: &str = include_str!("assets/summary-template.json");
const VETTING_BODY: &str = include_str!("assets/vetting-index.json");
const ILM_POLICY: &str = include_str!("assets/ilm-policy.json");
const ISM_POLICY: &str = include_str!("assets/ism-policy.json");

/// The data stream of verdicts in a namespace.
pub fn verdict_stream(namespace: &str) -> String {
    format!("logs-{VERDICT_DATASET}-{namespace}")
}

/// The data stream of summaries in a namespace.
pub fn summary_stream(namespace: &str) -> String {
    format!("metrics-{SUMMARY_DATASET}-{namespace}")
}

/// What kind of server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Elasticsearch, any distribution.
    Elasticsearch,
    /// OpenSearch, also where it calls itself 7.10 for old clients.
    OpenSearch,
    /// It does not say, or may not be asked.
    Unknown,
}

/// What a server says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// What it is.
    pub product: Product,
    /// Major and minor version; zero if unknown.
    pub version: (u32, u32),
    /// Elastic's serverless offer: no shards, replicas or ILM there.
    pub serverless: bool,
}

impl Server {
    const UNKNOWN: Server =
        Server { product: Product::Unknown, version: (0, 0), serverless: false };

    /// Reads the answer to `GET /`; `None` if it is no Elasticsearch or OpenSearch answer.
    pub fn parse(body: &[u8]) -> Option<Server> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            tagline: String,
            version: RawVersion,
        }
        #[derive(Deserialize)]
        struct RawVersion {
            number: String,
            #[serde(default)]
            distribution: String,
            #[serde(default)]
            build_flavor: String,
        }
        let raw: Raw = serde_json::from_slice(body).ok()?;
        // With `compatibility.override_main_response_version` OpenSearch says 7.10.2 and nothing of its distribution.
        let opensearch =
            raw.version.distribution == "opensearch" || raw.tagline.contains("OpenSearch");
        let product = if opensearch { Product::OpenSearch } else { Product::Elasticsearch };
        let serverless = raw.version.build_flavor == "serverless";
        Some(Server { product, version: version(&raw.version.number), serverless })
    }

    /// Reads the answer to a question for the nodes' versions, for servers that do not answer `GET /`.
    fn parse_nodes(body: &[u8]) -> Option<Server> {
        let answer: Value = serde_json::from_slice(body).ok()?;
        let node = answer.get("nodes")?.as_object()?.values().next()?;
        let version = version(node.get("version")?.as_str()?);
        // Elasticsearch was at 7 when OpenSearch began again at 1.
        let product = if version.0 >= 7 { Product::Elasticsearch } else { Product::OpenSearch };
        Some(Server { product, version, serverless: false })
    }

    /// Whether bulk requests may ask for a data stream, so that a bare write never makes a plain index.
    pub fn knows_require_data_stream(&self) -> bool {
        self.product == Product::Elasticsearch && (self.serverless || self.version >= (8, 13))
    }
}

fn version(number: &str) -> (u32, u32) {
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.product {
            Product::Elasticsearch if self.serverless => f.write_str("Elasticsearch, serverless"),
            Product::Elasticsearch => {
                write!(f, "Elasticsearch {}.{}", self.version.0, self.version.1)
            }
            Product::OpenSearch => write!(f, "OpenSearch {}.{}", self.version.0, self.version.1),
            Product::Unknown => f.write_str("a server that does not say what it is"),
        }
    }
}

/// A data stream's index template, as this server takes it.
pub fn template(kind: Kind, server: &Server, ilm: bool) -> Value {
    let text = match kind {
        Kind::Verdict => VERDICT_TEMPLATE,
        Kind::Summary => SUMMARY_TEMPLATE,
    };
    // The text is compiled in and parsed by a test.
    let mut template: Value = serde_json::from_str(text).unwrap_or_default();
    if server.serverless {
        if let Some(inner) = template.pointer_mut("/template").and_then(Value::as_object_mut) {
            inner.insert("settings".to_owned(), json!({"index": {"refresh_interval": "10s"}}));
            inner.insert("lifecycle".to_owned(), json!({"data_retention": "30d"}));
        }
    } else if ilm {
        let index = template.pointer_mut("/template/settings/index").and_then(Value::as_object_mut);
        if let Some(index) = index {
            index.insert("lifecycle".to_owned(), json!({"name": POLICY}));
        }
    }
    template
}

/// Which of the two data streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One document a verdict.
    Verdict,
    /// One document a minute.
    Summary,
}

impl Kind {
    const fn template_name(self) -> &'static str {
        match self {
            Kind::Verdict => "mlbridge-verdict",
            Kind::Summary => "mlbridge-summary",
        }
    }

    fn stream(self, namespace: &str) -> String {
        match self {
            Kind::Verdict => verdict_stream(namespace),
            Kind::Summary => summary_stream(namespace),
        }
    }
}

/// One thing that was looked at, for the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is, for example `index template mlbridge-verdict`.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In place already.
    Present,
    /// Put in place now.
    Installed,
    /// Would be put in place: method, path and body.
    Planned(String),
    /// Left out, and why.
    Skipped(String),
}

/// What sending needs to know of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What it is.
    pub server: Server,
}

/// How requests get to the server.
pub type Exchange<'a> =
    dyn FnMut(Method, &str, Option<&str>) -> std::result::Result<Answer, Failure> + 'a;

/// How far the set-up may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Put in place what is missing.
    Install,
    /// Only read, and tell what would be put in place.
    Plan,
    /// Only read, and refuse to go on where a write would make a plain index.
    Check,
}

/// Sets the first node that answers up, for the command line.
///
/// # Errors
/// [`Error`] with what stands in the way.
pub fn run(settings: &Settings, mode: Mode, report: &mut dyn FnMut(Step)) -> Result<Server> {
    settings.check()?;
    let client = Client::new(settings, Limits::default())?;
    let mut trouble = String::new();
    for (node, url) in client.urls().iter().enumerate() {
        let mut exchange = |method, path: &str, body: Option<&str>| {
            let body = body.map(|text| (Content::Json, text.as_bytes()));
            client.send(node, method, path, body, None)
        };
        match prepare(&mut exchange, settings, mode, report) {
            Ok(ready) => return Ok(ready.server),
            Err(decision) => {
                let told = decision.trouble.unwrap_or_default();
                let named = told.starts_with("elasticsearch.");
                trouble = if named { told } else { format!("elasticsearch.urls: {url}: {told}") };
            }
        }
    }
    Err(Error::Io(trouble))
}

/// Imports the dashboards into Kibana or OpenSearch Dashboards, with the credentials and certificates of the settings;
/// gives the number of objects.
///
/// # Errors
/// [`Error`] with what stands in the way.
pub fn import_dashboards(settings: &Settings, url: &str) -> Result<u64> {
    let at = Settings { urls: vec![Url::parse(url)?], ..settings.clone() };
    let client = Client::new(&at, Limits::default())?;
    let boundary = "mlbridge-saved-objects";
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"mlbridge.ndjson\"\r\n\
         Content-Type: application/ndjson\r\n\r\n{DASHBOARDS}\r\n--{boundary}--\r\n"
    );
    let path = "/api/saved_objects/_import?overwrite=true";
    let content = (Content::Form(boundary), body.as_bytes());
    let came = client.send(0, Method::Post, path, Some(content), None);
    let answer = match &came {
        Ok(answer) if answer.status == 200 => answer,
        other => return Err(Error::Io(retry::obstacle(other, path).trouble.unwrap_or_default())),
    };
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let count = told.get("successCount").and_then(Value::as_u64).unwrap_or(0);
    if told.get("success").and_then(Value::as_bool) != Some(true) {
        let text = redact(&told.get("errors").map(Value::to_string).unwrap_or_default());
        return Err(Error::Io(format!(
            "{url}: {count} dashboards' objects were imported, not all: {text}"
        )));
    }
    Ok(count)
}

/// Looks at the server and puts in place what is missing.
///
/// # Errors
/// The decision about what stands in the way: when to try again, and what to tell the operator.
pub fn prepare(
    exchange: &mut Exchange<'_>,
    settings: &Settings,
    mode: Mode,
    report: &mut dyn FnMut(Step),
) -> std::result::Result<Ready, Box<Decision>> {
    let server = probe(exchange)?;
    let mut work = Work { exchange, mode, report };
    if mode == Mode::Check {
        work.check(settings, &server)?;
        return Ok(Ready { server });
    }
    let ilm = work.policy(&server)?;
    for kind in [Kind::Verdict, Kind::Summary] {
        let stream = kind.stream(&settings.namespace);
        work.template(kind, &template(kind, &server, ilm), &stream)?;
        if !server.knows_require_data_stream() {
            work.stream(&stream)?;
        }
    }
    work.vetting_index()?;
    Ok(Ready { server })
}

type Done<T> = std::result::Result<T, Box<Decision>>;

fn probe(exchange: &mut Exchange<'_>) -> Done<Server> {
    let came = exchange(Method::Get, "/", None);
    match &came {
        Ok(answer) if answer.status == 200 => Server::parse(&answer.body).ok_or_else(|| {
            Box::new(retry::strange("GET / brings no Elasticsearch or OpenSearch answer"))
        }),
        // Alive, but it does not tell (a proxy, a role without cluster:monitor/main).
        Ok(answer) if matches!(answer.status, 403..=405) => {
            let path = "/_nodes/_local?filter_path=nodes.*.version";
            let nodes =
                exchange(Method::Get, path, None).map_err(|f| retry::obstacle(&Err(f), path))?;
            Ok(Server::parse_nodes(&nodes.body).unwrap_or(Server::UNKNOWN))
        }
        _ => Err(Box::new(retry::obstacle(&came, "GET /"))),
    }
}

struct Work<'a, 'e> {
    exchange: &'a mut Exchange<'e>,
    mode: Mode,
    report: &'a mut dyn FnMut(Step),
}

/// What a look at something brought.
enum Found {
    Yes(Answer),
    No,
    /// The server has no such thing, or does not let us see it.
    Never(String),
}

impl Work<'_, '_> {
    /// Without the right to install: is there what is needed?
    fn check(&mut self, settings: &Settings, server: &Server) -> Done<()> {
        if server.knows_require_data_stream() {
            return Ok(());
        }
        let stream = Kind::Verdict.stream(&settings.namespace);
        if matches!(self.look(&format!("/_data_stream/{stream}"))?, Found::Yes(_)) {
            return Ok(());
        }
        let name = Kind::Verdict.template_name();
        match self.look(&format!("/_index_template/{name}"))? {
            Found::Yes(_) | Found::Never(_) => Ok(()),
            Found::No => Err(Box::new(retry::waiting(
                "the index template mlbridge-verdict is missing; run `mlbridge setup elasticsearch`",
                None,
            ))),
        }
    }

    /// The lifecycle policy; whether templates may name it for ILM.
    fn policy(&mut self, server: &Server) -> Done<bool> {
        let (path, body, ilm) = match server.product {
            Product::Elasticsearch if !server.serverless => ("/_ilm/policy/", ILM_POLICY, true),
            Product::OpenSearch => ("/_plugins/_ism/policies/", ISM_POLICY, false),
            _ => return Ok(false),
        };
        let path = format!("{path}{POLICY}");
        let what = format!("lifecycle policy {POLICY}");
        let there = match self.look(&path)? {
            Found::Yes(_) => self.tell(what, Outcome::Present),
            Found::No => self.put(what, &path, body)?,
            Found::Never(why) => {
                self.tell(what, Outcome::Skipped(why));
                false
            }
        };
        Ok(there && ilm)
    }

    fn template(&mut self, kind: Kind, template: &Value, stream: &str) -> Done<()> {
        let name = kind.template_name();
        let path = format!("/_index_template/{name}");
        let what = format!("index template {name}");
        match self.look(&path)? {
            Found::Never(why) => {
                self.tell(what, Outcome::Skipped(why));
            }
            Found::Yes(answer) if installed_version(&answer.body) >= version_of(template) => {
                self.tell(what, Outcome::Present);
            }
            Found::Yes(_) => {
                if self.put(what, &path, &template.to_string())? {
                    self.mapping(template, stream)?;
                }
            }
            Found::No => {
                self.put(what, &path, &template.to_string())?;
            }
        }
        Ok(())
    }

    /// A newer template reaches only the next backing index; this one learns the new fields now.
    fn mapping(&mut self, template: &Value, stream: &str) -> Done<()> {
        let properties = template.pointer("/template/mappings/properties");
        let body = json!({"properties": properties}).to_string();
        let what = format!("mapping of {stream}");
        if self.mode == Mode::Install {
            let came = (self.exchange)(Method::Put, &format!("/{stream}/_mapping"), Some(&body));
            let outcome = match came.map_err(|failure| retry::obstacle(&Err(failure), &what))? {
                answer if answer.status < 300 => Outcome::Installed,
                answer => Outcome::Skipped(retry::told_answer(&answer)),
            };
            self.tell(what, outcome);
        }
        Ok(())
    }

    fn stream(&mut self, stream: &str) -> Done<()> {
        let path = format!("/_data_stream/{stream}");
        let what = format!("data stream {stream}");
        match self.look(&path)? {
            Found::Never(why) => {
                self.tell(what, Outcome::Skipped(why));
            }
            Found::Yes(answer) if names_a_stream(&answer.body) => {
                self.tell(what, Outcome::Present);
            }
            Found::Yes(_) | Found::No => {
                self.put(what, &path, "")?;
            }
        }
        Ok(())
    }

    fn vetting_index(&mut self) -> Done<()> {
        let what = format!("index {VETTING_INDEX}");
        match self.look(&super::vetting::uuid_path())? {
            Found::Yes(_) => {
                self.tell(what, Outcome::Present);
            }
            Found::No => {
                self.put(what, &format!("/{VETTING_INDEX}"), VETTING_BODY)?;
            }
            Found::Never(why) => {
                self.tell(what, Outcome::Skipped(why));
            }
        }
        Ok(())
    }

    fn look(&mut self, path: &str) -> Done<Found> {
        let came = (self.exchange)(Method::Get, path, None);
        let Ok(answer) = &came else { return Err(Box::new(retry::obstacle(&came, path))) };
        Ok(match answer.status {
            200..=299 => Found::Yes(answer.clone()),
            // A string instead of an object: no such API there.
            404 if !retry::is_no_handler(answer) => Found::No,
            400 | 403..=405 => Found::Never(retry::told_answer(answer)),
            _ => return Err(Box::new(retry::obstacle(&came, path))),
        })
    }

    /// Puts something in place; `false` where the server does not let us.
    fn put(&mut self, what: String, path: &str, body: &str) -> Done<bool> {
        if self.mode == Mode::Plan {
            return Ok(self.tell(what, Outcome::Planned(format!("PUT {path}\n{body}"))));
        }
        let content = (!body.is_empty()).then_some(body);
        let came = (self.exchange)(Method::Put, path, content);
        let Ok(answer) = &came else { return Err(Box::new(retry::obstacle(&came, path))) };
        let told = retry::told_answer(answer);
        match answer.status {
            200..=299 => Ok(self.tell(what, Outcome::Installed)),
            // Another instance was faster.
            400 | 409
                if told.contains("resource_already_exists")
                    || told.contains("version_conflict") =>
            {
                Ok(self.tell(what, Outcome::Present))
            }
            403 | 405 => {
                self.tell(what, Outcome::Skipped(told));
                Ok(false)
            }
            400 | 500 if path.starts_with("/_data_stream/") && !retry::is_no_handler(answer) => {
                let text = format!(
                    "{what} cannot be made ({told}): if a plain index sits there, delete it, then run `mlbridge setup elasticsearch`"
                );
                Err(Box::new(retry::waiting(&text, None)))
            }
            400 | 404 if retry::is_no_handler(answer) => {
                self.tell(what, Outcome::Skipped(told));
                Ok(false)
            }
            400 => Err(Box::new(retry::waiting(&format!("{what} is refused ({told})"), None))),
            _ => Err(Box::new(retry::obstacle(&came, path))),
        }
    }

    /// Reports; `true`, for the cases in which the thing is there.
    fn tell(&mut self, what: String, outcome: Outcome) -> bool {
        (self.report)(Step { what, outcome });
        true
    }
}

fn installed_version(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let version = answer.pointer("/index_templates/0/index_template/version");
    version.and_then(Value::as_u64).unwrap_or(0)
}

fn version_of(template: &Value) -> u64 {
    template.get("version").and_then(Value::as_u64).unwrap_or(0)
}

/// An empty list means that a plain index of this name sits there.
fn names_a_stream(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer.pointer("/data_streams/0").is_some()
}
