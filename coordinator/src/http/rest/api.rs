//! The one way from an operation to the tools.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Limits, Principal};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asked::Asked;
use super::idempotency::Keys;
use super::operators::Plant;
use super::places::{Place, Places};
use super::tail::{self, Tail};
use crate::approvals::Asking;
use crate::http::error::ApiError;
use crate::identity::{self, Scopes, Tokens};
use crate::mcp::Services;
use crate::policy::Whole;
use crate::tools::{self, Connection, Handles, Request, ToolResult};

/// How long a request may wait for the end of a task.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Characters of output that are put into words: answers are made of what is behind them.
const OUTPUT_CHARS: usize = 200;
/// Requests that read the log whole at once.
const SCANS_MAX: usize = 2;
/// Requests that read the log whole or wait for it. One more is refused.
const SCANS_WAITING_MAX: usize = 100;
/// How long a request waits for its turn to read the log.
const SCAN_PATIENCE: Duration = Duration::from_secs(10);
/// Streams of events that are open at once. One more is refused.
const STREAMS_MAX: usize = 1_000;
/// Streams that read at once what they missed of the log; others wait.
const CATCH_UPS_MAX: usize = 2;
/// Streams of events that one principal has open at once.
const STREAMS_OF_ONE_MAX: usize = 32;
/// Archives that are sent at once. One more is refused.
const ARCHIVES_MAX: usize = 16;
/// Archives that are sent to one principal at once.
const ARCHIVES_OF_ONE_MAX: usize = 2;
/// After how long a place of a request may be free again, and one of a stream.
const OF_REQUEST: Duration = Duration::from_secs(1);
const OF_STREAM: Duration = Duration::from_secs(10);

/// What operations are served with. Cheap to clone.
#[derive(Clone)]
pub(in crate::http) struct Api(Arc<Inner>);

struct Inner {
    services: Services,
    plant: Arc<dyn Plant>,
    tokens: Tokens,
    keys: Keys,
    /// The log is read whole by so many at once; others wait.
    scans: Semaphore,
    /// For whom it is read, or will be.
    scanning: Places,
    /// Streams of events.
    streams: Places,
    /// After how long without a word they send a comment.
    keep_alive: Duration,
    /// The end of the log, which they follow.
    tail: Tail,
    /// So many streams read at once what they missed.
    catch_ups: Semaphore,
    /// Archives that are sent.
    archives: Places,
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
    /// A stream that says nothing for so long as `keep_alive` sends a comment.
    pub(in crate::http) fn new(
        services: Services,
        plant: Arc<dyn Plant>,
        tokens: Tokens,
        keep_alive: Duration,
    ) -> Self {
        let (scans, catch_ups) = (Semaphore::new(SCANS_MAX), Semaphore::new(CATCH_UPS_MAX));
        let tail = Tail::default();
        let scanning = Places::new("requests that read the log", SCANS_WAITING_MAX, 1, OF_REQUEST);
        let streams = Places::new("streams of events", STREAMS_MAX, STREAMS_OF_ONE_MAX, OF_STREAM);
        let archives = Places::new("archives", ARCHIVES_MAX, ARCHIVES_OF_ONE_MAX, OF_REQUEST);
        let (keys, calls, stop) = (Keys::default(), TaskTracker::new(), CancellationToken::new());
        Self(Arc::new(Inner {
            services,
            plant,
            tokens,
            keys,
            scans,
            scanning,
            streams,
            keep_alive,
            archives,
            tail,
            catch_ups,
            calls,
            stop,
        }))
    }

    /// Cancels what runs, and waits for its end, at most so long.
    pub(in crate::http) async fn end(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.calls.close();
        if tokio::time::timeout(patience, self.0.calls.wait()).await.is_err() {
            tracing::warn!(left = self.0.calls.len(), "calls over REST have not ended yet");
        }
    }

    /// After how long without a word a stream of events sends a comment.
    pub(super) fn keep_alive(&self) -> Duration {
        self.0.keep_alive
    }

    /// What sessions and tasks are limited to.
    pub(super) fn limits(&self) -> &Limits {
        &self.0.services.options().limits
    }

    /// The idempotency keys of requests.
    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Cancelled when the server stops.
    pub(super) fn stop(&self) -> CancellationToken {
        self.0.stop.child_token()
    }

    /// What operators see of the server.
    pub(super) fn plant(&self) -> &Arc<dyn Plant> {
        &self.0.plant
    }

    /// The static tokens.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// A place for one more stream of events.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the principal has too many; `NO_CAPACITY` when all have.
    pub(super) fn place_for_events(&self, principal: &Principal) -> Result<Place, Failure> {
        self.0.streams.take(principal)
    }

    /// The end of the log.
    pub(super) fn tail(&self) -> &Tail {
        &self.0.tail
    }

