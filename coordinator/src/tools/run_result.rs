//! What a program's run looks like to the model that asked for it.

use std::fmt::Write;
use std::time::Duration;

use codegen_types::event::{ChangeKind, FileChange};
use codegen_types::{Exit, OperationResult};
use serde_json::{Value, json};

use super::excerpt::{self, Whole, excerpt};
use super::result::{Content, ToolResult};
use super::{devtools, packages, shown, words};
use crate::session::{Captured, Completed, TaskInfo, TaskOutcome, TaskSeen};

/// The most changed files that are named.
const FILES_NAMED_MAX: usize = 50;
/// Of a changed file's path so much is shown, in characters.
const PATH_CHARS_MAX: usize = 120;
/// The paths of changed files that are named for programs, together, in bytes.
const PATHS_BYTES_MAX: usize = 16 << 10;

/// A task that runs still: for how long, what it wrote so far, what can be done; one that has ended: its result.
pub(super) fn render_seen(seen: &TaskSeen, output_chars: usize) -> ToolResult {
    render_waited(seen, output_chars, None)
}

/// As [`render_seen`], after a wait that was `cut_to` less than the call asked for.
pub(super) fn render_waited(seen: &TaskSeen, output_chars: usize, cut_to: Option<Duration>) -> ToolResult {
    if let Some(outcome) = &seen.outcome {
        return render(&seen.info.tool, outcome, output_chars);
    }
    let TaskInfo { task, begun_ms, .. } = seen.info;
    let ran_ms = u64::try_from(jiff::Timestamp::now().as_millisecond() - begun_ms).unwrap_or_default();
    let mut text = format!("still running after {}: task {task}", words::seconds(ran_ms));
    if is_empty(&seen.log) {
        text.push_str("\n\n(no output so far)");
    } else {
        let _ = write!(
            text,
            "\n\noutput so far:\n{}",
            excerpt(&seen.log, output_chars, &Whole::Logs).trim_end_matches('\n')
        );
    }
    if let Some(longest) = cut_to {
        let waited = words::seconds(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
        let _ = write!(text, "\n\nwaited {waited} and not `timeout_seconds`: no call of this client waits longer");
    }
    text.push_str(
        "\n\nNext: task_wait waits for its result, task_logs shows more of its output, task_cancel ends it. It goes on \
         by itself, also when this connection ends.",
    );
    ToolResult::text(text).of_task(task).with_meta("codegen/state", json!("running"))
}

/// The result of a tool's run: first how it ended, then what it reports and wrote, at most so many characters, then what
/// it changed.
pub(super) fn render(tool: &str, outcome: &TaskOutcome, output_chars: usize) -> ToolResult {
    let (mut result, completed) = match &outcome.result {
        Ok(completed) => (ended(completed), Some(completed)),
        Err(failure) => (ToolResult::failure(failure), outcome.partial.as_ref()),
    };
    if let Some(completed) = completed {
        // What ended a task early is said first, and no report is whole then.
        let reports = if outcome.result.is_ok() { completed.displays.as_slice() } else { &[] };
        let report = devtools::told(tool, reports, output_chars / 2);
        if let Some(Content::Text(text)) = result.content.first_mut() {
            if outcome.result.is_err() {
                used_until_then(text, completed);
            }
            if outcome.replayed {
                text.push_str("\n(the stored result of the earlier call with this idempotency_key; nothing ran now)");
            }
            if let Some(OperationResult::Exec(exit)) = &completed.result {
                text.push_str(&packages::told(exit));
            }
            let mut taken = 0;
            if let Some(report) = &report {
                let _ = write!(text, "\n{}{}", report.status, report.details);
                taken = report.details.chars().count();
            }
            taken += output(text, completed, output_chars.saturating_sub(taken));
            shown::values(text, &completed.displays, output_chars.saturating_sub(taken).max(output_chars / 4));
            shown::named(text, &completed.displays);
            changes(text, completed);
        }
        if let Some(report) = report {
            result.is_error |= report.failed;
            result = result.with_meta(report.fact.0, report.fact.1);
        }
        shown::blocks(&mut result, &completed.displays);
        if let Some(OperationResult::Exec(exit)) = &completed.result {
            result = result.with_meta("codegen/exit", exit_facts(exit));
            result = with_changes(result, exit);
        }
    }
    result.of_task(outcome.task).recorded_at(outcome.audit_seq)
}

/// The status line of a program that ended by itself, or by a signal.
fn ended(completed: &Completed) -> ToolResult {
    let Some(OperationResult::Exec(exit)) = &completed.result else {
        return ToolResult::text("ended");
    };
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("killed by {}", words::signal(signal)),
        (Some(code), None) => format!("exit {code}"),
        (None, None) => "ended".to_owned(),
    };
    let failed = exit.signal.is_some() || exit.code.is_some_and(|code| code != 0);
    ToolResult { is_error: failed, ..ToolResult::text(format!("{how} in {}", used(exit))) }
}

