//! Runs the suite of an independent MCP client (PyPI `mcp`) in `tests/protocol/test_flows.py`.

use e2e::{Installation, all_passes, suite};

#[test]
fn the_flows_work_through_an_independent_client() {
    all_passes(&mut suite(&Installation::new(), "protocol/test_flows.py"));
}
