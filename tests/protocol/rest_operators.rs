//! What operators see and do over REST, on the real product.

use std::time::Duration;

use e2e::{Installation, poll_until};
use serde_json::{Value, json};

use crate::rest_server::{Server, WITH_STATUS, status_and_body};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What waits for an operator alone, and what a caller's own user may approve of.
const POLICY: &str = "[[rule]]\nname = 'for the operator'\ntool = 'fs_write'\npath = 'held/**'\n\
effect = 'require_approval'\napprovers = ['operator']\n\
[[rule]]\nname = 'for the user'\ntool = 'fs_write'\npath = 'own/**'\neffect = 'require_approval'\n";

/// A server whose policy holds calls up, and a session of `bob`'s on it.
struct Guarded {
    server: Server,
    bob: String,
    session: String,
}

impl Guarded {
    fn start() -> Self {
        let installation = Installation::new();
        let policy = installation.outside().join("policy.toml");
        std::fs::write(&policy, POLICY).expect("a file");
        let server = Server::with(installation, &["--policy", policy.to_str().expect("UTF-8")]);
        let bob = server.token_of("bob");
        let (status, made) = server.posted(&bob, "/api/v1/sessions", &json!({}));
        assert_eq!(status, 201, "{made}");
        let session = made["session_id"].as_str().expect("a handle").to_owned();
        Self { server, bob, session }
    }

    /// Makes `bob` upload a file, which waits; what comes of it once `decide` has decided about the request.
    fn upload(&self, path: &str, decide: impl FnOnce(&Value)) -> (u16, Value) {
        let path = format!("/api/v1/sessions/{}/files/{path}", self.session);
        let mut upload = self.server.asks(&self.bob, &path, &["-X", "PUT", "--data-binary", "hello"]);
        let upload = upload.args(WITH_STATUS).stdout(std::process::Stdio::piped()).spawn().expect("curl is there");
        let pending = poll_until("it waits", PATIENCE, || {
            self.server.json("/api/v1/approvals", &[])["approvals"].get(0).cloned()
        });
        decide(&pending);
        status_and_body(&upload.wait_with_output().expect("it ends"))
    }

    fn decide(&self, token: &str, verb: &str, request: &Value, why: &str) -> (u16, Value) {
        let id = request["id"].as_str().expect("an id");
        self.server.posted(token, &format!("/api/v1/approvals/{id}/{verb}"), &json!({"why": why}))
    }

    /// The decisions in the log: by whom, what, by which way, and why.
    fn decisions(&self) -> Vec<Value> {
        let records = self.server.json("/api/v1/audit/records?type=approval.decided", &[]);
        let told = |record: &Value| {
            let detail = &record["detail"];
            json!([record["principal"], detail["decision"], detail["way"], detail["why"], detail["caller"]])
        };
        records["records"].as_array().expect("records").iter().map(told).collect()
    }
}

