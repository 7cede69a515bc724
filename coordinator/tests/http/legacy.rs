//! The deprecated transport of 2024-11-05.

use std::sync::atomic::Ordering;

use coordinator::identity::{Scope, Scopes};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Asked, Rig, text_of, until};

fn hello() -> Value {
    let params =
        json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

fn call(id: u64, name: &str, arguments: &Value) -> Value {
    let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": id}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn post(rig: &Rig, endpoint: &str, message: &Value) -> Asked {
    rig.request("POST", endpoint).header("content-type", "application/json").body(message.to_string())
}

#[tokio::test]
async fn a_client_talks_over_a_stream_and_posts_and_is_told_that_this_is_deprecated() {
    let rig = Rig::new().await;
    let mut stream = rig.request("GET", "/sse").send().await;
    assert_eq!(stream.headers["deprecation"], "@1742947200");
    assert!(stream.headers["link"].to_str().unwrap().contains("</mcp>"));
    let endpoint = stream.endpoint().await;
    assert!(endpoint.starts_with("/messages?session_id=") && endpoint.len() > 50, "{endpoint}");
    let posted = post(&rig, &endpoint, &hello()).send().await;
    assert_eq!((posted.status, posted.headers.contains_key("deprecation")), (StatusCode::ACCEPTED, true));
    assert_eq!(stream.message().await.unwrap()["result"]["protocolVersion"], "2024-11-05");
    post(&rig, &endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await;
    post(&rig, &endpoint, &call(1, "session_create", &json!({}))).send().await;
    let made = stream.message().await.unwrap();
    let handle = &made["result"]["structuredContent"]["session_id"];
    post(&rig, &endpoint, &call(2, "run_python", &json!({"session_id": handle, "code": "for ever"}))).send().await;
    assert_eq!(stream.message().await.unwrap()["method"], "notifications/progress");
    post(&rig, &endpoint, &call(3, "run_python", &json!({"code": "say hi"}))).send().await;
    assert!(text_of(&stream.message().await.unwrap()).contains("session_id is required"));
    drop(stream);
    until("the calls of a client that is gone are cancelled", || rig.double.running.load(Ordering::Relaxed) == 0).await;
    let gone = post(&rig, &endpoint, &hello()).send().await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nobody_posts_to_a_connection_of_somebody_else() {
    let rig = Rig::new().await;
    let (ann, eve) = (rig.token("ann", Scopes::USER).await, rig.token("eve", Scopes::USER).await);
    let mut stream = rig.request("GET", "/sse").bearer(Some(&ann)).send().await;
    let endpoint = stream.endpoint().await;
    let foreign = post(&rig, &endpoint, &hello()).bearer(Some(&eve)).send().await;
    let never = post(&rig, "/messages?session_id=0", &hello()).bearer(Some(&eve)).send().await;
    assert_eq!([foreign.status, never.status], [StatusCode::NOT_FOUND; 2]);
    assert_eq!(foreign.text().await, never.text().await);
    assert_eq!(post(&rig, &endpoint, &hello()).send().await.status, StatusCode::UNAUTHORIZED);
    post(&rig, &endpoint, &hello()).bearer(Some(&ann)).send().await;
    assert_eq!(stream.message().await.unwrap()["id"], 0, "the first message that came through");
    let tools = rig.token("ann", Scope::Tools.into()).await;
    let create = post(&rig, &endpoint, &call(1, "session_create", &json!({}))).bearer(Some(&tools)).send().await;
    assert_eq!(create.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_no_message_is_refused_where_it_is_posted() {
    let rig = Rig::new().await;
    let mut stream = rig.request("GET", "/sse").send().await;
    let endpoint = stream.endpoint().await;
    let no_json = rig.request("POST", &endpoint).header("content-type", "application/json").body("{").send().await;
    assert_eq!(no_json.status, StatusCode::BAD_REQUEST);
    assert_eq!(no_json.refusal().await, "INVALID_ARGUMENT");
    let form = rig.request("POST", &endpoint).header("content-type", "text/plain").body(hello().to_string());
    assert_eq!(form.send().await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(post(&rig, "/messages", &hello()).send().await.status, StatusCode::BAD_REQUEST);
    let wrong = rig.request("DELETE", "/sse").send().await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.refusal().await, "INVALID_ARGUMENT");
    post(&rig, &endpoint, &hello()).send().await;
    assert!(stream.message().await.is_some(), "the connection lives on");
}

#[tokio::test]
async fn a_running_call_is_answered_when_the_server_stops() {
    let rig = Rig::new().await;
    let mut stream = rig.request("GET", "/sse").send().await;
    let endpoint = stream.endpoint().await;
    post(&rig, &endpoint, &hello()).send().await;
    stream.message().await.unwrap();
    post(&rig, &endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await;
    post(&rig, &endpoint, &call(1, "session_create", &json!({}))).send().await;
    let made = stream.message().await.unwrap();
    let handle = &made["result"]["structuredContent"]["session_id"];
    post(&rig, &endpoint, &call(2, "run_python", &json!({"session_id": handle, "code": "for ever"}))).send().await;
    assert_eq!(stream.message().await.unwrap()["method"], "notifications/progress");
    rig.stop.cancel();
    let answer = stream.message().await.expect("an answer");
    assert!(text_of(&answer).starts_with("TASK_CANCELLED"), "{answer}");
    assert!(stream.message().await.is_none());
    tokio::time::timeout(crate::rig::PATIENCE, rig.served).await.expect("an end in time").unwrap();
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_refused_more_and_its_end_harms_nobody() {
    let rig = Rig::new().await;
    let mut stream = rig.request("GET", "/sse").send().await;
    let endpoint = stream.endpoint().await;
    post(&rig, &endpoint, &hello()).send().await;
    stream.message().await.unwrap();
    post(&rig, &endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await;
    let mut refused = None;
    for id in 1..2_000 {
        let posted = post(&rig, &endpoint, &json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"})).send().await;
        if posted.status != StatusCode::ACCEPTED {
            refused = Some(posted);
            break;
        }
    }
    let refused = refused.expect("a bound");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let refused = refused.json().await["error"].take();
    assert_eq!((&refused["code"], &refused["details"]["retry_after_ms"]), (&json!("RATE_LIMITED"), &json!(1_000)));
    drop(stream);
    let gone = || async { post(&rig, &endpoint, &hello()).send().await.status == StatusCode::NOT_FOUND };
    while !gone().await {}
    assert_eq!(rig.request("GET", "/sse").send().await.endpoint().await.len(), endpoint.len());
}
