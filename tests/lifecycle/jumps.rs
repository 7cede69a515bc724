//! Sessions that work while the clock is set back by a day, ahead by a year, and right again.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::{Client, Installation, poll_until};
use serde_json::{Value, json};

use super::clock::{Clock, DAY, YEAR};
use super::disk::{
    Endless, PATIENCE, Server, of_kind, segments, session, state_of, token_of, until_suspended, verified_records,
};

/// The clock may be off by so much of what it was set by, in milliseconds: its readings take time.
const READING_MS: i64 = 1_000;

/// What the operator's command answers, as JSON.
fn told(command: &mut Command) -> Value {
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Asserts by how many seconds the log says that the clock was set, one after the other.
fn assert_set_by(records: &[Value], seconds: &[i64]) {
    let set: Vec<i64> =
        of_kind(records, "log.clock_set").iter().filter_map(|r| r["detail"]["by_ms"].as_i64()).collect();
    let is_near = |(set, seconds): (&i64, &i64)| (set - seconds * 1_000).abs() < READING_MS;
    assert!(set.len() == seconds.len() && set.iter().zip(seconds).all(is_near), "{set:?} ms, not {seconds:?} s");
}

/// The times of each segment's records, in their order.
fn times_by_segment(installation: &Installation) -> Vec<Vec<String>> {
    let time = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a record a line");
        record["ts"].as_str().expect("a time").to_owned()
    };
    let times = |path: &PathBuf| fs::read_to_string(path).expect("a segment").lines().map(time).collect();
    segments(installation).iter().map(times).collect()
}

#[test]
fn however_the_clock_jumps_calls_go_on_and_the_log_verifies_and_says_by_how_much() {
    let installation = Installation::new();
    let clock = Clock::of(&installation);
    let mut server = clock.server(&installation, &[]);
    let mut client = installation.client();
    let (one, other) = (session(&mut client), session(&mut client));
    let work = |client: &mut Client, word: &str| {
        let code = format!("said = [*globals().get('said', []), '{word}']; print(*said)");
        let ran = client.tool("run_python", json!({"session_id": one, "code": code, "kernel": "main"}));
        assert!(ran.ok().contains(word) && ran.text.contains("begin"), "{ran:?}");
        client.tool("run_shell", json!({"session_id": other, "command": format!("echo {word} >> a.txt")})).ok();
        assert!(client.tool("fs_read", json!({"session_id": other, "path": "a.txt"})).ok().contains(word));
    };
    work(&mut client, "begin");
    for (shift, word) in [(-DAY, "back"), (YEAR, "ahead"), (0, "right")] {
        clock.set(shift);
        work(&mut client, word);
        assert_eq!(server.get("/readyz").0, 200, "{word}");
    }
    assert_set_by(&verified_records(&installation), &[-DAY, DAY + YEAR, -YEAR]);

    server.stop();
    clock.set(-DAY);
    let mut server = clock.server(&installation, &[]);
    let mut client = installation.client();
    let read = client.tool("fs_read", json!({"session_id": other, "path": "a.txt"}));
    assert!(read.ok().contains("begin\nback\nahead\nright"), "{read:?}");
    assert_set_by(&verified_records(&installation), &[-DAY, DAY + YEAR, -YEAR, -DAY]);
    server.stop();
    let segments = times_by_segment(&installation);
    assert_eq!(segments.len(), 4, "each time that it is set back begins one");
    assert!(segments.iter().all(|times| times.is_sorted()), "no time goes back within one: {segments:?}");
}

#[test]
fn a_clock_that_is_set_ends_no_session_and_lets_none_live_longer() {
    let installation = Installation::new();
    let clock = Clock::of(&installation);
    let _server = clock.server(&installation, &[]);
    let mut client = installation.client();
    let brief =
        |client: &mut Client| client.tool("session_create", json!({"ttl_seconds": 2})).structured["session_id"].clone();
    let keyed = || installation.client().tool("session_create", json!({"idempotency_key": "once"}));
    let kept = keyed().structured["session_id"].clone();
    let mut ended = Vec::new();
    for shift in [-DAY, YEAR, 0] {
        let idle = brief(&mut client);
        clock.set(shift);
        until_suspended(&mut client, &idle);
        assert_eq!(state_of(&mut client, &kept), "ready", "half an hour has not passed, by {shift} s");
        assert_eq!(keyed().structured["session_id"], kept, "nor a day since it was made, by {shift} s");
        ended.push(idle);
    }
    let records = verified_records(&installation);
    let suspended: Vec<Value> = of_kind(&records, "session.suspended").iter().map(|r| r["session"].clone()).collect();
    assert_eq!(suspended, ended);
}

