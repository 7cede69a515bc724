//! REST over the real product: files and archives go in and come out, streams tell what happens, and what the README shows
//! works.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::python;
use serde_json::{Value, json};

use crate::rest_server::Server;

/// What session code leaves behind to get at what is not its own, or to break the archive.
const HOSTILE: &str = r#"
import os
os.symlink("/etc/passwd", "out"); os.symlink("/etc", "etc"); os.symlink(".", "loop"); os.mkfifo("fifo")
os.makedirs("d/e"); open("d/e/é漢.txt", "w").write("deep")
open("n" * 200, "w").write("long"); open(b"\xff", "w").write("no text"); open("a\nb", "w").write("line")
open("big", "wb").write(bytes(range(256)) * 20000)
os.symlink("d", "to_d"); os.symlink("../a\nb", "d/up")
os.symlink("../../x", "d/far"); os.symlink("to_d/../../x", "through")
"#;
/// Says what a tar has: names with sizes, or what they are.
const UNPACK: &str = "import sys, tarfile, io, json\n\
t = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()))\n\
print(json.dumps({m.name: len(t.extractfile(m).read()) if m.isfile() else ('dir' if m.isdir() else m.linkname) for m in t}))";

#[test]
fn an_archive_has_nothing_but_what_is_in_the_workspace_and_leads_there() {
    let server = Server::start();
    let session = server.post("/api/v1/sessions", &json!({}))["session_id"].as_str().expect("a handle").to_owned();
    let run = |code: &str| {
        let ran =
            server.post(&format!("/api/v1/sessions/{session}/tasks?wait=30"), &json!({"kind": "python", "code": code}));
        assert_eq!(ran["exit_code"], 0, "{ran}");
    };
    run(HOSTILE);
    let at = format!("/api/v1/sessions/{session}/archive");
    let file = server.installation.outside().join("a.tar");
    std::fs::write(&file, server.curl(&at, &[])).expect("a file");
    let tar = std::fs::File::open(&file).expect("the file");
    let unpacked = Command::new(python()).args(["-c", UNPACK]).stdin(tar).output().expect("Python starts");
    let unpacked: Value = serde_json::from_slice(&unpacked.stdout).unwrap_or_else(|_| panic!("{unpacked:?}"));
    let wanted = json!({
        "d": "dir", "d/e": "dir", "d/e/é漢.txt": 4, "n".repeat(200): 4, "a\nb": 4, "big": 5_120_000, "loop": ".",
        "to_d": "d", "d/up": "../a\nb",
    });
    assert_eq!(unpacked, wanted);
    run("for n in range(65):\n    open(f'sparse{n}', 'wb').truncate(16 << 20)");
    let url = format!("{}{at}", server.url);
    let bearer = format!("Authorization: Bearer {}", server.token);
    let refused = Command::new("curl").args(["-sS", "-w", "%{http_code}", "-H", &bearer, &url]).output().expect("curl");
    assert!(refused.stdout.ends_with(b"413"), "{refused:?}");
}

/// What another session gets: deep and long names, bytes that are no text, directories with and without files.
const PACKED: &str = r#"
import os
os.makedirs("d/e"); os.makedirs("none/in"); open("d/e/é漢.txt", "w").write("deep"); open("empty", "w")
open("d/" + "n" * 200, "w").write("long"); open("a\nb", "w").write("line")
open("big", "wb").write(bytes(range(256)) * 20000)
"#;
/// Says what a tar has, with the digests of its files.
const DIGESTS: &str = "import sys, tarfile, hashlib, json\n\
t = tarfile.open(sys.argv[1])\n\
print(json.dumps({m.name: hashlib.sha256(t.extractfile(m).read()).hexdigest() if m.isfile() else 'dir' for m in t}))";
/// Writes a tar with a link that leads out, and a file through it.
const THROUGH: &str = "import sys, tarfile, io\n\
t = tarfile.open(sys.argv[1], 'w')\n\
def add(name, **is_): i = tarfile.TarInfo(name); [setattr(i, *item) for item in is_.items()]; i.size = 1 if i.isfile() else 0; t.addfile(i, io.BytesIO(b'x'))\n\
add('first'); add('l', type=tarfile.SYMTYPE, linkname='../../outside'); add('l/through'); t.close()";

