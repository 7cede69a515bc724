//! What a report looks like to the model that asked for it.

use std::fmt::Write;

use codegen_types::event::Display;
use serde_json::{Value, json};

use super::super::words;
use super::claims::{Counts, Failed, Kind, Lint, REPORT_BYTES_MAX, State, Tests};

const TESTS: &str = "application/vnd.codegen.test-report+json";
const LINT: &str = "application/vnd.codegen.lint-report+json";
/// The most failed tests and findings that are named.
const FAILURES_NAMED_MAX: usize = 30;
const FINDINGS_NAMED_MAX: usize = 100;
/// The most lines of a failure's message.
const MESSAGE_LINES_MAX: usize = 8;

/// A report in the words of a result.
pub(in super::super) struct Told {
    /// What comes first.
    pub(in super::super) status: String,
    /// Each failure or finding in short.
    pub(in super::super) details: String,
    /// Whether it tells of a failure.
    pub(in super::super) failed: bool,
    /// The same for programs, with its name in the result's facts.
    pub(in super::super) fact: (&'static str, Value),
}

/// Whether a thing shown is a report of ours.
fn is_report(mime: &str) -> bool {
    mime == TESTS || mime == LINT
}

/// The last report among the things that a program showed; nothing for one that makes no sense.
pub(in super::super) fn told(displays: &[Display]) -> Option<Told> {
    let last = displays.iter().rfind(|display| is_report(&display.mime) && display.data.len() <= REPORT_BYTES_MAX)?;
    if last.mime == TESTS {
        serde_json::from_slice(&last.data).ok().map(|tests: Tests| of_tests(&tests))
    } else {
        serde_json::from_slice(&last.data).ok().map(|lint: Lint| of_lint(&lint))
    }
}

fn of_tests(tests: &Tests) -> Told {
    let runner = format!("{} {}", tests.runner, tests.version);
    let Counts { passed, failed, errors, skipped, xfailed, xpassed } = tests.counts;
    let kinds = [
        (failed, "failed"),
        (errors, if errors == 1 { "error" } else { "errors" }),
        (passed, "passed"),
        (skipped, "skipped"),
        (xfailed, "xfailed"),
        (xpassed, "xpassed"),
    ];
    let named: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let mut status = match (tests.state, named.is_empty()) {
        (State::Started, _) => format!("the test run ended before it could report ({runner})"),
        (State::Finished, true) => format!("no tests ran ({runner})"),
        (State::Finished, false) => {
            format!("{} in {} ({runner})", named.join(", "), words::seconds(tests.duration_ms))
        }
    };
    if let Some(note) = &tests.note {
        let _ = write!(status, ": {note}");
    }
    let mut details = String::new();
    for failure in tests.failures.iter().take(FAILURES_NAMED_MAX) {
        name_failure(&mut details, failure);
    }
    let all = failed as usize + errors as usize;
    let more = all.saturating_sub(tests.failures.len().min(FAILURES_NAMED_MAX));
    if more > 0 && !details.is_empty() {
        let _ = write!(details, "\n\nand {more} more");
    }
    let whole = tests.state == State::Finished && !named.is_empty();
    Told { status, details, failed: !whole || all > 0, fact: ("codegen/tests", json!(tests.counts)) }
}

fn name_failure(text: &mut String, failure: &Failed) {
    let kind = match failure.kind {
        Kind::Failed => "FAILED",
        Kind::Errors => "ERROR",
    };
    let _ = write!(text, "\n\n{kind} {}", one_line(failure.test.as_str()));
    if let Some(file) = &failure.file {
        let _ = write!(text, "\n  at {}", one_line(file.as_str()));
        if let Some(line) = failure.line {
            let _ = write!(text, ":{line}");
        }
    }
    for line in failure.message.as_str().lines().take(MESSAGE_LINES_MAX) {
        let _ = write!(text, "\n  {line}");
    }
}

fn of_lint(lint: &Lint) -> Told {
    let by = format!("{} {}", lint.linter, lint.version);
    let looked_at = lint.files.map(|files| format!(" in {files} files")).unwrap_or_default();
    let status = match lint.found {
        0 => format!("nothing found{looked_at} ({by})"),
        1 => format!("1 finding{looked_at} ({by})"),
        found => format!("{found} findings{looked_at} ({by})"),
    };
    let mut details = if lint.findings.is_empty() { String::new() } else { "\n".to_owned() };
    for finding in lint.findings.iter().take(FINDINGS_NAMED_MAX) {
        let place = [finding.line, finding.column].into_iter().flatten().map(|number| format!(":{number}"));
        let place: String = place.collect();
        let (file, message) = (one_line(finding.file.as_str()), one_line(finding.message.as_str()));
        let _ = write!(details, "\n{file}{place} {} {message}", finding.code);
    }
    let more = (lint.found as usize).saturating_sub(lint.findings.len().min(FINDINGS_NAMED_MAX));
    if more > 0 && !details.is_empty() {
        let _ = write!(details, "\nand {more} more; a smaller path shows them");
    }
    Told { status, details, failed: lint.found > 0, fact: ("codegen/findings", json!(lint.found)) }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mime: &str, report: &Value) -> Display {
        Display { mime: mime.to_owned(), path: None, data: report.to_string().into_bytes() }
    }

