//! Each thing that a session can put in the way, and what is said about it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use codegen_types::ErrorCode;
use codegen_types::event::FileKind;
use codegen_types::operation::WriteMode;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{geteuid, mkfifo};

use crate::fixture::{Fixture, SECRET, code};

/// Reads, writes of every mode, and listings of `name` are refused with this code, and outside all stays as it is.
fn refuses_all(f: &Fixture, name: &str, refused: ErrorCode) {
    assert_eq!(code(f.read(name)), refused, "read {name}");
    for mode in [WriteMode::Overwrite, WriteMode::Append] {
        assert_eq!(code(f.write_as(name, b"x", mode)), refused, "{mode:?} {name}");
    }
    f.assert_outside_is_whole();
    f.assert_nothing_temporary();
}

#[test]
fn links_that_leave_are_refused() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| {
        symlink(outside.join("secret"), inside.join("absolute")).expect("link");
        symlink("../../outside/secret", inside.join("relative")).expect("link");
        symlink("relative", inside.join("chain")).expect("link");
        symlink("/etc/passwd", inside.join("passwd")).expect("link");
        symlink("/proc/self/root/etc/passwd", inside.join("magic")).expect("link");
        symlink("loop", inside.join("loop")).expect("link");
        symlink(&outside, inside.join("dir")).expect("link");
        symlink("..", inside.join("up")).expect("link");
    });
    for link in ["absolute", "relative", "chain", "passwd", "magic", "loop"] {
        refuses_all(&f, link, ErrorCode::PathViolation);
        assert_eq!(f.stat(link).expect("the link itself").kind, FileKind::Symlink);
    }
    for through in ["dir/secret", "dir/new", "dir/a/b/new", "up/x"] {
        assert_eq!(code(f.read(through)), ErrorCode::PathViolation, "{through}");
        assert_eq!(code(f.write(through, b"x")), ErrorCode::PathViolation, "{through}");
        assert_eq!(code(f.stat(through)), ErrorCode::PathViolation, "{through}");
        assert_eq!(code(f.remove(through, true)), ErrorCode::PathViolation, "{through}");
        assert_eq!(code(f.mv(through, "here", false)), ErrorCode::PathViolation, "{through}");
    }
    f.write("file", b"x").expect("written");
    assert_eq!(code(f.mv("file", "dir/file", true)), ErrorCode::PathViolation);
    assert_eq!(code(f.list("dir", true, None)), ErrorCode::PathViolation);
    assert_eq!(code(f.list("up", true, None)), ErrorCode::PathViolation);
    let (names, _) = f.list("", true, None).expect("a listing");
    assert!(!names.iter().any(|name| name.contains("secret")), "links are not followed: {names:?}");
    f.assert_outside_is_whole();
}

#[test]
fn a_link_is_moved_and_deleted_itself() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| {
        symlink(&outside, inside.join("dir")).expect("link");
        symlink(outside.join("secret"), inside.join("file")).expect("link");
    });
    f.mv("file", "moved", false).expect("the link itself");
    f.write("replacing", b"x").expect("written");
    f.mv("replacing", "moved", true).expect("replaces the link itself");
    assert_eq!(f.remove("dir", true).expect("the link itself"), 1);
    f.assert_outside_is_whole();
}

#[test]
fn a_link_to_nowhere_is_not_written_through() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| {
        symlink(outside.join("new"), inside.join("leaves")).expect("link");
        symlink("not-there", inside.join("stays")).expect("link");
    });
    for name in ["leaves", "stays"] {
        for mode in [WriteMode::Overwrite, WriteMode::Append] {
            assert_eq!(code(f.write_as(name, b"x", mode)), ErrorCode::PathViolation);
        }
        assert_eq!(code(f.write_as(name, b"x", WriteMode::Create)), ErrorCode::AlreadyExists);
    }
    assert!(f.write("stays/below", b"x").is_err());
    assert!(f.write("leaves/below", b"x").is_err());
    assert_eq!(f.list("", true, None).expect("a listing").0, ["leaves", "stays"]);
    f.assert_outside_is_whole();
}

