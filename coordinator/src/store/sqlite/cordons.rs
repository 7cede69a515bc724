//! [`CordonStore`] on SQLite.

use codegen_types::{Principal, WorkerId};
use futures::future::{BoxFuture, FutureExt as _};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Sqlite, malformed, statements};
use crate::store::{CordonRow, CordonStore, StoreResult};

impl CordonStore for Sqlite {
    fn put_cordon(&self, row: CordonRow) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            let put = sqlx::query(statements::PUT_CORDON)
                .bind(row.worker.to_string())
                .bind(row.admittance.as_str())
                .bind(row.set_by.to_string())
                .bind(row.since_ms);
            self.write_through(put).await?;
            Ok(())
        }
        .boxed()
    }

    fn remove_cordon(&self, worker: WorkerId) -> BoxFuture<'_, StoreResult<()>> {
        async move {
            self.write_through(sqlx::query(statements::REMOVE_CORDON).bind(worker.to_string())).await?;
            Ok(())
        }
        .boxed()
    }

    fn cordons(&self) -> BoxFuture<'_, StoreResult<Vec<CordonRow>>> {
        async move {
            let rows = sqlx::query(statements::CORDONS).fetch_all(&self.readers).await?;
            rows.iter().map(read).collect()
        }
        .boxed()
    }
}

fn read(row: &SqliteRow) -> StoreResult<CordonRow> {
    let worker: String = row.try_get("worker")?;
    let admittance: String = row.try_get("admittance")?;
    Ok(CordonRow {
        admittance: admittance.parse().map_err(|error| malformed(&worker, error))?,
        set_by: Principal::from_stored(row.try_get("set_by")?),
        since_ms: row.try_get("since_ms")?,
        worker: worker.parse().map_err(|error| malformed(&worker, error))?,
    })
}
