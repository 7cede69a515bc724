//! Resources, their subscriptions in both eras, completion and prompts: what the protocol is answered. The files
//! themselves are in the end-to-end suite.

use std::time::Duration;

use codegen_types::event::{ChangeKind, FileChange};
use codegen_types::{SessionId, WorkspacePath};
use coordinator::mcp::Options;
use serde_json::{Value, json};

use crate::client::{Client, Server, modern_meta};

fn change(path: &str, change: ChangeKind) -> Option<Vec<FileChange>> {
    Some(vec![FileChange { path: WorkspacePath::parse(path).expect("a path"), change, size: 1 }])
}

async fn session_of(client: &mut Client) -> SessionId {
    let made = client.tool("session_create", json!({})).await;
    made["structuredContent"]["session_id"].as_str().and_then(|id| id.parse().ok()).expect("a handle")
}

async fn read(client: &mut Client, uri: &str) -> Value {
    client.request("resources/read", json!({"uri": uri})).await
}

fn is_update_of(message: &Value, uri: &str) -> bool {
    message["method"] == "notifications/resources/updated" && message["params"]["uri"] == uri
}

fn is_list_change(message: &Value) -> bool {
    message["method"] == "notifications/resources/list_changed"
}

/// Asks something and takes the answer, so that whatever was sent before it has been seen.
async fn settle(client: &mut Client) {
    client.request("ping", json!({})).await;
}

#[tokio::test]
async fn a_file_is_read_under_the_name_of_the_method() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    let uri = format!("workspace://{session}/data/a%20b.csv");
    let answer = read(&mut client, &uri).await;
    let expected = json!([{"uri": uri, "mimeType": "text/csv", "text": "hello"}]);
    assert_eq!(answer["result"]["contents"], expected, "{answer}");
    let calls = server.double.calls.lock();
    let call = calls.last().expect("a task");
    assert_eq!((call.tool, call.path.as_deref(), call.read_only), ("resources/read", Some("data/a b.csv"), true));
    assert_eq!(call.args["uri"], uri);
}

#[tokio::test]
async fn a_foreign_session_is_answered_as_one_that_never_was() {
    let server = Server::new();
    let mut ann = server.client().await;
    let session = session_of(&mut ann).await;
    let mut bob = server.connect_as("bob");
    bob.initialize("2025-11-25").await;
    for method in ["resources/read", "resources/subscribe"] {
        let mut ask = async |session: SessionId| {
            bob.request(method, json!({"uri": format!("workspace://{session}/a")})).await["error"].clone()
        };
        let (foreign, unknown) = (ask(session).await, ask(SessionId::mint()).await);
        assert_eq!(foreign, unknown);
        assert_eq!((&foreign["code"], &foreign["data"]["code"]), (&json!(-32002), &json!("SESSION_NOT_FOUND")));
    }
    server.double.changes.tell(session, change("a", ChangeKind::Created));
    settle(&mut bob).await;
    assert!(bob.seen.is_empty(), "{:?}", bob.seen);
    let completed = json!({
        "ref": {"type": "ref/resource", "uri": "workspace://{session}/{+path}"},
        "argument": {"name": "path", "value": ""}, "context": {"arguments": {"session": session}},
    });
    let values = bob.request("completion/complete", completed).await;
    assert_eq!(values["result"]["completion"]["values"], json!([]), "{values}");
}

#[tokio::test]
async fn a_hostile_address_is_refused_and_nothing_is_run() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    let long = "a/".repeat(50_000);
    for path in
        ["../..", "a/../../b", "%2e%2e/x", "a%2Fb", "..%2f..%2fetc%2fpasswd", "a%00b", "%", "a?x=1", "a#b", &long]
    {
        for method in ["resources/read", "resources/subscribe"] {
            let answer = client.request(method, json!({"uri": format!("workspace://{session}/{path}")})).await;
            assert_eq!(answer["error"]["code"], -32602, "{method} {path}: {answer}");
            assert!(answer.to_string().len() < 1_000, "it repeats all of it");
        }
    }
    for uri in ["", "file:///etc/passwd", "workspace://", "workspace:///etc/passwd", "workspace://ses_x/a"] {
        assert!(read(&mut client, uri).await["error"]["code"].is_i64(), "{uri}");
    }
    for params in [json!({}), json!({"uri": 7}), json!({"uri": null})] {
        let answer = client.request("resources/read", params).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    assert!(server.double.calls.lock().is_empty());
}

#[tokio::test]
async fn without_a_log_nothing_is_read() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    server.double.log_is_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = read(&mut client, &format!("workspace://{session}/a")).await;
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["code"]),
        (&json!(-32603), &json!("AUDIT_UNAVAILABLE"))
    );
}

