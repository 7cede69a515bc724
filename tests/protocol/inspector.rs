//! The main flows through MCP Inspector (npm `@modelcontextprotocol/inspector --cli`), in both eras that it speaks:
//! `legacy` greets with `initialize` and 2025-11-25, `modern` is stateless and 2026-07-28.
//!
//! Every request is a process and a connection of its own, as in a shell script, so what a flow keeps is kept by
//! handles alone.

use std::process::{Command, Output};
use std::thread;

use e2e::Installation;
use serde_json::{Value, json};

/// The exit code of the Inspector when a tool's result says that the call failed.
const TOOL_ERROR: i32 = 5;

/// The command that `make test` prepares.
fn inspector() -> String {
    std::env::var("CODEGEN_TEST_INSPECTOR")
        .expect("CODEGEN_TEST_INSPECTOR names the command of MCP Inspector; `make test` gets and names it")
}

/// How the Inspector is told to speak, and what it then says on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    name: &'static str,
    said: &'static str,
}

pub const LEGACY: Era =
    Era { name: "legacy", said: r#""method":"initialize","params":{"protocolVersion":"2025-11-25""# };
pub const MODERN: Era = Era { name: "modern", said: r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""# };

pub struct Inspector {
    installation: Installation,
    era: Era,
}

impl Inspector {
    pub fn of(era: Era) -> Self {
        Self { installation: Installation::new(), era }
    }

    /// Runs it on the server that `target` starts.
    fn run_on(&self, target: &[&str], arguments: &[&str]) -> Output {
        let (home, state) = (self.installation.outside(), self.installation.state_dir());
        Command::new(inspector())
            .args(["--cli", "--format", "json", "--connect-timeout", "60000", "--protocol-era", self.era.name])
            .args(arguments)
            .arg("--")
            .args(target)
            .arg("--state-dir")
            .arg(state)
            .env("HOME", home)
            .output()
            .expect("the Inspector starts")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let binary = self.installation.binary();
        self.run_on(&[binary.to_str().expect("a path in UTF-8")], arguments)
    }

    /// The result of a request that succeeds.
    #[track_caller]
    pub fn ask(&self, method: &str, arguments: &[&str]) -> Value {
        succeeded(&self.run(&[&["--method", method], arguments].concat()))
    }

    fn tool(&self, name: &str, arguments: &Value) -> Output {
        self.run(&["--method", "tools/call", "--tool-name", name, "--tool-args-json", &arguments.to_string()])
    }

    /// The result of a tool call that succeeds.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        succeeded(&self.tool(tool, &arguments))
    }

    /// The text of a tool call whose result says that it failed; the Inspector must see that, too.
    #[track_caller]
    pub fn failing(&self, tool: &str, arguments: Value) -> String {
        let output = self.tool(tool, &arguments);
        assert_eq!(output.status.code(), Some(TOOL_ERROR), "{tool}: {output:?}");
        text(&result(&output))
    }
}

#[track_caller]
fn succeeded(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    result(output)
}

#[track_caller]
fn result(output: &Output) -> Value {
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    printed["result"].clone()
}

/// All text blocks of a tool's result.
pub fn text(result: &Value) -> String {
    let blocks = result["content"].as_array().into_iter().flatten();
    blocks.filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
pub fn says(result: &Value, words: &str) {
    assert!(text(result).contains(words), "expected {words:?}: {result}");
}

/// The values of `field` in a list of objects.
pub fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|item| item[field].as_str()).collect()
}

/// Runs steps that do not need each other, at the same time: most of what the Inspector takes is its own start.
pub fn together(steps: &[&(dyn Fn() + Sync)]) {
    thread::scope(|scope| {
        for step in steps {
            scope.spawn(step);
        }
    });
}

#[test]
fn the_flows_work_through_the_inspector_with_a_handshake() {
    let inspector = Inspector::of(LEGACY);
    let session = flows(&inspector);
    tasks_in_words(&inspector, &session);
}

