//! Any answer of a node: no panic, and only documents that the answer names are settled.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlbridge::elastic::Document;
use mlbridge::elastic::retry::{Answer, Sender};
use mlbridge::elastic::setup::Server;

fuzz_target!(|data: &[u8]| {
    let Some((&status, body)) = data.split_first() else { return };
    let documents: Vec<Document> =
        (0..3).map(|row| Document { row, id: format!("id{row}"), source: b"{}".to_vec() }).collect();
    let sent: Vec<&Document> = documents.iter().collect();
    let retry_after = std::str::from_utf8(body).ok().map(str::to_owned);
    let answer = Answer { status: u16::from(status) * 2 + 100, retry_after, body: body.to_vec() };
    let decision = Sender::new("stream".to_owned()).judge(&sent, 100, 0, &Ok(answer), 0);
    assert!(decision.settled.delivered.len() + decision.settled.dead.len() <= documents.len());
    let _ = Server::parse(body);
});