fn used(exit: &Exit) -> String {
    let mut text = words::seconds(exit.used.wall_ms);
    if exit.used.memory_peak_bytes > 0 {
        let _ = write!(text, ", peak {}", words::bytes(exit.used.memory_peak_bytes));
    }
    if exit.leftovers_killed > 0 {
        let (count, were) = match exit.leftovers_killed {
            1 => ("1 process".to_owned(), "was"),
            more => (format!("{more} processes"), "were"),
        };
        let _ = write!(text, "; {count} it left running {were} ended");
    }
    text
}

fn used_until_then(text: &mut String, completed: &Completed) {
    if let Some(OperationResult::Exec(exit)) = &completed.result {
        let _ = write!(text, "\nended after {}", used(exit));
    }
}

/// Both streams, at most so many characters; how many they took.
fn output(text: &mut String, completed: &Completed, output_chars: usize) -> usize {
    let budgets = excerpt::share(output_chars, &completed.stdout, &completed.stderr);
    if is_empty(&completed.stdout) && is_empty(&completed.stderr) && completed.displays.is_empty() {
        text.push_str("\n\n(no output)");
    }
    let mut taken = 0;
    for (name, captured, budget) in [("stdout", &completed.stdout, budgets.0), ("stderr", &completed.stderr, budgets.1)]
    {
        if !is_empty(captured) {
            let shown = excerpt(captured, budget, &whole(completed));
            let _ = write!(text, "\n\n{name}:\n{}", shown.trim_end_matches('\n'));
            taken += shown.chars().count();
        }
    }
    taken
}

/// Where all of the output is.
fn whole(completed: &Completed) -> Whole<'_> {
    match &completed.result {
        Some(OperationResult::Exec(Exit { output_file: Some(path), .. })) => Whole::File(path),
        _ if completed.log().omitted == 0 => Whole::Logs,
        _ => Whole::Lost,
    }
}

fn is_empty(captured: &Captured) -> bool {
    captured.head.is_empty() && captured.tail.is_empty() && captured.omitted == 0
}

fn changes(text: &mut String, completed: &Completed) {
    let Some(OperationResult::Exec(exit)) = &completed.result else { return };
    if exit.files_changed.is_empty() && !exit.files_changed_truncated {
        return;
    }
    text.push_str("\n\nfiles changed:");
    for FileChange { path, change, size } in exit.files_changed.iter().take(FILES_NAMED_MAX) {
        let path = words::shortened(path.as_str(), PATH_CHARS_MAX);
        let _ = match change {
            ChangeKind::Created => write!(text, "\n  created {path} ({})", words::bytes(*size)),
            ChangeKind::Modified => write!(text, "\n  modified {path} ({})", words::bytes(*size)),
            ChangeKind::Deleted => write!(text, "\n  deleted {path}"),
        };
    }
    let more = exit.files_changed.len().saturating_sub(FILES_NAMED_MAX);
    if exit.files_changed_truncated {
        let some = if exit.files_changed.is_empty() { "some" } else { "and more" };
        let _ = write!(text, "\n  {some}; fs_list shows all files");
    } else if more > 0 {
        let _ = write!(text, "\n  and {more} more; fs_list shows all files");
    }
    if !completed.overlapped.is_empty() {
        let tasks: Vec<String> = completed.overlapped.iter().take(8).map(ToString::to_string).collect();
        let _ = write!(text, "\n  (some may be due to what ran meanwhile: {})", tasks.join(", "));
    }
}

/// The result with what changed for programs: whole paths, so that fewer may be named than in the text.
fn with_changes(result: ToolResult, exit: &Exit) -> ToolResult {
    let mut room = PATHS_BYTES_MAX;
    let named: Vec<Value> = exit
        .files_changed
        .iter()
        .take(FILES_NAMED_MAX)
        .map_while(|FileChange { path, change, size }| {
            room = room.checked_sub(path.as_str().len())?;
            Some(json!({"path": path, "change": change, "size_bytes": size}))
        })
        .collect();
    let truncated = exit.files_changed_truncated || named.len() < exit.files_changed.len();
    let result = result.with_meta("codegen/files_changed", named.into());
    if truncated { result.with_meta("codegen/files_changed_truncated", json!(true)) } else { result }
}

