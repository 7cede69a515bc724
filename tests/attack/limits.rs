//! Exhaustion: one session takes all it can of each thing that is limited. It is told so, another session works on
//! meanwhile, the server stays, and the session itself can be used again.

use serde_json::json;

use crate::ground::{Ground, levels};
use crate::table::{Outcome, Table};

const LIMITS: &str = "[limits]\nmemory_bytes = 268435456\noutput_bytes = 1048576\nworkspace_bytes = 33554432\n\
                      workspace_files = 2000\nfile_bytes = 16777216\nscratch_bytes = 8388608\nopen_files = 256\n";

/// So many programs at most make room again.
const CLEANUPS_MAX: usize = 10;

/// Takes all of one thing.
struct Exhaustion {
    of: &'static str,
    code: &'static str,
    seconds: f64,
    /// What the client is told: one of these.
    told: &'static [&'static str],
    /// What makes room again, when the next calls have shown that they need none.
    cleanup: &'static str,
}

/// Where sessions share a user id, they share how many processes it may have.
fn is_shared(exhaustion: &Exhaustion, level: &str) -> bool {
    level == "reduced" && exhaustion.of.starts_with("processes")
}

const EXHAUSTIONS: &[Exhaustion] = &[
    Exhaustion {
        of: "memory, in one process",
        code: "blocks = []\nwhile True: blocks.append(bytearray(b'x') * (16 << 20))",
        seconds: 30.0,
        told: &["MEMORY_LIMIT", "MemoryError"],
        cleanup: "",
    },
    Exhaustion {
        of: "memory, in many processes",
        code: "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        eaten = bytearray(b'x') * (40 << 20)\n        \
               time.sleep(60)\n        os._exit(0)\nend = os.wait()[1]\nraise SystemExit(1 if end else 0)",
        seconds: 30.0,
        told: &["MEMORY_LIMIT"],
        cleanup: "",
    },
    Exhaustion {
        of: "processes, by a fork bomb",
        code: "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        seconds: 2.0,
        told: &["TASK_TIMEOUT", "PROCESS_LIMIT"],
        cleanup: "",
    },
    Exhaustion {
        of: "processes, by threads",
        code: "import threading\nwhile True: threading.Thread(target=threading.Event().wait, daemon=True).start()",
        seconds: 30.0,
        told: &["PROCESS_LIMIT", "can't start new thread"],
        cleanup: "",
    },
    Exhaustion {
        of: "processors",
        code: "import os, signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nfor _ in range(5): os.fork()\nwhile True: pass",
        seconds: 3.0,
        told: &["TASK_TIMEOUT"],
        cleanup: "",
    },
    Exhaustion {
        of: "wall time, asleep and deaf",
        code: "import signal, time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(60)",
        seconds: 0.5,
        told: &["TASK_TIMEOUT"],
        cleanup: "",
    },
    Exhaustion {
        of: "descriptors",
        code: "import os\nwhile True: os.pipe()",
        seconds: 30.0,
        told: &["Too many open files"],
        cleanup: "",
    },
    Exhaustion {
        of: "output",
        code: "while True: print('x' * 4095)",
        seconds: 30.0,
        told: &["OUTPUT_LIMIT"],
        cleanup: "",
    },
    Exhaustion {
        of: "output, of both streams, a byte at a time",
        code: "import os\nwhile True: os.write(1, b'x'); os.write(2, b'y')",
        seconds: 30.0,
        told: &["OUTPUT_LIMIT"],
        cleanup: "",
    },
    Exhaustion {
        of: "bytes of the workspace",
        code: "n = 0\nwhile True:\n    with open(f'big{n}', 'wb') as f: f.write(bytes(1 << 20))\n    n += 1",
        seconds: 30.0,
        told: &["DISK_LIMIT"],
        cleanup: "import glob, os\nfor name in glob.glob('big*'): os.unlink(name)",
    },
    Exhaustion {
        of: "bytes of one file",
        code: "with open('one', 'wb') as f:\n    while True: f.write(bytes(1 << 20))",
        seconds: 30.0,
        told: &["DISK_LIMIT", "File too large"],
        cleanup: "import os\nos.unlink('one')",
    },
    Exhaustion {
        of: "files of the workspace",
        code: "n = 0\nwhile True: open(f'small{n}', 'w').close(); n += 1",
        seconds: 30.0,
        told: &["DISK_LIMIT"],
        cleanup: "FS_DELETE",
    },
    Exhaustion {
        of: "depth of the workspace",
        code: "import os, time\nos.mkdir('deep'); os.chdir('deep')\nwhile True:\n    try: os.mkdir('d'); os.chdir('d')\n    \
               except OSError: time.sleep(0.1)",
        seconds: 30.0,
        told: &["DISK_LIMIT"],
        cleanup: "FS_DELETE",
    },
    Exhaustion {
        of: "bytes of /tmp",
        code: "import os\nwith open(os.environ.get('TMPDIR', '/tmp') + '/big', 'wb') as f:\n    while True: f.write(bytes(1 << 16)); f.flush()",
        seconds: 30.0,
        told: &["No space left on device", "DISK_LIMIT", "File too large"],
        cleanup: "import os\nos.unlink(os.environ.get('TMPDIR', '/tmp') + '/big')",
    },
    Exhaustion {
        of: "files of /tmp",
        code: "import os\nn, top = 0, os.environ.get('TMPDIR', '/tmp')\nwhile True: open(f'{top}/small{n}', 'w').close(); n += 1",
        seconds: 30.0,
        told: &["No space left on device", "DISK_LIMIT", "File too large"],
        cleanup: "import glob, os\nfor name in glob.glob(os.environ.get('TMPDIR', '/tmp') + '/small*'): os.unlink(name)",
    },
];

