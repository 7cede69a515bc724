//! Tools that ask the client while they run (before 2026-07-28).

use rmcp::model::{CallToolResult, ClientResult, ContentBlock, ErrorData, ServerRequest};
use rmcp::service::{Peer, RoleServer, ServiceError};
use serde_json::{Value, json};

/// Has the client's model answer.
pub(crate) async fn sample(peer: &Peer<RoleServer>, prompt: &str) -> Result<CallToolResult, ErrorData> {
    let message = json!({"role": "user", "content": {"type": "text", "text": prompt}});
    let answer = ask(peer, "sampling/createMessage", json!({"messages": [message], "maxTokens": 100})).await;
    Ok(told(answer, |answer| {
        let text = answer.pointer("/content/text").and_then(Value::as_str).unwrap_or_default();
        format!("LLM response: {text}")
    }))
}

/// Asks the client's user for a name and an address.
pub(crate) async fn elicit(peer: &Peer<RoleServer>, message: &str) -> Result<CallToolResult, ErrorData> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let properties = json!({"username": text("User's response"), "email": text("User's email address")});
    let schema = json!({"type": "object", "properties": properties, "required": ["username", "email"]});
    let answer = elicited(peer, message, schema).await;
    Ok(told(answer, |answer| format!("User response: {}", shown(&answer))))
}

/// Asks with a default value of each type.
pub(crate) async fn elicit_defaults(peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "description": "User name", "default": "John Doe"},
        "age": {"type": "integer", "description": "User age", "default": 30},
        "score": {"type": "number", "description": "User score", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "description": "Whether verified", "default": true},
    }, "required": []});
    let answer = elicited(peer, "Please review the defaults", schema).await;
    Ok(told(answer, |answer| format!("Elicitation completed: {}", shown(&answer))))
}

/// Asks with every kind of choice.
pub(crate) async fn elicit_choices(peer: &Peer<RoleServer>) -> Result<CallToolResult, ErrorData> {
    let titled = |names: [&str; 3]| -> Value {
        let pairs = names.iter().zip(1..);
        pairs.map(|(title, number)| json!({"const": format!("value{number}"), "title": title})).collect()
    };
    let plain = json!(["option1", "option2", "option3"]);
    let schema = json!({"type": "object", "properties": {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"])},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": titled(["First Choice", "Second Choice", "Third Choice"])},
        },
    }, "required": []});
    let answer = elicited(peer, "Please choose", schema).await;
    Ok(told(answer, |answer| format!("Elicitation completed: {}", shown(&answer))))
}

async fn elicited(peer: &Peer<RoleServer>, message: &str, schema: Value) -> Result<Value, String> {
    ask(peer, "elicitation/create", json!({"mode": "form", "message": message, "requestedSchema": schema})).await
}

/// What the client answers, as it stands on the wire.
async fn ask(peer: &Peer<RoleServer>, method: &str, params: Value) -> Result<Value, String> {
    let request: ServerRequest = serde_json::from_value(json!({"method": method, "params": params}))
        .map_err(|error| format!("the request is none of the protocol's: {error}"))?;
    let answer: ClientResult = peer.send_request(request).await.map_err(|error: ServiceError| error.to_string())?;
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

fn told(answer: Result<Value, String>, tell: impl Fn(Value) -> String) -> CallToolResult {
    match answer {
        Ok(answer) => CallToolResult::success(vec![ContentBlock::text(tell(answer))]),
        Err(why) => CallToolResult::error(vec![ContentBlock::text(why)]),
    }
}

fn shown(answer: &Value) -> String {
    let action = answer.get("action").and_then(Value::as_str).unwrap_or("none");
    format!("action={action}, content={}", answer.get("content").unwrap_or(&Value::Null))
}
