//! The soak, shortened: what works on the server for twenty seconds over every transport leaves nothing behind.
//! `make soak` runs the same for half an hour and looks at memory more closely.

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
fn the_demo_of_a_cluster_takes_no_client_that_ended_early_for_one_that_has_its_answers() {
    let code = "import sys, threading; sys.path.insert(0, sys.argv[1] + '/..'); import cluster_demo as demo\n\
                class Cluster:\n\
                \x20   def place_of(self, session): return 'a', []\n\
                def seen(steps, unknown=0, lost=False):\n\
                \x20   session, calls = demo.Session('t'), []\n\
                \x20   def call(cluster, seen, tool, **arguments):\n\
                \x20       calls.append(tool)\n\
                \x20       if tool == 'session_create': return {'structuredContent': {'session_id': 's'}}, None\n\
                \x20       if len(calls) - 1 <= unknown: return None, 'TASK_OUTCOME_UNKNOWN'\n\
                \x20       if len(calls) - 1 > steps and lost: return None, 'SESSION_LOST'\n\
                \x20       if len(calls) - 1 > steps: raise demo.wire.Refused('SESSION_NOT_FOUND')\n\
                \x20       return {}, None\n\
                \x20   demo.call = call\n\
                \x20   demo.work(Cluster(), session, 0, threading.Barrier(1))\n\
                \x20   Cluster.place_of = lambda self, id: ('a', list(session.done))\n\
                \x20   return demo.judge(Cluster(), 0, session)\n\
                assert not seen(demo.STEPS) and not seen(demo.STEPS, unknown=2) and not seen(2, lost=True)\n\
                wrong = ' '.join(seen(3))\n\
                assert 'SESSION_NOT_FOUND' in wrong and f'3 of {demo.STEPS}' in wrong, wrong\n\
                assert 'SESSION_NOT_FOUND' in ' '.join(seen(0))";
    let directory = script().with_file_name("");
    let mut python = Command::new("python3");
    python.args(["-c", code]).arg(directory).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
