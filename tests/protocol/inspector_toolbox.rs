//! The toolbox through MCP Inspector `--cli`, in both eras.
//!
//! Its command line makes one request of a few kinds and leaves: it completes nothing, follows no changes, cancels no call
//! and asks for no task by itself. The suites of PyPI `mcp` do all of that, and a test here says when the Inspector can.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{poll_until, wheel};
use serde_json::{Value, json};

use crate::inspector::{Inspector, LEGACY, MODERN, a_file_is_written, begun, each, says, text, together};

const TESTS: &str = "import unittest, greeting\n\
    class Greets(unittest.TestCase):\n    \
        def test_right(self): self.assertEqual(greeting.VERSION, '1.0')\n    \
        def test_wrong(self): self.assertEqual(greeting.VERSION, '2.0')\n";
const DRAWS: &str = "class Plot:\n    \
        def _repr_svg_(self): return \"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>\"\nPlot()";
/// Longer than the call that starts it waits.
const LONG: &str = "import os, time\nprint('begun')\nwhile not os.path.exists('go'): time.sleep(0.05)\n\
    time.sleep(0.6)\nprint(6 * 7)";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_toolbox_works_through_the_inspector_with_a_handshake() {
    let inspector = Inspector::of(LEGACY);
    let session = toolbox(&inspector, "2025-11-25");
    a_long_call_yields_and_is_waited_for(&inspector, &session);
}

#[test]
fn the_toolbox_works_through_the_inspector_without_a_handshake() {
    let inspector = Inspector::of(MODERN);
    let session = toolbox(&inspector, "2026-07-28");
    a_long_call_becomes_a_task_that_the_inspector_follows(&inspector, &session);
}

