//! A session's files as one archive.

use std::collections::BTreeMap;
use std::io::Read as _;

use codegen_types::event::{FileKind, FileStat};
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::identity::Scopes;
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use hyper::StatusCode;
use serde_json::json;

use crate::rig::{Asked, Reply, Rig, until};

async fn session(rig: &Rig, token: Option<&str>) -> String {
    let asked = rig.request("POST", "/api/v1/sessions").header("content-type", "application/json").body("{}");
    let made = asked.bearer(token).send().await.json().await;
    made["session_id"].as_str().expect("a handle").to_owned()
}

fn archive(rig: &Rig, session: &str, query: &str) -> Asked {
    rig.request("GET", &format!("/api/v1/sessions/{session}/archive{query}"))
}

fn stat(path: &str, kind: FileKind, size: u64) -> FileStat {
    FileStat {
        path: path.to_owned(),
        kind,
        size,
        modified_ms: 1_700_000_000_000,
        etag: None,
        mode: 0o640,
        target: None,
    }
}

fn file(path: &str, contents: &[u8]) -> (FileStat, Vec<u8>) {
    (stat(path, FileKind::File, contents.len() as u64), contents.to_vec())
}

fn link(path: &str, target: &str) -> (FileStat, Vec<u8>) {
    (FileStat { target: Some(target.to_owned()), ..stat(path, FileKind::Symlink, 0) }, Vec::new())
}

fn thing(path: &str, kind: FileKind) -> (FileStat, Vec<u8>) {
    (stat(path, kind, 0), Vec::new())
}

/// What is in an archive: contents by path, none of a directory.
async fn unpack(reply: Reply) -> BTreeMap<String, Option<Vec<u8>>> {
    assert_eq!(reply.status, StatusCode::OK);
    let bytes = reply.bytes().await.expect("a whole archive");
    assert!(bytes.ends_with(&[0; 1024]) && bytes.len() % 512 == 0, "it has an end");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("a whole entry");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).expect("contents");
        (path, entry.header().entry_type().is_file().then_some(contents))
    });
    entries.collect()
}

#[tokio::test]
async fn an_archive_has_the_files_and_directories_as_they_are() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let large: Vec<u8> = (0..9_000_001_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let long = "long".repeat(50);
    let files = [file("a b.txt", b"hello"), file("large", &large), file("src/empty", b""), file(&long, b"x")];
    let others = [thing("src", FileKind::Directory), thing("none", FileKind::Directory), file("src/é漢", b"y")];
    rig.double.files.lock().extend(files.into_iter().chain(others));
    let reply = archive(&rig, &id, "?format=tar").send().await;
    assert_eq!(reply.headers["content-type"], "application/x-tar");
    assert_eq!(reply.headers["content-disposition"], "attachment; filename=\"workspace.tar\"");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    assert_eq!(reply.headers["x-left-out"], "0");
    let unpacked = unpack(reply).await;
    let calls = |tool: &str| rig.double.calls.lock().iter().filter(|call| call.tool == tool).count();
    assert_eq!((calls("fs_list"), calls("fs_read")), (3, 7), "everything is a call of a tool");
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let wanted = [
        ("a b.txt", some(b"hello")),
        ("large", some(&large)),
        ("none/", None),
        ("src/", None),
        ("src/empty", some(b"")),
        ("src/é漢", some(b"y")),
        (&long, some(b"x")),
    ];
    assert!(unpacked == wanted.map(|(path, contents)| (path.to_owned(), contents)).into(), "{:?}", unpacked.keys());
    let part = unpack(archive(&rig, &id, "?path=src").send().await).await;
    assert_eq!(part.into_keys().collect::<Vec<_>>(), ["src/empty", "src/é漢"]);
}

#[tokio::test]
async fn links_that_lead_out_and_devices_are_left_out_and_so_are_our_own_files_unless_they_are_asked_for() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    rig.double.files.lock().extend([
        thing("nowhere", FileKind::Symlink),
        link("out", "../../etc/passwd"),
        link("absolute", "/etc/passwd"),
        link("through", "a/../../b"),
        link("in", "a"),
        thing("fifo", FileKind::Other),
        thing(".codegen", FileKind::Directory),
        file(".codegen/x", b"x"),
        file("\u{fffd}", b"another name"),
        file("a", b"a"),
    ]);
    let reply = archive(&rig, &id, "").send().await;
    assert_eq!(reply.headers["x-left-out"], "5");
    assert_eq!(unpack(reply).await.into_keys().collect::<Vec<_>>(), ["a", "in"]);
    let read = |path: &str| rig.double.calls.lock().iter().any(|call| call.path.as_deref() == Some(path));
    assert!(read("a") && !read("in"), "no link is followed");
    let own = unpack(archive(&rig, &id, "?path=.codegen").send().await).await;
    assert_eq!(own.into_keys().collect::<Vec<_>>(), [".codegen/x"]);
}

