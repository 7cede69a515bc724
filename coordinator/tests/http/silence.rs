//! Streams that have nothing to say.

use std::time::Duration;

use serde_json::json;

use crate::rig::{Reply, Rig};

/// Reads until there is a comment, which no client takes for an event.
async fn hears_a_comment(stream: &mut Reply) {
    let mut said = String::new();
    while !said.lines().any(|line| line.starts_with(':')) {
        let piece = stream.piece().await.expect("a stream that lives").expect("a stream that lives");
        said.push_str(std::str::from_utf8(&piece).expect("text"));
    }
}

#[tokio::test]
async fn every_kind_of_stream_says_now_and_then_that_it_lives() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = Rig::with_log_and(dir.path(), |config| config.patience.keep_alive = Duration::from_millis(100)).await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let waiting = json!({"session_id": handle, "code": "wait"});
    let filter = json!({"notifications": {"resourcesListChanged": true}});
    for asked in [
        session.get(),
        session.tool(1, "run_python", waiting.clone()),
        rig.stateless("subscriptions/listen", filter),
        rig.request("GET", "/sse"),
        rig.request("GET", "/api/v1/events"),
    ] {
        let mut stream = asked.send().await;
        assert!(stream.status.is_success() && stream.headers["content-type"] == "text/event-stream");
        for _again in 0..2 {
            hears_a_comment(&mut stream).await;
        }
    }
}