#[test]
fn the_flows_work_through_the_inspector_without_a_handshake() {
    let inspector = Inspector::of(MODERN);
    let session = flows(&inspector);
    a_task_is_followed(&inspector, &session);
}

/// The flows that need no task; gives the session they ran in.
fn flows(inspector: &Inspector) -> String {
    let made = inspector.call("session_create", json!({"name": "inspected"}));
    let session = made["structuredContent"]["session_id"].as_str().expect("a handle");
    together(&[
        &|| tools_are_listed(inspector),
        &|| prompts_are_listed(inspector),
        &|| a_prompt_is_written(inspector),
        &|| templates_are_listed(inspector),
        &|| a_file_is_written(inspector, session, "a/b.txt", "héllo"),
        &|| drop(inspector.call("run_python", json!({"session_id": session, "code": "x = 40", "kernel": "k"}))),
    ]);
    together(&[
        &|| a_file_is_read_as_a_resource(inspector, session),
        &|| a_program_reads_the_file(inspector, session),
        &|| a_shell_command_fails_with_its_exit_code(inspector, session),
        &|| a_path_is_refused(inspector, session),
        &|| a_resource_of_nobody_is_refused(inspector),
        &|| a_kernel_still_knows_its_variables(inspector, session),
    ]);
    session.to_owned()
}

/// In the Tasks extension the Inspector is given the task and asks for its result until it is there.
fn a_task_is_followed(inspector: &Inspector, session: &str) {
    let code = "import time\nprint('begun')\ntime.sleep(0.5)\nprint(6 * 7)";
    let ended = inspector.call("run_python", json!({"session_id": session, "code": code, "background": true}));
    says(&ended, "42");
}

/// Without the extension a task is told of in words, and other tools look after it.
fn tasks_in_words(inspector: &Inspector, session: &str) {
    let waits = "import os, time\nprint('begun')\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint(6 * 7)";
    let ends = json!({"session_id": session, "code": waits, "background": true, "timeout_seconds": 600});
    let endless = json!({"session_id": session, "command": "sleep 500", "background": true, "timeout_seconds": 600});
    let (ends, endless) = thread::scope(|scope| {
        let ends = scope.spawn(|| begun(inspector, "run_python", ends));
        let endless = scope.spawn(|| begun(inspector, "run_shell", endless));
        (ends.join().expect("a task"), endless.join().expect("a task"))
    });
    together(&[
        &|| a_task_is_waited_for(inspector, &ends),
        &|| a_file_is_written(inspector, session, "go", ""),
        &|| a_task_is_cancelled(inspector, &endless),
    ]);
    tasks_are_listed(inspector, session, &[(&ends, "finished"), (&endless, "failed")]);
}

/// The task of a call that goes on in the background.
pub fn begun(inspector: &Inspector, tool: &str, arguments: Value) -> String {
    let answer = inspector.call(tool, arguments);
    says(&answer, "still running");
    answer["_meta"]["codegen/task_id"].as_str().expect("a task").to_owned()
}