fn exit_facts(exit: &Exit) -> Value {
    json!({
        "code": exit.code,
        "signal": exit.signal,
        "wall_ms": exit.used.wall_ms,
        "cpu_ms": exit.used.cpu_ms,
        "memory_peak_bytes": exit.used.memory_peak_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::{Display, ErrorCode, Failure, LogSeq, ResourceUse, TaskId, WorkspacePath};

    fn captured(text: &str) -> Captured {
        Captured { head: text.into(), ..Captured::default() }
    }

    fn outcome(exit: Exit, stdout: &str, stderr: &str) -> TaskOutcome {
        let completed = Completed {
            result: Some(OperationResult::Exec(exit)),
            stdout: captured(stdout),
            stderr: captured(stderr),
            both: Captured::default(),
            displays: vec![],
            overlapped: vec![],
        };
        let task = TaskId::mint();
        TaskOutcome { task, result: Ok(completed), partial: None, audit_seq: Some(LogSeq(7)), replayed: false }
    }

    fn exit(code: i32) -> Exit {
        let used = ResourceUse { wall_ms: 120, cpu_ms: 80, memory_peak_bytes: 14 << 20 };
        Exit { code: Some(code), used, ..Exit::default() }
    }

    fn text(result: &ToolResult) -> &str {
        let Content::Text(text) = &result.content[0] else { panic!("text comes first") };
        text
    }

    #[test]
    fn the_first_block_stands_alone() {
        let path = WorkspacePath::parse("out/a.txt").expect("a path");
        let files_changed = vec![FileChange { path, change: ChangeKind::Created, size: 12 }];
        let result =
            render("run_python", &outcome(Exit { files_changed, ..exit(0) }, "one\ntwo\n", "careful\n"), 20_000);
        assert!(!result.is_error);
        let expected = "exit 0 in 0.12 s, peak 14 MiB\n\nstdout:\none\ntwo\n\nstderr:\ncareful\n\n\
                        files changed:\n  created out/a.txt (12 B)";
        assert_eq!(text(&result), expected);
        assert_eq!(result.meta["codegen/audit_seq"], 7);
        assert_eq!(result.meta["codegen/exit"]["code"], 0);
    }

    #[test]
    fn what_changed_is_told_to_programs_too_and_bounded() {
        let changed = |name: &str, size| {
            let path = WorkspacePath::parse(name).expect("a path");
            FileChange { path, change: ChangeKind::Modified, size }
        };
        let of = |files_changed: Vec<FileChange>, files_changed_truncated| {
            render("run_python", &outcome(Exit { files_changed, files_changed_truncated, ..exit(0) }, "", ""), 20_000)
        };
        let named = |result: &ToolResult| result.meta["codegen/files_changed"].as_array().expect("a list").clone();
        let is_cut = |result: &ToolResult| result.meta.contains_key("codegen/files_changed_truncated");
        let one = of(vec![changed("a.txt", 12)], false);
        assert_eq!(named(&one), [json!({"path": "a.txt", "change": "modified", "size_bytes": 12})]);
        assert!(!is_cut(&one) && is_cut(&of(vec![changed("a.txt", 12)], true)));
        assert!(named(&of(vec![], false)).is_empty() && !is_cut(&of(vec![], false)));
        let many = of((0..60).map(|n| changed(&format!("f{n}"), 1)).collect(), false);
        assert!(named(&many).len() == FILES_NAMED_MAX && is_cut(&many));
        let deep = |n: usize| format!("{}{n}", format!("{}/", "d".repeat(200)).repeat(10));
        let long = of((0..40).map(|n| changed(&deep(n), 1)).collect(), false);
        assert!(is_cut(&long) && named(&long)[0]["path"] == deep(0), "paths are told whole or not at all");
        let told: usize = named(&long).iter().map(|file| file["path"].as_str().expect("a path").len()).sum();
        assert!(told <= PATHS_BYTES_MAX && text(&long).chars().count() < 40 * (PATH_CHARS_MAX + 30), "{told}");
        assert!(text(&long).contains("…") && text(&long).contains("ddd/39 (1 B)"), "{}", text(&long));
    }

    #[test]
    fn code_that_fails_is_an_error_with_its_traceback() {
        let result = render("run_python", &outcome(exit(1), "", "Traceback: boom\n"), 20_000);
        assert!(result.is_error);
        assert_eq!(text(&result), "exit 1 in 0.12 s, peak 14 MiB\n\nstderr:\nTraceback: boom");
        let crashed = render("run_python", &outcome(Exit { code: None, signal: Some(11), ..exit(0) }, "", ""), 20_000);
        assert!(crashed.is_error);
        assert_eq!(text(&crashed), "killed by SIGSEGV in 0.12 s, peak 14 MiB\n\n(no output)");
    }

    #[test]
    fn an_ended_task_keeps_what_it_wrote() {
        let mut outcome = outcome(exit(0), "as far as it came\n", "");
        outcome.partial = outcome.result.ok();
        outcome.result = Err(Failure::new(ErrorCode::TaskTimeout, "ran longer than 1 s"));
        let result = render("run_python", &outcome, 20_000);
        assert!(result.is_error);
        assert!(text(&result).starts_with("TASK_TIMEOUT: ran longer than 1 s\n"), "{}", text(&result));
        assert!(text(&result).contains("ended after 0.12 s"), "{}", text(&result));
        assert!(text(&result).ends_with("stdout:\nas far as it came"), "{}", text(&result));
        assert_eq!(result.meta["codegen/error"], json!({"code": "TASK_TIMEOUT", "task_id": outcome.task}));
    }

    #[test]
    fn what_the_worker_notes_comes_right_after_the_status() {
        let package = |name: &str| codegen_types::Package { name: name.to_owned(), version: "1.0".to_owned() };
        let notes = vec!["The kernel was started anew.".to_owned()];
        let (packages, hosts) = (vec![package("a"), package("b")], vec!["index.example:443".to_owned()]);
        let result = render("run_python", &outcome(Exit { notes, packages, hosts, ..exit(0) }, "x", ""), 20_000);
        let expected = "exit 0 in 0.12 s, peak 14 MiB\ninstalled a 1.0, b 1.0\nThe kernel was started anew.\n\
                        reached index.example:443\n\nstdout:\nx";
        assert_eq!(text(&result), expected);
    }

    #[test]
    fn long_output_names_the_file_that_has_all_of_it() {
        let output_file = WorkspacePath::parse(".codegen/output/tsk_1.log").ok();
        let long = "x".repeat(1_000);
        let result = render("run_python", &outcome(Exit { output_file, ..exit(0) }, &long, ""), 200);
        let whole = "[… 800 bytes left out; whole output: .codegen/output/tsk_1.log (task_logs, fs_read) …]";
        assert!(text(&result).contains(whole), "{}", text(&result));
        let result = render("run_python", &outcome(exit(0), &long, ""), 200);
        assert!(text(&result).contains("800 bytes left out; task_logs shows them"), "{}", text(&result));
    }

    #[test]
    fn values_and_pictures_come_with_the_output() {
        let mut outcome = outcome(exit(0), "out\n", "");
        let display = |mime: &str, data: &[u8]| Display { mime: mime.into(), path: None, data: data.to_vec() };
        outcome.result.as_mut().expect("it completed").displays =
            vec![display("text/plain", b"42"), display("image/png", b"png")];
        let result = render("run_python", &outcome, 20_000);
        assert!(text(&result).contains("\n\nstdout:\nout\n\nvalue:\n42\n\nimages:\n  "), "{}", text(&result));
        assert!(matches!(&result.content[1], Content::Image { data, .. } if data == b"png"));
    }

    #[test]
    fn a_report_comes_after_the_status_and_out_of_the_budget() {
        let failure = json!({"kind": "failed", "test": "t", "file": null, "line": null, "message": "m".repeat(1_000)});
        let counts = json!({"passed": 0, "failed": 9, "errors": 0, "skipped": 0, "xfailed": 0, "xpassed": 0});
        let report = json!({
            "runner": "pytest", "version": "9", "state": "finished", "duration_ms": 1, "counts": counts, "note": null,
            "failures": std::iter::repeat_n(failure, 9).collect::<Vec<_>>(),
        });
        let mime = "application/vnd.codegen.test-report+json".to_owned();
        let mut outcome = outcome(exit(0), &"x".repeat(10_000), "");
        outcome.result.as_mut().expect("it completed").displays =
            vec![Display { mime, path: None, data: report.to_string().into_bytes() }];
        let tested = render("test_run", &outcome, 4_000);
        assert!(text(&tested).starts_with("exit 0 in 0.12 s, peak 14 MiB\n9 failed in "), "{}", text(&tested));
        assert!(tested.is_error && text(&tested).chars().count() < 4_300, "{}", text(&tested).len());
        let ran = render("run_python", &outcome, 4_000);
        assert!(!ran.is_error && !text(&ran).contains("failed"), "{}", text(&ran));
    }
}
