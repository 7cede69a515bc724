//! Sessions: handles that outlive connections and servers.

use std::process::Command;
use std::time::Duration;

use e2e::{Client, Installation, User, poll_until};
use serde_json::json;

#[test]
fn a_handle_outlives_its_connection() {
    let installation = Installation::new();
    let mut first = installation.client();
    let session = first.tool("session_create", json!({"name": "kept"})).structured["session_id"].clone();
    first.tool("fs_write", json!({"session_id": session, "path": "a/b.txt", "contents": "hello"})).ok();
    assert!(first.close().success());
    let mut second = installation.client();
    assert!(second.tool("fs_read", json!({"session_id": session, "path": "a/b.txt"})).ok().contains("hello"));
}

#[test]
fn a_handle_and_its_files_outlive_a_killed_server() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut first = installation.client();
        let session = first.tool("session_create", json!({"metadata": {"k": 1}})).structured["session_id"].clone();
        first.tool("run_python", json!({"session_id": session, "code": "open('made.txt', 'w').write('by code')"})).ok();
        installation.kill_server();
        let mut second = installation.client();
        assert!(second.tool("fs_read", json!({"session_id": session, "path": "made.txt"})).ok().contains("by code"));
        second.tool("run_python", json!({"session_id": session, "code": "open('made.txt', 'a').write(' again')"})).ok();
        let info = second.tool("session_info", json!({"session_id": session})).structured;
        assert_eq!(info["metadata"]["k"], 1);
    }
}

#[test]
fn a_task_cut_off_by_a_killed_server_ends_unknown_and_is_never_run_again() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = client.tool("session_create", json!({})).structured["session_id"].clone();
    let code = "open('runs.txt', 'a').write('ran\\n'); print('on', flush=True)\nimport time; time.sleep(600)";
    let arguments = json!({"session_id": session, "code": code, "idempotency_key": "once", "timeout_seconds": 900});
    client.start_tool("run_python", arguments.clone());
    client.progress();
    installation.kill_server();
    let mut again = installation.client();
    again.tool("run_python", arguments).code("TASK_OUTCOME_UNKNOWN");
    let runs = again.tool("fs_read", json!({"session_id": session, "path": "runs.txt"}));
    assert_eq!(runs.ok().matches("ran").count(), 1);
}

#[test]
fn the_same_idempotency_key_gives_the_same_result_and_runs_once() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "open('runs.txt', 'a').write('ran\\n'); print('done')";
    let first = client.tool("run_python", json!({"code": code, "idempotency_key": "k"}));
    let second = client.tool("run_python", json!({"code": code, "idempotency_key": "k"}));
    assert!(first.ok().contains("done") && second.ok().contains("done"));
    assert_eq!(client.tool("fs_read", json!({"path": "runs.txt"})).ok().matches("ran").count(), 1);
    client.tool("run_python", json!({"code": "print('other')", "idempotency_key": "k"})).code("INVALID_ARGUMENT");
}

#[test]
fn a_key_makes_updates_and_closes_a_session_once() {
    let installation = Installation::new();
    let mut client = installation.client();
    let create = json!({"name": "kept", "idempotency_key": "make"});
    let session = client.tool("session_create", create.clone()).structured["session_id"].clone();
    assert_eq!(client.tool("session_create", create).structured["session_id"], session);
    let update = json!({"session_id": session, "metadata": {"n": 1}, "idempotency_key": "set"});
    client.tool("session_update", update.clone()).ok();
    client.tool("session_update", json!({"session_id": session, "metadata": {"n": 2}})).ok();
    client.tool("session_update", update).ok();
    let info = client.tool("session_info", json!({"session_id": session})).structured;
    assert_eq!(info["metadata"], json!({"n": 2}), "the repeated call was not carried out again");
    let other = json!({"session_id": session, "metadata": {"n": 3}, "idempotency_key": "set"});
    client.tool("session_update", other).code("INVALID_ARGUMENT");
    let close = json!({"session_id": session, "idempotency_key": "end"});
    let first = client.tool("session_close", close.clone());
    assert_eq!(client.tool("session_close", close).ok(), first.ok());
    client.tool("session_close", json!({"session_id": session})).code("SESSION_CLOSED");
}

#[test]
fn an_idle_session_is_ended_and_reopens_with_its_files() {
    let installation = Installation::new();
    let mut client = installation.client();
    let created = client.tool("session_create", json!({"ttl_seconds": 1})).structured;
    let session = created["session_id"].clone();
    client.tool("run_python", json!({"session_id": session, "code": "open('x', 'w').write('kept')"})).ok();
    poll_until("the idle session is suspended", Duration::from_secs(20), || {
        // Looking is no use of a session.
        let sessions = client.tool("session_list", json!({})).structured;
        let row = sessions["sessions"].as_array()?.iter().find(|s| s["session_id"] == session)?.clone();
        (row["state"] == "suspended").then_some(())
    });
    assert!(client.tool("fs_read", json!({"session_id": session, "path": "x"})).ok().contains("kept"));
}