#[test]
fn an_archive_goes_into_another_session_and_comes_out_the_same() {
    let server = Server::start();
    let new = || server.post("/api/v1/sessions", &json!({}))["session_id"].as_str().expect("a handle").to_owned();
    let (one, two) = (new(), new());
    let python_says = |arguments: &[&str]| {
        let ran = Command::new(python()).arg("-c").args(arguments).output().expect("Python starts");
        assert!(ran.status.success(), "{ran:?}");
        ran.stdout
    };
    let ran = server.post(&format!("/api/v1/sessions/{one}/tasks?wait=30"), &json!({"kind": "python", "code": PACKED}));
    assert_eq!(ran["exit_code"], 0, "{ran}");
    let digests = |session: &str, name: &str| -> Value {
        let file = server.installation.outside().join(name);
        std::fs::write(&file, server.curl(&format!("/api/v1/sessions/{session}/archive"), &[])).expect("a file");
        serde_json::from_slice(&python_says(&[DIGESTS, file.to_str().expect("UTF-8")])).expect("JSON")
    };
    let packed = digests(&one, "one.tar");
    assert_eq!(packed.as_object().map(serde_json::Map::len), Some(9), "{packed}");
    let file = server.installation.outside().join("one.tar");
    let (file, at) = (file.to_str().expect("UTF-8"), format!("/api/v1/sessions/{two}/archive"));
    let key = ["-T", file, "-H", "Idempotency-Key: once"];
    let written = server.json(&at, &key);
    assert_eq!(written, json!({"files": 5, "bytes": 5_120_012, "directories": 1}));
    assert_eq!(digests(&two, "two.tar"), packed);
    let files = format!("/api/v1/sessions/{two}/files");
    server.curl(&format!("{files}/empty"), &["-X", "PUT", "--data-binary", "no more"]);
    assert_eq!(server.json(&at, &key), written);
    assert_eq!(server.curl(&format!("{files}/empty"), &[]), b"no more", "under its key it is written once");
    let records = server.json(&format!("/api/v1/audit/records?session={two}&limit=500"), &[]);
    let told = |path: &str| {
        let records = records["records"].as_array().expect("records").iter();
        records.filter(|record| record["tool"] == "fs_write" && record["path"] == path).count()
    };
    assert!(told("d/e/é漢.txt") > 0 && told("big") > 0 && told("none/in/.codegen-directory") > 0, "{records}");

    let hostile = server.installation.outside().join("hostile.tar");
    let hostile = hostile.to_str().expect("UTF-8");
    python_says(&[THROUGH, hostile]);
    let refused = Command::new("curl")
        .args(["-sS", "-T", hostile, "-H", &format!("Authorization: Bearer {}", server.token)])
        .arg(format!("{}{at}?path=hostile", server.url))
        .output()
        .expect("curl is there");
    let refused: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    let wanted = json!({"entry": "l", "files": 1, "bytes": 1, "directories": 0});
    assert_eq!(refused["error"]["details"], wanted, "{refused}");
    let left = server.json(&format!("{files}?path=hostile"), &[]);
    assert_eq!(left["entries"].as_array().map(Vec::len), Some(1), "{left}");
}

#[test]
fn what_the_readme_shows_of_rest_works() {
    let server = Server::start();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("a README");
    let (_, section) = readme.split_once("<!-- rest -->").expect("a section about REST");
    let (section, _) = section.split_once("<!-- /rest -->").expect("its end");
    let (_, lines) = section.split_once("```sh\n").expect("commands");
    let (lines, _) = lines.split_once("```").expect("their end");
    assert_eq!(lines.lines().filter(|line| line.contains("curl ")).count(), 3, "{lines}");
    let output = Command::new("sh")
        .args(["-euc", &lines.replace("http://127.0.0.1:8080", &server.url)])
        .env("TOKEN", &server.token)
        .current_dir(server.installation.outside())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("\"text\":\"42\\n\""), "{output:?}");
}

#[test]
fn a_stream_tells_what_happens_and_is_taken_up_where_it_ended() {
    let server = Server::start();
    let session = server.post("/api/v1/sessions", &json!({}))["session_id"].as_str().expect("a handle").to_owned();
    let events = |last: &str| {
        let said = server.curl("/api/v1/events?for_seconds=2", &["-N", "-H", &format!("Last-Event-ID: {last}")]);
        String::from_utf8(said).expect("text")
    };
    let run = json!({"kind": "shell", "command": "echo one; touch made.txt"});
    let task = server.post(&format!("/api/v1/sessions/{session}/tasks?wait=30"), &run);
    let task = task["task_id"].as_str().expect("a task");
    let all = events("0");
    for told in ["\"what\":\"created\"", "\"what\":\"opened\"", "\"what\":\"started\"", "\"what\":\"ended\"", task] {
        assert!(all.contains(told), "{told}: {all}");
    }
    let ids: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let rest = events(ids[1]);
    let again: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(again[..ids.len() - 2], ids[2..], "nothing twice, nothing missed");
    assert!(events("99999999").starts_with("event: reset"));
    let logs = server.curl(&format!("/api/v1/tasks/{task}/logs"), &["-N", "-H", "Accept: text/event-stream"]);
    let logs = String::from_utf8(logs).expect("text");
    assert!(logs.starts_with("event: output") && logs.contains("one\\n") && logs.contains("event: end"), "{logs}");
}

#[test]
fn a_file_goes_in_and_comes_out_whole_in_parts_and_by_version() {
    let server = Server::start();
    let session = server.post("/api/v1/sessions", &json!({}))["session_id"].as_str().expect("a handle").to_owned();
    let at = format!("/api/v1/sessions/{session}/files/data/large.bin");
    let contents: Vec<u8> = (0_u32..10 << 18).flat_map(u32::to_le_bytes).collect();
    let file = server.installation.outside().join("large.bin");
    std::fs::write(&file, &contents).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let written = server.json(&at, &["-T", path]);
    assert_eq!(written["size"], contents.len());
    assert!(server.curl(&at, &[]) == contents, "more than two pieces come out as they went in");
    assert_eq!(server.curl(&at, &["-r", "5000000-5000003"]), &contents[5_000_000..5_000_004]);
    assert_eq!(server.curl(&at, &["-r", "-4"]), &contents[contents.len() - 4..]);
    let etag = format!("If-None-Match: \"{}\"", written["etag"].as_str().expect("a version"));
    let mut child = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &etag, "-H"])
        .arg(format!("Authorization: Bearer {}", server.token))
        .arg(format!("{}{at}", server.url))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is there");
    let mut status = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut status).expect("text");
    child.wait().expect("it ends");
    assert_eq!(status, "304");
}
