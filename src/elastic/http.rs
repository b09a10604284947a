//! Requests to nodes over ureq, the only file that names it.
//!
//! Every time limit and size limit is set here; ureq's own defaults have no time limits, read the proxy from the
//! environment and follow redirects. Certificates are checked against `elasticsearch.ca_file` if it is set, else against
//! the compiled-in authorities; there is no way to switch that off. Answers with an error status are answers.
//!
//! Files with secrets are read when the client is made and again on request, and never shown.

use super::retry::{Answer, Failure};
use super::settings::{Settings, Url};
use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, http};

/// Longest times that parts of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a look-up of a node's name.
    pub resolve: Duration,
    /// For a connection and its TLS session.
    pub connect: Duration,
    /// For sending the request's head.
    pub send_head: Duration,
    /// For sending the request's body.
    pub send_body: Duration,
    /// Until the answer begins. More than the 20 seconds that a server waits for a missing shard.
    pub receive_head: Duration,
    /// For the answer's body.
    pub receive_body: Duration,
    /// For all of it.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            resolve: Duration::from_secs(2),
            connect: Duration::from_secs(2),
            send_head: Duration::from_secs(10),
            send_body: Duration::from_secs(30),
            receive_head: Duration::from_secs(60),
            receive_body: Duration::from_secs(30),
            whole: Duration::from_secs(120),
        }
    }
}

/// How long an unused connection is kept; many proxies cut them after a minute.
const IDLE: Duration = Duration::from_secs(50);
/// Most bytes of an answer's head.
const HEAD_BYTES: usize = 64 << 10;
/// Most bytes of an answer's body: 500 items whose reasons quote their documents are far less.
const BODY_BYTES: u64 = 16 << 20;
/// Most addresses of one node; ureq's list holds no more.
const ADDRESSES: usize = 16;
/// Most bytes of a file that a setting names.
const FILE_BYTES: u64 = 1 << 20;

/// What a request is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Write or search.
    Post,
    /// Put in place.
    Put,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// One JSON value.
    Json,
    /// JSON values, one a line.
    Lines,
    /// As `Lines`, compressed already.
    CompressedLines,
    /// A form with a file, parted by this boundary: for Kibana and OpenSearch Dashboards.
    Form(&'static str),
}

/// A client for the nodes of one cluster; one thread at a time.
pub struct Client {
    urls: Vec<Url>,
    limits: Limits,
    agent: Agent,
    authorization: Option<String>,
    /// What the files held, to see a change.
    files: Files,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct Files {
    api_key: Option<String>,
    password: Option<String>,
    ca: Option<Vec<u8>>,
    client_cert: Option<Vec<u8>>,
    client_key: Option<Vec<u8>>,
}

impl Client {
    /// Reads the files that the settings name. Makes no connection.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for one that holds something else than it should;
    /// the text names the setting and the path.
    pub fn new(settings: &Settings, limits: Limits) -> Result<Client> {
        let files = Files::read(settings)?;
        let config = configure(settings, &files, &limits)?;
        let agent = Agent::with_parts(config, DefaultConnector::new(), Lookup);
        let authorization = authorization(settings, &files)?;
        Ok(Client { urls: settings.urls.clone(), limits, agent, authorization, files })
    }

    /// Reads the files again; `true` if one of them has changed. After an error the old contents stay.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn reread(&mut self, settings: &Settings) -> Result<bool> {
        if Files::read(settings)? == self.files {
            return Ok(false);
        }
        *self = Client::new(settings, self.limits)?;
        Ok(true)
    }

