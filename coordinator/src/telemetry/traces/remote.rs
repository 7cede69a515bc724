//! The spans of a worker, made on its behalf from the times that it tells.

use std::time::{Duration, SystemTime};

use codegen_types::event::TaskTimes;
use codegen_types::{TraceContext, WorkerId};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::export::{Service, exporter};
use super::span::{EXECUTE_TASK, Place, Span, call_attributes, data};

/// Where the worker's times lie within a call that began at `begun` and took `took`. Clocks of two machines differ, so
/// only durations are believed, and no more of them than the call had: what is left over is taken for the way there and
/// back, half of it each.
fn within(begun: SystemTime, took: Duration, times: TaskTimes) -> [SystemTime; 3] {
    let ran = times.ran.min(took);
    let waited = times.waited.min(took - ran);
    let arrived = begun + (took - ran - waited) / 2;
    [arrived, arrived + waited, arrived + waited + ran]
}

/// Says of a call that is about to end what the worker did in it.
pub(crate) fn on_behalf(call: &Span, worker: &WorkerId, times: TaskTimes) {
    let (Some(exporter), Some(context), Some((begun, took))) = (exporter(), call.context(), call.so_far()) else {
        return;
    };
    let [arrived, started, ended] = within(begun, took, times);
    let served = context.with_span(exporter.span_id());
    let ran = context.with_span(exporter.span_id());
    let offer = |context: &TraceContext, parent: (u64, Place), name: &'static str, kind, from, attributes: Vec<_>| {
        let mut span = data(context, Some(parent), name.into(), kind, from);
        (span.end_time, span.attributes) = (ended, attributes);
        span.attributes.push(KeyValue::new("codegen.worker.id", worker.to_string()));
        exporter.offer(Service::Worker, span);
    };
    let attributes = call_attributes().to_vec();
    offer(&served, (context.span, Place::Remote), EXECUTE_TASK, SpanKind::Server, arrived, attributes);
    offer(&ran, (served.span, Place::Here), "execute", SpanKind::Internal, started, Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_worker_says_lies_within_the_call() {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let took = Duration::from_millis(10);
        let ms = |ms| Duration::from_millis(ms);
        let honest = within(begun, took, TaskTimes { waited: ms(2), ran: ms(4) });
        assert_eq!(honest, [begun + ms(2), begun + ms(4), begun + ms(8)]);
        for (waited, ran) in [(Duration::MAX, Duration::MAX), (Duration::MAX, ms(1)), (ms(0), Duration::MAX)] {
            let [arrived, started, ended] = within(begun, took, TaskTimes { waited, ran });
            assert!(begun <= arrived && arrived <= started && started <= ended && ended <= begun + took);
        }
    }
}
