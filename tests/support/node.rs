//! A real node: started by `tests/elastic/node`, stopped when it is dropped.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Node {
    home: tempfile::TempDir,
    lane: String,
    settings: Vec<String>,
    pub url: String,
    agent: ureq::Agent,
    authorization: Option<String>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/elastic/node")
}

impl Node {
    /// Starts a node; a missing JDK or Maven fails the test and says what to install.
    pub fn start(lane: &str, settings: &[&str]) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), lane, settings)
    }

    pub fn start_in(home: tempfile::TempDir, lane: &str, settings: &[&str]) -> Node {
        let config = ureq::config::Config::builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .tls_config(ureq::tls::TlsConfig::builder().disable_verification(true).build());
        let mut node = Node {
            home,
            lane: lane.to_owned(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            url: String::new(),
            agent: config.build().into(),
            authorization: None,
        };
        node.run_start();
        node
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn authorize(&mut self, authorization: &str) {
        self.authorization = Some(authorization.to_owned());
    }

    fn run_start(&mut self) {
        let mut start = Command::new(script());
        start.arg("start").arg(&self.lane).arg(self.home.path()).args(&self.settings);
        // Under the security plugin the question for the cluster's health needs credentials.
        if self.settings.iter().any(|setting| setting.starts_with("plugins.security")) {
            start.env("NO_HEALTH", "1");
        }
        let output = start.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.url = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    }

    fn end(&self, how: &str) {
        let ended = Command::new(script()).arg(how).arg(self.home.path()).status().unwrap();
        assert!(ended.success());
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&self) {
        self.end("kill");
    }

    /// Starts it again on its data, at its address.
    pub fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        self.settings.retain(|setting| !setting.starts_with("http.port="));
        self.settings.push(format!("http.port={port}"));
        self.run_start();
    }

    /// Sends it a signal, by its process id.
    pub fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.home.path().join("pid")).unwrap();
        let sent = Command::new("kill").arg(signal).arg(pid.trim()).status().unwrap();
        assert!(sent.success());
    }

    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !text.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = self.agent.run(request.body(text).unwrap()).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// As `call`, for what must succeed.
    pub fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// Documents and distinct event ids in a stream.
    pub fn counts(&self, stream: &str) -> (u64, u64) {
        self.ok("POST", &format!("/{stream}/_refresh"), None);
        let search = serde_json::json!({"size": 0, "track_total_hits": true});
        let answer = self.ok("POST", &format!("/{stream}/_search"), Some(search));
        (answer["hits"]["total"]["value"].as_u64().unwrap(), self.distinct(stream, "event.id"))
    }

    /// How many distinct values a field has; exact, unlike `cardinality`.
    pub fn distinct(&self, stream: &str, field: &str) -> u64 {
        let values = serde_json::json!({"terms": {"field": field, "size": 60_000}});
        let search = serde_json::json!({"size": 0, "aggs": {"values": values}});
        let path = format!(
            "/{stream}/_search?filter_path=aggregations.values.buckets.doc_count,aggregations.values.sum_other_doc_count"
        );
        let answer = self.ok("POST", &path, Some(search));
        assert_eq!(answer["aggregations"]["values"]["sum_other_doc_count"], 0, "too many for this");
        answer["aggregations"]["values"]["buckets"]
            .as_array()
            .map_or(0, |buckets| buckets.len() as u64)
    }

    /// How many documents match a query.
    pub fn matches(&self, stream: &str, query: Value) -> u64 {
        let body = serde_json::json!({"query": query});
        self.ok("POST", &format!("/{stream}/_count"), Some(body))["count"].as_u64().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.home.path()).status();
    }
}
