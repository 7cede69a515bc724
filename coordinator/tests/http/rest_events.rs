//! REST's streams: whom they tell what, how many there are, and when they end.

use codegen_audit::{Entry, EventKind};
use codegen_types::{Principal, SessionId};
use coordinator::identity::Scopes;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Reply, Rig};

const BASE: &str = "/api/v1";

async fn follow(rig: &Rig, token: &str, last_seen: Option<&str>) -> Reply {
    let asked = rig.request("GET", &format!("{BASE}/events")).bearer(Some(token));
    let asked = last_seen.into_iter().fold(asked, |asked, id| asked.header("last-event-id", id));
    asked.send().await
}

async fn session(rig: &Rig, token: &str) -> SessionId {
    let made = rig.request("POST", &format!("{BASE}/sessions")).header("content-type", "application/json").body("{}");
    let made = made.bearer(Some(token)).send().await.json().await;
    made["session_id"].as_str().expect("a handle").parse().expect("a handle")
}

/// The session layer is a double, so that its records are written here.
async fn record(rig: &Rig, session: SessionId) -> String {
    let entry = Entry { kind: EventKind::SessionUpdated, session: Some(session), ..Entry::default() };
    rig.audit.append(entry).await.expect("a log").0.to_string()
}

async fn next(stream: &mut Reply) -> (Option<String>, Value) {
    let event = stream.event().await.expect("an event");
    (event.id, serde_json::from_str(&event.data).expect("JSON"))
}

#[tokio::test]
async fn a_stranger_hears_nothing_of_what_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let (of_ann, of_bob) = (session(&rig, &ann).await, session(&rig, &bob).await);
    let mut stream = follow(&rig, &bob, None).await;
    assert_eq!(stream.status, StatusCode::OK);
    rig.double.changes.tell_transcript(of_ann);
    rig.double.changes.tell_transcript(of_bob);
    rig.double.changes.tell(of_ann, None);
    rig.double.changes.tell(of_bob, None);
    assert_eq!(next(&mut stream).await, (None, json!({"session_id": of_bob, "files": null})), "it is the first");
    record(&rig, of_ann).await;
    let own = record(&rig, of_bob).await;
    let (id, told) = next(&mut stream).await;
    assert_eq!((id, &told["what"], &told["session_id"]), (Some(own), &json!("updated"), &json!(of_bob)));
}

#[tokio::test]
async fn who_waits_for_approval_is_told_of_it_and_not_whose_session_the_call_names() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let of_ann = session(&rig, &ann).await;
    let (mut to_ann, mut to_bob) = (follow(&rig, &ann, None).await, follow(&rig, &bob, None).await);
    let asked = Entry {
        kind: EventKind::ApprovalRequested,
        principal: Some(Principal::from_stored("bob".to_owned())),
        session: Some(of_ann),
        detail: Some(json!({"approval": "apr_1"})),
        ..Entry::default()
    };
    let decided = Entry {
        kind: EventKind::ApprovalDecided,
        principal: Some(Principal::from_stored("ann".to_owned())),
        detail: Some(json!({"approval": "apr_1", "caller": "bob"})),
        ..Entry::default()
    };
    for entry in [asked, decided] {
        rig.audit.append(entry).await.expect("a log");
    }
    let own = record(&rig, of_ann).await;
    for what in ["requested", "decided"] {
        let (_, told) = next(&mut to_bob).await;
        assert_eq!((&told["what"], &told["approval"]), (&json!(what), &json!("apr_1")));
    }
    assert_eq!(next(&mut to_ann).await.0, Some(own), "it is the first");
}

#[tokio::test]
async fn whoever_comes_back_is_told_what_was_missed_once_and_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let ann = rig.token("ann", Scopes::USER).await;
    let session = session(&rig, &ann).await;
    let mut ids = Vec::new();
    for _ in 0..600 {
        ids.push(record(&rig, session).await);
    }
    let mut stream = follow(&rig, &ann, Some(&ids[9])).await;
    let mut also = follow(&rig, &ann, None).await;
    for _ in 0..3 {
        ids.push(record(&rig, session).await);
    }
    for id in &ids[10..] {
        assert_eq!(next(&mut stream).await.0.as_ref(), Some(id));
    }
    for id in &ids[600..] {
        assert_eq!(next(&mut also).await.0.as_ref(), Some(id));
    }
    for unknown in ["x", "99999999", "4000"] {
        let mut stream = follow(&rig, &ann, Some(unknown)).await;
        assert_eq!(next(&mut stream).await, (None, json!({})), "{unknown} is no event of this log");
    }
}

#[tokio::test]
async fn one_user_has_so_many_streams_others_have_theirs_and_a_place_comes_free_when_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(follow(&rig, &ann, None).await);
        assert_eq!(open.last().unwrap().status, StatusCode::OK);
    }
    let refused = follow(&rig, &ann, None).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"10".parse().unwrap())
    );
    let refused = refused.json().await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["details"]["retry_after_ms"]),
        (&json!("RATE_LIMITED"), &json!(10_000))
    );
    let (why, tells) = (refused["error"]["message"].as_str().expect("text"), "you have 32 streams");
    assert!(why.contains(tells), "{why}");
    assert_eq!(follow(&rig, &bob, None).await.status, StatusCode::OK);
    drop(open.pop());
    let free = async { while follow(&rig, &ann, None).await.status != StatusCode::OK {} };
    tokio::time::timeout(PATIENCE, free).await.expect("its place comes free");
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let ann = rig.token("ann", Scopes::USER).await;
    let session = session(&rig, &ann).await;
    let task = rig.request("POST", &format!("{BASE}/sessions/{session}/tasks")).bearer(Some(&ann));
    let task = task.header("content-type", "application/json");
    let task = task.body(json!({"kind": "python", "code": "for ever"}).to_string()).send().await.json().await;
    let logs = format!("{BASE}/tasks/{}/logs", task["task_id"].as_str().expect("a task"));
    let mut logs = rig.request("GET", &logs).bearer(Some(&ann)).send().await;
    let mut events = follow(&rig, &ann, None).await;
    assert_eq!((logs.status, events.status), (StatusCode::OK, StatusCode::OK));
    let id = rig.tokens.list()[0].id.clone();
    rig.tokens.revoke(&id, &Principal::os_user("op")).await.unwrap();
    assert!(events.event().await.is_none());
    while logs.event().await.is_some() {}
}

#[tokio::test]
async fn a_stream_whose_log_cannot_be_read_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with_log(dir.path()).await;
    let ann = rig.token("ann", Scopes::USER).await;
    let mut stream = follow(&rig, &ann, None).await;
    assert_eq!(stream.status, StatusCode::OK);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(next(&mut stream).await, (None, json!({})));
    assert!(stream.event().await.is_none());
}
