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

/// The longest text of an argument that a list shows whole, in characters. Of a longer one this much is shown, from both
/// ends, with its length and its SHA-256.
const TEXT_CHARS_MAX: usize = 1_000;
/// How much of that is from the end.
const TAIL_CHARS: usize = 400;
/// Values that are shown of a list or an object.
const VALUES_MAX: usize = 50;
/// How deep values are shown.
const DEPTH_MAX: usize = 8;
/// How deep values are kept; JSON that is deeper is not read.
const KEPT_DEPTH_MAX: usize = 127;
/// The longest arguments that are kept whole for whoever decides, in bytes of JSON.
pub(super) const WHOLE_BYTES_MAX: usize = 64 << 10;

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
    /// Its arguments, long ones by head, tail, length and SHA-256; secrets as their length.
    pub arguments: Value,
    /// Whether there is more of them, and whether it can be seen.
    pub rest: Rest,
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

/// What of a call's arguments is not among those that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Nothing, but for secrets.
    Nothing,
    /// Parts of long ones; asked for by its id, the request has them whole.
    Kept,
    /// Parts of what is too long to be kept, so that nobody can see them here.
    NotKept,
}

impl Rest {
    /// What whoever decides is told.
    pub(super) fn note(self, id: ApprovalId) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Kept => Some(format!(
                "Only parts of long arguments are shown; the whole is in `coordinator approvals show {id}` and \
                 GET /api/v1/approvals/{id}."
            )),
            Self::NotKept => Some(format!(
                "Only parts of long arguments are shown, and the rest cannot be seen anywhere: more than \
                 {WHOLE_BYTES_MAX} bytes of a request, or too much of all of them, is not kept. What is approved is \
                 what has these SHA-256."
            )),
        }
    }
}

/// A request with all there is of its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalWhole {
    /// The request.
    #[serde(flatten)]
    pub view: ApprovalView,
    /// Its arguments whole, secrets as their length; absent when they are too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Value>,
}

/// A call's arguments for whoever decides.
pub(super) struct Arguments {
    /// As a list shows them.
    pub(super) shown: Value,
    pub(super) rest: Rest,
    /// The JSON of the whole, where that says more.
    pub(super) whole: Option<String>,
}

impl Arguments {
    pub(super) fn of(args: &Value) -> Self {
        let bounds = Bounds { text_chars: TEXT_CHARS_MAX, values: VALUES_MAX, depth: DEPTH_MAX };
        let (shown, is_whole) = bounds.shorten(args);
        if is_whole {
            return Self { shown, rest: Rest::Nothing, whole: None };
        }
        let bounds = Bounds { text_chars: usize::MAX, values: usize::MAX, depth: KEPT_DEPTH_MAX };
        let (whole, is_whole) = bounds.shorten(args);
        let whole = Some(whole.to_string()).filter(|text| is_whole && text.len() <= WHOLE_BYTES_MAX);
        let rest = if whole.is_some() { Rest::Kept } else { Rest::NotKept };
        Self { shown, rest, whole }
    }
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
pub(crate) fn asked_under(call: &ArgumentDigest, rule: &str, approvers: Approvers) -> ArgumentDigest {
    let approvers = match approvers {
        Approvers::Operator => [0],
        Approvers::OperatorOrUser => [1],
    };
    Sha256::new().chain_update(call).chain_update(approvers).chain_update(rule).finalize().into()
}

/// How much is shown.
#[derive(Clone, Copy)]
struct Bounds {
    text_chars: usize,
    values: usize,
    depth: usize,
}

impl Bounds {
    /// What is shown of a value, and whether that is all, but for secrets.
    fn shorten(self, value: &Value) -> (Value, bool) {
        let mut is_whole = true;
        let shown = self.part(value, false, 0, None, &mut is_whole);
        (shown, is_whole)
    }

