//! The tools.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ErrorData,
    ProgressNotificationParam, ServerNotification, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Map, Value, json};

use crate::asking;
use crate::content::{audio, embedded, image};
use crate::rounds::{Round, TOOLS};
use crate::server::{Change, Fixture};

/// Tools without arguments that are always there.
const PLAIN: [&str; 16] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_logging_tool",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_reconnection",
    "json_schema_2020_12_tool",
];

pub(crate) fn list() -> Vec<Tool> {
    let plain = PLAIN.iter().chain(&TOOLS).map(|name| tool(name, schema_of(name)));
    let asking = [("test_sampling", "prompt"), ("test_elicitation", "message")].map(|(name, argument)| {
        let properties = json!({argument: {"type": "string", "description": "What is asked"}});
        tool(name, json!({"type": "object", "properties": properties, "required": [argument]}))
    });
    let properties = json!({"region": {"type": "string", "x-mcp-header": "Region"}});
    let of_header = tool("test_header_parameter", json!({"type": "object", "properties": properties}));
    plain.chain(asking).chain([of_header]).collect()
}

fn tool(name: &'static str, schema: Value) -> Tool {
    let schema: Map<String, Value> = schema.as_object().cloned().unwrap_or_default();
    Tool::new(name, "A tool of the conformance suite", Arc::new(schema))
}

fn schema_of(name: &str) -> Value {
    if name != "json_schema_2020_12_tool" {
        return json!({"type": "object", "properties": {}});
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {
            "street": {"type": "string"},
            "city": {"type": "string"},
        }}},
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
        "if": {"required": ["address"]},
        "then": {"properties": {"name": {"minLength": 1}}},
        "else": {"required": ["name"]},
        "additionalProperties": false,
    })
}

pub(crate) async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let argument = |name: &str| {
        let given = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        given.and_then(Value::as_str).unwrap_or_default()
    };
    let name = request.name.as_ref();
    let result = match name {
        "test_sampling" => asking::sample(&context.peer, argument("prompt")).await?,
        "test_elicitation" => asking::elicit(&context.peer, argument("message")).await?,
        "test_elicitation_sep1034_defaults" => asking::elicit_defaults(&context.peer).await?,
        "test_elicitation_sep1330_enums" => asking::elicit_choices(&context.peer).await?,
        "test_tool_with_logging" | "test_logging_tool" => log(&context).await,
        "test_tool_with_progress" => progress(&context).await,
        "test_trigger_tool_change" => changed(fixture, Change::Tools),
        "test_trigger_prompt_change" => changed(fixture, Change::Prompts),
        "test_missing_capability" => samples(&context)?,
        asks if TOOLS.contains(&asks) => {
            let round = Round {
                tool: asks,
                responses: request.input_responses.as_ref(),
                state: request.request_state.as_deref(),
                capabilities: context.client_capabilities().unwrap_or_default(),
                codec: fixture.codec(),
            };
            return round.answer();
        }
        other => at_once(other)?,
    };
    Ok(result.into())
}

/// What needs nothing but its name.
fn at_once(name: &str) -> Result<CallToolResult, ErrorData> {
    let content = match name {
        "test_simple_text" => vec![ContentBlock::text("This is a simple text response for testing.")],
        "test_image_content" => vec![image()],
        "test_audio_content" => vec![audio()],
        "test_embedded_resource" => {
            vec![embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
        }
        "test_multiple_content_types" => vec![
            ContentBlock::text("Multiple content types test:"),
            image(),
            embedded("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ],
        "test_error_handling" => {
            let text = ContentBlock::text("This tool intentionally returns an error for testing");
            return Ok(CallToolResult::error(vec![text]));
        }
        "test_reconnection" | "json_schema_2020_12_tool" | "test_header_parameter" => vec![ContentBlock::text("Done.")],
        _ => return Err(ErrorData::invalid_params(format!("there is no tool {name}"), None)),
    };
    Ok(CallToolResult::success(content))
}

fn changed(fixture: &Fixture, what: Change) -> CallToolResult {
    fixture.change(what);
    CallToolResult::success(vec![ContentBlock::text("Changed.")])
}

/// Needs a client with a model.
fn samples(context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
    let has = |capabilities: &ClientCapabilities| {
        serde_json::to_value(capabilities).is_ok_and(|value| value.get("sampling").is_some())
    };
    if context.client_capabilities().as_ref().is_some_and(has) {
        return Ok(CallToolResult::success(vec![ContentBlock::text("The client has a model.")]));
    }
    let needed: Result<ClientCapabilities, _> = serde_json::from_value(json!({"sampling": {}}));
    let needed = needed.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    Err(ErrorData::missing_required_client_capability(needed))
}

/// Says what it does, to clients that want to know. Those of 2026-07-28 say so with each request.
async fn log(context: &RequestContext<RoleServer>) -> CallToolResult {
    let is_stateless = context.meta.client_capabilities().is_some();
    if !is_stateless || context.meta.log_level().is_some() {
        for text in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
            let params = json!({"level": "info", "logger": "conformance", "data": text});
            let said = json!({"method": "notifications/message", "params": params});
            let said: ServerNotification = serde_json::from_value(said).expect("a notification of the protocol");
            let _client_is_gone = context.peer.send_notification(said).await;
        }
    }
    CallToolResult::success(vec![ContentBlock::text("Logging test completed")])
}

async fn progress(context: &RequestContext<RoleServer>) -> CallToolResult {
    if let Some(token) = context.meta.get_progress_token() {
        for done in [0.0, 50.0, 100.0] {
            let told = ProgressNotificationParam::new(token.clone(), done).with_total(100.0);
            let _client_is_gone = context.peer.notify_progress(told).await;
        }
    }
    CallToolResult::success(vec![ContentBlock::text("Progress test completed")])
}
