//! The policy through an independent client and the operator's commands.

use std::path::Path;

use e2e::{Installation, all_passes, suite};
use serde_json::{Value, json};

/// The README's example of a policy.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).expect("a README");
    let (_, section) = readme.split_once("## Policy and approvals").expect("a section");
    let (_, example) = section.split_once("```toml\n").expect("an example");
    example.split_once("```").expect("its end").0.to_owned()
}

fn with_policy(text: &str) -> (Installation, String) {
    let installation = Installation::new();
    let path = installation.outside().join("policy.toml");
    std::fs::write(&path, text).expect("a directory of ours");
    (installation, path.to_str().expect("UTF-8").to_owned())
}

#[test]
fn calls_are_approved_and_declined_through_an_independent_client_and_the_operator_s_command() {
    all_passes(&mut suite(&Installation::new(), "protocol/test_policy.py"));
}

#[test]
fn the_readme_s_policy_is_one_and_means_what_it_says() {
    let (installation, policy) = with_policy(&example());
    let checked = installation.run(["policy", "check", &policy, "--json"]);
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert!(checked.status.success() && report["errors"] == json!([]), "{report}");
    let explain = |arguments: &[&str]| -> Value {
        let all = [&["--policy", policy.as_str(), "policy", "explain", "--json"], arguments].concat();
        let output = installation.run(&all);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    for (arguments, effect, rule) in [
        (&["--principal", "ann", "--tool", "fs_read", "--path", "./Secrets//key"][..], "deny", json!("secrets")),
        (&["--principal", "ann", "--tool", "fs.read", "--path", "..secrets/key"], "allow", json!(null)),
        (&["--principal", "intern/bo", "--tool", "run.shell"], "require_approval", json!("interns' shells")),
        (&["--principal", "ann", "--tool", "run_shell"], "allow", json!(null)),
        (
            &["--principal", "ann", "--tool", "pkg_install", "--package", "six", "--package", "Torch"],
            "require_approval",
            json!("heavy packages"),
        ),
    ] {
        let said = explain(arguments);
        assert_eq!((&said["effect"], &said["rule"]["name"]), (&json!(effect), &rule), "{arguments:?}: {said}");
    }
}

#[test]
fn a_bad_policy_is_refused_with_its_lines_and_no_server_starts_under_it() {
    let (installation, policy) =
        with_policy("default = 'allow'\n[[rule]]\nname = 'a'\neffect = 'deny'\npath = '../x'\n");
    let checked = installation.run(["policy", "check", &policy]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.code() == Some(1) && said.contains("policy.toml:5: error: `path`"), "{said}");
    let served = installation.run(["--policy", &policy, "--grpc-port", "0", "serve"]);
    let said = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(!served.status.success() && said.contains("line 5: `path`"), "{said}");
}

#[test]
fn a_rule_about_paths_that_code_can_get_around_is_warned_of() {
    let (installation, policy) = with_policy("[[rule]]\nname = 'a'\neffect = 'deny'\npath = 'x/**'\n");
    let checked = installation.run(["policy", "check", &policy]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && said.contains("what a program does inside its own process is not seen"),
        "{said}"
    );
}
