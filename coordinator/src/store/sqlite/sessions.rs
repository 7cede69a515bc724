//! [`SessionStore`] on SQLite.

use codegen_types::{LogSeq, Principal, SessionId};
use futures::future::{BoxFuture, FutureExt as _};
use sqlx::Row as _;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite as Engine, SqliteArguments, SqliteRow};

use super::{Sqlite, from_json, inserted, integer, malformed, replaced, statements, to_json};
use crate::session::CreationKey;
use crate::store::{Progress, SessionRow, SessionStore, StoreResult};

impl SessionStore for Sqlite {
    fn insert_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>> {
        async move { inserted(self.write(bind(statements::INSERT_SESSION, &row)).await) }.boxed()
    }

    fn put_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>> {
        async move { replaced(&self.write(bind(statements::PUT_SESSION, &row)).await?) }.boxed()
    }

    fn remove_session(&self, session: SessionId, revision: u64) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let remove = sqlx::query(statements::REMOVE_SESSION).bind(session.to_string()).bind(integer(revision));
            replaced(&self.write(remove).await?)
        }
        .boxed()
    }

    fn sessions(&self) -> BoxFuture<'_, StoreResult<Vec<SessionRow>>> {
        async move {
            let rows = sqlx::query(statements::SESSIONS).fetch_all(&self.readers).await?;
            rows.iter().map(read).collect()
        }
        .boxed()
    }

    fn progress(&self) -> BoxFuture<'_, StoreResult<Progress>> {
        async move {
            let mut progress = Progress::default();
            for row in sqlx::query(statements::GET_META).fetch_all(&self.readers).await? {
                let (key, value): (String, String) = (row.try_get("key")?, row.try_get("value")?);
                let seq = || value.parse().map(LogSeq).map_err(|error| malformed(&key, error));
                match key.as_str() {
                    "log_id" => progress.log_id = Some(value),
                    "applied" => progress.applied = seq()?,
                    "settled_before" => progress.settled_before = seq()?,
                    _ => {}
                }
            }
            Ok(progress)
        }
        .boxed()
    }

    fn settle(&self, log_id: String, settled_before: LogSeq) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let mut transaction = self.writer.begin().await?;
            for (key, value) in [("log_id", log_id), ("settled_before", settled_before.to_string())] {
                sqlx::query(statements::SET_META).bind(key).bind(value).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        }
        .boxed()
    }
}

fn bind(statement: &'static str, row: &SessionRow) -> Query<'static, Engine, SqliteArguments> {
    sqlx::query(statement)
        .bind(row.id.to_string())
        .bind(row.principal.as_str().to_owned())
        .bind(row.name.clone())
        .bind(to_json(&row.metadata))
        .bind(to_json(&row.state))
        .bind(row.isolation.as_ref().map(to_json))
        .bind(integer(row.ttl_ms))
        .bind(row.created_ms)
        .bind(row.last_used_ms)
        .bind(integer(row.tasks))
        .bind(integer(row.revision))
        .bind(integer(row.audit_seq.0))
        .bind(row.workspace_bytes.map(integer))
        .bind(to_json(&row.receipt))
        .bind(to_json(&row.shares))
        .bind(to_json(&row.network))
        .bind(row.key.as_ref().map(|key| key.key.clone()))
        .bind(row.key.as_ref().map(|key| key.digest.to_vec()))
}

fn read(row: &SqliteRow) -> StoreResult<SessionRow> {
    let id: String = row.try_get("id")?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let count = |column: &str| -> StoreResult<u64> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| malformed(&id, error))
    };
    let isolation: Option<String> = row.try_get("isolation")?;
    let workspace_bytes: Option<i64> = row.try_get("workspace_bytes")?;
    Ok(SessionRow {
        id: id.parse().map_err(|error| malformed(&id, error))?,
        principal: Principal::from_stored(text("principal")?),
        shares: from_json(&id, &text("shares")?)?,
        name: row.try_get("name")?,
        metadata: from_json(&id, &text("metadata")?)?,
        network: from_json(&id, &text("network")?)?,
        key: key(&id, row)?,
        state: from_json(&id, &text("state")?)?,
        isolation: isolation.map(|report| from_json(&id, &report)).transpose()?,
        ttl_ms: count("ttl_ms")?,
        created_ms: row.try_get("created_ms")?,
        last_used_ms: row.try_get("last_used_ms")?,
        tasks: count("tasks")?,
        workspace_bytes: workspace_bytes.map(u64::try_from).transpose().map_err(|error| malformed(&id, error))?,
        receipt: from_json(&id, &text("receipt")?)?,
        revision: count("revision")?,
        audit_seq: LogSeq(count("audit_seq")?),
    })
}

fn key(id: &str, row: &SqliteRow) -> StoreResult<Option<CreationKey>> {
    let (key, digest): (Option<String>, Option<Vec<u8>>) = (row.try_get("key")?, row.try_get("key_digest")?);
    let Some(key) = key else { return Ok(None) };
    let digest = digest.unwrap_or_default().try_into();
    Ok(Some(CreationKey { key, digest: digest.map_err(|_| malformed(id, "the digest has not 32 bytes"))? }))
}
