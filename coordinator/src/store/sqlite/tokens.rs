//! [`TokenStore`] on SQLite.

use codegen_types::Principal;
use futures::future::{BoxFuture, FutureExt as _};
use sqlx::Row as _;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite as Engine, SqliteArguments, SqliteQueryResult, SqliteRow};

use super::{Sqlite, inserted, malformed, replaced, statements};
use crate::identity::{TokenDigest, TokenId};
use crate::store::{StoreResult, TokenRow, TokenStore};

impl TokenStore for Sqlite {
    fn insert_token(&self, row: TokenRow) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let insert = sqlx::query(statements::INSERT_TOKEN)
                .bind(row.id.to_string())
                .bind(row.digest.0.to_vec())
                .bind(row.principal.to_string())
                .bind(row.scopes.to_string())
                .bind(row.note)
                .bind(row.created_ms)
                .bind(row.expires_ms)
                .bind(row.revoked_ms);
            inserted(self.write_through(insert).await)
        }
        .boxed()
    }

    fn revoke_token(&self, token: TokenId, revoked_ms: i64) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let revoke = sqlx::query(statements::REVOKE_TOKEN).bind(token.to_string()).bind(revoked_ms);
            replaced(&self.write_through(revoke).await?)
        }
        .boxed()
    }

    fn remove_token(&self, token: TokenId) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let remove = sqlx::query(statements::REMOVE_TOKEN).bind(token.to_string());
            replaced(&self.write_through(remove).await?)
        }
        .boxed()
    }

    fn tokens(&self) -> BoxFuture<'_, StoreResult<Vec<TokenRow>>> {
        async move {
            let rows = sqlx::query(statements::TOKENS).fetch_all(&self.readers).await?;
            rows.iter().map(read).collect()
        }
        .boxed()
    }
}

impl Sqlite {
    /// Executes a statement and waits until the disk has it, which other writes are spared since the log repeats them.
    pub(super) async fn write_through(
        &self,
        query: Query<'static, Engine, SqliteArguments>,
    ) -> Result<SqliteQueryResult, sqlx::Error> {
        let mut writer = self.writer.acquire().await?;
        sqlx::query(statements::WAIT_FOR_DISK).execute(&mut *writer).await?;
        let result = query.execute(&mut *writer).await;
        sqlx::query(statements::WAIT_NO_MORE).execute(&mut *writer).await?;
        self.checkpoints.count_write();
        result
    }
}

fn read(row: &SqliteRow) -> StoreResult<TokenRow> {
    let id: String = row.try_get("id")?;
    let digest: Vec<u8> = row.try_get("digest")?;
    let scopes: String = row.try_get("scopes")?;
    Ok(TokenRow {
        digest: TokenDigest(digest.try_into().map_err(|_| malformed(&id, "its digest has another length"))?),
        principal: Principal::from_stored(row.try_get("principal")?),
        scopes: scopes.parse().map_err(|error| malformed(&id, error))?,
        note: row.try_get("note")?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        revoked_ms: row.try_get("revoked_ms")?,
        id: id.parse().map_err(|error| malformed(&id, error))?,
    })
}
