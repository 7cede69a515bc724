//! The store's file is gone, or is no store any more: everything comes back from the log but what only the store had.

use std::fs;
use std::path::Path;

use e2e::{Client, Installation};
use serde_json::{Value, json};

use super::disk::{Server, session, token_of, verified_records};

const SETTINGS: [(&str, &str); 1] = [("QUOTA_BYTES_PER_DAY", "1MiB")];

fn server(installation: &Installation) -> Server {
    let mut command = Server::command(installation);
    command.envs(SETTINGS);
    let server = Server::launch(command);
    server.until_ready(true);
    server
}

fn remove(store: &Path) {
    for companion in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{companion}", store.display())).expect("a file of the store");
    }
}

fn corrupt(store: &Path) {
    remove(store);
    fs::write(store, b"no store".repeat(1_000)).expect("a file");
}

fn task_of(answer: &e2e::Answer) -> Value {
    answer.meta["codegen/task_id"].clone()
}

fn ended(client: &mut Client, task: &Value) -> Value {
    client.tool("task_status", json!({"task_id": task})).structured
}

#[test]
fn sessions_how_tasks_ended_and_the_day_s_use_come_back_from_the_log_when_the_store_is_gone_or_damaged() {
    for lose in [remove as fn(&Path), corrupt] {
        let installation = Installation::new();
        let mut running = server(&installation);
        let mut client = installation.client();
        let kept =
            client.tool("session_create", json!({"name": "kept", "metadata": {"n": 1}})).structured["session_id"]
                .clone();
        let closed = session(&mut client);
        client.tool("session_close", json!({"session_id": closed})).ok();
        let once = json!({"session_id": kept, "command": "echo once >> ran.txt", "idempotency_key": "k"});
        client.tool("run_shell", once.clone()).ok();
        let went_well = task_of(&client.tool("run_shell", json!({"session_id": kept, "command": "echo said"})));
        let timed_out = json!({"session_id": kept, "command": "sleep 86400", "timeout_seconds": 1});
        let timed_out = client.tool("run_shell", timed_out);
        timed_out.code("TASK_TIMEOUT");
        let timed_out = task_of(&timed_out);
        let print = json!({"session_id": kept, "command": "head -c 1200000 /dev/zero | tr '\\0' x"});
        client.tool("run_shell", print.clone()).ok();
        let token = token_of(&installation, "ann", &[]);
        assert_eq!(running.get_as("/api/v1/sessions", &token).0, 200);
        drop(client);
        installation.kill_server();
        let _status = running.child.wait();
        lose(&installation.state_dir().join("state.db"));

        let running = server(&installation);
        let mut client = installation.client();
        let info = client.tool("session_info", json!({"session_id": kept})).structured;
        assert_eq!((&info["name"], &info["metadata"]), (&json!("kept"), &json!({"n": 1})));
        client.tool("session_close", json!({"session_id": closed})).code("SESSION_CLOSED");
        let again = client.tool("run_shell", once.clone());
        assert!(again.text.contains("output is lost"), "{again:?}");
        let workspace = installation.state_dir().join("workspaces").join(kept.as_str().expect("a handle"));
        let ran = fs::read_to_string(workspace.join("ran.txt")).expect("the session's file");
        assert_eq!(ran, "once\n", "it is not run again");
        let (well, badly) = (ended(&mut client, &went_well), ended(&mut client, &timed_out));
        assert_eq!(
            (&well["state"], &badly["state"], &badly["code"]),
            (&json!("finished"), &json!("failed"), &json!("TASK_TIMEOUT"))
        );
        client.tool("run_shell", print).code("QUOTA_EXCEEDED");
        let asked = [running.get("/api/v1/sessions").0, running.get_as("/api/v1/sessions", &token).0];
        assert_eq!(asked, [401, 401], "tokens are lost, and it asks for credentials all the same");
        verified_records(&installation);
    }
}