#[test]
fn a_call_that_waits_is_decided_once_by_whom_the_rule_lets_and_the_log_says_who_how_and_why() {
    let guarded = Guarded::start();
    let (ann, bob, eve) = (guarded.server.token.clone(), guarded.bob.clone(), guarded.server.token_of("eve"));
    let mut decided = Value::Null;
    let (status, _) = guarded.upload("held/a", |pending| {
        assert_eq!((&pending["principal"], &pending["rule"]), (&json!("bob"), &json!("for the operator")));
        let (own, refused) = guarded.decide(&bob, "approve", pending, "mine");
        assert_eq!((own, &refused["error"]["code"]), (403, &json!("PERMISSION_DENIED")), "{refused}");
        let (foreign, refused) = guarded.decide(&eve, "approve", pending, "x");
        assert_eq!((foreign, &refused["error"]["code"]), (404, &json!("NOT_FOUND")), "{refused}");
        let (approved, view) = guarded.decide(&ann, "approve", pending, "seen");
        assert_eq!((approved, &view["state"]), (200, &json!("approved")), "{view}");
        decided = pending.clone();
    });
    assert_eq!(status, 201);
    let (again, refused) = guarded.decide(&ann, "deny", &decided, "after all");
    // It is forgotten as soon as the call went through.
    assert!([404, 412].contains(&again), "{again}: {refused}");

    let (status, refused) = guarded.upload("held/b", |pending| {
        let (denied, view) = guarded.decide(&ann, "deny", pending, "not on a Sunday");
        assert_eq!((denied, &view["state"]), (200, &json!("denied")), "{view}");
    });
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("PERMISSION_DENIED")), "{refused}");
    assert!(refused["error"]["message"].as_str().expect("text").contains("not on a Sunday"), "{refused}");

    let (status, _) = guarded.upload("own/c", |pending| {
        assert_eq!(guarded.decide(&eve, "approve", pending, "x").0, 404);
        assert_eq!(guarded.decide(&bob, "approve", pending, "I know it").0, 200);
    });
    assert_eq!(status, 201);
    let wanted = [
        json!(["ann", "approved", "rest", "seen", "bob"]),
        json!(["ann", "denied", "rest", "not on a Sunday", "bob"]),
        json!(["bob", "approved", "client", "I know it", "bob"]),
    ];
    assert_eq!(guarded.decisions(), wanted);
}

#[test]
fn workers_are_shown_cordoned_and_drained_and_the_log_verified_and_added_up() {
    let server = Server::start();
    let session = server.session();
    let run = json!({"kind": "python", "code": "print(1)"});
    server.post(&format!("/api/v1/sessions/{session}/tasks?wait=60"), &run);
    let listed = server.json("/api/v1/workers", &[]);
    let worker = &listed["workers"][0];
    assert_eq!((&worker["worker_id"], &worker["admittance"]), (&json!("embedded"), &json!("open")), "{listed}");
    assert!(worker["sessions_open"] == 1 && worker["link_up"] == true && worker["runtimes"].is_array(), "{worker}");

    let act = |verb: &str| server.json(&format!("/api/v1/workers/embedded/{verb}"), &["-X", "POST"]);
    let cordoned = act("cordon");
    assert_eq!((&cordoned["admittance"], &cordoned["admittance_by"]), (&json!("cordoned"), &json!("ann")));
    let (status, refused) = server.posted(&server.token, "/api/v1/sessions", &json!({}));
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("NO_CAPACITY")), "{refused}");
    assert_eq!(act("uncordon")["admittance"], "open");
    server.session();
    assert_eq!(act("drain")["admittance"], "draining");
    poll_until("nothing of a session is left on it", PATIENCE, || {
        (server.json("/api/v1/workers/embedded", &[])["drained"] == true).then_some(())
    });
    assert_eq!(act("uncordon")["drained"], false);

    let verdict = server.json("/api/v1/audit/verify", &["-X", "POST"]);
    assert!(verdict["verdict"] == "whole" && verdict["last"].as_u64() > Some(5), "{verdict}");
    let usage = server.json("/api/v1/usage?by=tool", &[]);
    let rows = usage["rows"].as_array().expect("rows");
    let runs = rows.iter().find(|row| row["name"] == "run_python").expect("what was run");
    assert_eq!((&usage["by"], &runs["calls"], &runs["failures"]), (&json!("tool"), &json!(1), &json!(0)), "{usage}");
}

#[test]
fn a_session_that_no_worker_could_take_is_refused_at_once_with_what_is_missing() {
    let server = Server::start();
    let new = json!({"labels": {"place": "far"}, "wait_seconds": 300});
    // Before its worker has joined, a server that starts does not know what that one can do.
    let (status, refused) = server.posted(&server.token, "/api/v1/sessions", &new);
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("NO_WORKER_FITS")), "{refused}");
    let message = refused["error"]["message"].as_str().expect("text");
    assert!(message.contains("the only one lacks the label place=far"), "{message}");
}
