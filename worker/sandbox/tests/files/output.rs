//! Output files: made without following a link, and never more than a session may keep.

use std::fs;
use std::os::unix::fs::symlink;

use codegen_types::{ErrorCode, TaskId};

use crate::fixture::{Fixture, code};

#[test]
fn a_file_takes_in_what_it_is_given_even_when_its_name_is_gone() {
    let fixture = Fixture::new();
    let mut output = fixture.workspace.create_output(TaskId::mint()).expect("a file");
    output.append(b"one ").expect("room");
    output.append(b"two").expect("room");
    assert_eq!(fixture.read(output.path().as_str()).expect("it reads"), b"one two");
    fixture.as_session(|inside| {
        fs::remove_dir_all(inside.join(".codegen")).expect("rm");
        symlink(fixture.outside(), inside.join(".codegen")).expect("a link");
    });
    output.append(b"three").expect("it is the file that was made");
    fixture.assert_outside_is_whole();
}

#[test]
fn a_link_a_fifo_or_a_file_in_the_way_is_refused() {
    for way in [".codegen", ".codegen/output"] {
        for target in ["/", "../outside", "elsewhere"] {
            let fixture = Fixture::new();
            fixture.as_session(|inside| {
                fs::create_dir(inside.join("elsewhere")).expect("mkdir");
                fs::create_dir_all(inside.join(way).parent().expect("a parent")).expect("mkdir");
                symlink(target, inside.join(way)).expect("a link");
            });
            let refused = code(fixture.workspace.create_output(TaskId::mint()).map(drop));
            assert!(
                matches!(refused, ErrorCode::PathViolation | ErrorCode::NotADirectory),
                "{way} {target}: {refused}"
            );
            fixture.assert_outside_is_whole();
            assert_eq!(fs::read_dir(fixture.inside().join("elsewhere")).expect("it reads").count(), 0);
        }
    }
}

#[test]
fn a_file_that_is_there_already_is_not_written_to() {
    let fixture = Fixture::new();
    let task = TaskId::mint();
    fixture.as_session(|inside| {
        fs::create_dir_all(inside.join(".codegen/output")).expect("mkdir");
        symlink(fixture.outside().join("secret"), inside.join(format!(".codegen/output/{task}.log"))).expect("a link");
    });
    assert_eq!(code(fixture.workspace.create_output(task).map(drop)), ErrorCode::AlreadyExists);
    fixture.assert_outside_is_whole();
}

#[test]
fn the_newest_files_stay() {
    let fixture = Fixture::new();
    let tasks: Vec<TaskId> = (0..25).map(|_| TaskId::mint()).collect();
    for task in &tasks {
        fixture.workspace.create_output(*task).expect("a file").append(b"x").expect("room");
    }
    fixture.write(".codegen/output/mine.log", b"").expect("room");
    let (mut left, _) = fixture.list(".codegen/output", false, None).expect("it lists");
    left.retain(|path| path.contains("tsk_"));
    let newest: Vec<String> = tasks[5..].iter().map(|task| format!(".codegen/output/{task}.log")).collect();
    assert_eq!(left, newest);
}
