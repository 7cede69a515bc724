//! NOTE to PART=session (04:46): the integrator is writing coordinator/src/store/** right now, to save you time: do NOT
//! write it. Do core/session.rs, core/task.rs, core/retention.rs, core/idempotency.rs (serde on the states), publish them
//! at once, then coordinator/src/session/**. The store's rows: SessionRow{id, principal, name, metadata, ttl_ms, created_ms,
//! last_used_ms, isolation, tasks, state: SessionState(core), revision, audit_seq}; TaskRow{id, session, principal, tool,
//! digest, idempotency_key, state: TaskState(core), created_ms, ended_ms, outcome: Option<Result<Completed, Failure>>, partial, attempt_seq, outcome_seq}.
