//! `/events`: what happens in the caller's sessions, as it comes into the log.
//!
//! The log is what is followed, so that an event is told only once it is durable, its number in the log is its id, and
//! a client that comes back is told what it missed. Changes of files are told beside it, without ids.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use codegen_audit::{EventKind, ReadError, Record, Records, last_segment_start, records};
use codegen_types::{ErrorCode, Failure, LogSeq};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::InQuery;
use super::logs::events_response;
use super::places::Place;
use crate::http::error::ApiError;
use crate::identity::{Scope, Scopes};
use crate::session::{ChangesFollower, News};
use crate::tools::Connection;

/// How often the log is looked at for more.
const INTERVAL: Duration = Duration::from_millis(200);
/// Records that are read at once.
const BATCH_MAX: usize = 256;
/// A client that missed more records than this is told to look anew.
const MISSED_MAX: u64 = 10_000;

/// What to follow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Whether events of everybody's sessions are told, which needs the scope admin.
    all: Option<bool>,
    /// Ends the stream after so many seconds.
    #[param(minimum = 1, maximum = 86_400)]
    for_seconds: Option<u64>,
}

/// Where a stream stands.
struct Following {
    connection: Connection,
    all: bool,
    /// Taken while the log is being read elsewhere.
    log: Option<Records>,
    changes: Option<ChangesFollower>,
    ready: VecDeque<Event>,
    _place: Place,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Follow what happens in your sessions
///
/// Events are `session`, `task`, `approval`, `files` and `reset`: after a `reset`, or without `Last-Event-ID`, what was before has to
/// be asked for anew.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "follow_events",
    params(EventQuery, ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "Events as they happen", body = super::description::ServerEvent, content_type = "text/event-stream")))]
async fn events(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
    InQuery(EventQuery { all, for_seconds }): InQuery<EventQuery>,
) -> Result<Response, ApiError> {
    if for_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
        return Err(ApiError::bad_request("`for_seconds`: must be from 1 to 86400"));
    }
    let all = all.unwrap_or(false);
    let needed: Scopes = if all { Scope::Admin.into() } else { Scope::Sessions.into() };
    let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let args =
        json!({"all": all, "last_event_id": last_seen.as_deref().map(|id| id.chars().take(32).collect::<String>())});
    let dir = api.plant().audit_dir();
    let begin = {
        let (api, principal) = (api.clone(), asked.identity.principal.clone());
        async move {
            let dir = dir.ok_or_else(|| Failure::new(ErrorCode::NotFound, "this server's log is in memory alone"))?;
            let place = api.place_for_events(&principal)?;
            let begun = tokio::task::spawn_blocking(move || begin(&dir, last_seen.as_deref())).await;
            let (log, missed) =
                begun.map_err(|_| Failure::new(ErrorCode::Internal, "the log could not be followed"))??;
            Ok((place, log, missed))
        }
    };
    let (place, log, missed) = api.operate(&asked, "events/follow", args, needed, begin).await?;
    let connection = api.connection(&asked);
    let changes = Some(connection.changes());
    let ready = if missed { VecDeque::from([reset()]) } else { VecDeque::new() };
    let following = Following { connection, all, log: Some(log), changes, ready, _place: place };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((event, following))
    });
    let over = async move {
        match for_seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let stop = api.stop();
    let over = async move {
        tokio::select! { () = over => {}, () = stop.cancelled() => {} }
    };
    Ok(events_response(events.take_until(Box::pin(over))))
}

fn reset() -> Event {
    Event::default().event("reset").data("{}")
}