#[tokio::test]
async fn the_template_keeps_slashes_and_cursors_are_checked() {
    let mut client = Server::new().client().await;
    let listed = client.request("resources/templates/list", json!({})).await;
    assert_eq!(listed["result"]["resourceTemplates"][0]["uriTemplate"], "workspace://{session}/{+path}");
    for method in ["resources/list", "resources/templates/list", "prompts/list"] {
        assert_eq!(client.request(method, json!({"cursor": "2"})).await["error"]["code"], -32602, "{method}");
    }
    assert_eq!(client.request("resources/list", json!({})).await["result"]["resources"], json!([]), "no session yet");
}

#[tokio::test]
async fn what_is_subscribed_to_is_told_until_it_is_not() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    let uri = format!("workspace://{session}/log.txt");
    assert_eq!(client.request("resources/subscribe", json!({"uri": uri})).await["result"], json!({}));
    server.double.changes.tell(session, change("log.txt", ChangeKind::Modified));
    client.message(|message| is_update_of(message, &uri)).await;
    server.double.changes.tell(session, change("other.txt", ChangeKind::Modified));
    server.double.changes.tell(SessionId::mint(), change("log.txt", ChangeKind::Modified));
    server.double.changes.tell(session, None);
    client.message(|message| is_update_of(message, &uri)).await;
    client.message(is_list_change).await;
    assert_eq!(client.request("resources/unsubscribe", json!({"uri": uri})).await["result"], json!({}));
    server.double.changes.tell(session, change("log.txt", ChangeKind::Deleted));
    client.message(is_list_change).await;
    settle(&mut client).await;
    assert!(client.seen.is_empty(), "{:?}", client.seen);
}

