//! What is kept for too long is given up, by the time that passes while a server runs, and by the clock from one server to
//! the next.

use e2e::{Client, Installation, poll_until};
use serde_json::{Value, json};

use super::clock::{Clock, DAY, YEAR};
use super::disk::{PATIENCE, of_kind, session, until_suspended, verified_records};

/// Sessions are idle at once, looked at often, and have room for one of [`LARGE_BYTES`] among all that are kept.
const SETTINGS: [(&str, &str); 3] =
    [("SESSION_MAX_AGE", "1s"), ("CLEANUP_INTERVAL", "1s"), ("WORKSPACE_RETENTION_BYTES", "1MiB")];
const LARGE_BYTES: usize = 700_000;

/// A session at rest with a file of so many bytes.
fn at_rest(client: &mut Client, bytes: usize) -> Value {
    let session = session(client);
    let file = json!({"session_id": session, "path": "kept.txt", "contents": "k".repeat(bytes)});
    client.tool("fs_write", file).ok();
    until_suspended(client, &session);
    session
}

/// Which sessions' files were given up, as the log says, once there are so many.
fn until_expired(installation: &Installation, sessions: usize) -> Vec<Value> {
    poll_until("files are given up", PATIENCE, || {
        let expired = of_kind(&verified_records(installation), "session.expired");
        (expired.len() >= sessions).then(|| expired.iter().map(|record| record["session"].clone()).collect())
    })
}

fn has_files(client: &mut Client, session: &Value) {
    let read = client.tool("fs_read", json!({"session_id": session, "path": "kept.txt"}));
    assert!(read.ok().contains("kk"), "{read:?}");
}

#[test]
fn files_are_given_up_by_the_time_that_passes_and_by_the_clock_only_from_one_server_to_the_next() {
    let installation = Installation::new();
    let clock = Clock::of(&installation);
    let mut server = clock.server(&installation, &SETTINGS);
    let mut client = installation.client();
    let workspace = |session: &Value| {
        installation.state_dir().join("workspaces").join(session.as_str().expect("a handle")).exists()
    };
    let (oldest, old) = (at_rest(&mut client, LARGE_BYTES), at_rest(&mut client, 10));
    clock.set(YEAR);
    // It needs room, for which the oldest go: the same look at all of them takes no other.
    let ahead = at_rest(&mut client, LARGE_BYTES);
    assert_eq!(until_expired(&installation, 1), std::slice::from_ref(&oldest), "nothing is a year old");
    clock.set(-DAY);
    has_files(&mut client, &old);
    assert!(!workspace(&oldest) && workspace(&old) && workspace(&ahead));
    client.tool("fs_read", json!({"session_id": oldest, "path": "kept.txt"})).code("SESSION_NOT_FOUND");
    until_suspended(&mut client, &old);
    client.close();
    server.stop();

    // The week that files are kept is over by the clock. Who begins looks at once, and a worker that is not there yet is
    // told when it is.
    clock.set(8 * DAY);
    let mut server = clock.server(&installation, &[]);
    assert_eq!(until_expired(&installation, 2), [oldest.clone(), old.clone()]);
    let mut client = installation.client();
    poll_until("the workspace is removed", PATIENCE, || (!workspace(&old)).then_some(()));
    client.tool("fs_read", json!({"session_id": old, "path": "kept.txt"})).code("SESSION_NOT_FOUND");
    has_files(&mut client, &ahead);
    client.close();
    server.stop();
    let records = verified_records(&installation);
    let idle = |session: &Value| of_kind(&records, "session.suspended").iter().any(|r| r["session"] == *session);
    assert!([oldest, old, ahead].iter().all(idle), "that each was idle is on record");
}
