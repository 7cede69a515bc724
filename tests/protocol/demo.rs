//! The demo is the first thing that a newcomer runs, so it is run here, too.

use std::path::Path;
use std::process::Command;

use e2e::Installation;

#[test]
fn the_demo_finds_everything_as_promised() {
    let installation = Installation::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo.py");
    let output = Command::new("python3")
        .arg(demo)
        .arg(installation.binary())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("All as promised"), "{said}");
}