#[test]
fn fifos_sockets_and_devices_are_listed_and_deleted_but_never_opened() {
    let f = Fixture::new();
    let _socket = f.as_session(|inside| {
        mkfifo(&inside.join("fifo"), Mode::S_IRWXU).expect("mkfifo");
        UnixListener::bind(inside.join("socket")).expect("bind")
    });
    let mut names = vec!["fifo", "socket"];
    if geteuid().is_root() {
        let everyone = Mode::from_bits_truncate(0o666);
        for (name, kind, major, minor) in
            [("null", SFlag::S_IFCHR, 1, 3), ("tty", SFlag::S_IFCHR, 5, 0), ("disk", SFlag::S_IFBLK, 7, 0)]
        {
            mknod(&f.inside().join(name), kind, everyone, nix::sys::stat::makedev(major, minor)).expect("mknod");
            fs::set_permissions(f.inside().join(name), fs::Permissions::from_mode(0o666)).expect("chmod");
            names.push(name);
        }
    }
    for name in names {
        assert_eq!(code(f.write(name, b"x")), ErrorCode::PathViolation, "{name}");
        assert_eq!(code(f.write_as(name, b"x", WriteMode::Append)), ErrorCode::PathViolation, "{name}");
        let refused = code(f.read(name));
        // The kernel may refuse a device before we see what it is.
        let device = matches!(name, "null" | "tty" | "disk");
        assert!(refused == ErrorCode::PathViolation || device && refused != ErrorCode::NotFound, "{name}: {refused}");
        assert_eq!(f.stat(name).expect("described").kind, FileKind::Other, "{name}");
        assert_eq!(f.remove(name, false).expect("deleted"), 1, "{name}");
    }
}

#[test]
fn a_file_with_a_name_elsewhere_is_refused() {
    let f = Fixture::new();
    let outside = f.outside();
    // As the worker's own user, since the kernel may forbid it to the session.
    fs::hard_link(outside.join("secret"), f.inside().join("linked")).expect("linked");
    refuses_all(&f, "linked", ErrorCode::PathViolation);
    assert_eq!(f.remove("linked", false).expect("the name"), 1);
    f.assert_outside_is_whole();
}

#[test]
fn files_and_directories_are_not_taken_for_each_other() {
    let f = Fixture::new();
    f.write("dir/file", b"x").expect("written");
    for name in ["dir", ""] {
        assert_eq!(code(f.read(name)), ErrorCode::NotAFile);
        assert_eq!(code(f.write(name, b"x")), ErrorCode::NotAFile);
    }
    assert_eq!(code(f.read("dir/file/below")), ErrorCode::NotADirectory);
    assert_eq!(code(f.write("dir/file/below", b"x")), ErrorCode::NotADirectory);
    assert_eq!(code(f.write("dir/file/below/deeper", b"x")), ErrorCode::NotADirectory);
    assert_eq!(code(f.mv("dir", "dir/file/below", false)), ErrorCode::InvalidArgument);
    assert_eq!(code(f.remove("dir/file/below", true)), ErrorCode::NotADirectory);
}

#[test]
fn names_at_the_limit_work() {
    let f = Fixture::new();
    let longest = "x".repeat(255);
    f.write(&longest, b"x").expect("written");
    assert_eq!(f.read(&longest).expect("readable"), b"x");
    let deepest = vec!["d"; 64].join("/");
    f.write(&deepest, b"x").expect("written");
    assert_eq!(f.read(&deepest).expect("readable"), b"x");
    let (names, truncated) = f.list("", true, None).expect("a listing");
    assert_eq!((names.len(), truncated), (65, false));
    let long = vec!["y".repeat(250); 16].join("/");
    f.write(&long, b"x").expect("a path of nearly 4 KiB");
    assert_eq!(f.remove("d", true).expect("deleted"), 64);
}

#[test]
fn odd_names_are_only_names() {
    let f = Fixture::new();
    for name in ["..foo", "...", "-rf", "a b", "new\nline", "\u{1b}[31m", "ä/ö/ü", "*", "a\\b", ".codegen"] {
        f.write(name, name.as_bytes()).expect("written");
        assert_eq!(f.read(name).expect("readable"), name.as_bytes());
    }
    let failure = f.read("new\nline\u{1b}[31mx").expect_err("not there");
    assert!(!failure.message.contains(['\n', '\u{1b}']), "{failure}");
}

