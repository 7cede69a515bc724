//! Requests that consist of several calls: what is approved is the request, and with it each of its calls.

use codegen_types::{ApprovalId, Principal};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::policy::Approvers;
use serde_json::Value;

use crate::approvals;
use crate::session::Leave;

/// Which part of a file a call is about, and how it comes.
const PART: [&str; 4] = ["offset", "limit", "last", "encoding"];

/// Leave for all calls of one request: of one principal, with one tool, and arguments that differ in the part of a file
/// alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole(Option<(ApprovalId, ArgumentDigest)>);

/// What would have to be decided about a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) principal: &'a Principal,
    pub(super) tool: &'a str,
    pub(super) args: &'a Value,
    pub(super) rule: &'a str,
    pub(super) approvers: Approvers,
}

impl Whole {
    pub(super) fn of(leave: Leave, question: Question<'_>) -> Self {
        Self(leave.approval().map(|approval| (approval, question.digest())))
    }

    /// The approval, when it is for this, too.
    pub(super) fn covers(&self, question: Question<'_>) -> Option<ApprovalId> {
        self.0.filter(|(_, digest)| *digest == question.digest()).map(|(approval, _)| approval)
    }
}

impl Question<'_> {
    fn digest(&self) -> ArgumentDigest {
        let mut args = self.args.clone();
        if let Value::Object(fields) = &mut args {
            fields.retain(|name, _| !PART.contains(&name.as_str()));
        }
        approvals::asked_under(&approvals::digest(self.principal, self.tool, &args), self.rule, self.approvers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leave_for_a_whole_file_is_for_each_part_of_it_and_for_nothing_else() {
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let (whole, part) = (json!({"path": "a"}), json!({"path": "a", "offset": 4, "limit": 2, "encoding": "base64"}));
        let other = json!({"path": "b", "offset": 4});
        let question =
            Question { principal: &ann, tool: "fs_read", args: &whole, rule: "r", approvers: Approvers::Operator };
        let approval = ApprovalId::mint();
        let leave = Whole::of(Leave::Approved(approval), question);
        assert_eq!(leave.covers(Question { args: &part, ..question }), Some(approval));
        for another in [
            Question { args: &other, ..question },
            Question { principal: &bob, ..question },
            Question { tool: "fs_write", ..question },
            Question { rule: "s", ..question },
            Question { approvers: Approvers::OperatorOrUser, ..question },
        ] {
            assert_eq!(leave.covers(another), None, "{another:?}");
        }
        assert_eq!(Whole::of(Leave::Free, question).covers(question), None);
    }
}
