//! One span, from its beginning to its end.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use codegen_types::{ErrorCode, TraceContext};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::export::{Exporter, Service, exporter};

/// The name of who instruments, as collectors show it.
const SCOPE: &str = "codegen-mcp";
/// What a call of a tool that failed is called by the semantic conventions; the code says how.
const TOOL_ERROR: &str = "tool_error";

/// A part of a call's way that takes time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// From admission until the session's owner has it ready.
    SessionQueue,
    /// Until the attempt is on disk.
    AuditAttempt,
    /// From there to the task's end, with waiting for a link and being placed once more.
    Dispatch,
    /// One `ExecuteTask` and what follows from it.
    Execute,
    /// Until the outcome is on disk.
    AuditOutcome,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::SessionQueue => "session queue",
            Self::AuditAttempt => "audit attempt",
            Self::Dispatch => "dispatch",
            Self::Execute => EXECUTE_TASK,
            Self::AuditOutcome => "audit outcome",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Execute => SpanKind::Client,
            Self::SessionQueue | Self::AuditAttempt | Self::Dispatch | Self::AuditOutcome => SpanKind::Internal,
        }
    }
}

/// The remote procedure by which a worker is given a task, on both sides of it.
pub(super) const EXECUTE_TASK: &str = "codegen.v1.Worker/ExecuteTask";

/// Something that takes time. It ends when it is dropped; one that nobody records costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Span {
    context: Option<TraceContext>,
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    data: SpanData,
    service: Service,
    begun: Instant,
    exporter: &'static Exporter,
}

/// A request that a client makes: the first span of ours in its trace, or of a trace of its own.
pub(crate) fn asked(caller: Option<&TraceContext>, method: &'static str, target: Option<&'static str>) -> Span {
    let Some(exporter) = exporter() else { return Span::default() };
    let context = match caller {
        Some(caller) => caller.with_span(exporter.span_id()),
        None => exporter.new_trace(),
    };
    let name = target.map_or(Cow::Borrowed(method), |target| Cow::Owned(format!("{method} {target}")));
    let mut span =
        Span::open(exporter, context, caller.map(|caller| (caller.span, Place::Remote)), name, SpanKind::Server);
    span.set("mcp.method.name", method);
    if let Some(tool) = target {
        span.set("gen_ai.tool.name", tool);
        span.set("gen_ai.operation.name", "execute_tool");
    }
    span
}

/// A part of something that is under way. One that nobody records stands for what it is a part of: a trace goes on behind
/// whoever has nothing to say in it.
pub(crate) fn step(parent: Option<&TraceContext>, step: Step) -> Span {
    let (Some(exporter), Some(parent)) = (exporter(), parent) else {
        return Span { context: parent.cloned(), open: None };
    };
    let context = parent.with_span(exporter.span_id());
    let parent = (parent.span, Place::Here);
    let mut span = Span::open(exporter, context, Some(parent), step.name().into(), step.kind());
    if step == Step::Execute {
        span.set_call();
    }
    span
}

/// Where a span's parent was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    Remote,
}

impl Span {
    fn open(
        exporter: &'static Exporter,
        context: TraceContext,
        parent: Option<(u64, Place)>,
        name: Cow<'static, str>,
        kind: SpanKind,
    ) -> Self {
        let begun = Instant::now();
        let open = context.sampled.then(|| {
            let data = data(&context, parent, name, kind, SystemTime::now());
            Box::new(Open { data, service: Service::Coordinator, begun, exporter })
        });
        Self { context: Some(context), open }
    }

    /// The place of this span, for its children; nothing where there is no trace.
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.context.as_ref()
    }

    /// When it began and how long it has taken, if it is recorded.
    pub(super) fn so_far(&self) -> Option<(SystemTime, Duration)> {
        self.open.as_ref().map(|open| (open.data.start_time, open.begun.elapsed()))
    }

    /// Says something of it.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Names something by its id.
    pub(crate) fn set_id(&mut self, key: &'static str, id: Option<impl std::fmt::Display>) {
        if let (Some(_), Some(id)) = (&self.open, id) {
            self.set(key, id.to_string());
        }
    }

    /// Says that it failed, and how.
    pub(crate) fn fail(&mut self, code: ErrorCode) {
        if let Some(open) = &mut self.open {
            open.data.status = Status::error(code.as_str());
            open.data.attributes.push(KeyValue::new("error.type", code.as_str()));
        }
    }

    /// Says with which code a tool was answered that failed.
    pub(crate) fn fail_tool(&mut self, code: String) {
        if let Some(open) = &mut self.open {
            open.data.attributes.push(KeyValue::new("error.type", TOOL_ERROR));
            open.data.attributes.push(KeyValue::new("codegen.code", code.clone()));
            open.data.status = Status::error(code);
        }
    }

    fn set_call(&mut self) {
        if let Some(open) = &mut self.open {
            open.data.attributes.extend(call_attributes());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let Open { mut data, service, begun, exporter } = *open;
            data.end_time = data.start_time + begun.elapsed();
            exporter.offer(service, data);
        }
    }
}

/// What the semantic conventions say of a remote procedure call.
pub(super) fn call_attributes() -> [KeyValue; 3] {
    [
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", "codegen.v1.Worker"),
        KeyValue::new("rpc.method", "ExecuteTask"),
    ]
}

/// A span with nothing said of it yet, that ends when it begins.
pub(super) fn data(
    context: &TraceContext,
    parent: Option<(u64, Place)>,
    name: Cow<'static, str>,
    kind: SpanKind,
    start_time: SystemTime,
) -> SpanData {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    // It was checked when it came.
    let state = context.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from(context.trace), SpanId::from(context.span));
    let parent_span_id = parent.map_or(SpanId::INVALID, |(id, _)| SpanId::from(id));
    SpanData {
        span_context: SpanContext::new(trace, span, flags, false, state),
        parent_span_id,
        parent_span_is_remote: parent.is_some_and(|(_, place)| place == Place::Remote),
        span_kind: kind,
        name,
        start_time,
        end_time: start_time,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}
