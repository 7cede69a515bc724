//! Workspace files and transcripts as the protocol's resources.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codegen_types::{ErrorCode, Failure};
use rmcp::model::{
    Annotations, ErrorData, ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
    ReadResourceResult, Resource, ResourceContents as WireContents, ResourceTemplate,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::json;

use super::handler::Handler;
use crate::tools::{Asked, ResourceBody, ResourceContents, ResourceFile, WorkspaceUri};

/// The template of every address. `{+path}` keeps the slashes of a path.
pub(super) const TEMPLATE: &str = "workspace://{session}/{+path}";
/// The template of every transcript.
pub(super) const TRANSCRIPT_TEMPLATE: &str = "transcript://{session}";

impl Handler {
    /// One page of files. The cursor is the last file's address.
    pub(super) async fn resources(
        &self,
        params: Option<PaginatedRequestParams>,
        context: &RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let _place = self.place()?;
        let cursor = params.and_then(|params| params.cursor);
        let after = cursor.map(|cursor| cursor.parse::<WorkspaceUri>()).transpose();
        let after = after.map_err(|_| ErrorData::invalid_params("unknown cursor", None))?;
        let asked = self.asked("resources/list", context);
        let page = self.connection().list_resources(after.as_ref(), &asked).await.map_err(|f| error(&f))?;
        let next = page.files.last().filter(|_| page.has_more).map(|file| file.uri.to_string());
        let mut result = ListResourcesResult::with_all_items(page.files.into_iter().map(resource).collect());
        result.next_cursor = next;
        Ok(result)
    }

    /// What a resource holds.
    pub(super) async fn resource(
        &self,
        uri: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<ReadResourceResult, ErrorData> {
        let _place = self.place()?;
        let asked = self.asked("resources/read", context);
        let read = self.connection().read_resource(uri, &asked).await.map_err(|failure| error(&failure))?;
        Ok(ReadResourceResult::new(vec![contents(uri, read)]))
    }

    /// How a client asked, for the records.
    pub(super) fn asked(&self, method: &'static str, context: &RequestContext<RoleServer>) -> Asked {
        let (scopes, trace) = (self.scopes(context), self.trace(context));
        Asked { method, scopes, client: self.client(context), trace, cancel: self.calls().token() }
    }
}

/// The two templates; there is nothing to page through.
pub(super) fn templates(params: Option<PaginatedRequestParams>) -> Result<ListResourceTemplatesResult, ErrorData> {
    if params.is_some_and(|params| params.cursor.is_some()) {
        return Err(ErrorData::invalid_params("unknown cursor: all templates are on one page", None));
    }
    let template = ResourceTemplate::new(TEMPLATE, "workspace_file").with_title("Workspace file").with_description(
        "A file of a session's workspace, percent-encoded as URIs are; a directory gives its listing. `session` is \
         a session_id.",
    );
    let transcript = ResourceTemplate::new(TRANSCRIPT_TEMPLATE, "session_transcript")
        .with_title("Session transcript")
        .with_description(
            "Who runs and ran what in a session, with the end of the output; subscribe to follow it live.",
        );
    Ok(ListResourceTemplatesResult::with_all_items(vec![template, transcript]))
}

fn resource(file: ResourceFile) -> Resource {
    let mut annotations = Annotations::default();
    annotations.last_modified = jiff::Timestamp::from_millisecond(file.modified_ms).ok().map(|time| time.to_string());
    let resource =
        Resource::new(file.uri.to_string(), file.uri.path.as_str()).with_size(file.size).with_annotations(annotations);
    match file.media {
        Some(media) => resource.with_mime_type(media),
        None => resource,
    }
}

/// The contents under the address that the client asked for, in its own spelling.
fn contents(uri: &str, read: ResourceContents) -> WireContents {
    let wire = match read.body {
        ResourceBody::Text(text) => WireContents::text(text, uri),
        ResourceBody::Blob(bytes) => WireContents::blob(STANDARD.encode(bytes), uri),
    };
    wire.with_mime_type(read.media)
}

/// A failure as the protocol has it: requests other than tool calls have no results that are errors.
pub(super) fn error(failure: &Failure) -> ErrorData {
    let mut data = json!({"code": failure.code});
    if let Some(millis) = failure.retry_after_ms {
        data["retry_after_ms"] = millis.into();
    }
    let data = Some(data);
    let message = failure.to_string();
    match failure.code {
        ErrorCode::NotFound | ErrorCode::SessionNotFound | ErrorCode::SessionClosed | ErrorCode::SessionLost => {
            ErrorData::resource_not_found(message, data)
        }
        ErrorCode::InvalidArgument
        | ErrorCode::PathViolation
        | ErrorCode::NotAFile
        | ErrorCode::NotADirectory
        | ErrorCode::FileTooLarge
        | ErrorCode::PermissionDenied
        | ErrorCode::RateLimited => ErrorData::invalid_params(message, data),
        ErrorCode::AlreadyExists
        | ErrorCode::PreconditionFailed
        | ErrorCode::SessionLimit
        | ErrorCode::NoCapacity
        | ErrorCode::NoWorkerFits
        | ErrorCode::WorkerUnavailable
        | ErrorCode::IsolationUnavailable
        | ErrorCode::TaskTimeout
        | ErrorCode::TaskCancelled
        | ErrorCode::TaskOutcomeUnknown
        | ErrorCode::OutputLimit
        | ErrorCode::MemoryLimit
        | ErrorCode::ProcessLimit
        | ErrorCode::DiskLimit
        | ErrorCode::Unauthenticated
        | ErrorCode::QuotaExceeded
        | ErrorCode::ApprovalRequired
        | ErrorCode::AuditUnavailable
        | ErrorCode::Internal => ErrorData::internal_error(message, data),
    }
}
