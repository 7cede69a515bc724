//! The protocol's own conformance suite, against the fixture: every scored scenario of each revision passes, and none of
//! them by checking nothing. No failure is expected.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// What the suite checks of every answer in passing, whatever the scenario. It alone is no check of the scenario.
const OF_EVERY_SCENARIO: &str = "wire-schema-valid";

/// The fixture. Dropping it ends it.
struct Fixture {
    child: Child,
    url: String,
}

impl Fixture {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conformance-fixture"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the fixture starts");
        let mut url = String::new();
        let stdout = child.stdout.take().expect("a pipe was asked for");
        BufReader::new(stdout).read_line(&mut url).expect("it says where it is");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The suite, as `make` installs it.
struct Suite {
    command: PathBuf,
}

impl Suite {
    fn find() -> Self {
        let command = std::env::var("CODEGEN_TEST_CONFORMANCE").expect("`make test` gets and names the suite");
        Self { command: command.into() }
    }

    /// The scenarios that a server of this revision must pass, as the suite lists them.
    fn scored(&self, revision: &str) -> Vec<String> {
        let package = self.command.parent().and_then(Path::parent).expect("ENVIRONMENT/bin/COMMAND");
        let requirements = package.join("node_modules/@modelcontextprotocol/conformance/requirements");
        let text = fs::read_to_string(requirements.join(format!("{revision}.yaml"))).expect("the revision's list");
        let section = text.lines().skip_while(|line| *line != "server:").skip(1);
        section.map_while(|line| line.strip_prefix("  - ")).map(str::to_owned).collect()
    }

    /// Runs every scenario of a revision, and gives the outcomes of the checks of each.
    fn run(&self, url: &str, revision: &str) -> BTreeMap<String, Vec<Check>> {
        let results = tempfile::tempdir().expect("a directory");
        let output = Command::new(&self.command)
            .args(["server", "--url", url, "--requirements", revision, "--output-dir"])
            .arg(results.path())
            .env("HOME", results.path())
            .current_dir(results.path())
            .output()
            .expect("the suite starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        let directories = fs::read_dir(results.path()).expect("results").map(|entry| entry.expect("an entry").path());
        directories.filter(|directory| directory.join("checks.json").exists()).map(|at| read(&at)).collect()
    }
}

struct Check {
    id: String,
    status: String,
    message: String,
}

/// The scenario's name, and its checks. Directories are named `server-SCENARIO-2026-01-01T00-00-00-000Z`.
fn read(directory: &Path) -> (String, Vec<Check>) {
    let name = directory.file_name().and_then(|name| name.to_str()).expect("a name");
    let (name, _time) = name.split_at(name.len() - "-2026-01-01T00-00-00-000Z".len());
    let scenario = name.strip_prefix("server-").expect("a scenario of a server").to_owned();
    let text = fs::read_to_string(directory.join("checks.json")).expect("checks");
    let checks: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let field = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let check =
        |check| Check { id: field(check, "id"), status: field(check, "status"), message: field(check, "errorMessage") };
    (scenario, checks.iter().map(check).collect())
}

/// Holds the fixture to the scored scenarios of a revision, in which at least so many checks pass, and to some that the suite
/// runs without scoring them.
fn passes(revision: &str, checks_min: usize, unscored: &[&str]) {
    let (suite, fixture) = (Suite::find(), Fixture::start());
    let mut wanted = suite.scored(revision);
    let scored = wanted.len();
    assert!(scored >= 30, "the list of {revision} is another than it was: {wanted:?}");
    wanted.extend(unscored.iter().map(|scenario| (*scenario).to_owned()));
    let results = suite.run(&fixture.url, revision);
    let (mut table, mut failed, mut passed) = (String::new(), String::new(), 0);
    for (at, scenario) in wanted.iter().enumerate() {
        let checks = results.get(scenario).map(Vec::as_slice).unwrap_or_default();
        let of = |status: &str| checks.iter().filter(|check| check.status == status).count();
        let (good, bad) = (of("SUCCESS"), of("FAILURE") + of("WARNING"));
        passed += if at < scored { good } else { 0 };
        writeln!(table, "{revision} {scenario:<48} {good:>3} passed {bad:>3} failed").expect("memory");
        if !checks.iter().any(|check| check.status == "SUCCESS" && check.id != OF_EVERY_SCENARIO) {
            writeln!(failed, "{scenario}: nothing was checked").expect("memory");
        }
        for check in checks.iter().filter(|check| matches!(check.status.as_str(), "FAILURE" | "WARNING")) {
            writeln!(failed, "{scenario}: {}: {}", check.id, check.message).expect("memory");
        }
    }
    eprintln!("{table}{revision}: {scored} scored scenarios, {passed} of their checks passed");
    assert!(failed.is_empty(), "{failed}");
    assert!(passed >= checks_min, "{revision}: only {passed} of {checks_min} checks were made\n{table}");
}

#[test]
fn every_scored_scenario_of_2025_11_25_passes() {
    passes("2025-11-25", 70, &["json-schema-2020-12", "server-session-lifecycle", "server-sse-polling"]);
}

#[test]
fn every_scored_scenario_of_2026_07_28_passes() {
    passes(
        "2026-07-28",
        120,
        &["http-custom-header-server-validation", "http-header-validation", "json-schema-2020-12"],
    );
}
