//! The description of all operations (OpenAPI 3.1).

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response as Answer, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema};

use super::docs::Page;

/// Why a request is refused.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the answer")]
pub(super) struct Refusal {
    error: RefusalBody,
}

/// What is wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the answer")]
struct RefusalBody {
    /// A stable word, such as `SESSION_NOT_FOUND`; each has a page in the documentation.
    code: String,
    /// What happened and what to do next.
    message: String,
    /// Facts for programs.
    #[schema(value_type = Object)]
    details: Value,
}

/// One event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the answer")]
pub(super) struct ServerEvent {
    /// What it tells of.
    event: String,
    /// What happened, in JSON.
    data: String,
    /// Where to take the stream up again.
    id: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "CodeGen-MCP",
        description = "Sessions in which code is run, their files and tasks. Every operation is recorded in the audit log.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Refusal)),
    security(("token" = [])),
)]
struct Frame;

/// The description before any operation is in it.
pub(super) fn frame() -> OpenApi {
    let mut frame = Frame::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut frame.info.version);
    let token = Http::builder().scheme(HttpAuthScheme::Bearer).description(Some(
        "A token of `coordinator tokens create`, or of the issuer. A server on the loopback interface that has no tokens asks for none.",
    ));
    let components = frame.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token.build()));
    frame
}

/// How any operation may be refused.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "What is asked for is not understood"),
    ("401", "Nobody is known by these credentials"),
    ("403", "The credentials permit too little, or the request comes from a page that may not make it"),
    ("404", "There is no such thing of yours"),
    ("408", "The request came too slowly"),
    ("409", "It does not go with what is there"),
    ("410", "The session is closed or lost"),
    ("412", "It is another version than the one named"),
    ("413", "It is too large"),
    ("415", "A body of this kind is not taken"),
    ("422", "The idempotency key was used for another request, or a limit was reached"),
    ("429", "Too much at once, or a quota is used up"),
    ("500", "A fault of the server's"),
    ("502", "How it ended cannot be known"),
    ("503", "There is no room, no worker or no log just now"),
    ("504", "It took too long"),
    ("507", "The workspace is full"),
];

/// The finished description. Cheap to clone.
#[derive(Clone)]
pub(super) struct Description {
    text: Arc<str>,
    page: Page,
}

impl Description {
    pub(super) fn new(mut described: OpenApi) -> Self {
        let paths = std::mem::take(&mut described.paths.paths);
        // The description has no word for a parameter with slashes in it.
        described.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
        for item in described.paths.paths.values_mut() {
            let of_item =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head];
            of_item.into_iter().flatten().for_each(add_refusals);
        }
        let text = described.to_json().unwrap_or_default();
        let page = Page::of(&serde_json::from_str(&text).unwrap_or_default());
        Self { text: text.into(), page }
    }
}

impl FromRef<Description> for Page {
    fn from_ref(described: &Description) -> Self {
        described.page.clone()
    }
}

fn add_refusals(operation: &mut Operation) {
    for (status, why) in REFUSALS {
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| RefOr::T(refusal(why)));
    }
}

fn refusal(why: &str) -> Answer {
    let body = Content::new(Some(Ref::from_schema_name("Refusal")));
    ResponseBuilder::new().description(why).content("application/json", body).build()
}

/// Gives the description.
pub(super) async fn document(State(Description { text, .. }): State<Description>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
