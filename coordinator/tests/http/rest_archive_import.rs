//! An archive that is written into a session.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::WriteMode;
use codegen_types::{Operation, SessionId};
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::identity::Scopes;
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use hyper::StatusCode;
use serde_json::{Value, json};
use tar::{EntryType, Header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{Asked, PATIENCE, Rig, until};

async fn session(rig: &Rig, token: Option<&str>) -> String {
    let asked = rig.request("POST", "/api/v1/sessions").header("content-type", "application/json").body("{}");
    let made = asked.bearer(token).send().await.json().await;
    made["session_id"].as_str().expect("a handle").to_owned()
}

fn put(rig: &Rig, session: &str, query: &str, archive: Vec<u8>) -> Asked {
    rig.request("PUT", &format!("/api/v1/sessions/{session}/archive{query}")).body(archive)
}

/// The head of an upload of so many bytes, and how it begins.
fn begun(session: &str, length: usize, begin: &[u8]) -> Vec<u8> {
    let line = format!("PUT /api/v1/sessions/{session}/archive HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    [format!("{line}content-length: {length}\r\n\r\n").as_bytes(), begin].concat()
}

/// What the server says until it closes the connection.
async fn said(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
    String::from_utf8(said).expect("text")
}

fn entry(kind: EntryType, name: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(contents.len() as u64);
    header.set_cksum();
    let padding = contents.len().next_multiple_of(512) - contents.len();
    [header.as_bytes(), contents, &vec![0; padding]].concat()
}

fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, name, contents)
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name, b"")
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

/// What was written: contents by path.
fn written(rig: &Rig) -> BTreeMap<String, Vec<u8>> {
    let calls = rig.double.calls.lock();
    let writes = calls.iter().filter_map(|call| match &call.operation {
        Operation::Write(write) => Some((write.path.as_str().to_owned(), write.contents.clone())),
        _ => None,
    });
    writes.collect()
}

fn tools(rig: &Rig) -> Vec<(&'static str, Option<String>)> {
    rig.double.calls.lock().iter().map(|call| (call.tool, call.path.clone())).collect()
}

#[tokio::test]
async fn an_archive_is_written_file_by_file_by_the_tool_that_writes_files() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let parts = [directory("./"), directory("d"), file("d/a", b"hello"), directory("d/none"), file("b", b"")];
    let done = put(&rig, &id, "?path=in", ended(&parts)).send().await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(done.json().await, json!({"files": 2, "bytes": 5, "directories": 1}));
    let call = |tool, path: &str| (tool, Some(path.to_owned()));
    let made = "in/d/none/.codegen-directory";
    let wanted =
        [call("fs_write", "in/d/a"), call("fs_write", "in/b"), call("fs_write", made), call("fs_delete", made)];
    assert_eq!(tools(&rig), wanted);
    assert_eq!(written(&rig)["in/d/a"], b"hello");
    let calls = rig.double.calls.lock();
    let mode = |at: usize| match &calls[at].operation {
        Operation::Write(write) => write.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!((mode(0), mode(2)), (WriteMode::Overwrite, WriteMode::Create));
    let served = |record: &codegen_audit::Record| {
        record.kind == EventKind::CallServed && record.tool.as_deref() == Some("archive/write")
    };
    assert_eq!(rig.audit.memory_records().iter().filter(|record| served(record)).count(), 1);
}

#[tokio::test]
async fn what_is_downloaded_is_uploaded_the_same() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let large: Vec<u8> = (0..9_000_001_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let long = "long/".repeat(50) + "name";
    let names = [("a b", &b"hello"[..]), ("large", &large), ("d/empty", b""), ("d/é漢", &[7; 512]), (&long, b"\0")];
    let of = |path: &str, contents: &[u8]| {
        let size = contents.len() as u64;
        let stat = FileStat {
            path: path.into(),
            kind: FileKind::File,
            size,
            modified_ms: 1_000,
            etag: None,
            mode: 0o644,
            target: None,
        };
        (stat, contents.to_vec())
    };
    let mut files: Vec<_> = names.iter().map(|(path, contents)| of(path, contents)).collect();
    let above = long.match_indices('/').map(|(at, _)| long[..at].to_owned()).chain(["d".to_owned()]);
    let directories: Vec<_> =
        above.map(|path| (FileStat { kind: FileKind::Directory, ..of(&path, b"").0 }, Vec::new())).collect();
    files.extend(directories.clone());
    *rig.double.files.lock() = files;
    let download = async || {
        let reply = rig.request("GET", &format!("/api/v1/sessions/{id}/archive")).send().await;
        assert_eq!(reply.headers["x-left-out"], "0");
        reply.bytes().await.expect("a whole archive")
    };
    let archive = download().await;
    assert_eq!(put(&rig, &id, "", archive.clone()).send().await.status, StatusCode::OK);
    let files = written(&rig);
    assert!(files == names.map(|(path, contents)| (path.to_owned(), contents.to_vec())).into(), "{:?}", files.keys());
    let again = files.iter().map(|(path, contents)| of(path, contents)).chain(directories).collect();
    *rig.double.files.lock() = again;
    assert!(download().await == archive, "it comes out as it went in");
}

