//! `/approvals`: calls that wait for somebody's approval, and what is decided about them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use codegen_types::ApprovalId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::{InBody, InPath, InQuery};
use super::page::{self, PageQuery};
use crate::approvals::{ApprovalView, Decider, Rest, Way, no_such_request};
use crate::http::error::ApiError;
use crate::identity::{Scope, Scopes};

/// Why it is decided so.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Decision {
    /// Why, for the log and the caller.
    why: Option<String>,
}

/// A call that waits for approval.
#[derive(Debug, Serialize, ToSchema)]
struct Approval {
    /// Its id.
    id: String,
    /// `pending`, `approved` or `denied`.
    state: String,
    /// Who made the call.
    principal: String,
    /// The tool.
    tool: String,
    /// Its arguments, long ones by head, tail, length and SHA-256; secrets as their length.
    #[schema(value_type = Object)]
    arguments: Value,
    /// What is not among them: `nothing`; `kept`, which the request gives whole when it is asked for by its id; `not_kept`,
    /// which nobody can see.
    rest: Rest,
    /// The session that the call names.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// The rule that wants it approved.
    rule: String,
    /// What the rule gives as its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the call was made (RFC 3339).
    created: String,
    /// When silence denies it; of an approved one, until when it is good.
    expires: String,
}

/// A call that waits for approval, whole.
#[derive(Debug, Serialize, ToSchema)]
struct WholeApproval {
    #[serde(flatten)]
    approval: Approval,
    /// Its arguments whole, secrets as their length; absent when they are too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    whole: Option<Value>,
}

/// A page of calls that wait for approval.
#[derive(Debug, Serialize, ToSchema)]
struct ApprovalPage {
    /// The calls, oldest first.
    approvals: Vec<Approval>,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(approve)).routes(routes!(deny))
}

/// List calls that wait for approval
///
/// Operators see everybody's, others their own.
#[utoipa::path(get, path = "/approvals", tag = "approvals", operation_id = "list_approvals", params(PageQuery), responses(
    (status = 200, description = "A page of them, the oldest first", body = ApprovalPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let (plant, identity) = (Arc::clone(api.plant()), asked.identity.clone());
    let place = |view: &ApprovalView| (view.created.as_millisecond(), view.id.to_string());
    let work = async move {
        let mut shown = plant.approvals().list();
        shown.retain(|view| identity.scopes.has(Scope::Admin) || view.principal == identity.principal);
        shown.sort_by_key(place);
        Ok(shown)
    };
    let shown = api.operate(&asked, "approvals/list", json!({}), needed(&asked), work).await?;
    let (shown, next) = page::of(shown, &query, place, |one, other| one > other)?;
    let approvals = shown.into_iter().map(|view| json!(Approval::of(view))).collect();
    Ok(page::answer("approvals", approvals, next, &uri))
}

/// Show a call that waits for approval
///
/// Operators see everybody's, others their own.
#[utoipa::path(get, path = "/approvals/{approval_id}", tag = "approvals", operation_id = "show_approval",
    params(("approval_id" = String, Path, description = "The request for approval")),
    responses((status = 200, description = "With all there is of its arguments", body = WholeApproval)))]
async fn show(
    State(api): State<Api>,
    asked: Asked,
    InPath(id): InPath<String>,
) -> Result<Json<WholeApproval>, ApiError> {
    let (plant, identity) = (Arc::clone(api.plant()), asked.identity.clone());
    let args = json!({"id": id.chars().take(64).collect::<String>()});
    let id = id.parse::<ApprovalId>();
    let work = async move {
        let shown = plant.approvals().show(id.map_err(|_| no_such_request())?)?;
        let is_theirs = identity.scopes.has(Scope::Admin) || shown.view.principal == identity.principal;
        if is_theirs { Ok(shown) } else { Err(no_such_request()) }
    };
    let shown = api.operate(&asked, "approvals/show", args, needed(&asked), work).await?;
    Ok(Json(WholeApproval { approval: Approval::of(shown.view), whole: shown.whole }))
}

/// Approve of a call
///
/// Operators may; others only of their own calls, and only where the rule lets them.
#[utoipa::path(post, path = "/approvals/{approval_id}/approve", tag = "approvals", operation_id = "approve_call",
    params(("approval_id" = String, Path, description = "The request for approval")), request_body = Decision,
    responses((status = 200, description = "It is approved", body = Approval)))]
async fn approve(
    State(api): State<Api>,
    asked: Asked,
    InPath(id): InPath<String>,
    InBody(decision): InBody<Decision>,
) -> Result<Json<Approval>, ApiError> {
    decide(&api, &asked, ("approvals/approve", true), &id, decision).await
}

/// Deny a call
#[utoipa::path(post, path = "/approvals/{approval_id}/deny", tag = "approvals", operation_id = "deny_call",
    params(("approval_id" = String, Path, description = "The request for approval")), request_body = Decision,
    responses((status = 200, description = "It is denied", body = Approval)))]
async fn deny(
    State(api): State<Api>,
    asked: Asked,
    InPath(id): InPath<String>,
    InBody(decision): InBody<Decision>,
) -> Result<Json<Approval>, ApiError> {
    decide(&api, &asked, ("approvals/deny", false), &id, decision).await
}

/// Operators need no other scope; a user's own calls are for whoever may make them.
fn needed(asked: &Asked) -> Scopes {
    if asked.identity.scopes.has(Scope::Admin) { Scope::Admin.into() } else { Scope::Tools.into() }
}

async fn decide(
    api: &Api,
    asked: &Asked,
    (method, approves): (&'static str, bool),
    id: &str,
    Decision { why }: Decision,
) -> Result<Json<Approval>, ApiError> {
    asked.takes_no_key()?;
    let identity = asked.identity.clone();
    let way = if identity.scopes.has(Scope::Admin) { Way::Rest } else { Way::Client };
    let by = Decider { principal: identity.principal, way };
    let args = json!({"id": id.chars().take(64).collect::<String>(), "why": why});
    let (plant, id) = (Arc::clone(api.plant()), id.parse::<ApprovalId>());
    let work = async move {
        let id = id.map_err(|_| no_such_request())?;
        let approvals = plant.approvals();
        if approves {
            approvals.approve(id, &by, why.as_deref()).await
        } else {
            approvals.deny(id, &by, why.as_deref()).await
        }
    };
    Ok(Json(Approval::of(api.operate(asked, method, args, needed(asked), work).await?)))
}

impl Approval {
    fn of(view: ApprovalView) -> Self {
        Self {
            id: view.id.to_string(),
            state: view.state.as_str().to_owned(),
            principal: view.principal.to_string(),
            tool: view.tool,
            arguments: view.arguments,
            rest: view.rest,
            session_id: view.session.map(|session| session.to_string()),
            rule: view.rule,
            reason: view.reason,
            created: view.created.to_string(),
            expires: view.expires.to_string(),
        }
    }
}
