//! What the operations do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use codegen_types::event::{ChangeKind, FileKind};
use codegen_types::operation::{List, Pictures, Read, WriteMode};
use codegen_types::{ErrorCode, OperationResult};

use crate::fixture::{Fixture, code, owner, path};

#[test]
fn a_written_file_reads_back_and_its_directories_are_made() {
    let f = Fixture::new();
    let (stat, created) = f.write_if("a/b/c.txt", b"one", WriteMode::Overwrite, None).expect("written");
    assert!(created);
    assert_eq!((stat.path.as_str(), stat.size, stat.kind), ("a/b/c.txt", 3, FileKind::File));
    let (again, created) = f.write_if("a/b/c.txt", b"three", WriteMode::Overwrite, None).expect("written");
    assert!(!created);
    assert_ne!(stat.etag, again.etag);
    assert_eq!(f.stat("a/b/c.txt").expect("there"), again);
    assert_eq!(f.read("a/b/c.txt").expect("readable"), b"three");
    f.assert_nothing_temporary();
}

#[test]
fn contents_need_not_be_text() {
    let f = Fixture::new();
    let contents: Vec<u8> = (0..=255).collect();
    f.write("bytes", &contents).expect("written");
    assert_eq!(f.read("bytes").expect("readable"), contents);
}

