//! Gives up what is kept for too long: sessions that nobody uses, outcomes that nobody asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use codegen_types::SessionId;
use coordinator_core::retention::{Ages, Kept, Retention, due};
use coordinator_core::session::Input;

use super::owner::Message;
use super::table::Entry;
use super::{SessionSnapshot, Shared, now_ms};

/// Closed sessions that are remembered at most, whatever their age.
const CLOSED_SESSIONS_MAX: usize = 1_000;

/// All outcomes together, in bytes.
const OUTCOMES_BYTES_MAX: u64 = 256 << 20;

/// Looks for what is due, again and again, until the process stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let token = shared.supervisor.token();
    let mut ticks = tokio::time::interval(shared.options.cleanup_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut ages, began) = (Ages::default(), Instant::now());
    while token.run_until_cancelled(ticks.tick()).await.is_some() {
        sweep(&shared, &mut ages, began).await;
    }
}

async fn sweep(shared: &Shared, ages: &mut Ages, began: Instant) {
    let entries = shared.table.all();
    // One that is over is remembered since then: its worker may have been away, and is told when it comes back.
    let since = |snapshot: &SessionSnapshot| snapshot.closed_ms.unwrap_or(snapshot.last_used_ms);
    let used: Vec<(SessionId, i64)> = entries.iter().map(|entry| (entry.snapshot.id, since(&entry.snapshot))).collect();
    let passed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (ages, now) = ages.at(&used, now_ms(), passed_ms);
    let ages: HashMap<SessionId, u64> = used.into_iter().map(|(session, _)| session).zip(ages).collect();
    let outcome_age = i64::try_from(shared.options.outcome_retention.as_millis()).unwrap_or(i64::MAX);
    if let Err(error) = shared.tasks.prune_tasks(now.saturating_sub(outcome_age), OUTCOMES_BYTES_MAX).await {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "old outcomes could not be given up");
    }
    for entry in entries.iter().filter(|entry| entry.snapshot.state == "closing") {
        // What its worker could not delete, it is asked to delete again.
        let _ = entry.owner.try_send(Message::Happened { input: Input::IdleSweep });
    }
    for entry in entries.iter().filter(|entry| matches!(entry.snapshot.state, "suspended" | "lost")) {
        // Its mailbox is full only while it is in use; the next sweep asks again.
        let _ = entry.owner.try_send(Message::EndLeft);
    }
    let age_ms = u64::try_from(shared.options.retention.as_millis()).unwrap_or(u64::MAX);
    // Closed sessions have no files to lose, so that however many they are, they push out no others. What is closing is
    // given up once its worker has been away for as long as files are kept.
    let bytes_max = shared.options.retention_bytes;
    for (states, age_ms, sessions_max) in [
        (["closed"].as_slice(), age_ms, CLOSED_SESSIONS_MAX),
        (&["closing"], age_ms.saturating_mul(2), usize::MAX),
        (&["suspended", "lost"], age_ms, usize::MAX),
    ] {
        let those: Vec<&Entry> = entries.iter().filter(|entry| states.contains(&entry.snapshot.state)).collect();
        give_up(shared, &those, &ages, &Retention { age_ms, bytes_max, sessions_max });
    }
}

fn give_up(shared: &Shared, entries: &[&Entry], ages: &HashMap<SessionId, u64>, retention: &Retention) {
    let kept: Vec<Kept> = entries
        .iter()
        .map(|entry| Kept {
            session: entry.snapshot.id,
            age_ms: ages.get(&entry.snapshot.id).copied().unwrap_or_default(),
            bytes: bytes_to_gain(&entry.snapshot),
        })
        .collect();
    for session in due(&kept, retention) {
        let Some(entry) = entries.iter().find(|entry| entry.snapshot.id == session) else { continue };
        let worker = entry.snapshot.lease.as_ref().map(|lease| lease.worker.clone());
        let present = worker.and_then(|worker| shared.present(&worker));
        // An owner that is gone has nothing to be given up; one that is asked too much just now is in use.
        let _ = entry.owner.try_send(Message::Happened { input: Input::RetentionSweep { present } });
    }
}

/// What deleting a session's files would gain. A task that outlives its worker's link is still using them; a workspace
/// that is being deleted must not be given up because it takes room.
fn bytes_to_gain(snapshot: &SessionSnapshot) -> u64 {
    match snapshot.state {
        "suspended" if snapshot.running.is_empty() => snapshot.workspace_bytes.unwrap_or(0),
        _ => 0,
    }
}
