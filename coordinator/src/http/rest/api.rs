//! The one way from an operation to the tools.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Limits};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asked::Asked;
use super::idempotency::Keys;
use crate::http::error::ApiError;
use crate::mcp::Services;
use crate::tools::{Connection, Handles, Request, ToolResult};

/// How long a request may wait for the end of a task.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Characters of output that are put into words: answers are made of what is behind them.
const OUTPUT_CHARS: usize = 200;

/// What operations are served with. Cheap to clone.
#[derive(Clone)]
pub(in crate::http) struct Api(Arc<Inner>);

struct Inner {
    services: Services,
    keys: Keys,
    /// Calls that run, with or without a client that still waits.
    calls: TaskTracker,
    /// Cancelled when the server stops.
    stop: CancellationToken,
}

/// What a call gave, and the connection that it was made on.
pub(super) struct Served {
    pub(super) connection: Arc<Connection>,
    pub(super) result: ToolResult,
}

impl Api {
    pub(in crate::http) fn new(services: Services) -> Self {
        let (keys, calls, stop) = (Keys::default(), TaskTracker::new(), CancellationToken::new());
        Self(Arc::new(Inner { services, keys, calls, stop }))
    }

    /// Cancels what runs, and waits for its end, at most so long.
    pub(in crate::http) async fn end(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.calls.close();
        if tokio::time::timeout(patience, self.0.calls.wait()).await.is_err() {
            tracing::warn!(left = self.0.calls.len(), "calls over REST have not ended yet");
        }
    }

    /// What sessions and tasks are limited to.
    pub(super) fn limits(&self) -> &Limits {
        &self.0.services.options().limits
    }

    /// The idempotency keys of requests.
    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Calls a tool, whatever comes of it. A client that goes away loses the answer; the call and its records are
    /// carried out.
    ///
    /// # Errors
    /// A fault of ours.
    pub(super) async fn serve(&self, asked: &Asked, tool: &'static str, mut args: Value) -> Result<Served, ApiError> {
        if let (Some(key), Value::Object(args)) = (&asked.key, &mut args)
            && crate::tools::find(tool).is_some_and(|tool| tool.effect != crate::tools::Effect::Reads)
        {
            args.insert("idempotency_key".to_owned(), json!(key));
        }
        // Nobody follows what a program writes; it is read by position.
        let (events, _) = mpsc::channel(1);
        let request = Request {
            tool: tool.to_owned(),
            args,
            scopes: asked.identity.scopes,
            client: asked.client.clone(),
            trace: asked.trace.clone(),
            asking: crate::approvals::Asking::Nobody,
            events,
            cancel: self.0.stop.child_token(),
            yield_after: WAIT_MAX,
            output_chars: OUTPUT_CHARS,
        };
        let connection = self.0.services.connection(&asked.identity.principal).with_handles(Handles::Required);
        let connection = Arc::new(connection);
        let used = Arc::clone(&connection);
        match self.0.calls.spawn(async move { used.serve(request).await }).await {
            Ok(Ok(result)) => Ok(Served { connection, result }),
            Ok(Err(unknown)) => Err(ApiError::internal(&unknown)),
            Err(broken) => Err(ApiError::internal(&broken)),
        }
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Whatever refuses the call, or ended what it did.
    pub(super) async fn call(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<ToolResult, ApiError> {
        let result = self.serve(asked, tool, args).await?.result;
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
        self.call(asked, tool, args).await?.structured.ok_or_else(nothing_given)
    }
}

/// A tool that gave something else than was asked for.
pub(super) fn nothing_given() -> ApiError {
    Failure::new(ErrorCode::Internal, "the call did not give what was asked for").into()
}
