//! Deleting trees that are made to resist.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::fixture::Fixture;

/// A chain of directories too long for any path, with a file and a link in each tenth.
fn dig(top: &Path, levels: usize, outside: &Path) {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut here: OwnedFd = openat(AT_FDCWD, top, flags, Mode::empty()).expect("opened");
    for level in 0..levels {
        if level % 10 == 0 {
            nix::unistd::symlinkat(outside, &here, "link").expect("link");
            openat(&here, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).expect("file");
        }
        mkdirat(&here, "d", Mode::S_IRWXU).expect("mkdir");
        here = openat(&here, "d", flags, Mode::empty()).expect("opened");
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_deleted() {
    const LEVELS: usize = 5_000;
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| {
        fs::create_dir(inside.join("top")).expect("mkdir");
        dig(&inside.join("top"), LEVELS, &outside);
    });
    assert!(f.list("", true, None).expect("a listing").1, "too deep to be listed whole");
    assert_eq!(f.remove("top", true).expect("deleted"), LEVELS as u64 + 1 + 2 * LEVELS as u64 / 10);
    assert_eq!(f.list("", true, None).expect("a listing"), (Vec::new(), false));
    f.assert_outside_is_whole();
}

#[test]
fn a_wide_tree_is_deleted() {
    let f = Fixture::new();
    f.as_session(|inside| {
        for d in 0..20 {
            let directory = inside.join("wide").join(d.to_string());
            fs::create_dir_all(&directory).expect("mkdir");
            (0..300).for_each(|n| fs::write(directory.join(n.to_string()), "").expect("written"));
        }
    });
    assert_eq!(f.remove("wide", true).expect("deleted"), 20 * 300 + 20 + 1);
}

/// Deep, and every directory without any permission.
fn closed_tree(inside: &Path, outside: &Path) {
    let mut chain = vec![inside.join("closed")];
    for level in 0..60 {
        chain.push(chain[level].join(format!("level-{level}")));
    }
    for directory in &chain {
        fs::create_dir(directory).expect("mkdir");
        fs::write(directory.join("file"), "x").expect("written");
        symlink(outside, directory.join("link")).expect("link");
    }
    for directory in chain.iter().rev() {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o000)).expect("chmod");
    }
}

#[test]
fn directories_without_permissions_are_opened_for_deletion() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| closed_tree(inside, &outside));
    assert_eq!(f.remove("closed", true).expect("deleted"), 61 * 3);
    f.assert_outside_is_whole();
}

#[test]
fn a_workspace_that_resists_is_deleted_whole() {
    let f = Fixture::new();
    let outside = f.outside();
    f.as_session(|inside| {
        closed_tree(inside, &outside);
        dig(inside, 2_500, &outside);
        fs::set_permissions(inside, fs::Permissions::from_mode(0o000)).expect("chmod");
    });
    assert!(f.base.delete(f.session).expect("deleted"));
    assert_eq!(fs::read_dir(f.base_path()).expect("readable").count(), 0);
    f.assert_outside_is_whole();
}
