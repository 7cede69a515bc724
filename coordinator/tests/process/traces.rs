//! Traces of calls, as a real collector gets them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::collector::{Collector, Taken};
use crate::front::{Front, Place};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SECRET: &str = "hunter2-open-sesame";

fn started(place: &Place, endpoint: &str) -> Front {
    let mut front = place.front(&["--standalone", "--otlp-endpoint", endpoint]);
    front.greet();
    front
}

fn call(front: &mut Front, tool: &str, arguments: &Value, traceparent: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments, "_meta": {"traceparent": traceparent}});
    front.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    loop {
        let message = front.receive();
        if message["id"] == 1 {
            return message;
        }
    }
}

fn run_python(front: &mut Front, traceparent: &Value) -> Value {
    let code = format!("import sys; print('{SECRET}'); open('{SECRET}.txt', 'w'); sys.exit(len('{SECRET}') - 19)");
    call(front, "run_python", &json!({"code": code, "env": {"KEY": SECRET}}), traceparent)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each span's name with its service and its parent's name.
fn tree(spans: &[Taken]) -> BTreeMap<String, (String, String)> {
    let name_of = |taken: &Taken| format!("{} of {}", taken.span.name, taken.service);
    let by_id: BTreeMap<&[u8], &Taken> = spans.iter().map(|taken| (&*taken.span.span_id, taken)).collect();
    let parent = |taken: &Taken| {
        by_id.get(&*taken.span.parent_span_id).map_or_else(|| hex(&taken.span.parent_span_id), |parent| name_of(parent))
    };
    spans.iter().map(|taken| (name_of(taken), (hex(&taken.span.trace_id), parent(taken)))).collect()
}

#[test]
fn a_call_is_one_trace_from_the_client_to_the_worker() {
    let (place, collector) = (Place::new(), Collector::start());
    let mut front = started(&place, &collector.endpoint);
    let answer = run_python(&mut front, &json!(format!("00-{TRACE}-{CALLER}-01")));
    assert!(answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains(SECRET)), "{answer}");
    assert!(front.close().success());
    let spans = collector.finish();
    let tree = tree(&spans);
    let (call, dispatch) = ("tools/call run_python of codegen-coordinator", "dispatch of codegen-coordinator");
    let (client, server) =
        ("codegen.v1.Worker/ExecuteTask of codegen-coordinator", "codegen.v1.Worker/ExecuteTask of codegen-worker");
    let expected = [
        (call, CALLER),
        ("session queue of codegen-coordinator", call),
        ("audit attempt of codegen-coordinator", call),
        (dispatch, call),
        (client, dispatch),
        (server, client),
        ("execute of codegen-worker", server),
        ("audit outcome of codegen-coordinator", call),
    ];
    let expected = expected.map(|(name, parent)| (name.to_owned(), (TRACE.to_owned(), parent.to_owned())));
    assert_eq!(tree, BTreeMap::from(expected));
    let of = |name: &str, service: &str| {
        spans.iter().find(|taken| taken.span.name == name && taken.service.ends_with(service)).unwrap()
    };
    let (client, server) =
        (of("codegen.v1.Worker/ExecuteTask", "coordinator"), of("codegen.v1.Worker/ExecuteTask", "worker"));
    let within = |inner: &Taken, outer: &Taken| {
        outer.span.start_time_unix_nano <= inner.span.start_time_unix_nano
            && inner.span.end_time_unix_nano <= outer.span.end_time_unix_nano
    };
    assert!(within(server, client) && within(of("execute", "worker"), server));
    let call = of("tools/call run_python", "coordinator");
    assert_eq!(call.said("mcp.method.name").as_deref(), Some("tools/call"));
    assert_eq!(call.said("gen_ai.tool.name").as_deref(), Some("run_python"));
    let task = of("dispatch", "coordinator").said("codegen.task.id").unwrap();
    assert!(task.starts_with("tsk_"), "{task}");
    // The audit log and the trace name each other.
    let log = place.command(&["audit", "query", "--json"]).output().unwrap().stdout;
    let parent = format!("00-{TRACE}-{}-01", hex(&call.span.span_id));
    assert!(String::from_utf8(log).unwrap().contains(&parent), "{parent}");
    // Neither arguments nor output nor paths are in it.
    let all = format!("{spans:?}");
    assert!(!all.contains(SECRET) && !all.contains(place.path().to_str().unwrap()), "{all}");
}

#[test]
fn a_hostile_context_begins_a_trace_of_our_own_and_an_unsampled_one_none() {
    let (place, collector) = (Place::new(), Collector::start());
    let mut front = started(&place, &collector.endpoint);
    let echo = json!({"message": "hello"});
    let hostile = [
        json!(format!("00-{TRACE}-{CALLER}-01\r\nx: y")),
        json!(format!("00-{}-{CALLER}-01", TRACE.to_uppercase())),
        json!(format!("ff-{TRACE}-{CALLER}-01")),
        json!("x".repeat(100_000)),
        json!({"traceparent": 1}),
    ];
    for traceparent in &hostile {
        call(&mut front, "echo", &echo, traceparent);
    }
    call(&mut front, "echo", &echo, &json!(format!("00-{TRACE}-{CALLER}-00")));
    assert!(front.close().success());
    let spans = collector.finish();
    let calls: Vec<&Taken> = spans.iter().filter(|taken| taken.span.name == "tools/call echo").collect();
    assert_eq!(calls.len(), hostile.len());
    assert!(calls.iter().all(|taken| taken.span.parent_span_id.is_empty() && hex(&taken.span.trace_id) != TRACE));
}

#[test]
fn a_collector_that_is_not_there_delays_neither_calls_nor_the_end() {
    let place = Place::new();
    // Whoever binds and never accepts: connections hang instead of being refused.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut front = started(&place, &format!("http://{}", silent.local_addr().unwrap()));
    for _ in 0..20 {
        let begun = Instant::now();
        call(&mut front, "echo", &json!({"message": "hello"}), &Value::Null);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let begun = Instant::now();
    assert!(front.close().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
