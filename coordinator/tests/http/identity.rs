//! Who is let in, and how the others are told.

use std::net::SocketAddr;
use std::sync::Arc;

use codegen_audit::{Audit, EventKind};
use codegen_types::{Principal, SessionId};
use coordinator::config::HttpConfig;
use coordinator::http::{HttpError, HttpServer};
use coordinator::identity::{Authenticator, NewToken, Requirement, Scope, Scopes, Tokens};
use coordinator::store::Memory;
use futures::FutureExt as _;
use hyper::StatusCode;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn without_a_valid_token_nothing_is_served_and_no_body_is_read() {
    let rig = Rig::new().await;
    let good = rig.token("ann", Scopes::USER).await;
    let bad = ["Bearer x", "Bearer ", "Basic YTpi", "Bearer cgm_forged", "bearer"];
    for value in bad {
        let reply = rig.stateless("tools/list", json!({})).header("authorization", value).send().await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{value}");
        assert!(reply.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{value}");
        assert_eq!(reply.refusal().await, "UNAUTHENTICATED");
    }
    let missing = rig.stateless("tools/list", json!({})).send().await;
    assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
    assert!(!missing.headers["www-authenticate"].to_str().unwrap().contains("error"));
    let twice = rig.stateless("tools/list", json!({})).bearer(Some(&good)).bearer(Some("x")).send().await;
    assert_eq!(twice.status, StatusCode::UNAUTHORIZED);
    // The body is announced and never sent.
    let unread = rig.request("POST", "/mcp").header("content-length", "1000000").send();
    assert_eq!(unread.await.status, StatusCode::UNAUTHORIZED);
    let in_query = rig.request("GET", &format!("/mcp?access_token={good}")).send().await;
    assert_eq!(in_query.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.stateless("tools/list", json!({})).bearer(Some(&good)).send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn no_record_and_no_call_has_a_token() {
    let rig = Rig::new().await;
    let token = rig.token("ann", Scopes::USER).await;
    let session = rig.session("2025-06-18", Some(&token)).await;
    let run = json!({"session_id": session.handle().await, "code": "say hi"});
    session.tool(1, "run_python", run.clone()).send().await.answer().await;
    rig.stateless_tool("run_python", run).bearer(Some(&token)).send().await.answer().await;
    rig.stateless_tool("echo", json!({"message": "x"})).bearer(Some(&token)).send().await.answer().await;
    rig.stateless("tools/list", json!({})).bearer(Some(&format!("{token}x"))).send().await;
    let records = rig.audit.memory_records();
    let secret = token.rsplit('_').next().unwrap();
    assert!(records.len() >= 3 && records.iter().all(|record| !record.line.contains(secret)));
    let calls = rig.double.calls.lock();
    assert!(calls.len() == 2 && !format!("{calls:?}").contains(secret), "nor has what goes to a worker");
}

#[tokio::test]
async fn credentials_that_permit_too_little_are_told_which_scope_to_ask_for() {
    let rig = Rig::new().await;
    let none = rig.token("ann", Scope::Worker.into()).await;
    let reply = rig.stateless("tools/list", json!({})).bearer(Some(&none)).send().await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let challenge = reply.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("codegen:tools"), "{challenge}");
    let tools = rig.token("ann", Scope::Tools.into()).await;
    let echo = rig.stateless_tool("echo", json!({"message": "x"})).bearer(Some(&tools)).send().await;
    assert_eq!(echo.status, StatusCode::OK);
    let create = rig.stateless_tool("session_create", json!({})).bearer(Some(&tools)).send().await;
    assert_eq!(create.status, StatusCode::FORBIDDEN);
    let challenge = create.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    assert!(
        challenge.contains("scope=\"codegen:tools codegen:sessions\""),
        "what it has and what it needs: {challenge}"
    );
    assert_eq!(create.json().await["error"]["details"]["needed_scopes"], json!(["sessions"]));
}

#[tokio::test]
async fn a_session_of_the_protocol_gives_no_request_more_than_its_own_credentials() {
    let rig = Rig::new().await;
    let (user, tools) = (rig.token("ann", Scopes::USER).await, rig.token("ann", Scope::Tools.into()).await);
    let session = rig.session("2025-06-18", Some(&user)).await;
    session.handle().await;
    let create = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "session_create", "arguments": {}}});
    let asked = rig.post(&create).header("mcp-session-id", &session.id).bearer(Some(&tools));
    assert_eq!(asked.send().await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn other_addresses_than_loopback_are_served_only_when_somebody_is_asked_who_they_are() {
    let audit = Audit::in_memory();
    let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await.unwrap();
    let bind = async |address: &str, requirement| {
        let config = HttpConfig::at(address.parse::<SocketAddr>().unwrap());
        HttpServer::bind(config, Authenticator::new(tokens.clone(), None, requirement, audit.clone())).await
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        for requirement in [Requirement::Auto, Requirement::Open] {
            let refused = bind(address, requirement).await.err().expect(address);
            assert!(matches!(refused, HttpError::Unauthenticated(_)), "{address}");
            assert!(refused.to_string().contains("token"));
        }
    }
    assert!(bind("0.0.0.0:0", Requirement::Required).await.is_ok());
    assert!(bind("127.0.0.1:0", Requirement::Open).await.is_ok());
}

#[tokio::test]
async fn open_streams_end_with_the_token_that_opened_them() {
    let rig = Rig::new().await;
    let other = rig.token("ann", Scopes::USER).await;
    let new = NewToken { principal: "ann".to_owned(), scopes: Scopes::USER, lifetime_seconds: None, note: None };
    let (revoked, text) = rig.tokens.create(new.clone(), &Principal::os_user("op")).await.unwrap();
    let text = text.expose();
    let session = rig.session("2025-11-25", Some(text)).await;
    let mut standalone = session.get().send().await;
    assert!(standalone.event().await.is_some());
    let filter = json!({"notifications": {"resourcesListChanged": true}});
    let mut listening = rig.stateless("subscriptions/listen", filter.clone()).bearer(Some(text)).send().await;
    assert!(listening.message().await.is_some());
    let mut legacy = rig.request("GET", "/sse").bearer(Some(text)).send().await;
    let endpoint = legacy.endpoint().await;
    let mut of_other = rig.stateless("subscriptions/listen", filter.clone()).bearer(Some(&other)).send().await;
    assert!(of_other.message().await.is_some());

    rig.tokens.revoke(&revoked.id, &Principal::os_user("op")).await.unwrap();
    for stream in [&mut standalone, &mut listening, &mut legacy] {
        assert!(stream.event().await.is_none());
    }
    let posted = || rig.request("POST", &endpoint).header("content-type", "application/json").body("{}");
    while posted().bearer(Some(&other)).send().await.status != StatusCode::NOT_FOUND {}

    let brief = NewToken { lifetime_seconds: Some(1), ..new };
    let (_, brief) = rig.tokens.create(brief, &Principal::os_user("op")).await.unwrap();
    let mut expiring = rig.stateless("subscriptions/listen", filter).bearer(Some(brief.expose())).send().await;
    assert_eq!(expiring.status, StatusCode::OK);
    while expiring.event().await.is_some() {}
    rig.double.changes.tell(SessionId::mint(), None);
    assert!(of_other.event().now_or_never().is_none(), "that of a good token is open still");
}

#[tokio::test]
async fn every_refusal_is_in_the_log_and_that_of_a_call_is_counted() {
    let rig = Rig::new().await;
    let (tools, admin) = (rig.token("ann", Scope::Tools.into()).await, rig.token("op", Scope::Admin.into()).await);
    let series = r#"codegen_calls_total{tool="session_close",code="PERMISSION_DENIED"}"#;
    let counted = async || {
        let text = rig.request("GET", "/metrics").bearer(Some(&admin)).send().await.text().await;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    let before = counted().await;
    for value in ["Basic YTpi", "Bearer ", "Bearer \u{e9}"] {
        rig.stateless("tools/list", json!({})).header("authorization", value).send().await;
    }
    rig.stateless("tools/list", json!({})).bearer(Some(&tools)).bearer(Some(&tools)).send().await;
    rig.stateless_tool("session_close", json!({"session_id": "x"})).bearer(Some(&tools)).send().await;
    rig.request("GET", "/metrics").bearer(Some(&tools)).send().await;
    let records = rig.audit.memory_records();
    let refused = |kind| records.iter().filter(move |record| record.kind == kind);
    let about: Vec<_> = refused(EventKind::AuthenticationRefused)
        .filter(|record| record.principal.is_none())
        .map(|record| record.detail.clone().unwrap()["about"].clone())
        .collect();
    assert_eq!(about, ["scheme", "empty", "form", "two headers"]);
    let call: Vec<_> = refused(EventKind::CallRefused).collect();
    assert_eq!((call.len(), call[0].tool.as_deref()), (1, Some("session_close")));
    assert_eq!(call[0].principal, Some("ann".parse().unwrap()));
    let operators = refused(EventKind::AuthenticationRefused).filter(|record| record.principal.is_some());
    assert_eq!(operators.count(), 1, "that of the metrics");
    assert!((counted().await - before - 1.0).abs() < 0.5);
}