    fn counts(failed: u32, passed: u32) -> Value {
        json!({"passed": passed, "failed": failed, "errors": 0, "skipped": 0, "xfailed": 0, "xpassed": 0})
    }

    fn tests(state: &str, failed: u32, passed: u32, failures: &[Value]) -> Display {
        let report = json!({
            "runner": "pytest", "version": "9.0.0", "state": state, "duration_ms": 400,
            "counts": counts(failed, passed), "note": null, "failures": failures,
        });
        shown(TESTS, &report)
    }

    #[test]
    fn counts_come_first_and_each_failure_has_name_place_and_message() {
        let failure = json!({"kind": "failed", "test": "test_a.py::test_x", "file": "test_a.py", "line": 3,
                             "message": "assert 1 == 2\n +  where 1 = f()"});
        let told = told(&[tests("started", 0, 0, &[]), tests("finished", 2, 10, &[failure])]).expect("a report");
        assert_eq!(told.status, "2 failed, 10 passed in 0.40 s (pytest 9.0.0)");
        let expected =
            "\n\nFAILED test_a.py::test_x\n  at test_a.py:3\n  assert 1 == 2\n   +  where 1 = f()\n\nand 1 more";
        assert_eq!(told.details, expected);
        assert!(told.failed);
    }

    #[test]
    fn a_run_that_never_ended_and_one_without_tests_are_failures() {
        let ended = told(&[tests("started", 0, 0, &[])]).expect("a report");
        assert_eq!(ended.status, "the test run ended before it could report (pytest 9.0.0)");
        let none = told(&[tests("finished", 0, 0, &[])]).expect("a report");
        assert_eq!(none.status, "no tests ran (pytest 9.0.0)");
        assert!(ended.failed && none.failed);
        assert!(!told(&[tests("finished", 0, 3, &[])]).expect("a report").failed);
    }

    #[test]
    fn a_hostile_report_is_bounded_or_ignored() {
        let long = "x\u{7}".repeat(10_000);
        let failure = json!({"kind": "failed", "test": long, "file": "a\nb", "line": 1, "message": "m\n".repeat(900)});
        let many: Vec<Value> = std::iter::repeat_n(failure, 3).collect();
        let bounded = told(&[tests("finished", 3, 0, &many)]).expect("a report");
        assert!(bounded.details.len() < 3 * 1_000 && !bounded.details.contains('\u{7}'), "{}", bounded.details);
        assert!(bounded.details.contains("at a b:1"), "{}", bounded.details);
        for bad in [json!(1), json!({"state": "won"}), json!({"counts": {"passed": -1}})] {
            assert!(told(&[shown(TESTS, &bad), shown(LINT, &bad)]).is_none(), "{bad}");
        }
        let huge = Display { data: vec![b' '; REPORT_BYTES_MAX + 1], ..tests("finished", 0, 1, &[]) };
        assert!(told(&[huge]).is_none());
    }

    #[test]
    fn findings_have_a_line_each() {
        let finding = json!({"file": "a.py", "line": 3, "column": 7, "code": "F401", "message": "`os` is unused"});
        let report = json!({"linter": "ruff", "version": "0.9", "files": null, "found": 2, "findings": [finding]});
        let told = told(&[shown(LINT, &report)]).expect("a report");
        assert_eq!(told.status, "2 findings (ruff 0.9)");
        assert_eq!(told.details, "\n\na.py:3:7 F401 `os` is unused\nand 1 more; a smaller path shows them");
    }
}
