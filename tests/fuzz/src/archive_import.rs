//! An archive that a hostile client uploads.

use std::collections::BTreeSet;

use codegen_types::WorkspacePath;
use coordinator_core::unpacking::{Bounds, File, Refused, Unpacking};

const BOUNDS: Bounds = Bounds { entries_max: 20, bytes_max: 8_000, file_bytes_max: 4_000 };
/// The most that is held of what is not whole, in bytes: a header before an entry, which is larger than a file may be.
const HELD_MAX: usize = 16 << 10;
const BLOCK_BYTES: usize = 512;
/// Where the sum is in a header.
const SUM: std::ops::Range<usize> = 148..156;
/// Where it is unpacked.
const BELOW: &str = "in/here";

/// The first byte says in which pieces the rest comes, and whether its headers get the sums that they should have.
///
/// # Panics
/// When how it comes makes a difference, when more is held or taken than may be, or when anything would be written twice,
/// below a file or outside its directory.
pub fn archive_import(data: &[u8]) {
    let Some((how, archive)) = data.split_first() else { return };
    let mut archive = archive.to_vec();
    if how % 2 == 0 {
        archive.chunks_exact_mut(BLOCK_BYTES).for_each(mend);
    }
    let mut whole = Vec::new();
    let end = unpack(&archive, usize::MAX, &mut whole);
    let mut pieces = Vec::new();
    assert_eq!(unpack(&archive, usize::from(*how) + 1, &mut pieces), end, "it ends otherwise in pieces");
    assert_eq!(pieces, whole, "it is another in pieces");
    check(&whole);
    if let Ok(directories) = end {
        let files: BTreeSet<_> = whole.iter().map(|file| file.path.clone()).collect();
        assert!(directories.iter().all(|path| is_inside(path) && !files.contains(path)));
    }
}

/// Gives a block the sum of a header, which chance would not find.
fn mend(block: &mut [u8]) {
    if block.iter().any(|byte| *byte != 0) {
        block[SUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Unpacks pieces of so many bytes; bare directories, or why it is refused after these files.
fn unpack(archive: &[u8], size: usize, files: &mut Vec<File>) -> Result<Vec<WorkspacePath>, Refused> {
    let below = WorkspacePath::parse(BELOW).expect("a path");
    let mut unpacking = Unpacking::new(below, BOUNDS);
    for mut piece in archive.chunks(size) {
        while let Some(file) = unpacking.take(&mut piece)? {
            files.push(file);
        }
        assert!(piece.is_empty(), "something is left over");
        assert!(unpacking.held() <= HELD_MAX, "too much is held");
    }
    unpacking.end()
}

fn check(files: &[File]) {
    let mut seen = BTreeSet::new();
    let bytes: usize = files.iter().map(|file| file.contents.len()).sum();
    assert!(files.len() <= BOUNDS.entries_max && bytes as u64 <= BOUNDS.bytes_max, "more is taken than may be");
    for File { path, contents, .. } in files {
        assert!(contents.len() as u64 <= BOUNDS.file_bytes_max, "a file is too large");
        assert!(is_inside(path), "{path} is outside");
        assert!(seen.insert(path.as_str()), "{path} is written twice");
    }
    for path in &seen {
        let is_below = path.match_indices('/').any(|(at, _)| seen.contains(&path[..at]));
        assert!(!is_below, "{path} is below a file");
    }
}

fn is_inside(path: &WorkspacePath) -> bool {
    let inside = path.as_str().strip_prefix(BELOW).and_then(|rest| rest.strip_prefix('/'));
    inside.is_some_and(|rest| !rest.is_empty()) && path.components().all(|part| part != ".." && part != ".")
}
