//! What the operator's commands show of the running server's workers, and do to them.

use serde_json::Value;

use crate::front::{Place, poll};

/// What a command prints; why not, when it fails.
fn run(place: &Place, args: &[&str]) -> Result<String, String> {
    let output = place.command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn json(place: &Place, args: &[&str]) -> Value {
    let printed = run(place, &[args, &["--json"]].concat()).unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// The embedded worker, once it takes sessions.
fn healthy(place: &Place) -> Value {
    poll("the worker joins", || {
        let listed = json(place, &["workers", "ls"]);
        listed.as_array().unwrap().iter().find(|worker| worker["state"] == "healthy").cloned()
    })
}

#[test]
fn workers_are_listed_while_a_server_runs_and_not_without_one() {
    let place = Place::new();
    assert!(run(&place, &["workers", "ls"]).unwrap_err().contains("no server runs"));
    let _front = place.client();
    let worker = healthy(&place);
    assert_eq!((&worker["worker_id"], &worker["link_up"]), (&"embedded".into(), &true.into()));
    assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
    assert!(worker["slots"]["total"].as_u64().unwrap() > 0 && worker["heartbeat_age_seconds"].is_number());
    let shown = run(&place, &["workers", "ls"]).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("WORKER") && lines[1].starts_with("embedded  healthy"), "{shown}");
    assert!(shown.contains(worker["incarnation"].as_str().unwrap()), "piped, nothing is left out: {shown}");
}
