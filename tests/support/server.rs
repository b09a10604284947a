//! A strict server that speaks enough of Elasticsearch: it keeps documents by id, answers as a script tells it, and
//! remembers every request that a real one might have refused.

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What becomes of one bulk request into the verdict stream. Without a script it is stored and acknowledged.
#[derive(Debug, Clone)]
pub enum Act {
    /// This status with this body; nothing is stored.
    Answer(u16, &'static str),
    /// As `Answer`, with a header.
    AnswerWith(u16, &'static str, &'static str),
    /// These statuses and error types for the items in turn, the rest is stored.
    Items(Vec<(u16, &'static str, &'static str)>),
    /// Stored, but the connection is cut before the answer.
    StoreAndCut,
    /// The connection is cut after the head, with the body unread.
    CutUnread,
    /// Stored; half an answer, then the connection is cut.
    HalfAnAnswer,
    /// Stored; then silence until the test ends.
    Silence,
    /// Stored; the answer's body comes a byte at a time, slowly.
    Drip,
    /// Stored; but the answer lacks the last item.
    TooFewItems,
    /// These bytes instead of HTTP.
    Raw(&'static [u8]),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    /// Decompressed.
    pub body: Vec<u8>,
    pub bytes_on_the_wire: usize,
}

#[derive(Default)]
pub struct State {
    pub requests: Vec<Request>,
    /// What a real server might have refused, and what no client should do.
    pub violations: Vec<String>,
    pub script: VecDeque<Act>,
    /// Documents by index and id; the number counts how often each was created.
    pub stored: BTreeMap<String, BTreeMap<String, (Value, u32)>>,
    /// Sequence numbers of the vetting index.
    pub changes: Vec<(i64, String)>,
    pub templates: BTreeMap<String, Value>,
    /// Wanted in every request.
    pub authorization: Option<String>,
    /// Body for `GET /`.
    pub root: Option<Value>,
    pub largest_body: Option<usize>,
    pub refuses_gzip: bool,
    pub connections: u32,
}

pub struct Server {
    address: SocketAddr,
    tls: bool,
    pub prefix: String,
    state: Arc<Mutex<State>>,
    ending: Arc<AtomicBool>,
}

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
const STREAM: &str = "logs-mlbridge.verdict-default";

impl Server {
    pub fn start() -> Server {
        Server::begin(None, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(address: SocketAddr) -> Server {
        Server::begin(None, address)
    }

    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> Server {
        Server::begin(Some(config), "127.0.0.1:0".parse().unwrap())
    }

    fn begin(tls: Option<Arc<rustls::ServerConfig>>, address: SocketAddr) -> Server {
        let listener = bind(address);
        let server = Server {
            address: listener.local_addr().unwrap(),
            tls: tls.is_some(),
            prefix: String::new(),
            state: Arc::default(),
            ending: Arc::default(),
        };
        let (state, ending) = (Arc::clone(&server.state), Arc::clone(&server.ending));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (state, ending, tls) = (Arc::clone(&state), Arc::clone(&ending), tls.clone());
                std::thread::spawn(move || {
                    state.lock().unwrap().connections += 1;
                    match tls {
                        None => serve(stream, &state, &ending),
                        Some(config) => {
                            let connection = rustls::ServerConnection::new(config).unwrap();
                            serve(rustls::StreamOwned::new(connection, stream), &state, &ending);
                        }
                    }
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.prefix)
    }

    /// As `url`, by name instead of by address.
    pub fn url_by_name(&self) -> String {
        self.url().replace("127.0.0.1", "localhost")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn script(self, acts: impl IntoIterator<Item = Act>) -> Server {
        self.state().script.extend(acts);
        self
    }

    pub fn until_script_is_over(&self) {
        super::until("the script is over", || self.state().script.is_empty());
    }

    /// Bulk requests into the verdict stream until now.
    pub fn bulk_requests(&self) -> usize {
        let is_bulk = |r: &&Request| r.path.starts_with(&format!("/{STREAM}/_bulk"));
        self.state().requests.iter().filter(is_bulk).count()
    }

    /// Ids in the verdict stream.
    pub fn ids(&self) -> Vec<String> {
        self.state().stored.get(STREAM).map(|ids| ids.keys().cloned().collect()).unwrap_or_default()
    }

    /// Nothing was asked that should not have been.
    pub fn check(&self) {
        assert_eq!(self.state().violations, Vec::<String>::new());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// A server that comes back at its address finds the old connections' remains there for a moment.
fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..200 {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    panic!("{address} cannot be bound");
}

fn serve(mut stream: impl Read + Write, state: &Mutex<State>, ending: &AtomicBool) {
    let mut buffer = Vec::new();
    loop {
        let Some((mut request, length)) = read_head(&mut stream, &mut buffer, state) else {
            return;
        };
        let is_verdicts = request.path.starts_with(&format!("/{STREAM}/_bulk"));
        let act = if is_verdicts { state.lock().unwrap().script.pop_front() } else { None };
        if matches!(act, Some(Act::CutUnread)) {
            return;
        }
        while buffer.len() < length {
            let mut chunk = [0; 65_536];
            match stream.read(&mut chunk) {
                Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        }
        let raw: Vec<u8> = buffer.drain(..length).collect();
        request.bytes_on_the_wire = raw.len();
        request.body = raw.clone();
        if request.headers.get("content-encoding").map(String::as_str) == Some("gzip") {
            request.body.clear();
            if GzDecoder::new(raw.as_slice()).read_to_end(&mut request.body).is_err() {
                state.lock().unwrap().violations.push("a body that is no gzip".to_owned());
            }
        }
        let mut locked = state.lock().unwrap();
        locked.requests.push(request.clone());
        let reply = locked.reply(&request, is_verdicts, act.as_ref());
        drop(locked);
        if !send(&mut stream, &reply, act.as_ref(), ending) {
            return;
        }
    }
}

struct Reply {
    status: u16,
    header: Option<&'static str>,
    body: String,
}

fn read_head(
    stream: &mut (impl Read + Write),
    buffer: &mut Vec<u8>,
    state: &Mutex<State>,
) -> Option<(Request, usize)> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut chunk = [0; 65_536];
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        buffer.extend_from_slice(&chunk[..count]);
        if buffer[0] == TLS_HANDSHAKE {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if headers.contains_key("transfer-encoding") {
        state.lock().unwrap().violations.push("a body of unknown length".to_owned());
    }
    Some((Request { method, path, headers, body: Vec::new(), bytes_on_the_wire: 0 }, length))
}

/// Sends a reply the way the act wants; `false` ends the connection.
fn send(stream: &mut impl Write, reply: &Reply, act: Option<&Act>, ending: &AtomicBool) -> bool {
    let header = reply.header.map(|header| format!("{header}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} X\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\r\n",
        reply.status,
        reply.body.len()
    );
    let whole = format!("{head}{}", reply.body);
    match act {
        Some(Act::StoreAndCut) => false,
        Some(Act::HalfAnAnswer) => {
            let _ = stream.write_all(&whole.as_bytes()[..whole.len() - 10]);
            let _ = stream.flush();
            false
        }
        Some(Act::Silence) => {
            while !ending.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        }
        Some(Act::Drip) => {
            let _ = stream.write_all(head.as_bytes());
            for byte in reply.body.as_bytes() {
                if ending.load(Ordering::SeqCst) || stream.write_all(&[*byte]).is_err() {
                    return false;
                }
                let _ = stream.flush();
                std::thread::sleep(Duration::from_millis(20));
            }
            true
        }
        Some(Act::Raw(bytes)) => {
            let _ = stream.write_all(bytes);
            let _ = stream.flush();
            false
        }
        _ => stream.write_all(whole.as_bytes()).and_then(|()| stream.flush()).is_ok(),
    }
}

impl State {
    fn reply(&mut self, request: &Request, is_verdicts: bool, act: Option<&Act>) -> Reply {
        let plain = |status, body: String| Reply { status, header: None, body };
        self.check_headers(request);
        if request.headers.get("authorization") != self.authorization.as_ref() {
            if self.authorization.is_none() {
                self.violations.push("credentials that nobody asked for".to_owned());
            }
            return plain(401, "Unauthorized".to_owned());
        }
        if self.refuses_gzip && request.headers.contains_key("content-encoding") {
            return plain(415, String::new());
        }
        if self.largest_body.is_some_and(|largest| request.body.len() > largest) {
            return plain(413, String::new());
        }
        if is_verdicts {
            return self.verdicts(request, act);
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match (request.method.as_str(), path) {
            ("GET", "/") => plain(200, self.root.clone().unwrap_or_else(elasticsearch).to_string()),
            ("GET", "/mlbridge-vetting/_settings") => match self.stored.contains_key("mlbridge-vetting") {
                true => plain(200, json!({"mlbridge-vetting": {"settings": {"index": {"uuid": "u1"}}}}).to_string()),
                false => plain(404, json!({"error": {"type": "index_not_found_exception", "reason": "no such index"}}).to_string()),
            },
            ("POST", "/api/saved_objects/_import") => {
                let body = String::from_utf8_lossy(&request.body);
                let objects = body.lines().filter(|line| line.starts_with('{')).count();
                let kind = request.headers.get("content-type").cloned().unwrap_or_default();
                let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap_or("?");
                let framed = body.starts_with(&format!("--{boundary}\r\n"))
                    && body.ends_with(&format!("\r\n--{boundary}--\r\n"))
                    && request.headers.contains_key("kbn-xsrf")
                    && request.headers.contains_key("osd-xsrf")
                    && query == "overwrite=true";
                if !framed {
                    self.violations.push(format!("an import that is none: {kind}"));
                }
                plain(200, json!({"success": true, "successCount": objects}).to_string())
            }
            ("POST", "/mlbridge-vetting/_search") => plain(200, self.search(request)),
            ("PUT", path) if path.starts_with("/_") || !path[1..].contains('/') => {
                if path == "/mlbridge-vetting" {
                    self.stored.entry("mlbridge-vetting".to_owned()).or_default();
                }
                let body = serde_json::from_slice(&request.body).unwrap_or_default();
                self.templates.insert(path.to_owned(), body);
                plain(200, json!({"acknowledged": true}).to_string())
            }
            ("GET", path) if path.starts_with("/_") => match self.templates.get(path) {
                Some(body) => plain(200, json!({"index_templates": [{"index_template": body}], "data_streams": [{}]}).to_string()),
                None => plain(404, json!({"error": {"type": "resource_not_found_exception", "reason": "r"}}).to_string()),
            },
            ("POST", path) if path.ends_with("/_bulk") => {
                let index = path[1..].trim_end_matches("/_bulk").to_owned();
                if query.is_empty() {
                    self.violations.push(format!("{path} without a filter"));
                }
                let lines = lines(&request.body);
                let items = lines.chunks(2).map(|pair| self.store(&index, &pair[0], pair[1].clone()));
                let items: Vec<Value> = items.collect();
                plain(200, json!({"errors": false, "items": items}).to_string())
            }
            _ => {
                self.violations.push(format!("{} {}", request.method, request.path));
                plain(400, json!({"error": "no handler found for uri"}).to_string())
            }
        }
    }

    fn check_headers(&mut self, request: &Request) {
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or("");
        let kind = header("content-type");
        let fits = match request.path.contains("/_bulk") {
            true => kind == "application/x-ndjson",
            false if request.path.starts_with("/api/") => true,
            false => request.body.is_empty() || kind == "application/json",
        };
        if !fits {
            self.violations.push(format!("{}: content-type {kind}", request.path));
        }
        if !header("user-agent").starts_with("mlbridge/") || header("host").is_empty() {
            self.violations.push("no user-agent or no host".to_owned());
        }
        if header("accept") != "application/json" || !header("accept-encoding").is_empty() {
            self.violations.push("asks for what it does not read".to_owned());
        }
    }

    fn verdicts(&mut self, request: &Request, act: Option<&Act>) -> Reply {
        for part in ["timeout=20s", "items.*._index", "items.*.error.caused_by"] {
            if !request.path.contains(part) {
                self.violations.push(format!("a bulk path without {part}"));
            }
        }
        if request.body.last() != Some(&b'\n') {
            self.violations.push("the last line has no end".to_owned());
        }
        let lines = lines(&request.body);
        if !lines.len().is_multiple_of(2) || lines.is_empty() || lines.len() > 1000 {
            self.violations.push(format!("{} lines", lines.len()));
        }
        let wanted = match act {
            Some(Act::Answer(status, body)) => {
                return Reply { status: *status, header: None, body: (*body).to_owned() };
            }
            Some(Act::AnswerWith(status, header, body)) => {
                return Reply { status: *status, header: Some(header), body: (*body).to_owned() };
            }
            Some(Act::Raw(_)) => return Reply { status: 200, header: None, body: String::new() },
            Some(Act::Items(items)) => items.clone(),
            _ => Vec::new(),
        };
        let mut items = Vec::new();
        for (number, pair) in lines.chunks_exact(2).enumerate() {
            let id = pair[0]["create"]["_id"].as_str().unwrap_or("").to_owned();
            if id.is_empty() || id.len() > 512 || pair[0].as_object().map(|o| o.len()) != Some(1) {
                self.violations.push(format!("action {}", pair[0]));
            }
            if pair[1]["@timestamp"].is_null() || pair[1]["event"]["id"] != json!(id) {
                self.violations.push(format!("document {}", pair[1]));
            }
            items.push(match wanted.get(number) {
                Some((status, kind, reason)) => {
                    json!({"create": {"_index": format!(".ds-{STREAM}-1"), "_id": id,
                    "status": status, "error": {"type": kind, "reason": reason}}})
                }
                None => self.store(STREAM, &pair[0], pair[1].clone()),
            });
        }
        if matches!(act, Some(Act::TooFewItems)) {
            items.pop();
        }
        Reply {
            status: 200,
            header: None,
            body: json!({"took": 1, "errors": false, "items": items}).to_string(),
        }
    }

    /// Stores one document; `create` does not replace.
    fn store(&mut self, index: &str, action: &Value, document: Value) -> Value {
        let (word, inner) = action.as_object().and_then(|action| action.iter().next()).unwrap();
        let id = inner["_id"].as_str().unwrap().to_owned();
        let documents = self.stored.entry(index.to_owned()).or_default();
        let there = documents.contains_key(&id);
        let place = format!(".ds-{index}-1");
        if there && word == "create" {
            return json!({word: {"_index": place, "_id": id, "status": 409,
                "error": {"type": "version_conflict_engine_exception", "reason": "there already"}}});
        }
        documents
            .entry(id.clone())
            .and_modify(|old| *old = (document.clone(), old.1 + 1))
            .or_insert((document, 1));
        if index == "mlbridge-vetting" {
            self.changes.push((self.changes.len() as i64, id.clone()));
        }
        json!({word: {"_index": place, "_id": id, "status": if there { 200 } else { 201 }}})
    }

    /// Changes the vetting index as an administrator's tool does.
    pub fn decide(&mut self, id: &str, document: Value) {
        let documents = self.stored.entry("mlbridge-vetting".to_owned()).or_default();
        documents.insert(id.to_owned(), (document, 1));
        self.changes.push((self.changes.len() as i64, id.to_owned()));
    }

    fn search(&mut self, request: &Request) -> String {
        let search: Value = serde_json::from_slice(&request.body).unwrap();
        if search.to_string().contains("\"_id\"") || search["sort"] != json!([{"_seq_no": "asc"}]) {
            self.violations.push(format!("search {search}"));
        }
        let after = search["query"]["range"]["_seq_no"]["gt"].as_i64().unwrap();
        let documents = self.stored.get("mlbridge-vetting").cloned().unwrap_or_default();
        // Only the latest change of each document is there.
        let latest =
            |seq_no: i64, id: &str| !self.changes.iter().any(|c| c.1 == id && c.0 > seq_no);
        let hits: Vec<Value> = self
            .changes
            .iter()
            .filter(|(seq_no, id)| *seq_no > after && latest(*seq_no, id))
            .take(search["size"].as_u64().unwrap() as usize)
            .map(|(seq_no, id)| json!({"_seq_no": seq_no, "_source": documents[id].0}))
            .collect();
        json!({"timed_out": false, "hits": {"hits": hits}}).to_string()
    }
}

fn lines(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What Elasticsearch 8.19 says of itself.
pub fn elasticsearch() -> Value {
    json!({"version": {"number": "8.19.21", "build_flavor": "default"}, "tagline": "You Know, for Search"})
}

/// What OpenSearch 2.19 says of itself.
pub fn opensearch() -> Value {
    json!({"version": {"distribution": "opensearch", "number": "2.19.1"},
        "tagline": "The OpenSearch Project: https://opensearch.org/"})
}
