//! REST: the same sessions, limits and records by other means.

use codegen_audit::EventKind;
use coordinator::identity::{Scope, Scopes};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Asked, Rig};

const BASE: &str = "/api/v1";

/// A request with a body in JSON.
fn asks(rig: &Rig, method: &str, path: &str, body: &Value) -> Asked {
    let asked = rig.request(method, &format!("{BASE}{path}"));
    asked.header("content-type", "application/json").body(body.to_string())
}

fn looks(rig: &Rig, path: &str) -> Asked {
    rig.request("GET", &format!("{BASE}{path}"))
}

/// Makes a session; its handle.
async fn session(rig: &Rig, token: Option<&str>) -> String {
    let made = asks(rig, "POST", "/sessions", &json!({})).bearer(token).send().await;
    assert_eq!(made.status, StatusCode::CREATED);
    let location = made.headers["location"].to_str().expect("text").to_owned();
    let handle = made.json().await["session_id"].as_str().expect("a handle").to_owned();
    assert_eq!(location, format!("{BASE}/sessions/{handle}"));
    handle
}

#[tokio::test]
async fn a_session_is_made_described_changed_and_closed() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let change = json!({"name": "a", "metadata": {"k": 1}});
    let changed = asks(&rig, "PATCH", &format!("/sessions/{id}"), &change).send().await;
    assert_eq!(changed.json().await["name"], "a");
    let seen = looks(&rig, &format!("/sessions/{id}")).send().await.json().await;
    assert_eq!((&seen["metadata"], &seen["state"]), (&json!({"k": 1}), &json!("ready")));
    let closed = rig.request("DELETE", &format!("{BASE}/sessions/{id}")).send().await;
    assert_eq!(closed.json().await["state"], "closed");
    let kinds: Vec<_> = rig.audit.memory_records().iter().map(|r| (r.kind, r.tool.clone().unwrap())).collect();
    let served = |tool: &str| (EventKind::CallServed, tool.to_owned());
    assert_eq!(kinds, ["session_create", "session_update", "session_info", "session_close"].map(served));
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let rig = Rig::new().await;
    for _ in 0..5 {
        session(&rig, None).await;
    }
    let (mut path, mut seen) = ("/sessions?limit=2".to_owned(), Vec::new());
    for left in [3, 1, 0] {
        let page = looks(&rig, &path).send().await;
        let link = page.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        let page = page.json().await;
        seen.extend(page["sessions"].as_array().unwrap().iter().map(|s| s["session_id"].to_string()));
        assert_eq!((5 - seen.len(), link.is_some(), page.get("next_cursor").is_some()), (left, left > 0, left > 0));
        if let Some(link) = link {
            path = link.strip_prefix(&format!("<{BASE}")).unwrap().split_once('>').unwrap().0.to_owned();
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn a_foreign_session_is_like_one_that_never_was() {
    let rig = Rig::new().await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let id = session(&rig, Some(&ann)).await;
    let unknown = codegen_types::SessionId::mint().to_string();
    for (method, body) in [("GET", None), ("PATCH", Some(json!({"name": "x"}))), ("DELETE", None)] {
        let mut answers = Vec::new();
        for handle in [&id, &unknown] {
            let path = format!("/sessions/{handle}");
            let asked = match &body {
                Some(body) => asks(&rig, method, &path, body),
                None => rig.request(method, &format!("{BASE}{path}")),
            };
            let answer = asked.bearer(Some(&bob)).send().await;
            answers.push((answer.status, answer.text().await));
        }
        assert_eq!(answers[0].0, StatusCode::NOT_FOUND, "{method}");
        assert_eq!(answers[0], answers[1], "{method}");
        assert!(answers[0].1.contains("SESSION_NOT_FOUND"), "{answers:?}");
    }
}

#[tokio::test]
async fn a_missing_scope_is_named_and_the_refusal_recorded() {
    let rig = Rig::new().await;
    let tools = rig.token("ann", Scope::Tools.into()).await;
    let refused = asks(&rig, "POST", "/sessions", &json!({})).bearer(Some(&tools)).send().await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let challenge = refused.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("codegen:sessions"), "{challenge}");
    let body = refused.json().await;
    assert_eq!(body["error"]["code"], "PERMISSION_DENIED");
    assert_eq!(body["error"]["details"]["needed_scopes"], json!(["sessions"]));
    let records = rig.audit.memory_records();
    assert!(records.iter().any(|r| r.kind == EventKind::CallRefused && r.tool.as_deref() == Some("session_create")));
    let nobody = looks(&rig, "/sessions").send().await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    assert_eq!(nobody.refusal().await, "UNAUTHENTICATED");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_said_in_the_one_shape() {
    let rig = Rig::new().await;
    let json_type = |asked: Asked| asked.header("content-type", "application/json");
    let post = || rig.request("POST", "/api/v1/sessions");
    for (asked, status) in [
        (post().body("{}"), 415),
        (post().header("content-type", "text/plain").body("{}"), 415),
        (json_type(post()).body("{"), 400),
        (json_type(post()).body(""), 400),
        (json_type(post()).body("[]"), 400),
        (json_type(post()).body("{} x"), 400),
        (json_type(post()).body(r#"{"colour": 1}"#), 400),
        (json_type(post()).body(r#"{"ttl_seconds": 0}"#), 400),
        (looks(&rig, "/sessions?limit=0"), 400),
        (looks(&rig, "/sessions?limit=x"), 400),
        (looks(&rig, "/sessions?colour=red"), 400),
        (looks(&rig, "/sessions?cursor=%00"), 400),
        (looks(&rig, "/sessions/%ff"), 400),
        (looks(&rig, "/nothing"), 404),
        (rig.request("PUT", "/api/v1/sessions"), 405),
    ] {
        let answer = asked.send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()),
            (status, "application/json")
        );
        assert!(!answer.refusal().await.is_empty());
    }
    let named = json_type(post()).body(r#"{"ttl_seconds": "x"}"#).send().await.json().await;
    assert!(named["error"]["message"].as_str().unwrap().starts_with("`ttl_seconds`: "), "{named}");
}

#[tokio::test]
async fn the_description_is_there_for_anybody_and_names_every_operation() {
    let rig = Rig::new().await;
    rig.token("ann", Scopes::USER).await;
    let described = rig.request("GET", "/api/openapi.json").send().await;
    assert_eq!(described.status, StatusCode::OK);
    let described = described.json().await;
    assert_eq!(described["openapi"], "3.1.0");
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"].as_object().unwrap().len() > 10, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_task_is_begun_waited_for_and_cancelled() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let run = |code: &str, wait: &str| {
        let body = json!({"kind": "python", "code": code});
        asks(&rig, "POST", &format!("/sessions/{id}/tasks{wait}"), &body)
    };
    let ended = run("say hello", "?wait=30").send().await;
    assert_eq!(ended.status, StatusCode::OK);
    let ended = ended.json().await;
    assert_eq!((&ended["state"], &ended["exit_code"]), (&json!("finished"), &json!(0)));
    assert_eq!(ended["result"]["stdout"], json!({"text": "hello", "omitted_bytes": 0}));
    let begun = run("for ever", "").send().await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let location = begun.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(begun.json().await["state"], "running");
    let running = looks(&rig, "/tasks?state=running").send().await.json().await;
    assert_eq!(running["tasks"].as_array().unwrap().len(), 1, "{running}");
    let cancelled = rig.request("POST", &format!("{location}/cancel")).send().await;
    assert_eq!(cancelled.status, StatusCode::OK);
    let seen = rig.request("GET", &format!("{location}?wait=5")).send().await.json().await;
    assert_eq!((&seen["state"], &seen["code"]), (&json!("failed"), &json!("TASK_CANCELLED")), "{seen}");
    let failed = run("fail now", "?wait=30").send().await;
    assert_eq!((failed.status, failed.json().await["exit_code"].clone()), (StatusCode::OK, json!(1)));
    let both = json!({"kind": "shell", "command": "ls", "code": "x"});
    let refused = asks(&rig, "POST", &format!("/sessions/{id}/tasks"), &both).send().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_repeated_request_with_a_key_is_carried_out_once_and_another_one_is_refused() {
    let rig = Rig::new().await;
    let with_key = |key: &str, body: Value| asks(&rig, "POST", "/sessions", &body).header("idempotency-key", key);
    let first = with_key("\"k1\"", json!({})).send().await.json().await;
    let again = with_key("k1", json!({})).send().await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_eq!(again.json().await["session_id"], first["session_id"]);
    let other = with_key("k1", json!({"name": "x"})).send().await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.refusal().await, "INVALID_ARGUMENT");
    assert_eq!(with_key("a b", json!({})).send().await.status, StatusCode::BAD_REQUEST);
    let id = first["session_id"].as_str().unwrap();
    let path = format!("/sessions/{id}/tasks?wait=30");
    let body = json!({"kind": "python", "code": "wait"});
    let waiting = asks(&rig, "POST", &path, &body).header("idempotency-key", "k2");
    let waiting = tokio::spawn(waiting.send());
    crate::rig::until("it runs", || rig.double.running.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let meanwhile = asks(&rig, "POST", &path, &body).header("idempotency-key", "k2").send().await;
    assert_eq!(meanwhile.status, StatusCode::CONFLICT);
    rig.double.go.notify_waiters();
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_file_is_written_read_in_parts_and_under_conditions() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let at = format!("{BASE}/sessions/{id}/files/a%20b/c.txt");
    let written = rig.request("PUT", &at).body("hello").send().await;
    assert_eq!((written.status, &written.headers["etag"]), (StatusCode::CREATED, &"\"v1\"".parse().unwrap()));
    let call = rig.double.calls.lock().last().unwrap().clone();
    assert_eq!(call.path.as_deref(), Some("a b/c.txt"));
    let get = || rig.request("GET", &at);
    let whole = get().send().await;
    assert_eq!(whole.headers["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!((whole.headers["x-content-type-options"].to_str().unwrap(), whole.status), ("nosniff", StatusCode::OK));
    let whole_cache = whole.headers["cache-control"].clone();
    assert_eq!(whole.text().await, "hello");
    let part = get().header("range", "bytes=0-4").send().await;
    assert_eq!(
        (part.status, &part.headers["content-range"]),
        (StatusCode::PARTIAL_CONTENT, &"bytes 0-4/5".parse().unwrap())
    );
    for (name, value, status) in [
        ("range", "bytes=9-", 416),
        ("range", "bytes=0-1,2-3", 200),
        ("if-none-match", "\"v1\"", 304),
        ("if-none-match", "\"v2\"", 200),
        ("if-match", "\"v2\"", 412),
        ("if-match", "W/\"v1\"", 412),
        ("if-none-match", "W/\"v1\"", 304),
    ] {
        assert_eq!(get().header(name, value).send().await.status.as_u16(), status, "{name}: {value}");
    }
    for (name, value) in [("if-match", "v1"), ("if-none-match", "\"v1\""), ("content-range", "bytes 0-0/1")] {
        let refused = rig.request("PUT", &at).header(name, value).body("x").send().await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{name}: {value}");
    }
    for (tag, status) in [("\"v1\"", 206), ("W/\"v1\"", 200), ("\"v2\"", 200)] {
        let part = get().header("range", "bytes=0-4").header("if-range", tag).send().await;
        assert_eq!(part.status.as_u16(), status, "{tag}");
    }
    let same = get().header("if-none-match", "\"v1\"").send().await;
    assert_eq!(same.headers["cache-control"], whole_cache);
    let over = rig.request("PUT", &at).header("if-match", "*").body("x").send().await;
    assert!(over.status.is_success(), "it is there");
    let deleted = rig.request("DELETE", &at).send().await;
    assert_eq!(deleted.json().await, json!({"removed": 1}));
    let moved = asks(&rig, "POST", &format!("/sessions/{id}/move"), &json!({"from": "a", "to": "b"})).send().await;
    assert_eq!(moved.status, StatusCode::OK);
}

#[tokio::test]
async fn no_spelling_of_a_path_leaves_the_workspace() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let long = "x".repeat(300);
    for path in ["%2e%2e/x", "a/%2e%2e/%2e%2e/x", "..%2f..%2fx", "%2fetc%2fpasswd", "/etc/passwd", "a%00b", &long] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = rig.request(method, &format!("{BASE}/sessions/{id}/files/{path}")).send().await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
            assert_eq!(answer.refusal().await, "PATH_VIOLATION", "{method} {path}");
        }
    }
    let no_text = rig.request("GET", &format!("{BASE}/sessions/{id}/files/%ff")).send().await;
    assert_eq!(no_text.status, StatusCode::BAD_REQUEST);
    assert!(rig.double.calls.lock().is_empty(), "nothing reached the session layer");
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_refused_before_it_is_sent_and_a_slow_one_in_time() {
    let rig = Rig::with(|config| config.patience.body = std::time::Duration::from_millis(200)).await;
    let id = session(&rig, None).await;
    let at = format!("{BASE}/sessions/{id}/files/a");
    // The body is announced and never sent.
    let large = rig.request("PUT", &at).header("content-length", &(65_u64 << 20).to_string()).send().await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let slow = rig.request("PUT", &at).header("content-length", "10").send().await;
    assert_eq!(slow.status, StatusCode::REQUEST_TIMEOUT);
}
