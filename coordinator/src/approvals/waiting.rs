//! Calls that wait: joined to a request, asked about, answered.

use std::time::Duration;

use codegen_audit::{Entry, EventKind};
use codegen_types::{ApprovalId, ErrorCode, Failure, Principal, SessionId};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::policy::{Approvers, Terms};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asking::{AskUser, Asking, Given, Question, Round};
use super::orphans;
use super::service::{Approvals, Decider, Way, unrecorded};
use super::shown::{self, ApprovalState, ApprovalView, Arguments};
use super::table::Standing;

/// After how long a call that was answered too early had best be made again.
const RETRY: Duration = Duration::from_secs(5);

/// A call that must be approved.
#[derive(Debug)]
pub struct Need<'a> {
    /// Who makes it.
    pub principal: &'a Principal,
    /// The tool's listed name.
    pub tool: &'a str,
    /// Its arguments.
    pub args: &'a Value,
    /// The session that it names.
    pub session: Option<SessionId>,
    /// The client program, as it names itself.
    pub client: Option<&'a str>,
    /// The rule that wants it.
    pub rule: &'a str,
    /// The rule's reason.
    pub reason: Option<&'a str>,
    /// On what terms.
    pub terms: Terms,
    /// How the user can be asked.
    pub asking: &'a Asking,
    /// How long the call may wait for an operator before it is answered.
    pub patience: Duration,
    /// Cancelled when the client wants the call no more.
    pub cancel: &'a CancellationToken,
}

impl Need<'_> {
    /// By what its request is known again.
    fn digest(&self) -> ArgumentDigest {
        let call = shown::digest(self.principal, self.tool, self.args);
        shown::asked_under(&call, self.rule, self.terms.approvers)
    }
}

/// How a wait ended.
enum Waited {
    /// Something changed.
    Changed,
    /// The call has waited long enough.
    Enough,
}

impl Approvals {
    /// Waits until a call is approved; by which approval.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is denied, by somebody or by silence; `APPROVAL_REQUIRED` when it has waited long
    /// enough and the request goes on without it, or the client is to ask its user; `TASK_CANCELLED`;
    /// `QUOTA_EXCEEDED` when too many calls wait; `INVALID_ARGUMENT` for what a client did not get from here;
    /// `AUDIT_UNAVAILABLE`.
    pub async fn obtain(&self, need: &Need<'_>) -> Result<ApprovalId, Failure> {
        let digest = need.digest();
        let began = Instant::now();
        if let Asking::Again(round) = need.asking {
            self.heard(round, need).await?;
        }
        let mut user_may = need.terms.approvers == Approvers::OperatorOrUser;
        let mut standing = self.stands(&digest);
        loop {
            let (waiting, changed, expires) = match standing {
                Stands::Granted(id) => return Ok(id),
                Stands::Denied(why) => return Err(denied(need, &why)),
                Stands::Waits(waiting, changed, expires) => (waiting, changed, expires),
                Stands::Recording(waiting, mut changed) => {
                    // Its end is a change, too.
                    let _ended = changed.changed().await;
                    standing = waiting.hear(&digest);
                    continue;
                }
                Stands::Unknown => {
                    standing = self.request(need).await?;
                    continue;
                }
            };
            let id = waiting.id;
            let question = || self.question(id, need, expires);
            let waited = match need.asking {
                Asking::Again(round) if user_may => {
                    round.put(question());
                    Ok(Waited::Enough)
                }
                Asking::Meanwhile(user) if user_may => {
                    // A client that cannot ask is not asked again.
                    user_may = false;
                    self.wait_for_user(need, user.as_ref(), question(), changed, began).await
                }
                Asking::Nobody | Asking::Meanwhile(_) | Asking::Again(_) => {
                    wait_for_operator(need, changed, began).await
                }
            };
            match waited {
                Ok(Waited::Changed) => standing = waiting.hear(&digest),
                Ok(Waited::Enough) => return Err(required(id, need, expires)),
                Err(cancelled) => {
                    if waiting.end() == 0 {
                        self.withdraw(id, "the call was cancelled").await;
                    }
                    return Err(cancelled);
                }
            }
        }
    }

