//! Spans on their way to the collector: a bounded queue, and one task that empties it.

use std::sync::OnceLock;
use std::time::Duration;

use codegen_types::TraceContext;
use opentelemetry::trace::SpanKind;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _, SpanData, SpanExporter as _,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::supervisor::{OnEnd, Supervisor};
use crate::telemetry::metrics::spans_ended;

/// Spans that wait for the collector. When it is full, those that come are dropped and counted: no call waits for it.
const QUEUE_SPANS: usize = 4_096;
/// Spans in one message.
const BATCH_SPANS: usize = 512;
/// How long spans wait for others to go with.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for one message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is left may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is said at most that the collector cannot be reached.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Started once for the whole process, where spans are made all over.
static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceOptions {
    /// The collector, by OTLP over gRPC: `http://host:4317`, or `https://`.
    pub endpoint: String,
    /// The share of traces that is recorded, from 0 to 1, of those that no caller has decided on.
    pub ratio: f64,
}

/// The collector's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported to {endpoint}")]
pub struct BadEndpoint {
    endpoint: String,
    source: ExporterBuildError,
}

/// The export, until it is stopped.
#[derive(Debug)]
pub struct Exporting {
    supervisor: Supervisor,
}

impl Exporting {
    /// Sends what is left, under a deadline, and ends.
    pub async fn stop(self) {
        self.supervisor.cancel();
        if !self.supervisor.drain(FLUSH_TIMEOUT + Duration::from_millis(500)).await {
            tracing::debug!("the collector took no more spans in time");
        }
    }
}

/// Whose span it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Coordinator,
    Worker,
}

/// Where spans are offered.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<(Service, SpanData)>,
    ids: RandomIdGenerator,
    sampler: Sampler,
}

/// The exporter of this process, if traces are wanted.
pub(super) fn exporter() -> Option<&'static Exporter> {
    EXPORTER.get()
}

/// Makes spans from now on, and exports them. Only the first call in a process does.
///
/// # Errors
/// The address cannot be used. That nobody answers there is no error.
pub fn start(options: &TraceOptions) -> Result<Exporting, BadEndpoint> {
    let bad = |source| BadEndpoint { endpoint: options.endpoint.clone(), source };
    let collector = Collector {
        coordinator: client(&options.endpoint, "codegen-coordinator").map_err(bad)?,
        worker: client(&options.endpoint, "codegen-worker").map_err(bad)?,
        warned: None,
    };
    let (queue, spans) = mpsc::channel(QUEUE_SPANS);
    let sampler = Sampler::TraceIdRatioBased(options.ratio);
    let supervisor = Supervisor::default();
    if EXPORTER.set(Exporter { queue, ids: RandomIdGenerator::default(), sampler }).is_ok() {
        supervisor.spawn("traces", OnEnd::Ignore, run(spans, collector, supervisor.token()));
    }
    Ok(Exporting { supervisor })
}

impl Exporter {
    pub(super) fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.ids.new_span_id().to_bytes())
    }

    /// A trace that begins here.
    pub(super) fn new_trace(&self) -> TraceContext {
        let trace = self.ids.new_trace_id();
        let sampled = self.sampler.should_sample(None, trace, "", &SpanKind::Server, &[], &[]);
        let sampled = sampled.decision == SamplingDecision::RecordAndSample;
        TraceContext::new(u128::from_be_bytes(trace.to_bytes()), self.span_id(), sampled)
    }

    /// Takes a span that has ended, unless there is no room.
    pub(super) fn offer(&self, service: Service, span: SpanData) {
        if self.queue.try_send((service, span)).is_err() {
            spans_ended("dropped", 1);
        }
    }
}

fn client(endpoint: &str, name: &'static str) -> Result<OtlpExporter, ExporterBuildError> {
    let client = OtlpExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    let mut client = client.build()?;
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    client.set_resource(&Resource::builder().with_service_name(name).with_attribute(version).build());
    Ok(client)
}

