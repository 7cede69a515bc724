//! What one connection holds, and its calls of tools.

use std::sync::{Arc, Once};
use std::time::Duration;

use axum::http::request::Parts;
use codegen_types::{ErrorCode, Failure, Principal, TraceContext};
use rmcp::model::{CallToolRequestParams, ErrorData, Tool};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::approval::States;
use super::calls::Calls;
use super::progress::{self, Progress};
use super::quirks::{self, Quirks};
use super::subscriptions::{self, Subscriptions};
use super::{Options, convert, resources, trace};
use crate::approvals::Asking;
use crate::arrivals::Arrival;
use crate::caller::Caller;
use crate::identity::{Identity, Scopes};
use crate::tools::{Connection, Request, ToolResult, UnknownTool};

/// Events of one task that wait to be looked at. Full means that the task's output waits.
const EVENTS: usize = 64;

/// The longest name of a client that is repeated, in characters.
const CLIENT_CHARS_MAX: usize = 64;

/// What a call is told for which there is no place.
fn too_many() -> Failure {
    Failure::new(ErrorCode::RateLimited, "too many calls run at once").retry_soon()
}

/// One connection's handler; over HTTP also that of a single request.
pub struct Handler {
    room: Room,
    caller: Caller,
    tools: Arc<[Tool]>,
    yield_after: Duration,
    recognised: Once,
    subscriptions: Subscriptions,
    states: States,
}

/// What the requests of one connection share, or over HTTP the requests of one principal. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room {
    connection: Arc<Connection>,
    calls: Calls,
    places: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Room {
    /// A room with places for so many calls at once.
    pub(super) fn new(connection: Connection, calls: Calls, calls_max: usize) -> Self {
        Self {
            connection: Arc::new(connection),
            calls,
            places: Arc::new(Semaphore::new(calls_max)),
            streams: Arc::new(Semaphore::new(subscriptions::STREAMS_MAX)),
        }
    }

    /// The same places, with calls of its own.
    pub(super) fn part(&self, calls: Calls) -> Self {
        Self { calls, ..self.clone() }
    }

    /// The same places for calls, and everything else of its own.
    pub(super) fn apart(&self, connection: Connection, calls: Calls) -> Self {
        let streams = Arc::new(Semaphore::new(subscriptions::STREAMS_MAX));
        Self { connection: Arc::new(connection), streams, ..self.part(calls) }
    }

    /// Whether anybody else has the room, too.
    pub(super) fn is_shared(&self) -> bool {
        // Sessions share the places alone.
        Arc::strong_count(&self.places) > 1
    }
}

impl Handler {
    pub(super) fn new(room: Room, caller: Caller, options: &Options, states: States) -> Self {
        Self {
            room,
            caller,
            tools: convert::tools(options.tool_names),
            yield_after: options.yield_after,
            recognised: Once::new(),
            subscriptions: Subscriptions::default(),
            states,
        }
    }

    /// What is known of the client that asks. Those of 2026-07-28 say with each request who they are.
    pub(super) fn quirks(&self, context: &RequestContext<RoleServer>) -> Quirks {
        let client = context.client_info();
        let quirks = quirks::of(client.as_ref().map(|client| client.name.as_str()));
        self.recognised.call_once(|| {
            let name: Option<String> = client.map(|client| client.name.chars().take(CLIENT_CHARS_MAX).collect());
            let yield_after = quirks.yield_after();
            let Quirks { structured, resource_links, result_chars_max, .. } = quirks;
            tracing::debug!(
                ?name,
                ?yield_after,
                ?structured,
                resource_links,
                result_chars_max,
                "what the client needs"
            );
        });
        quirks
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.room.connection
    }

    /// On whose behalf calls are made.
    pub(super) fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    /// What seals that which clients are to give back.
    pub(super) fn states(&self) -> &States {
        &self.states
    }

    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// The places of streams that tell of changes.
    pub(super) fn streams(&self) -> &Semaphore {
        &self.room.streams
    }

    /// A place among the calls of this connection.
    pub(super) fn place(&self) -> Result<SemaphorePermit<'_>, ErrorData> {
        self.room.places.try_acquire().map_err(|_| resources::error(&too_many()))
    }

    /// What the credentials of a request permit: those of the connection.
    pub(super) fn scopes(&self, context: &RequestContext<RoleServer>) -> Scopes {
        // Over HTTP each request of a session has credentials of its own.
        let identity = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Identity>());
        identity.map_or(self.caller.scopes, |identity| identity.scopes)
    }

    /// The client program that makes a request, as it names itself, as far as records repeat it.
    pub(super) fn client(&self, context: &RequestContext<RoleServer>) -> Option<String> {
        let named = context.client_info().map(|client| client.name.chars().take(CLIENT_CHARS_MAX).collect());
        named.or_else(|| self.caller.client.clone())
    }

    /// The trace that a request belongs to, or the connection.
    pub(super) fn trace(&self, context: &RequestContext<RoleServer>) -> Option<TraceContext> {
        trace::of(context).or_else(|| self.caller.trace.clone())
    }

    /// The running calls, for whoever ends the connection.
    pub(super) fn calls(&self) -> Calls {
        self.room.calls.clone()
    }

    /// Has `work` counted among the running calls.
    pub(super) fn tracked<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.room.calls.track(work)
    }

    /// The tools as they are listed.
    pub(super) fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The tool as it is listed, by either of its names.
    pub(super) fn listed(&self, name: &str) -> Option<&Tool> {
        let named = crate::tools::find(name)?;
        self.tools.iter().find(|tool| tool.title.as_deref() == Some(named.title))
    }

    /// Serves one call of a tool, telling of its progress; the end of the request cancels it.
    pub(super) async fn call(
        &self,
        params: CallToolRequestParams,
        asking: Asking,
        context: RequestContext<RoleServer>,
    ) -> Result<ToolResult, UnknownTool> {
        let (events, received) = mpsc::channel(EVENTS);
        let quirks = self.quirks(&context);
        let cancel = self.room.calls.token();
        let request = Request {
            tool: params.name.into_owned(),
            args: Value::Object(params.arguments.unwrap_or_default()),
            scopes: self.scopes(&context),
            client: self.client(&context),
            trace: self.trace(&context),
            arrival: context.extensions.get::<Arrival>().cloned(),
            whole: None,
            asking,
            events,
            cancel: cancel.clone(),
            yield_after: self.yield_after.min(quirks.yield_after()),
            output_chars: quirks.result_chars_max,
        };
        let Ok(_place) = self.room.places.try_acquire() else {
            return Ok(self.room.connection.refuse_unserved(&request, too_many()).await);
        };
        let served = CancellationToken::new();
        let serve = async {
            let _guard = served.clone().drop_guard();
            self.room.connection.serve(request).await
        };
        let tell = async {
            match context.meta.get_progress_token() {
                Some(token) => Progress::new(context.peer, token).follow(received, served.clone()).await,
                None => progress::ignore(received, served.clone()).await,
            }
        };
        let pass_on_cancellation = async {
            context.ct.cancelled().await;
            cancel.cancel();
            std::future::pending().await
        };
        tokio::select! {
            (result, ()) = async { tokio::join!(serve, tell) } => result,
            never = pass_on_cancellation => never,
        }
    }
}