#[tokio::test]
async fn what_is_refused_is_named_with_what_was_written_before() {
    let policy = "[[rule]]\nname = 'a'\neffect = 'deny'\ntool = 'fs_write'\npath = 'secret/**'\n";
    let policies = Policies::fixed(Policy::parse(policy).expect("a policy"));
    let gate = Gate::new(policies, Approvals::new(codegen_audit::Audit::in_memory()), Hosts::default());
    let rig = Rig::with_admission(|_| {}, Admission::default().behind(gate)).await;
    let id = session(&rig, None).await;
    let mut lies = Header::new_gnu();
    lies.set_path("lies").expect("a name");
    lies.set_size(u64::MAX);
    lies.set_cksum();
    let large = {
        let mut header = lies.clone();
        header.set_size((64 << 20) + 1);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for (bad, entry, status, code) in [
        (vec![entry(EntryType::Symlink, "l", b""), file("l/through", b"x")], "l", 400, "INVALID_ARGUMENT"),
        (vec![entry(EntryType::Link, "h", b"")], "h", 400, "INVALID_ARGUMENT"),
        (vec![entry(EntryType::Char, "c", b"")], "c", 400, "INVALID_ARGUMENT"),
        (vec![file("../out", b"x")], "../out", 400, "PATH_VIOLATION"),
        (vec![file("/out", b"x")], "/out", 400, "PATH_VIOLATION"),
        (vec![file("ok/below", b"x")], "ok/below", 400, "INVALID_ARGUMENT"),
        (vec![lies.as_bytes().to_vec()], "lies", 413, "FILE_TOO_LARGE"),
        (vec![large], "lies", 413, "FILE_TOO_LARGE"),
        (vec![file("secret/key", b"x")], "secret/key", 403, "PERMISSION_DENIED"),
        (vec![directory("secret/none")], "secret/none", 403, "PERMISSION_DENIED"),
    ] {
        rig.double.calls.lock().clear();
        let parts = [vec![file("ok", b"fine")], bad].concat();
        let refused = put(&rig, &id, "", ended(&parts)).send().await;
        assert_eq!(refused.status.as_u16(), status, "{entry}");
        let error = refused.json().await["error"].take();
        assert_eq!(error["details"], json!({"entry": entry, "files": 1, "bytes": 4, "directories": 0}));
        assert!(error["code"] == code && error["message"].as_str().is_some_and(|said| said.contains(entry)), "{error}");
        assert_eq!(tools(&rig), [("fs_write", Some("ok".to_owned()))], "{entry}");
    }
    let cut = [file("ok", b"fine"), file("cut", &[7; 5_000])].concat();
    let refused = put(&rig, &id, "", cut[..3_000].to_vec()).send().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json().await["error"]["details"]["entry"], "cut");
    let denied = rig.audit.memory_records();
    let denied = denied.iter().filter(|record| record.kind == EventKind::CallRefused);
    let denied: Vec<_> = denied.filter_map(|record| record.path.clone()).collect();
    assert_eq!(denied, ["secret/key", "secret/none/.codegen-directory"], "the log has each refused write");
}

#[tokio::test]
async fn a_million_entries_are_refused_long_before_the_last() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let (read, mut write) = TcpStream::connect(rig.address).await.expect("a connection").into_split();
    let sent = tokio::spawn(async move {
        let files: Vec<u8> = (0..5).flat_map(|n| file(&format!("f{n}"), b"")).collect();
        let mut sent = write.write_all(&begun(&id, 512_000_000 + 512 * 5, &files)).await.map(|()| 0);
        for n in 0..1_000_000_u32 {
            if sent.is_err() {
                break;
            }
            sent = write.write_all(&directory(&format!("d{n}"))).await.map(|()| n);
        }
        sent
    });
    let said = said(read).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("more than 10000 entries"), "{said}");
    assert!(said.contains("\"entry\":\"d9995\"") && said.contains("\"files\":5"), "{said}");
    assert!(sent.await.expect("it ends").is_err(), "nobody reads the rest");
    assert_eq!(tools(&rig).len(), 5);
}

