//! What rmcp asks of the server, answered by the tools.

use std::sync::{Arc, Once};
use std::time::Duration;

use codegen_types::{ErrorCode, Failure};
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult, CustomRequest,
    CustomResult, ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation,
    InitializeRequestParams, InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer, SubscriptionContext};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::instructions::INSTRUCTIONS;
use super::progress::{self, Progress};
use super::quirks::{self, Quirks};
use super::subscriptions::{self, Subscriptions};
use super::{Options, convert, methods, prompts, resources, tasks};
use crate::caller::Caller;
use crate::tools::{Connection, Request, ToolResult, UnknownTool};

/// Events of one task that wait to be looked at. Full means that the task's output waits.
const EVENTS: usize = 64;

/// What a call is told for which there is no place.
const TOO_MANY: &str = "too many calls run at once on this connection";

/// One connection's handler.
pub(super) struct Handler {
    connection: Arc<Connection>,
    caller: Caller,
    tools: Vec<Tool>,
    yield_after: Duration,
    places: Semaphore,
    calls: Calls,
    recognised: Once,
    subscriptions: Subscriptions,
    streams: Semaphore,
}

/// The running calls of one connection.
#[derive(Clone, Default)]
pub(super) struct Calls {
    cancel: CancellationToken,
    streams_over: CancellationToken,
    tracker: TaskTracker,
}

impl Calls {
    /// Cancels every running call; each still ends in its own time.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends the streams of changes: they have nothing to finish, and would keep a client waiting that closes its side.
    pub(super) fn end_streams(&self) {
        self.streams_over.cancel();
    }

    /// Cancelled when the client has closed its side.
    pub(super) fn streams_over(&self) -> CancellationToken {
        self.streams_over.clone()
    }

    /// Cancelled when the connection is over.
    pub(super) fn token(&self) -> CancellationToken {
        self.cancel.child_token()
    }

    /// Runs something beside the calls until the connection is over, at the longest.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// Cancels every running call and waits for their ends, but no longer than `deadline`.
    pub(super) async fn end(&self, deadline: Duration) {
        self.end_streams();
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "calls of a closed connection have not ended yet");
        }
    }
}

impl Handler {
    pub(super) fn new(connection: Connection, caller: Caller, options: &Options) -> Self {
        Self {
            connection: Arc::new(connection),
            caller,
            tools: convert::tools(options.tool_names),
            yield_after: options.yield_after,
            places: Semaphore::new(options.calls_max),
            calls: Calls::default(),
            recognised: Once::new(),
            subscriptions: Subscriptions::default(),
            streams: Semaphore::new(subscriptions::STREAMS_MAX),
        }
    }

    /// What is known of the client that asks. Those of 2026-07-28 say with each request who they are.
    pub(super) fn quirks(&self, context: &RequestContext<RoleServer>) -> Quirks {
        let client = context.client_info();
        let quirks = quirks::of(client.as_ref().map(|client| client.name.as_str()));
        self.recognised.call_once(|| {
            let name: Option<String> = client.map(|client| client.name.chars().take(64).collect());
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
        &self.connection
    }

    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// The places of streams that tell of changes.
    pub(super) fn streams(&self) -> &Semaphore {
        &self.streams
    }

    /// A place among the calls of this connection.
    pub(super) fn place(&self) -> Result<SemaphorePermit<'_>, ErrorData> {
        self.places.try_acquire().map_err(|_| resources::error(&Failure::new(ErrorCode::RateLimited, TOO_MANY)))
    }

    /// W3C trace context of a request, or of the connection.
    pub(super) fn trace(&self, context: &RequestContext<RoleServer>) -> Option<String> {
        context.meta.get_traceparent().map(str::to_owned).or_else(|| self.caller.trace.clone())
    }

    /// The running calls, for whoever ends the connection.
    pub(super) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// The tool as it is listed, by either of its names.
    pub(super) fn listed(&self, name: &str) -> Option<&Tool> {
        let named = crate::tools::find(name)?;
        self.tools.iter().find(|tool| tool.title.as_deref() == Some(named.title))
    }

    async fn call(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ToolResult, UnknownTool> {
        let (events, received) = mpsc::channel(EVENTS);
        let quirks = self.quirks(&context);
        let cancel = self.calls.cancel.child_token();
        let request = Request {
            tool: params.name.into_owned(),
            args: Value::Object(params.arguments.unwrap_or_default()),
            trace: self.trace(&context),
            events,
            cancel: cancel.clone(),
            yield_after: self.yield_after.min(quirks.yield_after()),
            output_chars: quirks.result_chars_max,
        };
        let Ok(_place) = self.places.try_acquire() else {
            let failure = Failure::new(ErrorCode::RateLimited, TOO_MANY);
            return Ok(self.connection.refuse_unserved(&request, failure).await);
        };
        let served = CancellationToken::new();
        let serve = async {
            let _guard = served.clone().drop_guard();
            self.connection.serve(request).await
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

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let name = Implementation::new("codegen-mcp", env!("CARGO_PKG_VERSION")).with_title("CodeGen-MCP");
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_prompts()
            .enable_completions()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(name).with_instructions(INSTRUCTIONS)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let mut hello = self.negotiate_initialize(&request)?;
        // Handshakes are of earlier revisions than the extension.
        hello.capabilities.extensions = None;
        if hello.protocol_version == ProtocolVersion::V_2024_11_05 {
            // That revision completes, too, and has no word for being able to.
            hello.capabilities.completions = None;
        }
        Ok(hello)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if request.is_some_and(|params| params.cursor.is_some()) {
            return Err(ErrorData::invalid_params("unknown cursor: all tools are on one page", None));
        }
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.listed(name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let client = self.quirks(&context);
        let tool = self.listed(&request.name);
        let takes_tasks = tasks::declared(&context);
        let called = self.calls.tracker.track_future(self.call(request, context)).await;
        let result = called.map_err(|unknown| ErrorData::invalid_params(unknown.to_string(), None))?;
        Ok(match result.goes_on.as_ref().filter(|_| takes_tasks) {
            Some(task) => tasks::handle(task).into(),
            None => convert::result(result, tool, client).into(),
        })
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.calls.tracker.track_future(self.resources(request, &context)).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        resources::templates(request)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = self.calls.tracker.track_future(self.resource(&request.uri, &context)).await?;
        Ok(read.into())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.follow(&context.peer);
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.calls.tracker.track_future(self.subscribed(request.uri, &context)).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.unsubscribed(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(self.accepted(requested))
    }

    async fn listen(&self, stream: SubscriptionContext) -> Result<(), ErrorData> {
        self.calls.tracker.track_future(self.streamed(stream)).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        self.calls.tracker.track_future(self.completions(request, &context)).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.calls.tracker.track_future(self.task(&request.task_id, &context)).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.calls.tracker.track_future(self.task_updated(&request.task_id, &context)).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.calls.tracker.track_future(self.task_cancelled(&request.task_id, &context)).await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        prompts::list(request)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Ok(prompts::get(&request)?.into())
    }

    /// A method that rmcp does not know, or one whose parameters it cannot read.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(methods::refusal(&request.method, tasks::declared(&context)))
    }
}