#[test]
fn a_part_of_a_file_is_read() {
    let f = Fixture::new();
    f.write("f", b"0123456789").expect("written");
    let part =
        |offset, limit| match f.workspace.read(&Read { path: path("f"), offset, limit, pictures: Pictures::AsBytes }) {
            Ok(OperationResult::Read { contents, stat }) => {
                assert_eq!(stat.size, 10);
                String::from_utf8(contents).expect("text")
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(part(3, Some(4)), "3456");
    assert_eq!(part(8, None), "89");
    assert_eq!(part(8, Some(100)), "89");
    assert_eq!(part(10, None), "");
    assert_eq!(part(u64::MAX, Some(u64::MAX)), "");
    assert_eq!(part(0, Some(0)), "");
}

#[test]
fn create_refuses_what_is_there_and_append_adds() {
    let f = Fixture::new();
    f.write_as("f", b"one", WriteMode::Create).expect("new");
    assert_eq!(code(f.write_as("f", b"two", WriteMode::Create)), ErrorCode::AlreadyExists);
    f.write_as("f", b", two", WriteMode::Append).expect("added");
    f.write_as("g", b"first", WriteMode::Append).expect("made");
    assert_eq!(f.read("f").expect("readable"), b"one, two");
    assert_eq!(f.read("g").expect("readable"), b"first");
    f.assert_nothing_temporary();
}

#[test]
fn if_match_holds_for_every_mode() {
    let f = Fixture::new();
    let first = f.write("f", b"one").expect("written").etag.expect("a file has one");
    let (second, _) = f.write_if("f", b" two", WriteMode::Append, Some(&first)).expect("matches");
    for mode in [WriteMode::Overwrite, WriteMode::Append] {
        assert_eq!(code(f.write_if("f", b"x", mode, Some(&first))), ErrorCode::PreconditionFailed);
        assert_eq!(code(f.write_if("not/there", b"x", mode, Some(&first))), ErrorCode::PreconditionFailed);
    }
    assert!(f.stat("not").is_err(), "nothing is made for a write that is refused");
    f.write_if("f", b"three", WriteMode::Overwrite, second.etag.as_deref()).expect("matches");
    f.as_session(|inside| fs::write(inside.join("f"), "changed by a program")).expect("written");
    let stale = f.write_if("f", b"x", WriteMode::Overwrite, second.etag.as_deref());
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
    assert_eq!(f.read("f").expect("readable"), b"changed by a program");
    f.assert_nothing_temporary();
}

#[test]
fn permission_bits_stay_and_new_files_are_the_sessions() {
    let f = Fixture::new();
    f.write("dir/script", b"#!/bin/sh").expect("written");
    f.as_session(|inside| {
        let script = fs::metadata(inside.join("dir/script")).expect("there");
        let directory = fs::metadata(inside.join("dir")).expect("there");
        let uid = owner().unwrap_or(script.uid());
        assert_eq!((script.uid(), script.gid(), script.mode() & 0o7777), (uid, directory.gid(), 0o644));
        assert_eq!((directory.uid(), directory.mode() & 0o7777), (uid, 0o755));
        fs::set_permissions(inside.join("dir/script"), fs::Permissions::from_mode(0o4750)).expect("chmod");
    });
    assert_eq!(f.write("dir/script", b"#!/bin/bash").expect("written").mode, 0o750, "without set-user-id");
    assert_eq!(f.write_as("dir/script", b"\n", WriteMode::Append).expect("written").mode, 0o750);
}

/// Files below the base that are open here and have no name any more.
fn nameless(f: &Fixture) -> usize {
    let base = f.base_path();
    let open = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let files = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    files.filter(|file| file.starts_with(&base) && file.to_string_lossy().ends_with(" (deleted)")).count()
}

#[test]
fn what_is_replaced_is_held_until_it_is_let_go_and_only_the_last_of_it() {
    let f = Fixture::new();
    f.write("f", b"one").expect("written");
    assert_eq!(nameless(&f), 0);
    for contents in ["two", "three"] {
        f.write("f", contents.as_bytes()).expect("written");
        assert_eq!(nameless(&f), 1);
    }
    f.write_as("f", b"!", WriteMode::Append).expect("added");
    assert_eq!((nameless(&f), f.read("f").expect("readable")), (1, b"three!".to_vec()));
    f.workspace.let_go();
    assert_eq!(nameless(&f), 0);
}

#[test]
fn links_inside_are_followed_for_reads_and_above_a_written_file() {
    let f = Fixture::new();
    f.write("real/file", b"inside").expect("written");
    f.as_session(|inside| {
        symlink("real", inside.join("dir")).expect("link");
        symlink("../real/file", inside.join("real/again")).expect("link");
    });
    assert_eq!(f.read("dir/file").expect("followed"), b"inside");
    assert_eq!(f.read("real/again").expect("followed"), b"inside");
    f.write("dir/made/new", b"x").expect("followed");
    assert_eq!(f.read("real/made/new").expect("there"), b"x");
    assert_eq!(f.stat("dir").expect("itself").kind, FileKind::Symlink);
    assert_eq!(code(f.write("real/again", b"x")), ErrorCode::PathViolation);
    assert_eq!(f.remove("dir", true).expect("itself"), 1);
    assert_eq!(f.read("real/file").expect("still there"), b"inside");
}

#[test]
fn a_listing_is_sorted_and_matches_patterns() {
    let f = Fixture::new();
    for name in ["b.py", "a.txt", "..foo", "sub/c.py", "sub/deep/d.py"] {
        f.write(name, b"x").expect("written");
    }
    let list = |name, recursive, pattern| f.list(name, recursive, pattern).expect("a listing").0;
    assert_eq!(list("", false, None), ["..foo", "a.txt", "b.py", "sub"]);
    assert_eq!(list("", true, Some("*.py")), ["b.py"]);
    assert_eq!(list("", true, Some("**/*.py")), ["b.py", "sub/c.py", "sub/deep/d.py"]);
    assert_eq!(list("sub", true, Some("*/*.py")), ["sub/deep/d.py"]);
    assert_eq!(list("sub", true, None), ["sub/c.py", "sub/deep", "sub/deep/d.py"]);
    assert_eq!(code(f.list("", true, Some("[a"))), ErrorCode::InvalidArgument);
    assert_eq!(code(f.list("a.txt", false, None)), ErrorCode::NotADirectory);
    assert_eq!(code(f.list("nowhere", false, None)), ErrorCode::NotFound);
}

#[test]
fn a_listing_says_when_there_was_more() {
    let f = Fixture::new();
    for n in 0..5 {
        f.write(&n.to_string(), b"x").expect("written");
    }
    let list = List { path: path(""), recursive: false, pattern: None, entries_max: 3 };
    let Ok(OperationResult::List { entries, truncated }) = f.workspace.list(&list) else { panic!("no listing") };
    assert_eq!((entries.len(), truncated), (3, true));
    assert_eq!(f.list("", false, None).expect("a listing").0.len(), 5);
}

#[test]
fn a_move_renames_and_replaces_only_files_and_only_when_told() {
    let f = Fixture::new();
    f.write("a", b"A").expect("written");
    f.write("b", b"B").expect("written");
    f.write("dir/x", b"X").expect("written");
    assert_eq!(code(f.mv("a", "b", false)), ErrorCode::AlreadyExists);
    assert_eq!(code(f.mv("a", "dir", true)), ErrorCode::AlreadyExists);
    assert_eq!(code(f.mv("dir", "b", true)), ErrorCode::AlreadyExists);
    assert_eq!(code(f.mv("dir", "dir/in", false)), ErrorCode::InvalidArgument);
    assert_eq!(code(f.mv("", "x", false)), ErrorCode::InvalidArgument);
    assert_eq!(code(f.mv("nothing", "made/for/it", false)), ErrorCode::NotFound);
    assert!(f.stat("made").is_err(), "nothing is made for a move that is refused");
    f.mv("a", "b", true).expect("replaced");
    let stat = f.mv("dir", "new/place", false).expect("moved");
    assert_eq!((stat.path.as_str(), stat.kind), ("new/place", FileKind::Directory));
    assert_eq!(f.list("", true, None).expect("a listing").0, ["b", "new", "new/place", "new/place/x"]);
    assert_eq!(f.read("b").expect("readable"), b"A");
}

#[test]
fn a_directory_is_only_deleted_with_its_contents_when_told() {
    let f = Fixture::new();
    for n in 0..50 {
        f.write(&format!("d/{}/{n}", n % 5), b"x").expect("written");
    }
    assert_eq!(code(f.remove("d", false)), ErrorCode::InvalidArgument);
    assert_eq!(code(f.remove("", true)), ErrorCode::InvalidArgument);
    assert_eq!(code(f.remove("nothing", true)), ErrorCode::NotFound);
    assert_eq!(f.remove("d/0/0", false).expect("gone"), 1);
    assert_eq!(f.remove("d", true).expect("gone"), 49 + 5 + 1);
    assert_eq!(f.list("", true, None).expect("a listing").0, Vec::<String>::new());
}

#[test]
fn what_a_program_changed_is_named() {
    let f = Fixture::new();
    for name in ["same", "changed", "replaced", "deleted"] {
        f.write(name, b"before").expect("written");
    }
    let before = f.workspace.scan().expect("a scan");
    assert_eq!(before.changes_to(&f.workspace.scan().expect("a scan")), (Vec::new(), false));
    f.as_session(|inside| {
        fs::write(inside.join("changed"), "after!!").expect("written");
        fs::write(inside.join("new"), "before").expect("written");
        fs::rename(inside.join("new"), inside.join("replaced")).expect("renamed");
        fs::remove_file(inside.join("deleted")).expect("removed");
        fs::create_dir(inside.join("dir")).expect("mkdir");
        fs::write(inside.join("dir/made"), "x").expect("written");
    });
    let (changes, truncated) = before.changes_to(&f.workspace.scan().expect("a scan"));
    let named: Vec<_> = changes.iter().map(|c| (c.path.as_str(), c.change, c.size)).collect();
    let expected = [
        ("changed", ChangeKind::Modified, 7),
        ("deleted", ChangeKind::Deleted, 0),
        ("dir/made", ChangeKind::Created, 1),
        ("replaced", ChangeKind::Modified, 6),
    ];
    assert_eq!((named.as_slice(), truncated), (expected.as_slice(), false));
}

#[test]
fn many_changes_are_cut() {
    let f = Fixture::new();
    let before = f.workspace.scan().expect("a scan");
    f.as_session(|inside| {
        for n in 0..250 {
            fs::write(inside.join(n.to_string()), "x").expect("written");
        }
    });
    let (changes, truncated) = before.changes_to(&f.workspace.scan().expect("a scan"));
    assert_eq!((changes.len(), truncated), (200, true));
}

#[test]
fn appends_at_one_time_lose_nothing() {
    let f = Fixture::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(f.write_as("f", b"x", WriteMode::Append).expect("added"))));
        }
    });
    assert_eq!(f.read("f").expect("readable").len(), 200);
}

#[test]
fn our_own_directory_is_no_news_but_takes_space() {
    let f = Fixture::new();
    let (before, empty) = (f.workspace.scan().expect("a scan"), f.workspace.usage().expect("a count"));
    f.write(".codegen/output/full.txt", &[b'x'; 10_000]).expect("written");
    f.write("sub/.codegen/mine", b"x").expect("written");
    let (changes, truncated) = before.changes_to(&f.workspace.scan().expect("a scan"));
    let named: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!((named, truncated), (vec!["sub/.codegen/mine"], false));
    assert!(f.workspace.usage().expect("a count").bytes > empty.bytes + 10_000);
    let (listed, _) = f.list("", true, None).expect("a listing");
    assert!(listed.contains(&".codegen/output/full.txt".to_owned()), "{listed:?}");
}
