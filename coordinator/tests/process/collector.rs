//! A collector of traces: the service of OTLP itself, on a port of its own.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

type Requests = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A running collector.
pub struct Collector {
    runtime: tokio::runtime::Runtime,
    requests: Requests,
    pub endpoint: String,
}

/// A span that it took, and of which service it is.
#[derive(Debug, Clone)]
pub struct Taken {
    pub service: String,
    pub span: Span,
}

struct Service(Requests);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let requests = Requests::default();
        let service = TraceServiceServer::new(Service(Arc::clone(&requests)));
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        drop(_inside);
        Self { runtime, requests, endpoint }
    }

    /// Every span that came, and the end of the collector.
    pub fn finish(self) -> Vec<Taken> {
        self.runtime.shutdown_background();
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        let all = resources.flat_map(|resource| {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = text(service.value.clone().and_then(|value| value.value));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(move |span| Taken { service: service.clone(), span }).collect::<Vec<_>>()
        });
        all.collect()
    }
}

impl Taken {
    /// What is said of it under that name.
    pub fn said(&self, key: &str) -> Option<String> {
        let attribute = self.span.attributes.iter().find(|attribute| attribute.key == key)?;
        Some(text(attribute.value.clone().and_then(|value| value.value)))
    }
}

fn text(value: Option<Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}
