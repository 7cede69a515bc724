//! Exhaustion: code that takes all it can of one thing that is limited, and what must still be so meanwhile and afterwards.

use serde_json::json;

use crate::client::{Answer, Client};

const LIMITS: &str = "[limits]\nmemory_bytes = 268435456\noutput_bytes = 1048576\nworkspace_bytes = 33554432\n\
                      workspace_files = 2000\nfile_bytes = 16777216\nscratch_bytes = 8388608\nopen_files = 256\n";

/// So many programs at most make room again.
const CLEANUPS_MAX: usize = 10;

/// The configuration under which each of [`EXHAUSTIONS`] is quick, for sessions of that level.
pub fn limits_at(level: &str) -> String {
    // Where all sessions have the user id of the worker, its processes count, too, and so do others of that user.
    let processes = if level == "reduced" { 400 } else { 40 };
    format!("{LIMITS}processes = {processes}\n")
}

/// Takes all of one thing.
#[derive(Debug, Clone, Copy)]
pub struct Exhaustion {
    /// Of what.
    pub of: &'static str,
    code: &'static str,
    seconds: f64,
    /// What the client is told: one of these.
    told: &'static [&'static str],
    /// What makes room again, when the next calls have shown that they need none.
    cleanup: &'static str,
}

/// The session that takes, and one that is to notice nothing.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// Which takes.
    pub attacker: &'a str,
    /// Which works.
    pub neighbour: &'a str,
}

/// Each thing that is limited, and how all of it is taken.
pub const EXHAUSTIONS: &[Exhaustion] = &[
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
        // Whoever is ended for it begins with no temporary files.
        cleanup: "import glob, os\nfor name in glob.glob(os.environ.get('TMPDIR', '/tmp') + '/big'): os.unlink(name)",
    },
    Exhaustion {
        of: "files of /tmp",
        code: "import os\nn, top = 0, os.environ.get('TMPDIR', '/tmp')\nwhile True: open(f'{top}/small{n}', 'w').close(); n += 1",
        seconds: 30.0,
        told: &["No space left on device", "DISK_LIMIT", "File too large"],
        cleanup: "import glob, os\nfor name in glob.glob(os.environ.get('TMPDIR', '/tmp') + '/small*'): os.unlink(name)",
    },
];

impl Exhaustion {
    /// The one of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(name: &str) -> &'static Self {
        EXHAUSTIONS.iter().find(|one| one.of == name).unwrap_or_else(|| panic!("no exhaustion of {name}"))
    }

    /// Whether other sessions have less of it then: those that share a user id share how many processes it may have.
    pub fn is_shared_at(&self, level: &str) -> bool {
        level == "reduced" && self.of.starts_with("processes")
    }

    /// Lets one session take all it can while the other works. Gives what the client was told.
    ///
    /// # Errors
    /// What went wrong: the client was not told, the neighbour could not work, or the session cannot be used again.
    pub fn befall(&self, client: &mut Client, sides: Sides<'_>) -> Result<String, String> {
        let Sides { attacker, neighbour } = sides;
        let call = json!({"session_id": attacker, "code": self.code, "timeout_seconds": self.seconds});
        let attack = client.start_tool("run_python", call);
        let meanwhile = (0..3).try_for_each(|round| {
            works(client, neighbour).map_err(|why| format!("the neighbour, meanwhile, call {round}: {why}"))
        });
        // Whatever it did, it is over before anything else is tried.
        let answer = client.tool_answer(attack);
        meanwhile?;
        let said = self.told.iter().find(|told| answer.is_error && answer.text.contains(**told));
        let said = said
            .ok_or_else(|| format!("the client was not told: {}", answer.text.chars().take(300).collect::<String>()))?;
        can_be_used_again(client, attacker)?;
        self.make_room(client, attacker)?;
        let write = json!({"session_id": attacker, "path": "after", "contents": "x"});
        let written = client.tool("fs_write", write);
        if written.is_error {
            return Err(format!("nothing can be written afterwards: {}", written.text));
        }
        works(client, neighbour).map_err(|why| format!("the neighbour, afterwards: {why}"))?;
        Ok((*said).to_owned())
    }

    fn make_room(&self, client: &mut Client, attacker: &str) -> Result<(), String> {
        if self.cleanup.is_empty() {
            return Ok(());
        }
        let mut clean = || match self.cleanup {
            "FS_DELETE" => delete_all(client, attacker),
            code => client.tool("run_python", json!({"session_id": attacker, "code": code})),
        };
        // A program that is looked at before there is room is ended, and the next one goes on where it was.
        let first = clean();
        let cleaned = (1..CLEANUPS_MAX).fold(first, |cleaned, _| if cleaned.is_error { clean() } else { cleaned });
        if cleaned.is_error { Err(format!("what it filled cannot be emptied: {}", cleaned.text)) } else { Ok(()) }
    }
}

/// Before there is room again: whoever fills something up can still work, and so can clean up.
fn can_be_used_again(client: &mut Client, attacker: &str) -> Result<(), String> {
    let python = client.tool("run_python", json!({"session_id": attacker, "code": "print(6 * 7)"}));
    if !python.text.contains("42") {
        return Err(format!("the session cannot be used again: {}", python.text));
    }
    let shell = client.tool("run_shell", json!({"session_id": attacker, "command": "echo $((6 * 7))"}));
    if shell.text.contains("42") { Ok(()) } else { Err(format!("a shell cannot be used again: {}", shell.text)) }
}

fn works(client: &mut Client, session: &str) -> Result<(), String> {
    let ran = client.tool("run_python", json!({"session_id": session, "code": "print(sum(range(200_000)))"}));
    if ran.is_error || !ran.text.contains("19999900000") {
        return Err(ran.text);
    }
    let write = json!({"session_id": session, "path": "kept", "contents": "kept"});
    let written = client.tool("fs_write", write);
    let read = client.tool("fs_read", json!({"session_id": session, "path": "kept"}));
    if written.is_error || !read.text.contains("kept") { Err(written.text + &read.text) } else { Ok(()) }
}

/// Deletes all that the session made, by the file tools.
fn delete_all(client: &mut Client, attacker: &str) -> Answer {
    let deep = client.tool("fs_delete", json!({"session_id": attacker, "path": "deep", "recursive": true}));
    if !deep.is_error {
        return deep;
    }
    // Of many, so many that the rest is no more than there may be.
    let code = "import os\nfor name in os.listdir('.'):\n    if name.startswith('small'): os.unlink(name)";
    client.tool("run_python", json!({"session_id": attacker, "code": code}))
}