    /// Addresses of the nodes.
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// Cuts the connections of every request, running or to come, from any thread.
    pub fn cutter(&self) -> impl FnMut() + Send + 'static {
        let agent = self.agent.clone();
        move || agent.clone().shutdown()
    }

    /// Sends one request to a node (by its number in [`Client::urls`]) and reads the whole answer, within `most`.
    ///
    /// # Errors
    /// [`Failure`] where no answer came; its texts begin with the node's address.
    pub fn send(
        &self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<(Content, &[u8])>,
        most: Option<Duration>,
    ) -> std::result::Result<Answer, Failure> {
        let Some(url) = self.urls.get(node) else {
            return Err(Failure::Setting("elasticsearch.urls: is empty".to_owned()));
        };
        let whole = most
            .map_or(self.limits.whole, |most| most.min(self.limits.whole))
            .max(Duration::from_millis(1));
        let address = format!("{url}{path}");
        self.exchange(method, &address, body, whole).map_err(|error| explain(url, error))
    }

    fn exchange(
        &self,
        method: Method,
        address: &str,
        body: Option<(Content, &[u8])>,
        whole: Duration,
    ) -> std::result::Result<Answer, ureq::Error> {
        let mut request = http::Request::builder().uri(address).method(match method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
        });
        if let Some(authorization) = &self.authorization {
            request = request.header(http::header::AUTHORIZATION, authorization);
        }
        if let Some((content, _)) = body {
            let kind = match content {
                Content::Json => "application/json".to_owned(),
                Content::Lines | Content::CompressedLines => "application/x-ndjson".to_owned(),
                Content::Form(boundary) => format!("multipart/form-data; boundary={boundary}"),
            };
            request = request.header(http::header::CONTENT_TYPE, kind);
            if matches!(content, Content::Form(_)) {
                // Each of the two products wants one of these, against forged requests.
                request = request.header("kbn-xsrf", "mlbridge").header("osd-xsrf", "mlbridge");
            }
            if content == Content::CompressedLines {
                request = request.header(http::header::CONTENT_ENCODING, "gzip");
            }
        }
        let agent = &self.agent;
        let mut response = match (body, method) {
            (Some((_, bytes)), _) => {
                let request = agent.configure_request(request.body(bytes)?);
                agent.run(request.timeout_global(Some(whole)).build())?
            }
            // An empty body, with its length: without any, ureq would announce one in chunks.
            (None, Method::Put | Method::Post) => {
                let request = agent.configure_request(request.body(&[][..])?);
                agent.run(request.timeout_global(Some(whole)).build())?
            }
            (None, Method::Get) => {
                let request = agent.configure_request(request.body(())?);
                agent.run(request.timeout_global(Some(whole)).build())?
            }
        };
        let retry_after = response.headers().get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(BODY_BYTES).read_to_vec()?;
        Ok(Answer { status, retry_after, body })
    }
}

/// The bytes, compressed by gzip at its fastest.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let room = Vec::with_capacity(bytes.len() / 8 + 64);
    let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    // Writing into a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

impl Files {
    fn read(settings: &Settings) -> Result<Files> {
        let text = |key, path: &Option<_>| -> Result<Option<String>> {
            let Some(bytes) = optional_file(key, path)? else { return Ok(None) };
            let text = String::from_utf8(bytes).ok().map(|text| text.trim().to_owned());
            text.filter(|text| !text.is_empty())
                .map(Some)
                .ok_or_else(|| bad_file(key, path, "is empty or not UTF-8"))
        };
        Ok(Files {
            api_key: text("elasticsearch.api_key_file", &settings.api_key_file)?,
            password: text("elasticsearch.password_file", &settings.password_file)?,
            ca: optional_file("elasticsearch.ca_file", &settings.ca_file)?,
            client_cert: optional_file("elasticsearch.client_cert", &settings.client_cert)?,
            client_key: optional_file("elasticsearch.client_key", &settings.client_key)?,
        })
    }
}