    fn part(self, value: &Value, is_secret: bool, depth: usize, within: Option<&str>, is_whole: &mut bool) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(_) if is_secret => Value::from("(secret)"),
            Value::Number(_) => value.clone(),
            Value::String(text) if is_secret => Value::from(format!("(secret of {} bytes)", text.len())),
            Value::String(text) => Value::from(self.text(text, is_whole)),
            Value::Array(_) | Value::Object(_) if depth >= self.depth => {
                *is_whole = false;
                Value::from("(nested deeper)")
            }
            Value::Array(items) => {
                let shown = items.iter().take(self.values);
                let mut shown: Vec<Value> =
                    shown.map(|item| self.part(item, is_secret, depth + 1, None, is_whole)).collect();
                shown.extend(self.more(items.len(), is_whole).map(Value::from));
                Value::Array(shown)
            }
            Value::Object(fields) => {
                let mut shown = Map::new();
                for (name, value) in fields.iter().take(self.values) {
                    let is_secret = is_secret || looks_secret(name, within);
                    let part = self.part(value, is_secret, depth + 1, (depth == 0).then_some(name), is_whole);
                    shown.insert(self.text(name, is_whole), part);
                }
                shown.extend(self.more(fields.len(), is_whole).map(|more| (more, Value::Null)));
                Value::Object(shown)
            }
        }
    }

    /// That there are more values than are shown, if there are.
    fn more(self, count: usize, is_whole: &mut bool) -> Option<String> {
        let rest = count.checked_sub(self.values).filter(|rest| *rest > 0)?;
        *is_whole = false;
        Some(format!("({rest} more)"))
    }

    /// A text, or its head and its tail.
    fn text(self, text: &str, is_whole: &mut bool) -> String {
        if text.chars().nth(self.text_chars).is_none() {
            return text.to_owned();
        }
        *is_whole = false;
        let head: String = text.chars().take(self.text_chars - TAIL_CHARS).collect();
        let tail = text.char_indices().rev().nth(TAIL_CHARS - 1).map_or(text, |(place, _)| &text[place..]);
        let left_out = text.len() - head.len() - tail.len();
        let digest = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("{head}\n… ({left_out} of {} bytes are not shown; SHA-256 of all: {digest}) …\n{tail}", text.len())
    }
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
    fn arguments_are_shown_by_head_and_tail_kept_whole_and_secrets_not_at_all() {
        let code = format!("head{}os.remove('all')", "x".repeat(5_000));
        let args =
            json!({"code": code, "env": {"A": "hunter2"}, "list": vec![1; 200], "network": {"secrets": ["deploy"]}});
        let Arguments { shown, rest, whole } = Arguments::of(&args);
        let (text, whole) = (shown.to_string(), whole.expect("it fits"));
        for part in [
            "\"head",
            "os.remove('all')",
            "of 5020 bytes",
            "SHA-256",
            "(secret of 7 bytes)",
            "(150 more)",
            "[\"deploy\"]",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(rest == Rest::Kept && whole.contains(&code) && text.len() < 3_000, "{text}");
        assert!(!text.contains("hunter2") && !whole.contains("hunter2"));
    }

    #[test]
    fn what_is_not_shown_is_always_said() {
        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        let wide: Map<String, Value> = (0..51).map(|n| (format!("A{n}"), json!(n))).collect();
        for (args, rest) in [
            (json!({"code": "x".repeat(1_000)}), Rest::Nothing),
            (json!({"code": "ä".repeat(1_001)}), Rest::Kept),
            (json!({ "deep": deep }), Rest::Kept),
            (json!({ "wide": wide }), Rest::Kept),
            (json!({"code": "x".repeat(WHOLE_BYTES_MAX)}), Rest::NotKept),
        ] {
            let arguments = Arguments::of(&args);
            assert_eq!((arguments.rest, arguments.whole.is_some()), (rest, rest == Rest::Kept));
            assert_eq!(rest.note(ApprovalId::mint()).is_some(), rest != Rest::Nothing);
        }
    }
}