#[test]
fn names_that_are_not_utf8_are_shown_and_deleted_with_their_directory() {
    let f = Fixture::new();
    let name = OsStr::from_bytes(b"bad\xff\xfename");
    let before = f.workspace.scan().expect("a scan");
    f.as_session(|inside| {
        fs::create_dir(inside.join("d")).expect("mkdir");
        fs::write(inside.join("d").join(name), "x").expect("written");
        fs::create_dir(inside.join("d").join(OsStr::from_bytes(b"\xff"))).expect("mkdir");
        fs::write(inside.join("d").join(OsStr::from_bytes(b"\xff")).join("below"), "x").expect("written");
    });
    let (names, _) = f.list("", true, None).expect("a listing");
    assert_eq!(names, ["d", "d/bad\u{fffd}\u{fffd}name", "d/\u{fffd}", "d/\u{fffd}/below"]);
    assert_eq!(code(f.read("d/bad\u{fffd}\u{fffd}name")), ErrorCode::NotFound);
    let (changes, truncated) = before.changes_to(&f.workspace.scan().expect("a scan"));
    assert_eq!((changes.len(), truncated), (0, true), "left out, and said so");
    assert_eq!(f.remove("d", true).expect("deleted"), 4);
}

#[test]
fn what_the_session_made_unreadable_is_its_own_fault() {
    let f = Fixture::new();
    f.write("closed", SECRET.as_bytes()).expect("written");
    f.write("dir/file", b"x").expect("written");
    f.as_session(|inside| {
        fs::set_permissions(inside.join("closed"), fs::Permissions::from_mode(0o000)).expect("chmod");
        fs::set_permissions(inside.join("dir"), fs::Permissions::from_mode(0o000)).expect("chmod");
    });
    assert_eq!(code(f.read("closed")), ErrorCode::PermissionDenied);
    assert_eq!(code(f.read("dir/file")), ErrorCode::PermissionDenied);
    assert_eq!(code(f.write_as("closed", b"x", WriteMode::Append)), ErrorCode::PermissionDenied);
    f.assert_nothing_temporary();
    assert_eq!(code(f.list("dir", true, None)), ErrorCode::PermissionDenied);
    assert!(f.list("", true, None).expect("a listing").1, "something could not be read");
    assert_eq!(f.remove("dir", true).expect("opened for deletion"), 2);
}

#[test]
fn a_pattern_cannot_burn_the_processor() {
    let f = Fixture::new();
    f.write(&"a".repeat(200), b"x").expect("written");
    f.list("", true, Some(&"*a".repeat(400))).expect("linear");
    assert_eq!(code(f.list("", true, Some(&"{a,".repeat(2_000)))), ErrorCode::InvalidArgument);
}

#[test]
fn a_listing_says_where_links_lead_in_their_own_words_and_not_without_bound() {
    let f = Fixture::new();
    let long = "x".repeat(4_000);
    f.as_session(|inside| {
        symlink("/etc/passwd", inside.join("absolute")).expect("link");
        symlink("../../up", inside.join("up")).expect("link");
        symlink(OsStr::from_bytes(b"\xff"), inside.join("no text")).expect("link");
        fs::create_dir(inside.join("many")).expect("a directory");
        for number in 0..1_100 {
            symlink(&long, inside.join(format!("many/{number}"))).expect("link");
        }
    });
    let (entries, _) = f.entries("", false, None).expect("a listing");
    let target = |name: &str| entries.iter().find(|entry| entry.path == name).expect("it is listed").target.clone();
    assert_eq!(target("absolute").as_deref(), Some("/etc/passwd"));
    assert_eq!(target("up").as_deref(), Some("../../up"));
    assert_eq!((target("no text"), target("many")), (None, None));
    let (entries, truncated) = f.entries("many", false, None).expect("a listing");
    let said: usize = entries.iter().filter_map(|entry| entry.target.as_ref()).map(String::len).sum();
    assert!(!truncated && entries.len() == 1_100 && said <= 4 << 20 && said > 3 << 20, "{said}");
}
