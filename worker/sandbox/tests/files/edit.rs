//! Editing: exactly what was asked or nothing, and no change of anyone else is lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use codegen_types::operation::Edit;
use codegen_types::{ErrorCode, Limits};

use crate::fixture::{Fixture, become_session, code, edit_of};

#[test]
fn text_is_replaced_exactly_and_the_change_is_shown() {
    let f = Fixture::new();
    f.write("a.py", "def f():\n    return 1\n\nf()\n".as_bytes()).expect("written");
    let edited = f.edit("a.py", "return 1", "return 2").expect("edited");
    assert_eq!(f.read("a.py").expect("read"), b"def f():\n    return 2\n\nf()\n");
    assert_eq!(edited.replaced, 1);
    assert_eq!(edited.diff, "@@ -1,4 +1,4 @@\n def f():\n-    return 1\n+    return 2\n \n f()\n");
    assert_eq!(edited.stat, f.stat("a.py").expect("described"));
    let all = f.edit_as(&edit_of("a.py", "f()", "g()")).expect("edited");
    assert_eq!((all.replaced, f.read("a.py").expect("read")), (2, b"def g():\n    return 2\n\ng()\n".to_vec()));
    f.assert_nothing_temporary();
}

#[test]
fn bytes_that_are_no_text_and_permission_bits_stay() {
    let f = Fixture::new();
    f.write("run", b"\xff\0old\xfe\r\n").expect("written");
    f.as_session(|inside| fs::set_permissions(inside.join("run"), fs::Permissions::from_mode(0o755)).expect("chmod"));
    let edited = f.edit("run", "old", "né").expect("edited");
    assert_eq!(f.read("run").expect("read"), b"\xff\0n\xc3\xa9\xfe\r\n");
    assert_eq!(edited.stat.mode & 0o777, 0o755);
}

#[test]
fn text_that_is_absent_or_ambiguous_changes_nothing_and_the_answer_helps() {
    let f = Fixture::new();
    f.write("f", b"alpha beta\n  gamma\nx\nx\n").expect("written");
    let before = f.stat("f").expect("described");
    let absent = f.edit("f", "gamma delta epsilon", "").expect_err("it is absent");
    assert!(absent.message.contains("nothing was changed"), "{absent}");
    let blanks = f.edit("f", "alpha  beta", "y").expect_err("it is absent");
    assert!(blanks.message.contains("Line 1 differs from its first line in blanks only"), "{blanks}");
    let several = f.edit("f", "x\n", "y\n").expect_err("it is there twice");
    assert!(several.message.contains("2 times, in lines 3, 4") && several.message.contains("replace_all"), "{several}");
    for failure in [absent, blanks, several] {
        assert_eq!(failure.code, ErrorCode::PreconditionFailed);
    }
    assert_eq!(f.stat("f").expect("described"), before);
    f.write("aaa", b"aaa").expect("written");
    assert_eq!(code(f.edit("aaa", "aa", "b")), ErrorCode::PreconditionFailed, "it overlaps itself");
    f.write("many", "x\n".repeat(100_000).as_bytes()).expect("written");
    let many = f.edit("many", "x", "y").expect_err("it is there often");
    assert!(many.message.contains("more than 10 times, in lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"), "{many}");
}

#[test]
fn text_that_is_there_too_often_is_refused_before_it_costs_memory() {
    let f = Fixture::new();
    f.write("newlines", &b"\n".repeat(48 << 20)).expect("written");
    let before = memory_peak_kib();
    let all = Edit { replace_all: true, ..edit_of("newlines", "\n", "x") };
    let refused = f.edit_as(&all).expect_err("too often");
    assert!(refused.code == ErrorCode::InvalidArgument && refused.message.contains("run_python"), "{refused}");
    let old = "\n".repeat(600);
    let some = Edit { replace_all: true, ..edit_of("newlines", &old, "y\n") };
    assert_eq!(f.edit_as(&some).expect("edited").replaced, (48 << 20) / 600);
    let took = memory_peak_kib() - before;
    assert!(took < 400 << 10, "{took} KiB");
}

