//! The description of all operations (OpenAPI 3.1).

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Object, OpenApi, Ref, RefOr, Response as Answer, ResponseBuilder, Type};
use utoipa::{OpenApi as _, ToSchema};

use super::docs::Page;
use super::files::FOREIGN;

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
        description = "Sessions in which code is run, their files and tasks. Every operation is recorded in the audit log, and takes W3C trace context (`traceparent`, `tracestate`).",
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

/// What is sent with every stream of events.
const OF_STREAMS: [(&str, &str); 2] = [
    ("cache-control", "A stream is kept nowhere"),
    ("x-accel-buffering", "`no`: a proxy shall pass each event on at once"),
];

/// How any operation may be refused.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "What is asked for is not understood"),
    ("401", "Nobody is known by these credentials"),
    ("403", "The credentials permit too little, or the request comes from a page that may not make it"),
    ("404", "There is no such thing of yours"),
    ("408", "The request came too slowly"),
    ("409", "It does not go with what is there, or no worker that is there can do it"),
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
            of_item.into_iter().flatten().for_each(|operation| {
                add_refusals(operation);
                add_headers(operation);
            });
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

/// What is said beside a refusal.
const BESIDE_REFUSALS: &[(&str, &str, &str)] = &[
    ("401", "www-authenticate", "How to ask for credentials"),
    ("403", "www-authenticate", "How to ask for credentials that permit it, where others would"),
    ("429", "retry-after", "After how many seconds to try again"),
    ("503", "retry-after", "After how many seconds to try again"),
];

fn add_refusals(operation: &mut Operation) {
    for (status, why) in REFUSALS {
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| RefOr::T(refusal(status, why)));
    }
}

fn refusal(status: &str, why: &str) -> Answer {
    let body = Content::new(Some(Ref::from_schema_name("Refusal")));
    let refusal = ResponseBuilder::new().description(why).content("application/json", body);
    let beside = BESIDE_REFUSALS.iter().filter(|(of, ..)| *of == status);
    beside.fold(refusal, |refusal, (_, name, about)| refusal.header(*name, header_about(about))).build()
}

/// What is sent with everything of a kind.
fn add_headers(operation: &mut Operation) {
    let about_foreign = "What session code made is no page of ours";
    for answer in operation.responses.responses.values_mut() {
        let RefOr::T(answer) = answer else { continue };
        let has = |kind: &str| answer.content.contains_key(kind);
        let is_foreign = ["application/octet-stream", "application/x-tar", "text/plain"].into_iter().any(has);
        let foreign = FOREIGN.into_iter().filter(|_| is_foreign).map(|(name, _)| (name.to_string(), about_foreign));
        let is_stream = has("text/event-stream");
        let of_stream = OF_STREAMS.into_iter().filter(|_| is_stream).map(|(name, about)| (name.to_owned(), about));
        let headers = foreign.chain(of_stream).map(|(name, about)| (name, RefOr::T(header_about(about))));
        answer.headers.extend(headers);
    }
}

fn header_about(about: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(about)).build()
}

/// Gives the description.
pub(super) async fn document(State(Description { text, .. }): State<Description>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
