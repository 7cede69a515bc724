//! The session swaps directories and files for links as fast as it can, while we work on them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use codegen_types::event::FileKind;
use codegen_types::operation::WriteMode;
use codegen_types::{ErrorCode, Failure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::fixture::{Fixture, SECRET, become_session};

const ROUNDS: usize = 2_000;
/// More than so many are an attack.
const SWAPS_MIN: u64 = 100;
const ATTACK_BEGINS: Duration = Duration::from_secs(60);

/// Exchanges two names without end while `act` runs.
fn while_swapping<T>(f: &Fixture, a: &str, b: &str, act: impl FnOnce() -> T) -> T {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let inside = f.inside();
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            become_session();
            let (a, b) = (inside.join(a), inside.join(b));
            while !stop.load(Ordering::Relaxed) {
                // It fails while one of them is gone, which is part of the attack.
                let swapped = renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE);
                swaps.fetch_add(u64::from(swapped.is_ok()), Ordering::Relaxed);
            }
        });
        // However busy the machine is, nothing begins before the attack has.
        let begun = Instant::now();
        while swaps.load(Ordering::Relaxed) <= SWAPS_MIN && begun.elapsed() < ATTACK_BEGINS {
            thread::yield_now();
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        done
    });
    assert!(swaps.load(Ordering::Relaxed) > SWAPS_MIN, "the attack took place");
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Acts at least [`ROUNDS`] times, and on until both sides of the race were met. Nothing but a clear refusal may be the
/// answer to the bad one.
fn race(allowed: &[ErrorCode], mut act: impl FnMut(usize) -> Result<(), Failure>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut done, mut refused) = (0, 0);
    for round in 0.. {
        match act(round) {
            Ok(()) => done += 1,
            Err(failure) => {
                assert!(allowed.contains(&failure.code), "{failure}");
                refused += 1;
            }
        }
        if round >= ROUNDS && done > 0 && refused > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "the race was one-sided: {done} done, {refused} refused");
    }
}

/// `dir` is a real directory with the same names as outside; `evil` is a link to outside.
fn directory_and_link(f: &Fixture, target: &Path) {
    for name in ["dir/secret", "dir/deep/secret", "dir/only-inside"] {
        f.write(name, b"inside").expect("written");
    }
    f.as_session(|inside| symlink(target, inside.join("evil")).expect("link"));
}

fn each_target(act: impl Fn(&Fixture)) {
    for target in ["absolute", "relative"] {
        let f = Fixture::new();
        let outside = f.outside();
        directory_and_link(&f, if target == "absolute" { &outside } else { Path::new("../../outside") });
        while_swapping(&f, "dir", "evil", || act(&f));
        f.assert_outside_is_whole();
    }
}

#[test]
fn nothing_outside_is_read() {
    each_target(|f| {
        race(&[ErrorCode::PathViolation], |_| {
            let contents = f.read("dir/deep/secret")?;
            assert_ne!(contents, SECRET.as_bytes(), "the secret was read");
            Ok(())
        });
    });
}

#[test]
fn a_file_swapped_for_a_link_or_a_fifo_is_not_read() {
    for evil in ["link", "fifo"] {
        let f = Fixture::new();
        let outside = f.outside();
        f.write("file", b"inside").expect("written");
        f.as_session(|inside| match evil {
            "link" => symlink(outside.join("secret"), inside.join("evil")).expect("link"),
            _ => nix::unistd::mkfifo(&inside.join("evil"), nix::sys::stat::Mode::S_IRWXU).expect("fifo"),
        });
        while_swapping(&f, "file", "evil", || {
            race(&[ErrorCode::PathViolation], |_| {
                assert_eq!(f.read("file")?, b"inside");
                Ok(())
            });
        });
    }
}

#[test]
fn nothing_outside_is_described_or_listed() {
    each_target(|f| {
        race(&[ErrorCode::PathViolation], |_| {
            assert_eq!(f.stat("dir/secret")?.size, 6, "the secret was described");
            Ok(())
        });
        race(&[ErrorCode::PathViolation], |_| {
            let (names, _) = f.list("dir", true, None)?;
            assert!(names.iter().any(|name| name == "dir/only-inside"), "{names:?}");
            Ok(())
        });
    });
}

#[test]
fn a_recursive_listing_does_not_go_outside() {
    let f = Fixture::new();
    f.write("top/dir/inside", b"x").expect("written");
    let outside = f.outside();
    f.as_session(|inside| symlink(&outside, inside.join("evil")).expect("link"));
    while_swapping(&f, "top/dir", "evil", || {
        for _ in 0..ROUNDS {
            let (names, _) = f.list("", true, None).expect("a listing");
            assert!(!names.iter().any(|name| name.contains("secret")), "{names:?}");
            let scan = f.workspace.scan().expect("a scan");
            let (changes, _) = scan.changes_to(&f.workspace.scan().expect("a scan"));
            assert!(!changes.iter().any(|change| change.path.as_str().contains("secret")), "{changes:?}");
        }
    });
    f.assert_outside_is_whole();
}