#[test]
fn a_clock_that_is_set_neither_shortens_nor_prolongs_time_limits_nor_the_wait_for_approval() {
    let installation = Installation::new();
    let rule = |tool: &str, timeout: &str| {
        let asks = "effect = \"require_approval\"\napprovers = [\"operator\"]";
        format!("[[rule]]\nname = {tool:?}\ntool = [{tool:?}]\n{asks}\ntimeout = {timeout:?}\n")
    };
    let policy = installation.outside().join("policy.toml");
    fs::write(&policy, rule("fs_delete", "10m") + &rule("fs_move", "3s")).expect("a policy");
    let clock = Clock::of(&installation);
    let _server = clock.server(&installation, &[("POLICY_FILE", policy.to_str().expect("a path"))]);
    let (mut client, mut waiting) = (installation.client(), installation.client());
    let session = session(&mut client);
    client.tool("fs_write", json!({"session_id": session, "path": "a", "contents": "a"})).ok();
    let endless = Endless::start(&mut client, &session, 1);
    let asked = waiting.start_tool("fs_delete", json!({"session_id": session, "path": "a"}));
    let mut approvals = installation.command(["approvals", "ls", "--json"]);
    let pending = |approvals: &mut Command| -> Vec<Value> {
        let listed = told(approvals);
        let of_delete = |view: &&Value| view["tool"] == "fs_delete" && view["state"] == "pending";
        listed.as_array().expect("a list").iter().filter(of_delete).cloned().collect()
    };
    poll_until("the call waits", PATIENCE, || (pending(&mut approvals).len() == 1).then_some(()));

    for (requests, shift) in [(2, -DAY), (3, YEAR)] {
        let command = "echo begun; sleep 86400";
        let brief = json!({"session_id": session, "command": command, "timeout_seconds": 3, "background": true});
        let brief = client.tool("run_shell", brief).meta["codegen/task_id"].clone();
        let wrote = |client: &mut Client| client.tool("task_logs", json!({"task_id": brief})).text.contains("begun");
        poll_until("it runs", PATIENCE, || wrote(&mut client).then_some(()));
        let mut asking = installation.client();
        let silent = asking.start_tool("fs_move", json!({"session_id": session, "from": "a", "to": "b"}));
        poll_until("it is asked for", PATIENCE, || {
            (of_kind(&verified_records(&installation), "approval.requested").len() == requests).then_some(())
        });
        clock.set(shift);
        asking.tool_answer(silent).code("PERMISSION_DENIED");
        client.tool("task_wait", json!({"task_id": brief, "timeout_seconds": 25})).code("TASK_TIMEOUT");
        let running = client.tool("task_status", json!({"task_id": endless.task})).structured;
        assert_eq!(running["state"], "running", "by {shift} s: {running}");
        assert_eq!(pending(&mut approvals).len(), 1, "ten minutes have not passed, by {shift} s");
    }
    let id = pending(&mut approvals)[0]["id"].as_str().expect("an id").to_owned();
    told(&mut installation.command(["approvals", "approve", &id, "--json"]));
    waiting.tool_answer(asked).ok();
    client.tool("task_cancel", json!({"task_id": endless.task}));
    endless.until_gone();
}

#[test]
fn a_clock_that_is_set_back_keeps_neither_another_writer_nor_news_of_output_waiting() {
    let installation = Installation::new();
    let clock = Clock::of(&installation);
    let server = clock.server(&installation, &[]);
    let token = token_of(&installation, "ann", &[]);
    let mut client = installation.client();
    let session = session(&mut client);
    let handle = session.as_str().expect("a handle").to_owned();
    client.tool("session_share", json!({"session_id": session, "principal": "ann", "role": "writer"})).ok();
    client.tool("fs_write", json!({"session_id": session, "path": "a", "contents": "a"})).ok();
    clock.set(-DAY);
    let (status, refused) = server.put_as(&format!("/api/v1/sessions/{handle}/files/b"), &token, "b");
    let wait_ms = refused["error"]["details"]["retry_after_ms"].as_u64();
    assert!(status == 412 && wait_ms.is_some_and(|wait| wait <= 30_000), "half a minute is left: {status} {refused}");

    let talks = json!({"session_id": session, "command": "while sleep 0.1; do echo on; done", "background": true});
    let task = client.tool("run_shell", talks).meta["codegen/task_id"].clone();
    client.request("resources/subscribe", json!({"uri": format!("transcript://{handle}")}));
    client.notification("notifications/resources/updated");
    clock.set(-2 * DAY);
    // The first ones may have been on their way.
    (0..4).for_each(|_| drop(client.notification("notifications/resources/updated")));
    client.tool("task_cancel", json!({"task_id": task}));
}

/// How many seconds it is to the next noon of UTC, far from where a day ends.
fn to_noon() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
    (DAY + DAY / 2 - i64::try_from(now).expect("seconds") % DAY) % DAY
}

#[test]
fn tokens_go_by_the_clock_and_no_day_s_quota_is_given_again_by_setting_it() {
    let installation = Installation::new();
    let clock = Clock::of(&installation);
    let noon = to_noon();
    clock.set(noon);
    let settings = [("QUOTA_BYTES_PER_DAY", "1MiB")];
    let mut server = clock.server(&installation, &settings);
    let mut client = installation.client();
    let session = session(&mut client);
    let token = token_of(&installation, "ann", &["--expires", "1h"]);
    let asked = |server: &Server| server.get_as("/api/v1/sessions", &token).0;
    let print = json!({"session_id": session, "command": "head -c 1200000 /dev/zero | tr '\\0' x"});

    assert_eq!(asked(&server), 200);
    client.tool("run_shell", print.clone()).ok();
    client.tool("run_shell", print.clone()).code("QUOTA_EXCEEDED");
    clock.set(noon - DAY);
    assert_eq!(asked(&server), 200);
    client.tool("run_shell", print.clone()).code("QUOTA_EXCEEDED");
    clock.set(noon + YEAR);
    assert_eq!(asked(&server), 401, "it has expired");
    client.tool("run_shell", print.clone()).ok();
    client.tool("run_shell", print.clone()).code("QUOTA_EXCEEDED");
    clock.set(noon);
    assert_eq!(asked(&server), 200, "as the clock has it, it is good again");
    client.tool("run_shell", print.clone()).code("QUOTA_EXCEEDED");
    client.close();
    server.stop();
    let server = clock.server(&installation, &settings);
    assert_eq!(asked(&server), 200);
    installation.client().tool("run_shell", print).code("QUOTA_EXCEEDED");
    assert_set_by(&verified_records(&installation), &[-DAY, DAY + YEAR, -YEAR]);
}
