//! What is said of a method that rmcp does not know, or whose parameters it cannot read.

use rmcp::model::{ErrorCode, ErrorData};

/// The methods that are served.
const METHODS: [&str; 14] = [
    "completion/complete",
    "initialize",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
];
/// Those that are served to clients that declare the extension.
const TASK_METHODS: [&str; 3] = ["tasks/cancel", "tasks/get", "tasks/update"];
/// The longest method that is repeated, in characters.
const METHOD_CHARS_MAX: usize = 128;

/// Why such a request is refused. With `tasks`, the client is served the methods of that extension.
pub(super) fn refusal(method: &str, tasks: bool) -> ErrorData {
    let served = METHODS.contains(&method) || (tasks && TASK_METHODS.contains(&method));
    if !served {
        return unknown(method);
    }
    let expected = match method {
        "tools/call" => "expected `name`, a string, and `arguments`, an object",
        "tasks/cancel" | "tasks/get" => "expected `taskId`, a string",
        _ => "they do not have the shape that the protocol gives them",
    };
    ErrorData::invalid_params(format!("the parameters of {method}: {expected}"), None)
}

/// There is no such method, for this client at least.
pub(super) fn unknown(method: &str) -> ErrorData {
    let method: String = method.chars().take(METHOD_CHARS_MAX).collect();
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("no such method: {method:?}"), None)
}
