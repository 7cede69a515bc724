//! The writer's lease: in a session that several may act in, one principal acts at a time.
//!
//! Whoever acts while nobody holds it takes it, holds it while its tasks run and for a while after the last of them. It is
//! of the server's life only: at a restart nothing runs.

use std::collections::BTreeSet;

use codegen_types::{Principal, TaskId};

/// Who acts in a session at present.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WriterLease(Option<Held>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    by: Principal,
    tasks: BTreeSet<TaskId>,
    /// When it ends, unless a task runs.
    until_ms: i64,
}

/// Another principal acts in the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    /// Who.
    pub by: Principal,
    /// Until when, in milliseconds since the Unix epoch; nothing while its tasks run.
    pub until_ms: Option<i64>,
}

impl WriterLease {
    /// Who holds it.
    pub fn holder(&self, now: i64) -> Option<Writing> {
        let held = self.0.as_ref().filter(|held| held.lasts(now))?;
        Some(Writing { by: held.by.clone(), until_ms: held.tasks.is_empty().then_some(held.until_ms) })
    }

    /// Lets a principal act, unless another does.
    ///
    /// # Errors
    /// Who does.
    pub fn check(&self, principal: &Principal, now: i64) -> Result<(), Writing> {
        self.holder(now).filter(|writing| writing.by != *principal).map_or(Ok(()), Err)
    }

    /// A task of this principal begins, which [`check`](Self::check) let act.
    pub fn begin(&mut self, principal: &Principal, task: TaskId) {
        match &mut self.0 {
            Some(held) if held.by == *principal => drop(held.tasks.insert(task)),
            other => *other = Some(Held { by: principal.clone(), tasks: [task].into(), until_ms: 0 }),
        }
    }

    /// A task is over; its principal keeps the lease so long after the last of them.
    pub fn end(&mut self, task: TaskId, now: i64, kept_ms: i64) {
        if let Some(held) = &mut self.0
            && held.tasks.remove(&task)
        {
            held.until_ms = now.saturating_add(kept_ms);
        }
    }

    /// Takes it from a principal that may not act any more.
    pub fn release(&mut self, principal: &Principal) {
        self.0.take_if(|held| held.by == *principal);
    }
}

impl Held {
    fn lasts(&self, now: i64) -> bool {
        !self.tasks.is_empty() || now < self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> (Principal, Principal) {
        (Principal::os_user("ann"), Principal::os_user("bob"))
    }

    #[test]
    fn it_is_held_while_tasks_run_and_a_while_after() {
        let ((ann, bob), mut lease) = (people(), WriterLease::default());
        let (first, second) = (TaskId::mint(), TaskId::mint());
        assert_eq!(lease.check(&bob, 0), Ok(()));
        lease.begin(&bob, first);
        lease.begin(&bob, second);
        assert_eq!(lease.check(&bob, i64::MAX), Ok(()));
        assert_eq!(lease.check(&ann, i64::MAX), Err(Writing { by: bob.clone(), until_ms: None }));
        lease.end(first, 100, 30);
        assert_eq!(lease.check(&ann, i64::MAX), Err(Writing { by: bob.clone(), until_ms: None }));
        lease.end(second, 200, 30);
        assert_eq!(lease.check(&ann, 229), Err(Writing { by: bob.clone(), until_ms: Some(230) }));
        assert_eq!((lease.check(&ann, 230), lease.holder(230)), (Ok(()), None));
        lease.begin(&ann, first);
        assert!(lease.check(&bob, 230).is_err());
        lease.end(second, 300, 30);
        assert_eq!(lease.holder(230).unwrap().until_ms, None, "what was another's ends nothing");
    }

    #[test]
    fn it_is_taken_from_whoever_may_not_act_and_from_nobody_else() {
        let ((ann, bob), mut lease) = (people(), WriterLease::default());
        lease.begin(&bob, TaskId::mint());
        lease.release(&ann);
        assert!(lease.check(&ann, 0).is_err());
        lease.release(&bob);
        assert_eq!(lease.check(&ann, 0), Ok(()));
    }
}
