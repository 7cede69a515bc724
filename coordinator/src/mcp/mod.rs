//! The front door: the Model Context Protocol over a pair of byte streams or over HTTP, in both of its eras.
//!
//! Clients of 2024-11-05 to 2025-11-25 begin with `initialize`; those of 2026-07-28 send what the server must know with
//! each request and may begin with `server/discover`. Both are served on the same connection.
//!
//! *Invariant*: this is the only module that names rmcp, and nothing but whole lines of protocol is ever written to a
//! client.

mod approval;
mod cache;
mod calls;
mod completion;
mod convert;
mod handler;
mod instructions;
mod line;
mod methods;
mod order;
mod progress;
mod prompts;
mod protocol;
pub(crate) mod quirks;
mod resources;
mod sse;
mod stdio;
mod streamable;
mod subscriptions;
mod tasks;
mod trace;
mod unanswered;
mod unread;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Audit;
use codegen_types::{IndexUrl, Limits, Principal};
use rmcp::service::ServerInitializeError;
use rmcp::transport::DynamicTransportError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::caller::Caller;
use crate::tools::{Connection, SessionCalls, SessionKeys};

pub use calls::Calls;
use handler::{Handler, Room};
pub use sse::{Begun, LegacySse};
pub use streamable::{Era, Handlers, Product, StreamableHttp};

/// The longest line that a client may send, in bytes: a file of 64 MiB in base64, and room for the rest of the call.
pub const LINE_BYTES_MAX: usize = 96 << 20;

/// What every connection of this server shares. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    sessions: Arc<dyn SessionCalls>,
    audit: Audit,
    session_keys: Arc<SessionKeys>,
    admission: Admission,
    states: approval::States,
    options: Options,
}

impl Services {
    /// What connections need of the server. Make it once, since it remembers the keys under which sessions were made.
    pub fn new(sessions: Arc<dyn SessionCalls>, audit: Audit, options: Options) -> Self {
        Self {
            sessions,
            audit,
            session_keys: Arc::default(),
            admission: Admission::default(),
            states: approval::States::new(),
            options,
        }
    }

    /// The same services, with calls that pass this admission instead of the default one.
    #[must_use]
    pub fn admitted_by(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// The same services under other options, for a connection whose client asked for them.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        Self { options, ..self.clone() }
    }

    /// A connection of a principal's, over whichever transport.
    pub(crate) fn connection(&self, principal: &Principal) -> Connection {
        let Self { sessions, audit, session_keys, admission, options, .. } = self;
        let (sessions, audit, session_keys) = (Arc::clone(sessions), audit.clone(), Arc::clone(session_keys));
        Connection::new(sessions, audit, options.limits, principal.clone(), session_keys)
            .permitting(Arc::clone(&options.package_indexes))
            .admitted_by(admission.clone())
    }

    /// What seals that which clients are to give back.
    fn states(&self) -> approval::States {
        self.states.clone()
    }

    /// The options of connections made with these services.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// How connections behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// By which names tools are listed; both are always accepted.
    pub tool_names: ToolNames,
    /// What the sessions are limited to, for checking arguments early and for telling clients.
    pub limits: Limits,
    /// Package indexes that calls may name, the default first.
    pub package_indexes: Arc<[IndexUrl]>,
    /// Calls that one connection may have running at once; one more is refused with `RATE_LIMITED`.
    pub calls_max: usize,
    /// A call that runs so long is answered with its task; sooner for clients that are known to wait less.
    pub yield_after: Duration,
    /// How long running calls may still take after the client closed its side, before they are cancelled.
    pub eof_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tool_names: ToolNames::Underscored,
            limits: Limits::default(),
            package_indexes: Arc::default(),
            calls_max: 64,
            yield_after: Duration::from_secs(45),
            eof_grace: Duration::from_secs(2),
        }
    }
}

/// By which names tools are listed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum ToolNames {
    /// `fs_read`, which every client and model interface takes.
    #[default]
    Underscored,
    /// `fs.read`.
    Dotted,
}

/// Why a connection ended other than by its client or by being cancelled.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client's output could not be written.
    #[error("the client's output could not be written")]
    Output(#[from] DynamicTransportError),
    /// The client and the server could not agree how to begin.
    #[error("the connection could not be begun")]
    Begin(#[source] Box<ServerInitializeError>),
    /// A fault of ours ended the connection.
    #[error("the connection's task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// How long calls that were cancelled when their client had closed its side may still be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long what is still to be written may take once the connection is over.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// How long cancelled calls may take to end once the connection is over; their outcomes are recorded in any case.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// Serves one MCP connection, with its own default session, until the client closes its side or `cancel` is cancelled.
///
/// Calls that run when it ends are cancelled, and this returns when they have ended. Sessions live on.
///
/// # Errors
/// The client went away without closing, or the connection never began.
pub async fn serve_stdio<R, W>(
    services: Services,
    caller: Caller,
    input: R,
    output: W,
    cancel: CancellationToken,
) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let connection = services.connection(&caller.principal);
    let (options, states) = (services.options, services.states);
    let room = Room::new(connection, Calls::default(), options.calls_max);
    let handler = Handler::new(room, caller, &options, states);
    let (lines, writer) = writer::writer(output);
    let input_over = CancellationToken::new();
    let transport = stdio::Stdio::new(input, lines, input_over.clone(), options.eof_grace + LAST_ANSWERS);
    let calls = handler.calls();
    let end_calls = async {
        input_over.cancelled().await;
        calls.end_streams();
        tokio::time::sleep(options.eof_grace).await;
        calls.cancel();
        std::future::pending().await
    };
    let serve = async {
        let result = tokio::select! {
            result = run(handler, transport, cancel) => result,
            never = end_calls => never,
        };
        calls.end(LAST_CALLS).await;
        result
    };
    writer.while_serving(serve, LAST_WRITES).await
}

async fn run<R>(handler: Handler, transport: stdio::Stdio<R>, cancel: CancellationToken) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    match rmcp::service::serve_server_with_ct(handler, transport, cancel).await {
        Ok(running) => running.waiting().await.map(drop).map_err(ServeError::Task),
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        Err(ServerInitializeError::TransportError { error, .. }) => Err(ServeError::Output(error)),
        Err(other) => Err(ServeError::Begin(Box::new(other))),
    }
}
