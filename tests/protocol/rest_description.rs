//! What the description of REST promises, held against the product by schemathesis.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use e2e::{poll_until, python};
use serde_json::{Value, json};

use crate::rest_server::Server;

/// Says how bytes that stand for a tar are sent: as they are.
const TAR_HOOK: &str = "import schemathesis\n\
schemathesis.serializer.alias('application/x-tar', 'application/octet-stream')\n";
/// Calls that wait until an operator decides about them.
const POLICY: &str = "[[rule]]\nname = 'r'\ntool = 'fs_read'\npath = 'held/**'\neffect = 'require_approval'\n\
timeout = '1h'\n";
/// What is asked for once it is arranged that it succeeds, and what would end what the others use.
const APART: [&str; 10] = [
    "follow_events",
    "close_session",
    "revoke_token",
    "delete_file",
    "move_file",
    "approve_call",
    "deny_call",
    "cordon_worker",
    "uncordon_worker",
    "drain_worker",
];
/// Successes that need more than parameters: another test has archives that come in.
const BEYOND: &[(&str, u16)] = &[("write_archive", 200)];

/// An operation, by its name, and a status.
type Answers = BTreeSet<(String, u16)>;

/// The operations of a description: names, methods and paths.
struct Operations(Vec<(String, String, String)>);

impl Operations {
    fn of(described: &Value) -> (Self, Answers) {
        let (mut operations, mut successes) = (Vec::new(), Answers::new());
        for (path, item) in described["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                let name = operation["operationId"].as_str().expect("a name").to_owned();
                let statuses = operation["responses"].as_object().expect("answers").keys();
                let statuses = statuses.filter_map(|status| status.parse().ok()).filter(|s| (200..300).contains(s));
                successes.extend(statuses.map(|status| (name.clone(), status)));
                operations.push((name, method.to_uppercase(), path.clone()));
            }
        }
        (Self(operations), successes)
    }

    /// Which operation a request was for: the one whose path has the fewest parameters.
    fn named(&self, method: &str, path: &str) -> Option<&str> {
        let fits = |template: &str| {
            let (mut wanted, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (Some("{path}"), Some(_)) | (None, None) => return true,
                    (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let fitting = self.0.iter().filter(|(_, of, template)| of == method && fits(template));
        fitting.min_by_key(|(.., template)| template.matches('{').count()).map(|(name, ..)| name.as_str())
    }
}

/// Runs schemathesis over the description; what was answered with which status.
fn schemathesis(server: &Server, operations: &Operations, config: &str, arguments: &[&str]) -> Answers {
    let outside = server.installation.outside();
    let (file, report) = (outside.join("schemathesis.toml"), outside.join("report.json"));
    std::fs::write(&file, config).expect("a file");
    std::fs::write(outside.join("tar_hook.py"), TAR_HOOK).expect("a file");
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                  response_headers_conformance";
    let output = Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&file)
        .args(["run", &format!("{}/api/openapi.json", server.url)])
        .args(["--header", &format!("Authorization: Bearer {}", server.token), "--checks", checks])
        .args(["--mode", "all", "--max-examples", "5", "--generation-deterministic"])
        .args(["--request-timeout", "60", "--no-color", "--report-har-path"])
        .arg(&report)
        .args(arguments)
        .env("SCHEMATHESIS_HOOKS", "tar_hook")
        .current_dir(outside)
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(&report).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let entries = report["log"]["entries"].as_array().expect("requests").iter();
    let answers = entries.filter_map(|entry| {
        let url = entry["request"]["url"].as_str()?.strip_prefix(server.url.as_str())?;
        let path = url.split(['?', '#']).next()?;
        let status = u16::try_from(entry["response"]["status"].as_u64()?).ok()?;
        Some((operations.named(entry["request"]["method"].as_str()?, path)?.to_owned(), status))
    });
    answers.collect()
}

fn names(answers: &Answers) -> BTreeSet<&str> {
    answers.iter().map(|(name, _)| name.as_str()).collect()
}

/// Calls that wait for approval, and ends them all when dropped.
struct Held(Vec<Child>);

impl Held {
    fn calls(server: &Server, session: &str) -> (Self, Vec<String>) {
        let calls = (0..3).map(|n| {
            let mut call = server.asks(&server.token, &format!("/api/v1/sessions/{session}/files/held/{n}"), &[]);
            call.stdout(Stdio::null()).spawn().expect("curl is there")
        });
        let held = Self(calls.collect());
        let ids = poll_until("they wait", std::time::Duration::from_secs(60), || {
            let listed = server.json("/api/v1/approvals", &[]);
            let listed = listed["approvals"].as_array().expect("approvals").iter();
            let ids: Vec<String> = listed.map(|view| view["id"].as_str().expect("an id").to_owned()).collect();
            (ids.len() == 3).then_some(ids)
        });
        (held, ids)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for call in &mut self.0 {
            let _ended = call.kill();
            let _reaped = call.wait();
        }
    }
}

/// Parameters of one operation.
fn pinned(operation: &str, parameters: &[(&str, Value)]) -> String {
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name:?} = {value}")).collect();
    format!("[[operations]]\ninclude-operation-id = {operation:?}\nparameters = {{ {} }}\n", parameters.join(", "))
}

