//! What comes out of archives, and why others are refused.

use codegen_types::path::InvalidPath;
use codegen_types::{ErrorCode, Failure};
use proptest::prelude::*;
use tar::Builder;

use super::*;

const BOUNDS: Bounds = Bounds { entries_max: 10, bytes_max: 4_000, file_bytes_max: 3_000 };

/// An entry whose name is whatever it is.
fn entry(kind: EntryType, name: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(contents.len() as u64);
    whole(header, contents)
}

fn whole(mut header: Header, contents: &[u8]) -> Vec<u8> {
    header.set_cksum();
    let padding = contents.len().next_multiple_of(BLOCK_BYTES) - contents.len();
    [header.as_bytes(), contents, &vec![0; padding]].concat()
}

fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, name, contents)
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name, b"")
}

fn pax(field: &str) -> Vec<u8> {
    let length = (field.len()..).find(|length| format!("{length} {field}\n").len() == *length).expect("a length");
    entry(EntryType::XHeader, "pax", format!("{length} {field}\n").as_bytes())
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 2 * BLOCK_BYTES]].concat()
}

/// Files by path and bare directories of an archive that comes in pieces of so many bytes.
type Unpacked = (Vec<(String, Vec<u8>)>, Vec<String>);

fn unpack_in(size: usize, bounds: Bounds, archive: &[u8]) -> Result<Unpacked, Refused> {
    let mut unpacking = Unpacking::new(WorkspacePath::root(), bounds);
    let mut files = Vec::new();
    for mut piece in archive.chunks(size) {
        while let Some(file) = unpacking.take(&mut piece)? {
            files.push((file.path.into(), file.contents));
        }
        assert!(piece.is_empty(), "what was given is taken");
        assert!(unpacking.held() <= bounds.file_bytes_max.max(AHEAD_BYTES_MAX) as usize);
    }
    Ok((files, unpacking.end()?.into_iter().map(String::from).collect()))
}

fn unpack(archive: &[u8]) -> Result<Unpacked, Refused> {
    let at_once = unpack_in(usize::MAX, BOUNDS, archive);
    assert_eq!(unpack_in(7, BOUNDS, archive), at_once, "it does not matter how it is cut");
    at_once
}

/// Why an archive with these parts and an end is refused, and at which entry.
fn refused(parts: &[Vec<u8>]) -> (Option<String>, Why) {
    let Refused { entry, why } = unpack(&ended(parts)).expect_err("it is refused");
    (entry, why)
}

fn at(name: &str, why: Why) -> (Option<String>, Why) {
    (Some(name.to_owned()), why)
}

#[test]
fn files_and_directories_come_out_as_they_went_in() {
    let long = "long/".repeat(30) + "漢\nname";
    let parts = [
        directory("./"),
        file("a", b"hello"),
        directory("d/"),
        file("d/block", &[7; BLOCK_BYTES]),
        [pax(&format!("path={long}")), file("short", b"x")].concat(),
        [entry(EntryType::GNULongName, "l", b"./gnu\0"), file("short", b"")].concat(),
        [entry(EntryType::XGlobalHeader, "g", b"13 comment=c\n"), directory("none")].concat(),
        directory("none/in"),
    ];
    let (files, bare) = unpack(&[ended(&parts), vec![0; 9_216]].concat()).expect("it is taken");
    let wanted = [("a", &b"hello"[..]), ("d/block", &[7; 512]), (&long, b"x"), ("gnu", b"")];
    assert_eq!(files, wanted.map(|(name, contents)| (name.to_owned(), contents.to_vec())));
    assert_eq!(bare, ["none/in"]);
}

#[test]
fn entries_belong_below_a_directory_and_nowhere_else() {
    let below = WorkspacePath::parse("in/here").expect("a path");
    let mut unpacking = Unpacking::new(below, BOUNDS);
    let archive = ended(&[file("./a", b"x"), directory("d")]);
    let taken = unpacking.take(&mut archive.as_slice()).expect("it is taken").expect("a file");
    assert_eq!((taken.name.as_str(), taken.path.as_str()), ("./a", "in/here/a"));
    let deep = WorkspacePath::parse(&["d"; 60].join("/")).expect("a path");
    let mut unpacking = Unpacking::new(deep, BOUNDS);
    let refused = unpacking.take(&mut ended(&[file("1/2/3/4/5", b"")]).as_slice()).expect_err("it is too deep");
    assert_eq!(refused, Refused::of("1/2/3/4/5", Why::Path(InvalidPath::TooDeep)));
}

