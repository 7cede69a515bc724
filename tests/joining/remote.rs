//! A worker on another host, as far as processes tell.

use std::time::Duration;

use e2e::{Fleet, poll_until};
use serde_json::json;

#[test]
fn code_of_a_client_runs_on_a_worker_that_joined_with_a_token() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let _worker = fleet.worker("far", &token, &[]);
    let mut client = fleet.client();
    let session = poll_until("the worker takes sessions", Duration::from_secs(20), || {
        let made = client.tool("session_create", json!({}));
        made.structured["session_id"].as_str().map(str::to_owned)
    });
    let run =
        client.tool("run_python", json!({"session_id": session, "code": "open('a', 'w').write('1'); print(6 * 7)"}));
    assert!(run.ok().contains("42"), "{}", run.text);
    let written = fleet.workspaces("far").join(&session).join("a");
    assert!(written.is_file(), "its files are the worker's");
}