fn only<'a>(operations: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let named = operations.into_iter().flat_map(|name| ["--include-operation-id", name]);
    ["--phases", "examples,fuzzing"].into_iter().chain(named).collect()
}

#[test]
fn no_answer_is_a_fault_none_is_undocumented_and_every_success_is_as_described() {
    let installation = e2e::Installation::new();
    let policy = installation.outside().join("policy.toml");
    std::fs::write(&policy, POLICY).expect("a file");
    let server = Server::with(installation, &["--policy", policy.to_str().expect("UTF-8")]);
    let (operations, documented) = Operations::of(&server.json("/api/openapi.json", &[]));
    let (session, other) = (server.session(), server.session());
    let files = format!("/api/v1/sessions/{session}/files");
    for name in ["a.txt", "gone.txt", "from.txt"] {
        server.curl(&format!("{files}/{name}"), &["-X", "PUT", "--data-binary", "hello"]);
    }
    let run = json!({"kind": "python", "code": "print(6 * 7)"});
    let task = server.post(&format!("/api/v1/sessions/{session}/tasks?wait=60"), &run)["task_id"].clone();
    let token = server.post("/api/v1/tokens", &json!({"principal": "bob", "scopes": ["tools"]}))["id"].clone();
    let (_held, approvals) = Held::calls(&server, &session);
    let everywhere = format!(
        "[parameters]\n\"path.session_id\" = {session:?}\n\"path.task_id\" = {task}\n\"path.path\" = \"a.txt\"\n\
         \"path.worker_id\" = \"embedded\"\n\"path.approval_id\" = {:?}\n\"query.for_seconds\" = 1\n\"query.wait\" = 1\n",
        approvals[0]
    );
    let without = APART.iter().flat_map(|name| ["--exclude-operation-id", name]);
    let thorough: Vec<&str> = ["--phases", "examples,coverage,fuzzing"].into_iter().chain(without).collect();
    let mut seen = schemathesis(&server, &operations, &everywhere, &thorough);
    assert_eq!(names(&seen).len(), operations.0.len() - APART.len(), "every operation is tested: {seen:?}");

    let apart = [
        everywhere.clone(),
        pinned("close_session", &[("path.session_id", json!(other))]),
        pinned("revoke_token", &[("path.token_id", token)]),
        pinned("delete_file", &[("path.path", json!("gone.txt"))]),
        pinned("write_file", &[("path.path", json!("new.txt"))]),
        pinned("read_file", &[("header.range", json!("bytes=0-1"))]),
        pinned("move_file", &[("body.from", json!("from.txt")), ("body.to", json!("to.txt"))]),
        pinned("approve_call", &[("path.approval_id", json!(approvals[1]))]),
        pinned("deny_call", &[("path.approval_id", json!(approvals[2]))]),
        pinned("create_task", &[("query.wait", json!(0))]),
        pinned("create_token", &[("body.principal", json!("eve")), ("body.scopes", json!(["tools"]))]),
    ];
    let again = ["write_file", "read_file", "create_task", "create_token"];
    let once = APART.into_iter().filter(|name| !name.ends_with("_worker"));
    seen.append(&mut schemathesis(&server, &operations, &apart.concat(), &only(once.chain(again))));
    let of_worker = ["cordon_worker", "drain_worker", "uncordon_worker", "get_worker"];
    seen.append(&mut schemathesis(&server, &operations, &everywhere, &only(of_worker)));
    let beyond: Answers = BEYOND.iter().map(|(name, status)| ((*name).to_owned(), *status)).collect();
    let missed: Vec<_> = documented.difference(&seen).filter(|answer| !beyond.contains(answer)).collect();
    assert!(missed.is_empty(), "{missed:?} were never answered");

    // Of a worker that is gone an operator's word is left.
    server.curl("/api/v1/workers/embedded/cordon", &["-X", "POST"]);
    let server = Server::with(server.end(), &["--no-embedded-worker"]);
    assert_eq!(server.json("/api/v1/workers/embedded", &[])["state"], "gone");
    let of_gone = ["list_workers", "get_worker", "cordon_worker", "drain_worker"];
    let seen = schemathesis(&server, &operations, &everywhere, &only(of_gone));
    assert!(of_gone.iter().all(|name| seen.contains(&((*name).to_owned(), 200))), "{seen:?}");
}
