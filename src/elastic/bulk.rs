//! Bulk bodies out, bulk answers in. No I/O.
//!
//! A body is newline-delimited JSON: an action line with the document's id, then the document. The action is always
//! `create`: a data stream takes nothing else, and a document that arrived before answers 409 instead of being doubled.

use super::Document;
use serde::Deserialize;

/// What answers are cut down to: per item who, where, what became of it and why.
const FILTER: &str = "errors,took,items.*._id,items.*._index,items.*.status,items.*.error.type,\
                      items.*.error.reason,items.*.error.caused_by,items.*.failure_store";

/// Bytes that the action line and the line ends add to a document.
pub(super) fn overhead(document: &Document) -> usize {
    // Two quotation marks around the id, and the line end of the document.
    ACTION.len() + document.id.len() + ACTION_END.len() + 3
}

const ACTION: &str = "{\"create\":{\"_id\":";
const ACTION_END: &str = "}}\n";

/// The path of a bulk request. The server waits 20 seconds for a missing shard at most, so that its answer comes before
/// the request's own time is over. `require_data_stream` is only known to Elasticsearch from 8.13 on.
pub fn path(target: &str, require_data_stream: bool) -> String {
    let require = if require_data_stream { "&require_data_stream=true" } else { "" };
    format!("/{target}/_bulk?timeout=20s&filter_path={FILTER}{require}")
}

/// The body for these documents.
pub fn body<'a>(documents: impl IntoIterator<Item = &'a Document> + Clone) -> Vec<u8> {
    let whole = documents.clone().into_iter().map(|d| overhead(d) + d.source.len()).sum();
    let mut out = Vec::with_capacity(whole);
    for document in documents {
        out.extend_from_slice(ACTION.as_bytes());
        // A Vec takes everything, so this cannot fail.
        let _ = serde_json::to_writer(&mut out, &document.id);
        out.extend_from_slice(ACTION_END.as_bytes());
        out.extend_from_slice(&document.source);
        out.push(b'\n');
    }
    out
}

/// What a bulk request brought back, item by item in the order of the documents.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct BulkAnswer {
    /// Whether any item failed, as the server says.
    pub errors: bool,
    /// The items.
    pub items: Vec<Item>,
}

impl BulkAnswer {
    /// Reads an answer; `None` for anything that is not whole, or not an answer to `create`.
    pub fn parse(body: &[u8]) -> Option<BulkAnswer> {
        #[derive(Deserialize)]
        struct Raw {
            errors: bool,
            items: Vec<RawItem>,
        }
        #[derive(Deserialize)]
        struct RawItem {
            create: Item,
        }
        let raw: Raw = serde_json::from_slice(body).ok()?;
        let items = raw.items.into_iter().map(|item| item.create).collect();
        Some(BulkAnswer { errors: raw.errors, items })
    }
}

/// What became of one document.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Item {
    /// Its id.
    #[serde(rename = "_id")]
    pub id: Option<String>,
    /// The index it went to: a backing index of the stream.
    #[serde(rename = "_index")]
    pub index: Option<String>,
    /// Status as in HTTP.
    pub status: u16,
    /// Why it failed.
    pub error: Option<ServerError>,
    /// `used` when the server put the document aside instead of into the stream (Elasticsearch 9.1).
    pub failure_store: Option<String>,
}

/// The word and the text of an error. Servers and proxies write an object, a string, or nothing.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RawError")]
pub struct ServerError {
    /// The server's word for it, for example `mapper_parsing_exception`; may be empty.
    pub kind: String,
    /// The reason and what caused it; may be empty. May quote the document.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawError {
    Text(String),
    Detail {
        #[serde(rename = "type")]
        kind: Option<String>,
        reason: Option<String>,
        caused_by: Option<Box<RawError>>,
    },
    Other(serde::de::IgnoredAny),
}

impl From<RawError> for ServerError {
    fn from(raw: RawError) -> ServerError {
        match raw {
            RawError::Text(reason) => ServerError { kind: String::new(), reason },
            RawError::Detail { kind, reason, caused_by } => {
                let mut reason = reason.unwrap_or_default();
                let cause = caused_by.map(|cause| ServerError::from(*cause)).unwrap_or_default();
                if !cause.reason.is_empty() && !reason.contains(&cause.reason) {
                    reason = format!("{reason}: {}", cause.reason);
                }
                ServerError { kind: kind.unwrap_or_default(), reason }
            }
            RawError::Other(_) => ServerError::default(),
        }
    }
}

impl ServerError {
    /// The error of a request that failed as a whole; empty where the body tells nothing.
    pub fn of_request(body: &[u8]) -> ServerError {
        #[derive(Deserialize)]
        struct Raw {
            error: ServerError,
        }
        serde_json::from_slice(body).map_or_else(|_| ServerError::default(), |raw: Raw| raw.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, source: &str) -> Document {
        Document { row: 1, id: id.to_owned(), source: source.as_bytes().to_vec() }
    }

    #[test]
    fn a_body_is_pairs_of_lines() {
        let documents = [document("a", "{\"x\":1}"), document("b\"\\", "{}")];
        let text = String::from_utf8(body(&documents)).unwrap();
        assert_eq!(
            text,
            "{\"create\":{\"_id\":\"a\"}}\n{\"x\":1}\n{\"create\":{\"_id\":\"b\\\"\\\\\"}}\n{}\n"
        );
        let first = &documents[..1];
        assert_eq!(body(first).len(), overhead(&first[0]) + first[0].source.len());
    }

    #[test]
    fn errors_come_in_three_shapes() {
        for (text, kind, reason) in [
            (r#"{"error":"no handler found","status":400}"#, "", "no handler found"),
            (r#"{"error":{"type":"t","reason":"r","root_cause":[]},"status":400}"#, "t", "r"),
            (
                r#"{"error":{"type":"t","reason":"r","caused_by":{"type":"c","reason":"why"}}}"#,
                "t",
                "r: why",
            ),
            (r#"{"error":{"type":null,"reason":null}}"#, "", ""),
            (r#"{"error":7}"#, "", ""),
            (r#"{"status":400}"#, "", ""),
            ("<html>", "", ""),
            ("", "", ""),
        ] {
            let error = ServerError::of_request(text.as_bytes());
            assert_eq!((error.kind.as_str(), error.reason.as_str()), (kind, reason), "{text}");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = r#"{"errors":false,"items":[{"create":{"_id":"a","status":201}}]}"#;
        assert!(BulkAnswer::parse(whole.as_bytes()).is_some());
        for cut in 0..whole.len() {
            assert_eq!(BulkAnswer::parse(&whole.as_bytes()[..cut]), None, "{cut}");
        }
        for other in [
            "{}",
            "[]",
            "null",
            r#"{"errors":"no","items":[]}"#,
            r#"{"errors":false,"items":[{"index":{"_id":"a","status":201}}]}"#,
            r#"{"errors":false,"items":[{"create":{"status":"201"}}]}"#,
        ] {
            assert_eq!(BulkAnswer::parse(other.as_bytes()), None, "{other}");
        }
    }
}