async fn run(mut spans: mpsc::Receiver<(Service, SpanData)>, mut collector: Collector, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH_SPANS);
    while stop.run_until_cancelled(fill(&mut spans, &mut batch)).await.is_some() {
        let all = std::mem::take(&mut batch);
        // What is being sent when the end comes gets the time of the end.
        let sending = collector.export(all);
        tokio::pin!(sending);
        if stop.run_until_cancelled(&mut sending).await.is_none() {
            let _late = tokio::time::timeout(FLUSH_TIMEOUT, sending).await;
        }
    }
    let rest = async {
        loop {
            while batch.len() < BATCH_SPANS
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            collector.export(std::mem::take(&mut batch)).await;
        }
    };
    let _late = tokio::time::timeout(FLUSH_TIMEOUT, rest).await;
}

/// Fills a batch, or takes what came in a while.
async fn fill(spans: &mut mpsc::Receiver<(Service, SpanData)>, batch: &mut Vec<(Service, SpanData)>) {
    if spans.recv_many(batch, BATCH_SPANS).await == 0 {
        // The exporter lives as long as the process.
        std::future::pending::<()>().await;
    }
    let due = Instant::now() + BATCH_DELAY;
    while batch.len() < BATCH_SPANS {
        let room = BATCH_SPANS - batch.len();
        if tokio::time::timeout_at(due, spans.recv_many(batch, room)).await.is_err() {
            return;
        }
    }
}

/// The collector, as each of our services sees it.
struct Collector {
    coordinator: OtlpExporter,
    worker: OtlpExporter,
    /// When it was last said that it cannot be reached.
    warned: Option<Instant>,
}

impl Collector {
    async fn export(&mut self, batch: Vec<(Service, SpanData)>) {
        let (own, workers): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(service, _)| *service == Service::Coordinator);
        for (client, spans) in [(&self.coordinator, own), (&self.worker, workers)] {
            let count = spans.len() as u64;
            if count == 0 {
                continue;
            }
            let spans = spans.into_iter().map(|(_, span)| span).collect();
            let why = match tokio::time::timeout(EXPORT_TIMEOUT, client.export(spans)).await {
                Ok(Ok(())) => {
                    spans_ended("exported", count);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            spans_ended("failed", count);
            if self.warned.is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL) {
                self.warned = Some(Instant::now());
                tracing::warn!(why, "spans of traces did not reach the collector; calls go on without");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::span::{Step, asked, data, step};
    use super::*;

    fn exporter(ratio: f64, room: usize) -> (Exporter, mpsc::Receiver<(Service, SpanData)>) {
        let (queue, spans) = mpsc::channel(room);
        (Exporter { queue, ids: RandomIdGenerator::default(), sampler: Sampler::TraceIdRatioBased(ratio) }, spans)
    }

    #[test]
    fn a_full_queue_drops_spans_and_waits_for_nobody() {
        let (exporter, mut spans) = exporter(1.0, 2);
        let context = exporter.new_trace();
        for _ in 0..100 {
            let span = data(&context, None, "a span".into(), SpanKind::Internal, SystemTime::now());
            exporter.offer(Service::Coordinator, span);
        }
        assert_eq!(std::iter::from_fn(|| spans.try_recv().ok()).count(), 2);
    }

    #[test]
    fn the_share_of_new_traces_is_the_one_asked_for() {
        let sampled = |ratio| {
            let (exporter, _spans) = exporter(ratio, 1);
            (0..2_000).filter(|_| exporter.new_trace().sampled).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 2_000));
        assert!((300..700).contains(&sampled(0.25)));
    }

    /// No test of this process starts an exporter.
    #[test]
    fn where_traces_are_off_a_call_pays_next_to_nothing() {
        let begun = std::time::Instant::now();
        const CALLS: u32 = 100_000;
        for _ in 0..CALLS {
            let span = asked(None, "tools/call", Some("echo"));
            for part in [Step::SessionQueue, Step::AuditAttempt, Step::Dispatch, Step::Execute, Step::AuditOutcome] {
                assert!(step(span.context(), part).context().is_none());
            }
        }
        let each = begun.elapsed() / CALLS;
        assert!(each < Duration::from_micros(10), "{each:?}");
    }
}