    fn stands(&self, digest: &ArgumentDigest) -> Stands<'_> {
        let standing = self.0.table.lock().join(digest, Instant::now());
        Stands::of(self, standing)
    }

    /// What the user of a client said to the question that an earlier call was answered with.
    async fn heard(&self, round: &Round, need: &Need<'_>) -> Result<(), Failure> {
        let forged = || {
            let message = "`requestState` is not what this call was answered with, or it is too old";
            Failure::new(ErrorCode::InvalidArgument, message)
        };
        match &round.given {
            Given::Nothing => Ok(()),
            Given::Forged => Err(forged()),
            Given::Answer(id, said) => {
                let digest = need.digest();
                let of = self.0.table.lock().of(*id);
                // What was used, denied or withdrawn is no longer there.
                of.filter(|(_, of, _)| *of == digest).ok_or_else(forged)?;
                let Some(said) = said else { return Ok(()) };
                let by = Decider { principal: need.principal.clone(), way: Way::Client };
                match self.decide(*id, &by, said).await {
                    // Somebody was faster; what they decided holds.
                    Err(failure) if failure.code == ErrorCode::PreconditionFailed => Ok(()),
                    decided => decided.map(drop),
                }
            }
        }
    }

    /// Makes a request, unless the same call made one meanwhile; where the call stands then.
    async fn request(&self, need: &Need<'_>) -> Result<Stands<'_>, Failure> {
        let id = ApprovalId::mint();
        let digest = need.digest();
        let created = Timestamp::now();
        let Arguments { shown, rest, whole } = Arguments::of(need.args);
        let view = ApprovalView {
            id,
            state: ApprovalState::Pending,
            principal: need.principal.clone(),
            tool: need.tool.to_owned(),
            arguments: shown,
            rest,
            session: need.session,
            client: need.client.map(str::to_owned),
            rule: need.rule.to_owned(),
            reason: need.reason.map(str::to_owned),
            approvers: need.terms.approvers,
            created,
            expires: created + need.terms.timeout,
        };
        let entry = Entry {
            kind: EventKind::ApprovalRequested,
            principal: Some(need.principal.clone()),
            session: need.session,
            tool: Some(need.tool.to_owned()),
            args: Some(need.args.clone()),
            detail: Some(json!({
                "approval": id, "rule": need.rule, "reason": need.reason, "approvers": need.terms.approvers,
                "timeout_ms": u64::try_from(need.terms.timeout.as_millis()).ok(), "client": need.client,
            })),
            ..Entry::default()
        };
        let kept = orphans::kept(&self.0.audit, need.args);
        {
            let mut table = self.0.table.lock();
            // The same call may have come in between.
            match table.join(&digest, Instant::now()) {
                Standing::Unknown if table.forget_orphan(need, &kept) => {
                    return Ok(Stands::Denied(orphans::RESTARTED.to_owned()));
                }
                Standing::Unknown => table.insert(view, whole, digest, Instant::now() + need.terms.timeout)?,
                standing => {
                    drop(table);
                    return Ok(Stands::of(self, standing));
                }
            }
        }
        let waiting = Waiting::of(self, id);
        let this = self.clone();
        let recording = tokio::spawn(async move {
            let recorded = this.0.audit.append(entry).await;
            let mut table = this.0.table.lock();
            match recorded {
                Ok(seq) => {
                    table.recorded(id, seq);
                    Ok(())
                }
                Err(error) => {
                    tracing::error!(%error, "a request for approval could not be recorded");
                    table.remove(id);
                    Err(unrecorded())
                }
            }
        });
        recording.await.unwrap_or_else(|_| Err(unrecorded()))?;
        self.0.due.notify_one();
        Ok(waiting.hear(&digest))
    }

    fn question(&self, id: ApprovalId, need: &Need<'_>, expires: Instant) -> Question {
        let reason = need.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let arguments = Arguments::of(need.args).shown;
        let note = self.0.table.lock().rest(id).note(id).map_or_else(String::new, |note| format!("\n{note}"));
        let message = format!(
            "May this call of {} go on? The policy's rule {:?} wants it approved{reason}.\nArguments: {arguments}{note}",
            need.tool, need.rule
        );
        Question { approval: id, message, remaining: expires.saturating_duration_since(Instant::now()) }
    }

    async fn wait_for_user(
        &self,
        need: &Need<'_>,
        user: &dyn AskUser,
        question: Question,
        mut changed: watch::Receiver<()>,
        began: Instant,
    ) -> Result<Waited, Failure> {
        let id = question.approval;
        let said = tokio::select! {
            biased;
            _ = changed.changed() => return Ok(Waited::Changed),
            () = need.cancel.cancelled() => return Err(cancelled()),
            said = user.ask(question) => said,
            // The user may go on thinking: the same call, made again, joins the request.
            () = tokio::time::sleep_until(began + need.patience) => return Ok(Waited::Enough),
        };
        match said {
            Ok(said) => {
                let by = Decider { principal: need.principal.clone(), way: Way::Client };
                match self.decide(id, &by, &said).await {
                    Err(failure) if failure.code == ErrorCode::AuditUnavailable => return Err(failure),
                    Err(failure) => tracing::debug!(%failure, "a user's answer came too late"),
                    Ok(_) => {}
                }
            }
            Err(error) => tracing::info!(%error, "a call waits for the operator's approval"),
        }
        Ok(Waited::Changed)
    }
}