/// The log from behind the last event that was seen, or from its end; and whether too much was missed.
fn begin(dir: &std::path::Path, last_seen: Option<&str>) -> Result<(Records, bool), Failure> {
    let unreadable = |error: ReadError| {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, "the log could not be followed");
        Failure::new(ErrorCode::Internal, "the log could not be followed")
    };
    let mut log = records(dir, last_segment_start(dir).map_err(unreadable)?);
    let end = log.by_ref().filter_map(Result::ok).last().map_or(0, |record| record.seq.0);
    let Some(last_seen) = last_seen else { return Ok((log, false)) };
    match last_seen.parse::<u64>() {
        Ok(seen) if seen <= end && end - seen <= MISSED_MAX => Ok((records(dir, Some(LogSeq(seen + 1))), false)),
        Ok(_) | Err(_) => Ok((log, true)),
    }
}

impl Following {
    /// The next event; none when the log cannot be read.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let news = async {
                match &mut self.changes {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = news => match news {
                    Some(news) => self.ready.extend(self.changed(&news)),
                    None => self.changes = None,
                },
                () = tokio::time::sleep(INTERVAL) => self.read().await?,
            }
        }
    }

    /// Reads what has come into the log since.
    async fn read(&mut self) -> Option<()> {
        let mut log = self.log.take()?;
        let read = tokio::task::spawn_blocking(move || {
            let batch: Vec<Record> = log.by_ref().take(BATCH_MAX).filter_map(Result::ok).collect();
            (log, batch)
        });
        let (log, batch) = read.await.ok()?;
        self.log = Some(log);
        let told: Vec<Event> = batch.iter().filter_map(|record| self.told(record)).collect();
        self.ready.extend(told);
        Some(())
    }

    /// What is told of a record, when it is one of those that are, and about something that the caller may see.
    fn told(&self, record: &Record) -> Option<Event> {
        let (name, what) = name_of(record.kind)?;
        // A call that waits for approval need not name a session.
        let may_see = match (record.session, &record.principal) {
            (Some(session), _) => self.connection.sees(session),
            (None, Some(principal)) => self.connection.is_of(principal),
            (None, None) => false,
        };
        if !self.all && !may_see {
            return None;
        }
        let data = json!({
            "what": what, "at": record.ts, "session_id": record.session, "task_id": record.task, "tool": record.tool,
            "path": record.path, "outcome": record.outcome, "code": record.code,
        });
        Some(Event::default().event(name).id(record.seq.0.to_string()).data(data.to_string()))
    }

    fn changed(&self, news: &News) -> Option<Event> {
        let changed = match news {
            News::Changed(changed) => changed,
            News::Transcript(_) => return None,
            News::Missed => return Some(reset()),
        };
        if !self.all && !self.connection.sees(changed.session) {
            return None;
        }
        let files = changed.files.as_ref().map(|files| {
            let named = files.iter().map(|file| json!({"path": file.path, "change": file.change, "size": file.size}));
            named.collect::<Vec<_>>()
        });
        let data = json!({"session_id": changed.session, "files": files});
        Some(Event::default().event("files").data(data.to_string()))
    }
}

/// How a record's kind is told: the event's name, and what happened. Only what happens in sessions is.
const fn name_of(kind: EventKind) -> Option<(&'static str, &'static str)> {
    match kind {
        EventKind::SessionCreated => Some(("session", "created")),
        EventKind::SessionOpening => Some(("session", "opening")),
        EventKind::SessionOpened => Some(("session", "opened")),
        EventKind::SessionSuspended => Some(("session", "suspended")),
        EventKind::SessionLost => Some(("session", "lost")),
        EventKind::SessionUpdated => Some(("session", "updated")),
        EventKind::SessionShared => Some(("session", "shared")),
        EventKind::SessionUnshared => Some(("session", "unshared")),
        EventKind::SessionClosing => Some(("session", "closing")),
        EventKind::SessionClosed => Some(("session", "closed")),
        EventKind::SessionExpired => Some(("session", "expired")),
        EventKind::ApprovalRequested => Some(("approval", "requested")),
        EventKind::ApprovalDecided => Some(("approval", "decided")),
        EventKind::TaskAttempt => Some(("task", "started")),
        EventKind::TaskOutcome | EventKind::TaskUnknown => Some(("task", "ended")),
        _ => None,
    }
}