#[test]
fn what_the_inspector_s_command_line_cannot_ask_for_is_what_is_said_above() {
    let inspector = Inspector::of(LEGACY);
    let refused = |method: &str| {
        let output = inspector.run(&["--method", method]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Unsupported method"), "it can ask for {method} now: {output:?}");
    };
    together(&[&|| refused("prompts/complete"), &|| refused("resources/subscribe"), &|| refused("tasks/list")]);
}

/// Gives the session that all of it ran in.
fn toolbox(inspector: &Inspector, revision: &str) -> String {
    let made = inspector.call("session_create", json!({"name": "toolbox"}));
    let session = made["structuredContent"]["session_id"].as_str().expect("a handle");
    together(&[
        &|| the_server_says_who_it_is(inspector, revision),
        &|| a_wheel_of_the_workspace_is_installed(inspector, session),
        &|| a_file_is_written(inspector, session, "checks/test_greeting.py", TESTS),
        &|| a_file_is_written(inspector, session, "src/a.py", "def one():\n    return 1\n"),
        &|| a_plot_is_a_picture(inspector, session),
    ]);
    together(&[
        &|| tests_are_counted(inspector, session),
        &|| a_file_is_edited_and_what_is_not_there_is_told(inspector, session),
        &|| broken_syntax_is_found(inspector, session),
        &|| artifacts_are_listed_and_read(inspector, session),
        &|| resources_are_those_of_sessions_that_a_connection_used(inspector),
    ]);
    let found = inspector.call("fs_search", json!({"session_id": session, "pattern": r"return \d", "glob": "*.py"}));
    says(&found, "src/a.py:2");
    assert!(text(&found).contains("return 2"), "{found}");
    session.to_owned()
}

fn the_server_says_who_it_is(inspector: &Inspector, revision: &str) {
    let about = inspector.ask("initialize", &[]);
    assert_eq!(about["protocolVersion"], revision, "{about}");
    let instructions = about["instructions"].as_str().expect("instructions");
    assert!(instructions.contains("session_create") && instructions.len() < 2_000, "{instructions}");
}

fn a_wheel_of_the_workspace_is_installed(inspector: &Inspector, session: &str) {
    let path = "dist/greeting-1.0-py3-none-any.whl";
    let contents = STANDARD.encode(wheel("greeting", "1.0", ""));
    let write = json!({"session_id": session, "path": path, "contents": contents, "encoding": "base64"});
    inspector.call("fs_write", write);
    says(&inspector.call("pkg_install", json!({"session_id": session, "packages": [path]})), "installed greeting 1.0");
    let listed = inspector.call("pkg_list", json!({"session_id": session}));
    assert_eq!(each(&listed["structuredContent"]["packages"], "name"), ["greeting"], "{listed}");
}

fn a_plot_is_a_picture(inspector: &Inspector, session: &str) {
    let drawn = inspector.call("run_python", json!({"session_id": session, "code": DRAWS}));
    let pictures = each(&drawn["content"], "mimeType");
    assert_eq!(pictures, ["image/png"], "{drawn}");
    let picture = drawn["content"].as_array().into_iter().flatten().find(|block| block["type"] == "image");
    let data = picture.and_then(|block| block["data"].as_str()).expect("a picture");
    assert!(STANDARD.decode(data).expect("base64").starts_with(b"\x89PNG"));
}

fn tests_are_counted(inspector: &Inspector, session: &str) {
    let failed = inspector.failing("test_run", json!({"session_id": session, "path": "checks"}));
    assert!(failed.contains("1 failed, 1 passed") && failed.contains("at checks/test_greeting.py:4"), "{failed}");
}

fn a_file_is_edited_and_what_is_not_there_is_told(inspector: &Inspector, session: &str) {
    let edit = json!({"session_id": session, "path": "src/a.py", "old": "return 1", "new": "return 2"});
    inspector.call("fs_edit", edit.clone());
    let again = inspector.failing("fs_edit", edit);
    assert!(again.contains("PRECONDITION_FAILED"), "{again}");
}

fn broken_syntax_is_found(inspector: &Inspector, session: &str) {
    a_file_is_written(inspector, session, "broken/b.py", "def f(:\n");
    let found = inspector.failing("lint_check", json!({"session_id": session, "path": "broken"}));
    assert!(found.contains("broken/b.py:1"), "{found}");
}

fn artifacts_are_listed_and_read(inspector: &Inspector, session: &str) {
    let listed = inspector.call("artifact_list", json!({"session_id": session}));
    let paths = each(&listed["structuredContent"]["artifacts"], "path");
    let [path] = paths[..] else { panic!("the plot alone: {listed}") };
    let got = inspector.call("artifact_get", json!({"session_id": session, "path": path}));
    assert!(path.ends_with(".svg") && text(&got).contains("<svg"), "{got}");
}

/// This one is for the list alone.
fn resources_are_those_of_sessions_that_a_connection_used(inspector: &Inspector) {
    assert_eq!(inspector.ask("resources/list", &[])["resources"], json!([]));
}

fn a_long_call_yields_and_is_waited_for(inspector: &Inspector, session: &str) {
    let task = begun(inspector, "run_python", long(session));
    together(&[
        &|| says(&inspector.call("task_wait", json!({"task_id": task, "timeout_seconds": 40})), "begun\n42"),
        &|| a_file_is_written(inspector, session, "go", ""),
    ]);
}

/// In the Tasks extension the call that yields is answered with its task, whose result the Inspector asks for.
fn a_long_call_becomes_a_task_that_the_inspector_follows(inspector: &Inspector, session: &str) {
    together(&[&|| says(&inspector.call("run_python", long(session)), "begun\n42"), &|| {
        poll_until("it runs", PATIENCE, || running(inspector, session).then_some(()));
        a_file_is_written(inspector, session, "go", "");
    }]);
}

fn long(session: &str) -> Value {
    json!({"session_id": session, "code": LONG, "yield_after_seconds": 0.3, "timeout_seconds": 600})
}

fn running(inspector: &Inspector, session: &str) -> bool {
    let listed = inspector.call("task_list", json!({"session_id": session, "state": "running"}));
    listed["structuredContent"]["tasks"].as_array().is_some_and(|tasks| !tasks.is_empty())
}
