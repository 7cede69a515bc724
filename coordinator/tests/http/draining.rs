//! The end of the server.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::rig::{PATIENCE, Rig, text_of};

#[tokio::test]
async fn running_calls_are_answered_and_streams_end_before_the_server_does() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let mut listening = session.get().send().await;
    listening.event().await.expect("the stream is open");
    let filter = json!({"notifications": {"resourcesListChanged": true}});
    let mut told = rig.stateless("subscriptions/listen", filter).send().await;
    told.message().await.expect("the stream is open");
    let arguments = json!({"session_id": handle, "code": "for ever"});
    let mut old = session.tool(1, "run_python", arguments.clone()).send().await;
    while old.message().await.unwrap()["method"] != "notifications/progress" {}
    let mut new = rig.stateless_tool("run_python", arguments).send().await;
    while new.message().await.unwrap()["method"] != "notifications/progress" {}
    let begun = tokio::time::Instant::now();
    rig.stop.cancel();
    for reply in [old, new] {
        let answer = reply.answer().await;
        assert!(text_of(&answer).starts_with("TASK_CANCELLED"), "{answer}");
    }
    assert!(listening.message().await.is_none());
    while told.message().await.is_some() {}
    let (address, served) = (rig.address, rig.served);
    tokio::time::timeout(PATIENCE, served).await.expect("an end in time").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(address).await.is_err());
}
