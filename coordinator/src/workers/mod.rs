//! The workers that the coordinator knows: registry, lifecycle service, links.

mod fleet;

pub use fleet::{DispatchEnd, Fleet, Opened, Reservation, TaskDispatch, WorkerEvent};