async fn wait_for_operator(
    need: &Need<'_>,
    mut changed: watch::Receiver<()>,
    began: Instant,
) -> Result<Waited, Failure> {
    tokio::select! {
        biased;
        _ = changed.changed() => Ok(Waited::Changed),
        () = need.cancel.cancelled() => Err(cancelled()),
        () = tokio::time::sleep_until(began + need.patience) => Ok(Waited::Enough),
    }
}

/// Where a call stands, counted as long as it waits.
enum Stands<'a> {
    Granted(ApprovalId),
    Denied(String),
    Recording(Waiting<'a>, watch::Receiver<()>),
    Waits(Waiting<'a>, watch::Receiver<()>, Instant),
    Unknown,
}

impl<'a> Stands<'a> {
    /// What the table said, which counted the call if it waits.
    fn of(approvals: &'a Approvals, standing: Standing) -> Self {
        match standing {
            Standing::Granted(id) => Self::Granted(id),
            Standing::Denied(why) => Self::Denied(why),
            Standing::Recording(id, changed) => Self::Recording(Waiting::of(approvals, id), changed),
            Standing::Waits(id, changed, expires) => Self::Waits(Waiting::of(approvals, id), changed, expires),
            Standing::Unknown => Self::Unknown,
        }
    }
}

/// A call that the table counts as one that waits, until this ends or is dropped.
struct Waiting<'a> {
    approvals: &'a Approvals,
    id: ApprovalId,
    counts: bool,
}

impl<'a> Waiting<'a> {
    fn of(approvals: &'a Approvals, id: ApprovalId) -> Self {
        Self { approvals, id, counts: true }
    }

    /// Ends the wait by hearing where the call stands, as one step, and goes on waiting where it has to: a denial is
    /// remembered until all who wait heard it, and nothing is decided between two waits that would not be heard.
    fn hear(mut self, digest: &ArgumentDigest) -> Stands<'a> {
        self.counts = false;
        let standing = {
            let mut table = self.approvals.0.table.lock();
            table.unwait(self.id);
            table.join(digest, Instant::now())
        };
        Stands::of(self.approvals, standing)
    }

    /// How many others wait.
    fn end(mut self) -> usize {
        self.counts = false;
        self.approvals.0.table.lock().unwait(self.id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.approvals.0.table.lock().unwait(self.id);
        }
    }
}

fn required(id: ApprovalId, need: &Need<'_>, expires: Instant) -> Failure {
    let reason = need.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let seconds = expires.saturating_duration_since(Instant::now()).as_secs();
    let message = format!(
        "the policy's rule {:?}{reason} wants this call approved; the request is {id}, and silence denies it in {seconds} s. \
         Nothing was done yet",
        need.rule
    );
    Failure::new(ErrorCode::ApprovalRequired, message).retry_after(RETRY)
}

fn denied(need: &Need<'_>, why: &str) -> Failure {
    let reason = need.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let message =
        format!("the policy's rule {:?}{reason} wants this call approved, and {why}; nothing was done", need.rule);
    Failure::new(ErrorCode::PermissionDenied, message)
}

fn cancelled() -> Failure {
    Failure::new(ErrorCode::TaskCancelled, "the call was cancelled while it waited for approval; nothing was done")
}