/// The most memory that this process ever had at once.
fn memory_peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn an_edit_that_asks_for_nothing_or_too_much_is_refused() {
    let f = Fixture::with_limits(Limits { file_bytes: 1_000, ..Limits::default() });
    f.write("f", &b"a".repeat(1_000)).expect("written");
    assert_eq!(code(f.edit("f", "", "x")), ErrorCode::InvalidArgument);
    assert_eq!(code(f.edit("f", "a", "a")), ErrorCode::InvalidArgument);
    assert_eq!(code(f.edit_as(&edit_of("f", "a", &"b".repeat(1 << 20)))), ErrorCode::FileTooLarge);
    assert_eq!(code(f.edit("gone", "a", "b")), ErrorCode::NotFound);
    assert_eq!(code(f.edit("", "a", "b")), ErrorCode::NotAFile);
    f.as_session(|inside| fs::write(inside.join("large"), "b".repeat(1_001)).expect("written"));
    assert_eq!(code(f.edit("large", "b", "c")), ErrorCode::FileTooLarge);
    let quota = Fixture::with_limits(Limits { workspace_bytes: 100 << 10, ..Limits::default() });
    quota.write("f", &b"a".repeat(50_000)).expect("written");
    assert_eq!(code(quota.edit_as(&edit_of("f", "a", "bcd"))), ErrorCode::DiskLimit);
}

#[test]
fn another_version_than_if_match_names_is_not_edited() {
    let f = Fixture::new();
    let old = f.write("f", b"one").expect("written").etag;
    let new = f.write("f", b"one two").expect("written").etag;
    let edit = |etag: &Option<String>| Edit { if_match: etag.clone(), ..edit_of("f", "one", "1") };
    assert_eq!(code(f.edit_as(&edit(&old))), ErrorCode::PreconditionFailed);
    f.edit_as(&edit(&new)).expect("edited");
    assert_eq!(f.read("f").expect("read"), b"1 two");
}

#[test]
fn links_fifos_and_hard_links_are_not_edited() {
    let f = Fixture::new();
    f.write("file", b"text").expect("written");
    f.write("twice", b"text").expect("written");
    let outside = f.outside();
    f.as_session(|inside| {
        symlink(outside.join("secret"), inside.join("absolute")).expect("link");
        symlink(&outside, inside.join("directory")).expect("link");
        symlink("file", inside.join("inner")).expect("link");
        fs::hard_link(inside.join("twice"), inside.join("too")).expect("link");
        nix::unistd::mkfifo(&inside.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    });
    for name in ["absolute", "directory/secret", "inner", "twice", "fifo"] {
        assert_eq!(code(f.edit(name, "e", "x")), ErrorCode::PathViolation, "{name}");
    }
    assert_eq!(code(f.edit("directory", "e", "x")), ErrorCode::PathViolation);
    f.assert_outside_is_whole();
}

/// Four callers count together; a program of the session counts along in place, without taking turns.
#[test]
fn edits_at_the_same_time_lose_no_change() {
    let f = Fixture::new();
    f.write("count", b"calls=\n").expect("written");
    thread::scope(|scope| {
        for caller in ["a", "b", "c", "d"] {
            let f = &f;
            scope.spawn(move || {
                for _ in 0..50 {
                    f.edit("count", "calls=", &format!("calls={caller}")).expect("edited");
                }
            });
        }
    });
    let text = String::from_utf8(f.read("count").expect("read")).expect("text");
    for caller in ['a', 'b', 'c', 'd'] {
        assert_eq!(text.matches(caller).count(), if caller == 'a' || caller == 'c' { 51 } else { 50 }, "{text}");
    }
}

#[test]
fn what_a_program_replaces_meanwhile_is_not_overwritten_unseen() {
    let f = Fixture::new();
    f.write("file", b"old 0").expect("written");
    let (inside, stop) = (f.inside(), AtomicBool::new(false));
    let contents: Vec<u8> = b"old ".iter().copied().cycle().take(64 << 10).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            become_session();
            while !stop.load(Ordering::Relaxed) {
                fs::write(inside.join("other"), &contents).expect("written");
                fs::rename(inside.join("other"), inside.join("file")).expect("renamed");
            }
        });
        for _ in 0..100 {
            match f.edit_as(&edit_of("file", "old", "new")) {
                Ok(edited) => assert!(edited.replaced == 1 || edited.replaced == 16 << 10, "{}", edited.replaced),
                Err(failure) => assert_eq!(failure.code, ErrorCode::PreconditionFailed, "{failure}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    f.assert_nothing_temporary();
}
