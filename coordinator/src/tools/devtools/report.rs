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

/// The last report that a tool's program showed, its details at most so many characters; nothing for one that makes no
/// sense, and nothing for a tool that has none: what a program calls a report is believed only where one is asked for.
pub(in super::super) fn told(tool: &str, displays: &[Display], chars: usize) -> Option<Told> {
    let last = |mime: &str| {
        let of = |display: &&Display| display.mime == mime && display.data.len() <= REPORT_BYTES_MAX;
        displays.iter().rfind(of).map(|display| display.data.as_slice())
    };
    match tool {
        "test_run" => serde_json::from_slice(last(TESTS)?).ok().map(|tests: Tests| of_tests(&tests, chars)),
        "lint_check" => serde_json::from_slice(last(LINT)?).ok().map(|lint: Lint| of_lint(&lint, chars)),
        _ => None,
    }
}

/// Failures or findings in short, within a budget.
struct Details {
    text: String,
    chars_left: usize,
    named: usize,
}

impl Details {
    const fn of(chars: usize) -> Self {
        Self { text: String::new(), chars_left: chars, named: 0 }
    }

    /// Adds one if it fits; the first one is cut rather than left out.
    fn name(&mut self, what: &str) -> bool {
        let chars = what.chars().count();
        if chars <= self.chars_left {
            self.text.push_str(what);
        } else if self.named == 0 && self.chars_left > 0 {
            self.text.extend(what.chars().take(self.chars_left).chain(['…']));
        } else {
            self.chars_left = 0;
            return false;
        }
        self.chars_left = self.chars_left.saturating_sub(chars);
        self.named += 1;
        true
    }
}

fn of_tests(tests: &Tests, chars: usize) -> Told {
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
    let mut details = Details::of(chars);
    let mut failures = tests.failures.iter().take(FAILURES_NAMED_MAX);
    while failures.next().is_some_and(|failure| details.name(&of_failure(failure))) {}
    let all = failed as usize + errors as usize;
    let Details { text: mut details, named: shown, .. } = details;
    let more = all.saturating_sub(shown);
    if more > 0 && !details.is_empty() {
        let _ = write!(details, "\n\nand {more} more");
    }
    let whole = tests.state == State::Finished && !named.is_empty();
    Told { status, details, failed: !whole || all > 0, fact: ("codegen/tests", json!(tests.counts)) }
}

fn of_failure(failure: &Failed) -> String {
    let kind = match failure.kind {
        Kind::Failed => "FAILED",
        Kind::Errors => "ERROR",
    };
    let mut text = format!("\n\n{kind} {}", one_line(failure.test.as_str()));
    if let Some(file) = &failure.file {
        let _ = write!(text, "\n  at {}", one_line(file.as_str()));
        if let Some(line) = failure.line {
            let _ = write!(text, ":{line}");
        }
    }
    for line in failure.message.as_str().lines().take(MESSAGE_LINES_MAX) {
        let _ = write!(text, "\n  {line}");
    }
    text
}

