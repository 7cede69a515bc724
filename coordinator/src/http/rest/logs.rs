//! `/tasks/{task_id}/logs`: what a task wrote, as text from a cursor on, or as a stream of events while it runs.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use codegen_types::{SessionId, TaskId};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, nothing_given};
use super::asked::Asked;
use super::extract::{InPath, InQuery};
use super::files::FOREIGN;
use super::places::Place;
use super::task_view::Task;
use crate::http::error::ApiError;
use crate::session::{SessionFollower, SessionNews};
use crate::tools::{LogPart, Raw};

/// How long news of a task are gathered before it is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a task is trusted to be as it was without news.
const TRUSTED: Duration = Duration::from_secs(10);
/// Characters of one event.
const EVENT_CHARS: u64 = 65_536;

/// Which part of the output.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Where to go on: `x-next-cursor` of an earlier answer, or the id of an event.
    cursor: Option<String>,
    /// Characters of one answer. Default 20000.
    #[param(minimum = 200, maximum = 100_000)]
    max_chars: Option<u64>,
}

/// Where a stream stands.
struct Following {
    api: Api,
    asked: Asked,
    task: TaskId,
    cursor: String,
    first: Option<LogPart>,
    is_over: bool,
    /// News of the task's session, once they are needed.
    news: Option<SessionFollower>,
    _place: Place,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Read what a task wrote
///
/// As text, or, where `Accept` says `text/event-stream`, as events `output` until the task ends, then `end`. Their ids
/// are cursors, so that a stream is taken up again by `Last-Event-ID`.
#[utoipa::path(get, path = "/tasks/{task_id}/logs", tag = "tasks", operation_id = "read_task_logs",
    params(
        ("task_id" = String, Path, description = "The task"),
        LogQuery,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses((status = 200, description = "Both streams in the order of arrival", content(
        (String = "text/plain"), (super::description::ServerEvent = "text/event-stream"),
    ), headers(("x-next-cursor" = String, description = "Where to go on, when there is more or may be")))))]
async fn logs(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
    InPath(task): InPath<String>,
    InQuery(LogQuery { cursor, max_chars }): InQuery<LogQuery>,
) -> Result<Response, ApiError> {
    let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let follows = accepts_events(&headers);
    let cursor = if follows { last_seen.or(cursor) } else { cursor };
    let mut args = json!({"task_id": task});
    if let Some(cursor) = &cursor {
        args["cursor"] = json!(cursor);
    }
    if let Some(chars) = max_chars.or(Some(if follows { EVENT_CHARS } else { 20_000 })) {
        args["max_chars"] = json!(chars);
    }
    let part = part(&api, &asked, args).await?;
    if !follows {
        return Ok(as_text(part));
    }
    let task = task.parse().map_err(|_| nothing_given())?;
    let place = api.place_for_events(&asked.identity.principal)?;
    let cursor = part.cursor.clone();
    let (stop, keep_alive, first) = (api.stop(), api.keep_alive(), Some(part));
    let following = Following { api, asked, task, cursor, first, is_over: false, news: None, _place: place };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((event, following))
    });
    Ok(events_response(events.take_until(stop.cancelled_owned()), keep_alive))
}

/// Whether a client wants events.
pub(super) fn accepts_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/event-stream"))
}

/// A stream of events as an answer, with a comment after so long without one.
pub(super) fn events_response(
    events: impl futures::Stream<Item = Event> + Send + 'static,
    keep_alive: Duration,
) -> Response {
    let keep_alive = KeepAlive::new().interval(keep_alive);
    let mut response = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

async fn part(api: &Api, asked: &Asked, args: Value) -> Result<LogPart, ApiError> {
    match api.call(asked, "task_logs", args).await?.raw {
        Some(Raw::Log(part)) => Ok(part),
        _ => Err(nothing_given()),
    }
}

fn as_text(part: LogPart) -> Response {
    let mut response = part.text.into_response();
    response.headers_mut().extend(FOREIGN);
    let next = HeaderValue::try_from(part.cursor).ok().filter(|_| part.more);
    response.headers_mut().extend(next.map(|next| (header::HeaderName::from_static("x-next-cursor"), next)));
    response
}

impl Following {
    /// The next event; none after the last.
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        loop {
            let part = match self.first.take() {
                Some(part) => part,
                None => self.more().await?,
            };
            self.cursor.clone_from(&part.cursor);
            if !part.text.is_empty() {
                return Some(
                    Event::default().event("output").id(part.cursor).data(json!({"text": part.text}).to_string()),
                );
            }
            let seen = self.api.seen(&self.asked, self.task).await.ok()?;
            if seen.outcome.is_some() && !part.more {
                self.is_over = true;
                let task = json!(Task::of(&seen)).to_string();
                return Some(Event::default().event("end").id(part.cursor).data(task));
            }
        }
    }

    /// What was written since; waits until there is something, or the task has ended.
    async fn more(&mut self) -> Option<LogPart> {
        loop {
            let seen = self.api.seen(&self.asked, self.task).await.ok()?;
            let has_more = self.cursor != format!("c{:x}", seen.log.written());
            if has_more || seen.outcome.is_some() {
                break;
            }
            self.wait(seen.info.session).await;
        }
        let args = json!({"task_id": self.task, "cursor": self.cursor, "max_chars": EVENT_CHARS});
        loop {
            match part(&self.api, &self.asked, args.clone()).await {
                Ok(part) => return Some(part),
                Err(error) if error.code() == codegen_types::ErrorCode::RateLimited => {
                    tokio::time::sleep(error.retry_after()).await;
                }
                Err(_) => return None,
            }
        }
    }
}

impl Following {
    /// Waits until the task may have written or ended.
    async fn wait(&mut self, session: SessionId) {
        let Some(news) = &mut self.news else {
            self.news = self.api.connection(&self.asked).follow_session(session).ok();
            if self.news.is_none() {
                tokio::time::sleep(INTERVAL).await;
            }
            // What happened before there was anybody to be told is seen by another look.
            return;
        };
        let about_it = async {
            loop {
                match news.next().await {
                    Some(SessionNews::Wrote { task, .. }) if task == self.task => return true,
                    Some(SessionNews::Ended(info)) if info.task == self.task => return true,
                    Some(SessionNews::Missed) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        };
        if let Ok(false) = tokio::time::timeout(TRUSTED, about_it).await {
            self.news = None;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Api {
    /// A task as it is, for a stream whose beginning is recorded.
    async fn seen(&self, asked: &Asked, task: TaskId) -> Result<crate::session::TaskSeen, ApiError> {
        Ok(self.connection(asked).task_seen(task).await?)
    }
}
