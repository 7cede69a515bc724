//! Asking a client's user whether a call may go on: while it waits (2025-06-18 to 2025-11-25), or by answering it with the
//! question and having it made again with the answer (2026-07-28).

use std::sync::Arc;

use codegen_types::ApprovalId;
use futures::FutureExt;
use futures::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelledNotification, CancelledNotificationParam, ClientCapabilities,
    InputRequest, InputRequests, InputRequiredResult, ProtocolVersion, RequestId, RequestStateCodec, SealOptions,
    ServerNotification, ServerRequest,
};
use rmcp::service::{Peer, PeerRequestOptions, RequestContext, RoleServer};
use serde_json::{Value, json};

use super::handler::Handler;
use crate::approvals::{AskUser, Asking, CannotAsk, Given, Question, Round, Said, digest};

/// Under what the question stands among those of an answer.
const KEY: &str = "approval";
/// The longest state that is looked at, in bytes; ours are far shorter.
const STATE_BYTES_MAX: usize = 1 << 10;

/// Seals what clients are to give back. Its key lives as long as the server, and so do the requests it is about.
#[derive(Clone)]
pub(super) struct States(Arc<RequestStateCodec>);

/// How the user can be asked about one call, and what a state of it is bound to where there are states: principal, tool
/// and arguments.
pub(super) struct Approval {
    pub(super) asking: Asking,
    binding: Option<[u8; 32]>,
}

impl States {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the operating system has a random source");
        Self(Arc::new(RequestStateCodec::try_new(key).expect("the key is long enough")))
    }

    fn seal(&self, question: &Question, binding: &[u8]) -> String {
        let options = SealOptions::new().associated_data(binding).ttl(question.remaining);
        self.0.seal_with(question.approval.to_string().as_bytes(), &options)
    }

    fn open(&self, state: &str, binding: &[u8]) -> Option<ApprovalId> {
        let opened = self.0.open_with(state, binding).ok().filter(|_| state.len() <= STATE_BYTES_MAX)?;
        std::str::from_utf8(&opened).ok()?.parse().ok()
    }

    /// What a call is answered with instead of its result, when its user is to be asked.
    pub(super) fn input_required(&self, approval: &Approval) -> Option<CallToolResponse> {
        let (Asking::Again(round), Some(binding)) = (&approval.asking, &approval.binding) else { return None };
        let question = round.take()?;
        let request: InputRequest = serde_json::from_value(elicitation(&question)).ok()?;
        let requests = InputRequests::from([(KEY.to_owned(), request)]);
        Some(InputRequiredResult::new(Some(requests), Some(self.seal(&question, binding))).into())
    }
}

impl Handler {
    /// How the user can be asked about a call.
    pub(super) fn approval(&self, params: &CallToolRequestParams, context: &RequestContext<RoleServer>) -> Approval {
        let since = |version: ProtocolVersion| {
            context.protocol_version().is_some_and(|revision| revision.as_str() >= version.as_str())
        };
        let asking = if !context.client_capabilities().is_some_and(|capabilities| shows_forms(&capabilities)) {
            Asking::Nobody
        } else if since(ProtocolVersion::V_2026_07_28) {
            return self.again(params);
        } else if since(ProtocolVersion::V_2025_06_18) {
            Asking::Meanwhile(Arc::new(Elicitation(context.peer.clone())))
        } else {
            Asking::Nobody
        };
        Approval { asking, binding: None }
    }

    /// The call is made again with the answer, and perhaps this is that call.
    fn again(&self, params: &CallToolRequestParams) -> Approval {
        let tool = crate::tools::find(&params.name).map_or(&*params.name, |tool| tool.name);
        let args = Value::Object(params.arguments.clone().unwrap_or_default());
        let binding = digest(self.principal(), tool, &args);
        let given = match &params.request_state {
            None => Given::Nothing,
            Some(state) => self.states().open(state, &binding).map_or(Given::Forged, |id| {
                let response = params.input_responses.as_ref().and_then(|responses| responses.get(KEY));
                Given::Answer(id, response.and_then(said))
            }),
        };
        Approval { asking: Asking::Again(Arc::new(Round::new(given))), binding: Some(binding) }
    }
}

/// A client that names no kind of question shows forms.
fn shows_forms(capabilities: &ClientCapabilities) -> bool {
    capabilities.elicitation.as_ref().is_some_and(|can| can.form.is_some() || can.url.is_none())
}

