//! Whether the server lives, and whether it can do its work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

/// One thing that calls need, and whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// What is wrong with it, for an operator. Absent when it works.
    pub problem: Option<String>,
}

/// What says whether calls can be served.
pub trait Readiness: Send + Sync {
    /// Looks at everything that calls need.
    fn look(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Everything works that calls need. What is wrong is in the diagnostics, not in the answer: anybody may ask.
pub(super) async fn ready(State(readiness): State<Arc<dyn Readiness>>) -> Response {
    let checks = readiness.look().await;
    let is_ready = checks.iter().all(|check| check.problem.is_none());
    let mut shown = Map::new();
    for Check { name, problem } in checks {
        if let Some(problem) = &problem {
            tracing::warn!(name, problem, "not ready");
        }
        shown.insert(name.to_owned(), json!(if problem.is_none() { "ok" } else { "failing" }));
    }
    let (status, word) = if is_ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    (status, Json(json!({"status": word, "checks": shown}))).into_response()
}
