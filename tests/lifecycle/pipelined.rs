//! Calls that are sent before those before them are answered.

use e2e::{Client, Installation};
use serde_json::json;

use super::disk::session;

/// Beside the first, as many as a session may have at once.
const CALLS: usize = 31;

fn send(client: &mut Client, session: &serde_json::Value, kernel: &str, codes: &[String]) -> Vec<u64> {
    let call = |code: &String| json!({"session_id": session, "code": code, "kernel": kernel});
    codes.iter().map(|code| client.start_tool("run_python", call(code))).collect()
}

#[test]
fn calls_on_a_kernel_run_in_the_order_in_which_they_were_sent() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session(&mut client);
    let codes: Vec<String> = (0..CALLS).map(|n| format!("order.append({n})")).collect();
    for kernel in ["a", "b", "c"] {
        let first = "import time; order = []; time.sleep(0.3)".to_owned();
        let sent = send(&mut client, &session, kernel, &[[first].as_slice(), &codes].concat());
        for call in sent {
            client.tool_answer(call).ok();
        }
        let told = json!({"session_id": session, "code": "print(order)", "kernel": kernel});
        let told = client.tool("run_python", told);
        assert!(told.text.contains(&format!("{:?}", (0..CALLS).collect::<Vec<_>>())), "{told:?}");
    }
}

#[test]
fn one_that_is_refused_or_cancelled_lets_nobody_pass_and_holds_nobody_up() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session(&mut client);
    let slow = "import time; seen = ['slow']; time.sleep(0.5)".to_owned();
    let sent = send(&mut client, &session, "k", &[slow, "seen.append('cancelled')".to_owned()]);
    client.cancel(sent[1]);
    let refused = json!({"session_id": session, "code": "seen.append('refused')", "kernel": "k", "stdin": 1});
    let refused = client.start_tool("run_python", refused);
    let last = send(&mut client, &session, "k", &["seen.append('last'); print(seen)".to_owned()]);
    let told = client.tool_answer(last[0]);
    assert!(told.ok().contains("['slow', 'last']"), "{told:?}");
    client.tool_answer(refused).code("INVALID_ARGUMENT");
    client.tool_answer(sent[0]).ok();
}
