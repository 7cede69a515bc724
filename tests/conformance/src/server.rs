//! What rmcp asks of the fixture.
#![expect(deprecated, reason = "the suite asks earlier revisions for the levels of logging")]

use coordinator::identity::Identity;
use coordinator::mcp::{Calls, Era, Handlers};
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo, ErrorData,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    RequestStateCodec, ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use serde_json::json;
use tokio::sync::broadcast;

use crate::{prompts, resources, tools};

/// Changes that wait for a stream. A stream that falls behind misses some, which only a test that makes so many notices.
const CHANGES_MAX: usize = 64;

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fixture {
    codec: RequestStateCodec,
    changes: broadcast::Sender<Change>,
}

/// What changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Tools,
    Prompts,
}

impl Fixture {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut key = vec![0; RequestStateCodec::MIN_KEY_LENGTH];
        getrandom::fill(&mut key)?;
        Ok(Self { codec: RequestStateCodec::try_new(key)?, changes: broadcast::channel(CHANGES_MAX).0 })
    }

    pub(crate) fn codec(&self) -> &RequestStateCodec {
        &self.codec
    }

    pub(crate) fn change(&self, what: Change) {
        // Nobody may be listening.
        let _listeners = self.changes.send(what);
    }
}

impl Handlers for Fixture {
    type Handler = Self;

    fn handler(&self, _identity: &Identity, _era: Era, _calls: Calls) -> Self {
        self.clone()
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({
            "tools": {"listChanged": true},
            "prompts": {"listChanged": true},
            "resources": {"subscribe": true},
            "completions": {},
            "logging": {},
        });
        let capabilities: ServerCapabilities = serde_json::from_value(capabilities).expect("capabilities");
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("codegen-mcp-conformance", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::list()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::list().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, context).await
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(resources::read(&request.uri)?.into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        resources::read(&request.uri).map(drop)
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let begun = &request.argument.value;
        let known = ["paris", "park", "party"].iter().filter(|value| value.starts_with(begun.as_str()));
        let values = known.map(|value| (*value).to_owned()).collect();
        Ok(CompleteResult::new(CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error, None))?))
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, stream: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = stream.cancelled() => return Ok(()),
            };
            let (tools, prompts) = (stream.accepted().tools_list_changed, stream.accepted().prompts_list_changed);
            let told = match change {
                Ok(Change::Tools) if tools == Some(true) => stream.sink().notify_tool_list_changed().await,
                Ok(Change::Prompts) if prompts == Some(true) => stream.sink().notify_prompt_list_changed().await,
                Ok(_) => Ok(()),
                Err(_) => return Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }
}
