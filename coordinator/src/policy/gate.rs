//! The gate: what holds for a call, and waiting where somebody has to approve of it.

use codegen_types::{ErrorCode, Failure, IndexUrl, PackageAccess, Principal};
use coordinator_core::policy::{Action, Decision, Effect, Policy, Subject};
use std::sync::Arc;

use super::file::Policies;
use super::subjects;
use super::whole::{Question, Whole};
use crate::admission::Asked;
use crate::approvals::{Approvals, Need};
use crate::session::Leave;

/// What the file's default is called where the name of a rule is said.
const DEFAULT: &str = "default";

/// Lets calls through that the policy allows. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    policies: Policies,
    approvals: Approvals,
    hosts: Arc<Hosts>,
}

/// The hosts that an installation of packages may reach.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Of the index that is asked when a call names none.
    index: Option<String>,
    /// Of the files that indexes point to.
    files: Vec<String>,
}

impl From<&PackageAccess> for Hosts {
    fn from(access: &PackageAccess) -> Self {
        let files: Vec<String> = access.file_hosts.iter().map(|host| host.name.clone()).collect();
        Self::new(&access.indexes, &files)
    }
}

impl Hosts {
    /// With these indexes, the default first, and these hosts of files.
    pub fn new(indexes: &[IndexUrl], files: &[String]) -> Self {
        Self { index: indexes.first().map(|index| index.host().name.clone()), files: files.to_vec() }
    }

    /// What a call may reach that names this index, or none.
    pub(super) fn of(&self, index: Option<&IndexUrl>) -> impl Iterator<Item = String> {
        let index = index.map(|index| index.host().name.clone()).or_else(|| self.index.clone());
        index.into_iter().chain(self.files.iter().cloned())
    }
}

impl Gate {
    /// A gate under these policies, whose calls wait among these approvals.
    pub fn new(policies: Policies, approvals: Approvals, hosts: Hosts) -> Self {
        Self { policies, approvals, hosts: Arc::new(hosts) }
    }

    /// The calls that wait for approval.
    pub fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// Lets a call through, at once or once it is approved. What repeats a call under its idempotency key begins nothing,
    /// so nobody has to approve of it again; what is denied by now is denied to it, too.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the rule and its reason; what [`Approvals::obtain`] gives; what [`subjects::of_call`]
    /// gives when there are rules.
    pub(crate) async fn pass(
        &self,
        asked: &Asked<'_>,
        is_repeat: impl Future<Output = bool> + Send,
    ) -> Result<Leave, Failure> {
        self.judge(asked, is_repeat).await.map(|(leave, _)| leave)
    }

    /// Lets all calls through of which a request consists, as one.
    ///
    /// # Errors
    /// As of [`pass`](Self::pass).
    pub(crate) async fn pass_whole(&self, asked: &Asked<'_>) -> Result<Whole, Failure> {
        self.judge(asked, std::future::ready(false)).await.map(|(_, whole)| whole)
    }

    async fn judge(
        &self,
        asked: &Asked<'_>,
        is_repeat: impl Future<Output = bool> + Send,
    ) -> Result<(Leave, Whole), Failure> {
        let policy = self.policies.current();
        if allows_everything(&policy) {
            return Ok(Default::default());
        }
        let subjects = subjects::of_call(asked.tool, asked.args, &self.hosts)?;
        let action = Action { principal: asked.principal, tool: asked.tool, subjects: &subjects };
        let decision = policy.decide(action);
        match decision.effect {
            Effect::Allow => Ok(Default::default()),
            Effect::Deny => Err(denied(&decision)),
            Effect::RequireApproval if is_repeat.await => Ok((Leave::OfEarlier, Whole::default())),
            Effect::RequireApproval => self.approved(asked, &decision).await,
        }
    }

    /// Waits until somebody approves of a call, unless somebody did of the request that it is a part of.
    async fn approved(&self, asked: &Asked<'_>, decision: &Decision<'_>) -> Result<(Leave, Whole), Failure> {
        let rule = decision.rule.map_or(DEFAULT, |rule| &rule.name);
        let Asked { principal, tool, args, .. } = *asked;
        let question = Question { principal, tool, args, rule, approvers: decision.terms.approvers };
        if let Some(approval) = asked.whole.and_then(|whole| whole.covers(question)) {
            return Ok((Leave::Approved(approval), Whole::default()));
        }
        let need = Need {
            principal,
            tool,
            args,
            session: asked.session,
            client: asked.client,
            rule,
            reason: decision.rule.and_then(|rule| rule.reason.as_deref()),
            terms: decision.terms,
            asking: asked.asking,
            patience: asked.patience,
            cancel: asked.cancel,
        };
        let leave = Leave::Approved(self.approvals.obtain(&need).await?);
        Ok((leave, Whole::of(leave, question)))
    }

    /// Whether something may be looked at by another way than a call of this tool, which nobody can approve of.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`; `APPROVAL_REQUIRED` when only a call of the tool can be approved.
    pub(crate) fn look(&self, principal: &Principal, tool: &str, subject: Subject) -> Result<(), Failure> {
        let policy = self.policies.current();
        if allows_everything(&policy) {
            return Ok(());
        }
        let decision = policy.decide(Action { principal, tool, subjects: std::slice::from_ref(&subject) });
        match decision.effect {
            Effect::Allow => Ok(()),
            Effect::Deny => Err(denied(&decision)),
            Effect::RequireApproval => {
                let rule = decision.rule.map_or(DEFAULT, |rule| &rule.name);
                let message = format!("the policy's rule {rule:?} wants this approved, which a call of {tool} can be");
                Err(Failure::new(ErrorCode::ApprovalRequired, message))
            }
        }
    }
}

fn allows_everything(policy: &Policy) -> bool {
    policy.rules().is_empty() && policy.default_effect() == Effect::Allow
}

fn denied(decision: &Decision<'_>) -> Failure {
    let message = match decision.rule {
        Some(rule) => {
            let reason = rule.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("the policy's rule {:?} denies this{reason}. Nothing was done", rule.name)
        }
        None => "the policy allows only what its rules name, and none names this; nothing was done".to_owned(),
    };
    Failure::new(ErrorCode::PermissionDenied, message)
}
