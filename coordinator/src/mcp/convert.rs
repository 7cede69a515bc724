//! Tools and their results in the protocol's terms.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, MetaObject, Resource, Tool as WireTool, ToolAnnotations};
use serde_json::Value;

use super::ToolNames;
use super::quirks::Quirks;
use crate::tools::{Content, Effect, ResourceLink, TOOLS, Tool, ToolResult};

/// Every tool as it is listed: the same for every connection with these names.
pub(super) fn tools(names: ToolNames) -> Arc<[WireTool]> {
    static UNDERSCORED: LazyLock<Arc<[WireTool]>> = LazyLock::new(|| wire_tools(ToolNames::Underscored));
    static DOTTED: LazyLock<Arc<[WireTool]>> = LazyLock::new(|| wire_tools(ToolNames::Dotted));
    match names {
        ToolNames::Underscored => Arc::clone(&UNDERSCORED),
        ToolNames::Dotted => Arc::clone(&DOTTED),
    }
}

fn wire_tools(names: ToolNames) -> Arc<[WireTool]> {
    TOOLS.iter().map(|tool| wire_tool(tool, names)).collect()
}

fn wire_tool(tool: &'static Tool, names: ToolNames) -> WireTool {
    let name = match names {
        ToolNames::Underscored => tool.name.to_owned(),
        ToolNames::Dotted => tool.dotted(),
    };
    let wire = WireTool::new(name, tool.description, object(tool.input_schema()))
        .with_title(tool.title)
        .with_annotations(annotations(tool));
    match tool.output_schema() {
        Some(schema) => wire.with_raw_output_schema(object(schema)),
        None => wire,
    }
}

/// Nothing that a tool does leaves the sandbox, so none is open to the world. Clients of 2025-03-26 look for the title
/// here.
fn annotations(tool: &Tool) -> ToolAnnotations {
    let (read_only, destructive, idempotent) = match tool.effect {
        Effect::Reads => (true, false, true),
        Effect::Adds => (false, false, false),
        Effect::Sets => (false, true, true),
        Effect::Acts => (false, true, false),
    };
    ToolAnnotations::with_title(tool.title)
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(false)
}

fn object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

/// A tool's result on the wire, as its client takes it best. Structured content must not be all that such a client shows,
/// unless the tool declares it.
pub(super) fn result(result: ToolResult, tool: Option<&WireTool>, client: Quirks) -> CallToolResult {
    let declared = tool.is_some_and(|tool| tool.output_schema.is_some());
    let content = result.content.into_iter().filter_map(|content| block(content, client)).collect();
    let mut wire = if result.is_error { CallToolResult::error(content) } else { CallToolResult::success(content) };
    wire.structured_content = result.structured.filter(|_| !client.omits_structured(declared));
    if !result.meta.is_empty() {
        let mut meta = MetaObject::new();
        for (key, value) in result.meta {
            meta.insert(key, value);
        }
        wire.meta = Some(meta);
    }
    wire
}

/// A block as its client takes it; a link is left out where clients refuse a result for it.
fn block(content: Content, client: Quirks) -> Option<ContentBlock> {
    match content {
        Content::Text(text) => Some(ContentBlock::text(text)),
        Content::Image { mime, data } => Some(ContentBlock::image(STANDARD.encode(data), mime)),
        Content::ResourceLink(ResourceLink { uri, name, mime, size }) => client.resource_links.then(|| {
            ContentBlock::resource_link(Resource::new(uri.to_string(), name).with_mime_type(mime).with_size(size))
        }),
    }
}
