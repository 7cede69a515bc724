//! What operators said about workers, at rest.

use codegen_types::{Principal, WorkerId};
use coordinator_core::worker::Admittance;
use futures::future::BoxFuture;

use super::StoreResult;

/// What an operator said about one worker; a worker that takes sessions has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CordonRow {
    /// Which worker, by name: whichever life of it.
    pub worker: WorkerId,
    /// What new work it gets.
    pub admittance: Admittance,
    /// Who said so.
    pub set_by: Principal,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
}

/// Cordons at rest. What was written is on disk when the answer comes.
pub trait CordonStore: Send + Sync + 'static {
    /// Adds a row, in the place of an earlier one of the same worker.
    fn put_cordon(&self, row: CordonRow) -> BoxFuture<'_, StoreResult<()>>;

    /// Removes the row of a worker, if there is one.
    fn remove_cordon(&self, worker: WorkerId) -> BoxFuture<'_, StoreResult<()>>;

    /// Every row, by name.
    fn cordons(&self) -> BoxFuture<'_, StoreResult<Vec<CordonRow>>>;
}
