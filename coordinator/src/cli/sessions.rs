//! `coordinator sessions`: shows everybody's sessions, and ends them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::{SessionId, WorkerId};

use super::asked::{Form, say, show};
use super::columns::{Yields, columns, table, terminal_width};
use crate::control::{Ask, OperateAsk};
use crate::operators::{SessionDetail, SessionLine, SessionPage, SessionsFilter};

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// List sessions, the newest first; closed ones only with `--state closed`
    Ls(ListArgs),
    /// Show a session
    Show(OneSession),
    /// End a session for good: its tasks, its processes, its files
    Close(OneSession),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those of this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,

    /// Only those in this state: opening, ready, suspended, lost, closing or closed
    #[arg(long, value_name = "STATE")]
    state: Option<String>,

    /// Only those on this worker, or with their files there
    #[arg(long, value_name = "WORKER")]
    worker: Option<WorkerId>,

    /// At most so many, up to 500
    #[arg(long, value_name = "COUNT", default_value_t = crate::operators::PAGE_DEFAULT)]
    limit: u32,

    /// Go on where the page before ended
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneSession {
    /// The session's handle
    session: SessionId,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &SessionsCommand, state_dir: &Path) -> ExitCode {
    match command {
        SessionsCommand::Ls(args) => {
            let question = Ask::Operate(OperateAsk::Sessions(args.filter()));
            show(state_dir, question, Form::of(args.json), |page: SessionPage| list(&page))
        }
        SessionsCommand::Show(one) => {
            let question = Ask::Operate(OperateAsk::Session { id: one.session });
            show(state_dir, question, Form::of(one.json), |detail: SessionDetail| describe(&detail))
        }
        SessionsCommand::Close(one) => {
            let question = Ask::Operate(OperateAsk::CloseSession { id: one.session });
            show(state_dir, question, Form::of(one.json), |detail: SessionDetail| {
                format!("{} of {} is {}.\n", detail.line.session_id, detail.line.principal, detail.line.state)
            })
        }
    }
}

impl ListArgs {
    fn filter(&self) -> SessionsFilter {
        SessionsFilter {
            principal: self.principal.clone(),
            state: self.state.clone(),
            worker: self.worker.clone(),
            limit: Some(self.limit),
            after: self.after.clone(),
        }
    }
}

fn list(page: &SessionPage) -> String {
    if let Some(next) = &page.next {
        say(&format!("There are more: --after {next}"));
    }
    rows(&page.sessions, terminal_width())
}

/// The sessions as lines of at most so many cells.
pub(super) fn rows(sessions: &[SessionLine], width: Option<usize>) -> String {
    if sessions.is_empty() {
        return "There are no such sessions.\n".to_owned();
    }
    let columns = columns([
        ("SESSION", Yields::Never),
        ("STATE", Yields::Never),
        ("PRINCIPAL", Yields::Shortens),
        ("RUN", Yields::Never),
        ("WORKER", Yields::Shortens),
        ("USED", Yields::Leaves),
        ("TASKS", Yields::Leaves),
        ("NAME", Yields::Leaves),
        ("CREATED", Yields::Leaves),
    ]);
    let rows: Vec<_> = sessions.iter().map(row).collect();
    table(columns, &rows, width)
}

fn row(session: &SessionLine) -> [String; 9] {
    [
        session.session_id.to_string(),
        session.state.clone(),
        session.principal.clone(),
        session.tasks_running.to_string(),
        session.worker.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        format!("{:.0}", session.last_used),
        session.tasks.to_string(),
        session.name.clone().unwrap_or_default(),
        format!("{:.0}", session.created),
    ]
}

fn describe(detail: &SessionDetail) -> String {
    let SessionDetail { line: session, epoch, isolation, shares, metadata, .. } = detail;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<12} {}", for_terminal(value)).expect("writing to a string");
    };
    line("session", &session.session_id.to_string());
    line("principal", &session.principal);
    line("state", &session.state);
    if let (Some(worker), Some(epoch)) = (&session.worker, epoch) {
        line("worker", &format!("{worker}, epoch {epoch}"));
    }
    if let Some(isolation) = isolation {
        line("isolation", &isolation.level.to_string());
    }
    line("name", session.name.as_deref().unwrap_or("-"));
    line("created", &format!("{:.0}", session.created));
    line("last used", &format!("{:.0}", session.last_used));
    line("idle after", &format!("{} s", detail.ttl_seconds));
    line("kept until", &format!("{:.0}", detail.retained_until));
    if let Some(bytes) = detail.workspace_bytes {
        line("workspace", &format!("{bytes} bytes"));
    }
    line("tasks", &format!("{} so far, {} running", session.tasks, session.tasks_running));
    for task in &detail.running {
        line("", &task.to_string());
    }
    line("shares", &shares.to_string());
    line("metadata", &serde_json::json!(metadata).to_string());
    text
}
