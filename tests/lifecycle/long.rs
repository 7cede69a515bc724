//! Tasks that outlast their call: answered with an id, looked after from any connection, kept when they have ended.

use std::time::Duration;

use e2e::{Answer, Client, Installation, poll_until};
use serde_json::{Value, json};

/// Says something, waits for a file, says more.
const PATIENT: &str = "
import os, sys, time
print('begun', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
print('gone on')
";

fn yielded(answer: &Answer) -> String {
    assert!(answer.ok().contains("task_wait") && answer.meta["codegen/state"] == "running", "{answer:?}");
    answer.meta["codegen/task_id"].as_str().expect("an id").to_owned()
}

fn session(client: &mut Client) -> Value {
    client.tool("session_create", json!({})).structured["session_id"].clone()
}

#[test]
fn a_task_that_yields_outlives_its_connection_and_is_found_and_read_from_another() {
    let installation = Installation::new();
    let mut first = installation.client();
    let session = session(&mut first);
    let call = json!({"session_id": session, "code": PATIENT, "yield_after_seconds": 0.5});
    let task = yielded(&first.tool("run_python", call));
    first.close();
    let mut second = installation.client();
    let listed = second.tool("task_list", json!({"session_id": session, "state": "running"}));
    assert_eq!(listed.structured["tasks"][0]["task_id"], task.as_str(), "{listed:?}");
    let logs = poll_until("it says something", Duration::from_secs(60), || {
        let logs = second.tool("task_logs", json!({"task_id": task}));
        assert!(logs.ok().contains("still running"), "{logs:?}");
        logs.text.contains("begun").then_some(logs)
    });
    second.tool("fs_write", json!({"session_id": session, "path": "go", "contents": ""})).ok();
    let result = second.tool("task_wait", json!({"task_id": task}));
    assert!(result.ok().starts_with("exit 0") && result.text.contains("begun\ngone on"), "{result:?}");
    let cursor = &logs.meta["codegen/next_cursor"];
    let rest = second.tool("task_logs", json!({"task_id": task, "cursor": cursor}));
    assert!(rest.ok().contains("gone on") && !rest.text.contains("begun"), "{rest:?}");
    let status = second.tool("task_status", json!({"task_id": task}));
    assert_eq!((&status.structured["state"], &status.structured["exit_code"]), (&json!("finished"), &json!(0)));
    let info = second.tool("session_info", json!({"session_id": session}));
    let receipt = &info.structured["receipt"];
    assert!(receipt["tasks"].as_u64() >= Some(2) && receipt["bytes_out"].as_u64() >= Some(14), "{receipt}");
    second.tool("task_wait", json!({"task_id": "tsk_0123456789abcdef0123456789abcdef"})).code("NOT_FOUND");
}

/// Each picture is nearly as large as one may be.
#[test]
fn the_pictures_of_a_task_that_has_ended_come_with_its_result_over_a_restart_too() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "import os, struct, zlib\n\
        def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
        rows = b''.join(b'\\0' + os.urandom(570 * 3) for _ in range(570))\n\
        head = chunk(b'IHDR', struct.pack('>IIBBBBB', 570, 570, 8, 2, 0, 0, 0))\n\
        PNG = b'\\x89PNG\\r\\n\\x1a\\n' + head + chunk(b'IDAT', zlib.compress(rows, 0)) + chunk(b'IEND', b'')\n\
        class Picture:\n    def _repr_png_(self): return PNG\n\
        for _ in range(4): display(Picture())";
    let session = session(&mut client);
    let call = json!({"session_id": session, "code": code, "background": true});
    let task = yielded(&client.tool("run_python", call));
    poll_until("it ends", Duration::from_secs(60), || {
        let status = client.tool("task_status", json!({"task_id": task}));
        (status.structured["state"] == "finished").then_some(())
    });
    let again = |client: &mut Client| {
        let asked = client.request("tools/call", json!({"name": "task_wait", "arguments": {"task_id": task}}));
        let blocks = asked["result"]["content"].as_array().expect("content").clone();
        let pictures: Vec<_> = blocks.iter().filter(|block| block["type"] == "image").cloned().collect();
        assert_eq!(pictures.len(), 4, "{}", blocks[0]);
        pictures
    };
    let pictures = again(&mut client);
    assert!(pictures[0]["data"].as_str().is_some_and(|data| data.len() > 1_200_000), "as it came");
    client.close();
    installation.kill_server();
    assert_eq!(again(&mut installation.client()), pictures);
}

