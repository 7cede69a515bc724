//! `/events`: what happens in the caller's sessions, as it comes into the log.
//!
//! The log is what is followed, so that an event is told only once it is durable, its number in the log is its id, and
//! a client that comes back is told what it missed. Changes of files are told beside it, without ids.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use codegen_audit::Records;
use codegen_types::{ErrorCode, Failure, WorkspacePath};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::InQuery;
use super::logs::events_response;
use super::places::Place;
use super::tail::{self, Happened, Heard};
use crate::http::error::ApiError;
use crate::identity::{Scope, Scopes};
use crate::session::{ChangesFollower, News};
use crate::tools::Connection;

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
    api: Api,
    connection: Connection,
    all: bool,
    /// What was missed, until it is read; taken while it is being read elsewhere.
    missed: Option<Records>,
    /// The number of the last record that was looked at.
    seen: u64,
    log: broadcast::Receiver<Heard>,
    changes: Option<ChangesFollower>,
    ready: VecDeque<Event>,
    is_over: bool,
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
            let follower = api.tail().follow(dir.clone()).await?;
            let missed = match last_seen {
                Some(last_seen) => Missed::since(&api, dir, &last_seen, follower.end).await?,
                None => Missed::Nothing,
            };
            Ok((place, follower, missed))
        }
    };
    let (place, follower, missed) = api.operate(&asked, "events/follow", args, needed, begin).await?;
    let connection = api.connection(&asked);
    let changes = Some(connection.changes());
    let (missed, ready) = match missed {
        Missed::Nothing => (None, VecDeque::new()),
        Missed::Some(log) => (Some(log), VecDeque::new()),
        Missed::TooMuch => (None, VecDeque::from([reset()])),
    };
    let (seen, log, is_over) = (follower.end, follower.news, false);
    // What was missed begins before the log's end of just now.
    let seen = if missed.is_some() { 0 } else { seen };
    let following =
        Following { api: api.clone(), connection, all, missed, seen, log, changes, ready, is_over, _place: place };
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
    let (stop, keep_alive) = (api.stop(), api.keep_alive());
    let over = async move {
        tokio::select! { () = over => {}, () = stop.cancelled() => {} }
    };
    Ok(events_response(events.take_until(Box::pin(over)), keep_alive))
}

fn reset() -> Event {
    Event::default().event("reset").data("{}")
}

/// What a client missed that comes back.
enum Missed {
    Nothing,
    /// What the log has from there on.
    Some(Records),
    /// More than is told, or nobody knows what.
    TooMuch,
}

impl Missed {
    async fn since(api: &Api, dir: PathBuf, last_seen: &str, end: u64) -> Result<Self, Failure> {
        let Ok(seen) = last_seen.parse::<u64>() else { return Ok(Self::TooMuch) };
        let log = api.catch_up(move || tail::behind(&dir, seen, end)).await?;
        Ok(log.map_or(Self::TooMuch, Self::Some))
    }
}

impl Following {
    /// The next event; none after the last, when the log cannot be read.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            if let Some(log) = self.missed.take() {
                self.catch_up(log).await;
                continue;
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
                heard = self.log.recv() => self.hear(heard),
            }
        }
    }

    /// Reads some of what was missed. What comes meanwhile waits, and is told once.
    async fn catch_up(&mut self, log: Records) {
        let Ok((log, batch)) = self.api.catch_up(move || tail::read(log)).await else {
            return self.end();
        };
        for heard in batch.heard {
            self.hear(Ok(heard));
        }
        self.seen = batch.last.unwrap_or(self.seen);
        self.missed = batch.more.then_some(log);
    }

    fn hear(&mut self, heard: Result<Heard, RecvError>) {
        match heard {
            Ok(Heard::Happened(happened)) if happened.seq > self.seen => {
                self.seen = happened.seq;
                self.ready.extend(self.told(&happened));
            }
            Ok(Heard::Happened(_)) => {}
            Ok(Heard::Gap) | Err(RecvError::Lagged(_)) => self.ready.push_back(reset()),
            Ok(Heard::Broken) | Err(RecvError::Closed) => self.end(),
        }
    }

    /// Ends the stream: its client has to look anew, and to come back.
    fn end(&mut self) {
        self.ready.push_back(reset());
        self.is_over = true;
    }

    /// What is told of something in the log, when it is about something that the caller may see.
    fn told(&self, happened: &Happened) -> Option<Event> {
        let may_see = match (happened.session, &happened.principal) {
            (Some(session), _) => self.connection.sees(session),
            (None, Some(principal)) => self.connection.is_of(principal),
            (None, None) => false,
        };
        if !self.all && !may_see {
            return None;
        }
        let mut data = happened.data.clone();
        let readable = |path: &&String| WorkspacePath::parse(path).is_ok_and(|path| self.connection.reads(&path));
        data["path"] = json!(happened.path.as_ref().filter(readable));
        Some(Event::default().event(happened.name).id(happened.seq.to_string()).data(data.to_string()))
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
            let readable = files.iter().filter(|file| self.connection.reads(&file.path));
            let named = readable.map(|file| json!({"path": file.path, "change": file.change, "size": file.size}));
            named.collect::<Vec<_>>()
        });
        if files.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let data = json!({"session_id": changed.session, "files": files});
        Some(Event::default().event("files").data(data.to_string()))
    }
}
