//! One writer to a log, whatever becomes of the files that say so.

use std::fs;
use std::process::{Command, Output};

use e2e::Installation;
use serde_json::json;

use super::disk::{Server, session, verified_records};

fn refused(mut command: Command, holder: u32) -> Output {
    let output = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("process {holder}")), "it names the holder: {said}");
    output
}

#[test]
fn a_second_writer_of_a_log_is_refused_by_the_name_of_the_first_also_when_the_lock_files_are_gone() {
    let installation = Installation::new();
    let server = Server::start(&installation);
    let mut client = installation.client();
    let session = session(&mut client);
    let second = || installation.command(["--grpc-port", "0", "serve", "--http", "127.0.0.1:0"]);
    let repair = || installation.command(["audit", "repair"]);
    let holder = server.child.id();
    refused(second(), holder);
    refused(repair(), holder);
    for lock in ["server.lock", "start.lock", "audit/writer.lock"] {
        // Not all of them are there at any time.
        let _gone = fs::remove_file(installation.state_dir().join(lock));
    }
    refused(second(), holder);
    refused(repair(), holder);
    client.tool("run_shell", json!({"session_id": session, "command": "echo goes on"})).ok();
    assert_eq!(server.get("/readyz").0, 200);
    let records = verified_records(&installation);
    let of = |kind: &str| records.iter().filter(|record| record["type"] == kind).count();
    assert_eq!((of("log.opened"), of("server.started"), of("log.recovered")), (1, 1, 0), "nobody else wrote into it");
}
