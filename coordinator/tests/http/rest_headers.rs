//! What the description says of headers, held against what is taken and sent.

use coordinator::admission::{Admission, Rates};
use coordinator::identity::{Scope, Scopes};
use hyper::StatusCode;
use serde_json::Value;

use crate::rest_operators::{asked, operations, session};
use crate::rig::{Asked, Reply, Rig};

/// What every answer may have, whatever it is to: HTTP itself and the layer that answers other origins.
const OF_HTTP: &[&str] = &[
    "access-control-expose-headers",
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "vary",
];
/// Headers that may change what an operation does, and what to say in each.
const CONDITIONS: &[(&str, &str)] = &[
    ("range", "bytes=0-1"),
    ("if-range", "\"other\""),
    ("if-match", "\"other\""),
    ("if-none-match", "*"),
    ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT"),
];

type Operation = (String, String, String, bool);

async fn described(rig: &Rig, (method, path, ..): &Operation) -> Value {
    let described = rig.request("GET", "/api/openapi.json").send().await.json().await;
    described["paths"][path][method.to_lowercase()].clone()
}

/// A server that lets everybody ask as often as they like.
async fn unlimited() -> Rig {
    let rates = Rates { http: None, stdio: None, tools: Default::default() };
    Rig::with_admission(|_| {}, Admission::new(rates)).await
}

/// A session for an operation: none that one before it closed.
async fn session_for(rig: &Rig, token: &str, operation: &Operation, kept: &str) -> String {
    if operation.2 == "close_session" { session(rig, token).await } else { kept.to_owned() }
}

async fn operator(rig: &Rig) -> String {
    rig.token("op", Scopes::USER.with(Scope::Admin)).await
}

#[tokio::test]
async fn every_header_that_changes_what_is_done_is_described() {
    let rig = unlimited().await;
    let token = operator(&rig).await;
    let kept = session(&rig, &token).await;
    for operation in &operations(&rig).await {
        let described = described(&rig, operation).await;
        let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
        let answer = async |more: &[(&str, &str)]| {
            let session = session_for(&rig, &token, operation, &kept).await;
            let asked = asked(&rig, operation, &session).bearer(Some(&token));
            let asked = more.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
            let answer = asked.send().await;
            (answer.status, answer.headers.get("etag").cloned())
        };
        for (name, value) in CONDITIONS {
            let others = if *name == "if-range" { &CONDITIONS[..1] } else { &[] };
            let without = answer(others).await;
            let with = answer(&[others, &[(*name, *value)]].concat()).await;
            let is_taken = with != without && with.0 != StatusCode::BAD_REQUEST;
            let is_described = parameters.iter().any(|parameter| parameter["name"] == *name);
            // Whether there is a file, the double does not look.
            let is_of_upload = operation.2 == "write_file" && is_described;
            assert!(is_taken == is_described || is_of_upload, "{}: {name}: {without:?}, {with:?}", operation.2);
        }
    }
}

/// What is sent and not described.
fn undescribed(described: &Value, answer: &Reply) -> Vec<String> {
    let of_status = &described["responses"][answer.status.as_str()];
    if of_status.is_null() {
        return vec![format!("{} itself", answer.status)];
    }
    let names = answer.headers.keys().map(ToString::to_string);
    names.filter(|name| !OF_HTTP.contains(&name.as_str()) && of_status["headers"][name].is_null()).collect()
}

#[tokio::test]
async fn every_header_that_is_sent_is_described() {
    let rig = unlimited().await;
    let (token, too_little) = (operator(&rig).await, rig.token("ann", Scope::Worker.into()).await);
    let kept = session(&rig, &token).await;
    for operation in &operations(&rig).await {
        let described = described(&rig, operation).await;
        let ways: [fn(Asked, &str, &str) -> Asked; 7] = [
            |asked, token, _| asked.bearer(Some(token)),
            |asked, _, _| asked,
            |asked, _, too_little| asked.bearer(Some(too_little)),
            |asked, token, _| asked.bearer(Some(token)).header("range", "bytes=0-1"),
            |asked, token, _| asked.bearer(Some(token)).header("range", "bytes=9000-"),
            |asked, token, _| asked.bearer(Some(token)).header("if-none-match", "*"),
            |asked, token, _| asked.bearer(Some(token)).header("accept", "text/event-stream"),
        ];
        for (number, way) in ways.iter().enumerate() {
            let session = session_for(&rig, &token, operation, &kept).await;
            let asked = asked(&rig, operation, &session);
            let answer = way(asked, &token, &too_little).send().await;
            assert_eq!(undescribed(&described, &answer), [""; 0], "{}, way {number}", operation.2);
        }
        for (status, name) in [("429", "retry-after"), ("503", "retry-after"), ("401", "www-authenticate")] {
            assert!(described["responses"][status]["headers"][name].is_object(), "{}: {status}", operation.2);
        }
    }
}
