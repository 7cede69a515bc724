//! What those who run the server ask for: the log, usage.

use std::path::PathBuf;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use codegen_audit::{
    EventKind, Outcome, Query, ReadError, VerifyOptions, first_record_of_segment_at, records, verify_with,
};
use codegen_types::{ErrorCode, Failure, LogSeq, SessionId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::InQuery;
use super::page::{self, PageQuery};
use crate::approvals::Approvals;
use crate::http::error::ApiError;
use crate::identity::{Scope, Scopes};
use crate::operators::Operators;
use crate::usage::{self, By};

/// Records that one request looks at; a cursor goes on from there.
const LOOKED_AT_MAX: usize = 200_000;

/// What operators see of the server.
pub trait Plant: Send + Sync {
    /// What operators see and do.
    fn operators(&self) -> &Operators;

    /// The calls that wait for approval.
    fn approvals(&self) -> &Approvals;

    /// Where the log is; nowhere when it is in memory.
    fn audit_dir(&self) -> Option<PathBuf>;
}

/// Which records.
#[derive(Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecordFilter {
    /// Written at this time or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<jiff::Timestamp>,
    /// Written before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<jiff::Timestamp>,
    /// Asked for by this principal.
    principal: Option<String>,
    /// Of this session.
    #[param(value_type = Option<String>)]
    session: Option<SessionId>,
    /// Of this task.
    #[param(value_type = Option<String>)]
    task: Option<TaskId>,
    /// Of this tool.
    tool: Option<String>,
    /// That ended so: `ok`, `failed`, `refused` or `unknown`.
    outcome: Option<String>,
    /// Of this type, such as `task.attempt`.
    r#type: Option<String>,
    /// About this path or something below it.
    path: Option<String>,
    /// At most so many entries. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

/// A page of records.
#[derive(Debug, Serialize, ToSchema)]
struct RecordPage {
    /// The records as they are in the log, oldest first.
    #[schema(value_type = Vec<Object>)]
    records: Vec<Value>,
    /// Goes on after the last one that was looked at; absent at the log's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What to add up.
#[derive(Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageFilter {
    /// One row for each `user`, `tool` or `day`. Default `user`.
    by: Option<String>,
    /// Calls that ended at this time or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<jiff::Timestamp>,
    /// Calls that ended before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<jiff::Timestamp>,
    /// Calls of this principal alone. Only operators may ask for another one than themselves.
    principal: Option<String>,
}

/// Who used how much.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// What the rows are about.
    by: String,
    /// One row each, in the order of their names.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Value>,
    /// The last record of the log that was looked at.
    through: u64,
    /// Lines that are no records, and were passed over.
    damaged_lines: u64,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    let of_log = OpenApiRouter::new().routes(routes!(query)).routes(routes!(verify));
    OpenApiRouter::new().routes(routes!(used)).merge(of_log)
}

/// Look for records of the audit log
#[utoipa::path(get, path = "/audit/records", tag = "operators", operation_id = "query_audit", params(RecordFilter), responses(
    (status = 200, description = "A page of them, the oldest first", body = RecordPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn query(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(filter): InQuery<RecordFilter>,
) -> Result<Response, ApiError> {
    let args = json!(filter);
    let page = PageQuery { limit: filter.limit, cursor: filter.cursor.clone() };
    let (limit, after) = (page.limit()?, page.after()?.map(|(seq, _)| u64::try_from(seq).unwrap_or(0)));
    let wanted = filter.wanted()?;
    let dir = api.plant().audit_dir();
    let work = api.scan(&asked, move || found(&dir.ok_or_else(no_log)?, &wanted, after, limit));
    let (records, next) = api.operate(&asked, "audit/query", args, Scope::Admin.into(), work).await?;
    let next = next.map(|seq| page::cursor(&(i64::try_from(seq).unwrap_or(i64::MAX), String::new())));
    Ok(page::answer("records", records, next, &uri))
}

/// Verify the audit log
///
/// Every record, link and checkpoint is read and checked, which takes as long as the log is.
#[utoipa::path(post, path = "/audit/verify", tag = "operators", operation_id = "verify_audit", responses(
    (status = 200, description = "The verdict", body = Object),
))]
async fn verify(State(api): State<Api>, asked: Asked) -> Result<Json<Value>, ApiError> {
    asked.takes_no_key()?;
    let dir = api.plant().audit_dir();
    let work = api.scan(&asked, move || Ok(json!(verify_with(&dir.ok_or_else(no_log)?, &VerifyOptions::default()))));
    Ok(Json(api.operate(&asked, "audit/verify", json!({}), Scope::Admin.into(), work).await?))
}

