//! What a session makes of the places that the product uses for it: its workspace and directory for temporary files closed
//! to reading, and `artifacts` led out.

use std::time::Duration;

use e2e::poll_until;
use serde_json::json;

use crate::ground::{Ground, columns};
use crate::table::{Outcome, Table};

const LIMITS: &str = "[limits]\nworkspace_bytes = 33554432\nfile_bytes = 16777216\nscratch_bytes = 8388608\n";

/// Fills a place in a directory of it that nobody may read, and closes that place itself.
const CLOSED: &str = r#"
import os, time
top = {"workspace": os.getcwd(), "/tmp": os.environ.get("TMPDIR", "/tmp")}[PLACE]
os.mkdir(top + "/hidden")
os.chdir(top + "/hidden")
directory = os.open(".", os.O_RDONLY)
os.chmod(".", 0)
try: os.chmod(top, 0)
except OSError: pass
number = 0
while True:
    try:
        # What its owner took, its owner gives: for the moment of one file.
        os.fchmod(directory, 0o300)
        with open(f"{number}", "wb") as file: file.write(bytes(1 << 20))
        os.fchmod(directory, 0)
        number += 1
    except OSError as error:
        os.fchmod(directory, 0)
        if error.errno in (27, 28): raise
    time.sleep(0.005)
"#;

/// Shows a picture, which the product keeps in `artifacts`.
const PICTURE: &str = r#"
import os, struct, zlib
os.symlink(FACTS["outside_dir"], "artifacts")
def chunk(kind, data): return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
class Picture:
    def _repr_png_(self):
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack("!2I5B", 4, 4, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress((b"\0" + bytes(12)) * 4)) + chunk(b"IEND", b"")
Picture()
"#;

#[test]
fn places_that_a_session_closes_or_leads_out_are_counted_removed_and_not_followed() {
    let (columns, mut table) = (columns(), Table::of("places"));
    for column in &columns {
        for place in ["workspace", "/tmp"] {
            let mut ground = Ground::prepare_with(*column, LIMITS);
            ground.facts(&json!([]));
            let answer = ground.attack(&format!("PLACE = {place:?}\n{CLOSED}"), 60.0);
            let told = ["DISK_LIMIT", "No space left"].into_iter().find(|told| answer.text.contains(told));
            let workspace = ground.workspace_of(&ground.attacker.clone());
            ground.client.tool("session_close", json!({"session_id": ground.attacker})).ok();
            poll_until("its workspace is gone", Duration::from_secs(20), || (!workspace.exists()).then_some(()));
            let scratch = workspace.parent().expect("a base").read_dir().expect("the base").flatten();
            // The victim's own stays.
            let left = scratch.filter(|entry| entry.file_name().to_string_lossy().starts_with(".scratch-")).count();
            assert!(left <= 1, "{}: temporary files of a closed session are left", column.name);
            let outcome = match told {
                Some(told) => Outcome::Stopped(format!("{told}, and removed")),
                None => Outcome::Failed(answer.text.chars().take(200).collect()),
            };
            table.add(&format!("fill the {place} where it is closed to reading"), *column, outcome);
            let made = ground.client.tool("session_create", json!({})).structured;
            ground.attacker = made["session_id"].as_str().expect("a handle").to_owned();
            ground.expect_unharmed("places");
        }
        let mut ground = Ground::prepare(*column);
        let code = format!("{}{PICTURE}", ground.facts(&json!([])));
        let answer = ground.attack(&code, 60.0);
        let noted = answer.text.contains("could not be kept");
        let outcome = if noted { Outcome::Stopped("not kept".into()) } else { Outcome::Failed(answer.text.clone()) };
        table.add("have a picture kept where artifacts leads", *column, outcome);
        ground.expect_unharmed("a picture");
    }
    table.judge(&columns);
}
