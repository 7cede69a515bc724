//! `/workers`: what there is, and what new work each gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use codegen_types::{ErrorCode, Failure, WorkerId};
use coordinator_core::worker::Admittance;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::{InPath, InQuery};
use super::page::{self, PageQuery};
use crate::approvals::Way;
use crate::http::error::ApiError;
use crate::identity::Scope;
use crate::operators::{Actor, WorkerRow};

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
struct Worker {
    /// Its name.
    worker_id: String,
    /// `joining`, `healthy`, `suspect` or `draining`; `gone` when only an operator's word of it is left.
    state: String,
    /// What new work it gets: `open`, `cordoned` or `draining`.
    admittance: String,
    /// Who said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    admittance_by: Option<String>,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    admittance_since: Option<String>,
    /// Whether it is draining and nothing of any session is left on it but files.
    drained: bool,
    /// Sessions that it can have open at once.
    slots_total: u32,
    /// Sessions that it has open.
    slots_used: u32,
    /// Slots promised to sessions that are about to be opened.
    slots_reserved: u32,
    /// Sessions that have processes on it, or are about to.
    sessions_open: usize,
    /// Tasks that run on it.
    tasks_running: usize,
    #[serde(flatten)]
    #[schema(value_type = Life)]
    life: Option<Life>,
}

/// What the worker said of itself; all of it is absent when it is gone.
#[derive(Debug, Serialize, ToSchema)]
struct Life {
    /// Which life of it.
    #[schema(required = false)]
    incarnation: String,
    /// Its release, as it says itself.
    #[schema(required = false)]
    version: String,
    /// How well its sandboxes isolate: `full`, `portable`, `reduced` or `none`.
    #[schema(required = false)]
    isolation: String,
    /// What it runs programs with.
    #[schema(required = false)]
    runtimes: Vec<Runtime>,
    /// Its operator's labels.
    #[schema(required = false)]
    labels: BTreeMap<String, String>,
    /// How long ago it was heard of.
    #[schema(required = false)]
    heartbeat_age_seconds: f64,
    /// Whether it can be called just now.
    #[schema(required = false)]
    link_up: bool,
}

/// What runs programs.
#[derive(Debug, Serialize, ToSchema)]
struct Runtime {
    /// Its name.
    name: String,
    /// Its release.
    version: String,
}

/// A page of workers.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerPage {
    /// The workers, and those gone that are cordoned, by their names.
    workers: Vec<Worker>,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(drain))
}

/// List the workers
#[utoipa::path(get, path = "/workers", tag = "operators", operation_id = "list_workers", params(PageQuery), responses(
    (status = 200, description = "A page of them, by their names", body = WorkerPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let plant = Arc::clone(api.plant());
    let work = async move { Ok(plant.operators().workers()) };
    let workers: Vec<WorkerRow> = api.operate(&asked, "workers/list", json!({}), Scope::Admin.into(), work).await?;
    let place = |worker: &WorkerRow| (0, worker.worker_id.to_string());
    let (workers, next) = page::of(workers, &query, place, |one, other| one > other)?;
    let workers = workers.into_iter().map(|worker| json!(Worker::of(worker))).collect();
    Ok(page::answer("workers", workers, next, &uri))
}

/// Describe a worker
#[utoipa::path(get, path = "/workers/{worker_id}", tag = "operators", operation_id = "get_worker",
    params(("worker_id" = String, Path, description = "The worker's name")),
    responses((status = 200, description = "The worker", body = Worker)))]
async fn get(State(api): State<Api>, asked: Asked, InPath(id): InPath<String>) -> Result<Json<Worker>, ApiError> {
    let (plant, worker) = (Arc::clone(api.plant()), named(&id));
    let work = async move { Ok(Worker::of(plant.operators().worker(&worker?)?.row)) };
    Ok(Json(api.operate(&asked, "workers/get", about(&id), Scope::Admin.into(), work).await?))
}

