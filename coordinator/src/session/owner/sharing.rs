//! With whom the session is shared, and who acts in it.

use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, Principal};
use coordinator_core::session::{Input, Need, NotShared, Role, Shares, Writing};

use super::{By, Owner};
use crate::session::call::SessionSnapshot;
use crate::session::record::Sharing;
use crate::session::{access, now_ms};

impl Owner {
    /// Lets a task begin: its principal may do that here, and nobody else acts meanwhile. What a caller was shown before
    /// is looked at again, since shares may have changed since.
    pub(super) fn admit(&self, by: &By) -> Result<(), Failure> {
        access::check(self.row.shares.access(&self.row.principal, &by.principal), by.need)?;
        match by.need {
            Need::Read | Need::Own => Ok(()),
            Need::Act => {
                let checked = self.writer.check(&by.principal, self.passed_ms());
                checked.map_err(|writing| access::busy(&self.by_clock(writing), now_ms()))
            }
        }
    }

    /// Who acts in it, when there are several who may.
    pub(super) fn writing(&self) -> Option<Writing> {
        let may_others = self.row.shares.iter().any(|(_, role)| role == Role::Writer);
        let held = may_others.then(|| self.writer.holder(self.passed_ms()))?;
        held.map(|writing| self.by_clock(writing))
    }

    /// Milliseconds that have passed since this owner began, for the writer's lease.
    pub(super) fn passed_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// What the lease says in that time, in the clock's.
    fn by_clock(&self, writing: Writing) -> Writing {
        let ahead_ms = now_ms().saturating_sub(self.passed_ms());
        Writing { until_ms: writing.until_ms.map(|until_ms| until_ms.saturating_add(ahead_ms)), ..writing }
    }

    pub(super) async fn share(&mut self, with: Principal, role: Role) -> Result<Arc<SessionSnapshot>, Failure> {
        let shares = self.row.shares.with(&self.row.principal, &with, role).map_err(not_shared)?;
        let sharing = Sharing { with: with.clone(), role: Some(role) };
        self.reshare(shares, sharing, &Input::Share).await?;
        if role == Role::Observer {
            self.end_tasks(&with, |need| need != Need::Read);
        }
        Ok(self.snapshot())
    }

    pub(super) async fn unshare(&mut self, with: Principal) -> Result<Arc<SessionSnapshot>, Failure> {
        let shares = self.row.shares.without(&with);
        if with != self.row.principal {
            self.reshare(shares, Sharing { with: with.clone(), role: None }, &Input::Unshare).await?;
            self.end_tasks(&with, |_| true);
        }
        Ok(self.snapshot())
    }

    /// Takes the step to other shares, unless they are as they were.
    async fn reshare(&mut self, shares: Shares, sharing: Sharing, input: &Input) -> Result<(), Failure> {
        if shares == self.row.shares {
            return Ok(());
        }
        let transition = self.decide(input).map_err(|refusal| self.refused(refusal))?;
        let before = std::mem::replace(&mut self.row.shares, shares);
        self.sharing = Some(sharing);
        let taken = self.take(transition).await;
        self.sharing = None;
        if taken.is_err() {
            self.row.shares = before;
        }
        taken
    }

    /// Cancels what a principal may not do any more, and lets others act.
    fn end_tasks(&mut self, principal: &Principal, ends: impl Fn(Need) -> bool) {
        self.writer.release(principal);
        let theirs = self.running.values().filter(|running| running.by.principal == *principal);
        theirs.filter(|running| ends(running.by.need)).for_each(|running| running.cancel.cancel());
        self.shared.table.publish(self.snapshot());
    }
}

fn not_shared(why: NotShared) -> Failure {
    let next = match why {
        NotShared::Owner => "name another",
        NotShared::TooMany => "end one with session_unshare first",
    };
    Failure::new(ErrorCode::InvalidArgument, format!("{why}; {next}"))
}
