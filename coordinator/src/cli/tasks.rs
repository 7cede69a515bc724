//! `coordinator tasks`: shows everybody's tasks and what they wrote, and ends them.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::{SessionId, TaskId, WorkerId};

use super::asked::{AskedError, Form, ask, say, show};
use super::columns::{Yields, columns, table, terminal_width};
use super::{complain, json};
use crate::control::{Ask, OperateAsk};
use crate::operators::{TaskDetail, TaskLine, TaskLog, TaskPage, TasksFilter};

#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// List tasks, the newest first
    Ls(ListArgs),
    /// Show a task and how it ended
    Show(OneTask),
    /// Ask a running task to end
    Cancel(OneTask),
    /// Print what a task wrote, both streams in the order of arrival
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those in this session
    #[arg(long, value_name = "SESSION")]
    session: Option<SessionId>,

    /// Only those begun by this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,

    /// Only those in this state: running, finished, failed or unknown
    #[arg(long, value_name = "STATE")]
    state: Option<String>,

    /// Only those of sessions on this worker
    #[arg(long, value_name = "WORKER")]
    worker: Option<WorkerId>,

    /// At most so many, up to 500
    #[arg(long, value_name = "COUNT", default_value_t = crate::operators::PAGE_DEFAULT)]
    limit: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneTask {
    /// The task's id
    task: TaskId,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The task's id
    task: TaskId,

    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,

    /// Print JSON, one object for each part
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &TasksCommand, state_dir: &Path) -> ExitCode {
    match command {
        TasksCommand::Ls(args) => {
            let question = Ask::Operate(OperateAsk::Tasks(args.filter()));
            show(state_dir, question, Form::of(args.json), |page: TaskPage| list(&page))
        }
        TasksCommand::Show(one) => {
            let question = Ask::Operate(OperateAsk::Task { id: one.task });
            show(state_dir, question, Form::of(one.json), |detail: TaskDetail| describe(&detail))
        }
        TasksCommand::Cancel(one) => {
            let question = Ask::Operate(OperateAsk::CancelTask { id: one.task });
            show(state_dir, question, Form::of(one.json), |detail: TaskDetail| {
                let TaskLine { task_id, state, .. } = &detail.line;
                if state == "running" {
                    format!("{task_id} was asked to end.\n")
                } else {
                    format!("{task_id} has ended already: {state}.\n")
                }
            })
        }
        TasksCommand::Logs(args) => match logs(args, state_dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(LogsError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => complain(&error, 1),
        },
    }
}

/// Why a log is not printed to its end.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error(transparent)]
    Asked(#[from] AskedError),
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
}

fn logs(args: &LogsArgs, state_dir: &Path) -> Result<(), LogsError> {
    let mut from = 0;
    loop {
        let question = OperateAsk::TaskLog { id: args.task, from, waits: args.follow };
        let answer = ask(state_dir, Ask::Operate(question))?;
        let part: TaskLog = serde_json::from_value(answer.clone()).map_err(AskedError::from)?;
        let is_through = part.next == from;
        let ends = is_through && (!args.follow || part.state != "running");
        if args.json {
            if !is_through || (ends && from == 0) {
                writeln!(std::io::stdout(), "{}", json::line(&answer))?;
            }
        } else {
            write_part(&part)?;
        }
        if ends {
            return Ok(());
        }
        from = part.next;
    }
}

/// Programs write what they like: a terminal gets it harmless, a pipe as it is.
fn write_part(part: &TaskLog) -> std::io::Result<()> {
    if part.omitted > 0 {
        say(&format!("{} bytes are not kept here; the session has them below .codegen/output/", part.omitted));
    }
    let mut stdout = std::io::stdout();
    if stdout.is_terminal() {
        let text = String::from_utf8_lossy(&part.bytes);
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let harmless: Vec<String> = line.split('\t').map(for_terminal).collect();
            write!(stdout, "{}{end}", harmless.join("\t"))?;
        }
    } else {
        stdout.write_all(&part.bytes)?;
    }
    stdout.flush()
}

impl ListArgs {
    fn filter(&self) -> TasksFilter {
        TasksFilter {
            session: self.session,
            principal: self.principal.clone(),
            state: self.state.clone(),
            worker: self.worker.clone(),
            limit: Some(self.limit),
        }
    }
}

fn list(page: &TaskPage) -> String {
    if page.more {
        say("There may be more: filter, or raise --limit");
    }
    rows(&page.tasks, terminal_width())
}

/// The tasks as lines of at most so many cells.
pub(super) fn rows(tasks: &[TaskLine], width: Option<usize>) -> String {
    if tasks.is_empty() {
        return "There are no such tasks.\n".to_owned();
    }
    let columns = columns([
        ("TASK", Yields::Never),
        ("STATE", Yields::Never),
        ("TOOL", Yields::Shortens),
        ("PRINCIPAL", Yields::Shortens),
        ("BEGAN", Yields::Leaves),
        ("SECONDS", Yields::Leaves),
        ("WORKER", Yields::Leaves),
        ("CODE", Yields::Leaves),
        ("SESSION", Yields::Leaves),
    ]);
    let now = jiff::Timestamp::now();
    let rows: Vec<_> = tasks.iter().map(|task| row(task, now)).collect();
    table(columns, &rows, width)
}

fn row(task: &TaskLine, now: jiff::Timestamp) -> [String; 9] {
    [
        task.task_id.to_string(),
        task.state.clone(),
        task.tool.clone(),
        task.principal.clone(),
        format!("{:.0}", task.began),
        format!("{:.1}", task.ended.unwrap_or(now).duration_since(task.began).as_secs_f64()),
        task.worker.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        task.code.clone().unwrap_or_default(),
        task.session_id.to_string(),
    ]
}

fn describe(detail: &TaskDetail) -> String {
    let task = &detail.line;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<12} {}", for_terminal(value)).expect("writing to a string");
    };
    line("task", &task.task_id.to_string());
    line("session", &task.session_id.to_string());
    line("principal", &task.principal);
    line("tool", &task.tool);
    line("state", &task.state);
    if let Some(code) = &task.code {
        line("code", code);
    }
    if let Some(message) = &detail.message {
        line("message", message);
    }
    line("worker", task.worker.as_ref().map_or("-", WorkerId::as_str));
    line("began", &format!("{:.3}", task.began));
    if let Some(ended) = &task.ended {
        line("ended", &format!("{ended:.3}"));
    }
    line("output", &format!("{} bytes", detail.output_bytes));
    if let Some(seq) = detail.audit_seq {
        line("outcome", &format!("record {seq} of the log"));
    }
    text
}
