//! `/api/docs`: the description as a page. It is made here, has no script, and asks no other host for anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

/// How the page looks.
const STYLE: &str = include_str!("page.css");
/// What a browser may do with the page: show it, in its own style.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Page(Arc<str>);

impl Page {
    /// The page of a description.
    pub(super) fn of(described: &Value) -> Self {
        let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
        let info = &described["info"];
        let _ = write!(
            page,
            "<meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\
             <link rel=\"stylesheet\" href=\"/api/docs.css\"></head><body><h1>{0} {1}</h1><p>{2}</p>\
             <p>The same for programs: <a href=\"/api/openapi.json\"><code>/api/openapi.json</code></a>. Credentials: \
             <code>Authorization: Bearer TOKEN</code>.</p>",
            escaped(&info["title"]),
            escaped(&info["version"]),
            escaped(&info["description"]),
        );
        for (tag, operations) in by_tag(described) {
            let _ = write!(page, "<h2>{tag}</h2>");
            page.extend(operations.iter().map(|operation| operation.shown()));
        }
        let schemas = described["components"]["schemas"].as_object();
        page.push_str("<h2>shapes</h2>");
        for (name, schema) in schemas.into_iter().flatten() {
            let text = serde_json::to_string_pretty(schema).unwrap_or_default();
            let _ = write!(
                page,
                "<details id=\"shape-{0}\"><summary><code>{0}</code></summary><pre>{1}</pre></details>",
                escape(name),
                escape(&text)
            );
        }
        page.push_str("</body></html>\n");
        Self(page.into())
    }
}

/// One operation.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    described: &'a Value,
}

/// The operations under the word by which they are grouped.
fn by_tag(described: &Value) -> BTreeMap<String, Vec<Operation<'_>>> {
    let mut tags: BTreeMap<String, Vec<Operation<'_>>> = BTreeMap::new();
    for (path, item) in described["paths"].as_object().into_iter().flatten() {
        for (method, described) in item.as_object().into_iter().flatten() {
            tags.entry(escaped(&described["tags"][0])).or_default().push(Operation { method, path, described });
        }
    }
    tags
}

impl Operation<'_> {
    fn shown(&self) -> String {
        let Self { method, path, described } = self;
        let mut text = format!(
            "<details><summary><b>{}</b> <code>{}</code> {}</summary>",
            method.to_uppercase(),
            escape(path),
            escaped(&described["summary"])
        );
        if let Some(more) = described["description"].as_str() {
            let _ = write!(text, "<p>{}</p>", escape(more));
        }
        let parameters = described["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !parameters.is_empty() {
            text.push_str("<table><tr><th>Parameter</th><th>In</th><th></th></tr>");
            for parameter in parameters {
                let (name, place) = (escaped(&parameter["name"]), escaped(&parameter["in"]));
                let about = escaped(&parameter["description"]);
                let _ = write!(text, "<tr><td><code>{name}</code></td><td>{place}</td><td>{about}</td></tr>");
            }
            text.push_str("</table>");
        }
        if let Some(content) = described["requestBody"]["content"].as_object() {
            let _ = write!(text, "<p>Body: {}</p>", kinds(content));
        }
        text.push_str("<table><tr><th>Status</th><th>When</th><th>Body</th></tr>");
        for (status, answer) in described["responses"].as_object().into_iter().flatten() {
            let body = answer["content"].as_object().map(kinds).unwrap_or_default();
            let when = escaped(&answer["description"]);
            let _ = write!(text, "<tr><td>{}</td><td>{when}</td><td>{body}</td></tr>", escape(status));
        }
        text.push_str("</table></details>");
        text
    }
}

/// Media types, with the shape of each.
fn kinds(content: &Map<String, Value>) -> String {
    let shown = content.iter().map(|(kind, media)| {
        let shape = media["schema"]["$ref"].as_str().and_then(|shape| shape.rsplit('/').next()).map(escape);
        let link = shape.map(|shape| format!(" <a href=\"#shape-{shape}\">{shape}</a>"));
        format!("<code>{}</code>{}", escape(kind), link.unwrap_or_default())
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn escaped(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Gives the page.
pub(super) async fn page(State(Page(text)): State<Page>) -> Response {
    as_page("text/html; charset=utf-8", text.to_string())
}

/// Gives its style.
pub(super) async fn style() -> Response {
    as_page("text/css; charset=utf-8", STYLE.to_owned())
}

fn as_page(kind: &'static str, text: String) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, text).into_response()
}
