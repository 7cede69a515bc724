//! The manifests in `k8s`: held to the schemas that Kubernetes publishes, to each other and to the binaries, by
//! `tests/manifests/test_manifests.py`.

use e2e::{Installation, all_passes, suite};

#[test]
fn the_manifests_are_valid_and_agree_with_each_other_and_with_the_binaries() {
    let installation = Installation::new();
    let mut suite = suite(&installation, "manifests/test_manifests.py");
    all_passes(suite.env("CODEGEN_STATE_DIR", installation.state_dir()));
}
