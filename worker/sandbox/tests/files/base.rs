//! The base of workspaces.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use codegen_types::{ErrorCode, Failure, SessionId};
use nix::unistd::geteuid;
use sandbox::files::{BaseError, WorkspaceBase};

use crate::fixture::{Fixture, owner};

#[test]
fn a_workspace_is_made_once_and_found_again() {
    let f = Fixture::new();
    f.write("kept", b"x").expect("written");
    let again = WorkspaceBase::open(&f.base_path()).expect("opened again");
    let (root, created) = again.open_or_create(f.session, owner()).expect("there");
    assert!(!created);
    let inside = nix::sys::stat::fstat(root.as_fd()).expect("described");
    assert_eq!(inside.st_mode & 0o7777, 0o700);
    assert_eq!(inside.st_uid, owner().unwrap_or(geteuid().as_raw()));
    assert_eq!(f.read("kept").expect("still there"), b"x");
    assert_eq!(again.held().expect("held"), [f.session]);
    assert_eq!(again.owner(f.session), Some(inside.st_uid));
    assert_eq!(again.owners().expect("owners"), [(f.session, inside.st_uid)]);
    assert_eq!(again.owner(SessionId::mint()), None);
    assert!(again.disk_usage(f.session).expect("counted").complete);
    assert!(again.free_bytes().expect("counted") > 0);
    assert_eq!(fs::metadata(f.base_path()).expect("there").mode() & 0o7777, 0o700);
}

#[test]
fn a_deleted_workspace_is_gone_and_comes_back_empty() {
    let f = Fixture::new();
    f.write("a/b", b"x").expect("written");
    assert!(f.base.delete(f.session).expect("deleted"));
    assert!(!f.base.delete(f.session).expect("nothing to delete"));
    assert_eq!(f.base.held().expect("held"), []);
    let (root, created) = f.base.open_or_create(f.session, owner()).expect("made");
    assert!(created);
    let workspace = sandbox::files::Workspace::new(root, Default::default()).expect("a workspace");
    assert_eq!(workspace.usage().expect("counted").files, 0);
}

#[test]
fn what_is_foreign_is_refused() {
    let f = Fixture::new();
    let foreign = |session: SessionId| match f.base.open_or_create(session, owner()) {
        Err(error @ BaseError::Foreign { .. }) => assert_eq!(Failure::from(error).code, ErrorCode::Internal),
        other => panic!("not refused: {other:?}"),
    };
    let (link, file) = (SessionId::mint(), SessionId::mint());
    symlink(f.outside(), f.base_path().join(link.to_string())).expect("link");
    fs::write(f.base_path().join(file.to_string()), "x").expect("written");
    foreign(link);
    foreign(file);
    if geteuid().is_root() {
        let other = SessionId::mint();
        f.base.open_or_create(other, Some(64_999)).expect("another user's");
        foreign(other);
    }
    assert!(!f.base.held().expect("held").contains(&link), "a link is no workspace");
    assert!(f.base.delete(link).expect("the link itself"));
    assert!(f.base.delete(file).expect("the file itself"));
    f.assert_outside_is_whole();
}

#[test]
fn what_an_earlier_life_left_is_deleted_at_opening() {
    let f = Fixture::new();
    for left in [".deleting-1/a/b", ".creating-2", ".spare-3"] {
        fs::create_dir_all(f.base_path().join(left)).expect("mkdir");
    }
    fs::create_dir(f.base_path().join("something-else")).expect("mkdir");
    let base = WorkspaceBase::open(&f.base_path()).expect("opened");
    assert_eq!(base.held().expect("held"), [f.session]);
    let mut names: Vec<_> =
        fs::read_dir(f.base_path()).expect("readable").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, [f.session.to_string().as_str(), "something-else"], "others' things stay");
}

#[test]
fn a_spare_workspace_becomes_one_session_s_and_never_takes_the_place_of_another() {
    let f = Fixture::new();
    let owner = geteuid().is_root().then_some(70_003);
    let (spare, directory) = f.base.create_spare(owner).expect("a spare");
    assert_eq!(f.base.held().expect("held"), [f.session], "no session's yet");
    assert!(!f.base.adopt(&spare, f.session).expect("an answer"), "that session has files");
    let session = SessionId::mint();
    assert!(f.base.adopt(&spare, session).expect("adopted"));
    let (found, created) = f.base.open_or_create(session, owner).expect("its workspace");
    let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).expect("stat").st_ino;
    assert_eq!((inode(&found), created), (inode(&directory), false));
    assert!(f.base.adopt(&spare, SessionId::mint()).is_err(), "there is nothing left to adopt");
    let (unwanted, _) = f.base.create_spare(owner).expect("a spare");
    f.base.discard(&unwanted).expect("discarded");
    assert_eq!(fs::read_dir(f.base_path()).expect("readable").count(), 2, "the two sessions' workspaces");
}

#[test]
fn a_base_that_others_can_write_to_is_refused() {
    let f = Fixture::new();
    for mode in [0o777, 0o1777, 0o770] {
        fs::set_permissions(f.base_path(), fs::Permissions::from_mode(mode)).expect("chmod");
        let refused = WorkspaceBase::open(&f.base_path()).expect_err("must be refused");
        assert!(refused.to_string().contains("chmod"), "{refused}");
    }
}

#[test]
fn a_workspace_is_given_whole_and_links_are_not_followed() {
    let place = tempfile::tempdir().expect("a directory");
    let base = WorkspaceBase::open(&place.path().join("base")).expect("a base");
    let session = SessionId::mint();
    let mine = geteuid().as_raw();
    if !geteuid().is_root() {
        base.open_or_create(session, None).expect("a workspace");
        assert!(base.give(session, mine, 70_002).is_err(), "only root gives files away");
        return;
    }
    let outside = place.path().join("outside");
    fs::write(&outside, "x").expect("a file");
    base.open_or_create(session, Some(70_001)).expect("a workspace");
    let path = place.path().join("base").join(session.to_string());
    fs::create_dir_all(path.join("a/b")).expect("directories");
    fs::write(path.join("a/b/file"), "x").expect("a file");
    symlink(&outside, path.join("a/link")).expect("a link");
    for name in ["a", "a/b", "a/b/file", "a/link"] {
        std::os::unix::fs::lchown(path.join(name), Some(70_001), Some(70_001)).expect("chown");
    }
    base.give(session, 70_001, 70_002).expect("it is given");
    let uid = |name: &str| path.join(name).symlink_metadata().expect("metadata").uid();
    for name in ["", "a", "a/b", "a/b/file", "a/link"] {
        assert_eq!(uid(name), 70_002, "{name}");
    }
    assert_eq!(outside.metadata().expect("metadata").uid(), 0);
    assert_eq!(base.owner(session), Some(70_002));
}
