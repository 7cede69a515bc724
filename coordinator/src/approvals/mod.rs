//! Calls that wait until somebody approves of them.
//!
//! A call that a rule wants approved becomes a request, which is decided once: by the operator, by the caller's own user
//! where the rule lets them, or by silence, which denies. What was approved is good for one call of the same principal,
//! tool and arguments. Requests live in memory alone: the end of the server denies what is pending, and the record of every
//! request and decision is in the log. Whoever makes such a call again is told so by the server that comes after.
//!
//! *Invariant*: no transport and no protocol is named here; a request is shown to nobody before its record is durable, and
//! lets nothing through before the record of its decision is.

mod asking;
mod orphans;
mod service;
mod shown;
mod table;
mod waiting;

pub use asking::{AskUser, Asking, CannotAsk, Given, Question, Round, Said};
pub(crate) use orphans::BY_END;
pub use service::{Approvals, Decider, Way};
pub(crate) use shown::asked_under;
pub use shown::{ApprovalState, ApprovalView, ApprovalWhole, Rest, digest};
pub(crate) use table::no_such_request;
pub use table::{PENDING_MAX, PENDING_PER_PRINCIPAL_MAX};
pub use waiting::Need;