/// Say who used how much
///
/// Operators see everybody's usage, others their own.
#[utoipa::path(get, path = "/usage", tag = "usage", operation_id = "show_usage", params(UsageFilter), responses(
    (status = 200, description = "Added up from the audit log", body = Usage),
))]
async fn used(
    State(api): State<Api>,
    asked: Asked,
    InQuery(filter): InQuery<UsageFilter>,
) -> Result<Json<Value>, ApiError> {
    let args = json!(filter);
    let UsageFilter { by, since, until, mut principal } = filter;
    let by = match by.as_deref() {
        None | Some("user") => By::User,
        Some("tool") => By::Tool,
        Some("day") => By::Day,
        Some(_) => return Err(ApiError::bad_request("`by`: must be user, tool or day")),
    };
    let identity = &asked.identity;
    let is_operator = identity.scopes.has(Scope::Admin);
    let own = principal.as_deref().is_none_or(|name| name == identity.principal.as_str());
    let needed: Scopes = if own { Scopes::NONE } else { Scope::Admin.into() };
    if !is_operator {
        principal = Some(identity.principal.to_string());
    }
    let wanted = usage::Wanted { since, until, principal };
    let dir = api.plant().audit_dir();
    let work = api
        .scan(&asked, move || usage::report(&dir.ok_or_else(no_log)?, by, &wanted).map_err(|error| unreadable(&error)));
    Ok(Json(json!(api.operate(&asked, "usage/show", args, needed, work).await?)))
}

impl RecordFilter {
    fn wanted(self) -> Result<Query, ApiError> {
        let unknown = |field: &str| ApiError::bad_request(format!("`{field}`: there is none of that name"));
        let outcome: Option<Outcome> =
            self.outcome.map(|text| text.parse()).transpose().map_err(|_| unknown("outcome"))?;
        let kind: Option<EventKind> = self.r#type.map(|text| text.parse()).transpose().map_err(|_| unknown("type"))?;
        Ok(Query {
            since: self.since,
            until: self.until,
            principal: self.principal,
            session: self.session,
            task: self.task,
            tool: self.tool,
            outcome,
            kind,
            path: self.path,
        })
    }
}

/// Records that are wanted, and the last one that was looked at when there may be more.
fn found(
    dir: &std::path::Path,
    wanted: &Query,
    after: Option<u64>,
    limit: usize,
) -> Result<(Vec<Value>, Option<u64>), Failure> {
    let from = match (after, wanted.since) {
        (Some(after), _) => Some(LogSeq(after.saturating_add(1))),
        (None, Some(since)) => first_record_of_segment_at(dir, since).map_err(|error| unreadable(&error))?,
        (None, None) => None,
    };
    let mut found = Vec::new();
    let mut log = records(dir, from);
    let mut looked_at = 0;
    while let Some(record) = log.next() {
        let record = match record {
            Ok(record) => record,
            // What is damaged is for `verify` to tell.
            Err(ReadError::Bad { .. }) => continue,
            Err(error @ ReadError::Io { .. }) => return Err(unreadable(&error)),
        };
        if wanted.matches(&record) {
            found.extend(serde_json::from_str::<Value>(&record.line).ok());
        }
        looked_at += 1;
        if found.len() == limit || looked_at == LOOKED_AT_MAX {
            let more = log.any(|further| !matches!(further, Err(ReadError::Bad { .. })));
            return Ok((found, more.then_some(record.seq.0)));
        }
    }
    Ok((found, None))
}

fn no_log() -> Failure {
    Failure::new(ErrorCode::NotFound, "this server's log is in memory alone")
}

fn unreadable(error: &ReadError) -> Failure {
    let error: &(dyn std::error::Error + 'static) = error;
    tracing::error!(error, "the log could not be read");
    Failure::new(ErrorCode::Internal, "the log could not be read")
}
