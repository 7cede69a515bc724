//! Bad input: a clear error, nothing lost, and the connection goes on.

use e2e::{Client, Installation};
use serde_json::{Value, json};

fn still_works(client: &mut Client) {
    assert!(client.tool("echo", json!({"message": "fine"})).ok().contains("fine"));
}

#[test]
fn lines_that_are_no_json_are_answered_and_skipped() {
    let installation = Installation::new();
    let mut client = installation.client();
    for line in [&b"{nonsense"[..], b"\xff\xfe", b"[]", b"42", b"{\"jsonrpc\":\"2.0\"}", b"{\"id\":[],\"method\":7}"] {
        client.send_line(line);
        let error = client.stray();
        assert!(error["error"]["code"].is_i64(), "{error}");
        still_works(&mut client);
    }
    client.send_line(b"");
    still_works(&mut client);
}

#[test]
fn unknown_methods_and_tools_are_protocol_errors() {
    let installation = Installation::new();
    let mut client = installation.client();
    assert_eq!(client.request("no/such", json!({}))["error"]["code"], -32601);
    assert_eq!(client.request("tools/call", json!({"name": "no_such_tool", "arguments": {}}))["error"]["code"], -32602);
    still_works(&mut client);
}

#[test]
fn wrong_types_unknown_fields_and_missing_ones_name_the_field() {
    let installation = Installation::new();
    let mut client = installation.client();
    let bad = [
        ("fs_write", json!({"path": 7, "contents": "x"}), "path"),
        ("fs_write", json!({"path": "x"}), "contents"),
        ("fs_write", json!({"path": "x", "contents": "x", "colour": "red"}), "colour"),
        ("fs_write", json!({"path": "x", "contents": "x", "mode": "sideways"}), "mode"),
        ("fs_write", json!({"path": "x", "contents": "not base64!", "encoding": "base64"}), "base64"),
        ("fs_read", json!({"path": "x", "offset": -1}), "offset"),
        ("run_python", json!({"code": "1", "file": "x.py"}), "file"),
        ("run_python", json!({}), "code"),
        ("run_python", json!({"code": "1", "timeout_seconds": 0}), "timeout_seconds"),
        ("run_python", json!({"code": "1", "timeout_seconds": 1e12}), "timeout_seconds"),
        ("run_python", json!({"code": "1", "env": {"A=B": "x"}}), "env"),
        ("run_shell", json!({"command": "true", "idempotency_key": "k".repeat(129)}), "idempotency_key"),
        ("session_create", json!({"ttl_seconds": "soon"}), "ttl_seconds"),
        ("session_info", json!({"session_id": "nonsense"}), "SESSION_NOT_FOUND"),
    ];
    for (tool, arguments, named) in bad {
        let answer = client.tool(tool, arguments.clone());
        assert!(answer.is_error, "{tool} {arguments} was accepted: {}", answer.text);
        assert!(answer.text.contains(named), "{tool} {arguments}: {}", answer.text);
    }
    still_works(&mut client);
}

#[test]
fn paths_that_could_leave_are_refused() {
    let installation = Installation::new();
    let mut client = installation.client();
    for path in
        ["/etc/passwd", "../x", "a/../../x", "../../etc/passwd", "a\u{0}b", &"x".repeat(300), &"d/".repeat(3000)]
    {
        client.tool("fs_read", json!({"path": path})).code("PATH_VIOLATION");
        client.tool("fs_write", json!({"path": path, "contents": "x"})).code("PATH_VIOLATION");
        client.tool("fs_move", json!({"from": "x", "to": path})).code("PATH_VIOLATION");
        client.tool("fs_delete", json!({"path": path})).code("PATH_VIOLATION");
        client.tool("run_python", json!({"file": path})).code("PATH_VIOLATION");
    }
    client.tool("fs_write", json!({"path": "..foo/..bar", "contents": "legal"})).ok();
    assert!(client.tool("fs_read", json!({"path": "..foo/..bar"})).ok().contains("legal"));
}