#[tokio::test]
async fn a_flood_of_changes_is_a_few_notices() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    let uri = format!("workspace://{session}/a");
    client.request("resources/subscribe", json!({"uri": uri})).await;
    let begun = std::time::Instant::now();
    for _ in 0..2_000 {
        server.double.changes.tell(session, change("a", ChangeKind::Created));
        tokio::task::yield_now().await;
    }
    server.double.changes.tell(session, change("last", ChangeKind::Created));
    client.message(is_list_change).await;
    tokio::time::timeout(Duration::from_millis(1_200), client.message(|m| m["method"] == "never"))
        .await
        .expect_err("none");
    let rounds = begun.elapsed().as_millis() / 500 + 1;
    let told = client.seen.iter().filter(|message| is_update_of(message, &uri)).count();
    assert!((1..=rounds as usize).contains(&told), "{told} notices in {rounds} rounds");
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let server = Server::new();
    let mut client = server.client().await;
    let session = session_of(&mut client).await;
    for n in 0..256 {
        let answer = client.request("resources/subscribe", json!({"uri": format!("workspace://{session}/{n}")})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    let again = client.request("resources/subscribe", json!({"uri": format!("workspace://{session}/0")})).await;
    assert_eq!(again["result"], json!({}), "it is followed already");
    let more = client.request("resources/subscribe", json!({"uri": format!("workspace://{session}/256")})).await;
    let refused = &more["error"]["data"];
    assert_eq!((&refused["code"], &refused["retry_after_ms"]), (&json!("RATE_LIMITED"), &json!(10_000)), "{more}");
}

/// A stream of the stateless era with its acknowledgement.
async fn listen(client: &mut Client, notifications: Value) -> (u64, Value) {
    let id =
        client.start("subscriptions/listen", json!({"_meta": modern_meta(), "notifications": notifications})).await;
    let ready = client.message(|message| message["method"] == "notifications/subscriptions/acknowledged").await;
    (id, ready["params"]["notifications"].clone())
}

#[tokio::test]
async fn streams_end_with_the_client_s_input_and_do_not_wait_as_calls_may() {
    let server = Server::with_options(Options { eof_grace: Duration::from_secs(3600), ..Options::default() });
    let mut client = server.connect();
    let (id, _) = listen(&mut client, json!({"resourcesListChanged": true})).await;
    client.close_input();
    assert_eq!(client.answer_to(id).await["result"]["resultType"], "complete");
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn a_stream_that_is_asked_for_as_the_last_word_begins_and_ends() {
    let server = Server::with_options(Options { eof_grace: Duration::from_secs(3600), ..Options::default() });
    let mut client = server.connect();
    let wanted = json!({"_meta": modern_meta(), "notifications": {"resourcesListChanged": true}});
    let id = client.start("subscriptions/listen", wanted).await;
    client.close_input();
    assert_eq!(client.answer_to(id).await["result"]["resultType"], "complete");
    assert_eq!(client.seen.remove(0)["method"], "notifications/subscriptions/acknowledged");
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn the_stateless_era_is_told_on_streams() {
    let server = Server::new();
    let mut client = server.connect();
    let create = json!({"_meta": modern_meta(), "name": "session_create", "arguments": {}});
    let made = client.request("tools/call", create).await;
    let session: SessionId =
        made["result"]["structuredContent"]["session_id"].as_str().and_then(|id| id.parse().ok()).expect("a handle");
    let uri = format!("workspace://{session}/a");
    let foreign = format!("workspace://{}/a", SessionId::mint());
    let wanted =
        json!({"resourcesListChanged": true, "toolsListChanged": true, "resourceSubscriptions": [uri, foreign]});
    let (id, accepted) = listen(&mut client, wanted).await;
    assert_eq!(accepted, json!({"resourcesListChanged": true, "resourceSubscriptions": [uri]}));
    server.double.changes.tell(session, change("a", ChangeKind::Created));
    let update = client.message(|message| is_update_of(message, &uri)).await;
    assert_eq!(update["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id, "{update}");
    client.message(is_list_change).await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await;
    let listed = json!({"_meta": modern_meta()});
    client.request("prompts/list", listed.clone()).await;
    server.double.changes.tell(session, change("a", ChangeKind::Created));
    client.request("prompts/list", listed).await;
    let quiet = tokio::time::timeout(Duration::from_millis(700), client.message(|m| is_update_of(m, &uri))).await;
    assert!(quiet.is_err(), "the stream was cancelled: {quiet:?}");
    for legacy in ["resources/subscribe", "resources/unsubscribe"] {
        let answer = client.request(legacy, json!({"_meta": modern_meta(), "uri": uri})).await;
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
    }
    let missing = client.request("resources/read", json!({"_meta": modern_meta(), "uri": foreign})).await;
    assert_eq!(missing["error"]["code"], -32602, "the era's code for what is not there: {missing}");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_connection() {
    let server = Server::new();
    let mut client = server.connect();
    for _ in 0..16 {
        listen(&mut client, json!({"resourcesListChanged": true})).await;
    }
    let (id, _) = listen(&mut client, json!({"resourcesListChanged": true})).await;
    let refused = client.answer_to(id).await["error"]["data"].take();
    assert_eq!((&refused["code"], &refused["retry_after_ms"]), (&json!("RATE_LIMITED"), &json!(10_000)));
    let many: Vec<String> = (0..300).map(|n| format!("workspace://{}/{n}", SessionId::mint())).collect();
    let (_, accepted) = listen(&mut client, json!({"resourceSubscriptions": many})).await;
    assert_eq!(accepted, json!({}));
    client.close_input();
    client.ended().await.expect("it ends");
}

#[tokio::test]
async fn handles_are_completed_and_only_the_clients_own() {
    let server = Server::new();
    let mut client = server.client().await;
    let own = session_of(&mut client).await;
    let mut bob = server.connect_as("bob");
    bob.initialize("2025-11-25").await;
    session_of(&mut bob).await;
    let mut complete = async |reference: Value, name: &str, value: &str| {
        let params = json!({"ref": reference, "argument": {"name": name, "value": value}});
        client.request("completion/complete", params).await
    };
    let template = json!({"type": "ref/resource", "uri": "workspace://{session}/{+path}"});
    let prompt = json!({"type": "ref/prompt", "name": "plot"});
    for (reference, name) in [(&template, "session"), (&prompt, "session_id")] {
        let answer = complete(reference.clone(), name, "ses_").await;
        assert_eq!(answer["result"]["completion"], json!({"values": [own], "total": 1, "hasMore": false}));
    }
    for (value, found) in [("no", 0), (&own.to_string()[..12], 1)] {
        let answer = complete(template.clone(), "session", value).await;
        assert_eq!(answer["result"]["completion"]["total"], found);
    }
    let words = complete(prompt.clone(), "what", "x").await;
    assert_eq!(words["result"]["completion"]["values"], json!([]));
    let unknown = json!({"type": "ref/prompt", "name": "nope"});
    for (reference, name) in [(&template, "nope"), (&prompt, "nope"), (&unknown, "file")] {
        assert_eq!(complete(reference.clone(), name, "").await["error"]["code"], -32602);
    }
}

#[tokio::test]
async fn prompts_are_listed_and_filled_in() {
    let mut client = Server::new().client().await;
    let listed = client.request("prompts/list", json!({})).await;
    let prompts = listed["result"]["prompts"].as_array().expect("prompts");
    let names: Vec<&str> = prompts.iter().filter_map(|prompt| prompt["name"].as_str()).collect();
    assert_eq!(names, ["analyse_data", "plot", "fix_tests", "review_code", "run_long_job"]);
    let arguments = json!({"file": "data/in.csv", "what": "sales by month"});
    let got = client.request("prompts/get", json!({"name": "plot", "arguments": arguments})).await;
    let message = &got["result"]["messages"][0];
    assert_eq!(message["role"], "user");
    assert!(message["content"]["text"].as_str().is_some_and(|text| text.contains("data/in.csv")), "{got}");
    for params in [
        json!({"name": "nope"}),
        json!({"name": "plot"}),
        json!({"name": "plot", "arguments": {"file": "../x", "what": "y"}}),
        json!({"name": "plot", "arguments": {"file": "x", "what": "y".repeat(1 << 20)}}),
        json!({"name": "plot", "arguments": [1]}),
        json!({"name": "x".repeat(1 << 20)}),
    ] {
        let answer = client.request("prompts/get", params).await;
        assert_eq!(answer["error"]["code"], -32602);
        assert!(answer.to_string().len() < 1_000);
    }
}
