//! [`TaskStore`] on SQLite. Output is kept in columns of its own, as the bytes that it is.

use codegen_types::{LogSeq, Principal, SessionId, TaskId};
use futures::future::{BoxFuture, FutureExt as _};
use sqlx::Row as _;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite as Engine, SqliteArguments, SqliteRow};

use super::{Sqlite, from_json, inserted, integer, malformed, replaced, statements, to_json};
use crate::store::{StoreResult, StoredOutcome, TaskRow, TaskStore, TasksOf};

impl TaskStore for Sqlite {
    fn insert_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        async move { inserted(self.write(bind(statements::INSERT_TASK, row)).await) }.boxed()
    }

    fn put_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        async move { replaced(&self.write(bind(statements::PUT_TASK, row)).await?) }.boxed()
    }

    fn task(&self, task: TaskId) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        async move {
            let row = sqlx::query(statements::TASK).bind(task.to_string()).fetch_optional(&self.readers).await?;
            row.as_ref().map(read).transpose()
        }
        .boxed()
    }

    fn task_by_key(
        &self,
        session: SessionId,
        principal: Principal,
        key: String,
    ) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        async move {
            let query = sqlx::query(statements::TASK_BY_KEY).bind(session.to_string());
            let query = query.bind(principal.as_str().to_owned()).bind(key);
            query.fetch_optional(&self.readers).await?.as_ref().map(read).transpose()
        }
        .boxed()
    }

    fn unfinished_tasks(&self) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        async move {
            let rows = sqlx::query(statements::UNFINISHED_TASKS).fetch_all(&self.readers).await?;
            rows.iter().map(read).collect()
        }
        .boxed()
    }

    fn recent_tasks(&self, of: TasksOf, limit: u32) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        async move {
            let query = match of {
                TasksOf::Principal(principal) => {
                    sqlx::query(statements::RECENT_TASKS_OF_PRINCIPAL).bind(principal.as_str().to_owned())
                }
                TasksOf::Everybody => sqlx::query(statements::RECENT_TASKS_OF_ALL).bind(1),
                TasksOf::Session(session) => sqlx::query(statements::RECENT_TASKS_OF_SESSION).bind(session.to_string()),
            };
            let query = query.bind(i64::from(limit));
            query.fetch_all(&self.readers).await?.iter().map(read).collect()
        }
        .boxed()
    }

    fn prune_tasks(&self, ended_before_ms: i64, bytes_max: u64) -> BoxFuture<'_, StoreResult<u64>> {
        async move {
            let mut transaction = self.writer.begin().await?;
            let old = sqlx::query(statements::PRUNE_OLD_TASKS).bind(ended_before_ms);
            let old = old.execute(&mut *transaction).await?.rows_affected();
            let large = sqlx::query(statements::PRUNE_LARGE_TASKS).bind(integer(bytes_max));
            let large = large.execute(&mut *transaction).await?.rows_affected();
            let emptied = sqlx::query(statements::EMPTY_LARGE_TASKS).bind(integer(bytes_max));
            let emptied = emptied.execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(old + large + emptied)
        }
        .boxed()
    }
}

fn bind(statement: &'static str, row: TaskRow) -> Query<'static, Engine, SqliteArguments> {
    let bytes = row.outcome.as_ref().map_or(0, StoredOutcome::bytes);
    let mut outcome = row.outcome;
    let [out_head, out_tail, err_head, err_tail, both_head, both_tail] =
        outcome.as_mut().map_or_else(Default::default, StoredOutcome::take_output);
    sqlx::query(statement)
        .bind(row.id.to_string())
        .bind(row.session.to_string())
        .bind(row.principal.as_str().to_owned())
        .bind(row.tool)
        .bind(row.key)
        .bind(row.digest.to_vec())
        .bind(to_json(&row.state))
        .bind(integer(row.attempt.0))
        .bind(row.outcome_seq.map(|seq| integer(seq.0)))
        .bind(row.begun_ms)
        .bind(row.ended_ms)
        .bind(outcome.as_ref().map(to_json))
        .bind(out_head)
        .bind(out_tail)
        .bind(err_head)
        .bind(err_tail)
        .bind(both_head)
        .bind(both_tail)
        .bind(integer(bytes))
        .bind(integer(row.revision))
}

fn read(row: &SqliteRow) -> StoreResult<TaskRow> {
    let id: String = row.try_get("id")?;
    let count = |value: i64| u64::try_from(value).map_err(|error| malformed(&id, error));
    let blob = |column: &str| row.try_get::<Option<Vec<u8>>, _>(column).map(Option::unwrap_or_default);
    let mut outcome: Option<StoredOutcome> =
        row.try_get::<Option<String>, _>("outcome")?.map(|outcome| from_json(&id, &outcome)).transpose()?;
    if let Some(outcome) = &mut outcome {
        let [out_head, out_tail] = [blob("stdout_head")?, blob("stdout_tail")?];
        let [err_head, err_tail] = [blob("stderr_head")?, blob("stderr_tail")?];
        outcome.put_output([out_head, out_tail, err_head, err_tail, blob("both_head")?, blob("both_tail")?]);
    }
    let session: String = row.try_get("session")?;
    let outcome_seq: Option<i64> = row.try_get("outcome_seq")?;
    let digest: Vec<u8> = row.try_get("digest")?;
    Ok(TaskRow {
        id: id.parse().map_err(|error| malformed(&id, error))?,
        session: session.parse().map_err(|error| malformed(&id, error))?,
        principal: Principal::from_stored(row.try_get("principal")?),
        tool: row.try_get("tool")?,
        key: row.try_get("key")?,
        digest: digest.try_into().map_err(|_| malformed(&id, "the digest has not 32 bytes"))?,
        state: from_json(&id, &row.try_get::<String, _>("state")?)?,
        attempt: LogSeq(count(row.try_get("attempt_seq")?)?),
        outcome_seq: outcome_seq.map(|seq| count(seq).map(LogSeq)).transpose()?,
        begun_ms: row.try_get("begun_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        outcome,
        revision: count(row.try_get("revision")?)?,
    })
}