fn optional_file(key: &str, path: &Option<std::path::PathBuf>) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let Some(path) = path else { return Ok(None) };
    let failed = |error| Error::Io(format!("{key}: {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn bad_file(key: &str, path: &Option<std::path::PathBuf>, reason: &str) -> Error {
    let shown = path.as_deref().unwrap_or(Path::new("")).display();
    Error::Config(format!("{key}: {shown}: {reason}"))
}

fn authorization(settings: &Settings, files: &Files) -> Result<Option<String>> {
    let value = match (&files.api_key, &settings.username, &files.password) {
        (Some(key), _, _) if key.contains(':') => format!("ApiKey {}", BASE64.encode(key)),
        (Some(key), _, _) => format!("ApiKey {key}"),
        (None, Some(user), Some(password)) => {
            format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
        }
        _ => return Ok(None),
    };
    if http::HeaderValue::from_str(&value).is_err() {
        let reason = "holds characters that are no part of an API key";
        return Err(bad_file("elasticsearch.api_key_file", &settings.api_key_file, reason));
    }
    Ok(Some(value))
}

fn configure(settings: &Settings, files: &Files, limits: &Limits) -> Result<ureq::config::Config> {
    let root_certs = match &files.ca {
        Some(pem) => RootCerts::from(authorities(settings, pem)?),
        None => RootCerts::WebPki,
    };
    let client_cert = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => Some(client_identity(settings, cert, key)?),
        _ => None,
    };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(root_certs)
        .client_cert(client_cert)
        .use_sni(true)
        .disable_verification(false)
        .build();
    Ok(ureq::config::Config::builder()
        .http_status_as_error(false)
        .https_only(false)
        .ip_family(ureq::config::IpFamily::Any)
        .tls_config(tls)
        .proxy(None)
        .no_delay(true)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::Never)
        .save_redirect_history(false)
        .user_agent(concat!("mlbridge/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .accept_encoding("")
        .timeout_global(Some(limits.whole))
        .timeout_per_call(Some(limits.whole))
        .timeout_per_read(None)
        .timeout_per_write(None)
        .timeout_resolve(Some(limits.resolve))
        .timeout_connect(Some(limits.connect))
        .timeout_send_request(Some(limits.send_head))
        .timeout_await_100(Some(limits.send_head))
        .timeout_send_body(Some(limits.send_body))
        .timeout_recv_response(Some(limits.receive_head))
        .timeout_recv_body(Some(limits.receive_body))
        .max_response_header_size(HEAD_BYTES)
        .input_buffer_size(64 << 10)
        .output_buffer_size(64 << 10)
        .max_idle_connections(settings.urls.len().max(1))
        .max_idle_connections_per_host(1)
        .max_idle_age(IDLE)
        .allow_non_standard_methods(false)
        .build())
}

fn authorities(settings: &Settings, pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let found = certificates(pem);
    if found.is_empty() {
        let reason = "holds no certificate in PEM form";
        return Err(bad_file("elasticsearch.ca_file", &settings.ca_file, reason));
    }
    Ok(found)
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = ureq::tls::parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

/// Checks that certificate and key belong together: ureq would panic at the first request.
fn client_identity(settings: &Settings, cert: &[u8], key: &[u8]) -> Result<ClientCert> {
    let refuse_cert =
        |reason: &str| bad_file("elasticsearch.client_cert", &settings.client_cert, reason);
    let refuse_key =
        |reason: &str| bad_file("elasticsearch.client_key", &settings.client_key, reason);
    let chain = certificates(cert);
    if chain.is_empty() {
        return Err(refuse_cert("holds no certificate in PEM form"));
    }
    let key = PrivateKey::from_pem(key)
        .map_err(|_| refuse_key("holds no unencrypted private key in PEM form"))?;
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(|_| refuse_key("holds a private key of an unknown kind"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| refuse_key("cannot be used"))?;
    builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain.iter().map(|c| c.der().to_vec().into()).collect(), der)
        .map_err(|error| refuse_key(&format!("does not fit elasticsearch.client_cert: {error}")))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// Sorts an error by what it means for the next attempt, in an operator's words.
fn explain(url: &Url, error: ureq::Error) -> Failure {
    use std::io::ErrorKind;
    use ureq::Timeout;
    let text = |what: &str| format!("elasticsearch.urls: {url}: {what}");
    match error {
        ureq::Error::Rustls(error) => explain_tls(url, &error),
        ureq::Error::Io(error) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = tls {
                return explain_tls(url, tls);
            }
            if let Some(Unresolved(reason)) = error.get_ref().and_then(|e| e.downcast_ref()) {
                return Failure::Unreachable(text(reason));
            }
            match error.kind() {
                ErrorKind::ConnectionRefused => Failure::Unreachable(text("connection refused")),
                ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
                | ErrorKind::AddrNotAvailable
                | ErrorKind::PermissionDenied
                | ErrorKind::NotConnected => Failure::Unreachable(text(&error.to_string())),
                // A node that wants TLS does this without a word.
                _ if !url.tls() => Failure::Unanswered(text(
                    "the connection was cut before the answer was whole; is it an https address?",
                )),
                _ => {
                    Failure::Unanswered(text("the connection was cut before the answer was whole"))
                }
            }
        }
        ureq::Error::HostNotFound => Failure::Unreachable(text("the host name has no address")),
        ureq::Error::Timeout(Timeout::Resolve) => {
            Failure::Unreachable(text("the look-up of the host name took too long"))
        }
        ureq::Error::Timeout(Timeout::Connect) => {
            Failure::Unreachable(text("no connection in time"))
        }
        ureq::Error::Timeout(_) => Failure::Unanswered(text("no whole answer in time")),
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
            Failure::Unanswered(text("the answer is too large; is it Elasticsearch or OpenSearch?"))
        }
        ureq::Error::Protocol(_) => {
            Failure::Unanswered(text("answers something that is not HTTP; is it an https address?"))
        }
        other => Failure::Unanswered(text(&super::redact::redact(&other.to_string()))),
    }
}

fn explain_tls(url: &Url, error: &rustls::Error) -> Failure {
    use rustls::{AlertDescription, CertificateError, Error};
    let text = |what: &str| Failure::Certificate(format!("elasticsearch.urls: {url}: {what}"));
    match error {
        Error::InvalidCertificate(reason) => match reason {
            // A signature that does not fit: another authority of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                text("certificate not trusted; set elasticsearch.ca_file")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                text("the certificate is for another name; use a name that stands in it")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                text("the certificate has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                text("the certificate is not valid yet; is the clock right?")
            }
            other => text(&format!("certificate not accepted: {other}")),
        },
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure,
        ) => text(&format!(
            "the node does not accept the client's certificate ({error}); check elasticsearch.client_cert"
        )),
        Error::InvalidMessage(_) => text("answers without TLS; is it an http address?"),
        other => Failure::Unreachable(format!("elasticsearch.urls: {url}: TLS: {other}")),
    }
}