#[test]
fn a_name_that_leads_out_or_is_no_text_is_refused() {
    for (name, why) in [
        ("/etc/passwd", InvalidPath::Absolute),
        ("../x", InvalidPath::ParentComponent),
        ("d/../x", InvalidPath::ParentComponent),
    ] {
        assert_eq!(refused(&[file(name, b"")]), at(name, Why::Path(why.clone())));
        assert_eq!(refused(&[directory(name)]), at(name, Why::Path(why)));
    }
    let long = |name: &str| vec![pax(&format!("path={name}")), file("x", b"")];
    assert_eq!(refused(&long("a\0b")), at("a\0b", Why::Path(InvalidPath::Nul)));
    let (deep, wide) = ("d/".repeat(64) + "x", "w".repeat(256));
    assert_eq!(refused(&long(&deep)), at(&deep, Why::Path(InvalidPath::TooDeep)));
    assert_eq!(refused(&long(&wide)), at(&wide, Why::Path(InvalidPath::ComponentTooLong)));
    assert_eq!(refused(&long(&"x/".repeat(2_050))).1, Why::Path(InvalidPath::TooLong));
    let raw = [entry(EntryType::GNULongName, "l", b"\xff\0"), file("x", b"")].concat();
    assert_eq!(refused(&[raw]), at("\u{fffd}", Why::NotUtf8));
    assert_eq!(refused(&[file("d/", b"x")]), at("d/", Why::Kind("a file without a name")));
    assert_eq!(refused(&[file(".", b"x")]), at(".", Why::Kind("a file without a name")));
}

#[test]
fn nothing_but_files_and_directories_is_taken() {
    for (kind, said) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a FIFO"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Continuous, "an entry of this kind"),
        (EntryType::new(b'V'), "an entry of this kind"),
    ] {
        assert_eq!(refused(&[file("a", b""), entry(kind, "x", b"")]), at("x", Why::Kind(said)));
    }
    let target = [entry(EntryType::GNULongLink, "l", b"far\0"), entry(EntryType::Symlink, "x", b"")].concat();
    assert_eq!(refused(&[target, file("x/through", b"")]), at("x", Why::Kind("a symbolic link")));
    let sparse = vec![pax("GNU.sparse.major=1"), file("x", b"")];
    assert_eq!(refused(&sparse), (None, Why::Kind("a sparse file")));
    assert_eq!(refused(&[pax("size=1"), file("x", b"")]), (None, Why::Kind("a size in a pax header")));
    let global = entry(EntryType::XGlobalHeader, "g", b"10 path=x\n");
    assert_eq!(refused(&[global]), (None, Why::Kind("one name for all entries")));
}

#[test]
fn no_entry_takes_the_place_of_another() {
    let (f, d) = (|name: &str| file(name, b""), directory);
    for parts in [[f("a"), f("a")], [d("a"), f("a")], [f("a"), d("a")], [f("a/b"), f("a")], [f("a"), f("./a")]] {
        assert!(matches!(refused(&parts), (Some(_), Why::Twice)));
    }
    assert_eq!(refused(&[f("a"), f("ab"), f("a/b")]), at("a/b", Why::BelowFile));
    assert_eq!(refused(&[f("a"), d("a/b/c")]), at("a/b/c", Why::BelowFile));
    let (files, bare) = unpack(&ended(&[f("a/b"), d("a"), d("a/"), d("a-b"), f("a.b")])).expect("it is taken");
    assert_eq!((files.len(), bare), (2, vec!["a-b".to_owned()]));
}

#[test]
fn more_than_an_archive_may_have_is_refused_before_it_is_held() {
    let file_of = |name: &str, size: u64| {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size);
        whole(header, b"")
    };
    assert_eq!(refused(&[file_of("a", 3_001)]), at("a", Why::FileTooLarge { size: 3_001, max: 3_000 }));
    assert_eq!(refused(&[file_of("a", u64::MAX)]), at("a", Why::FileTooLarge { size: u64::MAX, max: 3_000 }));
    let most = file("a", &[1; 3_000]);
    assert_eq!(refused(&[most.clone(), file_of("b", 1_001)]), at("b", Why::TooManyBytes { max: 4_000 }));
    assert_eq!(unpack(&ended(&[most, file("b", &[1; 1_000])])).expect("it is taken").0.len(), 2);
    let eleven: Vec<_> = (0..11).map(|n| directory(&format!("d{n}"))).collect();
    assert_eq!(refused(&eleven), at("d10", Why::TooManyEntries { max: 10 }));
    let globals = vec![entry(EntryType::XGlobalHeader, "g", b""); 11];
    assert_eq!(refused(&globals), (None, Why::TooManyEntries { max: 10 }));
    for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(AHEAD_BYTES_MAX + 1);
        assert_eq!(refused(&[whole(header, b"")]), (None, Why::TooLong), "{kind:?}");
    }
    assert_eq!(refused(&vec![pax("mtime=1"); 4]), (None, Why::TooLong), "headers without an entry");
    for much in [Why::TooManyEntries { max: 1 }, Why::TooManyBytes { max: 1 }, Why::TooManyNames { max: 1 }] {
        assert!(much.is_too_much());
    }
}