#[test]
fn a_closed_session_is_closed_for_good() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = client.tool("session_create", json!({})).structured["session_id"].clone();
    client.tool("fs_write", json!({"session_id": session, "path": "x", "contents": "x"})).ok();
    client.tool("session_close", json!({"session_id": session})).ok();
    client.tool("fs_read", json!({"session_id": session, "path": "x"})).code("SESSION_CLOSED");
    let workspace = installation.state_dir().join("workspaces").join(session.as_str().expect("a handle"));
    assert!(!workspace.exists());
}

#[test]
fn metadata_is_merged_or_replaced() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = client.tool("session_create", json!({"metadata": {"a": 1, "b": 2}})).structured["session_id"].clone();
    client.tool("session_update", json!({"session_id": session, "metadata": {"b": null, "c": 3}})).ok();
    let info = client.tool("session_info", json!({"session_id": session})).structured;
    assert_eq!(info["metadata"], json!({"a": 1, "c": 3}));
    client.tool("session_update", json!({"session_id": session, "metadata": {"z": 9}, "replace_metadata": true})).ok();
    let info = client.tool("session_info", json!({"session_id": session})).structured;
    assert_eq!(info["metadata"], json!({"z": 9}));
}

/// The product where the kernel gives no user namespaces: inside one of its own, which may have none below it.
fn without_user_namespaces(installation: &Installation, arguments: &[&str]) -> Command {
    let product = installation.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"").arg("sh");
    command.arg(product.get_program()).args(product.get_args()).env_clear();
    command.envs(product.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn where_isolation_is_not_to_be_had_nothing_runs_and_the_remedy_is_named() {
    let installation = Installation::new();
    let mut client = Client::launch(without_user_namespaces(&installation, &["--standalone"]));
    client.initialize("2025-11-25");
    for (tool, arguments) in
        [("session_create", json!({})), ("run_shell", json!({"command": "true"})), ("fs_list", json!({}))]
    {
        let refused = client.tool(tool, arguments);
        refused.code("ISOLATION_UNAVAILABLE");
        assert!(refused.text.contains("max_user_namespaces"), "{tool}: {}", refused.text);
    }
    let sessions = client.tool("session_list", json!({})).structured;
    assert_eq!(sessions["sessions"], json!([]));
    assert!(client.close().success());
    let doctor = without_user_namespaces(&installation, &["doctor"]).output().expect("unshare starts");
    assert_eq!(doctor.status.code(), Some(1));
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("PROBLEM") && said.matches("-> raise `user.max_user_namespaces`").count() == 7, "{said}");
}

#[test]
fn sessions_and_their_files_outlive_a_damaged_store() {
    let installation = Installation::new();
    let mut first = installation.client();
    let session = first.tool("session_create", json!({"name": "kept"})).structured["session_id"].clone();
    first.tool("fs_write", json!({"session_id": session, "path": "x", "contents": "kept"})).ok();
    installation.kill_server();
    let store = installation.state_dir().join("state.db");
    for companion in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{companion}", store.display()));
    }
    std::fs::write(&store, b"damaged".repeat(1000)).expect("a damaged store");
    let mut second = installation.client();
    assert!(second.tool("fs_read", json!({"session_id": session, "path": "x"})).ok().contains("kept"));
    assert_eq!(second.tool("session_info", json!({"session_id": session})).structured["name"], "kept");
}

/// Makes a session under a key of which the server may be killed meanwhile; its handle, if that was told.
fn create_unless_gone(client: &mut Client, key: &str) -> Option<serde_json::Value> {
    let made = client.tool_unless_gone("session_create", json!({"name": key, "idempotency_key": key}))?;
    Some(made.structured["session_id"].clone()).filter(|id| id.is_string())
}

#[test]
fn a_session_that_is_asked_for_again_after_its_server_was_killed_is_made_once() {
    let installation = Installation::new();
    let (mut told, mut lost) = (0, 0);
    for round in 0..16_u64 {
        let key = format!("k{round}");
        let mut client = installation.silent_client::<&str>([]);
        let greeting = json!({"name": "e2e", "version": "1"});
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": greeting});
        client.request_unless_gone("initialize", hello).expect("nothing was killed yet");
        let answered = std::thread::scope(|scope| {
            let asking = scope.spawn(|| create_unless_gone(&mut client, &key));
            // Making a session takes some ten milliseconds.
            std::thread::park_timeout(Duration::from_micros(700 * round));
            installation.kill_server();
            asking.join().expect("no panic")
        });
        let mut again = installation.client();
        let made = again.tool("session_create", json!({"name": key, "idempotency_key": key}));
        let made = made.structured["session_id"].as_str().map(str::to_owned).expect("a session");
        match answered {
            Some(first) => assert_eq!((first, told += 1).0, made.as_str(), "{key}"),
            None => lost += 1,
        }
        let text = again.tool("run_shell", json!({"session_id": made, "command": "echo it works"}));
        assert!(text.ok().contains("it works"), "{key}: {}", text.text);
        let listed = again.tool("session_list", json!({})).structured;
        let open = listed["sessions"].as_array().expect("sessions").iter();
        let named: Vec<_> = open.filter(|s| s["name"] == key.as_str() && s["state"] != "closing").collect();
        assert_eq!(named.len(), 1, "{key}: {named:?}");
        again.tool("session_close", json!({"session_id": made})).ok();
    }
    assert!(lost > 0, "some answers were lost: {told} were told, {lost} were lost");
}
