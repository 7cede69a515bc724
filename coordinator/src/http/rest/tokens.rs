//! `/tokens`: made, listed and revoked by operators.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::{InBody, InPath, InQuery};
use super::page::{self, PageQuery};
use crate::http::error::ApiError;
use crate::identity::{self, Scope, TokenId, TokenView};

/// A token to be made.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// On whose behalf it is to be used.
    principal: String,
    /// What it permits: `tools`, `sessions`, `admin`, `worker`.
    scopes: Vec<String>,
    /// After how many seconds it expires; never when absent.
    lifetime_seconds: Option<u64>,
    /// What it is for.
    note: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
struct Token {
    /// Its name.
    id: String,
    /// On whose behalf it is used.
    principal: String,
    /// What it permits.
    scopes: Vec<String>,
    /// `active`, `expired` or `revoked`.
    state: String,
    /// When it was made (RFC 3339).
    created: String,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
struct MadeToken {
    #[serde(flatten)]
    view: Token,
    /// Its text, which is shown this once.
    token: String,
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
struct TokenPage {
    /// The tokens, oldest first.
    tokens: Vec<Token>,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

/// Make a token
///
/// Its text is shown once, so that this takes no `Idempotency-Key`.
#[utoipa::path(post, path = "/tokens", tag = "operators", operation_id = "create_token", request_body = NewToken, responses(
    (status = 201, description = "It is made", body = MadeToken),
))]
async fn create(
    State(api): State<Api>,
    asked: Asked,
    InBody(new): InBody<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), ApiError> {
    asked.takes_no_key()?;
    let args = json!(new);
    let scopes = new.scopes.iter().map(|scope| scope.parse::<Scope>()).collect::<Result<_, _>>();
    let scopes = scopes.map_err(|error| ApiError::bad_request(format!("`scopes`: {error}")))?;
    let NewToken { principal, lifetime_seconds, note, .. } = new;
    let new = identity::NewToken { principal, scopes, lifetime_seconds, note };
    let (tokens, by) = (api.tokens().clone(), asked.identity.principal.clone());
    let work = async move { tokens.create(new, &by).await };
    let (view, text) = api.operate(&asked, "tokens/create", args, Scope::Admin.into(), work).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { view: Token::of(view), token: text.expose().to_owned() })))
}

/// List the tokens, without their texts
#[utoipa::path(get, path = "/tokens", tag = "operators", operation_id = "list_tokens", params(PageQuery), responses(
    (status = 200, description = "A page of them, the oldest first", body = TokenPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let tokens = api.tokens().clone();
    let work = async move { Ok(tokens.list()) };
    let tokens: Vec<TokenView> = api.operate(&asked, "tokens/list", json!({}), Scope::Admin.into(), work).await?;
    let place = |token: &TokenView| (token.created.as_millisecond(), token.id.to_string());
    let (tokens, next) = page::of(tokens, &query, place, |one, other| one > other)?;
    let tokens = tokens.into_iter().map(|token| json!(Token::of(token))).collect();
    Ok(page::answer("tokens", tokens, next, &uri))
}

/// Revoke a token
///
/// The next request with it is refused, and it stays listed.
#[utoipa::path(delete, path = "/tokens/{token_id}", tag = "operators", operation_id = "revoke_token",
    params(("token_id" = String, Path, description = "The token's name")), responses(
    (status = 200, description = "It is revoked", body = Token),
))]
async fn revoke(State(api): State<Api>, asked: Asked, InPath(id): InPath<String>) -> Result<Json<Token>, ApiError> {
    asked.takes_no_key()?;
    let (tokens, by) = (api.tokens().clone(), asked.identity.principal.clone());
    let args = json!({"id": id.chars().take(128).collect::<String>()});
    let work = async move {
        let id: TokenId = id
            .parse()
            .map_err(|_| codegen_types::Failure::new(codegen_types::ErrorCode::NotFound, "there is no such token"))?;
        tokens.revoke(&id, &by).await
    };
    Ok(Json(Token::of(api.operate(&asked, "tokens/revoke", args, Scope::Admin.into(), work).await?)))
}

impl Token {
    fn of(view: TokenView) -> Self {
        Self {
            id: view.id.to_string(),
            principal: view.principal.to_string(),
            scopes: view.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            state: view.state.as_str().to_owned(),
            created: view.created.to_string(),
            expires: view.expires.map(|time| time.to_string()),
            revoked: view.revoked.map(|time| time.to_string()),
            note: view.note,
        }
    }
}