#[test]
fn a_session_that_takes_all_it_can_is_told_so_and_harms_no_other() {
    let (columns, mut table) = (levels(), Table::of("exhaustion"));
    for column in &columns {
        // Where all sessions have the user id of the worker, its processes count, too, and so do others of that user.
        let processes = if column.level == "reduced" { 400 } else { 40 };
        let mut ground = Ground::prepare_with(*column, &format!("{LIMITS}processes = {processes}\n"));
        ground.facts(&json!([]));
        for exhaustion in EXHAUSTIONS {
            let outcome = match exhaust(&mut ground, exhaustion) {
                Ok(told) => Outcome::Stopped(told),
                Err(why) if is_shared(exhaustion, column.level) => Outcome::NotPromised(why),
                Err(why) => Outcome::Failed(why),
            };
            table.add(exhaustion.of, *column, outcome);
        }
        ground.expect_unharmed("exhaustion");
    }
    table.judge(&columns);
}

/// What the client was told; or what went wrong.
fn exhaust(ground: &mut Ground, exhaustion: &Exhaustion) -> Result<String, String> {
    let Exhaustion { code, seconds, told, cleanup, .. } = exhaustion;
    let attacker = ground.attacker.clone();
    let call = json!({"session_id": attacker, "code": code, "timeout_seconds": seconds});
    let attack = ground.client.start_tool("run_python", call);
    for round in 0..3 {
        neighbour_works(ground).map_err(|why| format!("the neighbour, meanwhile, call {round}: {why}"))?;
    }
    let answer = ground.client.tool_answer(attack);
    let said = told.iter().find(|told| answer.is_error && answer.text.contains(**told));
    let said =
        said.ok_or_else(|| format!("the client was not told: {}", answer.text.chars().take(300).collect::<String>()))?;
    // Before there is room again: whoever fills something up can still work, and so can clean up.
    let again = ground.client.tool("run_python", json!({"session_id": attacker, "code": "print(6 * 7)"}));
    if !again.text.contains("42") {
        return Err(format!("the session cannot be used again: {}", again.text));
    }
    let shell = ground.client.tool("run_shell", json!({"session_id": attacker, "command": "echo $((6 * 7))"}));
    if !shell.text.contains("42") {
        return Err(format!("a shell cannot be used again: {}", shell.text));
    }
    let cleaned = match *cleanup {
        "" => None,
        "FS_DELETE" => Some(delete_all(ground)?),
        code => {
            let mut clean = || ground.client.tool("run_python", json!({"session_id": attacker, "code": code}));
            let mut cleaned = clean();
            // Whoever is looked at before there is room is ended, and the next one goes on where it was.
            for _ in 1..CLEANUPS_MAX {
                if !cleaned.is_error {
                    break;
                }
                cleaned = clean();
            }
            Some(cleaned)
        }
    };
    if let Some(cleaned) = cleaned.filter(|cleaned| cleaned.is_error) {
        return Err(format!("what it filled cannot be emptied: {}", cleaned.text));
    }
    let write = json!({"session_id": attacker, "path": "after", "contents": "x"});
    let written = ground.client.tool("fs_write", write);
    if written.is_error {
        return Err(format!("nothing can be written afterwards: {}", written.text));
    }
    neighbour_works(ground).map_err(|why| format!("the neighbour, afterwards: {why}"))?;
    Ok((*said).to_owned())
}

fn neighbour_works(ground: &mut Ground) -> Result<(), String> {
    let call = json!({"session_id": ground.victim, "code": "print(sum(range(200_000)))"});
    let ran = ground.client.tool("run_python", call);
    if ran.is_error || !ran.text.contains("19999900000") {
        return Err(ran.text);
    }
    let write = json!({"session_id": ground.victim, "path": "kept", "contents": "kept"});
    let written = ground.client.tool("fs_write", write);
    let read = ground.client.tool("fs_read", json!({"session_id": ground.victim, "path": "kept"}));
    if written.is_error || !read.text.contains("kept") { Err(written.text + &read.text) } else { Ok(()) }
}

/// Deletes all that the session made, by the file tools.
fn delete_all(ground: &mut Ground) -> Result<e2e::Answer, String> {
    let deep = json!({"session_id": ground.attacker, "path": "deep", "recursive": true});
    let deep = ground.client.tool("fs_delete", deep);
    if !deep.is_error {
        return Ok(deep);
    }
    // Of many, so many that the rest is no more than there may be.
    let code = "import os\nfor name in os.listdir('.'):\n    if name.startswith('small'): os.unlink(name)";
    let call = json!({"session_id": ground.attacker, "code": code});
    Ok(ground.client.tool("run_python", call))
}