#[test]
fn things_that_are_no_plain_files_are_refused() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "import os, socket\nos.mkfifo('fifo')\nsocket.socket(socket.AF_UNIX).bind('sock')\nopen('f', 'w').write('x')\nos.link('f', 'hard')\nos.mkdir('dir')\nos.symlink('f', 'inside')\nos.symlink('/etc/passwd', 'outside')\nos.symlink('loop', 'loop')\nopen(b'bad-\\xff', 'w').write('x')\nopen('bytes', 'wb').write(b'\\xff\\xfe')";
    client.tool("run_python", json!({"code": code})).ok();
    for (path, code) in [
        ("fifo", "PATH_VIOLATION"),
        ("sock", "PATH_VIOLATION"),
        ("hard", "PATH_VIOLATION"),
        ("outside", "PATH_VIOLATION"),
        ("loop", "PATH_VIOLATION"),
        ("dir", "NOT_A_FILE"),
        ("missing", "NOT_FOUND"),
        ("f/x", "NOT_A_DIRECTORY"),
    ] {
        client.tool("fs_read", json!({"path": path})).code(code);
    }
    client.tool("fs_write", json!({"path": "dir", "contents": "x"})).code("NOT_A_FILE");
    client.tool("fs_list", json!({"path": "missing"})).code("NOT_FOUND");
    client.tool("fs_list", json!({"path": "bytes"})).code("NOT_A_DIRECTORY");
    assert!(client.tool("fs_read", json!({"path": "bytes"})).failed().contains("base64"));
    assert!(client.tool("fs_read", json!({"path": "bytes", "encoding": "base64"})).ok().contains("//4="));
    let listed = client.tool("fs_list", json!({})).ok().to_owned();
    for name in ["fifo", "sock", "hard", "dir", "bytes", "bad-"] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    client.tool("fs_delete", json!({"path": "fifo"})).ok();
}

#[test]
fn a_stale_version_is_not_overwritten() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "f", "contents": "one"})).ok();
    let etag = client.tool("fs_stat", json!({"path": "f"})).structured["etag"].as_str().expect("an etag").to_owned();
    client.tool("fs_write", json!({"path": "f", "contents": "two", "if_match": etag})).ok();
    client.tool("fs_write", json!({"path": "f", "contents": "three", "if_match": etag})).code("PRECONDITION_FAILED");
    client.tool("fs_write", json!({"path": "f", "contents": "x", "mode": "create"})).code("ALREADY_EXISTS");
    client.tool("fs_write", json!({"path": "f", "contents": "+", "mode": "append"})).ok();
    assert!(client.tool("fs_read", json!({"path": "f"})).ok().contains("two+"));
}

#[test]
fn huge_arguments_are_refused_or_taken_whole() {
    let installation = Installation::new();
    let mut client = installation.client();
    let answer = client.tool("run_python", json!({"code": format!("x = '{}'", "y".repeat(8 << 20))}));
    answer.code("INVALID_ARGUMENT");
    let text = "line of text\n".repeat(400_000);
    client.tool("fs_write", json!({"path": "big.txt", "contents": text})).ok();
    let stat = client.tool("fs_stat", json!({"path": "big.txt"})).structured;
    assert_eq!(stat["size"], text.len());
    let shown = client.tool("fs_read", json!({"path": "big.txt"}));
    assert!(shown.ok().len() < 1 << 20, "a large file does not come back whole unasked");
    still_works(&mut client);
}

#[test]
fn a_foreign_or_unknown_handle_gets_the_same_answer() {
    let installation = Installation::new();
    let mut client = installation.client();
    let unknown = client.tool("fs_read", json!({"session_id": "ses_00000000000000000000000000000000", "path": "x"}));
    unknown.code("SESSION_NOT_FOUND");
    still_works(&mut client);
}

#[test]
fn a_terminal_s_worth_of_strange_values_does_no_harm() {
    let installation = Installation::new();
    let mut client = installation.client();
    let strange: [Value; 6] =
        [json!(null), json!([]), json!({"a": {"b": [1, 2]}}), json!("\u{202e}\u{1b}[31m\n"), json!(1e308), json!(true)];
    for value in strange {
        for tool in ["echo", "session_create", "fs_list", "run_shell", "fs_stat"] {
            let message = client.request(
                "tools/call",
                json!({"name": tool, "arguments": {"path": value, "message": value, "name": value, "command": value}}),
            );
            assert!(message["result"]["isError"] == true, "{message}");
        }
        let message = client.request("tools/call", json!({"name": "echo", "arguments": value}));
        assert!(message["error"].is_object() || message["result"]["isError"] == true, "{message}");
    }
    still_works(&mut client);
}
