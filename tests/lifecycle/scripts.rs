//! More than Python: command lines, and interpreters that are rows of the worker's table.

use e2e::{Installation, User};
use serde_json::json;

/// Whether the host has an interpreter where a sandbox sees it; a test that needs one it lacks says so by name.
fn host_has(interpreter: &str) -> bool {
    let has =
        ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|dir| std::path::Path::new(dir).join(interpreter).exists());
    if !has {
        eprintln!("SKIPPED: this host has no {interpreter}");
    }
    has
}

#[test]
fn node_runs_with_arguments_input_exit_code_and_its_own_modules() {
    if !host_has("node") {
        return;
    }
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let code = "const fs = require('fs');\n\
                    console.log(JSON.stringify([process.argv.slice(1), fs.readFileSync(0, 'utf8'), process.env.X]));\n\
                    process.exitCode = 3;";
        let arguments =
            json!({"runtime": "node", "code": code, "args": ["-a", "b c"], "stdin": "in", "env": {"X": "y"}});
        let answer = client.tool("run_code", arguments);
        assert!(answer.failed().starts_with("exit 3 in "), "{}", answer.text);
        assert!(answer.text.contains(r#"[["-a","b c"],"in","y"]"#), "{}", answer.text);

        client.tool("fs_write", json!({"path": "lib.js", "contents": "exports.six = 6"})).ok();
        let main = "console.log(require('./lib').six * 7, process.argv.slice(2)); throw new Error('boom')";
        client.tool("fs_write", json!({"path": "-e.js", "contents": main})).ok();
        let answer = client.tool("run_code", json!({"runtime": "node", "file": "-e.js", "args": ["--version"]}));
        assert!(answer.failed().contains("42 [ '--version' ]"), "{}", answer.text);
        assert!(answer.text.contains("Error: boom\n    at "), "{}", answer.text);
    }
}

#[test]
fn node_has_threads_web_assembly_and_child_processes_under_the_sandboxs_limits() {
    if !host_has("node") {
        return;
    }
    for user in User::all() {
        let installation = Installation::for_user(user);
        let code = "const { Worker } = require('worker_threads');\n\
                    new Worker('console.log(\"thread\")', { eval: true }).on('exit', () => {\n\
                      console.log(require('child_process').execSync('echo child').toString());\n\
                    });\n\
                    new WebAssembly.Memory({ initial: 1, maximum: 65536 });\n\
                    console.log('blocks', Array.from({ length: 20 }, () => new ArrayBuffer(1e7)).length);";
        let answer = installation.client().tool("run_code", json!({"runtime": "node", "code": code}));
        for word in ["thread", "child", "blocks 20"] {
            assert!(answer.ok().contains(word), "{word}: {}", answer.text);
        }
    }
}

#[test]
fn perl_runs_text_and_files() {
    if !host_has("perl") {
        return;
    }
    let installation = Installation::new();
    let mut client = installation.client();
    let answer =
        client.tool("run_code", json!({"runtime": "perl", "code": "print \"@ARGV\\n\"; exit 4", "args": ["-v"]}));
    assert!(answer.failed().starts_with("exit 4 in "), "{}", answer.text);
    assert!(answer.text.contains("\n-v"), "{}", answer.text);
    client.tool("fs_write", json!({"path": "a.pl", "contents": "print 6 * 7, ' ', <STDIN>"})).ok();
    assert!(client.tool("run_code", json!({"runtime": "perl", "file": "a.pl", "stdin": "in"})).ok().contains("42 in"));
}

#[test]
fn runtimes_are_listed_and_a_missing_one_is_refused_with_those_that_are_there() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("run_shell", json!({"command": "true"})).ok();
    let info = client.tool("session_info", json!({}));
    let names: Vec<&str> =
        info.structured["runtimes"].as_array().into_iter().flatten().filter_map(|row| row["name"].as_str()).collect();
    assert!(names.starts_with(&["python", "shell"]), "{names:?}");
    assert!(info.ok().contains("runtimes: python 3."), "{}", info.text);
    let refused = client.tool("run_code", json!({"runtime": "cobol", "code": "STOP RUN."}));
    for name in names.iter().filter(|name| !["python", "shell"].contains(name)) {
        assert!(refused.code("NOT_FOUND").contains(name), "{}", refused.text);
    }
    assert!(client.tool("run_code", json!({"runtime": "bash", "code": "x"})).code("NOT_FOUND").contains("run_shell"));
    let report = installation.run(["doctor"]);
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(names.iter().skip(1).all(|name| text.contains(name)), "{text}");
}

#[test]
fn a_pipeline_ends_with_the_code_of_its_last_command_and_each_stage_gets_the_one_before() {
    let installation = Installation::new();
    let mut client = installation.client();
    let pipe = "tr a-z A-Z | sort | head -n 2";
    assert!(client.tool("run_shell", json!({"command": pipe, "stdin": "b\nc\na\n"})).ok().contains("stdout:\nA\nB"));
    assert!(client.tool("run_shell", json!({"command": "exit 3 | true"})).ok().starts_with("exit 0 in "));
    assert!(client.tool("run_shell", json!({"command": "true | exit 3"})).failed().starts_with("exit 3 in "));
    assert!(
        client.tool("run_shell", json!({"command": "kill -SEGV $$"})).failed().starts_with("killed by SIGSEGV in ")
    );
    assert!(client.tool("run_shell", json!({"command": "no-such-command"})).failed().starts_with("exit 127 in "));
    // A writer whose reader has left is ended, as in a terminal.
    assert!(client.tool("run_shell", json!({"command": "yes | head -n 1"})).ok().contains("stdout:\ny"));
}

#[test]
fn input_is_empty_unless_it_is_given_and_what_stays_in_the_background_is_ended() {
    let installation = Installation::new();
    let mut client = installation.client();
    assert!(client.tool("run_shell", json!({"command": "cat; echo end"})).ok().contains("stdout:\nend"));
    let answer = client.tool("run_shell", json!({"command": "sleep 600 & echo on", "timeout_seconds": 30}));
    assert!(answer.ok().contains("1 process it left running was ended"), "{}", answer.text);
    assert!(answer.text.contains("stdout:\non"), "{}", answer.text);
}