#[test]
fn nothing_outside_is_written() {
    each_target(|f| {
        for mode in [WriteMode::Overwrite, WriteMode::Append, WriteMode::Create] {
            race(&[ErrorCode::PathViolation, ErrorCode::NotFound], |n| {
                let name = if mode == WriteMode::Create { format!("dir/deep/{n}") } else { "dir/secret".to_owned() };
                f.write_as(&name, b"x", mode).map(drop)
            });
        }
    });
}

#[test]
fn no_directory_is_made_outside() {
    each_target(|f| {
        race(&[ErrorCode::PathViolation, ErrorCode::NotFound], |n| f.write(&format!("dir/a{n}/b/c"), b"x").map(drop));
    });
}

#[test]
fn a_file_swapped_for_a_link_is_not_written_through() {
    let f = Fixture::new();
    let outside = f.outside();
    f.write("file", b"inside").expect("written");
    f.as_session(|inside| symlink(outside.join("secret"), inside.join("evil")).expect("link"));
    while_swapping(&f, "file", "evil", || {
        for mode in [WriteMode::Overwrite, WriteMode::Append] {
            for _ in 0..ROUNDS {
                // Once a write lands on the link, the link is gone: put it back.
                if f.write_as("file", b"x", mode).is_ok() && f.stat("evil").is_ok_and(|stat| stat.etag.is_some()) {
                    let _put_back = f.as_session(|inside| {
                        let _gone = fs::remove_file(inside.join("evil"));
                        symlink(outside.join("secret"), inside.join("evil"))
                    });
                }
            }
        }
    });
    f.assert_outside_is_whole();
}

#[test]
fn create_never_replaces_what_a_program_made_meanwhile() {
    let f = Fixture::new();
    let (inside, stop) = (f.inside(), AtomicBool::new(false));
    thread::scope(|scope| {
        let program = scope.spawn(|| {
            become_session();
            let file = inside.join("file");
            while !stop.load(Ordering::Relaxed) {
                // Whoever made it owns it until it deletes it.
                if let Ok(mut made) = fs::File::create_new(&file) {
                    made.write_all(b"program").expect("written");
                    assert_eq!(fs::read(&file).expect("still there"), b"program", "it was replaced");
                    fs::remove_file(&file).expect("removed");
                }
            }
        });
        race(&[ErrorCode::AlreadyExists], |_| {
            f.write_as("file", b"tool", WriteMode::Create)?;
            assert_eq!(f.read("file").expect("still there"), b"tool");
            f.remove("file", false).map(drop)
        });
        stop.store(true, Ordering::Relaxed);
        program.join().expect("the program's file was its own");
    });
    f.assert_nothing_temporary();
}

#[test]
fn nothing_outside_is_moved_in_or_out() {
    each_target(|f| {
        f.write("mine", b"mine").expect("written");
        race(&[ErrorCode::PathViolation, ErrorCode::NotFound], |_| {
            let there = f.mv("mine", "dir/mine", false).map(drop);
            // It is in the real directory, whichever name that has at the moment.
            while there.is_ok() && f.mv("dir/mine", "mine", false).is_err() {}
            if f.mv("dir/secret", "taken", false).is_ok() {
                assert_eq!(f.read("taken").expect("readable"), b"inside", "the secret was moved in");
                while f.mv("taken", "dir/secret", true).is_err() {}
            }
            there
        });
    });
}

#[test]
fn nothing_outside_is_deleted() {
    each_target(|f| {
        race(&[ErrorCode::PathViolation], |_| {
            for (name, made_again) in [("dir/deep", "dir/deep/secret"), ("dir/secret", "dir/secret")] {
                f.remove(name, true)?;
                while f.write(made_again, b"inside").is_err() {}
            }
            Ok(())
        });
    });
}

#[test]
fn a_tree_that_changes_while_it_is_deleted_leads_nowhere_else() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| symlink(&outside, inside.join("evil")).expect("link"));
    while_swapping(&f, "tree/a/b", "evil", || {
        let mut deleted = 0;
        for _ in 0..ROUNDS {
            let _refused_when_it_is_a_link = f.write("tree/a/b/deep/secret", b"x");
            deleted += usize::from(f.remove("tree", true).is_ok());
            if f.stat("evil").is_ok_and(|stat| stat.kind == FileKind::Directory) {
                let _swapped_meanwhile = f.remove("evil", true);
            }
            if f.stat("evil").is_err() {
                let _already_there = f.as_session(|inside| symlink(&outside, inside.join("evil")));
            }
        }
        assert!(deleted > ROUNDS / 2, "{deleted}");
    });
    f.assert_outside_is_whole();
}

#[test]
fn a_tree_that_is_filled_without_end_is_given_up() {
    let f = Fixture::new();
    f.write("tree/first", b"x").expect("written");
    let stop = AtomicBool::new(false);
    let inside = f.inside();
    let outcome = thread::scope(|scope| {
        for filler in 0..2 {
            let (stop, inside) = (&stop, &inside);
            scope.spawn(move || {
                become_session();
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let _gone = fs::create_dir_all(inside.join(format!("tree/{filler}-{}", n % 64)));
                }
            });
        }
        let outcome = f.remove("tree", true);
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    if let Err(failure) = outcome {
        assert_eq!(failure.code, ErrorCode::PreconditionFailed, "{failure}");
    }
}
