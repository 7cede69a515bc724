//! Calls on kernels, given their places as they come.

use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
use serde_json::Value;

use crate::arrivals::Arrivals;

/// Gives a message its place, if it is a call on a kernel. To be done for each message of a connection as it comes.
pub(super) fn mark(arrivals: &mut Arrivals, message: &mut ClientJsonRpcMessage) {
    let JsonRpcMessage::Request(request) = message else { return };
    let ClientRequest::CallToolRequest(call) = &mut request.request else { return };
    let arguments = call.params.arguments.as_ref();
    let text = |name: &str| arguments?.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(kernel) = text("kernel") else { return };
    let arrival = arrivals.arrive(text("session_id"), kernel);
    call.extensions.insert(arrival);
}

#[cfg(test)]
mod tests {
    use rmcp::model::GetExtensions as _;
    use serde_json::json;

    use super::*;
    use crate::arrivals::Arrival;

    #[tokio::test]
    async fn calls_on_kernels_are_marked_and_nothing_else() {
        let mut arrivals = Arrivals::default();
        let mut marked = |method: &str, params: Value| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            let mut message: ClientJsonRpcMessage = serde_json::from_value(message).expect("a message");
            mark(&mut arrivals, &mut message);
            let JsonRpcMessage::Request(request) = &message else { panic!("a request") };
            request.request.extensions().get::<Arrival>().is_some()
        };
        assert!(marked("tools/call", json!({"name": "run_python", "arguments": {"code": "1", "kernel": "k"}})));
        assert!(!marked("tools/call", json!({"name": "run_python", "arguments": {"code": "1"}})));
        assert!(!marked("tools/call", json!({"name": "run_python", "arguments": {"kernel": 1}})));
        assert!(!marked("tools/list", json!({})));
    }
}
