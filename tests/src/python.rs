//! The Python environment that `make test` prepares, and the suites of independent programs that run in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Installation;

/// Its interpreter, which has what `tests/requirements.txt` names.
pub fn python() -> PathBuf {
    env::var_os("CODEGEN_TEST_PYTHON").expect("CODEGEN_TEST_PYTHON names a prepared Python; `make test` sets it").into()
}

/// A suite of pytest, by its path below `tests`, that finds the product at `COORDINATOR`.
pub fn suite(installation: &Installation, path: &str) -> Command {
    let mut suite = Command::new(python());
    suite
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .env("COORDINATOR", installation.binary())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    suite
}

/// Runs a suite, and wants all of it to pass and nothing of it to be left out.
pub fn all_passes(suite: &mut Command) {
    let output = suite.output().expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" passed") && !said.contains("skipped"), "{said}");
}
