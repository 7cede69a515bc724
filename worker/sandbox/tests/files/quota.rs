//! Limits on the bytes of files and workspaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use codegen_types::operation::{Pictures, Read, WriteMode};
use codegen_types::{ErrorCode, Limits, OperationResult};

use crate::fixture::{Fixture, code, path};

fn small() -> Fixture {
    Fixture::with_limits(Limits { file_bytes: 1_000, workspace_bytes: 100_000, ..Limits::default() })
}

#[test]
fn a_file_over_the_limit_is_not_written() {
    let f = small();
    f.write("f", &[0; 1_000]).expect("just fits");
    assert_eq!(code(f.write("g", &[0; 1_001])), ErrorCode::FileTooLarge);
    assert_eq!(code(f.write_as("f", b"x", WriteMode::Append)), ErrorCode::FileTooLarge);
    assert!(f.stat("g").is_err());
    f.assert_nothing_temporary();
}

#[test]
fn a_huge_sparse_file_is_refused_whole_and_read_in_parts() {
    let f = small();
    f.as_session(|inside| {
        let huge = fs::File::create(inside.join("huge")).expect("made");
        huge.set_len(1 << 40).expect("sparse");
    });
    assert_eq!(code(f.read("huge")), ErrorCode::FileTooLarge);
    let part = Read { path: path("huge"), offset: 1 << 39, limit: Some(10), pictures: Pictures::AsBytes };
    let Ok(OperationResult::Read { contents, .. }) = f.workspace.read(&part) else { panic!("no part") };
    assert_eq!(contents, [0; 10]);
    let usage = f.workspace.usage().expect("counted");
    assert!(usage.bytes < 100_000 && usage.complete, "a sparse file counts what it takes: {usage:?}");
}

#[test]
fn a_full_workspace_takes_no_more_until_something_is_deleted() {
    let f = small();
    f.as_session(|inside| fs::write(inside.join("big"), vec![1; 99_500]).expect("written"));
    assert_eq!(code(f.write("g", &[0; 1_000])), ErrorCode::DiskLimit);
    assert_eq!(code(f.write_as("g", &[0; 1_000], WriteMode::Append)), ErrorCode::DiskLimit);
    f.assert_nothing_temporary();
    f.remove("big", false).expect("deleted");
    f.write("g", &[0; 1_000]).expect("fits now");
}

#[test]
fn many_small_writes_do_not_pass_the_limit_unseen() {
    let f = small();
    let refused = (0..200).find_map(|n| f.write(&format!("f{n}"), &[1; 1_000]).err()).expect("is refused at some time");
    assert_eq!(refused.code, ErrorCode::DiskLimit);
    assert!(f.workspace.usage().expect("counted").bytes <= 110 * 4_096, "not far beyond, given blocks of 4 KiB");
}

#[test]
fn more_files_than_there_may_be_are_refused_until_some_are_deleted() {
    let f = Fixture::with_limits(Limits { workspace_files: 50, ..Limits::default() });
    let refused = (0..200).position(|n| f.write(&format!("f{n}"), b"").is_err()).expect("is refused at some time");
    assert!((49..=51).contains(&refused), "{refused}");
    assert_eq!(code(f.write("g", b"")), ErrorCode::DiskLimit);
    for n in 0..10 {
        f.remove(&format!("f{n}"), false).expect("deleted");
    }
    f.write("g", b"").expect("fits now");
}

#[test]
fn a_file_with_two_names_counts_once() {
    let f = small();
    f.as_session(|inside| {
        fs::write(inside.join("a"), vec![1; 50_000]).expect("written");
        fs::hard_link(inside.join("a"), inside.join("b")).expect("linked");
        fs::hard_link(inside.join("a"), inside.join("c")).expect("linked");
    });
    let usage = f.workspace.usage().expect("counted");
    assert!((50_000..60_000).contains(&usage.bytes), "{usage:?}");
    assert_eq!(usage.files, 3);
}

#[test]
fn a_workspace_that_may_not_be_listed_is_counted_all_the_same() {
    let f = small();
    f.as_session(|inside| {
        fs::write(inside.join("big"), vec![1; 99_500]).expect("written");
        fs::set_permissions(inside, fs::Permissions::from_mode(0o311)).expect("closed");
    });
    let usage = f.workspace.usage().expect("counted");
    assert!(usage.bytes >= 99_500 && usage.complete, "{usage:?}");
    assert_eq!(code(f.write("g", &[0; 1_000])), ErrorCode::DiskLimit);
    f.as_session(|inside| fs::set_permissions(inside, fs::Permissions::from_mode(0o000)).expect("closed"));
    assert!(f.workspace.scan().is_ok(), "the next program can be started");
}

#[test]
fn what_cannot_be_counted_takes_no_more() {
    let f = small();
    f.as_session(|inside| {
        let mut deep = inside.to_owned();
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(deep).expect("made");
    });
    assert!(!f.workspace.usage().expect("counted").complete);
    assert_eq!(code(f.write("f", b"x")), ErrorCode::DiskLimit);
    f.remove("d", true).expect("deleted");
    f.write("f", b"x").expect("counted again");
}