#[test]
fn names_have_a_bound_together() {
    let (bounds, deep) = (Bounds { entries_max: 10_000, ..BOUNDS }, "d".repeat(250) + "/");
    let name = |n: usize| format!("path={}{n}", deep.repeat(16));
    let parts: Vec<_> = (0..2_100).map(|n| [pax(&name(n)), directory("x")].concat()).collect();
    let why = |parts: &[Vec<u8>]| unpack_in(1 << 20, bounds, &ended(parts)).map_err(|refused| refused.why);
    assert!(why(&parts[..2_000]).is_ok());
    assert_eq!(why(&parts), Err(Why::TooManyNames { max: 8 << 20 }));
}

#[test]
fn an_archive_that_is_cut_or_damaged_or_goes_on_is_refused() {
    let good = ended(&[directory("d"), file("d/a", &[7; 700])]);
    assert!(unpack(&good).is_ok());
    for cut in 0..good.len() {
        let Refused { entry, why } = unpack_in(usize::MAX, BOUNDS, &good[..cut]).expect_err("it is cut");
        let within = (1_024..2_048).contains(&cut);
        assert_eq!((entry.as_deref(), why), (within.then_some("d/a"), Why::Cut), "after {cut} bytes");
    }
    for at in 0..BLOCK_BYTES {
        let mut damaged = good.clone();
        damaged[at] ^= 0x40;
        assert!(unpack_in(usize::MAX, BOUNDS, &damaged).is_err(), "byte {at} is another");
    }
    let refusal = |archive: &[u8]| unpack(archive).expect_err("it is refused").why;
    assert_eq!(refusal(&[&good[..], &good].concat()), Why::AfterEnd);
    assert_eq!(refusal(&[&good[..], &[0, 1]].concat()), Why::AfterEnd);
    assert_eq!(refusal(&[good.clone(), vec![0; ZEROS_MAX + 1]].concat()), Why::AfterEnd);
    assert_eq!(refusal(&[vec![0; BLOCK_BYTES], good.clone()].concat()), Why::Header, "one block is no end");
    assert_eq!(refused(&[pax("path=a")]), (None, Why::Header), "a name for nothing");
    assert_eq!(refused(&[entry(EntryType::XHeader, "p", b"8 path=a\n")]), (None, Why::Header));
    assert_eq!(refused(&[entry(EntryType::Directory, "d", b"x")]), at("d", Why::Header));
    assert_eq!(refusal(b""), Why::Cut);
}

#[test]
fn a_refusal_has_the_code_of_its_kind() {
    let code = |why: Why| Failure::from(why).code;
    assert_eq!(code(Why::Path(InvalidPath::Nul)), ErrorCode::PathViolation);
    assert_eq!(code(Why::FileTooLarge { size: 2, max: 1 }), ErrorCode::FileTooLarge);
    assert_eq!(code(Why::Cut), ErrorCode::InvalidArgument);
    assert!(Why::FileTooLarge { size: 2, max: 1 }.is_too_much() && !Why::Cut.is_too_much());
}

/// Names of files in directories, none of which is another's directory.
fn trees() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let directory = prop::collection::vec("[a-c]", 0..3);
    let contents = prop::collection::vec(any::<u8>(), 0..1_200);
    let files = prop::collection::btree_map((directory, "[x-z漢\n]{1,120}"), contents, 0..6);
    files.prop_map(|files| {
        let path = |(directory, name): (Vec<String>, String)| [directory, vec![name]].concat().join("/");
        files.into_iter().map(|(place, contents)| (path(place), contents)).collect()
    })
}

proptest! {
    #[test]
    fn any_tree_that_is_packed_is_unpacked_the_same(files in trees(), size in 1_usize..2_000, is_gnu: bool) {
        let mut builder = Builder::new(Vec::new());
        for (path, contents) in &files {
            let mut header = if is_gnu { Header::new_gnu() } else { Header::new_ustar() };
            header.set_size(contents.len() as u64);
            if is_gnu {
                builder.append_data(&mut header, path, contents.as_slice()).expect("memory");
            } else {
                builder.append_pax_extensions([("path", path.as_bytes())]).expect("memory");
                header.set_cksum();
                builder.append(&header, contents.as_slice()).expect("memory");
            }
        }
        let archive = builder.into_inner().expect("memory");
        let bounds = Bounds { bytes_max: 1 << 20, ..BOUNDS };
        prop_assert_eq!(unpack_in(size, bounds, &archive), Ok((files, Vec::new())));
    }

    #[test]
    fn no_bytes_break_it_and_none_are_held_beyond_the_bounds(
        parts in prop::collection::vec((0_usize..6, prop::collection::vec(any::<u8>(), 0..600)), 0..8),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let part = |(kind, bytes): (usize, Vec<u8>)| match kind {
            0 => bytes,
            1 => file("a/b", &bytes),
            2 => directory("d"),
            3 => entry(EntryType::XHeader, "p", &bytes),
            4 => pax("path=long"),
            _ => vec![0; BLOCK_BYTES],
        };
        let mut archive: Vec<u8> = parts.into_iter().flat_map(part).collect();
        for (at, byte) in flips.into_iter().filter(|_| !archive.is_empty()).collect::<Vec<_>>() {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let _taken_or_refused = unpack(&archive);
    }
}
