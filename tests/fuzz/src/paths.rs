//! Paths that a hostile client names, in a workspace that hostile code has prepared.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use codegen_types::operation::{List, Pictures, Read, Remove, Stat, Write, WriteMode};
use codegen_types::{Limits, OperationResult, WorkspacePath};
use sandbox::files::Workspace;

const SECRET: &[u8] = b"outside";
const INSIDE: &[u8] = b"inside";

/// The first byte says what is done, the rest is the path; every NUL but the first ends it.
///
/// # Panics
/// When a path that is taken is not relative and folded, or anything outside the workspace is read, named or changed.
pub fn paths(data: &[u8]) {
    let Some((action, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let Ok(path) = WorkspacePath::parse(&text) else { return };
    folded(&path);
    let root = crate::scratch();
    prepare(root.path());
    let workspace = fs::File::open(root.path().join("workspace")).expect("the workspace");
    let workspace = Workspace::new(workspace.into(), Limits::default()).expect("a workspace");
    act(&workspace, *action, path);
    let outside = root.path().join("outside");
    let left: Vec<_> =
        fs::read_dir(&outside).expect("what is outside").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, ["secret"], "something outside was made or removed");
    assert_eq!(fs::read(outside.join("secret")).expect("the secret"), SECRET, "something outside was changed");
    assert!(fs::read_dir(root.path()).expect("the root").count() == 2, "something beside the workspace was made");
}

fn folded(path: &WorkspacePath) {
    let text = path.as_str();
    assert!(!text.starts_with('/') && !text.contains('\0') && !text.contains("//"), "{text:?}");
    assert!(path.components().all(|component| component != ".." && component != "."), "{text:?}");
    assert_eq!(WorkspacePath::parse(text).as_ref(), Ok(path), "folding is not stable");
}

fn act(workspace: &Workspace, action: u8, path: WorkspacePath) {
    match action % 5 {
        0 => {
            let read = Read { path, offset: 0, limit: Some(64), pictures: Pictures::default() };
            if let Ok(OperationResult::Read { contents, .. }) = workspace.read(&read) {
                assert!(contents.starts_with(INSIDE), "something outside was read");
            }
        }
        1 => drop(workspace.stat(&Stat { path })),
        2 => {
            let list = List { path, recursive: true, pattern: None, entries_max: 100 };
            if let Ok(OperationResult::List { entries, .. }) = workspace.list(&list) {
                assert!(entries.iter().all(|entry| !entry.path.contains("secret")), "something outside was named");
            }
        }
        3 => {
            let write = Write { path, contents: INSIDE.to_vec(), mode: WriteMode::Overwrite, if_match: None };
            drop(workspace.write(&write));
        }
        _ => drop(workspace.remove(&Remove { path, recursive: true })),
    }
}

/// Links of every kind, in and beside directories and files.
fn prepare(root: &Path) {
    let made = || -> std::io::Result<()> {
        let (inside, outside) = (root.join("workspace"), root.join("outside"));
        fs::create_dir_all(inside.join("d/e"))?;
        fs::create_dir(&outside)?;
        fs::write(outside.join("secret"), SECRET)?;
        for file in ["f", "d/f", "d/e/f", "..f"] {
            fs::write(inside.join(file), INSIDE)?;
        }
        let links = [
            ("l", "d"),
            ("d/l", "../d/e"),
            ("o", "../outside"),
            ("d/o", "../../outside"),
            ("s", "../outside/secret"),
            ("a", "/"),
            ("p", "/proc/self/root"),
            ("c", "/proc/self/cwd"),
            ("u", ".."),
            ("d/u", "../.."),
            ("x", "x"),
            ("y", "z"),
            ("z", "y"),
            ("n", "nothing"),
            ("h", "l/../../outside"),
        ];
        for (link, target) in links {
            symlink(target, inside.join(link))?;
        }
        symlink(&outside, inside.join("w"))
    };
    made().expect("the files of a target");
}
