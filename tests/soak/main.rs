//! The soak, shortened: what works on the server for twenty seconds over every transport leaves nothing behind.
//! `make soak` runs the same for ten minutes and looks at memory more closely.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Installation;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("soak/soak.py")
}

#[test]
fn nothing_grows_under_mixed_load_over_every_transport() {
    let installation = Installation::new();
    let mut soak = Command::new("python3");
    soak.arg(script()).arg(installation.binary()).arg("20").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = soak.output().expect("python3 starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn what_grows_is_called_growth() {
    let code = "import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/../bench']; import watch\n\
                key = ('server', 'descriptors')\n\
                held = lambda numbers: watch.growth([{key: number} for number in numbers])[0][-1]\n\
                assert held([100] * 30) and held([100, 90] * 15) and not held(range(100, 190, 3))";
    let directory = script().with_file_name("");
    let mut python = Command::new("python3");
    python.args(["-c", code]).arg(directory).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
