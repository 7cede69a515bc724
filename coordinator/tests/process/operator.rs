//! The operator's commands, and what wrong usage gives.

use std::process::Output;

use serde_json::Value;

use crate::front::Place;

fn run(place: &Place, args: &[&str]) -> Output {
    place.command(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_version_is_name_and_number() {
    let output = run(&Place::new(), &["--version"]);
    assert_eq!(text(&output.stdout), format!("coordinator {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_told_on_stderr_alone() {
    let place = Place::new();
    for args in [&["--no-such-flag"][..], &["no-such-command"], &["--isolation-minimum", "none"], &["--grpc-port", "x"]]
    {
        let output = run(&place, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn config_show_names_the_source_of_each_value() {
    let place = Place::new();
    let output = run(&place, &["--tool-names", "dotted", "config", "show", "--json"]);
    assert!(output.status.success());
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let source = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}"));
        (row["value"].as_str().unwrap().to_owned(), row["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(source("tool_names"), ("dotted".to_owned(), "flag --tool-names".to_owned()));
    assert_eq!(source("grpc_port"), ("0".to_owned(), "environment GRPC_PORT".to_owned()));
    assert_eq!(source("session_max_age"), ("30m".to_owned(), "default".to_owned()));
    let shown = text(&run(&place, &["config", "show"]).stdout);
    assert!(shown.lines().any(|line| line.starts_with("limits.memory_bytes") && line.ends_with("(default)")));
}

#[test]
fn doctor_changes_nothing_and_its_code_agrees_with_its_words() {
    let place = Place::new();
    let output = run(&place, &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let problems = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "problem").count();
    assert_eq!(report["ok"], problems == 0);
    assert_eq!(output.status.code(), Some(i32::from(problems > 0)));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    for name in ["isolation", "python", "state", "server", "grpc port", "disk", "audit log"] {
        assert!(report["checks"].as_array().unwrap().iter().any(|check| check["name"] == name), "{name}");
    }
}

#[test]
fn doctor_names_the_running_server_and_what_is_wrong_with_a_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let _front = place.client();
    let server = place.server().unwrap();
    let said = text(&run(&place, &["doctor"]).stdout);
    assert!(said.contains(&format!("process {server}")), "{said}");
    let open = Place::new();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = run(&open, &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("chmod 700"));
}