/// Looks names up in a thread of its own, because a look-up cannot be interrupted; addresses need none.
#[derive(Debug)]
struct Lookup;

/// Why a name was not looked up, carried through ureq's error.
#[derive(Debug)]
struct Unresolved(String);

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unresolved {}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &http::Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        use std::net::ToSocketAddrs as _;
        let unresolved =
            |reason: String| ureq::Error::Io(std::io::Error::other(Unresolved(reason)));
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(ureq::Error::HostNotFound);
        };
        let target =
            DefaultResolver::host_and_port(scheme, authority).ok_or(ureq::Error::HostNotFound)?;
        let mut found = self.empty();
        if let Ok(address) = target.parse() {
            found.push(address);
            return Ok(found);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let look_up = move || {
            let _ = sender.send(target.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        };
        let thread =
            std::thread::Builder::new().name("mlb-lookup".to_owned()).stack_size(256 << 10);
        thread
            .spawn(look_up)
            .map_err(|error| unresolved(format!("no thread for the look-up: {error}")))?;
        let addresses = receiver
            .recv_timeout(*timeout.after)
            .map_err(|_| ureq::Error::Timeout(ureq::Timeout::Resolve))?
            .map_err(|error| unresolved(format!("the host name was not found: {error}")))?;
        addresses.into_iter().take(ADDRESSES).for_each(|address| found.push(address));
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}
