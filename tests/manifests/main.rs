//! The manifests in `k8s`: held to the schemas that Kubernetes publishes, to each other and to the binaries, by
//! `tests/manifests/test_manifests.py`.

use std::path::Path;
use std::process::Command;

use e2e::Installation;

/// The Python environment that `make test` prepares.
fn python() -> String {
    std::env::var("CODEGEN_TEST_PYTHON")
        .expect("CODEGEN_TEST_PYTHON names a Python with `kubernetes-validate` and `pytest`; `make test` sets it")
}

#[test]
fn the_manifests_are_valid_and_agree_with_each_other_and_with_the_binaries() {
    let installation = Installation::new();
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/test_manifests.py");
    let output = Command::new(python())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(suite)
        .env("COORDINATOR", installation.binary())
        .env("CODEGEN_STATE_DIR", installation.state_dir())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" passed") && !said.contains("skipped"), "{said}");
}
