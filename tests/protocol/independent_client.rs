//! Runs the suite of an independent MCP client (PyPI `mcp`) in `tests/protocol/test_flows.py`.

use std::path::Path;
use std::process::Command;

use e2e::Installation;

/// The Python environment that `make test` prepares.
fn python() -> String {
    std::env::var("CODEGEN_TEST_PYTHON")
        .expect("CODEGEN_TEST_PYTHON names a Python with `mcp` and `pytest`; `make test` sets it")
}

#[test]
fn the_flows_work_through_an_independent_client() {
    let installation = Installation::new();
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/test_flows.py");
    let output = Command::new(python())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(suite)
        .env("COORDINATOR", installation.binary())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" passed") && !said.contains("skipped"), "{said}");
}
