//! Which trace a request belongs to, as its client says.

use axum::http::HeaderMap;
use axum::http::request::Parts;
use codegen_types::TraceContext;
use rmcp::service::{RequestContext, RoleServer};

/// The trace context of a request: what its `_meta` says, else what the headers of its HTTP request say. What does not
/// keep to the grammar says nothing.
pub(super) fn of(context: &RequestContext<RoleServer>) -> Option<TraceContext> {
    let said = || TraceContext::parse(context.meta.get_traceparent()?, context.meta.get_tracestate());
    said().or_else(|| of_headers(&context.extensions.get::<Parts>()?.headers))
}

/// Two parents are none; a state may come in parts.
fn of_headers(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent").iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Option<Vec<&str>> = headers.get_all("tracestate").iter().map(|state| state.to_str().ok()).collect();
    TraceContext::parse(parent.to_str().ok()?, states.map(|states| states.join(",")).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_name_one_parent_and_a_state_in_parts() {
        let context = of_headers(&headers(&[("traceparent", PARENT)])).unwrap();
        assert_eq!((context.to_string().as_str(), context.state()), (PARENT, None));
        let mut two = headers(&[("traceparent", PARENT)]);
        two.append("tracestate", "a=1".parse().unwrap());
        two.append("tracestate", "b=2".parse().unwrap());
        assert_eq!(of_headers(&two).unwrap().state(), Some("a=1,b=2"));
        two.append("traceparent", PARENT.parse().unwrap());
        assert_eq!(of_headers(&two), None);
        assert_eq!(of_headers(&headers(&[("traceparent", "00-0-0-0")])), None);
    }
}
