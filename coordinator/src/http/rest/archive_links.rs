//! Which symbolic links may be in an archive: those that lead nowhere but into it, whoever unpacks it where.

use std::collections::BTreeSet;

use codegen_types::event::{FileKind, FileStat};

/// Whether a link leads to nothing outside the workspace, by its words alone and whatever it leads through.
///
/// It may first climb, from the directory that it is in, no higher than the workspace; then it only goes down. Below
/// anything else `..` can be the parent of what another link leads to.
pub(super) fn stays_inside(link: &FileStat) -> bool {
    let Some(target) = link.target.as_deref().filter(|target| !target.is_empty() && !target.contains('\0')) else {
        return false;
    };
    if target.starts_with('/') {
        return false;
    }
    let above = link.path.split('/').count() - 1;
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | ".")).peekable();
    let mut climbed = 0;
    while parts.next_if_eq(&"..").is_some() {
        climbed += 1;
    }
    climbed <= above && parts.all(|part| part != "..")
}

/// Takes out what has a link above it, as only a worker that lies says; gives how many there were. Unpacked, it would be
/// written where the link leads.
pub(super) fn drop_what_is_below(entries: &mut Vec<FileStat>) -> u64 {
    let links: BTreeSet<String> =
        entries.iter().filter(|entry| entry.kind == FileKind::Symlink).map(|entry| entry.path.clone()).collect();
    let before = entries.len();
    let is_below = |path: &str| path.match_indices('/').any(|(at, _)| links.contains(&path[..at]));
    entries.retain(|entry| !is_below(&entry.path));
    // Of two things of one name that which is unpacked last would count.
    entries.dedup_by(|later, first| later.path == first.path);
    (before - entries.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(path: &str, kind: FileKind, target: Option<&str>) -> FileStat {
        let (path, target) = (path.to_owned(), target.map(str::to_owned));
        FileStat { path, kind, size: 0, modified_ms: 0, etag: None, mode: 0o777, target }
    }

    fn link(path: &str, target: &str) -> FileStat {
        thing(path, FileKind::Symlink, Some(target))
    }

    #[test]
    fn a_link_is_inside_only_when_nothing_can_lead_it_out() {
        for (path, target) in
            [("a", "b"), ("a", "./b//c"), ("d/a", "../b"), ("d/e/a", "../../b/c"), ("a", "..b/c.."), ("d/a", "..")]
        {
            assert!(stays_inside(&link(path, target)), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", ""),
            ("a", "/etc/passwd"),
            ("a", "//x"),
            ("a", ".."),
            ("a", "../b"),
            ("d/a", "../../b"),
            ("d/a", "./.././../b"),
            // `b` may lead anywhere inside, and its parent's parent is not known.
            ("d/e/a", "b/../c"),
            ("d/a", "../b/.."),
            ("a", "b\0c"),
        ] {
            assert!(!stays_inside(&link(path, target)), "{path} -> {target:?}");
        }
        assert!(!stays_inside(&thing("a", FileKind::Symlink, None)), "it is not known where it leads");
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let file = |path| thing(path, FileKind::File, None);
        let mut entries = vec![
            file("a"),
            link("l", "a"),
            file("l"),
            file("l/x"),
            file("l/x/y"),
            file("lx"),
            link("m/l", "a"),
            file("m/l/x"),
        ];
        assert_eq!(drop_what_is_below(&mut entries), 4);
        let left: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(left, ["a", "l", "lx", "m/l"]);
        assert_eq!(entries[1].kind, FileKind::Symlink);
    }
}
