//! The one way from an operation to the tools.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::Failure;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asked::Asked;
use crate::http::error::ApiError;
use crate::mcp::Services;
use crate::tools::{Handles, Request, ToolResult};

/// What operations are served with. Cheap to clone.
#[derive(Clone)]
pub(in crate::http) struct Api(Arc<Inner>);

struct Inner {
    services: Services,
    /// Calls that run, with or without a client that still waits.
    calls: TaskTracker,
    /// Cancelled when the server stops.
    stop: CancellationToken,
}

impl Api {
    pub(in crate::http) fn new(services: Services) -> Self {
        Self(Arc::new(Inner { services, calls: TaskTracker::new(), stop: CancellationToken::new() }))
    }

    /// Cancels what runs, and waits for its end, at most so long.
    pub(in crate::http) async fn end(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.calls.close();
        if tokio::time::timeout(patience, self.0.calls.wait()).await.is_err() {
            tracing::warn!(left = self.0.calls.len(), "calls over REST have not ended yet");
        }
    }

    /// Calls a tool. A client that goes away loses the answer; the call and its records are carried out.
    ///
    /// # Errors
    /// Whatever refuses the call, or ended what it did.
    pub(super) async fn call(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<ToolResult, ApiError> {
        let options = self.0.services.options();
        // Nobody follows what a program writes; it is read by position.
        let (events, _) = mpsc::channel(1);
        let request = Request {
            tool: tool.to_owned(),
            args,
            scopes: asked.identity.scopes,
            client: asked.client.clone(),
            trace: asked.trace.clone(),
            events,
            cancel: self.0.stop.child_token(),
            yield_after: options.yield_after,
            output_chars: usize::MAX,
        };
        let connection = self.0.services.connection(&asked.identity.principal).with_handles(Handles::Required);
        let served = self.0.calls.spawn(async move { connection.serve(request).await }).await;
        let result = match served {
            Ok(Ok(result)) => result,
            Ok(Err(unknown)) => return Err(ApiError::internal(&unknown)),
            Err(broken) => return Err(ApiError::internal(&broken)),
        };
        match &result.failure {
            Some(failure) => Err(asked.refused(tool, failure.clone())),
            None => Ok(result),
        }
    }

    /// Calls a tool that gives something for programs.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub(super) async fn structured(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<Value, ApiError> {
        let result = self.call(asked, tool, args).await?;
        result.structured.ok_or_else(|| {
            ApiError::from(Failure::new(codegen_types::ErrorCode::Internal, "the call gave nothing for programs"))
        })
    }
}
