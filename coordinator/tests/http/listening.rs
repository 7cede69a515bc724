//! Streams of `subscriptions/listen`: so many of one user, whatever connections they are on.

use std::time::Duration;

use codegen_types::SessionId;
use coordinator::identity::Scopes;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Reply, Rig};

/// A stream, once it is acknowledged.
async fn listen(rig: &Rig, token: &str) -> Reply {
    let filter = json!({"notifications": {"resourcesListChanged": true}});
    let mut stream = rig.stateless("subscriptions/listen", filter).bearer(Some(token)).send().await;
    let acknowledged = stream.message().await.expect("a message");
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    stream
}

/// Why a stream is refused; nothing when it tells of a change in the user's session.
async fn refusal(rig: &Rig, stream: &mut Reply, session: SessionId) -> Option<Value> {
    loop {
        rig.double.changes.tell(session, None);
        // Whether the stream follows the news already, nobody says.
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(100), stream.message()).await {
            return told.expect("a message").get("error").cloned();
        }
    }
}

async fn session(rig: &Rig, token: &str) -> SessionId {
    let made = rig.stateless_tool("session_create", json!({})).bearer(Some(token)).send().await.answer().await;
    made["result"]["structuredContent"]["session_id"].as_str().and_then(|id| id.parse().ok()).expect("a handle")
}

#[tokio::test]
async fn one_user_has_so_many_streams_and_a_place_comes_free_when_one_ends() {
    let rig = Rig::new().await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let (of_ann, of_bob) = (session(&rig, &ann).await, session(&rig, &bob).await);
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(listen(&rig, &ann).await);
    }
    assert_eq!(refusal(&rig, open.last_mut().expect("streams"), of_ann).await, None);
    let refused = refusal(&rig, &mut listen(&rig, &ann).await, of_ann).await.expect("a refusal");
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("16 streams")), "{refused}");
    let data = &refused["data"];
    assert_eq!((&data["code"], &data["retry_after_ms"]), (&json!("RATE_LIMITED"), &json!(10_000)), "{refused}");
    assert_eq!(refusal(&rig, &mut listen(&rig, &bob).await, of_bob).await, None, "others have their own");
    drop(open.pop());
    let free = async { while refusal(&rig, &mut listen(&rig, &ann).await, of_ann).await.is_some() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("its place comes free");
}