fn of_lint(lint: &Lint, chars: usize) -> Told {
    let by = format!("{} {}", lint.linter, lint.version);
    let looked_at = lint.files.map(|files| format!(" in {files} files")).unwrap_or_default();
    let status = match lint.found {
        0 => format!("nothing found{looked_at} ({by})"),
        1 => format!("1 finding{looked_at} ({by})"),
        found => format!("{found} findings{looked_at} ({by})"),
    };
    let mut details = Details::of(chars);
    for finding in lint.findings.iter().take(FINDINGS_NAMED_MAX) {
        let place = [finding.line, finding.column].into_iter().flatten().map(|number| format!(":{number}"));
        let place: String = place.collect();
        let (file, message) = (one_line(finding.file.as_str()), one_line(finding.message.as_str()));
        let first = if details.named == 0 { "\n" } else { "" };
        if !details.name(&format!("{first}\n{file}{place} {} {message}", finding.code)) {
            break;
        }
    }
    let Details { text: mut details, named: shown, .. } = details;
    let more = (lint.found as usize).saturating_sub(shown);
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
        let told = told("test_run", &[tests("started", 0, 0, &[]), tests("finished", 2, 10, &[failure])], 10_000)
            .expect("a report");
        assert_eq!(told.status, "2 failed, 10 passed in 0.40 s (pytest 9.0.0)");
        let expected =
            "\n\nFAILED test_a.py::test_x\n  at test_a.py:3\n  assert 1 == 2\n   +  where 1 = f()\n\nand 1 more";
        assert_eq!(told.details, expected);
        assert!(told.failed);
    }

    #[test]
    fn a_run_that_never_ended_and_one_without_tests_are_failures() {
        let ended = told("test_run", &[tests("started", 0, 0, &[])], 10_000).expect("a report");
        assert_eq!(ended.status, "the test run ended before it could report (pytest 9.0.0)");
        let none = told("test_run", &[tests("finished", 0, 0, &[])], 10_000).expect("a report");
        assert_eq!(none.status, "no tests ran (pytest 9.0.0)");
        assert!(ended.failed && none.failed);
        assert!(!told("test_run", &[tests("finished", 0, 3, &[])], 10_000).expect("a report").failed);
    }

    #[test]
    fn a_hostile_report_is_bounded_or_ignored() {
        let long = "x\u{7}".repeat(10_000);
        let failure = json!({"kind": "failed", "test": long, "file": "a\nb", "line": 1, "message": "m\n".repeat(900)});
        let many: Vec<Value> = std::iter::repeat_n(failure, 3).collect();
        let bounded = told("test_run", &[tests("finished", 3, 0, &many)], 10_000).expect("a report");
        assert!(bounded.details.len() < 3 * 1_000 && !bounded.details.contains('\u{7}'), "{}", bounded.details);
        assert!(bounded.details.contains("at a b:1"), "{}", bounded.details);
        for bad in [json!(1), json!({"state": "won"}), json!({"counts": {"passed": -1}})] {
            for tool in ["test_run", "lint_check"] {
                assert!(told(tool, &[shown(TESTS, &bad), shown(LINT, &bad)], 10_000).is_none(), "{bad}");
            }
        }
        let huge = Display { data: vec![b' '; REPORT_BYTES_MAX + 1], ..tests("finished", 0, 1, &[]) };
        assert!(told("test_run", &[huge], 10_000).is_none());
    }

    #[test]
    fn findings_have_a_line_each() {
        let finding = json!({"file": "a.py", "line": 3, "column": 7, "code": "F401", "message": "`os` is unused"});
        let report = json!({"linter": "ruff", "version": "0.9", "files": null, "found": 2, "findings": [finding]});
        let told = told("lint_check", &[shown(LINT, &report)], 10_000).expect("a report");
        assert_eq!(told.status, "2 findings (ruff 0.9)");
        assert_eq!(told.details, "\n\na.py:3:7 F401 `os` is unused\nand 1 more; a smaller path shows them");
    }

    #[test]
    fn details_keep_to_their_budget_and_say_how_many_are_left_out() {
        let finding = json!({"file": "a.py", "line": 3, "column": 7, "code": "F401", "message": "x".repeat(60)});
        let many: Vec<Value> = std::iter::repeat_n(finding, 50).collect();
        let report = json!({"linter": "ruff", "version": "0.9", "files": null, "found": 80, "findings": many});
        let told_of = |chars| told("lint_check", &[shown(LINT, &report)], chars).expect("a report").details;
        assert!(told_of(500).chars().count() < 560, "{}", told_of(500));
        assert!(told_of(500).ends_with("and 74 more; a smaller path shows them"), "{}", told_of(500));
        assert!(told_of(40).starts_with("\n\na.py:3:7 F401 xxx") && told_of(40).contains("…\nand 79 more"));
        let failure = json!({"kind": "failed", "test": "t", "file": null, "line": null, "message": "m".repeat(300)});
        let failures: Vec<Value> = std::iter::repeat_n(failure, 10).collect();
        let told = told("test_run", &[tests("finished", 10, 0, &failures)], 1_000).expect("a report");
        assert!(told.details.chars().count() < 1_020 && told.details.ends_with("and 7 more"), "{}", told.details);
    }

    #[test]
    fn a_report_that_nobody_asked_for_is_none() {
        let report = json!({"linter": "ruff", "version": "0.9", "files": null, "found": 0, "findings": []});
        let both = [tests("finished", 0, 3, &[]), shown(LINT, &report)];
        assert!(told("run_python", &both, 10_000).is_none());
        assert!(told("lint_check", &both, 10_000).expect("a report").status.starts_with("nothing found"));
        assert!(told("test_run", &both, 10_000).expect("a report").status.starts_with("3 passed"));
    }
}
