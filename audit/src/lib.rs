//! The append-only log of everything that was done: records, hash chain, writer, checkpoints, reader and verifier.
//!
//! Owner of the directory `audit/` in the state directory. An action's attempt is durable here before it acts, its
//! outcome before its result is returned; if the attempt cannot be written, the action is refused. The format is
//! described, for others to verify it, in this crate's README.
//!
//! *Invariant*: what was acknowledged is never changed, cut or written twice by this crate, and nothing is acknowledged
//! before it is durable. It knows nothing of sessions or workers beyond their ids, and it opens no network connection.

mod checkpoint;
mod disk;
mod entry;
mod escape;
mod handle;
mod hash;
mod keys;
mod layout;
mod lines;
mod log;
mod merkle;
mod open;
mod query;
mod queue;
mod reader;
mod record;
mod redact;
mod repair;
mod scan;
mod sink;
mod times;
mod verify;
mod writer;

pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use codegen_types::terminal::{for_terminal, json_for_terminal};
pub use disk::{SYNC_SECONDS, syncs};
pub use entry::{Entry, EventKind, InvalidEventKind, InvalidOutcome, Outcome};
pub use handle::{Audit, AuditUnavailable, Health, Options, Pending};
pub use hash::{Hash, InvalidHash};
pub use keys::KeyError;
pub use open::{OpenError, Opened, Recovered};
pub use query::{Query, open_approvals, open_attempts};
pub use reader::{ReadError, Records, first_record_of_segment_at, last_segment_start, records};
pub use record::{BadLine, FORMAT_VERSION, RECORD_BYTES_MAX, Record};
pub use redact::looks_secret;
pub use repair::{Repair, repair};
pub use scan::{Fault, Position};
pub use verify::{Verdict, Verification, VerifyOptions, latest_note, verify, verify_with};
