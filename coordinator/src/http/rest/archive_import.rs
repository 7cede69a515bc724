//! `PUT /sessions/{session_id}/archive`: a tar, written into the workspace file by file as it comes in.

use std::mem;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codegen_types::{ErrorCode, Failure, WorkspacePath};
use coordinator_core::unpacking::{Bounds, File, Refused, Unpacking};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::archive::{BYTES_MAX, ENTRIES_MAX, patiently};
use super::asked::Asked;
use super::extract::{InPath, InQuery};
use super::idempotency::Repeatable;
use super::sessions::in_session;
use crate::http::bodies::{Bodies, Inflow, Room};
use crate::http::error::ApiError;
use crate::identity;

/// The tool that writes each file.
const WRITES: &str = "fs_write";
/// A file that is in a directory while it is made, since directories are made for files.
const PASSING_FILE: &str = ".codegen-directory";
/// The most that is begun with, in bytes: headers and what fills up blocks are less than all files may be.
const BODY_BYTES_MAX: u64 = 2 * BYTES_MAX;
/// How much of an entry's name is repeated in words, in characters.
const SHOWN_CHARS: usize = 200;

/// Where to write it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Place {
    /// The directory that the names in the archive are relative to; left out, the workspace itself.
    path: Option<String>,
}

/// What was written.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Written {
    /// Files.
    files: u64,
    /// What they hold together, in bytes.
    bytes: u64,
    /// Directories with nothing in them. Others are made for their files, and not counted.
    directories: u64,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Upload a directory
///
/// A tar of files and directories, as downloading gives it and as other programs write it, at most 10000 entries and 1
/// GiB. Every file is written by the way of `fs_write` as soon as it came in, which replaces one of that name; what else
/// is there stays. Permissions and times are not taken. Anything else in it (links, devices, names that lead
/// out of the workspace, an entry in another's place) ends it. It is not undone then: a refusal names the `entry` in its details,
/// and says how many `files` were written before. Under an idempotency key a file that was written is not written again.
#[utoipa::path(put, path = "/sessions/{session_id}/archive", tag = "files", operation_id = "write_archive",
    params(("session_id" = String, Path, description = "The session's handle"), Place, Repeatable),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, description = "All of it is written", body = Written)))]
async fn import(
    State(api): State<Api>,
    Extension(bodies): Extension<Bodies>,
    asked: Asked,
    InPath(session): InPath<String>,
    InQuery(place): InQuery<Place>,
    body: Body,
) -> Result<Json<Written>, ApiError> {
    let path = place.path.unwrap_or_default();
    let below = WorkspacePath::parse(&path)
        .map_err(|error| Failure::new(ErrorCode::PathViolation, format!("`path`: {error}")))?;
    let (connection, named) = (api.connection(&asked), session.clone());
    let find = async move { connection.find(&named).await };
    let args = json!({"session_id": session, "path": path});
    api.operate(&asked, "archive/write", args, identity::needed_scopes(WRITES), find).await?;
    if body.size_hint().lower() > BODY_BYTES_MAX {
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::InvalidArgument, "no archive is so large"));
    }
    let _place = api.place_for_archive(&asked.identity.principal)?;
    let room = bodies.nothing_of(&asked.identity.principal);
    let mut import = Import { api, asked, bodies, session, room, calls: 0, written: Written::default() };
    let inflow = import.bodies.inflow(body);
    match import.take(inflow, below).await {
        Ok(()) => Ok(Json(import.written)),
        Err(error) => Err(error.with_details(json!(import.written))),
    }
}

/// An archive that is being written.
struct Import {
    api: Api,
    asked: Asked,
    bodies: Bodies,
    session: String,
    /// Of the file that is coming in.
    room: Room,
    /// Calls of tools so far.
    calls: usize,
    written: Written,
}

impl Import {
    async fn take(&mut self, mut inflow: Inflow, below: WorkspacePath) -> Result<(), ApiError> {
        let file_bytes_max = self.api.limits().file_bytes;
        let bounds = Bounds { entries_max: ENTRIES_MAX as usize, bytes_max: BYTES_MAX, file_bytes_max };
        let mut unpacking = Unpacking::new(below, bounds);
        while let Some(piece) = inflow.next().await? {
            let mut rest = &*piece;
            while let Some(file) = unpacking.take(&mut rest).map_err(refused)? {
                self.write(file).await?;
            }
            self.room.grow_to(unpacking.held())?;
        }
        for directory in unpacking.end().map_err(refused)? {
            let made = self.make(&directory).await;
            made.map_err(|error| at(error, directory.as_str()))?;
        }
        Ok(())
    }

    async fn write(&mut self, file: File) -> Result<(), ApiError> {
        let File { name, path, contents } = file;
        let fields = || {
            let contents = STANDARD.encode(&contents);
            [("path", json!(path)), ("contents", json!(contents)), ("encoding", json!("base64"))]
        };
        self.call(WRITES, fields).await.map_err(|error| at(error, &name))?;
        self.written.files += 1;
        self.written.bytes += contents.len() as u64;
        Ok(())
    }

    /// Makes a directory in which nothing is.
    async fn make(&mut self, directory: &WorkspacePath) -> Result<(), ApiError> {
        let path = format!("{directory}/{PASSING_FILE}");
        self.call(WRITES, || [("path", json!(path)), ("contents", json!("")), ("mode", json!("create"))]).await?;
        self.call("fs_delete", || [("path", json!(path))]).await?;
        self.written.directories += 1;
        Ok(())
    }

    async fn call<const N: usize>(
        &mut self,
        tool: &'static str,
        fields: impl Fn() -> [(&'static str, Value); N],
    ) -> Result<(), ApiError> {
        let nothing = self.bodies.nothing_of(&self.asked.identity.principal);
        let asked = self.asked.part(self.calls, Arc::new(mem::replace(&mut self.room, nothing)));
        self.calls += 1;
        let args = || {
            let mut args: Map<String, Value> = in_session(&self.session);
            args.extend(fields().map(|(name, value)| (name.to_owned(), value)));
            Value::Object(args)
        };
        patiently(|| self.api.call(&asked, tool, args())).await.map(drop)
    }
}

fn refused(Refused { entry, why }: Refused) -> ApiError {
    let is_too_much = why.is_too_much();
    let error = ApiError::from(Failure::from(why));
    let error = if is_too_much { error.with_status(StatusCode::PAYLOAD_TOO_LARGE) } else { error };
    match entry {
        Some(entry) => at(error, &entry),
        None => error,
    }
}

/// A refusal that names the entry.
fn at(error: ApiError, entry: &str) -> ApiError {
    let shown: String = entry.chars().take(SHOWN_CHARS).collect();
    error.about(&format!("{shown:?}")).with_details(json!({"entry": entry}))
}