/// Give a worker no new sessions
///
/// Whichever life of it comes, until it takes sessions again. Sessions whose files are there go on.
#[utoipa::path(post, path = "/workers/{worker_id}/cordon", tag = "operators", operation_id = "cordon_worker",
    params(("worker_id" = String, Path, description = "The worker's name")),
    responses((status = 200, description = "It is cordoned", body = Worker)))]
async fn cordon(State(api): State<Api>, asked: Asked, InPath(id): InPath<String>) -> Result<Json<Worker>, ApiError> {
    admit(&api, &asked, "workers/cordon", &id, Admittance::Cordoned).await
}

/// Let a worker take sessions again
#[utoipa::path(post, path = "/workers/{worker_id}/uncordon", tag = "operators", operation_id = "uncordon_worker",
    params(("worker_id" = String, Path, description = "The worker's name")),
    responses((status = 200, description = "It takes sessions", body = Worker)))]
async fn uncordon(State(api): State<Api>, asked: Asked, InPath(id): InPath<String>) -> Result<Json<Worker>, ApiError> {
    admit(&api, &asked, "workers/uncordon", &id, Admittance::Open).await
}

/// Drain a worker
///
/// It gets no sessions, and those that it has are ended as they go idle; their files stay. `drained` says when that is
/// done.
#[utoipa::path(post, path = "/workers/{worker_id}/drain", tag = "operators", operation_id = "drain_worker",
    params(("worker_id" = String, Path, description = "The worker's name")),
    responses((status = 200, description = "It is draining", body = Worker)))]
async fn drain(State(api): State<Api>, asked: Asked, InPath(id): InPath<String>) -> Result<Json<Worker>, ApiError> {
    admit(&api, &asked, "workers/drain", &id, Admittance::Draining).await
}

async fn admit(
    api: &Api,
    asked: &Asked,
    method: &'static str,
    id: &str,
    admittance: Admittance,
) -> Result<Json<Worker>, ApiError> {
    asked.takes_no_key()?;
    let (plant, worker) = (Arc::clone(api.plant()), named(id));
    let actor = Actor { principal: asked.identity.principal.clone(), way: Way::Rest };
    let work = async move { Ok(Worker::of(plant.operators().admit(worker?, admittance, actor).await?)) };
    Ok(Json(api.operate(asked, method, about(id), Scope::Admin.into(), work).await?))
}

/// What is no name names no worker.
fn named(id: &str) -> Result<WorkerId, Failure> {
    id.parse().map_err(|_| Failure::new(ErrorCode::NotFound, "no such worker is there"))
}

fn about(id: &str) -> serde_json::Value {
    json!({"worker_id": id.chars().take(64).collect::<String>()})
}

impl Worker {
    fn of(row: WorkerRow) -> Self {
        let life = row.life.map(|life| Life {
            incarnation: life.incarnation.to_string(),
            version: life.version,
            isolation: life.isolation,
            runtimes: life
                .runtimes
                .into_iter()
                .map(|runtime| Runtime { name: runtime.name, version: runtime.version })
                .collect(),
            labels: life.labels,
            heartbeat_age_seconds: life.heartbeat_age_seconds,
            link_up: life.link_up,
        });
        let admittance = row.cordon.as_ref().map_or(Admittance::Open, |cordon| cordon.admittance);
        Self {
            worker_id: row.worker_id.to_string(),
            state: row.state,
            admittance: admittance.as_str().to_owned(),
            admittance_by: row.cordon.as_ref().map(|cordon| cordon.by.clone()),
            admittance_since: row.cordon.as_ref().map(|cordon| cordon.since.to_string()),
            drained: row.drained,
            slots_total: row.slots.total,
            slots_used: row.slots.used,
            slots_reserved: row.slots.reserved,
            sessions_open: row.sessions_open,
            tasks_running: row.tasks_running,
            life,
        }
    }
}