#[test]
fn a_background_task_is_cancelled_by_its_id_and_its_failure_is_kept_over_a_restart() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session(&mut client);
    let call = json!({"session_id": session, "command": "echo begun; sleep 1000", "background": true});
    let task = yielded(&client.tool("run_shell", call));
    poll_until("it says something", Duration::from_secs(60), || {
        client.tool("task_logs", json!({"task_id": task})).text.contains("begun").then_some(())
    });
    let cancelled = client.tool("task_cancel", json!({"task_id": task}));
    assert_eq!(cancelled.structured["code"], "TASK_CANCELLED", "{cancelled:?}");
    let again = json!({"session_id": session, "command": "sleep 1000", "background": true});
    let lost = yielded(&client.tool("run_shell", again));
    installation.kill_server();
    let mut client = installation.client();
    let kept = client.tool("task_wait", json!({"task_id": task}));
    assert!(kept.code("TASK_CANCELLED").contains("begun"), "{kept:?}");
    let status = client.tool("task_status", json!({"task_id": lost}));
    assert_eq!(status.structured["state"], "unknown", "{status:?}");
    client.tool("task_wait", json!({"task_id": lost})).code("TASK_OUTCOME_UNKNOWN");
    let info = client.tool("session_info", json!({"session_id": session}));
    assert_eq!(info.structured["receipt"]["failed"], 1, "the log has what was used before: {info:?}");
}

#[test]
fn output_of_five_megabytes_is_read_whole_and_in_order_and_searched() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "for n in range(250_000):\n    print(f'line {n:07} of many')\n    if n % 50_000 == 0: print('mark', n)";
    let result = client.tool("run_python", json!({"code": code, "max_output_chars": 500}));
    assert!(result.ok().len() < 2_000 && result.text.contains("whole output: .codegen/output/tsk_"), "{}", result.text);
    let task = result.meta["codegen/task_id"].clone();
    let (mut whole, mut cursor) = (String::new(), Value::Null);
    loop {
        let mut arguments = json!({"task_id": task, "max_chars": 100_000});
        if cursor.is_string() {
            arguments["cursor"] = cursor;
        }
        let part = client.tool("task_logs", arguments);
        let body = part.ok().split_once("\n\n").expect("a heading").1;
        whole.push_str(body.split("\n\nnext_cursor").next().expect("a part"));
        cursor = part.meta["codegen/next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let line = |n: usize| {
        let mark = if n.is_multiple_of(50_000) { format!("mark {n}\n") } else { String::new() };
        format!("line {n:07} of many\n{mark}")
    };
    assert!(whole == (0..250_000).map(line).collect::<String>(), "the parts make the output");
    let found = client.tool("task_logs", json!({"task_id": task, "grep": "^mark|0123456"}));
    let marks = "mark 0\nmark 50000\nmark 100000\nline 0123456 of many\nmark 150000\nmark 200000";
    assert!(found.ok().contains(marks), "{}", found.text);
}

#[test]
fn session_code_that_tampers_with_kept_output_reaches_nothing() {
    let installation = Installation::new();
    let mut client = installation.client();
    let result = client.tool("run_python", json!({"code": "print('x' * 1_000_000)", "max_output_chars": 500}));
    let task = result.meta["codegen/task_id"].clone();
    for trap in ["ln -s /etc/passwd", "ln -s ../../../state.db", "mkfifo", "mkdir"] {
        let command = format!("f=.codegen/output/{}.log; rm -rf $f; {trap} $f", task.as_str().expect("an id"));
        client.tool("run_shell", json!({"command": command})).ok();
        let logs = client.tool("task_logs", json!({"task_id": task, "cursor": "c20000", "max_chars": 1_000}));
        assert!(logs.ok().contains("bytes are not kept") && !logs.text.contains("root:"), "{trap}: {}", logs.text);
    }
}