/// Asks by `elicitation/create`.
struct Elicitation(Peer<RoleServer>);

impl AskUser for Elicitation {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Said, CannotAsk>> {
        async move {
            let cannot = |why: &dyn std::fmt::Display| CannotAsk(why.to_string());
            let request: ServerRequest =
                serde_json::from_value(elicitation(&question)).map_err(|error| cannot(&error))?;
            let options = PeerRequestOptions::no_options();
            let sent = self.0.send_cancellable_request(request, options).await.map_err(|error| cannot(&error))?;
            let mut asked = Asked { peer: self.0.clone(), id: Some(sent.id.clone()) };
            let answer = sent.await_response().await;
            asked.id = None;
            let answer =
                serde_json::to_value(answer.map_err(|error| cannot(&error))?).map_err(|error| cannot(&error))?;
            said(&answer).ok_or_else(|| cannot(&"the answer is none"))
        }
        .boxed()
    }
}

/// A question that is open. Dropped, the client is told that nobody wants the answer any more.
struct Asked {
    peer: Peer<RoleServer>,
    id: Option<RequestId>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let peer = self.peer.clone();
        tokio::spawn(async move {
            let params = CancelledNotificationParam::new(Some(id), Some("it was decided elsewhere".to_owned()));
            let cancelled = ServerNotification::CancelledNotification(CancelledNotification::new(params));
            // A client that is gone asks nobody.
            let _gone = peer.send_notification(cancelled).await;
        });
    }
}

fn elicitation(question: &Question) -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "approve": {"type": "boolean", "title": "Approve", "description": "Whether the call may go on"},
            "reason": {"type": "string", "title": "Reason", "description": "Why; kept in the audit log", "maxLength": 500},
        },
        "required": ["approve"],
    });
    let params = json!({"mode": "form", "message": question.message, "requestedSchema": schema});
    json!({"method": "elicitation/create", "params": params})
}

/// What a user said. Whoever closes the form without an answer does not approve.
fn said(answer: &Value) -> Option<Said> {
    let content = |name: &str| answer.get("content").and_then(|content| content.get(name));
    let why = content("reason").and_then(Value::as_str).filter(|why| !why.trim().is_empty()).map(str::to_owned);
    match answer.get("action")?.as_str()? {
        "accept" => Some(Said { approves: content("approve").and_then(Value::as_bool).unwrap_or(false), why }),
        "decline" => Some(Said { approves: false, why }),
        "cancel" => Some(Said { approves: false, why: Some("the question was dismissed".to_owned()) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn question(remaining: Duration) -> Question {
        Question { approval: ApprovalId::mint(), message: String::new(), remaining }
    }

    #[test]
    fn a_state_is_good_only_as_it_was_given_and_only_for_the_call_it_was_given_for() {
        let states = States::new();
        let asked = question(Duration::from_secs(60));
        let state = states.seal(&asked, b"ann, run_shell, rm");
        assert_eq!(states.open(&state, b"ann, run_shell, rm"), Some(asked.approval));
        assert_eq!(states.open(&state, b"bob, run_shell, rm"), None);
        assert_eq!(States::new().open(&state, b"ann, run_shell, rm"), None);
        for place in 0..state.len() {
            let mut tampered = state.clone().into_bytes();
            tampered[place] = if tampered[place] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(tampered).unwrap();
            assert!(tampered == state || states.open(&tampered, b"ann, run_shell, rm").is_none(), "byte {place}");
        }
    }

    #[test]
    fn only_a_clear_yes_approves() {
        for (answer, expected) in [
            (json!({"action": "accept", "content": {"approve": true}}), Some(true)),
            (json!({"action": "accept", "content": {"approve": "true"}}), Some(false)),
            (json!({"action": "accept", "content": {"approve": false, "reason": "no"}}), Some(false)),
            (json!({"action": "accept"}), Some(false)),
            (json!({"action": "decline", "content": {"approve": true}}), Some(false)),
            (json!({"action": "cancel"}), Some(false)),
            (json!({"action": "whatever", "content": {"approve": true}}), None),
            (json!({"content": {"approve": true}}), None),
            (json!("accept"), None),
        ] {
            assert_eq!(said(&answer).map(|said| said.approves), expected, "{answer}");
        }
    }
}