#[tokio::test]
async fn more_than_an_archive_holds_is_refused_before_anything_is_read() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let sparse = (stat("sparse", FileKind::File, (1 << 30) + 1), Vec::new());
    let many = |count: usize| (0..count).map(|n| thing(&format!("d{n}"), FileKind::Other)).collect::<Vec<_>>();
    for files in [vec![sparse], many(10_001)] {
        *rig.double.files.lock() = files;
        let refused = archive(&rig, &id, "").send().await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.refusal().await, "INVALID_ARGUMENT");
    }
    let read = rig.double.calls.lock().iter().filter(|call| call.tool == "fs_read").count();
    assert_eq!(read, 0);
    // One listing of the tool gives a thousand.
    *rig.double.files.lock() = many(1_500).into_iter().chain([file("z", b"z")]).collect();
    let unpacked = unpack(archive(&rig, &id, "").send().await).await;
    assert_eq!(unpacked.into_keys().collect::<Vec<_>>(), ["z"]);
}

#[tokio::test]
async fn a_file_that_changes_its_size_leaves_the_archive_whole() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    rig.double.files.lock().extend([
        (stat("grown", FileKind::File, 3), b"abcdef".to_vec()),
        (stat("shrunk", FileKind::File, 5_000_000), b"ab".to_vec()),
        file("z", b"last"),
    ]);
    let unpacked = unpack(archive(&rig, &id, "").send().await).await;
    assert_eq!(unpacked["grown"].as_deref(), Some(&b"abc"[..]));
    let shrunk = unpacked["shrunk"].as_deref().expect("a file");
    assert!(shrunk.len() == 5_000_000 && shrunk.starts_with(b"ab\0") && shrunk[2..].iter().all(|byte| *byte == 0));
    assert_eq!(unpacked["z"].as_deref(), Some(&b"last"[..]));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_back_the_reading_and_one_that_leaves_ends_it() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let large = vec![7; 1 << 20];
    let few = (0..20).map(|n| file(&format!("few/{n}"), b"x"));
    rig.double.files.lock().extend((0..64).map(|n| file(&format!("f{n:03}"), &large)).chain(few));
    let reads = || {
        let calls = rig.double.calls.lock();
        calls.iter().filter(|call| call.path.as_ref().is_some_and(|path| path.starts_with("f0"))).count()
    };
    let mut slow = archive(&rig, &id, "").send().await;
    assert!(slow.piece().await.is_some_and(|piece| piece.is_ok()));
    // Another client is served meanwhile, so that there was time to read.
    assert_eq!(unpack(archive(&rig, &id, "?path=few").send().await).await.len(), 20);
    assert!(reads() < 32, "{} files were read for nobody", reads());
    drop(slow);
    let running = || rig.double.running.load(std::sync::atomic::Ordering::Relaxed);
    until("nothing is read any more", || running() == 0).await;
    assert_eq!(unpack(archive(&rig, &id, "?path=few").send().await).await.len(), 20);
    assert!(reads() < 32, "{} files were read for nobody", reads());
}

#[tokio::test]
async fn what_the_policy_denies_is_not_in_an_archive() {
    let policy = "[[rule]]\nname = 'a'\neffect = 'deny'\npath = 'secret/**'\n\
                  [[rule]]\nname = 'b'\neffect = 'deny'\ntool = 'fs_read'\npath = 'key'\n\
                  [[rule]]\nname = 'c'\neffect = 'deny'\ntool = 'fs_list'\npath = 'name'\n";
    let policies = Policies::fixed(Policy::parse(policy).expect("a policy"));
    let gate = Gate::new(policies, Approvals::new(codegen_audit::Audit::in_memory()), Hosts::default());
    let rig = Rig::with_admission(|_| {}, Admission::default().behind(gate)).await;
    let id = session(&rig, None).await;
    let open = [file("a", b"a"), thing("secret", FileKind::Directory)];
    rig.double.files.lock().extend(open.into_iter().chain([
        file("secret/b", b"b"),
        file("key", b"k"),
        file("name", b"n"),
    ]));
    let reply = archive(&rig, &id, "").send().await;
    let left_out: u32 = reply.headers["x-left-out"].to_str().unwrap().parse().unwrap();
    let unpacked = unpack(reply).await;
    assert_eq!(unpacked.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(left_out, 3);
    let refused = archive(&rig, &id, "?path=secret/x").send().await;
    assert_eq!((refused.status, refused.refusal().await), (StatusCode::FORBIDDEN, "PERMISSION_DENIED".to_owned()));
}

#[tokio::test]
async fn an_archive_of_a_foreign_session_is_like_one_of_none() {
    let rig = Rig::new().await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let id = session(&rig, Some(&ann)).await;
    rig.double.files.lock().push(file("a", b"a"));
    let unknown = codegen_types::SessionId::mint().to_string();
    let mut answers = Vec::new();
    for handle in [&id, &unknown] {
        let answer = archive(&rig, handle, "").bearer(Some(&bob)).send().await;
        answers.push((answer.status, answer.json().await));
    }
    assert_eq!(answers[0].1["error"]["code"], json!("SESSION_NOT_FOUND"));
    assert_eq!((answers[0].0, &answers[0]), (StatusCode::NOT_FOUND, &answers[1]));
    for (query, status) in [("?path=..", 400), ("?format=zip", 400), ("?colour=red", 400), ("?path=%2fetc", 400)] {
        assert_eq!(archive(&rig, &id, query).bearer(Some(&ann)).send().await.status.as_u16(), status, "{query}");
    }
    assert_eq!(archive(&rig, &id, "").send().await.status, StatusCode::UNAUTHORIZED);
}
