//! How often each user may call.

use codegen_types::SessionId;
use coordinator::admission::{Admission, Rates};
use coordinator::identity::Scopes;
use serde_json::{Value, json};

use crate::rig::Rig;

async fn rig(http: &str, tools: &[(&'static str, &str)]) -> Rig {
    let rate = |text: &str| text.parse().expect("a rate");
    let tools = tools.iter().map(|(tool, text)| (*tool, rate(text))).collect();
    Rig::with_admission(|_| {}, Admission::new(Rates { http: Some(rate(http)), stdio: None, tools })).await
}

async fn call(rig: &Rig, token: &str, tool: &str, arguments: Value) -> Value {
    rig.stateless_tool(tool, arguments).bearer(Some(token)).send().await.answer().await
}

fn code(answer: &Value) -> &str {
    answer["result"]["_meta"]["codegen/error"]["code"].as_str().unwrap_or("OK")
}

fn refusals(rig: &Rig) -> Vec<Value> {
    let lines = rig.audit.memory_records().into_iter().map(|record| serde_json::from_str(&record.line));
    let records = lines.map(|record: Result<Value, _>| record.expect("a record"));
    records.filter(|record| record["code"] == "RATE_LIMITED").collect()
}

#[tokio::test]
async fn one_user_who_calls_too_often_is_refused_and_no_other() {
    let rig = rig("1/h burst 3", &[]).await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let more = rig.token("ann", Scopes::USER).await;
    let echo = json!({"message": "x"});
    for token in [&ann, &more, &ann] {
        assert_eq!(code(&call(&rig, token, "echo", echo.clone()).await), "OK");
    }
    for token in [&ann, &more] {
        let refused = call(&rig, token, "echo", echo.clone()).await;
        assert_eq!(code(&refused), "RATE_LIMITED");
        let wait = refused["result"]["_meta"]["codegen/error"]["retry_after_ms"].as_u64();
        assert!(wait.is_some_and(|wait| (3_500_000..=3_600_000).contains(&wait)), "{refused}");
        let text = refused["result"]["content"][0]["text"].as_str().expect("text");
        assert!(text.contains("1/h burst 3") && text.contains("the next one in 3") && !text.contains("bob"), "{text}");
    }
    assert_eq!(code(&call(&rig, &bob, "echo", echo).await), "OK");
    let recorded = refusals(&rig);
    assert!(recorded.len() == 2 && recorded.iter().all(|record| record["type"] == "call.refused"), "{recorded:?}");
}

#[tokio::test]
async fn a_flood_of_calls_is_no_flood_of_records() {
    let rig = rig("1/h burst 1", &[]).await;
    let ann = rig.token("ann", Scopes::USER).await;
    for _ in 0..60 {
        call(&rig, &ann, "echo", json!({"message": "x"})).await;
    }
    let recorded = refusals(&rig);
    assert!((10..=40).contains(&recorded.len()), "{}", recorded.len());
}

#[tokio::test]
async fn no_way_in_goes_round_the_rate() {
    let rig = rig("1/h burst 1", &[]).await;
    let ann = rig.token("ann", Scopes::USER).await;
    assert_eq!(code(&call(&rig, &ann, "echo", json!({"message": "x"})).await), "OK");
    assert_eq!(code(&call(&rig, &ann, "no_such_tool", json!({})).await), "RATE_LIMITED");
    assert_eq!(code(&call(&rig, &ann, "fs.read", json!({"path": "a"})).await), "RATE_LIMITED");
    for session in [SessionId::mint().to_string(), "nobody".to_owned()] {
        let uri = json!({"uri": format!("workspace://{session}/a")});
        let read = rig.stateless("resources/read", uri).bearer(Some(&ann)).send().await.answer().await;
        assert_eq!(read["error"]["data"]["code"], "RATE_LIMITED", "{read}");
        assert!(read["error"]["data"]["retry_after_ms"].as_u64().is_some(), "{read}");
    }
}

#[tokio::test]
async fn a_tools_rate_holds_under_both_its_names_and_for_it_alone() {
    let rig = rig("1000/s", &[("echo", "1/h burst 2")]).await;
    let ann = rig.token("ann", Scopes::USER).await;
    let info = call(&rig, &ann, "session_create", json!({})).await;
    let session = info["result"]["structuredContent"]["session_id"].clone();
    for _ in 0..2 {
        assert_eq!(code(&call(&rig, &ann, "echo", json!({"message": "x"})).await), "OK");
    }
    assert_eq!(code(&call(&rig, &ann, "echo", json!({"message": "x"})).await), "RATE_LIMITED");
    let told = call(&rig, &ann, "session_info", json!({"session_id": session})).await;
    let yours = &told["result"]["structuredContent"]["yours"];
    assert_eq!(yours["rate"], "1000/s burst 1000", "{told}");
    assert_eq!(yours["quotas"][0], json!({"quota": "sessions", "used": 1, "limit": 256, "remaining": 255}));
}