    /// Reads some of what a stream missed, when it is its turn.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub(super) async fn catch_up<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let _turn = self.0.catch_ups.acquire().await.map_err(|_| tail::unreadable())?;
        tokio::task::spawn_blocking(work).await.map_err(|_| tail::unreadable())
    }

    /// A place for one more archive.
    ///
    /// # Errors
    /// As of [`place_for_events`](Self::place_for_events).
    pub(super) fn place_for_archive(&self, principal: &Principal) -> Result<Place, Failure> {
        self.0.archives.take(principal)
    }

    /// A connection of whoever asks.
    pub(super) fn connection(&self, asked: &Asked) -> Connection {
        self.0.services.connection(&asked.identity.principal).with_handles(Handles::Required)
    }

    /// Does something that reads much of the log, when it is its turn: one thing at a time for each principal.
    ///
    /// # Errors
    /// `RATE_LIMITED` while something of the kind is done for this principal; `NO_CAPACITY` when the turn does not come
    /// in time; `INTERNAL`, and whatever reading gives.
    pub(super) fn scan<T: Send + 'static>(
        &self,
        asked: &Asked,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> impl Future<Output = Result<T, Failure>> + Send + 'static {
        let (this, principal) = (self.clone(), asked.identity.principal.clone());
        async move {
            let _only = this.0.scanning.take(&principal)?;
            let late = |_| Failure::new(ErrorCode::NoCapacity, "the log is being read for others; try again later");
            let turn = tokio::time::timeout(SCAN_PATIENCE, this.0.scans.acquire()).await.map_err(late)?;
            let broken = || Failure::new(ErrorCode::Internal, "the log could not be read");
            let _turn = turn.map_err(|_| broken())?;
            tokio::task::spawn_blocking(work).await.map_err(|_| broken())?
        }
    }

    /// Does something that is no tool, by the way of every call. A client that goes away loses the answer; it is
    /// carried out and recorded.
    ///
    /// # Errors
    /// Whatever refuses it, or doing it gives.
    pub(super) async fn operate<T: Send + 'static>(
        &self,
        asked: &Asked,
        method: &'static str,
        args: Value,
        needed: Scopes,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let connection = self.connection(asked);
        let by = tools::Asked {
            method,
            scopes: asked.identity.scopes,
            client: asked.client.clone(),
            trace: asked.trace.clone(),
            cancel: self.stop(),
        };
        let held = asked.held.clone();
        let work = async move {
            let done = connection.operate(&by, args, needed, work).await;
            drop(held);
            done
        };
        let done = self.0.calls.spawn(work).await;
        done.map_err(|broken| ApiError::internal(&broken))?.map_err(|failure| {
            match identity::permit(asked.identity.scopes, needed) {
                Err(insufficient) if failure.code == ErrorCode::PermissionDenied => asked.insufficient(insufficient),
                _ => failure.into(),
            }
        })
    }

    /// Calls a tool, whatever comes of it. A client that goes away loses the answer; the call and its records are
    /// carried out.
    ///
    /// # Errors
    /// A fault of ours.
    pub(super) async fn serve(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<Served, ApiError> {
        self.serve_part(asked, None, tool, args).await
    }

    /// Asks for leave for all calls of a tool that a request consists of.
    ///
    /// # Errors
    /// Whatever the policy refuses, or wants approved.
    pub(super) async fn leave_for(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<Whole, ApiError> {
        let (connection, request) = (self.connection(asked), self.request(asked, None, tool, args));
        let held = asked.held.clone();
        let work = async move {
            let leave = connection.leave_for(&request).await;
            drop(held);
            leave
        };
        let leave = self.0.calls.spawn(work).await.map_err(|broken| ApiError::internal(&broken))?;
        leave.map_err(|failure| asked.refused(tool, failure))
    }

    /// As [`serve`](Self::serve), of a call that is a part of a request, for which leave may have been given.
    pub(super) async fn serve_part(
        &self,
        asked: &Asked,
        whole: Option<Whole>,
        tool: &'static str,
        args: Value,
    ) -> Result<Served, ApiError> {
        let request = self.request(asked, whole, tool, args);
        let connection = Arc::new(self.connection(asked));
        let (used, held) = (Arc::clone(&connection), asked.held.clone());
        let work = async move {
            let served = used.serve(request).await;
            if served.as_ref().is_ok_and(|result| result.failure.is_none()) {
                held.carried_out();
            }
            served
        };
        match self.0.calls.spawn(work).await {
            Ok(Ok(result)) => Ok(Served { connection, result }),
            Ok(Err(unknown)) => Err(ApiError::internal(&unknown)),
            Err(broken) => Err(ApiError::internal(&broken)),
        }
    }

    fn request(&self, asked: &Asked, whole: Option<Whole>, tool: &'static str, mut args: Value) -> Request {
        if let (Some(key), Value::Object(args)) = (&asked.key, &mut args)
            && tools::find(tool).is_some_and(|tool| tool.effect != tools::Effect::Reads)
        {
            args.insert("idempotency_key".to_owned(), json!(key));
        }
        // Nobody follows what a program writes; it is read by position.
        let (events, _) = mpsc::channel(1);
        Request {
            tool: tool.to_owned(),
            args,
            scopes: asked.identity.scopes,
            client: asked.client.clone(),
            trace: asked.trace.clone(),
            arrival: None,
            whole,
            asking: Asking::Nobody,
            events,
            cancel: self.0.stop.child_token(),
            yield_after: WAIT_MAX,
            output_chars: OUTPUT_CHARS,
        }
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Whatever refuses the call, or ended what it did.
    pub(super) async fn call(&self, asked: &Asked, tool: &'static str, args: Value) -> Result<ToolResult, ApiError> {
        self.call_part(asked, None, tool, args).await
    }

    /// As [`call`](Self::call), of a call that is a part of a request, for which leave may have been given.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub(super) async fn call_part(
        &self,
        asked: &Asked,
        whole: Option<Whole>,
        tool: &'static str,
        args: Value,
    ) -> Result<ToolResult, ApiError> {
        let result = self.serve_part(asked, whole, tool, args).await?.result;
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
