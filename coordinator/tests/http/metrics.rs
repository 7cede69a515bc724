//! Metrics: what they say, and to whom.

use coordinator::identity::{Scope, Scopes};
use hyper::StatusCode;
use serde_json::json;

use crate::rig::Rig;

/// The value of a series, zero when there is none.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn calls_are_counted_by_tool_and_code_and_a_name_from_outside_is_no_label() {
    let rig = Rig::new().await;
    let read = async || rig.request("GET", "/metrics").send().await.text().await;
    let before = read().await;
    rig.stateless_tool("echo", json!({"message": "x"})).send().await.answer().await;
    rig.stateless_tool("echo", json!({})).send().await.answer().await;
    rig.stateless_tool("made_up_by_a_client", json!({})).send().await.answer().await;
    let after = read().await;
    let grown = |series: &str| value(&after, series) - value(&before, series);
    assert_eq!(grown(r#"codegen_calls_total{tool="echo",code="OK"}"#), 1.0, "{after}");
    assert_eq!(grown(r#"codegen_calls_total{tool="echo",code="INVALID_ARGUMENT"}"#), 1.0, "{after}");
    assert_eq!(grown(r#"codegen_calls_total{tool="unknown",code="INVALID_ARGUMENT"}"#), 1.0, "{after}");
    assert_eq!(grown(r#"codegen_call_duration_seconds_count{tool="echo"}"#), 2.0, "{after}");
    assert!(!after.contains("made_up_by_a_client"), "{after}");
}

#[tokio::test]
async fn what_is_so_at_the_moment_is_shown_as_it_is() {
    let rig = Rig::new().await;
    let reply = rig.request("GET", "/metrics").send().await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = reply.text().await;
    for (series, expected) in [
        (r#"codegen_sessions{state="ready"}"#, "2"),
        (r#"codegen_sessions{state="lost"}"#, "0"),
        ("codegen_tasks_running", "1"),
        ("codegen_log_writable", "1"),
        (r#"codegen_worker_links{state="up"}"#, "0"),
        (r#"codegen_worker_slots{state="free"}"#, "0"),
    ] {
        assert!(text.lines().any(|line| line == format!("{series} {expected}")), "{series}: {text}");
    }
}

#[tokio::test]
async fn once_there_are_tokens_only_operators_see_metrics() {
    let rig = Rig::new().await;
    let (user, operator) = (rig.token("ann", Scopes::USER).await, rig.token("op", Scope::Admin.into()).await);
    let read = async |token: Option<&str>| rig.request("GET", "/metrics").bearer(token).send().await;
    assert_eq!(read(None).await.status, StatusCode::UNAUTHORIZED);
    let refused = read(Some(&user)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let challenge = refused.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("codegen:admin"), "{challenge}");
    assert_eq!(read(Some(&operator)).await.status, StatusCode::OK);
    // A page that a browser shows cannot read them either.
    let rebound = rig.request("GET", "/metrics").host("evil.example").bearer(Some(&operator)).send().await;
    assert_eq!(rebound.status, StatusCode::FORBIDDEN);
}
