//! The workers that the coordinator knows: registry, lifecycle service, links.
//!
//! `handle` is the way in; `acceptor` tells connections apart (`opening`), `lifecycle` serves workers that register,
//! `link` calls them, `registry` with `slots` is the table of what is known, `reaper` strikes the silent ones off. Tasks
//! are driven by [`crate::dispatch`].

mod acceptor;
mod awaited;
mod clock;
mod dialling;
mod fleet;
mod gate;
mod handle;
mod joining;
mod lifecycle;
mod link;
mod opening;
mod options;
mod pace;
mod reaper;
mod registry;
mod said;
mod secrets;
mod sessions;
mod slots;
mod snapshot;
mod socket;
mod standing;

pub use clock::Clock;
pub use dialling::Dialler;
pub use fleet::{Closed, DispatchEnd, Fleet, Opened, Reservation, TaskAttach, TaskDispatch, WorkerEvent};
pub use handle::{EMBEDDED_WORKER, Workers};
pub use options::{Growth, WorkersOptions};
pub use snapshot::WorkerSnapshot;
pub use socket::{Incoming, Listener, Stream};

pub(crate) use handle::{Inner, LinkWait};
pub(crate) use joining::BOUND_PREFIX;
pub(crate) use link::{Link, TaskRequests};
