//! Traces of calls, for a collector that speaks OTLP.
//!
//! A span is made where something begins and tells the exporter when it is dropped. There is one exporter in a process,
//! or none: then no span is made, and each place where one would be costs a look at a cell.
//!
//! Workers export nothing, having no network and an empty environment. They say with a task's last event how long it
//! waited and ran; the spans of that are made here, on their behalf.
//!
//! *Invariant*: no span has an argument, code, output, a path or a principal; only names from our own tables, ids,
//! codes and times.

mod export;
mod remote;
mod span;

pub use export::{BadEndpoint, Exporting, TraceOptions, start};
pub(crate) use remote::on_behalf;
pub(crate) use span::{Span, Step, asked, step};