/// With `--strict` the Inspector refuses schemas that other clients could not use.
fn tools_are_listed(inspector: &Inspector) {
    let wire = inspector.installation.outside().join("wire");
    let wire = wire.to_str().expect("a path in UTF-8");
    let binary = inspector.installation.binary();
    let copied = ["sh", "-c", r#"tee "$0" | "$@""#, wire, binary.to_str().expect("a path in UTF-8")];
    let listed = succeeded(&inspector.run_on(&copied, &["--method", "tools/list", "--strict"]));
    let names = each(&listed["tools"], "name");
    for name in ["session_create", "fs_write", "run_python", "run_shell", "kernel_list", "pkg_install", "task_wait"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let said = std::fs::read_to_string(wire).expect("what the Inspector said");
    assert!(said.contains(inspector.era.said), "the Inspector spoke in another era: {said}");
}

fn prompts_are_listed(inspector: &Inspector) {
    let listed = inspector.ask("prompts/list", &[]);
    assert!(each(&listed["prompts"], "name").contains(&"analyse_data"), "{listed}");
}

fn a_prompt_is_written(inspector: &Inspector) {
    let arguments = ["--prompt-name", "analyse_data", "--prompt-args", "file=a/b.txt"];
    let prompt = inspector.ask("prompts/get", &arguments);
    let written = prompt["messages"][0]["content"]["text"].as_str().expect("a text");
    assert!(written.contains("a/b.txt"), "{written}");
}

fn templates_are_listed(inspector: &Inspector) {
    let listed = inspector.ask("resources/templates/list", &[]);
    let templates = each(&listed["resourceTemplates"], "uriTemplate");
    assert!(templates.iter().any(|template| template.starts_with("workspace://{session}/")), "{listed}");
}

pub fn a_file_is_written(inspector: &Inspector, session: &str, path: &str, contents: &str) {
    inspector.call("fs_write", json!({"session_id": session, "path": path, "contents": contents}));
}

fn a_file_is_read_as_a_resource(inspector: &Inspector, session: &str) {
    let read = inspector.ask("resources/read", &["--uri", &format!("workspace://{session}/a/b.txt")]);
    assert_eq!(read["contents"][0]["text"], "héllo", "{read}");
}

fn a_program_reads_the_file(inspector: &Inspector, session: &str) {
    let code = "print(open('a/b.txt').read() * 2)";
    says(&inspector.call("run_python", json!({"session_id": session, "code": code})), "héllohéllo");
}

fn a_shell_command_fails_with_its_exit_code(inspector: &Inspector, session: &str) {
    let command = "cat a/b.txt | wc -c; exit 3";
    let failed = inspector.failing("run_shell", json!({"session_id": session, "command": command}));
    assert!(failed.starts_with("exit 3 ") && failed.contains("stdout:\n6"), "{failed}");
}

fn a_path_is_refused(inspector: &Inspector, session: &str) {
    let refused = inspector.failing("fs_read", json!({"session_id": session, "path": "../../etc/passwd"}));
    assert!(refused.contains("PATH_VIOLATION"), "{refused}");
}

fn a_resource_of_nobody_is_refused(inspector: &Inspector) {
    let nobody = "workspace://ses_00000000000000000000000000000000/a/b.txt";
    let output = inspector.run(&["--method", "resources/read", "--uri", nobody]);
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && refused.contains("SESSION_NOT_FOUND"), "{output:?}");
}

fn a_kernel_still_knows_its_variables(inspector: &Inspector, session: &str) {
    says(&inspector.call("run_python", json!({"session_id": session, "code": "x + 2", "kernel": "k"})), "42");
}

fn a_task_is_waited_for(inspector: &Inspector, task: &str) {
    let ended = inspector.call("task_wait", json!({"task_id": task, "timeout_seconds": 40}));
    says(&ended, "42");
    says(&inspector.call("task_logs", json!({"task_id": task, "grep": "beg"})), "begun");
}

fn a_task_is_cancelled(inspector: &Inspector, task: &str) {
    let running = inspector.call("task_status", json!({"task_id": task}));
    assert_eq!(running["structuredContent"]["state"], "running", "{running}");
    let cancelled = inspector.call("task_cancel", json!({"task_id": task}));
    assert_eq!(cancelled["structuredContent"]["code"], "TASK_CANCELLED", "{cancelled}");
}

fn tasks_are_listed(inspector: &Inspector, session: &str, expected: &[(&str, &str)]) {
    let listed = inspector.call("task_list", json!({"session_id": session}));
    let tasks = listed["structuredContent"]["tasks"].as_array().expect("tasks");
    for (task, state) in expected {
        let found = tasks.iter().find(|one| one["task_id"] == *task);
        assert_eq!(found.map(|one| &one["state"]), Some(&json!(state)), "{listed}");
    }
}