#[tokio::test]
async fn an_archive_that_cannot_be_taken_is_refused_by_its_length_alone() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
    stream.write_all(&begun(&id, 3 << 30, &file("a", b"x"))).await.expect("a connection");
    let said = said(stream).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(tools(&rig).is_empty(), "nothing of it is written");
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up_and_what_came_whole_is_written() {
    let rig = Rig::with(|config| config.patience.body = Duration::from_millis(500)).await;
    let id = session(&rig, None).await;
    let archive = [file("whole", b"x"), file("half", &[7; 5_000])].concat();
    let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
    stream.write_all(&begun(&id, archive.len() + 1_024, &archive[..3_000])).await.expect("a connection");
    let said = said(stream).await;
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("\"files\":1"), "{said}");
    assert_eq!(written(&rig), BTreeMap::from([("whole".to_owned(), b"x".to_vec())]));
    assert_eq!(rig.double.running.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_has_two_at_once_and_one_that_leaves_gives_its_place_back() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let mut open = Vec::new();
    for n in ["one", "two"] {
        let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
        let begin = [file(n, b"x"), file("half", &[7; 5_000])].concat();
        stream.write_all(&begun(&id, 100_000, &begin[..3_000])).await.expect("a connection");
        until("the first file is written before the second came", || written(&rig).contains_key(n)).await;
        open.push(stream);
    }
    let third = put(&rig, &id, "", ended(&[file("three", b"x")])).send().await;
    assert_eq!((third.status, third.refusal().await.as_str()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"));
    drop(open);
    let again = tokio::time::timeout(PATIENCE, async {
        while put(&rig, &id, "", ended(&[file("three", b"x")])).send().await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("there is a place again");
    assert_eq!(written(&rig).into_keys().collect::<Vec<_>>(), ["one", "three", "two"]);
}

#[tokio::test]
async fn each_call_of_an_upload_has_a_key_of_its_own_that_is_the_same_when_it_is_repeated() {
    let rig = Rig::new().await;
    let id = session(&rig, None).await;
    let archive = ended(&[file("a", b"x"), file("b", b"y"), directory("d")]);
    let keyed = |query: &str| put(&rig, &id, query, archive.clone()).header("idempotency-key", "k-1");
    let keys = || -> Vec<Option<String>> {
        std::mem::take(&mut *rig.double.calls.lock()).into_iter().map(|call| call.idempotency_key).collect()
    };
    assert_eq!(keyed("").send().await.status, StatusCode::OK);
    let first = keys();
    let mut apart: Vec<_> = first.iter().flatten().collect();
    apart.sort();
    apart.dedup();
    assert_eq!((first.len(), apart.len()), (4, 4), "{first:?}");
    assert_eq!(keyed("").send().await.status, StatusCode::OK);
    assert_eq!(keys(), first);
    let other = keyed("?path=elsewhere").send().await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(keys().is_empty());
    put(&rig, &id, "", archive.clone()).send().await;
    assert_eq!(keys(), [None, None, None, None]);
}

#[tokio::test]
async fn nobody_writes_into_a_foreign_session_or_without_the_scope() {
    let rig = Rig::new().await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let few = rig.token("ann", coordinator::identity::Scope::Sessions.into()).await;
    let id = session(&rig, Some(&ann)).await;
    let unknown = SessionId::mint().to_string();
    let archive = ended(&[file("a", b"x")]);
    // What holds nothing is told no more.
    for archive in [ended(&[]), archive.clone()] {
        let mut answers: Vec<(StatusCode, Value)> = Vec::new();
        for handle in [&id, &unknown] {
            let answer = put(&rig, handle, "", archive.clone()).bearer(Some(&bob)).send().await;
            answers.push((answer.status, answer.json().await));
        }
        assert_eq!(answers[0], answers[1]);
        let (status, answer) = &answers[0];
        assert_eq!((*status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("SESSION_NOT_FOUND")));
        let refused = put(&rig, &id, "", archive).bearer(Some(&few)).send().await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_eq!(refused.json().await["error"]["details"]["needed_scopes"], json!(["tools"]));
    }
    for (query, status) in [("?path=..", 400), ("?path=%2fetc", 400), ("?colour=red", 400)] {
        let refused = put(&rig, &id, query, archive.clone()).bearer(Some(&ann)).send().await;
        assert_eq!(refused.status.as_u16(), status, "{query}");
    }
    assert_eq!(put(&rig, &id, "", archive.clone()).send().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(put(&rig, "x", "", archive).bearer(Some(&ann)).send().await.status, StatusCode::NOT_FOUND);
    assert!(tools(&rig).is_empty());
}
