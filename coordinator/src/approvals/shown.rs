//! What whoever decides is shown of a call, and by what a call is known again.

use codegen_audit::looks_secret;
use codegen_types::{ApprovalId, Principal, SessionId};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::policy::Approvers;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::session::sorted;

/// The longest text of an argument that is shown whole, in characters. Of a longer one this much is shown, since nobody
/// should approve of what they cannot see at all.
const TEXT_CHARS_MAX: usize = 1_000;
/// Values that are shown of a list or an object.
const VALUES_MAX: usize = 50;
/// How deep values are shown.
const DEPTH_MAX: usize = 8;

/// A request for approval, for whoever decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its id.
    pub id: ApprovalId,
    /// Where it stands.
    pub state: ApprovalState,
    /// Who made the call.
    pub principal: Principal,
    /// The tool.
    pub tool: String,
    /// Its arguments, shortened; secrets as their length.
    pub arguments: Value,
    /// The session that the call names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The client program, as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The rule that wants it approved.
    pub rule: String,
    /// What the rule gives as its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who may approve.
    pub approvers: Approvers,
    /// When the call was made.
    pub created: Timestamp,
    /// When silence denies it; of an approved one, until when it is good.
    pub expires: Timestamp,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// Approved, and not used yet.
    Approved,
    /// Denied, and the caller has not heard of it yet.
    Denied,
}

impl ApprovalState {
    /// The state in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
        }
    }
}

/// By what a call is known again: SHA-256 over principal, tool and arguments, keys in order, but for the idempotency key.
pub fn digest(principal: &Principal, tool: &str, args: &Value) -> ArgumentDigest {
    let mut args = sorted(args);
    if let Value::Object(fields) = &mut args {
        fields.remove("idempotency_key");
    }
    let mut hash = Sha256::new();
    for part in [principal.as_str(), tool, &args.to_string()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// By what a request is known again: its call, and what would have to be decided about it. When the policy says
/// otherwise meanwhile, what was decided before is no answer to it.
pub(super) fn asked_under(call: &ArgumentDigest, rule: &str, approvers: Approvers) -> ArgumentDigest {
    let approvers = match approvers {
        Approvers::Operator => [0],
        Approvers::OperatorOrUser => [1],
    };
    Sha256::new().chain_update(call).chain_update(approvers).chain_update(rule).finalize().into()
}

/// Arguments as they are shown.
pub(super) fn shortened(args: &Value) -> Value {
    shorten(args, false, 0)
}

fn shorten(value: &Value, is_secret: bool, depth: usize) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) if is_secret => Value::from("(secret)"),
        Value::Number(_) => value.clone(),
        Value::String(text) if is_secret => Value::from(format!("(secret of {} bytes)", text.len())),
        Value::String(text) => Value::from(head(text)),
        Value::Array(_) | Value::Object(_) if depth == DEPTH_MAX => Value::from("(nested deeper)"),
        Value::Array(items) => {
            let rest = items.len().saturating_sub(VALUES_MAX);
            let more = (rest > 0).then(|| Value::from(format!("({rest} more)")));
            items.iter().take(VALUES_MAX).map(|item| shorten(item, is_secret, depth + 1)).chain(more).collect()
        }
        Value::Object(fields) => {
            let inner = |name: &str| is_secret || looks_secret(name);
            let shown = fields.iter().take(VALUES_MAX);
            let shown = shown.map(|(name, value)| (head(name), shorten(value, inner(name), depth + 1)));
            Value::Object(shown.collect::<Map<_, _>>())
        }
    }
}

fn head(text: &str) -> String {
    let mut head: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if head.len() < text.len() {
        head.push_str(&format!("… ({} bytes in all)", text.len()));
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_known_by_who_makes_it_and_what_it_says_in_any_order() {
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let of = |principal, tool, args: &str| digest(principal, tool, &serde_json::from_str(args).unwrap());
        let call = of(&ann, "fs_write", r#"{"path":"a","contents":"x"}"#);
        assert_eq!(call, of(&ann, "fs_write", r#"{"contents":"x","path":"a","idempotency_key":"k"}"#));
        for (principal, tool, args) in [
            (&bob, "fs_write", r#"{"path":"a","contents":"x"}"#),
            (&ann, "fs_edit", r#"{"path":"a","contents":"x"}"#),
            (&ann, "fs_write", r#"{"path":"a","contents":"y"}"#),
            (&ann, "fs_write", r#"{"path":"a","contents":"x","session_id":"s"}"#),
        ] {
            assert_ne!(call, of(principal, tool, args), "{tool} {args}");
        }
    }

    #[test]
    fn another_rule_or_other_approvers_are_another_question() {
        let asked = asked_under(&[0; 32], "a", Approvers::OperatorOrUser);
        assert_eq!(asked, asked_under(&[0; 32], "a", Approvers::OperatorOrUser));
        assert_ne!(asked, asked_under(&[0; 32], "a", Approvers::Operator));
        assert_ne!(asked, asked_under(&[0; 32], "b", Approvers::OperatorOrUser));
        assert_ne!(asked, asked_under(&[1; 32], "a", Approvers::OperatorOrUser));
    }

    #[test]
    fn arguments_are_shown_in_part_and_secrets_not_at_all() {
        let args = json!({"command": "x".repeat(5_000), "env": {"A": "hunter2"}, "list": vec![1; 200]});
        let shown = shortened(&args).to_string();
        assert!(shown.contains("(5000 bytes in all)") && shown.contains("(secret of 7 bytes)"), "{shown}");
        assert!(!shown.contains("hunter2") && shown.len() < 3_000, "{shown}");
    }
}
